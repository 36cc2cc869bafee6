"""The doctor against healthy and against broken runs: is every planted failure found, and does no healthy run alarm it?

    python -m benchmarks.doctor --out runs/doctor --case all --seeds 1 2
    python -m benchmarks.doctor --out runs/doctor --seeds 1 2 --report

A failure is planted into a healthy run of `fashion` at a quarter of its width, between two looks in the middle of its
plan, and must be found at the next look. (What is wrong with the data, and learning rates times a hundred, are there
from the start.) Cases run one by one, or all of them, in a folder a seed; `--report` writes
`benchmarks/results/doctor_runs.md` from what they recorded. The rules were set on runs of seed 0
(`benchmarks/results/doctor.md`), so only other seeds are a proof.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import about
from elegan.data import Dataset
from elegan.families.base import Family
from elegan.judge import evaluate
from elegan.training import loop, plan, run
from elegan.training.folder import RunFolder

RESULTS = Path(__file__).parent / "results" / "doctor_runs.md"
#: `fashion` as it was when the rules were set.
RATES = {"G_pixels": "single", "G_lr": 3e-4, "D_lr": 6e-4, "batch": 64, "lr_hold": 0.4, "short_run": 0}
NARROW = RATES | {"G_width": 16, "G_widest": 64, "D_width": 16, "D_widest": 64, "batch": 32}
LOOK = {"check_share": 1, "check_samples": 500, "grids": 4, "precision": "fp32"}
PLAN, PLANTED = 32 * 800, 32 * 420  # images of the run that failures are planted in, and where

#: Runs that nothing was done to: preset, data, images, settings. Whether one is healthy another judge says (`judged`).
HEALTHY: dict[str, tuple[str, str, int, dict[str, Any]]] = {
    "fashion": ("fashion", "fashion-mnist", 2 * PLAN, NARROW),
    "digits": ("digits", "mnist", 2 * PLAN, NARROW),
    "garments": ("garments", "garments", PLAN, NARROW | {"size": 32}),
    "fashion-mlp": ("fashion-mlp", "fashion-mnist", 32 * 3000, {}),
    "fashion-dcgan": (
        "fashion-dcgan",
        "fashion-mnist",
        64 * 1600,
        {"G_widths": [64, 32, 16], "D_widths": [16, 32], "batch": 64},
    ),
    "fashion-projection": ("fashion-projection", "fashion-mnist", 64 * 1600, {"G_width": 16, "D_width": 16}),
    "digits-mlp": ("digits-mlp", "mnist", 32 * 6000, {}),
}


def zero_noise(model: Family) -> None:
    """G hears nothing of its noise and its labels: one picture, a collapse to one mode."""
    for net in (model.parts.nets["G"], model.parts.nets["G_ema"]):
        net.register_forward_pre_hook(lambda _, inputs: tuple(torch.zeros_like(x) for x in inputs))


def lose_classes(model: Family) -> None:
    """G draws class 0, 1 or 2 wherever it is asked for 7, 8 or 9."""
    for net in (model.parts.nets["G"], model.parts.nets["G_ema"]):
        net.register_forward_pre_hook(
            lambda _, inputs: (inputs[0], torch.where(inputs[1] > 6, inputs[1] - 7, inputs[1]))
        )


def freeze_D(model: Family) -> None:
    """D's optimiser does nothing."""
    model.parts.optimizers["D"].step = lambda *_, **__: None  # type: ignore[method-assign]


def raise_rates(model: Family) -> None:
    """A hundred times the learning rates that the optimisers have now."""
    for optimizer in model.parts.optimizers.values():
        rates = [100 * float(group["lr"]) for group in optimizer.param_groups]

        def step(
            *args: Any, rates: list[float] = rates, self: Any = optimizer, slow: Any = optimizer.step, **kwargs: Any
        ) -> Any:
            for group, rate in zip(self.param_groups, rates, strict=True):
                group["lr"] = rate
            return slow(*args, **kwargs)

        optimizer.step = step  # type: ignore[method-assign]


def freeze_average(model: Family) -> None:
    """The average follows nothing."""
    for p in model.parts.nets["G_ema"].parameters():
        p.data = p.data.clone()
    still = {k: v.clone() for k, v in model.parts.nets["G_ema"].state_dict().items()}
    step = model.step

    def stepped(*args: Any) -> Any:
        logs = step(*args)
        model.parts.nets["G_ema"].load_state_dict(still)
        return logs

    model.step = stepped  # type: ignore[method-assign]


