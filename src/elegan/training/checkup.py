"""The doctor's looks at a run while it trains: when they happen, what is kept of them, and the best checkpoint.

A look changes nothing that is learnt: samples have noise of their own, no random number of the training is drawn and no
statistic moves. `checks.jsonl` has a row for each look, `findings.jsonl` one for each new finding, `doctor/` their
pictures. `best/` holds the sampler with the best number so far, `good/` the newest state that a look found sound (kept
for `on_collapse=rollback` alone).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

from elegan.config import RunConfig
from elegan.doctor import checks
from elegan.doctor.evidence import Evidence, RealSide, gather, movement, snapshot
from elegan.doctor.finding import Finding
from elegan.families.base import Family, Parts
from elegan.training import checkpoint
from elegan.training.engine import Engine
from elegan.training.events import Checked
from elegan.training.folder import RunFolder, best_counters

LOWER_IS_BETTER = frozenset({"frechet"})


class Checkup:
    """The looks at one run. `prepare` makes the data's side when the first look needs it."""

    def __init__(self, config: RunConfig, folder: RunFolder, engine: Engine, prepare: Callable[[], RealSide]) -> None:
        self.config, self.folder, self.engine, self._prepare = config, folder, engine, prepare
        self.rows = folder.stats("checks.jsonl")
        self.spent = sum(row.get("seconds", 0.0) for row in self.rows)
        self.real: RealSide | None = None
        self.weights: dict[str, Any] | None = None  # at the last look
        self.late: dict[str, Any] | None = None  # shortly before the next one
        self.findings: list[Finding] = []  # of the last look

    @property
    def strict(self) -> bool:
        """Whether every planned look happens: what the run becomes depends on it, and must not depend on a clock."""
        train = self.config.train
        return train.on_collapse != "warn" or train.patience > 0 or train.check_share >= 1

    def watch(self, model: Family, before: int, images: int) -> None:
        """Keep the weights a little before a look is due: what has not moved at all when it comes is frozen.

        Against the weights of the last look, a network that stopped on the way would pass until the look after.
        """
        every = self.config.train.check_every
        lead = max(every // 10, images - before)  # a step at least, or the look itself would be the moment
        if every and (images + lead) // every > (before + lead) // every:
            self.late = snapshot(model)

    def due(self, before: int, images: int, ended: bool, elapsed: float) -> bool:
        """Whether to look now, `images` into the run and after `elapsed` seconds of it."""
        every = self.config.train.check_every
        if not every or not (images // every > before // every or ended):
            return False
        if self.rows and images - self.rows[-1]["images"] < every // 2:
            return False  # the end comes soon after a look
        last = self.rows[-1].get("seconds", 0.0) if self.rows else 0.0
        return self.strict or self.spent + last <= self.config.train.check_share * elapsed

    def look(self, model: Family, counters: dict[str, Any]) -> Iterator[Checked | Finding]:
        """Look at the model once, the run being at `counters`; yields the numbers, then what is newly wrong."""
        start, images = time.perf_counter(), int(counters["images"])
        if self.real is None:
            self.real = self._prepare()
        weights = snapshot(model)
        with self.engine.context():
            e = gather(
                model,
                self.real,
                images,
                self.config.train.images,
                self.config,
                moved=movement(self.weights, weights),
                lately=movement(self.late, weights),
                history=self.rows,
                stats=self.folder.stats(),
            )
        self.weights, self.late = weights, None
        self.findings = checks.examine(e)
        new = record(self.folder, e, self.findings, self.rows[-1].get("findings", []) if self.rows else [])
        best = self._keep_best(model, e)
        if self.config.train.on_collapse == "rollback" and not self.fatal:
            self._keep_good(model, counters)
        seconds = time.perf_counter() - start
        self.spent += seconds
        row = e.row() | {"findings": [f.check for f in self.findings], "seconds": round(seconds, 3)}
        self.folder.append(row, "checks.jsonl")
        self.rows.append(row)
        yield Checked(images, e.numbers, best, seconds)
        yield from new

    @property
    def fatal(self) -> Finding | None:
        """What `on_collapse` acts on in the last look, if anything."""
        return next((f for f in self.findings if f.check in checks.FATAL), None)

    def broke(self, images: int, what: list[str]) -> Finding:
        """Record that tensors or values, by these names, hold no numbers any more."""
        e = Evidence(images, self.config.train.images, self.config, {}, broken=what)
        finding = checks.not_finite(e)
        assert finding is not None
        self.findings = record(self.folder, e, [finding], [])
        return self.findings[0]

    def forget(self, images: int) -> None:
        """Go back to where the run had seen `images`."""
        self.rows = [row for row in self.rows if row["images"] <= images]
        self.weights, self.late, self.findings = None, None, []

    def best(self) -> tuple[int, float] | None:
        """Where the best checkpoint is and its number; None when there is none by the number chosen now."""
        meta = best_counters(self.folder)
        if meta is None or meta["by"] != self.config.train.best_by:
            return None
        return meta["images"], meta["score"]

    def exhausted(self, images: int) -> bool:
        """Whether the last `patience` looks brought nothing better."""
        patience, best = self.config.train.patience, self.best()
        if not patience or best is None:
            return False
        return sum(best[0] < row["images"] <= images for row in self.rows) >= patience

    def ended_early(self, images: int) -> str:
        """Why the run ends before its plan, and where the best state is."""
        train, best = self.config.train, self.best()
        assert best is not None
        return (
            f"ended at {images:,} of {train.images:,} images: no better {train.best_by.replace('_', ' ')} in "
            f"{train.patience} looks; the best, {best[1]:.4g} at {best[0]:,} images, is --checkpoint best"
        )

    def _keep_best(self, model: Family, e: Evidence) -> bool:
        by = self.config.train.best_by
        score = e.numbers.get(by)
        if score is None:
            return False
        best = self.best()
        if best is not None and best[0] != e.images:
            better = score < best[1] if by in LOWER_IS_BETTER else score > best[1]
            if not better or best[0] > e.images:  # a run that repeats a part will come to it again
                return False
        sampler = Parts(nets={model.sampler: model.parts.nets[model.sampler]}, values=model.parts.values)
        path = checkpoint.save(self.folder / "best", sampler, {"images": e.images, "by": by, "score": score})
        checkpoint.prune(self.folder / "best", 1, path)
        return True

    def _keep_good(self, model: Family, counters: dict[str, Any]) -> None:
        path = checkpoint.save(self.folder / "good", model.parts, counters)
        checkpoint.prune(self.folder / "good", 1, path)


def record(folder: RunFolder, e: Evidence, findings: list[Finding], known: list[str]) -> list[Finding]:
    """Draw and write down the findings that were not known at the last look; returns them."""
    from elegan.doctor.pictures import draw

    new = []
    for finding in findings:
        if finding.check in known:
            continue
        name = f"doctor/{e.images:09}-{finding.check.replace(' ', '-')}.png"
        (folder / "doctor").mkdir(exist_ok=True)
        picture = name if draw(finding, e, folder / name) else None
        new.append(dataclasses.replace(finding, picture=picture))
        folder.append(new[-1].row(), "findings.jsonl")
    return new
