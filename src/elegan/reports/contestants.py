"""Who is compared: runs that differ only in their seed are one contestant. Their numbers, and what they prove."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev
from typing import Any, NamedTuple

from elegan.catalogue import shown
from elegan.config import SECTIONS, RunConfig
from elegan.errors import UserError
from elegan.reports.evaluation import Evaluation, finite
from elegan.reports.facts import WATCHING, Facts
from elegan.reports.significance import Verdict, verdict
from elegan.training.trained import Run

#: What two evaluations must agree in. Counts of what was at hand follow from the data, which is the same.
AGREE = ("version", "data", "features", "samples", "real", "split", "floor", "training", "seed")


@dataclass(frozen=True)
class Entrant:
    """One run."""

    run: Run
    facts: Facts
    judged: Evaluation

    @property
    def seed(self) -> int:
        return int(self.facts.config.train.seed)

    def score(self, field: str) -> float | None:
        """A number of its evaluation."""
        return finite(self.judged.scores["value"].get(field)) if self.judged.scores else None


@dataclass(frozen=True)
class Contestant:
    """Runs of one configuration and several seeds."""

    name: str
    entrants: list[Entrant]

    @property
    def config(self) -> RunConfig:
        return self.entrants[0].facts.config

    def scores(self, field: str) -> list[float]:
        """A number of each run that has it."""
        return [v for entrant in self.entrants if (v := entrant.score(field)) is not None]

    @property
    def seeds(self) -> str:
        """`seeds 0, 1, 2`."""
        listed = ", ".join(str(e.seed) for e in self.entrants)
        return f"{'seed' if len(self.entrants) == 1 else 'seeds'} {listed}"


class Cell(NamedTuple):
    """A contestant's place in one row of the table."""

    values: list[float]
    mean: float | None
    spread: float | None  # standard deviation over seeds
    worst: float | None
    best: bool


class Row(NamedTuple):
    """One number, for all contestants."""

    field: str
    title: str
    digits: int
    better: str
    floor: float | None
    cells: list[Cell]


class Test(NamedTuple):
    """What the seeds of two contestants say about one number: the second minus the first."""

    field: str
    title: str
    difference: float
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        interval, exact = self.verdict.interval, self.verdict.exact
        return {
            "field": self.field,
            "difference": self.difference,
            "low": interval.low if interval else None,
            "high": interval.high if interval else None,
            "p": exact.p if exact else None,
            "smallest_p": exact.smallest if exact else None,
            "words": str(self.verdict),
        }


def group(entrants: Sequence[Entrant]) -> list[Contestant]:
    """Contestants in the order in which their first run was named. UserError for the same seed twice in one."""
    groups: dict[str, list[Entrant]] = {}
    for entrant in entrants:
        groups.setdefault(signature(entrant.facts.config), []).append(entrant)
    for members in groups.values():
        members.sort(key=lambda e: e.seed)
        for a, b in itertools.pairwise(members):
            if a.seed == b.seed:
                raise UserError(
                    f"{a.run.path} and {b.run.path}: the same configuration and seed, which is one run, not two; "
                    "leave one out"
                )
    configs = [members[0].facts.config for members in groups.values()]
    return [Contestant(n, members) for n, members in zip(names(configs), groups.values(), strict=True)]


def signature(config: RunConfig) -> str:
    """Equal for runs that differ only in seed, in how they are watched, and in where the same data lies.

    Two runs of one time budget were planned for nearly equal numbers of images: they are alike, too.
    """
    settings = comparable(config)
    if config.train.budget:
        settings["train.images"] = "by budget"
    return repr(sorted(settings.items()))


def comparable(config: RunConfig) -> dict[str, Any]:
    """The settings that decide what a run learns, by full name, but for its seed."""
    content = config.model_dump(mode="json")
    left_out = {f"train.{key}" for key in (*WATCHING, "seed")} | {"data.source"}
    settings = {f"{part}.{key}": value for part in SECTIONS for key, value in content[part].items()}
    return {"family": content["family"]} | {k: v for k, v in settings.items() if k not in left_out}