def shuffled(data: Dataset) -> Dataset:
    """The same pictures with the labels of others."""
    labels = np.random.default_rng(0).permutation(data.labels)
    return dataclasses.replace(data, labels=labels, fingerprint="")


def few(data: Dataset) -> Dataset:
    """The first 200 pictures of a training split."""
    if data.split != "train":
        return data
    return dataclasses.replace(data, images=data.images[:200], labels=data.labels[:200], fingerprint="")


def stamped(data: Dataset) -> Dataset:
    """A white square of 3x3 pixels in the top left corner of class 7's pictures."""
    images = data.images.copy()
    images[data.labels == 7, :, 1:4, 1:4] = 255
    return dataclasses.replace(data, images=images, fingerprint="")


def uneven(data: Dataset) -> Dataset:
    """Classes 5 to 9 with a tenth of their pictures."""
    kept = (data.labels < 5) | (np.arange(len(data)) % 10 == 0)
    return dataclasses.replace(data, images=data.images[kept], labels=data.labels[kept], fingerprint="")


#: Planted in the middle of the healthy run: what is done to the model, and the finding that must follow.
IN_THE_MIDDLE: dict[str, tuple[Callable[[Family], None], str]] = {
    "one-mode": (zero_noise, "collapse"),
    "lost-classes": (lose_classes, "lost classes"),
    "frozen-D": (freeze_D, "D does not learn"),
    "frozen-average": (freeze_average, "dead average"),
    "rates-x100-later": (raise_rates, "rates too large"),
}
#: There from the start: preset, settings, what is done to the data, and the finding that must follow.
FROM_THE_START: dict[str, tuple[str, dict[str, Any], Callable[[Dataset], Dataset] | None, str]] = {
    "rates-x100": ("fashion", NARROW | {"G_lr": 3e-2, "D_lr": 6e-2}, None, "rates too large"),
    "shuffled-labels": ("fashion", NARROW, shuffled, "meaningless labels"),
    "few-pictures": ("fashion", NARROW, few, "small data"),
    "stamped-class": ("fashion", NARROW, stamped, "label leakage"),
    "other-labels": ("fashion-mlp", {"conditional": True, "fake_labels": "random"}, uneven, "label leakage"),
}
OPEN_SPLIT = run.open_split
CASES = [*(f"healthy-{name}" for name in HEALTHY), *IN_THE_MIDDLE, *FROM_THE_START]


def train(out: Path, preset: str, data: str, images: int, until: int | None = None, **settings: Any) -> None:
    """Train `images` into `out` with ten looks on the way, or `until` there."""
    per_look = images // 10
    folder, config = run.prepare(out, preset, data, settings=LOOK | {"check_every": per_look} | settings)
    for event in run.events(config, folder, {"images": images}, stop=Until(until)):
        if type(event).__name__ in ("Checked", "Finding", "Planned", "Warned"):
            print(event, flush=True)


class Until:
    """Asked after every step: whether the run has come as far as it should. First asked before the first step."""

    def __init__(self, images: int | None) -> None:
        self.images, self.asked = images, -1

    def __call__(self) -> bool:
        self.asked += 1
        return self.images is not None and self.asked * 32 >= self.images


def judged(folder: Path) -> dict[str, Any] | None:
    """What the shipped classifier, which the doctor does not use, says of a run's last 2,000 samples; None without one.

    `lost`: the classes of which there are fewer than three in ten of what there should be.
    """
    known = folder / "judged.json"
    if not known.is_file():
        value = evaluate(folder, n=2000).value
        shares = value.class_shares
        lost = None if shares is None else sum(share < 0.3 / len(shares) for share in shares)
        known.write_text(json.dumps({"lost": lost, "frechet": value.frechet, "recall": value.recall}), encoding="utf-8")
    found: dict[str, Any] = json.loads(known.read_text(encoding="utf-8"))
    return found if found["lost"] is not None else None


def planting(failure: Callable[[Family], None]) -> Callable[..., Callable[[int], Any]]:
    """`plan.make_step` whose step does `failure` to the model when the run comes to `PLANTED`."""

    def make_step(model: Family, *args: Any) -> Callable[[int], Any]:
        step, planted = plan.make_step(model, *args), False

        def stepped(seen: int) -> Any:
            nonlocal planted
            if seen >= PLANTED and not planted:
                failure(model)
                planted = True
            return step(seen)

        return stepped

    return make_step


