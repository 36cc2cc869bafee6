"""Two pictures of a search: what mattered, and how the best score came down. Drawn with matplotlib on no screen."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elegan.files import write_bytes
from elegan.tuning.space import Dimension, text

if TYPE_CHECKING:
    from elegan.tuning.results import Search, TrialResult

BLUE, ORANGE, GREY = "#3b6fb6", "#d1603d", "#9a9a9a"
ENOUGH = 8  # trials, before it means anything which setting mattered
COLUMNS = 3
BANDWIDTH = 0.1  # of a setting's range: trials nearer than this predict each other


def importances(search: Search) -> dict[str, float]:
    """How much of the trials' order each setting alone explains, 0 to 1, largest first; nothing below `ENOUGH` trials.

    The order has the trials that are done by their scores, then those given up by how far they came, then those that
    failed. It is predicted for each trial from all others by the one setting: by a kernel regression over the range, or
    by the mean of the choice. The share is R^2, and 0 where that predicts no better than the mean of all. Effects that
    two settings have only together are not seen.
    """
    trials = [t for t in search.trials if t.outcome != "running" and len(t.values) == len(search.dimensions)]
    if len(trials) < ENOUGH:
        return {}
    sign = 1 if _lower(search) else -1
    group = {"done": 0, "pruned": 1, "failed": 2}

    def place(t: TrialResult) -> tuple[float, ...]:
        last = list(t.reached.values())[-1] if t.reached else 0.0
        return (group[t.outcome], -len(t.reached), sign * (t.score if t.score is not None else last))

    order = sorted(range(len(trials)), key=lambda i: place(trials[i]))
    ranks = np.empty(len(trials))
    ranks[order] = np.linspace(0, 1, len(trials))
    shares = {d.name: explained(_weights(d, trials), ranks) for d in search.dimensions}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _weights(dimension: Dimension, trials: Sequence[TrialResult]) -> np.ndarray:
    """How alike two trials are in one setting, (N, N), 0 to 1."""
    values = [t.values[dimension.name] for t in trials]
    if dimension.choices:
        names = np.array([text(v) for v in values])
        return (names[:, None] == names[None]).astype(float)
    x, ends = np.array(values, float), np.array([dimension.low, dimension.high], float)
    if dimension.log:
        x, ends = np.log(x), np.log(ends)
    x = (x - ends[0]) / (ends[1] - ends[0])
    return np.exp(-0.5 * np.square((x[:, None] - x[None]) / BANDWIDTH))


def explained(weights: np.ndarray, y: np.ndarray) -> float:
    """R^2 of predicting each of y (N,) as the mean of the others, weighed (N, N); a little of the plain mean keeps a
    trial without neighbours from being predicted by one far away."""
    others = weights * (1 - np.eye(len(y)))
    mean = (y.sum() - y) / (len(y) - 1)
    predicted = (others @ y + mean) / (others.sum(1) + 1)
    return max(0.0, 1 - float(np.square(y - predicted).sum() / np.square(y - mean).sum()))


def plot_what_mattered(search: Search, path: Path) -> None:
    """Importances, and the score against each setting searched; nothing is drawn before two trials are done."""
    if len(search.ranked()) < 2:
        return
    from matplotlib.figure import Figure

    shares = importances(search)
    panels = len(search.dimensions) + bool(shares)
    columns = min(COLUMNS, panels)
    rows = -(-panels // columns)
    figure = Figure(figsize=(4.2 * columns, 3.4 * rows), layout="constrained")
    axes = list(np.atleast_1d(figure.subplots(rows, columns)).ravel())
    if shares:
        _bars(axes.pop(0), shares)
    names = sorted(search.dimensions, key=lambda d: -shares.get(d.name, 0.0))
    for dimension in names:
        _against(axes.pop(0), search, dimension)
    for unused in axes:
        unused.set_visible(False)
    handles = {label: h for a in figure.axes for h, label in zip(*a.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), frameon=False, fontsize=9, ncols=5, loc="outside lower center")
    title = f"{search.base.preset} on {Path(search.base.data.source).name}: what mattered for {search.terms.score}"
    figure.suptitle(title, fontsize=12)
    _save(figure, path)


def _bars(axes: Any, shares: dict[str, float]) -> None:
    names = list(shares)[::-1]
    axes.barh(names, [shares[n] for n in names], color=BLUE, height=0.6)
    for i, name in enumerate(names):
        axes.text(shares[name], i, f" {shares[name]:.0%}", va="center", fontsize=9)
    axes.set(xlim=(0, 1.0), title="explains alone, of the trials' order")
    axes.set_xticks([])
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def _against(axes: Any, search: Search, dimension: Dimension) -> None:
    """Scores of the trials that are done against one setting; those without a score stand on the worse edge."""
    place = _places(dimension)
    done = search.ranked()
    scores = [t.score for t in done if t.score is not None]
    low, high = _limits(scores)
    edge = high if _lower(search) else low
    x = [place(t) for t in done]
    axes.scatter(x, np.clip(scores, low, high), s=30, color=BLUE, alpha=0.75, lw=0, label="done", zorder=3)
    axes.scatter(x[:1], scores[:1], s=110, marker="*", color=ORANGE, label="best", zorder=4)
    recipe = next((t for t in done if t.recipe), None)
    if recipe is not None and recipe.score is not None:
        at = [float(np.clip(recipe.score, low, high))]
        axes.scatter([place(recipe)], at, s=70, facecolors="none", edgecolors="k", label="recipe", zorder=5)
    for how, marker in (("pruned", "x"), ("failed", "|")):
        at = [place(t) for t in search.trials if t.outcome == how and dimension.name in t.values]
        if at:
            axes.scatter(at, [edge] * len(at), s=28, marker=marker, color=GREY, lw=1.2, label=how, zorder=2)
    if dimension.choices:
        axes.set_xticks(range(len(dimension.choices)), [text(c) for c in dimension.choices])
        axes.set_xlim(-0.6, len(dimension.choices) - 0.4)
    elif dimension.log:
        _log_axis(axes, dimension)
    else:
        margin = 0.04 * (dimension.high - dimension.low)
        axes.set_xlim(dimension.low - margin, dimension.high + margin)
    margin = 0.06 * (high - low)
    axes.set(title=dimension.name, ylabel=search.terms.score, ylim=(low - margin, high + margin))
    axes.title.set_fontsize(11)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _log_axis(axes: Any, dimension: Dimension) -> None:
    """Ticks at 1, 2 and 5 of every order of magnitude, or at 1 alone where there are many."""
    low, high = math.log10(dimension.low), math.log10(dimension.high)
    digits = (1, 2, 5) if high - low < 2.2 else (1,)
    ticks = [d * 10.0**e for e in range(math.floor(low), math.ceil(high) + 1) for d in digits]
    ticks = [t for t in ticks if dimension.low * 0.999 <= t <= dimension.high * 1.001]
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{t:.3g}" for t in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlim(10 ** (low - 0.04 * (high - low)), 10 ** (high + 0.04 * (high - low)))


def _places(dimension: Dimension) -> Any:
    """Trial -> where it stands on the axis of a setting; equal choices are set a little apart."""
    if not dimension.choices:
        return lambda t: t.values[dimension.name]
    order = {text(c): i for i, c in enumerate(dimension.choices)}
    return lambda t: order[text(t.values[dimension.name])] + 0.3 * ((t.number * 0.618) % 1 - 0.5)


def _limits(scores: Sequence[float]) -> tuple[float, float]:
    """The range of the score's axis: without the few worst, which would hide the rest."""
    low, high = min(scores), max(scores)
    q1, median, q3 = np.quantile(scores, (0.25, 0.5, 0.75))
    reach = 4 * max(q3 - q1, 1e-12)
    low, high = max(low, float(median) - reach), min(high, float(median) + reach)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _lower(search: Search) -> bool:
    from elegan.tuning.scoring import lower_is_better

    return lower_is_better(search.terms.score)


