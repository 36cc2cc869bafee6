"""The classifier score: the formula of the inception score (Salimans+ 2016), with any classifier.

Convention. exp of the mean KL(p(y|x) || p(y)), natural logarithm, p(y) the mean over the images scored, all of
them at once (not the mean over ten parts that many programs print, which is lower). Between 1 (every image
classified alike) and K (sure of every image, all classes equally often).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from elegan.errors import UserError
from elegan.metrics.matrix import Estimate, Matrix, as_matrix


def classifier_score(probabilities: ArrayLike, *, splits: int = 10, seed: int = 0) -> Estimate:
    """Classifier score of class probabilities (N, K), rows summing to 1.

    The value is over all N at once; the error is the spread over `splits` random parts divided by the root of
    their number, 0 when N is too small to split. `UserError` for rows that are no probabilities.
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
