"""Distances between two feature matrices, and the classifier score. Pure numpy, float64 inside.

Rows are images, columns are features; the order of rows does not matter. Neither distance has a unit, and
both compare only within one feature set.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elegan.errors import UserError

Matrix = NDArray[np.float64]


class Estimate(NamedTuple):
    """A number and its standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.4g} +- {self.error:.2g}"


class Moments(NamedTuple):
    """Mean (D,) and unbiased covariance (D, D) of features: all that the Frechet distance needs."""

    mean: Matrix
    covariance: Matrix


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
    _same_width(a.shape[1], b.shape[1])
    return a, b


def _same_width(fake: int, real: int) -> None:
    if fake != real:
        raise UserError(f"generated has {fake} features and real {real}: use one feature set for both")


def moments(features: ArrayLike) -> Moments:
    """Mean and covariance (divided by N - 1) of features (N, D), N >= 2."""
    x = as_matrix(features, rows=2)
    mean = x.mean(0)
    centred = x - mean
    return Moments(mean, centred.T @ centred / (len(x) - 1))


def frechet(fake: ArrayLike | Moments, real: ArrayLike | Moments) -> float:
    """Squared Frechet (2-Wasserstein) distance between Gaussians fitted to two feature matrices; Heusel+
    2017, eq. 6.

        |m1 - m2|^2 + Tr(C1 + C2 - 2 (C1 C2)^(1/2))

    The square root's trace is the sum of the roots of the eigenvalues of A C2 A with A = C1^(1/2): symmetric,
    so two calls of `eigh` serve, there is nothing complex to discard, and singular covariances are fine.
    Symmetric in its arguments; 0 for equal moments. Biased upwards by about 1/N: only numbers with equal N
    compare. Accurate to about 1e-7 of the features' variance when a covariance is singular, else to rounding.
    """
    a = fake if isinstance(fake, Moments) else moments(fake)
    b = real if isinstance(real, Moments) else moments(real)
    _same_width(a.mean.size, b.mean.size)
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T  # rounding makes zero eigenvalues negative
    inner = np.linalg.eigvalsh(root @ b.covariance @ root)
    trace = np.trace(a.covariance) + np.trace(b.covariance) - 2 * np.sqrt(inner.clip(0)).sum()
    return float(np.sum((a.mean - b.mean) ** 2) + trace)


def kernel(fake: ArrayLike, real: ArrayLike, *, blocks: int = 10, seed: int = 0) -> Estimate:
    """Kernel distance (KID; Binkowski+ 2018): unbiased squared MMD with k(x, y) = (x.y / D + 1)^3.

    Both sets are shuffled and cut into `blocks` disjoint parts (1,000 rows each at 10,000 images); the value
    is the mean of the parts' distances, so its expectation does not depend on N and it may be slightly
    negative. The parts are independent draws, so the spread of their distances over the root of their number
    is an honest standard error; that of the usual overlapping random subsets is not. Not multiplied by 100 or
    1000.
    """
    x, y = as_pair(fake, real, rows=4)
    generator = np.random.default_rng(seed)
    blocks = min(blocks, len(x) // 2, len(y) // 2)
    parts_x = np.array_split(generator.permutation(len(x)), blocks)
    parts_y = np.array_split(generator.permutation(len(y)), blocks)
    values = [_mmd2(x[i], y[j]) for i, j in zip(parts_x, parts_y, strict=True)]
    return Estimate(float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(blocks)))


def _mmd2(x: Matrix, y: Matrix) -> float:
    """Unbiased squared MMD: pairs of an image with itself are left out of the two within-set means."""
    m, n, d = len(x), len(y), x.shape[1]
    xx, yy, xy = (_cube(a @ b.T / d + 1) for a, b in ((x, x), (y, y), (x, y)))
    within_x = (xx.sum() - np.trace(xx)) / (m * (m - 1))
    within_y = (yy.sum() - np.trace(yy)) / (n * (n - 1))
    return float(within_x + within_y - 2 * xy.mean())


def _cube(a: Matrix) -> Matrix:
    return a * a * a  # numpy's power is thirty times slower


def classifier_score(probabilities: ArrayLike, *, splits: int = 10, seed: int = 0) -> Estimate:
    """Classifier score (the inception score's formula; Salimans+ 2016): exp of the mean KL(p(y|x) || p(y)).

    `probabilities` (N, K), rows summing to 1. Natural logarithm. Between 1 (every image classified alike) and
    K (sure of every image, all classes equally often). The value is over all N at once; the error is the
    spread over `splits` random parts divided by the root of their number, 0 when N is too small to split.
    """
    p = as_matrix(probabilities, "class probabilities")
    if (p < 0).any() or not np.allclose(p.sum(1), 1, atol=1e-3):
        raise UserError("class probabilities must be at least 0, rows summing to 1: give softmax outputs")
    order = np.random.default_rng(seed).permutation(len(p))
    splits = min(splits, len(p) // 10)
    parts = [_score(p[part]) for part in np.array_split(order, splits)] if splits > 1 else []
    return Estimate(_score(p), float(np.std(parts, ddof=1) / np.sqrt(len(parts))) if parts else 0.0)


def _score(p: Matrix) -> float:
    marginal = p.mean(0, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * (np.log(p) - np.log(marginal)), 0.0)  # 0 log 0 = 0
    return float(np.exp(terms.sum(1).mean()))