def plot_history(search: Search, path: Path) -> None:
    """Every trial's score and the best so far, trial after trial; nothing is drawn before two are done."""
    done = sorted(search.ranked(), key=lambda t: t.number)
    if len(done) < 2:
        return
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    scores = [t.score for t in done if t.score is not None]
    better = np.minimum if _lower(search) else np.maximum
    low, high = _limits(scores)
    edge = high if _lower(search) else low
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    numbers = [t.number for t in done]
    axes.scatter(numbers, np.clip(scores, low, high), s=30, color=BLUE, alpha=0.75, lw=0, label="done", zorder=3)
    best = np.clip(better.accumulate(scores), low, high)
    axes.step([*numbers, search.trials[-1].number], [*best, best[-1]], where="post", color=ORANGE, label="best so far")
    if done[0].recipe and done[0].score is not None:
        axes.axhline(done[0].score, color="k", lw=0.8, ls=":", label="the recipe as it is")
    for how, marker in (("pruned", "x"), ("failed", "|")):
        at = [t.number for t in search.trials if t.outcome == how]
        if at:
            axes.scatter(at, [edge] * len(at), s=28, marker=marker, color=GREY, lw=1.2, label=how, zorder=2)
    margin = 0.06 * (high - low)
    title = f"{search.base.preset} on {Path(search.base.data.source).name}"
    axes.set(title=title, xlabel="trial", ylabel=search.terms.score, ylim=(low - margin, high + margin))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, fontsize=9, ncols=5, loc="outside lower center")
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_bytes(path, buffer.getvalue())
