"""Drawn garments, whose attributes are known: attention's sleeves, StyleGAN2's colours."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import garments
from benchmarks.evidence.gates.styles import mixtures
from benchmarks.evidence.lab import Lab
from elegan.data import open_data
from elegan.data.dataset import Dataset
from elegan.data.garments import SLEEVES
from elegan.images import to_uint8

SIDE = 32
READER_STEPS = 1_500
NARROW = {"G_width": 16, "G_widest": 64, "D_width": 16, "D_widest": 64, "size": SIDE}


@lru_cache(maxsize=2)
def drawings(split: str, channels: int) -> Dataset:
    """Drawn garments as the networks see them."""
    return open_data("garments", split, size=(SIDE, SIDE), channels=channels)


def halves(images: Tensor) -> tuple[Tensor, Tensor]:
    """(N, C, H, W) -> its left half, and its right one mirrored: (N, C, H, W / 2) each."""
    left, right = images.chunk(2, 3)
    return left, right.flip(3)


@lru_cache(maxsize=1)
def sleeve_reader() -> nn.Module:
    """Half a picture (N, 1, 32, 16) of a garment with sleeves -> the length of its sleeve (N,): learnt on drawings."""
    data = drawings("train", 1)
    rows = np.flatnonzero(np.isin(data.attributes["category"], list(SLEEVES)))
    known = torch.as_tensor(data.attributes["sleeve_length"][rows])
    sides = torch.stack(halves(garments.pictures(data.images[rows])))  # (2, N, 1, 32, 16)
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 24, 3, 2, 1), nn.ReLU(), nn.Conv2d(24, 48, 3, 2, 1), nn.BatchNorm2d(48), nn.ReLU(),
        nn.Conv2d(48, 96, 3, 2, 1), nn.BatchNorm2d(96), nn.ReLU(), nn.Flatten(), nn.Linear(96 * 8, 1), nn.Flatten(0),
    )  # fmt: skip
    adam = torch.optim.AdamW(net.parameters(), 3e-3)
    rates = torch.optim.lr_scheduler.OneCycleLR(adam, 3e-3, READER_STEPS)
    for _ in range(READER_STEPS):
        pick, side = torch.randint(0, len(rows), (64,)), torch.randint(0, 2, (64,))
        loss = F.mse_loss(net(sides[side, pick]), known[pick])
        adam.zero_grad()
        loss.backward()
        adam.step()
        rates.step()
    return net.eval()


def mismatch(images: np.ndarray, categories: np.ndarray) -> tuple[float, float]:
    """By how much both sleeves differ in length, on average: of uint8 (N, 1, 32, 32), garments with sleeves.

    And by how much those of two strangers of a category (N,) do, in which a G without variety has little, too.
    """
    reader = sleeve_reader()  # which may have to learn first
    with torch.no_grad():
        left, right = (reader(half).numpy() for half in halves(garments.pictures(images)))
    strangers = np.empty_like(right)
    for category in np.unique(categories):
        rows = np.flatnonzero(categories == category)
        strangers[rows] = np.roll(right[rows], 1)
    return float(np.abs(left - right).mean()), float(np.abs(left - strangers).mean())


def sleeves(lab: Lab) -> dict[str, Any]:
    """SAGAN with attention and without, in grey: how far apart are both sleeves of a garment?"""
    test = drawings("test", 1)
    rows = np.isin(test.attributes["category"], list(SLEEVES))
    real, strangers = mismatch(test.images[rows], test.attributes["category"][rows])
    found = {"of_real": real, "strangers_of_real": strangers}
    asked = [c for c in SLEEVES for _ in range(400)]
    attention = {"attention": 16, "none": 0}
    shared = {
        "preset": "garments-sagan", "images": 160_000, "channels": 1, "lr_schedule": "linear", "G_lr": 4e-4,
        "D_lr": 8e-4, **NARROW,
    }  # fmt: skip
    runs = lab.together(*(shared | {"name": f"sleeves-{name}", "attention": side} for name, side in attention.items()))
    for name, run in zip(attention, runs, strict=True):
        drawn = run.sample(len(asked), labels=asked, seed=1).images
        own, strangers = mismatch(np.ascontiguousarray(drawn.transpose(0, 3, 1, 2)), np.array(asked))
        found |= {f"mismatch_{name}": own, f"strangers_{name}": strangers}
    return found


@lru_cache(maxsize=1)
def attribute_reader() -> tuple[nn.Module, dict[str, float]]:
    """What reads category and colour, and how often it is right on unseen drawings."""
    test = drawings("test", 3)
    reader = garments.learn(drawings("train", 3))
    seen = garments.read(reader, test.images)
    return reader, {name: float((seen[name] == test.attributes[name]).mean()) for name in ("category", "colour")}


def mixed_colours(lab: Lab) -> dict[str, Any]:
    """Coarse styles of one garment with fine styles of another, without labels: whose category, whose colour?

    Broken: the two are exchanged.
    """
    run = lab.train(
        "stylegan2-drawn", "garments-stylegan2", 120_000, shared=True, channels=3, use_labels=False, gamma=0.1, **NARROW
    )
    reader, right = attribute_reader()
    one, other, both = (garments.read(reader, to_uint8(images).numpy()) for images in mixtures(lab, run))  # type: ignore[arg-type]
    return {
        "category_of_coarse": float(np.mean(both["category"] == one["category"])),
        "colour_of_fine": float(np.mean(both["colour"] == other["colour"])),
        "category_of_fine": float(np.mean(both["category"] == other["category"])),
        "colour_of_coarse": float(np.mean(both["colour"] == one["colour"])),
        "reader_category": right["category"],
        "reader_colour": right["colour"],
    }
