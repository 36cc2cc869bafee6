"""What the doctor says: a finding, and the change that it proposes as a flag which the run's family really has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from elegan.config import RunConfig

Severity = Literal["problem", "warning"]

#: A setting and how its value changes. Tried in order: the first that the family has, and that stays valid, is taken.
Proposal = tuple[str, Callable[[Any], Any]]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. `problem`: the run is failing; `warning`: it may be fine, but look."""

    images: int
    """Real images seen when it was found."""
    check: str
    """The name of the check."""
    severity: Severity
    text: str
    """One sentence in plain words."""
    evidence: dict[str, float] = field(default_factory=dict)
    """The numbers behind it."""
    change: str = ""
    """One concrete change, as a flag of `elegan train`."""
    picture: str | None = None
    """A PNG in the run folder, relative to it."""
    shown: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """What the picture is drawn from; not recorded."""

    def row(self) -> dict[str, Any]:
        """As it stands in `findings.jsonl`."""
        names = ("images", "check", "severity", "text", "evidence", "change", "picture")
        return {name: getattr(self, name) for name in names}


def propose(config: RunConfig, proposals: Sequence[Proposal]) -> str:
    """The first proposal that this run's configuration can take, as a flag; the seed where there is none.

    A proposal that changes nothing, or that the settings' own rules refuse, is passed over.
    """
    for key, change in proposals:
        for section in (config.model, config.train, config.data):
            if key not in type(section).model_fields:
                continue
            new = changed(section, key, change)
            if new is not None:
                return f"--set {key}={written(getattr(new, key))}"
    return f"--seed {config.train.seed + 1}"


def changed(section: BaseModel, key: str, change: Callable[[Any], Any]) -> BaseModel | None:
    """A part of the configuration with one setting changed; None where that changes nothing or is not valid."""
    old = getattr(section, key)
    try:
        new = type(section).model_validate(section.model_dump() | {key: change(old)})
    except (ValidationError, TypeError):
        return None
    return None if getattr(new, key) == old else new


def written(value: Any) -> str:
    """A value as `--set` takes it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(written, value))}]"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def scaled(factor: float) -> Callable[[Any], Any]:
    """A change that multiplies a number, or every number of a pair; it is rounded to three digits."""

    def change(value: Any) -> Any:
        if isinstance(value, tuple | list):
            return tuple(change(v) for v in value)
        return float(f"{value * factor:.3g}")

    return change


def at_least(least: float) -> Callable[[Any], Any]:
    """A change that lifts a number to `least`."""
    return lambda value: max(value, least)


def becomes(new: Any) -> Callable[[Any], Any]:
    """A change to this value, whatever it was."""
    return lambda _: new


SLOWER_D: list[Proposal] = [("D_lr", scaled(0.5)), ("lr", scaled(0.5))]
SLOWER_G: list[Proposal] = [("G_lr", scaled(0.5)), ("lr", scaled(0.5))]
FASTER_D: list[Proposal] = [("D_lr", scaled(2.0)), ("D_steps", lambda n: n + 1), ("lr", scaled(2.0))]
