"""The data set "stacked-mnist": a digit of MNIST in each of three colour channels, 1,000 modes (Metz+ 2017).

Three digits drawn independently and uniformly from the images of the split make one image; its class is the
three-digit number, the first channel's digit counting most. Whether a model makes all thousand, and how evenly,
is the usual test of mode collapse. Image i depends on the seed, the split and i alone, so that any number can be
composed and the first of many are the few. PacGAN (Lin+ 2018) trains on 128,000 and scores 26,000 samples: the
default counts.
"""

from __future__ import annotations

import numpy as np

from elegan.data.dataset import Dataset
from elegan.data.drawing import keyed_uniform

CHANNELS = 3
DEFAULT_COUNT = {"train": 128_000, "test": 26_000}
STREAM = {"train": 3, "test": 4}
CLASS_NAMES = [f"{mode:03}" for mode in range(10**CHANNELS)]


def stacked_rows(count: int, available: int, split: str = "train", seed: int = 0) -> np.ndarray:
    """Which of `available` digits stand in the three channels of each of `count` images, int64 (count, 3)."""
    index = np.arange(count, dtype=np.int64)
    drawn = [keyed_uniform(seed, STREAM[split], index, f"channel {c}") for c in range(CHANNELS)]
    return np.minimum((np.stack(drawn, 1).astype(np.float64) * available).astype(np.int64), available - 1)


def stacked_mnist(digits: Dataset, *, seed: int = 0, count: int | None = None) -> Dataset:
    """Compose the data set from one split of MNIST (grey images with labels 0 to 9)."""
    assert digits.labels is not None and digits.channels == 1
    count = count or DEFAULT_COUNT[digits.split]
    rows = stacked_rows(count, len(digits), digits.split, seed)
    images = np.empty((count, CHANNELS, digits.height, digits.width), np.uint8)
    labels = np.zeros(count, np.int64)
    for channel in range(CHANNELS):
        images[:, channel] = digits.images[rows[:, channel], 0]
        labels = 10 * labels + digits.labels[rows[:, channel]]
    return Dataset("stacked-mnist", images, labels, list(CLASS_NAMES), digits.split)
