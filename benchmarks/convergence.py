"""How good a recipe becomes, the longer it trains: runs of several lengths, each planned for its own.

    python -m benchmarks.convergence fashion-best --images 300000 1000000 3000000
    python -m benchmarks.convergence --report

A recipe's rates fall to zero at the end of the length it is given, so that each point of the curve is a run. Scored
are 10,000 samples against the test split, by the features that no training used. Meant for a GPU. A run that is there
is not made again, and one that was cut goes on; several processes may add to the same table. Writes
`benchmarks/results/convergence.json` and `.md`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import elegan
from benchmarks import rows as results
from elegan import families

RESULTS = Path(__file__).parent / "results" / "convergence.json"
NUMBERS = ("frechet", "precision", "recall", "density", "coverage", "label_accuracy", "copies")


def measure(preset: str, images: int, seed: int, runs: Path) -> dict[str, Any]:
    """Train one preset for a length, or go on with it, and score."""
    run = elegan.train(preset, out=runs / f"{preset}-{images}-seed{seed}", seed=seed, images=images)
    return {
        "preset": preset,
        "length": images,
        "seed": seed,
        "computed_in": run.config.train.precision,
        **results.of_run(run, NUMBERS),
    }


def report(measured: list[dict[str, Any]]) -> str:
    """The curve of every preset: the worst of the seeds at every length, and every run."""
    lines = [
        "# Quality against the length of training",
        "",
        "10,000 samples against the 10,000 test images, shipped classifier features. Frechet: lower is better (real",
        "training images: 0.02), the rest: higher is better. Worst of the seeds, number by number.",
        "`python -m benchmarks.convergence PRESET --images LENGTH ...`",
        "",
        "| preset | images | seeds | Frechet, every seed | worst | precision | recall | coverage | label acc. | "
        "seconds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for preset, length in sorted({(row["preset"], row["length"]) for row in measured}):
        own = [row for row in measured if (row["preset"], row["length"]) == (preset, length)]
        every = ", ".join(f"{row['frechet']:.3f}" for row in sorted(own, key=lambda row: row["seed"]))
        least = [worst(own, name) for name in ("precision", "recall", "coverage", "label_accuracy")]
        lines.append(
            f"| `{preset}` | {length:,} | {len(own)} | {every} | {max(row['frechet'] for row in own):.3f} | "
            f"{' | '.join(least)} | "
            f"{min(row['seconds'] for row in own):.0f} to {max(row['seconds'] for row in own):.0f} |"
        )
    copies = max(row["copies"] for row in measured)
    real = max(row["copies_of_test_images"] for row in measured)
    lines += [
        "",
        f"Copies of training images: at most {copies:.4f} of samples; of real test images, by the same test, "
        f"{real:.4f}.",
        "Seconds are of training alone, on a machine that other runs used as well.",
        "",
        *sorted({row["about"] for row in measured}),
    ]
    return "\n".join([*lines, ""])


def worst(rows: list[dict[str, Any]], name: str) -> str:
    """The least of a number over rows; nothing where it does not apply, as label accuracy without labels."""
    values = [row[name] for row in rows if row[name] is not None]
    return f"{min(values):.3f}" if values else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", metavar="PRESET", help="such as fashion-best")
    parser.add_argument("--images", type=int, nargs="+", default=[300_000, 1_000_000, 3_000_000], metavar="LENGTH")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/convergence"))
    parser.add_argument("--report", action="store_true", help="write the table from what is there")
    args = parser.parse_args()
    for name in set(args.presets) - set(families.presets()):
        parser.error(f"no preset {name!r}; `elegan presets` lists them")
    for preset in args.presets:
        for seed in args.seeds:
            for images in args.images:
                asked = (preset, images, seed)
                if any((row["preset"], row["length"], row["seed"]) == asked for row in results.read(RESULTS)):
                    continue
                results.add(RESULTS, measure(preset, images, seed, args.runs))
    if measured := results.read(RESULTS):
        RESULTS.with_suffix(".md").write_text(report(measured), encoding="utf-8")
        print(report(measured))


if __name__ == "__main__":
    main()
