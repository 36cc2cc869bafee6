"""Each choice of a recipe against its off-switch: trained and judged alike, over seeds.

    python -m benchmarks.ablation --preset fashion --budget 2m --seeds 0 1 2 \
        --set upsampling=deconv --set lr_schedule=constant --set "beta1=0.5 beta2=0.999" --without "the class in D"

The first row is the recipe as it is; every other row changes what its `--set` names, one or more settings, and nothing
else. `--without` takes out what no setting of `sngan` does: D's spectral norms, the class in D, the classes' norms in G
(where the class still stands beside z). A time budget is planned anew for each row, so that a choice that costs speed
pays for it; `--images` gives all rows the same number of pictures. Scores are of the test split, 10,000 samples: this
reports, it does not choose (`elegan tune` does that, on held-out training images). Training goes on where it stopped,
and scores that are there are not made again. Writes `benchmarks/results/ablation-PRESET.json` and `.md`.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import platform
import statistics
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import elegan
from elegan.config import parse_set
from elegan.errors import UserError
from elegan.families import sngan
from elegan.families.sngan import Judge
from elegan.judge import evaluate
from elegan.networks.layers import ConditionalBatchNorm
from elegan.training.run import configure

RESULTS = Path(__file__).parent / "results"
NUMBERS = ("frechet", "precision", "recall", "coverage", "label_accuracy")
RECIPE = "the recipe"


class Untold(ConditionalBatchNorm):
    """G's batch norm where it is not told the class."""

    def __init__(self, channels: int, classes: int, noise: int = 0) -> None:
        super().__init__(channels, 0, noise)

    def forward(self, x: Tensor, labels: Tensor | None, z: Tensor | None = None) -> Tensor:
        return super().forward(x, None, z)


def untold(self: Any, layers: Any, width: int, size: Any, cfg: Any, classes: int, make: Any = Judge.__init__) -> None:
    """`Judge.__init__` of a D that is not told the class."""
    make(self, layers, width, size, cfg, 0)


WITHOUT = {  # row: what of `sngan` is replaced by what
    "without D's spectral norms": (sngan, "spectral_norm", lambda layer: layer),
    "without G's class norms": (sngan, "ConditionalBatchNorm", Untold),
    "without the class in D": (Judge, "__init__", untold),
}


def switches(items: list[str]) -> dict[str, dict[str, str]]:
    """`["a=1", "b=2 c=3"]` -> the name of each row and what it sets; the recipe itself comes first."""
    rows: dict[str, dict[str, str]] = {RECIPE: {}}
    for item in items:
        settings = parse_set(item.split())
        rows[" ".join(f"{key}={value}" for key, value in settings.items())] = settings
    return rows


def measure(args: argparse.Namespace, name: str, settings: dict[str, str], seed: int) -> dict[str, Any]:
    """Train one row with one seed, or go on with it, and score it; a run that diverges is a row, too."""
    folder = args.runs / args.preset / ("recipe" if name == RECIPE else name.replace(" ", "+").replace("/", "_"))
    with mock.patch.object(*WITHOUT[name]) if name in WITHOUT else contextlib.nullcontext():
        return _measured(args, name, settings, seed, folder)


def _measured(args: argparse.Namespace, name: str, settings: dict[str, str], seed: int, folder: Path) -> dict[str, Any]:
    length = {"images": args.images} if args.images else {"budget": args.budget}
    row: dict[str, Any] = {"row": name, "seed": seed}
    try:
        run = elegan.train(args.preset, args.data, folder / f"seed{seed}", seed=seed, **length, **settings)
    except UserError as error:
        if "diverged" not in str(error):
            raise
        return row | {"failed": str(error).split(": ", 1)[-1].split(";")[0]}
    scores = evaluate(run, n=args.samples, features=args.features)
    numbers = {key: getattr(scores.value, key) for key in NUMBERS}
    return row | {"images": run.images_seen, "seconds": run.stats[-1]["seconds"], **numbers}


