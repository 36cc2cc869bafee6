"""Curves as plain geometry: a template draws them as inline SVG, with and without a script.

The drawing is stretched to the page's width, so lines live in a square of 1000 by 1000 and everything that is text
(ticks, names, values) stands beside it in HTML. Each chart holds the same lines twice, against images and against
training time; the page shows one of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from elegan.config import duration

SIDE = 1000.0  # of the drawing
POINTS = 200  # of a line
SMOOTHED = 40  # lines of fewer points are drawn as they are
TICKS = 4
COLOURS = 6  # of the palette in style.css


class Line(NamedTuple):
    """Values `ys` at `images` and `seconds`, all of one length. `slot` is its colour, `dash` its pattern."""

    name: str
    images: Sequence[float]
    seconds: Sequence[float]
    ys: Sequence[float]
    slot: int = 0
    dash: int = 0


class Tick(NamedTuple):
    at: float  # per cent from the left or from the top
    text: str


class Path(NamedTuple):
    name: str
    d: str
    slot: int
    dash: int
    pale: bool = False


class Plot(NamedTuple):
    """One drawing: ticks, lines as SVG paths, a level across, and the points for the script."""

    axis: str  # images or time
    x_title: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    paths: list[Path]
    level: float | None  # per cent from the top
    data: dict[str, Any]


@dataclass(frozen=True)
class Chart:
    """A titled chart, ready to be drawn. `table`: some of its values, for who cannot see it."""

    title: str
    note: str
    plots: list[Plot]
    legend: list[Path]
    level_name: str
    header: list[str]
    table: list[list[str]]
    alt: str


def chart(
    title: str,
    lines: Sequence[Line],
    note: str = "",
    *,
    y_range: tuple[float | None, float | None] = (None, None),
    form: Callable[[float], str] | None = None,
    level: tuple[str, float] | None = None,
    smooth: bool = False,
    legend: Sequence[tuple[str, int, int]] | None = None,
) -> Chart | None:
    """A chart of some lines; None where no line has two points. `level`: a name and a height, drawn across.

    With `smooth` long lines are drawn pale, under their running means. `legend` names colours and patterns (name,
    slot, dash) where several lines share one.
    """
    lines = [thin(line) for line in lines if len(line.ys) > 1]
    if not lines:
        return None
    low, high, cut = limits([line.ys for line in lines], y_range, level[1] if level else None)
    steps = ticks(low, high)
    low, high = min([low, *steps]), max([high, *steps])
    form = form or number_form(steps)
    if cut:
        note = f"{note} {cut} extreme {'value lies' if cut == 1 else 'values lie'} outside.".strip()
    y_ticks = [Tick(100 * (1 - (step - low) / (high - low)), form(step)) for step in steps]
    across = 100 * (1 - (level[1] - low) / (high - low)) if level else None
    plots = [
        plot(axis, [xs(line) for line in lines], lines, (low, high), y_ticks, across, smooth)
        for axis, xs in (("images", lambda line: line.images), ("time", lambda line: line.seconds))
    ]
    return Chart(
        title=title,
        note=note,
        plots=plots,
        legend=[Path(n, "", slot, dash) for n, slot, dash in legend or [(x.name, x.slot, x.dash) for x in lines]],
        level_name=f"{level[0]} {form(level[1])}" if level else "",
        header=["images", *(line.name for line in lines)],
        table=table(lines),
        alt=describe(title, lines),
    )


def plot(
    axis: str, xs: list[Sequence[float]], lines: Sequence[Line], y: tuple[float, float], y_ticks: list[Tick],
    level: float | None, smooth: bool = False,
) -> Plot:  # fmt: skip
    """The drawing of lines against one axis, from zero to the last point."""
    end = max(max(x) for x in xs) or 1.0
    steps = time_ticks(end) if axis == "time" else ticks(0.0, end)
    steps = [step for step in steps if step <= end * 1.001]
    form = duration if axis == "time" else count_form
    low, high = y
    pairs = list(zip(lines, xs, strict=True))
    noisy = [(line, x) for line, x in pairs if smooth and len(line.ys) >= SMOOTHED]
    paths = [Path(line.name, path(x, line.ys, end, low, high), line.slot, 0, True) for line, x in noisy]
    for line, x in pairs:
        ys = running_mean(line.ys) if smooth and len(line.ys) >= SMOOTHED else line.ys
        paths.append(Path(line.name, path(x, ys, end, low, high), line.slot, line.dash))
    data = {
        "end": end,
        "low": low,
        "high": high,
        "axis": axis,
        "lines": [
            {"name": line.name, "slot": line.slot, "x": [short(v) for v in x], "y": [short(v) for v in line.ys]}
            for line, x in pairs
        ],
    }
    title = "training time" if axis == "time" else "real images seen"
    return Plot(axis, title, [Tick(100 * step / end, form(step)) for step in steps], y_ticks, paths, level, data)


def path(xs: Sequence[float], ys: Sequence[float], end: float, low: float, high: float) -> str:
    """The `d` of an SVG path through the points; values outside are drawn at the border."""
    points = []
    for x, y in zip(xs, ys, strict=True):
        top = SIDE * (1 - (min(max(y, low), high) - low) / (high - low))
        points.append(f"{SIDE * x / end:.1f} {top:.1f}")
    return "M" + "L".join(points)


def running_mean(ys: Sequence[float]) -> list[float]:
    """Means over a twelfth of the line around each point, less at its ends."""
    reach = max(1, len(ys) // 24)
    sums = np.concatenate([[0.0], np.cumsum(ys)])
    spans = [(max(i - reach, 0), min(i + reach + 1, len(ys))) for i in range(len(ys))]
    return [float((sums[b] - sums[a]) / (b - a)) for a, b in spans]


def thin(line: Line) -> Line:
    """At most `POINTS` points: means of equal numbers of neighbours."""
    n = len(line.ys)
    if n <= POINTS:
        return line
    groups = np.array_split(np.arange(n), POINTS)
    means = [[float(np.mean(np.asarray(v)[g])) for g in groups] for v in (line.images, line.seconds, line.ys)]
    return line._replace(images=means[0], seconds=means[1], ys=means[2])


def limits(
    values: Sequence[Sequence[float]], wanted: tuple[float | None, float | None], level: float | None
) -> tuple[float, float, int]:
    """`(low, high, how many values lie outside)`: a few values far away do not squeeze all others into a line."""
    every = np.concatenate([np.asarray(v, float) for v in values])
    quarter, three = np.quantile(every, [0.25, 0.75])
    reach = 8 * (three - quarter)
    inside = every[(every >= quarter - reach) & (every <= three + reach)] if reach > 0 else every
    low, high = float(inside.min()), float(inside.max())
    if level is not None:
        low, high = min(low, level), max(high, level)
    low = low if wanted[0] is None else wanted[0]
    high = high if wanted[1] is None else wanted[1]
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-9):
        low, high = (low - 0.5, high + 0.5) if not low else (min(0.0, 2 * low), max(0.0, 2 * low))
    return low, high, int(np.sum((every < low - 1e-9) | (every > high + 1e-9)))


def ticks(low: float, high: float, count: int = TICKS) -> list[float]:
    """About `count` round numbers from at or below `low` to at or above `high`."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def time_ticks(end: float) -> list[float]:
    """Round times from zero on, about four."""
    sizes = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)
    step = next((s for s in sizes if end / s <= TICKS + 1), 86400 * math.ceil(end / 86400 / TICKS))
    return [float(i * step) for i in range(int(end / step) + 1)] if end >= 1 else ticks(0.0, end)


