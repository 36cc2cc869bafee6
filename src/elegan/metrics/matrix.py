"""What the metrics share: feature matrices, checked, and numbers with their standard errors. Pure numpy, float64.

Rows are images, columns are features; the order of rows does not matter. A standard error here answers one
question: how far would the number move if the model drew other images, the real ones staying as they are?
Means over images have s / sqrt(N); everything else has a jackknife, which leaves out one group of images
after the other (Efron & Tibshirani 1993, chapter 11). Not the bootstrap: drawing with replacement makes twins,
and a twin is its own nearest neighbour.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elegan.errors import UserError

Matrix = NDArray[np.float64]
GROUPS = 40  # of a jackknife: its error is then known to about 11 %


class Estimate(NamedTuple):
    """A number and its standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.4g} +- {self.error:.2g}"


def as_matrix(features: ArrayLike, what: str = "features", rows: int = 1) -> Matrix:
    """Features (N, D) as finite float64; `UserError` for other shapes, NaN, or fewer than `rows` rows."""
    matrix = np.asarray(features, np.float64)
    if matrix.ndim != 2 or matrix.shape[1] == 0:
        raise UserError(f"{what} must be a matrix (images, features), not an array of shape {matrix.shape}")
    if len(matrix) < rows:
        raise UserError(f"{what}: {len(matrix)} images are too few, this metric needs at least {rows}")
    if not np.isfinite(matrix).all():
        bad = int((~np.isfinite(matrix)).any(1).sum())
        raise UserError(
            f"{what}: {bad} of {len(matrix)} rows hold NaN or infinity; the images they came from are broken"
        )
    return matrix


def as_pair(fake: ArrayLike, real: ArrayLike, rows: int = 1) -> tuple[Matrix, Matrix]:
    """Two feature matrices of one width; `UserError` where they differ."""
    a, b = as_matrix(fake, "generated", rows), as_matrix(real, "real", rows)
    same_width(a.shape[1], b.shape[1])
    return a, b


def same_width(fake: int, real: int) -> None:
    """`UserError` unless both sides have as many features."""
    if fake != real:
        raise UserError(f"generated has {fake} features and real {real}: use one feature set for both")


def mean(values: ArrayLike) -> Estimate:
    """The mean of one number an image (N,) and its standard error; the error of a single image is 0."""
    x = np.asarray(values, np.float64)
    return Estimate(float(x.mean()), float(x.std(ddof=1) / np.sqrt(len(x))) if len(x) > 1 else 0.0)


def share(found: ArrayLike) -> Estimate:
    """The share of images (N,) bool for which something holds, and its standard error.

    The error is the deviation of Laplace's posterior, Beta(k + 1, N - k + 1): the usual sqrt(p (1 - p) / N) but
    for rare things, where none among N does not mean never.
    """
    x = np.asarray(found, bool)
    n, k = len(x), int(x.sum())
    likely = (k + 1) / (n + 2)
    return Estimate(k / n, float(np.sqrt(likely * (1 - likely) / (n + 3))))


def median(values: ArrayLike) -> Estimate:
    """The median of (N,) and its standard error: half the gap between the values that lie one deviation of the
    rank, sqrt(N) / 2, below and above it (Woodruff 1952)."""
    x = np.sort(np.asarray(values, np.float64))
    middle, step = (len(x) - 1) / 2, np.sqrt(len(x)) / 2
    low, high = (np.interp(middle + s, np.arange(len(x)), x) for s in (-step, step))
    return Estimate(float(np.median(x)), float(high - low) / 2)


def jackknife(rows: ArrayLike, number: Callable[[Matrix], float], groups: int = GROUPS, seed: int = 0) -> Estimate:
    """`number` of the mean row of (N, D), and its error from leaving out one of `groups` random groups at a time.

    0 where there are fewer than two rows.
    """
    x = as_matrix(rows)
    n, groups = len(x), min(groups, len(x))
    total = x.sum(0)
    if groups < 2:
        return Estimate(number(total / n), 0.0)
    parts = np.array_split(np.random.default_rng(seed).permutation(n), groups)
    return Estimate(
        number(total / n), spread_left_out([number((total - x[part].sum(0)) / (n - len(part))) for part in parts])
    )


def spread_left_out(values: ArrayLike) -> float:
    """The jackknife's standard error from the numbers (G,) that leaving out each of G groups gives."""
    x = np.asarray(values, np.float64)
    return float(np.sqrt((len(x) - 1) * x.var())) if len(x) > 1 else 0.0
