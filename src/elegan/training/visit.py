"""`elegan doctor RUN`: the doctor looks at a run folder on demand, from its newest checkpoint."""

from __future__ import annotations

import contextlib
import os
import textwrap
from dataclasses import dataclass
from typing import Any

from elegan.doctor import checks
from elegan.doctor.evidence import Evidence, RealSide, gather, movement, snapshot
from elegan.doctor.finding import Finding
from elegan.errors import UserError
from elegan.families.base import Family, ImageSpec
from elegan.training import checkpoint, remedy
from elegan.training.checkup import record
from elegan.training.engine import Engine, pick_device
from elegan.training.folder import RunFolder
from elegan.training.plan import build_model
from elegan.training.trained import Run, sampling_engine

SAMPLES = 1000
#: field of the evidence, title, what is good
NUMBERS = (
    ("frechet", "Frechet distance", "as real pictures'"),
    ("precision", "precision", "high"),
    ("recall", "recall", "high"),
    ("diversity", "distance of pairs, real pictures' = 1", "near 1"),
    ("twins", "share with a twin", "near 0"),
    ("label_accuracy", "class as asked", "high"),
    ("D_tells", "D scores real above generated", "0.5 to 0.99"),
    ("D_memory", "D scores training above unseen", "near 0.5"),
)


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor found in a run. `print(diagnosis)` is for people, `to_dict()` for programs."""

    path: str
    images: int
    planned: int
    findings: list[Finding]
    """Of this look, problems first."""
    earlier: list[dict[str, Any]]
    """The rows of findings.jsonl: what was found before."""
    numbers: dict[str, float]
    real: RealSide
    notes: list[str]

    @property
    def healthy(self) -> bool:
        """Whether nothing was found that is failing."""
        return all(finding.severity != "problem" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Plain values only."""
        return {
            "path": self.path,
            "images": self.images,
            "planned": self.planned,
            "healthy": self.healthy,
            "findings": [finding.row() for finding in self.findings],
            "earlier": self.earlier,
            "numbers": self.numbers,
            "frechet_of_real": self.real.frechet,
            "reference": self.real.reference,
            "notes": self.notes,
        }

    def __str__(self) -> str:
        share = self.images / max(self.planned, 1)
        lines = [f"{self.path}: {self.images:,} of {self.planned:,} images ({share:.0%})", ""]
        for finding in self.findings:
            lines += self._finding(finding)
        if not self.findings:
            lines += [f"Nothing wrong was found ({len(checks.CHECKS)} checks).", ""]
        for field, title, good in NUMBERS:
            if field in self.numbers:
                lines.append(f"  {title:38}{self.numbers[field]:>9.3g}  {good}")
        lines.append(f"  {'Frechet distance of real pictures':38}{self.real.frechet:>9.3g}")
        held = f"; unseen: {self.real.held.what}" if self.real.held else ""
        lines.append(f"  {len(self.real.images)} samples against {self.real.reference}{held}")
        if self.earlier:
            lines += ["", "found earlier:"]
            lines += [f"  at {row['images']:,}: {row.get('check')} ({row.get('severity')})" for row in self.earlier]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def _finding(self, finding: Finding) -> list[str]:
        numbers = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in finding.evidence.items())
        rows = [(finding.severity.upper(), finding.text), ("evidence", numbers), ("try", finding.change)]
        if finding.picture:
            rows.append(("look at", f"{self.path}/{finding.picture}"))
        return [
            *(textwrap.fill(f"{a:9} {b}", 110, subsequent_indent=" " * 10, break_on_hyphens=False) for a, b in rows),
            "",
        ]


def diagnose(path: str | os.PathLike[str], device: str = "auto", samples: int = SAMPLES) -> Diagnosis:
    """Look at the newest checkpoint of a run; what `elegan doctor RUN` does.

    New findings and their pictures are kept in the run folder, unless it is being trained just now or cannot be
    written. Raises UserError where there is no run, no checkpoint or not its data.
    """
    from elegan.training.run import doctors_data, open_split

    run = Run(path, device)
    folder = run.folder
    config = remedy.current(run.config, folder)
    engine = sampling_engine(pick_device(device), config.train.precision)
    dataset = open_split(config, "train")
    notes = []
    if dataset.fingerprint != run.data["fingerprint"]:
        notes.append("the data is not what it was when the run started")
    images, model, moved = load_pair(folder, engine, config, run.spec)
    sized = config.model_copy(update={"train": config.train.model_copy(update={"check_samples": samples})})
    real = doctors_data(sized, dataset)
    rows = [row for row in folder.stats("checks.jsonl") if row["images"] < images]
    with engine.context():
        e = gather(model, real, images, config.train.images, config, moved=moved, history=rows, stats=folder.stats())
    found = checks.examine(e)
    earlier = folder.stats("findings.jsonl")
    found, note = keep(folder, e, found, [row.get("check", "") for row in earlier if row["images"] == images])
    notes += note
    if e.young:
        notes.append("the run has hardly begun: checks that a new generator could not pass are not asked yet")
    return Diagnosis(str(folder.path), images, config.train.images, found, earlier, e.row_numbers(), real, notes)


def load_pair(folder: RunFolder, engine: Engine, config: Any, spec: ImageSpec) -> tuple[int, Family, dict[str, float]]:
    """The newest checkpoint as a model, the images it has seen, and how far it moved since the one before."""
    whole = []
    for path in checkpoint.listing(folder.checkpoints):
        with contextlib.suppress(checkpoint.Damaged):
            whole.append(checkpoint.read(path))
        if len(whole) == 2:
            break
    if not whole:
        raise UserError(f"{folder.path}: has no whole checkpoint yet; run its `elegan train` command again")
    model = build_model(config, spec, engine)
    before = None
    for tensors, meta in reversed(whole):
        checkpoint.restore(model.parts, tensors, meta["optimizers"])
        after = snapshot(model)
        moved, before = movement(before, after), after
    return int(whole[0][1]["counters"]["images"]), model, moved


def keep(folder: RunFolder, e: Evidence, found: list[Finding], known: list[str]) -> tuple[list[Finding], list[str]]:
    """Write down what is new; the findings with their pictures, and why they were not written if so."""
    try:
        with folder.lock():
            new = record(folder, e, found, known)
    except (UserError, OSError) as error:
        return found, [f"not kept in the run folder: {error}"]
    drawn = {finding.check: finding for finding in new}
    old = {row.get("check"): row.get("picture") for row in folder.stats("findings.jsonl") if row["images"] == e.images}
    kept = [drawn.get(f.check) or Finding(**f.row() | {"picture": old.get(f.check)}) for f in found]
    return kept, []
