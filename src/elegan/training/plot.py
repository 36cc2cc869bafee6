"""The loss plot of a run, drawn with matplotlib on no screen."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from elegan.files import write_bytes

COLOURS = {"D_loss": "#3b6fb6", "G_loss": "#d1603d", "D_real": "#3b6fb6", "D_fake": "#d1603d"}
NAMES = {"D_loss": "D's loss", "G_loss": "G's loss", "D_real": "right on real", "D_fake": "right on fake"}


def plot_losses(rows: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Draw losses and D's accuracy against images seen, from the rows of stats.jsonl, into a PNG."""
    if len(rows) < 2:
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.4))
    figure.subplots_adjust(0.1, 0.09, 0.98, 0.94, hspace=0.07)  # layouts that look for margins draw everything twice
    losses, accuracy = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    known = {"images", "steps", "seconds", "images_per_second", "memory", "D_real", "D_fake"}
    x = [row["images"] / 1000 for row in rows]
    for name in rows[-1]:
        if name not in known:
            losses.plot(
                x, [row.get(name) for row in rows], label=NAMES.get(name, name), color=COLOURS.get(name), lw=1.2
            )
    for name in ("D_real", "D_fake"):
        if name in rows[-1]:
            accuracy.plot(x, [row.get(name) for row in rows], label=NAMES[name], color=COLOURS[name], lw=1.2)
    accuracy.axhline(0.5, color="#999999", lw=0.8, ls=":")
    accuracy.set(ylim=(-0.03, 1.03), ylabel="D's accuracy", xlabel="thousand images seen")
    losses.set(ylabel="loss", title=title)
    losses.ticklabel_format(axis="y", scilimits=(-3, 4))
    figure.align_ylabels()
    for axes in (losses, accuracy):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, loc="upper right", ncols=2)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_bytes(path, buffer.getvalue())
