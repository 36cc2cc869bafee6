"""Time to quality: the tutorial programs' presets against the default recipes, in the same minutes on the same machine.

    python -m benchmarks.curves fashion-mlp fashion-dcgan --seeds 0
    python -m benchmarks.curves --report

A tutorial's preset trains with the settings of the tutorial for as long as the default recipe is given, and is scored
at twenty checkpoints along the way: 10,000 samples against the test split, by the features that `elegan evaluate`
reports with. Minutes are of training alone. A tutorial's rates are constant, so that every point of its curve is what
a run of that length reaches; the default recipe's fall to zero over the time it is given, so that each of its points
is a run of its own, taken from `flagship.json`. The presets train faster than the original programs (`speed.md`),
which is left to them here. Training goes on where it stopped, and curves that are there are not made again. Writes
`benchmarks/results/curves.json` and `docs/images/time-to-quality.png`.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch

import elegan
from benchmarks import rows as results
from benchmarks.evidence.lab import SAMPLES, along, reader
from benchmarks.flagship import GOALS
from benchmarks.machine import about
from elegan.bench import bench
from elegan.config import seconds
from elegan.training.engine import Engine
from elegan.training.folder import RunFolder
from elegan.training.trained import draw

RESULTS = Path(__file__).parent / "results"
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "time-to-quality.png"
POINTS = 20
PANELS = {  # data set: (the default recipe's goals, the time that a tutorial's preset gets, the presets)
    "fashion-mnist": (
        ("fashion-2m", "fashion-10m", "fashion-60m"), "10m", ("fashion-mlp", "fashion-dcgan", "fashion-upsample"),
    ),
    "mnist": (("digits-5m",), "5m", ("digits-mlp", "digits-dcgan", "digits-cgan")),
}  # fmt: skip
PRESETS = {preset: (data, budget) for data, (_, budget, presets) in PANELS.items() for preset in presets}
COLOURS = ("#d1603d", "#8a8a8a", "#5f9e6e")
OWN = "#3b6fb6"
MACHINES = {"": ("-", "full", "bf16"), "two cores of 2021": ("--", "none", "cores of 2021, no bf16")}


def measure(preset: str, seed: int, runs: Path) -> dict[str, Any]:
    """Train a tutorial's preset for its time, or go on with it, and score its checkpoints."""
    data, budget = PRESETS[preset]
    folder = runs / preset / f"seed{seed}"
    watched: dict[str, Any] = {}  # a run that goes on has its own
    if not RunFolder(folder).exists:
        every = max(1, round(seconds(budget) / POINTS / bench(preset, seconds=5).ms_per_step * 1000))
        watched = {"check_share": 0.0, "grids": 4, "keep": 2 * POINTS, "checkpoint_every": every}
    run = elegan.train(preset, out=folder, seed=seed, budget=budget, **watched)
    engine = Engine(torch.device("cpu"), "fp32")
    points = []
    for counters, model in along(run):
        read = reader(data)(*draw(model, engine, SAMPLES, seed=1))
        points.append({"images": counters["images"], "seconds": round(counters["seconds"], 1), "frechet": read.frechet})
    return {
        "preset": preset,
        "seed": seed,
        "computed_in": run.config.train.precision,
        "points": points,
        "about": about(),
    }


def of_goal(flagship: list[dict[str, Any]], goal: str) -> list[tuple[float, float]]:
    """(minutes, Frechet distance) of every seed."""
    return [(r["seconds"] / 60, r["frechet"]) for r in flagship if r["goal"] == goal]


def middle(own: list[tuple[float, float]]) -> tuple[float, float]:
    """The mean of several points."""
    return statistics.fmean(x for x, _ in own), statistics.fmean(y for _, y in own)


def draw_panels(rows: list[dict[str, Any]], flagship: list[dict[str, Any]], path: Path) -> None:
    """Frechet distance against minutes, both on logarithmic axes; one panel for each data set that has curves."""
    from matplotlib.figure import Figure

    shown = {data: panel for data, panel in PANELS.items() if any(r["preset"] in panel[2] for r in rows)}
    figure = Figure((0.8 + 5 * len(shown), 4.8), dpi=150, layout="constrained")
    many = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, (data, (goals, _, presets)) in zip(many, shown.items(), strict=True):
        axes.set(xscale="log", yscale="log", xlabel="minutes of training, two cores", ylabel="Frechet distance")
        axes.set_title(data)
        default = goals[0].split("-")[0]
        for machine, (line, fill, told_as) in MACHINES.items():
            dots: dict[str, Any] = {"linestyle": "none", "color": OWN, "markersize": 4, "fillstyle": fill}
            ends = {goal: of_goal(flagship, results.labelled(goal, machine)) for goal in goals}
            alike = [own for goal, own in ends.items() if own and GOALS[goal].preset == default]
            points = [point for own in alike for point in own]
            axes.plot(*zip(*points, strict=True), marker="o", label=f"{default}, {told_as}: a dot a seed", **dots)
            axes.plot(*zip(*map(middle, alike), strict=True), line, color=OWN)
            for goal, own in ends.items():
                if own and (other := GOALS[goal].preset) != default:
                    axes.plot(*zip(*own, strict=True), marker="s", label=f"{other}, one core, {told_as}", **dots)
        for preset, colour in zip(presets, COLOURS, strict=True):
            for i, row in enumerate(r for r in rows if r["preset"] == preset):
                minutes = [p["seconds"] / 60 for p in row["points"]]
                told = {"label": preset} if i == 0 else {}
                axes.plot(minutes, [p["frechet"] for p in row["points"]], color=colour, linewidth=1.2, **told)
        axes.set_xticks([0.5, 1, 2, 5, 10, 20, 60], ["0.5", "1", "2", "5", "10", "20", "60"])
        axes.set_yticks([0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50], ["0.1", "0.2", "0.5", "1", "2", "5", "10", "20", "50"])
        axes.minorticks_off()
        axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
        axes.grid(alpha=0.3, linewidth=0.5)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", metavar="PRESET", help=f"default: all of {', '.join(PRESETS)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/curves"))
    parser.add_argument("--report", action="store_true", help="draw the picture from what is there")
    args = parser.parse_args()
    for name in set(args.presets) - set(PRESETS):
        parser.error(f"no tutorial's preset {name!r}; there are {', '.join(PRESETS)}")
    path = RESULTS / "curves.json"
    rows = results.read(path)
    for seed in args.seeds if not args.report else []:
        for preset in args.presets or PRESETS:
            if any((r["preset"], r["seed"]) == (preset, seed) for r in rows):
                continue
            rows.append(measure(preset, seed, args.runs))
            path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
            print(json.dumps(rows[-1]), flush=True)
    flagship = json.loads((RESULTS / "flagship.json").read_text(encoding="utf-8"))
    draw_panels(rows, flagship, PICTURE)
    print(f"drawn: {PICTURE}")


if __name__ == "__main__":
    main()
