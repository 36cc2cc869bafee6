"""What a run folder says of itself: settings, what was changed, records, pictures, the doctor's findings."""

from __future__ import annotations

import datetime
import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from elegan import families
from elegan.about import run_info
from elegan.catalogue import shown
from elegan.config import DataConfig, RunConfig, TrainConfig, duration
from elegan.errors import UserError
from elegan.progress import number
from elegan.training.folder import RunFolder

#: Settings of `train` that the machine or the plan resolves, or that only say how a run is watched.
WATCHING = frozenset(
    (
        "checkpoint_every", "keep", "log_every", "grids", "grid_side", "score_every", "score_samples", "tensorboard",
        "check_every", "check_samples", "check_share", "best_by",
    )
)  # fmt: skip
RESOLVED = frozenset(("device", "precision", "images", "budget"))
MEASURED = ("images", "steps", "seconds", "images_per_second", "memory")  # of stats.jsonl: no value of the family's
SEVERITIES = ("problem", "warning")


class Setting(NamedTuple):
    """One setting as a page shows it."""

    name: str
    value: str
    before: str  # what the preset says
    help: str


@dataclass(frozen=True)
class Finding:
    """One row of findings.jsonl, checked: `picture` lies in the run folder."""

    images: int
    check: str
    severity: str
    text: str
    evidence: dict[str, str]
    change: str
    picture: Path | None
    earlier: tuple[int, ...] = ()  # images at which the same check had found something before
    holds: bool = True  # whether the doctor's last look found it, too


@dataclass(frozen=True)
class Facts:
    """Everything that the files of a run folder say, without its model."""

    folder: RunFolder
    config: RunConfig
    data: dict[str, Any]

    @cached_property
    def stats(self) -> list[dict[str, float]]:
        """The numbers of stats.jsonl, row by row; what is no finite number is left out."""
        return [_numbers(row) for row in self.folder.stats()]

    @cached_property
    def scores(self) -> list[dict[str, float]]:
        """The numbers of scores.jsonl, row by row."""
        return [_numbers(row) for row in self.folder.stats("scores.jsonl")]

    @cached_property
    def checks(self) -> list[dict[str, float]]:
        """The numbers of checks.jsonl, one row for each of the doctor's looks."""
        return [_numbers(row) for row in self.folder.stats("checks.jsonl")]

    @cached_property
    def info(self) -> dict[str, Any]:
        """What `elegan info` says."""
        content: dict[str, Any] = run_info(self.folder.path).to_dict()
        return content

    @cached_property
    def findings(self) -> list[Finding] | None:
        """The newest finding of each of the doctor's checks, what still holds first; None where it has not looked."""
        if not any((self.folder / name).is_file() for name in ("findings.jsonl", "checks.jsonl")):
            return None
        looks = [row["findings"] for row in self.folder.stats("checks.jsonl") if isinstance(row.get("findings"), list)]
        newest: dict[str, Finding] = {}
        for row in self.folder.stats("findings.jsonl"):
            found = _finding(row, self.folder.path)
            if found is not None:
                before = newest.get(found.check)
                earlier = (*before.earlier, before.images) if before else ()
                holds = not looks or found.check in looks[-1]
                newest[found.check] = replace(found, earlier=earlier, holds=holds)
        return sorted(newest.values(), key=lambda f: (not f.holds, SEVERITIES.index(f.severity), -f.images))

    @property
    def title(self) -> str:
        """`fashion on fashion-mnist`."""
        return f"{self.config.preset} on {self.data['name']}"

    @property
    def name(self) -> str:
        """The run folder's own name."""
        return self.folder.path.resolve().name

    @property
    def images(self) -> int:
        """Real images seen."""
        return int(self.info["images"])

    @property
    def values(self) -> list[str]:
        """The names of what the family reports of its steps, in its order."""
        return list(dict.fromkeys(key for row in self.stats for key in row if key not in MEASURED))

    def seconds_at(self, images: float) -> float:
        """Training time at which so many images had been seen, between the rows of stats.jsonl."""
        before = (0.0, 0.0)
        for row in self.stats:
            after = (row["images"], row.get("seconds", 0.0))
            if after[0] >= images:
                share = (images - before[0]) / (after[0] - before[0]) if after[0] > before[0] else 1.0
                return before[1] + share * (after[1] - before[1])
            before = after
        return before[1]

    def cells(self) -> list[tuple[str, str]]:
        """The facts at the head of a report, name and text."""
        config, info, data = self.config, self.info, self.data
        classes = f"{data['classes']} classes" if data["classes"] else "unlabelled"
        share = info["images"] / max(info["planned"], 1)
        size = f"{data['height']}x{data['width']}x{data['channels']}"
        rows = [
            ("Family", config.family),
            ("Data", f"{data['name']}, {data['count']:,} images {size}, {classes}"),
            ("Device", f"{self.device}, {config.train.precision}"),
            ("Seed", str(config.train.seed)),
            ("Images seen", f"{info['images']:,} of {info['planned']:,} planned ({share:.0%})"),
        ]
        if info["seconds"] is not None:
            rows.append(("Training time", f"{duration(info['seconds'])}, {info['steps']:,} steps"))
            rows.append(("Speed", f"{info['images_per_second']:,.0f} images/s at the end"))
        if info.get("memory"):
            rows.append(("Memory", f"{info['memory'] / 1e6:,.0f} MB at the peak"))
        if info["networks"]:
            rows.append(("Networks", ", ".join(f"{net} {number(n)}" for net, n in info["networks"].items())))
        rows.append(("Trained", self.dates))
        if self.versions:
            rows.append(("With", self.versions))
        return rows

    @cached_property
    def sittings(self) -> list[dict[str, Any]]:
        """One row for each time that training was started here; none for runs of before it was recorded."""
        return [row for row in self.folder.stats("sittings.jsonl") if isinstance(row.get("date"), str)]

    @property
    def device(self) -> str:
        """What it was trained on."""
        names = dict.fromkeys(str(row["device"]) for row in self.sittings if "device" in row)
        return ", then ".join(names) or self.config.train.device

    @property
    def versions(self) -> str:
        """Of the programs that trained it."""
        last = self.sittings[-1] if self.sittings else {}
        return ", ".join(f"{name} {last[name]}" for name in ("elegan", "torch", "python") if name in last)

    @property
    def dates(self) -> str:
        """The days on which it was trained, by its records and files."""
        files = [self.folder / name for name in ("data.json", "stats.jsonl")]
        stamps = [file.stat().st_mtime for file in files if file.is_file()]
        days = [row["date"][:10] for row in self.sittings[:1]]
        days += [datetime.datetime.fromtimestamp(stamp).date().isoformat() for stamp in stamps]
        return " to ".join(dict.fromkeys([min(days), max(days)])) if days else "unknown"

    @property
    def command(self) -> str:
        """The command that trains such a run again."""
        return command(self.config)


