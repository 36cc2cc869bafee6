"""One trial: train as long as every other, score on the way, give up early on what is clearly worse.

The run of a trial stops at an eighth, a quarter and half of its length and at the end, each time on a checkpoint,
and is scored there. Stopping changes nothing: a run that goes on from a checkpoint learns what an unbroken one does.
A trial that was killed goes on the same way, from the last checkpoint that its run has.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import shutil
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elegan.config import RunConfig
from elegan.errors import UserError
from elegan.files import write_bytes
from elegan.training.events import Lengthened, Planned, Saved, Step, Stopped
from elegan.training.folder import RunFolder
from elegan.training.run import events
from elegan.tuning.folder import Terms
from elegan.tuning.scoring import Scorer

SHARES = (0.125, 0.25, 0.5, 1.0)  # of a trial's length, where it is scored
PARAMETERS_AT_FAULT = ("diverged", "not enough memory")  # in messages of runs that failed by their settings


class Failed(Exception):
    """The trial has no score because of its settings; the message says why."""


class Pruned(Exception):
    """The trial was given up early; the message says why."""


class Paused(Exception):
    """The process was asked to stop; the trial goes on another time."""


@dataclass
class Trial:
    """What a trial needs: its optuna trial, its settings, where it lives and how it speaks."""

    handle: Any
    config: RunConfig
    path: Path
    terms: Terms
    scorer: Scorer
    stop: Callable[[], bool]
    say: Callable[[str], None]
    seconds: float = field(default=0.0, init=False)
    """Training time so far, over all seeds."""

    def run(self) -> float:
        """Train and score; returns the final score. Raises Failed, Pruned or Paused."""
        reached: list[float] = []
        by_rung: dict[int, list[float]] = {rung: [] for rung in range(len(SHARES))}
        for i in range(self.terms.seeds):
            seed = self.config.train.seed + i
            run = RunFolder(self.path / f"seed{seed}")
            train = self.config.train.model_copy(update={"seed": seed})
            config = self.config.model_copy(update={"train": train})
            for rung, share in enumerate(SHARES):
                by_rung[rung].append(self._score_at(run, config, share, seed))
                value = combine(by_rung[rung], self.terms, self.scorer.score)
                self._report(i * len(SHARES) + rung + 1, value, share, seed)
            self.seconds += self._trained_seconds(run)
            reached.append(by_rung[len(SHARES) - 1][-1])
        return combine(reached, self.terms, self.scorer.score)

    def _score_at(self, run: RunFolder, config: RunConfig, share: float, seed: int) -> float:
        """The score at a share of one run's length; read back where an earlier process has made it."""
        row = next((r for r in self.rows() if r["seed"] == seed and r["share"] == share), None)
        if row is None:
            train_to(run, config, self._length(config), share, self.stop, self._planned(config))
            from elegan.training.trained import Run

            trained = Run(run.path, self.config.train.device)
            numbers = self.scorer(trained)
            row = {"seed": seed, "share": share, "images": trained.images_seen} | numbers
            rows = [*self.rows(), row]
            write_bytes(self.path / "scores.jsonl", "".join(json.dumps(r) + "\n" for r in rows).encode())
        why = self.scorer.failure(row)
        if why:
            raise Failed(f"{why} at {share:.0%} of seed {seed}")
        return float(row[self.scorer.score])

    def _length(self, config: RunConfig) -> dict[str, Any]:
        """The length asked for; as the images that the same time came to before, where only rates differ."""
        images = self.handle.study.user_attrs.get(speed_key(config)) if "budget" in self.terms.length else None
        return {"images": images} if images else self.terms.length

    def _planned(self, config: RunConfig) -> Callable[[int, bool], None]:
        def remember(images: int, corrected: bool) -> None:
            study = self.handle.study
            if "budget" in self.terms.length and (corrected or speed_key(config) not in study.user_attrs):
                study.set_user_attr(speed_key(config), images)

        return remember

    def rows(self) -> list[dict[str, Any]]:
        """The rows of scores.jsonl."""
        return read_rows(self.path / "scores.jsonl")

    def _report(self, step: int, value: float, share: float, seed: int) -> None:
        """Tell the database, and raise Pruned when the pruner says so."""
        study = self.handle.study
        known = study._storage.get_trial(self.handle._trial_id).intermediate_values
        if step not in known:
            self.handle.report(value, step)
            which = f" of seed {seed}" if self.terms.seeds > 1 else ""
            self.say(f"{share:>6.0%}{which}  {self.scorer.score} {value:.4g}")
        last = self.terms.seeds * len(SHARES)
        if step < last and self.handle.should_prune():
            raise Pruned(f"at {share:.0%} of seed {seed}: {self.scorer.score} {value:.4g}")

    def _trained_seconds(self, run: RunFolder) -> float:
        rows = run.stats()
        return float(rows[-1]["seconds"]) if rows else 0.0


def speed_key(config: RunConfig) -> str:
    """A text that is the same for configurations that train equally fast: all but the size of numbers with a point.

    A learning rate does not change the time of a step; a width, a choice, or a penalty that is switched off does.
    """
    content: dict[str, Any] = {"model": config.model.model_dump(mode="json"), "precision": config.train.precision}
    content["mirror"] = config.data.mirror

    def shape(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shape(v) for key, v in value.items()}
        if isinstance(value, list):
            return [shape(v) for v in value]
        return ("0" if value == 0 else "number") if isinstance(value, float) else value

    return "images " + hashlib.sha256(json.dumps(shape(content), sort_keys=True).encode()).hexdigest()[:12]


def train_to(
    run: RunFolder,
    config: RunConfig,
    length: dict[str, Any],
    share: float,
    stop: Callable[[], bool],
    planned: Callable[[int, bool], None],
) -> None:
    """Start a run, or go on with it, until `share` of its length is trained and saved.

    `planned` is told the length, and whether it corrects one that was told before.

    Raises Paused when `stop` said so before, and Failed when the settings make the run fail.
    """
    from elegan.training import checkpoint

    found = checkpoint.listing(run.checkpoints)
    if run.exists and found and int(found[0].stem) >= share * run.config().train.images:
        return
    goal, reached = math.inf, [False]
    try:
        stream: Any = events(config, run, {} if run.exists else length, stop=lambda: reached[0] or stop())
        with contextlib.closing(stream):
            for event in stream:
                if isinstance(event, Planned):
                    goal = share * event.images
                    planned(event.images, False)
                elif isinstance(event, Lengthened):
                    goal = share * event.total
                    planned(event.total, True)
                elif isinstance(event, Step) and share < 1:
                    reached[0] = event.images >= goal
                elif isinstance(event, Saved) and reached[0]:
                    return  # what would follow now are the pictures of a run that ends
                elif isinstance(event, Stopped):
                    raise Paused
    except UserError as error:
        if any(word in str(error) for word in PARAMETERS_AT_FAULT):
            raise Failed(str(error).removeprefix(f"{run.path}: ")) from None
        raise


def combine(values: list[float], terms: Terms, score: str) -> float:
    """One score of several seeds: their mean, or the worst."""
    from elegan.tuning.scoring import lower_is_better

    if terms.count == "mean":
        return statistics.fmean(values)
    return max(values) if lower_is_better(score) else min(values)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a trial's scores.jsonl."""
    rows = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and {"seed", "share", "images"} <= row.keys():
                rows.append(row)
    return rows


def forget_checkpoints(path: Path) -> None:
    """Give back the disk space of a trial that is not among the best; its pictures and numbers stay."""
    for folder in path.glob("seed*/checkpoints"):
        shutil.rmtree(folder, ignore_errors=True)