def number_form(steps: Sequence[float]) -> Callable[[float], str]:
    """Writes numbers with as many digits as tell these steps apart."""
    gap = min((b - a for a, b in itertools.pairwise(steps)), default=1.0)
    digits = max(0, -math.floor(math.log10(gap) + 1e-9)) if gap > 0 else 0
    digits += 1 if abs(gap * 10**digits - round(gap * 10**digits)) > 1e-6 else 0
    return lambda value: count_form(value) if abs(value) >= 10_000 else f"{value:.{min(digits, 6)}f}"


def count_form(value: float) -> str:
    """`250 k`, `1.5 M`, `800`."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def short(value: float) -> float:
    """Four significant digits: what a reader of a chart can use."""
    return float(f"{value:.4g}")


def table(lines: Sequence[Line], rows: int = 9) -> list[list[str]]:
    """Some values of all lines at the places of the first, as texts."""
    first = lines[0]
    picked = np.unique(np.linspace(0, len(first.images) - 1, rows).round().astype(int))
    return [
        [f"{first.images[i]:,.0f}"]
        + [f"{np.interp(first.images[i], line.images, line.ys):.4g}" for line in lines]
        for i in picked
    ]  # fmt: skip


def describe(title: str, lines: Iterable[Line]) -> str:
    """What the chart shows, in words."""
    parts = [f"{line.name} from {line.ys[0]:.3g} to {line.ys[-1]:.3g}" for line in lines]
    return f"{title}: {'; '.join(parts)}"


def dot_scale(values: Iterable[float], good: str) -> float:
    """The right end of a small scale from zero on that holds these values; 1 for shares."""
    largest = max((abs(v) for v in values), default=1.0)
    if good in ("higher", "near 1", "near 0.5") and largest <= 1:
        return 1.0
    return largest * 1.15 or 1.0
