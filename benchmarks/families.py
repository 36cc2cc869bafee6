"""All presets for Fashion-MNIST under one protocol: the same time, and the same number of images.

    python -m benchmarks.families --budget 3m --seeds 0 1 2
    python -m benchmarks.families --images 50000 --seeds 0 1 2
    python -m benchmarks.families --report

`--jobs 2` trains two at a time, each with half of the cores. `--on "an old core"` names the machine, where the same
time is worth more or less than on that of the other rows: its rows make a table of their own.

Each preset runs as it is, planned for the length that it gets: its rates fall and its networks grow within that time.
Scored are 10,000 samples against the test split, by the features that no training used. A run that is there is not
made again, and one that was cut goes on. Writes `benchmarks/results/families.json` and `.md`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import elegan
from benchmarks import rows as results
from benchmarks.machine import about
from benchmarks.parallel import run_all
from elegan import families
from elegan.judge import evaluate

RESULTS = Path(__file__).parent / "results" / "families.json"
NUMBERS = ("frechet", "precision", "recall", "coverage", "label_accuracy")


def presets() -> list[str]:
    """The presets whose data is Fashion-MNIST."""
    return [name for name, (_, preset) in families.presets().items() if preset.data == "fashion-mnist"]


def measure(preset: str, length: dict[str, Any], protocol: str, seed: int, runs: Path) -> dict[str, Any]:
    """Train one preset for a length, or go on with it, and score."""
    run = elegan.train(preset, out=runs / protocol.replace(" ", "-") / f"{preset}-seed{seed}", seed=seed, **length)
    value = evaluate(run).value.model_dump()
    last = run.stats[-1]
    return {
        "preset": preset,
        "protocol": protocol,
        "seed": seed,
        "images": run.images_seen,
        "seconds": round(last["seconds"], 1),
        "ms_per_step": round(1000 * last["seconds"] / last["steps"], 1),
        "batch": getattr(run.config.model, "batch", None),
        "computed_in": run.config.train.precision,
        **{key: value[key] for key in NUMBERS},
        "about": about(),
    }


def named(length: dict[str, Any], machine: str = "") -> str:
    """A length in words, and where it was run if that is said: the name of its protocol."""
    words = f"{length['images']} images" if "images" in length else str(length["budget"])
    return results.labelled(words, machine)


def report(rows: list[dict[str, Any]]) -> str:
    """One table a protocol: means over seeds, and the worst one's Frechet distance; the nearest to the data first.

    Milliseconds are told where the time was the same for all: runs of equal images need no quiet machine.
    """
    lines = [
        "# All families on Fashion-MNIST",
        "",
        "10,000 samples against the 10,000 test images, shipped classifier features. Frechet: lower is better (real",
        "training images: 0.02; without three of the ten classes: 15.5); the rest: higher is better. Presets as they",
        "are, planned for the length that is given, so that a short length says which recipe is quick, not which is",
        "best in the end. ms: of a step, all that a run does included, where time was what all had alike; a step's",
        "cost on a quiet machine is in docs/families.md. With fewer seeds than three a rank is no more than a hint.",
        "The D of `fashion-projected` looks through another classifier of the same classes, which flatters it here",
        "(docs/metrics.md). The 90 seconds of `fashion` are of before its short runs had larger rates (`short_run`,",
        "benchmarks/results/search.md); with 100,000 images it had 1.42, worst 1.50, without them. Those of",
        "`fashion-r3gan` are of before it had ten times the authors' rates; with 100,000 images it had 20.43, worst",
        "21.26, and a recall of 0.010 with theirs.",
    ]
    for protocol in dict.fromkeys(row["protocol"] for row in rows):
        length, machine = results.unlabelled(protocol)
        timed = not length.endswith("images")
        command = f"--budget {length}" if timed else "--images " + length.removesuffix(" images")
        command += f' --on "{machine}"' if machine else ""
        chosen = [row for row in rows if row["protocol"] == protocol]
        columns = ["preset", "seeds", "Frechet", "worst", "precision", "recall", "coverage", "label acc.", "images"]
        columns += ["batch", "ms"] if timed else ["batch"]
        by_preset = {name: [r for r in chosen if r["preset"] == name] for name in {r["preset"] for r in chosen}}
        lines += [
            "",
            f"## {protocol}",
            "",
            f"`python -m benchmarks.families {command}`",
            "",
            "| " + " | ".join(columns) + " |",
            "|---" * len(columns) + "|",
        ]
        for name, own in sorted(by_preset.items(), key=lambda item: mean(item[1], "frechet") or 0):
            cells = [f"{mean(own, 'frechet'):.2f}", f"{max(r['frechet'] for r in own):.2f}"]
            cells += [format_or_blank(mean(own, key)) for key in NUMBERS[1:]]
            cells += [f"{mean(own, 'images'):,.0f}", str(own[0]["batch"])]
            cells += [f"{mean(own, 'ms_per_step'):.0f}"] if timed else []
            lines.append(f"| `{name}` | {len(own)} | {' | '.join(cells)} |")
        lines += ["", *sorted({row["about"] for row in chosen})]
    return "\n".join([*lines, ""])


def mean(rows: list[dict[str, Any]], key: str) -> float | None:
    """The mean of a number over rows; None where it does not apply."""
    values = [row[key] for row in rows if row[key] is not None]
    return statistics.fmean(values) if values else None


def format_or_blank(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", metavar="PRESET", help="default: all of Fashion-MNIST")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--budget", help="the same time for each, such as 3m")
    length.add_argument("--images", type=int, help="the same number of real images for each")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/families"))
    parser.add_argument("--report", action="store_true", help="write the table from what is there")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="so many at once, each on cores of its own")
    parser.add_argument("--on", default="", metavar="MACHINE", help="in words, for a table of its own")
    options = parser.parse_args()
    for name in set(options.presets) - set(presets()):
        parser.error(f"no preset of Fashion-MNIST {name!r}; there are {', '.join(presets())}")
    asked = {"images": options.images} if options.images else {"budget": options.budget} if options.budget else None
    if asked and options.jobs > 1:
        length = ["--images", str(options.images)] if options.images else ["--budget", options.budget]
        again = [sys.executable, "-m", "benchmarks.families", "--runs", str(options.runs), "--on", options.on, *length]
        chosen = options.presets or presets()
        run_all([[*again, "--seeds", str(seed), "--", name] for seed in options.seeds for name in chosen], options.jobs)
        asked = None
    for seed in options.seeds if asked else []:
        for name in options.presets or presets():
            key = (name, protocol := named(asked, options.on), seed)
            if any((r["preset"], r["protocol"], r["seed"]) == key for r in results.read(RESULTS)):
                continue
            row = measure(name, asked, protocol, seed, options.runs)
            results.add(RESULTS, row)
            print(json.dumps(row), flush=True)
    if rows := results.read(RESULTS):
        RESULTS.with_suffix(".md").write_text(report(rows), encoding="utf-8")
        print(report(rows))


if __name__ == "__main__":
    main()
