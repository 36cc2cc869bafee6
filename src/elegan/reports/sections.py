"""The parts of a report as plain values: pictures, charts, classes, copies. The templates lay them out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from elegan.config import duration
from elegan.reports.charts import Chart, Line, chart, count_form
from elegan.reports.evaluation import Suspects, finite
from elegan.reports.facts import Facts
from elegan.reports.pictures import Picture, cells, frames, picture, read, sheet
from elegan.reports.readings import grade
from elegan.training.trained import Run

FRAMES = 24  # of the slider, at most
CLASSES, PER_CLASS = 20, 10  # of the class sheets, at most
SHEET = 60  # samples of a run without classes
SIDE = 84  # pixels of a page that the longer side of one image is shown at, about

NAMES = {
    "D_loss": "D's loss",
    "G_loss": "G's loss",
    "D_real": "right on real",
    "D_fake": "right on fake",
}
LOOKS = "Of the doctor's looks, few samples against training pictures"
SHARES = tuple((name, name.replace("_", " ")) for name in ("precision", "recall", "coverage", "label_accuracy"))


class Frame(NamedTuple):
    """A sample grid of the slider."""

    images: str
    when: str
    picture: Picture


class ClassSheet(NamedTuple):
    """One class: its samples, and real images of it where they are at hand."""

    name: str
    samples: Picture
    real: Picture | None


class Suspect(NamedTuple):
    """A sample beside its nearest training images, each with its distance."""

    sample: Picture
    neighbours: list[tuple[Picture, str]]
    ratio: str
    copy: bool


def enlarged(size: tuple[int, int], side: int = SIDE) -> int:
    """How often the pixels of an image of (height, width) are repeated to be well seen."""
    return max(1, round(side / max(size)))


def size_of(run: Run) -> tuple[int, int]:
    """(height, width) of a run's images."""
    return run.spec.height, run.spec.width


# Samples ------------------------------------------------------------------------------------------------------------


def film(facts: Facts) -> list[Frame]:
    """The sample grids over time, evenly picked."""
    paths = facts.folder.grids()
    if not paths:
        return []
    paths = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, FRAMES).round().astype(int))]
    seen = [int(path.stem) for path in paths]
    alts = [f"Samples after {n:,} real images" if n else "Samples before training" for n in seen]
    made = frames(paths, (facts.data["height"], facts.data["width"]), alts)
    return [
        Frame(f"{n:,} images", duration(facts.seconds_at(n)), shown)
        for n, shown in zip(seen, made, strict=True)
        if shown is not None
    ]


def real_sheet(facts: Facts) -> Picture | None:
    """Real images, as the run folder keeps them."""
    size = facts.data["height"], facts.data["width"]
    made = frames([facts.folder / "real.png"], size, ["Real images of the training data"])
    return made[0]


def samples(run: Run, n: int = SHEET, columns: int = 10, seed: int = 0) -> Picture:
    """A sheet of new samples; of conditional models one class a column."""
    labels: list[int] | None = None
    if run.conditional:
        columns = min(run.spec.classes, columns)
        n -= n % columns
        labels = [i % columns for i in range(n)]
    drawn = run.sample(n, labels, seed=seed)
    alt = f"{n} samples" + (f", one class a column: {', '.join(run.class_names[:columns])}" if labels else "")
    return sheet(drawn.images, columns, alt, scale=enlarged(size_of(run), 56))


def class_sheets(run: Run, facts: Facts) -> list[ClassSheet]:
    """Samples of each class (or of each category that the model has found), beside real images of it."""
    count = min(run.model.categories, CLASSES)
    if not count:
        return []
    labels = np.arange(count).repeat(PER_CLASS)
    drawn = run.sample(count * PER_CLASS, [int(i) for i in labels], seed=0).images
    names = run.class_names if run.conditional else [f"category {i}" for i in range(count)]
    real = real_by_class(facts) if run.conditional else {}
    size, found = size_of(run), []
    for label in range(count):
        name = names[label]
        per_row = min(PER_CLASS, len(real[label])) if label in real else PER_CLASS
        mine = sheet(
            drawn[labels == label][:per_row], per_row, f"{per_row} samples of {name}", scale=enlarged(size, 56)
        )
        real_ones = None
        if label in real:
            real_ones = sheet(real[label], len(real[label]), f"Real images of {name}", scale=enlarged(size, 56))
        found.append(ClassSheet(name, mine, real_ones))
    return found


