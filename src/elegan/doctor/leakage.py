"""Label leakage: classes that are told by something which is not the picture's subject.

Two ways. A spot of the pictures gives the class away (a date stamp, a frame, another studio's backdrop): a conditional
GAN learns the spot instead of the class, and every score that reads classes from pictures believes it. Or fakes are
asked for other classes than the data has: D then tells them by their labels, whatever they look like.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

GIVEN_AWAY = 0.99  # of a spot's advantage; the plainest spot of drawn garments has 0.93, of Fashion-MNIST 0.8
LEAST = 10  # unseen pictures of a class, and of the others: fewer tell nothing
BINS = 64  # of a pixel's values
MOST = 13_000  # values of a picture; of a larger one every second row and column counts, or every third ...
AT_ONCE = 1_000_000  # cells of histograms in memory


@dataclass(frozen=True)
class Spot:
    """Where pictures give a class away."""

    label: int
    row: int
    column: int
    advantage: float  # how often it is called where it is, minus how often where it is not, in unseen pictures
    inside: np.ndarray  # uint8 (H, W, C): the mean picture of the class
    outside: np.ndarray  # of all others


def spots(images: np.ndarray, labels: np.ndarray, classes: int) -> list[Spot]:
    """The classes of pictures (N, H, W, C) uint8 with labels (N,) that one pixel gives away, the plainest first.

    The pictures must be in random order: every other one is kept for the count.
    """
    n, height, width, channels = images.shape
    stride = next(s for s in range(1, height + width) if -(-height // s) * -(-width // s) * channels <= MOST)
    coarse = images[:, ::stride, ::stride]
    flat = coarse.reshape(n, -1) // (256 // BINS)
    known = np.arange(n) % 2 == 0
    unseen = np.bincount(labels[~known], minlength=classes)
    block = max(1, AT_ONCE // (BINS * classes))
    blocks = range(0, flat.shape[1], block)
    gain = np.concatenate([advantages(flat[:, at : at + block], labels, known, classes) for at in blocks])
    found = []
    for c in np.flatnonzero((gain.max(0) >= GIVEN_AWAY) & (np.minimum(unseen, unseen.sum() - unseen) >= LEAST)):
        row, column, _ = np.unravel_index(gain[:, c].argmax(), coarse.shape[1:])
        means = [images[side].mean(0).round().astype(np.uint8) for side in (labels == c, labels != c)]
        found.append(Spot(int(c), int(row) * stride, int(column) * stride, float(gain[:, c].max()), *means))
    return sorted(found, key=lambda spot: -spot.advantage)


def advantages(values: np.ndarray, labels: np.ndarray, known: np.ndarray, classes: int) -> np.ndarray:
    """How much oftener each pixel calls each class (pixels, K) where it is than where it is not (Youden 1950).

    A class is called where a pixel's value, of (N, pixels) below `BINS`, is commoner in the class than outside of it by
    the pictures that are `known` (N,); how often that is right and wrong is counted on the others.
    """
    pixels = values.shape[1]
    cells = (np.arange(pixels) * BINS + values) * classes + labels[:, None]
    sides = []
    for side in (known, ~known):
        counts = np.bincount(cells[side].ravel(), minlength=pixels * BINS * classes)
        inside = counts.reshape(pixels, BINS, classes).astype(np.float32)
        outside = inside.sum(2, keepdims=True) - inside
        members = np.maximum(np.bincount(labels[side], minlength=classes), 1)
        others = np.maximum(side.sum() - members, 1)
        sides.append((inside / members, outside / others))
    (here, there), (right, wrong) = sides
    gain: np.ndarray = ((right - wrong) * (here > there)).sum(1)
    return gain


def told_by_label(data: np.ndarray | Sequence[float], asked: np.ndarray | Sequence[float]) -> float:
    """How often a discriminator that sees nothing but labels can be right, by the shares of classes (K,) in the data
    and in what fakes are asked for: 1/2 and half their total variation distance."""
    return 0.5 + 0.25 * float(np.abs(np.asarray(data) - np.asarray(asked)).sum())
