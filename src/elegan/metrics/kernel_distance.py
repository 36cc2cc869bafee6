"""The kernel distance between two feature matrices: the formula of KID (Binkowski+ 2018).

Convention. The unbiased squared maximum mean discrepancy with k(x, y) = (x.y / D + 1)^3, D the number of
features. Not multiplied by 100 or 1000. Its expectation does not depend on N; for equal laws it is 0, and it
may be slightly negative. No unit; it compares only within one feature set.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from elegan.metrics.matrix import Estimate, Matrix, as_pair


def kernel(fake: ArrayLike, real: ArrayLike, *, blocks: int = 10, seed: int = 0) -> Estimate:
    """Kernel distance of generated (N, D) from real (M, D) features, with its standard error.

    Both sets are shuffled and cut into `blocks` disjoint parts (1,000 rows each at 10,000 images); the value
    is the mean of the parts' distances. The parts are independent draws of both sides, so the spread of their
    distances over the root of their number is an honest standard error; that of the usual overlapping random
    subsets is not. One block compares all at once and knows no error.
    """
    x, y = as_pair(fake, real, rows=4)
    generator = np.random.default_rng(seed)
    blocks = min(blocks, len(x) // 2, len(y) // 2)
    parts_x = np.array_split(generator.permutation(len(x)), blocks)
    parts_y = np.array_split(generator.permutation(len(y)), blocks)
    values = [_mmd2(x[i], y[j]) for i, j in zip(parts_x, parts_y, strict=True)]
    error = np.std(values, ddof=1) / np.sqrt(blocks) if blocks > 1 else 0.0
    return Estimate(float(np.mean(values)), float(error))


def _mmd2(x: Matrix, y: Matrix) -> float:
    """Unbiased squared MMD: pairs of an image with itself are left out of the two within-set means."""
    m, n, d = len(x), len(y), x.shape[1]
    xx, yy, xy = (_cube(a @ b.T / d + 1) for a, b in ((x, x), (y, y), (x, y)))
    within_x = (xx.sum() - np.trace(xx)) / (m * (m - 1))
    within_y = (yy.sum() - np.trace(yy)) / (n * (n - 1))
    return float(within_x + within_y - 2 * xy.mean())


def _cube(a: Matrix) -> Matrix:
    return a * a * a  # numpy's power is thirty times slower
