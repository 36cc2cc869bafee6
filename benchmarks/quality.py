"""The presets against the original programs at the same number of images, scored by the same judge.

    python -m benchmarks.reference.keras_programs fashion-mlp --iterations 5000 --out samples/fashion-mlp-seed0.npz ...
    python -m benchmarks.quality --originals samples --runs runs/quality --seeds 0

Each original is a `NAME-seedN.npz` of 10,000 samples with the program's own report beside it (`.json`). Each preset
is trained for the images that the program has seen and scored on 10,000 samples against the test split. Training
goes on where it stopped. Writes `benchmarks/results/quality.json` and `quality.md`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
from pathlib import Path

import torch

import elegan
from elegan.judge import evaluate

RESULTS = Path(__file__).parent / "results"
DATA = {"fashion": "fashion-mnist", "digits": "mnist"}
NUMBERS = ("frechet", "precision", "recall", "density", "coverage", "label_accuracy")


def images_seen(report: Path) -> int:
    """Real images that an original program has seen, from its report."""
    content = json.loads(report.read_text(encoding="utf-8"))
    return int(content["images_seen"])


def row(scores: object) -> dict[str, float | None]:
    """The numbers of one scoring that the table shows."""
    value = scores.value.model_dump()  # type: ignore[attr-defined]
    return {key: value.get(key) for key in NUMBERS} | {"entropy": value.get("class_entropy", value.get("entropy"))}


def compare(original: Path, runs: Path) -> dict[str, object]:
    """Score one original and the preset of its name at the same number of images."""
    preset, _, seed = original.stem.rpartition("-seed")
    data = DATA[preset.split("-")[0]]
    images = images_seen(original.with_suffix(".json"))
    run = elegan.train(preset, data, runs / original.stem, images=images, seed=int(seed))
    return {
        "preset": preset,
        "seed": int(seed),
        "images": images,
        "original": row(evaluate(original, data)),
        "elegan": row(evaluate(run)),
        "precision": run.config.train.precision,
        "seconds": run.stats[-1]["seconds"],
        "threads": torch.get_num_threads(),
        "date": f"{datetime.date.today()}",
    }


def summary(rows: list[dict]) -> list[str]:
    """The Frechet distances over the seeds of each preset that has several, as Markdown."""
    lines = [
        "| preset | images | seeds | mean: original | elegan | worst: original | elegan |",
        "|---|---|---|---|---|---|---|",
    ]
    runs: dict[tuple[str, int], list[dict]] = {}
    for r in rows:
        runs.setdefault((r["preset"], r["images"]), []).append(r)
    for (preset, images), found in runs.items():
        if len(found) > 1:
            sides = [[r[side]["frechet"] for r in found] for side in ("original", "elegan")]
            cells = [f"{number:.2f}" for of in (statistics.mean, max) for number in map(of, sides)]
            lines.append(f"| `{preset}` | {images:,} | {len(found)} | " + " | ".join(cells) + " |")
    return lines


def table(rows: list[dict], about: str) -> str:
    """The comparison as Markdown."""
    lines = [
        "# The presets against the original programs",
        "",
        "Same layers, same settings, same number of images; 10,000 samples against the 10,000 test images, shipped",
        "classifier features. Frechet: lower is better (real training images: 0.02); the rest: higher is better.",
        "",
        *summary(rows),
        "",
        "| preset | images | seed | Frechet: original | elegan | precision | | recall | | coverage | | label acc. | "
        "| date |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        cells = []
        for key in ("frechet", "precision", "recall", "coverage", "label_accuracy"):
            for side in ("original", "elegan"):
                value = r[side][key]
                cells.append("" if value is None else f"{value:.2f}" if key == "frechet" else f"{value:.3f}")
        cells.append(r.get("date", ""))
        lines.append(f"| `{r['preset']}` | {r['images']:,} | {r['seed']} | " + " | ".join(cells) + " |")
    notes = dict.fromkeys(
        f"`{r['preset']}`, {r['images']:,} images, seed {r['seed']}: {r['note']}." for r in rows if r.get("note")
    )
    return "\n".join([*lines, "", *notes, *[""] * bool(notes), about, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--originals", type=Path, required=True, help="folder of NAME-seedN.npz and .json")
    parser.add_argument("--runs", type=Path, default=Path("runs/quality"))
    parser.add_argument("--only", nargs="*", help="presets to compare; default: all that are there")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    args = parser.parse_args()
    path = RESULTS / "quality.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    done = {(r["preset"], r["images"], r["seed"]) for r in rows}
    for original in sorted(args.originals.glob("*-seed*.npz")):
        preset, _, seed = original.stem.rpartition("-seed")
        if not seed.isdigit() or int(seed) not in args.seeds or (args.only and preset not in args.only):
            continue
        report = original.with_suffix(".json")
        if not report.is_file() or (preset, images_seen(report), int(seed)) in done:
            continue
        rows.append(compare(original, args.runs))
        rows.sort(key=lambda r: (r["preset"], r["images"], r["seed"]))
        versions = f"elegan {elegan.__version__}, torch {torch.__version__}, Python {platform.python_version()}"
        about = f"{versions}; originals: TensorFlow/Keras, `benchmarks/reference`."
        RESULTS.mkdir(exist_ok=True)
        path.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n", encoding="utf-8")
        (RESULTS / "quality.md").write_text(table(rows, about), encoding="utf-8")
        print(table(rows, about))


if __name__ == "__main__":
    main()
