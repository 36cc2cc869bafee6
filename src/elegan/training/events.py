"""What a run tells the world: the loop yields these, the command line prints them, tests take a few."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elegan.doctor.finding import Finding


@dataclass(frozen=True)
class Planned:
    """Before the first step: what will be trained, on what, and what it will cost."""

    preset: str
    family: str
    data: str
    device: str
    precision: str
    parameters: dict[str, int]
    batch: int
    images: int
    seen: int  # more than 0 when a run goes on
    step_seconds: float
    seconds: float
    memory: int  # bytes, predicted peak
    derived: tuple[str, ...] = ()  # what was decided from the data, and why


@dataclass(frozen=True)
class Step:
    """The means of some steps, each row of `stats.jsonl`."""

    images: int
    total: int
    steps: int
    seconds: float  # of training, over all sittings
    images_per_second: float
    memory: int  # bytes, peak so far
    values: dict[str, float]


@dataclass(frozen=True)
class Grid:
    """A sample grid was saved; the noise is the same for all grids of a run."""

    images: int
    path: Path


@dataclass(frozen=True)
class Scores:
    """The judge's numbers during a run."""

    images: int
    scores: Any


@dataclass(frozen=True)
class Checked:
    """The doctor looked at the run; what it found wrong follows as `Finding` events."""

    images: int
    numbers: dict[str, float]
    best: bool  # the best checkpoint so far
    seconds: float  # that it took


@dataclass(frozen=True)
class Saved:
    """A checkpoint is on the disk."""

    images: int
    path: Path


@dataclass(frozen=True)
class Warned:
    """Something the user should know, in one line."""

    text: str


@dataclass(frozen=True)
class OffPace:
    """The time budget's plan has proved wrong: the run is planned and begun anew."""

    images: int


@dataclass(frozen=True)
class Lengthened:
    """The length of a run from a time budget has followed the machine's speed, up or down."""

    images: int
    before: int
    total: int


@dataclass(frozen=True)
class Stopped:
    """The run was asked to stop, and has saved."""

    images: int
    total: int


@dataclass(frozen=True)
class Finished:
    """The plan is fulfilled."""

    images: int
    seconds: float
    checks: int = 0
    check_seconds: float = 0.0


Event = Planned | Step | Grid | Scores | Checked | Finding | Saved | Warned | OffPace | Lengthened | Stopped | Finished