def names(configs: Sequence[RunConfig]) -> list[str]:
    """The preset's name, and what tells contestants of one preset apart."""
    found = []
    for config in configs:
        alike = [c for c in configs if c.preset == config.preset]
        differing = list(differing_settings(alike))
        told = [f"{key.split('.')[-1]}={shown(comparable(config).get(key))}" for key in differing[:3]]
        more = ", …" if len(differing) > 3 else ""
        found.append(", ".join([config.preset, *told]) + more)
    return [f"{name} ({found[: i + 1].count(name)})" if found.count(name) > 1 else name for i, name in enumerate(found)]


def differing_settings(configs: Sequence[RunConfig]) -> dict[str, list[str]]:
    """Settings in which configurations differ, as texts, those that all have first; "-" where a family has none."""
    tables = [comparable(config) for config in configs]
    keys = dict.fromkeys(key for table in tables for key in table)
    keys = dict.fromkeys(sorted(keys, key=lambda key: not all(key in table for table in tables)))
    found = {}
    for key in keys:
        texts = [shown(table[key]) if key in table else "-" for table in tables]
        if len(set(texts)) > 1:
            found[key] = texts
    return found


def check_comparable(entrants: Sequence[Entrant]) -> None:
    """UserError where runs were trained on different data, or were judged by different protocols."""
    first = entrants[0]
    for other in entrants[1:]:
        a, b = first.facts.data, other.facts.data
        if a["fingerprint"] != b["fingerprint"]:
            raise UserError(
                f"{first.run.path} and {other.run.path} were trained on different data ({_data(a)} and {_data(b)}); "
                "their numbers do not compare"
            )
    judged = [entrant for entrant in entrants if entrant.judged.scores]
    for other in judged[1:]:
        a, b = judged[0].judged.protocol, other.judged.protocol
        for key in AGREE:
            if a.get(key) != b.get(key):
                raise UserError(
                    f"{judged[0].run.path} and {other.run.path} were judged by different protocols ({key}: "
                    f"{a.get(key)} and {b.get(key)}); name the same --samples and --features for both"
                )


def _data(data: dict[str, Any]) -> str:
    size = f"{data['height']}x{data['width']}x{data['channels']}"
    return f"{data['name']!r}, {data['count']:,} images {size}, {data['fingerprint'][:8]}"


@dataclass(frozen=True)
class Table:
    """The numbers of some contestants, row by row, and the tests of two."""

    contestants: list[Contestant]

    @cached_property
    def rows(self) -> list[Row]:
        """Every number of the evaluation that at least one run has."""
        from elegan.metrics.tables import ROWS

        found = []
        for field, title, digits, better in filter(None, ROWS):
            values = [contestant.scores(field) for contestant in self.contestants]
            if any(values):
                floor = self._floor(field)
                name = title[0].upper() + title[1:]
                found.append(Row(field, name, digits, better, floor, _cells(values, badness(better, floor))))
        return found

    def _floor(self, field: str) -> float | None:
        for contestant in self.contestants:
            for entrant in contestant.entrants:
                if entrant.judged.scores:
                    return finite(entrant.judged.scores["floor"].get(field))
        return None

    @cached_property
    def tests(self) -> list[Test]:
        """The second contestant against the first, number by number; nothing unless there are two."""
        if len(self.contestants) != 2:
            return []
        pairs = [(row, row.cells[0].values, row.cells[1].values) for row in self.rows]
        return [Test(row.field, row.title, fmean(b) - fmean(a), verdict(a, b)) for row, a, b in pairs if a and b]


def badness(better: str, floor: float | None) -> Callable[[float], float]:
    """Larger for worse values."""
    aim = {"near 1": 1.0, "near 0.5": 0.5, "as floor": floor if floor is not None else math.nan}
    if better == "lower":
        return lambda value: value
    if better == "higher":
        return lambda value: -value
    return lambda value: abs(value - aim.get(better, math.nan))


def _cells(values: Sequence[list[float]], bad: Callable[[float], float]) -> list[Cell]:
    means = [fmean(v) if v else None for v in values]
    grades = [bad(m) for m in means if m is not None]
    least = min((g for g in grades if math.isfinite(g)), default=math.nan)
    return [
        Cell(
            values=v,
            mean=mean,
            spread=stdev(v) if len(v) > 1 else None,
            worst=max(v, key=bad) if v else None,
            best=mean is not None and bad(mean) == least and len(grades) > 1 and grades.count(least) == 1,
        )
        for v, mean in zip(values, means, strict=True)
    ]