def spread(values: list[float]) -> str:
    """`0.91 (0.88 to 0.97)`: the mean, and the best and worst of several."""
    mean = statistics.fmean(values)
    return f"{mean:.3g}" if len(values) == 1 else f"{mean:.3g} ({min(values):.3g} to {max(values):.3g})"


def table(rows: list[dict[str, Any]], names: list[str], heading: list[str]) -> str:
    """One line a switch: Frechet over the seeds, the change against the recipe seed by seed, and the other numbers."""
    recipe = {r["seed"]: r for r in rows if r["row"] == RECIPE and "failed" not in r}
    lines = [
        *heading,
        "",
        "| row | seeds | images | Frechet | times the recipe's | precision | recall | coverage | label acc. |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        own = [r for r in rows if r["row"] == name]
        good = [r for r in own if "failed" not in r]
        failed = (
            f" ({len(own) - len(good)} failed: {own[-1].get('failed') or 'diverged'})" if len(good) < len(own) else ""
        )
        if not good:
            lines.append(f"| {name} | {len(own)}{failed} | | | | | | | |")
            continue
        paired = [r["frechet"] / recipe[r["seed"]]["frechet"] for r in good if r["seed"] in recipe]
        change = "" if name == RECIPE or not paired else spread(paired)
        cells = [f"{statistics.fmean(r['images'] for r in good):,.0f}", spread([r["frechet"] for r in good]), change]
        for key in NUMBERS[1:]:
            known = [r[key] for r in good if r[key] is not None]
            cells.append(f"{statistics.fmean(known):.3f}" if known else "")
        lines.append(f"| {name} | {len(own)}{failed} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def report(content: dict[str, Any]) -> str:
    """The page of what `benchmarks/results/ablation-PRESET.json` holds."""
    heading = [
        f"# `{content['preset']}`: each choice against its off-switch", "",
        f"{content['protocol']}. Mean over seeds (best to worst). Frechet: lower is better; above 1 times the "
        "recipe's, seed by seed, the recipe's choice helps.", "",
        f"`python -m benchmarks.ablation --preset {content['preset']} --set ROW ... --without PART ...`: a row is "
        f"called what it sets or takes out. {content['about']}.",
    ]  # fmt: skip
    return table(content["rows"], list(dict.fromkeys(r["row"] for r in content["rows"])), heading)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="fashion")
    parser.add_argument("--data", help="default: the preset's own")
    parser.add_argument("--set", dest="switches", action="append", default=[], metavar="'KEY=VALUE ...'")
    parts = [name.removeprefix("without ") for name in WITHOUT]
    parser.add_argument("--without", action="append", default=[], choices=parts, metavar="PART", help=", ".join(parts))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--budget", default="2m", help="time of each run")
    parser.add_argument("--images", type=int, help="instead: images of each run")
    parser.add_argument("--features", default="auto")
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the table")
    args = parser.parse_args()
    wanted = switches(args.switches)
    wanted |= {f"without {part}": {} for part in args.without}
    for settings in wanted.values():
        configure(args.preset, args.data, settings=settings)  # a wrong one is told before anything is trained

    path = args.out / f"ablation-{args.preset}.json"
    length = f"{args.images:,} images" if args.images else f"{args.budget} of training"
    protocol = f"{length} a run, {args.samples:,} samples, features {args.features}"
    rows: list[dict[str, Any]] = []
    if path.is_file():
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["protocol"] != protocol:
            parser.error(f"{path} was made with {content['protocol']}; move it away to begin another table")
        rows = content["rows"]
    args.out.mkdir(parents=True, exist_ok=True)
    for seed in args.seeds:
        for name, settings in wanted.items():
            if any(r["row"] == name and r["seed"] == seed for r in rows):
                continue
            rows.append(measure(args, name, settings, seed))
            versions = f"elegan {elegan.__version__}, torch {torch.__version__}, Python {platform.python_version()}"
            about = f"{datetime.date.today()}; {versions}; {torch.get_num_threads()} threads"
            content = {"preset": args.preset, "protocol": protocol, "about": about, "rows": rows}
            path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            text = report(content)
            path.with_suffix(".md").write_text(text, encoding="utf-8")
            print(text, flush=True)


if __name__ == "__main__":
    main()
