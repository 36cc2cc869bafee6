"""The demonstration behind `elegan demo`: train the default recipe for a few minutes, judge it, draw a sheet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from elegan.config import seconds
from elegan.errors import UserError

SAMPLES = 10_000  # scored
ROWS = 10  # of the sheet


def demo(out: Path, budget: str) -> int:
    """Train into `out` for `budget`, or go on there; then print scores and the path of a sample sheet.

    Real Fashion-MNIST is taken where it is on the disk or can be downloaded, else the drawn garments. Returns the
    exit code: 0, or 130 or 143 when it was stopped by a signal, in which case the run is saved.
    """
    from elegan.progress import show
    from elegan.training.folder import RunFolder
    from elegan.training.run import configure, events
    from elegan.training.signals import stop_on_signals

    seconds(budget)  # a wrong one is told before anything is done
    folder = RunFolder(out)
    length: dict[str, Any] = {"budget": budget}
    if folder.exists:
        asked = folder.config()
        length = {}
        print(f"going on with {out}; delete it to start afresh")
    else:
        preset = pick_preset()
        asked = configure(preset)
    with stop_on_signals() as stop:
        show(events(asked, folder, length, stop=stop), folder.path)
    if stop.signal:
        return 128 + stop.signal
    return report(out)


def pick_preset() -> str:
    """The default preset where Fashion-MNIST can be had, else that of the drawn garments, saying so."""
    from elegan.data import open_data
    from elegan.families import DEFAULT_PRESET

    try:
        for split in ("test", "train"):
            open_data("fashion-mnist", split)
    except UserError as error:
        reason = str(error).split("; ")[0].split(" (")[0]
        print(f"training on drawn garments instead: {reason} (`elegan doctor` says where its files belong)")
        return "garments"
    return DEFAULT_PRESET


def report(out: Path) -> int:
    """Print the scores of a run, made anew only when the run has moved on, and draw its sheet."""
    from elegan.metrics.scores import Scores
    from elegan.reports.evaluation import evaluation
    from elegan.training.trained import load

    run = load(out)
    judged = evaluation(run, SAMPLES, say=lambda text: print(f"\n{text}", flush=True))
    print(f"\n{Scores.model_validate(judged.scores)}\n")

    columns = min(run.spec.classes, 10) if run.conditional else ROWS
    labels = list(range(columns)) * ROWS if run.conditional else None
    sheet = run.sample(ROWS * columns, labels).save(out / "sheet.png", columns)
    print(f"made by the run in {out}; real images for comparison: {out / 'real.png'}")
    print(f"samples: {sheet}")
    return 0
