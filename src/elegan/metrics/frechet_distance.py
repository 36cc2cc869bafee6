"""The Frechet distance between two feature matrices: the formula of FID (Heusel+ 2017, eq. 6).

Convention. A Gaussian is fitted to the features of each side, with the covariance divided by N - 1, and the
*squared* 2-Wasserstein distance between the two is

    |m1 - m2|^2 + Tr(C1 + C2 - 2 (C1 C2)^(1/2)).

No unit; it compares only within one feature set. Biased upwards by about 1/N: only numbers with equal N
compare.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from elegan.metrics.matrix import Estimate, Matrix, as_matrix, same_width

FAINTEST = 1e-10  # eigenvalues below this part of the largest are rounding


class _Moments(NamedTuple):
    mean: Matrix
    covariance: Matrix


class Moments(_Moments):
    """Mean (D,) and unbiased covariance (D, D) of features: all that the distance needs."""

    @cached_property
    def root(self) -> Matrix:
        """The symmetric square root of the covariance."""
        values, vectors = np.linalg.eigh(self.covariance)
        return (vectors * np.sqrt(values.clip(0))) @ vectors.T  # rounding makes zero eigenvalues negative


def moments(features: ArrayLike) -> Moments:
    """Mean and covariance (divided by N - 1) of features (N, D), N >= 2."""
    x = as_matrix(features, rows=2)
    mean = x.mean(0)
    centred = x - mean
    return Moments(mean, centred.T @ centred / (len(x) - 1))


def frechet(fake: ArrayLike | Moments, real: ArrayLike | Moments) -> float:
    """Squared Frechet distance of Gaussians fitted to two feature matrices (N, D), (M, D), or to their moments.

    The square root's trace is the sum of the roots of the eigenvalues of B C1 B with B = C2^(1/2): symmetric,
    so two calls of `eigh` serve, there is nothing complex to discard, and singular covariances are fine.
    Symmetric in its arguments; 0 for equal moments. Accurate to about 1e-7 of the features' variance when a
    covariance is singular, else to rounding.
    """
    a, b = _pair(fake, real)
    inner = np.linalg.eigvalsh(b.root @ a.covariance @ b.root)
    return _distance(a, b, inner)


def frechet_estimate(fake: ArrayLike, real: ArrayLike | Moments) -> Estimate:
    """The distance with the standard error that comes from drawing other generated images; `real` is fixed.

    The infinitesimal jackknife: the limit of leaving out ever smaller groups. The derivative of the distance
    by m1 is 2 (m1 - m2) and by C1 it is I - T, where T = B (B C1 B)^(-1/2) B carries the one Gaussian onto the
    other; so image x moves the distance by

        2 (m1 - m2).(x - m1) + (x - m1)^T (I - T) (x - m1) - Tr((I - T) C1)

    over N, and the error is the deviation of that over sqrt(N). Near 0, where the distance is all noise, it is
    up to a quarter too large, never too small.
    """
    x = as_matrix(fake, "generated", rows=2)
    a, b = _pair(moments(x), real)
    values, vectors = np.linalg.eigh(b.root @ a.covariance @ b.root)
    steep = values > FAINTEST * values.max(initial=0.0)
    inverse = np.zeros_like(values)  # nothing is known of directions without spread
    inverse[steep] = values[steep] ** -0.5
    half = b.root @ (vectors * np.sqrt(inverse))  # T = half half^T
    centred = x - a.mean
    moved = 2 * centred @ (a.mean - b.mean) + (centred**2).sum(1) - ((centred @ half) ** 2).sum(1)
    return Estimate(_distance(a, b, values), float(moved.std(ddof=1) / np.sqrt(len(x))))


def _pair(fake: ArrayLike | Moments, real: ArrayLike | Moments) -> tuple[Moments, Moments]:
    a = fake if isinstance(fake, Moments) else moments(fake)
    b = real if isinstance(real, Moments) else moments(real)
    same_width(a.mean.size, b.mean.size)
    return a, b


def _distance(a: Moments, b: Moments, inner: np.ndarray) -> float:
    """From the eigenvalues of C2^(1/2) C1 C2^(1/2)."""
    trace = np.trace(a.covariance) + np.trace(b.covariance) - 2 * np.sqrt(inner.clip(0)).sum()
    return float(np.sum((a.mean - b.mean) ** 2) + trace)