def real_by_class(facts: Facts) -> dict[int, np.ndarray]:
    """Real images (n, H, W, C) of each class, out of the sheet in the run folder, which has a class a column."""
    image = read(facts.folder / "real.png")
    tiled = None if image is None else cells(image, (facts.data["height"], facts.data["width"]))
    wanted = min(10, facts.data["classes"])
    if tiled is None or wanted < 2 or tiled.shape[1] != wanted or tiled.shape[-1] != facts.data["channels"]:
        return {}
    return {column: tiled[:PER_CLASS, column] for column in range(wanted)}


def paths(run: Run) -> list[tuple[Picture, str]]:
    """Strips from one sample to another, each with the name of its class."""
    from elegan.reports.interpolation import classes, strips

    made, of = strips(run), classes(run)
    named = run.class_names if run.conditional else [f"category {i}" for i in range(run.model.categories)]
    scale = enlarged(size_of(run), 72)
    names = [named[label] for label in of] or [""] * len(made)
    return [
        (sheet(strip, len(strip), f"From one sample {f'of {name} ' if name else ''}to another", scale=scale), name)
        for strip, name in zip(made, names, strict=True)
    ]


# Copies -------------------------------------------------------------------------------------------------------------


def suspects(found: Suspects) -> list[Suspect]:
    """The most suspicious samples, each beside its nearest training images."""
    scale = enlarged((found.samples.shape[1], found.samples.shape[2]))
    shown = []
    for i, ratio in enumerate(found.ratios):
        near = [
            (
                picture(image, f"Training image {k + 1} nearest to it", scale=scale),
                f"{distance:,.0f}" if distance >= 10 else f"{distance:.2g}",
            )
            for k, (image, distance) in enumerate(zip(found.neighbours[i], found.distances[i], strict=True))
        ]
        copy = bool(ratio < found.threshold or found.distances[i, 0] == 0)
        mine = picture(found.samples[i], f"Suspicious sample {i + 1}", scale=scale)
        shown.append(Suspect(mine, near, f"{ratio:.2f}", copy))
    return shown


def copy_verdict(found: Suspects) -> str:
    """The verdict of the copy test in words."""
    by_chance = found.expected * found.searched
    head = f"{found.copies:,} of {found.searched:,} samples single out one training image"
    if found.copies <= max(3 * by_chance, 1):
        return f"{head}; of unseen real images about {by_chance:,.0f} would. There is no sign of copying."
    return f"{head}; of unseen real images about {by_chance:,.0f} would. The model repeats training images: see below."


# Curves -------------------------------------------------------------------------------------------------------------


def curves(facts: Facts) -> list[Chart]:
    """All that was recorded while the run trained."""
    losses = [name for name in facts.values if name.endswith("_loss")]
    accuracies = [name for name in ("D_real", "D_fake") if name in facts.values]
    others = [name for name in facts.values if name not in losses + accuracies]
    rows, note = (facts.scores, "Of the scores during the run") if facts.scores else (facts.checks, LOOKS)
    made = [
        chart("Losses", recorded(facts, losses), "They need not fall: G and D play against each other.", smooth=True),
        chart(
            "What D judges rightly",
            recorded(facts, accuracies),
            "At one half D is guessing; near 1 for long, it has won.",
            y_range=(0, 1),
            form=lambda v: f"{v:.0%}",
            level=("guessing", 0.5),
            smooth=True,
        ),
        chart(
            "Frechet distance",
            scored(facts, rows, [("frechet", "Frechet distance")]),
            f"{note}; lower is better.",
            y_range=(0, None),
        ),
        chart("Shares", scored(facts, rows, SHARES), f"{note}; higher is better.", y_range=(0, 1)),
        *(chart(name, recorded(facts, [name]), "Reported by the family's step.", smooth=True) for name in others[:6]),
        chart("Images a second", recorded(facts, ["images_per_second"]), y_range=(0, None), form=count_form),
        chart("Memory, MB", recorded(facts, ["memory"], 1e-6), "The peak so far.", y_range=(0, None), form=count_form),
    ]
    return [one for one in made if one is not None]


