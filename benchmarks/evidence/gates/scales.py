"""Families that work from coarse to fine: LAPGAN and progressive growing."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.evidence.gates.plain import FASHION
from benchmarks.evidence.lab import Lab, one_thread
from elegan.data import open_data
from elegan.families.base import Batch, Clock
from elegan.families.lapgan import pyramid
from elegan.families.progressive import stage
from elegan.images import to_float
from elegan.training.engine import Engine

SMALL = {"G_width": 32, "D_width": 32, "D_widest": 64, "small_width": 96, "G_lr": 8e-4, "D_lr": 1.6e-3}
ROUNDS = 15  # of timing: medians of as many still differed, 0.75 and 0.78 for nets of the same size
GROWN = {"G_width": 16, "G_widest": 64, "D_width": 16, "D_widest": 64, "lr": 3e-3, "batch": 16}


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


def forgetful(model: Any) -> None:
    """With each doubling the networks begin anew: nothing is carried over."""
    step, before = model.step, [0]

    def anew(batches: Any, clock: Clock) -> dict[str, Tensor]:
        whole = stage(model.level(clock.host)).whole
        if whole != before[-1]:
            before.append(whole)
            with torch.no_grad():
                for net in model.parts.nets.values():
                    for p in net.parameters():
                        p.normal_() if p.ndim > 1 else p.zero_()
        return step(batches, clock)  # type: ignore[no-any-return]

    model.step = anew


def progressive(lab: Lab) -> dict[str, Any]:
    """FCD along a run that grows, and beside one of full size after the same time. Broken: nothing is carried over."""
    both = {"preset": "fashion-progan", **GROWN}
    fault = forgetful if lab.broken else None
    run, fixed = lab.together(
        both | {"name": "progressive", "images": 28_000, "checkpoints": 12, "sabotage": fault},
        both | {"name": "progressive-fixed", "images": 21_840, "checkpoints": 10, "phase_images": 1, "shared": True},
    )
    readings, levels = [], []
    for _, model in lab.models(run):
        readings.append(lab.read_model(model, FASHION))
        levels.append(model.parts.values["level"].item())
    distances = [reading.frechet for reading in readings]
    # the net that has its full size from the start, after as long a time: between the two checkpoints around it
    grown, full = lab.model(run), lab.model(fixed)
    place = min(run.images_seen * cost(grown, full, run.images_seen), fixed.images_seen)
    around = sorted(lab.models(fixed), key=lambda at: abs(at[0] - place))[:2]
    read = sorted((images, lab.read_model(model, FASHION).s) for images, model in around)
    places, found = zip(*read, strict=True)
    return {
        "worst_rise": max(after / before for before, after in itertools.pairwise(distances)),
        "FCD": distances[-1],
        "s": readings[-1].s,
        "levels": " ".join(f"{level:.2f}" for level in levels),
        "FCDs": " ".join(f"{distance:.1f}" for distance in distances),
        "s_fixed": np.interp(place, places, found),
        "images_fixed": place,
    }


def cost(model: Any, other: Any, images: int) -> float:
    """How many times as long as with `other` a run of so many images takes.

    By steps that are taken in turn, on one core, as `Lab.together` trains: the quickest at each place that stands for a
    run, for other programs disturbed that one least, weighed by the place's share. Trainings one after the other tell
    of the hour too: a machine may be a third slower in the second one.
    """
    nets, engine = (model, other), Engine(torch.device("cpu"), "fp32")
    times = defaultdict[tuple[int, int], list[float]](list)
    for net in nets:
        engine.place(net)
    with one_thread():
        for _, i in itertools.product(range(ROUNDS), range(2)):
            batches = [Batch(torch.rand(nets[i].config.batch, 1, 28, 28) * 2 - 1, None)] * nets[i].batches_per_step
            for at in nets[i].typical(images):
                start = time.perf_counter()
                nets[i].step(batches, Clock(at, images))
                times[i, at].append(time.perf_counter() - start)
    ours, theirs = (
        sum(share * min(times[i, at]) for at, share in net.typical(images).items()) for i, net in enumerate(nets)
    )
    return ours / theirs