def case(name: str, out: Path, seed: int) -> None:
    """Run one case from its start."""
    loop.make_step, run.open_split = plan.make_step, OPEN_SPLIT
    if name.startswith("healthy-"):
        preset, data, images, settings = HEALTHY[name.removeprefix("healthy-")]
        train(out / name, preset, data, images, **settings, seed=seed)
        judged(out / name)
    elif name in IN_THE_MIDDLE:
        loop.make_step = planting(IN_THE_MIDDLE[name][0])
        train(out / name, "fashion", "fashion-mnist", PLAN, until=PLAN // 10 * 7 + 32, **NARROW, seed=seed)
    else:
        preset, settings, change, _ = FROM_THE_START[name]
        if change is not None:
            run.open_split = lambda config, split: change(OPEN_SPLIT(config, split))
        train(out / name, preset, "fashion-mnist", PLAN, until=PLAN // 10 * 8 + 32, **settings, seed=seed)


def expected(name: str) -> str:
    """The finding that a case must lead to; empty for a healthy one."""
    if name in IN_THE_MIDDLE:
        return IN_THE_MIDDLE[name][1]
    return FROM_THE_START[name][3] if name in FROM_THE_START else ""


def report(out: Path, seeds: list[int]) -> str:
    """The table of all cases that have run, from what they recorded."""
    lines = [
        "# The doctor on healthy and on broken runs",
        "",
        __doc__.strip().splitlines()[0],
        "",
        "`python -m benchmarks.doctor --out runs/doctor --case all --seeds ...`; the second column says which seeds.",
        "",
        "Before: findings of looks before a failure was planted, which are false alarms. Classes lost, in runs that",
        "nothing was done to: of how many a run's last samples have less than three tenths of their share, by the",
        "shipped classifier, which the doctor does not use. Other numbers: the first and the last look's after the",
        "planting.",
        "",
        "Rules changed on the way, and rows are as they were seen: after seeds 1 and 2 of digits-mlp (diverging at a",
        "first look), after a first run of garments with seed 5 (lost classes that had not come; it ran again), and",
        "after seed 6 of digits-mlp (a weak D at a second look). Later seeds are the proof of each.",
        "",
        "| case | seed | looks | classes lost | before | findings, at which look after the planting | frechet | recall "
        "| diversity | twins | D tells | D memory | looks' share of time |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in CASES:
        folders = {seed: RunFolder(out / f"seed{seed}" / name) for seed in seeds}
        ran = {seed: folder for seed, folder in folders.items() if folder.exists}
        lines += [case_row(name, seed, folder) for seed, folder in (ran or folders).items()]
    return "\n".join([*lines, "", about(), ""])


def case_row(name: str, seed: int, folder: RunFolder) -> str:
    """One line of the table."""
    rows = folder.stats("checks.jsonl") if folder.exists else []
    if not rows:
        return f"| {name} | {seed} | not run" + " |" * 11
    since = PLANTED if name in IN_THE_MIDDLE else 0
    looks = [row for row in rows if row["images"] > since]
    before = sorted({check for row in rows if row["images"] <= since for check in row["findings"]})
    first: dict[str, int] = {}
    for i, row in enumerate(looks, 1):
        for check in row["findings"]:
            first.setdefault(check, i)
    found = ", ".join(f"**{c}** ({i})" if c == expected(name) else f"{c} ({i})" for c, i in first.items())
    numbers = [row_range(looks, key) for key in ("frechet", "recall", "diversity", "twins", "D_tells", "D_memory")]
    share = sum(row["seconds"] for row in rows) / max(folder.stats()[-1]["seconds"], 1e-9)
    verdict = judged(folder.path) if name.startswith("healthy-") else None
    lost = "" if verdict is None else f"{verdict['lost']} of 10"
    cells = [
        name.removeprefix("healthy-"),
        seed,
        len(looks),
        lost,
        ", ".join(before) or "none",
        found or "none",
        *numbers,
        f"{share:.1%}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def row_range(rows: list[dict[str, Any]], key: str) -> str:
    """A number at the first and at the last look."""
    values = [row[key] for row in rows if key in row]
    return f"{values[0]:.3g} to {values[-1]:.3g}" if values else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--case", choices=[*CASES, "all"], help="what to run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--report", action="store_true", help="write the table from the runs that are there")
    options = parser.parse_args()
    for seed in options.seeds if options.case else []:
        for name in CASES if options.case == "all" else [options.case]:
            print(f"== {name}, seed {seed}", flush=True)
            case(name, options.out / f"seed{seed}", seed)
    if options.report:
        RESULTS.write_text(report(options.out, options.seeds), encoding="utf-8")
        print(RESULTS.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