def recorded(facts: Facts, names: Sequence[str], factor: float = 1.0) -> list[Line]:
    """Lines of stats.jsonl."""
    titles = NAMES | {"images_per_second": "images/s", "memory": "memory"}
    return [
        line(facts, facts.stats, name, titles.get(name, name.replace("_", " ")), slot, factor)
        for slot, name in enumerate(names)
    ]


def scored(facts: Facts, rows: Sequence[dict[str, float]], names: Sequence[tuple[str, str]]) -> list[Line]:
    """Lines of the rows of scores.jsonl or checks.jsonl."""
    return [line(facts, rows, field, title, slot) for slot, (field, title) in enumerate(names)]


def line(
    facts: Facts, rows: Sequence[dict[str, float]], field: str, name: str, slot: int = 0, factor: float = 1.0,
    dash: int = 0,
) -> Line:  # fmt: skip
    """One number of some rows as a line; rows without it are passed over."""
    rows = [row for row in rows if field in row]
    images = [row["images"] for row in rows]
    times = [row["seconds"] if "seconds" in row else facts.seconds_at(row["images"]) for row in rows]
    return Line(name, images, times, [factor * row[field] for row in rows], slot, dash)


# Classes ------------------------------------------------------------------------------------------------------------


def class_table(scores: dict[str, Any]) -> list[dict[str, Any]]:
    """The share of each class, of samples and of real images, in per cent, with standard errors where known."""
    value, floor = scores["value"].get("class_shares"), scores["floor"].get("class_shares")
    if not isinstance(value, list) or not isinstance(floor, list):
        return []
    errors = scores["value"].get("class_shares_error") or []
    names = scores.get("class_names") or []
    rows = []
    for i, (mine, real) in enumerate(zip(value, floor, strict=False)):
        v, f = finite(mine) or 0.0, finite(real) or 0.0
        error = finite(errors[i]) if i < len(errors) else None
        name = names[i] if i < len(names) else f"class {i}"
        rows.append(
            {"name": str(name), "value": 100 * v, "floor": 100 * f, "seldom": f > 0 and v < f / 2}
            | {"error": None if error is None else 100 * error}
        )
    return rows


class PerClass(NamedTuple):
    """A table with a row for each class: `rows` are names with cells (samples, error, floor, how many of the floor)."""

    header: list[str]
    rows: list[tuple[str, str, list[tuple[str, str, str, str]]]]


def per_class(scores: dict[str, Any]) -> PerClass | None:
    """The numbers of each class, where there are any."""
    from elegan.metrics.tables import CLASS_COLUMNS, pair

    classes = scores.get("per_class") or []
    columns = [c for c in CLASS_COLUMNS if any(finite(k["value"].get(c[0])) is not None for k in classes)]
    if not columns:
        return None
    rows = []
    for one in classes:
        cells = []
        for field, _, higher in columns:
            v, f = finite(one["value"].get(field)), finite(one["floor"].get(field))
            if v is None:
                cells.append(("-", "", "", "plain"))
                continue
            texts = pair(v, finite(one["value"].get(f"{field}_error")), 3, " ± ").partition(" ± ")
            graded = grade(field, {True: "higher", False: "lower", None: "near 1"}[higher], v, f)
            cells.append((texts[0], texts[2], f"{f:.3g}" if f is not None else "-", graded))
        rows.append((str(one["name"]), f"{one['value']['images']:,}", cells))
    return PerClass([title[0].upper() + title[1:] for _, title, _ in columns], rows)