def facts(folder: RunFolder) -> Facts:
    """Read a run folder. Raises UserError when it is not one or its configuration is damaged."""
    return Facts(folder, folder.config(), folder.data())


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a row."""
    return {
        key: value
        for key, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def _finding(row: Mapping[str, Any], folder: Path) -> Finding | None:
    """A finding, or None where the row says nothing. A picture outside the run folder is not shown."""
    text = row.get("text")
    if not isinstance(text, str) or not text:
        return None
    severity = row.get("severity")
    evidence = row.get("evidence")
    picture = row.get("picture")
    path = None
    if isinstance(picture, str):
        path = (folder / picture).resolve()
        inside = path.is_relative_to(folder.resolve())
        path = path if inside and path.suffix == ".png" and path.is_file() else None
    return Finding(
        images=int(row["images"]),
        check=str(row.get("check", "")),
        severity=severity if severity in SEVERITIES else "warning",
        text=text,
        evidence={str(k): _short(v) for k, v in evidence.items()} if isinstance(evidence, dict) else {},
        change=row["change"] if isinstance(row.get("change"), str) else "",
        picture=path,
    )


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# Settings -----------------------------------------------------------------------------------------------------------


def settings(config: RunConfig) -> dict[str, list[Setting]]:
    """Every setting, part by part, beside what the preset says."""
    before = preset_settings(config)
    return {
        part: [
            Setting(key, shown(value), shown(before[part].get(key)), _help(getattr(config, part), key))
            for key, value in getattr(config, part).model_dump(mode="json").items()
        ]
        for part in ("model", "data", "train")
    }


def changes(config: RunConfig) -> list[Setting]:
    """What differs from the preset, but for what the plan resolves by itself and how the run is watched."""
    return [
        row._replace(name=f"{part}.{row.name}" if part != "model" else row.name)
        for part, rows in settings(config).items()
        for row in rows
        if row.value != row.before and not (part == "train" and row.name in (WATCHING | RESOLVED) - {"images"})
    ]


def preset_settings(config: RunConfig) -> dict[str, dict[str, Any]]:
    """What a run's preset says, part by part; the family's defaults where the preset is no longer known."""
    try:
        family, recipe = families.preset(config.preset)
    except UserError:
        family, recipe = "", None
    model = recipe.config if recipe and family == config.family else type(config.model)()
    data = {"source": recipe.data} | recipe.data_settings if recipe else {}
    return {
        "model": model.model_dump(mode="json"),
        "data": DataConfig(**data).model_dump(mode="json"),
        "train": TrainConfig(images=recipe.images if recipe else 0).model_dump(mode="json"),
    }


def command(config: RunConfig, out: str = "runs/again") -> str:
    """`elegan train ...` that makes the same run: what the plan resolved is said, so that it is not planned anew."""
    words = ["elegan", "train", "--preset", config.preset, "--data", config.data.source]
    words += ["--images", str(config.train.images), "--seed", str(config.train.seed)]
    words += ["--device", config.train.device, "--precision", config.train.precision]
    for row in changes(config):
        if row.name not in ("data.source", "train.seed", "train.images"):
            words += ["--set", f"{row.name}={row.value}"]
    return shlex.join([*words, "--out", out])


def _help(section: Any, key: str) -> str:
    return " ".join((type(section).model_fields[key].description or "").split())
