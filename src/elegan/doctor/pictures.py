"""The pictures to findings: what was seen, drawn so that a newcomer sees it too."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from elegan.doctor.evidence import Evidence
from elegan.doctor.finding import Finding
from elegan.files import write_bytes

REAL, FAKE, HELD, GREY = "#3b6fb6", "#d1603d", "#5b9a5f", "#999999"
SHEET = (4, 8)  # rows and columns of a sheet of pictures

#: Which drawing goes with which check.
SHEETS = {"collapse", "ignored labels"}
BARS = {"lost classes", "oscillation", "meaningless labels"}
LOGITS = {"D overfits", "D too strong", "D too weak", "small data"}
CURVES = {"diverging": "frechet", "vanishing gradient": "G_grad", "dead average": "average"}


def draw(finding: Finding, e: Evidence, path: Path) -> bool:
    """Draw what a finding is about into a PNG; False where there is nothing to see."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6))
    figure.subplots_adjust(0.1, 0.15, 0.97, 0.87, wspace=0.05)  # layouts that look for margins draw everything twice
    if finding.check in SHEETS and e.samples is not None and e.real is not None:
        _sheets(figure, e)
    elif finding.check in BARS and e.real is not None and e.shares:
        _shares(figure.subplots(), e)
    elif finding.check == "label leakage" and e.real is not None and "row" in finding.evidence:
        _spot(figure, e)
    elif finding.check == "label leakage" and e.real is not None:
        _asked(figure.subplots(), e)
    elif finding.check in LOGITS and e.logits:
        _logits(figure.subplots(), e)
    elif finding.check in CURVES and CURVES[finding.check] in e.numbers:
        _curve(figure.subplots(), e, CURVES[finding.check])
    elif len(e.stats) > 1:
        _losses(figure.subplots(), e)
    else:
        return False
    figure.suptitle(f"{finding.check}, at {e.images:,} images", fontsize=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    write_bytes(path, buffer.getvalue())
    return True


def _sheets(figure: Any, e: Evidence) -> None:
    """Samples beside real pictures."""
    from elegan.images import grid

    assert e.samples is not None and e.real is not None
    rows, columns = SHEET
    for axes, pictures, title in zip(
        figure.subplots(1, 2), (e.samples, e.real.images), ("generated", "real"), strict=True
    ):
        _show(axes, grid(pictures[: rows * columns], columns), title)


def _show(axes: Any, picture: np.ndarray, title: str) -> None:
    """A picture (H, W, C) uint8 as it is."""
    axes.imshow(picture[..., 0] if picture.shape[2] == 1 else picture, cmap="gray", vmin=0, vmax=255)
    axes.set_title(title, fontsize=10)
    axes.axis("off")


def _shares(axes: Any, e: Evidence) -> None:
    """The share of each class in real pictures and in samples."""
    assert e.real is not None
    _bars(axes, e.real.reader.names, (e.real.reader.shares, e.shares), ("real", "generated"))


def _asked(axes: Any, e: Evidence) -> None:
    """The share of each class in the data and in what fakes are asked for."""
    assert e.real is not None
    even = [1 / len(e.real.label_shares)] * len(e.real.label_shares)
    _bars(axes, e.real.reader.names, (e.real.label_shares, even), ("the data's labels", "asked of fakes"))


def _bars(axes: Any, names: Sequence[str], shares: tuple[Any, Any], labels: tuple[str, str]) -> None:
    """Two shares of each class side by side."""
    places = np.arange(len(names))
    for offset, values, colour, label in zip((-0.2, 0.2), shares, (REAL, FAKE), labels, strict=True):
        axes.bar(places + offset, 100 * np.asarray(values), 0.4, color=colour, label=label)
    axes.set_xticks(places, [name[:12] for name in names], rotation=40, ha="right", fontsize=8)
    axes.figure.subplots_adjust(bottom=0.25)
    _plain(axes, ylabel="share, %")


def _spot(figure: Any, e: Evidence) -> None:
    """The mean picture of a class and of all others, with a ring around the pixel that tells them apart."""
    assert e.real is not None
    spot = e.real.spots[0]
    name = e.real.reader.names[spot.label]
    for axes, mean, title in zip(
        figure.subplots(1, 2), (spot.inside, spot.outside), (f"{name}: the mean picture", "all others"), strict=True
    ):
        _show(axes, mean, title)
        axes.plot(spot.column, spot.row, "o", ms=14, mfc="none", mec=FAKE, mew=2, clip_on=False)


def _logits(axes: Any, e: Evidence) -> None:
    """What D says of training pictures, unseen pictures and samples."""
    edges = np.histogram_bin_edges(np.concatenate(list(e.logits.values())), 30)
    names = {"training": ("training pictures", REAL), "held": ("unseen pictures", HELD), "fake": ("generated", FAKE)}
    for key, logits in e.logits.items():
        label, colour = names[key]
        axes.hist(logits, edges, histtype="stepfilled", alpha=0.35, color=colour, label=label)
        axes.axvline(logits.mean(), color=colour, lw=1.5)
    _plain(axes, xlabel="D's logit: to the right, more real", ylabel="pictures")


def _curve(axes: Any, e: Evidence, name: str) -> None:
    """A number over the run's looks."""
    points = [(row["images"], row[name]) for row in e.history if name in row] + [(e.images, e.numbers[name])]
    x, y = np.array(points, float).T
    axes.plot(x / 1000, y, "o-", color=FAKE, lw=1.2, ms=4, label=name.replace("_", " "))
    if name == "frechet" and e.real is not None:
        axes.axhline(e.real.frechet, color=REAL, ls=":", label="real pictures")
    if y.min() > 0 and y.max() / y.min() > 20:
        axes.set_yscale("log")
    _plain(axes, xlabel="thousand images seen", ylabel=name.replace("_", " "))


def _losses(axes: Any, e: Evidence) -> None:
    """The players' losses over the run."""
    for name, colour in (("D_loss", REAL), ("G_loss", FAKE)):
        points = [(row["images"] / 1000, row[name]) for row in e.stats if name in row]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, lw=1.2, label=name.replace("_", "'s "))
    axes.ticklabel_format(axis="y", scilimits=(-3, 4))
    _plain(axes, xlabel="thousand images seen", ylabel="loss")


def _plain(axes: Any, **labels: str) -> None:
    axes.set(**labels)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8)
