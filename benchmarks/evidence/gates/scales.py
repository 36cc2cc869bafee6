"""Families that work from coarse to fine: LAPGAN and progressive growing."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.evidence.gates.plain import FASHION
from benchmarks.evidence.lab import Lab
from elegan.data import open_data
from elegan.families.lapgan import pyramid
from elegan.images import to_float

SMALL = {"G_width": 32, "D_width": 32, "D_widest": 64, "small_width": 96, "G_lr": 8e-4, "D_lr": 1.6e-3}
GROWN = {"G_width": 16, "G_widest": 64, "D_width": 16, "D_widest": 64}


def lapgan(lab: Lab) -> dict[str, Any]:
    """Details drawn for real low-passes of test images, beside the real ones. Broken: nobody sees the low-pass."""

    def blind(model: Any) -> None:
        details, judge = model.details, model.judge
        model.details = lambda G, z, lows, y: details(G, z, [0 * low for low in lows], y)
        model.judge = lambda made, lows, y: judge(made, [0 * low for low in lows], y)

    run = lab.train("lapgan", "fashion-lapgan", 75_000, sabotage=blind if lab.broken else None, **SMALL)
    model: Any = lab.model(run)
    if lab.broken:
        blind(model)
    test = open_data(FASHION, "test")
    images, labels = to_float(torch.from_numpy(test.images[:2_000])), torch.from_numpy(test.labels[:2_000])
    real, lows = pyramid(images, len(model.sizes))
    torch.manual_seed(0)
    with torch.inference_mode():
        G, y = model.G_ema.eval(), model.one_hot(labels)
        made = model.details(G, model.noise(2_000), lows, y)
        again = model.details(G, model.noise(2_000), lows, y)
        torch.manual_seed(0)
        swapped = model.details(G, model.noise(2_000), [low.roll(1, 0) for low in lows], y)
    found: dict[str, Any] = {"s": lab.read(run, FASHION).s}
    for i, (fake, true) in enumerate(zip(made[:-1], real[:-1], strict=True)):
        side = true.shape[2]
        found |= {
            f"std_{side}": (fake.std() / true.std()).item(),
            f"kurtosis_{side}": kurtosis(fake) / kurtosis(true),
            f"top_octave_{side}": top_octave(fake) / top_octave(true),
            f"varies_{side}": ((fake - again[i]).std() / fake.std()).item(),
            f"follows_{side}": ((fake - swapped[i]).std() / fake.std()).item(),
        }
    return found


def kurtosis(x: Tensor) -> float:
    """E (x - mean)^4 / variance^2 over all values: 3 for a normal law, more for details, which are mostly nothing."""
    x = x.double() - x.double().mean()
    return (x.pow(4).mean() / x.square().mean().square()).item()


def top_octave(x: Tensor) -> float:
    """Power between half of the highest frequency and the highest, (N, C, H, W)."""
    power = torch.fft.fft2(x.double()).abs().square().mean((0, 1))  # (H, W)
    fy, fx = (torch.fft.fftfreq(size).abs() for size in x.shape[2:])
    return power[torch.maximum(fy[:, None], fx[None]) >= 0.25].mean().item()


def progressive(lab: Lab) -> dict[str, Any]:
    """FCD along a run that grows, and at its end beside a net of full size. Broken: layers do not fade in."""

    def abrupt(model: Any) -> None:
        level = model.level
        model.level = lambda clock: float(math.ceil(level(clock)))  # a new layer is there at once

    run = lab.train(
        "progressive", "fashion-progan", 120_000, checkpoints=12, sabotage=abrupt if lab.broken else None,
        **GROWN,
    )  # fmt: skip
    distances, levels = [], []
    for _, model in lab.models(run):
        distances.append(lab.read_model(model, FASHION).frechet)
        levels.append(model.parts.values["level"].item())
    worst = max(after / before for before, after in itertools.pairwise(distances))
    found: dict[str, Any] = {"worst_rise": worst, "FCD": distances[-1], "s": lab.read(run, FASHION).s}
    found["levels"] = " ".join(f"{level:.2f}" for level in levels)
    found["FCDs"] = " ".join(f"{distance:.1f}" for distance in distances)
    # the net that has its full size from the start sees as many images as the time allows
    last = [row for row in run.stats if row["images"] > 0.7 * run.images_seen]
    images = int(lab.seconds(run) * float(np.mean([row["images_per_second"] for row in last])))
    fixed = lab.train("progressive-fixed", "fashion-progan", images, phase_images=1, **GROWN)
    return found | {"s_fixed": lab.read(fixed, FASHION).s, "images_fixed": images}
