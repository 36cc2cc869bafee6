"""What the samples show: class shares, their entropy, and whether a conditional model draws what it was asked
for.

Classes are those of a classifier (`features.py`), taken as the most probable one. The classifier errs, so
each number has a floor: the same number for real images. Entropy is in bits: log2(K) when all K classes are
equally frequent, 0 when there is only one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from elegan.errors import UserError
from elegan.metrics import matrix
from elegan.metrics.matrix import Estimate, Matrix, as_matrix


def predicted(probabilities: ArrayLike) -> np.ndarray:
    """Most probable class (N,) int64 of class probabilities (N, K)."""
    return as_matrix(probabilities, "class probabilities").argmax(1)


def histogram(classes: ArrayLike, count: int) -> Matrix:
    """Shares (count,) of classes 0..count-1 among `classes` (N,): they sum to 1."""
    found = _labels(classes, count)
    if len(found) == 0:
        raise UserError("a class histogram needs at least one image")
    return np.bincount(found, minlength=count) / len(found)


def share_of(classes: ArrayLike, which: int) -> Estimate:
    """Share of class `which` among classes (N,), with its standard error."""
    return matrix.share(np.asarray(classes) == which)


def entropy(shares: ArrayLike) -> float:
    """Entropy in bits of class shares (K,)."""
    p = np.asarray(shares, np.float64)
    p = p[p > 0]
    return float(abs((p * np.log2(p)).sum()))  # abs: one class only would give -0.0


def entropy_estimate(classes: ArrayLike, count: int) -> Estimate:
    """Entropy in bits of classes (N,) in 0..count-1, with its standard error: that of the mean of -log2 p(class)."""
    shares = histogram(classes, count)
    with np.errstate(divide="ignore"):
        surprise = -np.log2(shares)[np.asarray(classes)]
    return Estimate(entropy(shares), matrix.mean(surprise).error)


def label_accuracy(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Share of images whose most probable class is the label (N,) they were made for."""
    return label_accuracy_estimate(probabilities, labels).value


def label_accuracy_estimate(probabilities: ArrayLike, labels: ArrayLike) -> Estimate:
    """`label_accuracy` with its standard error."""
    p = as_matrix(probabilities, "class probabilities")
    return agreement(predicted(p), labels, p.shape[1])


def agreement(classes: ArrayLike, labels: ArrayLike, count: int) -> Estimate:
    """Share of images whose class (N,) is the label (N,) in 0..count-1, with its standard error."""
    found, wanted = np.asarray(classes), _labels(labels, count)
    if len(wanted) != len(found):
        raise UserError(f"{len(wanted)} labels for {len(found)} images: give one label an image")
    return matrix.share(found == wanted)


def diversity(features: ArrayLike, classes: ArrayLike | None = None) -> float:
    """Root mean squared distance between two images of one class (of the whole set without `classes`).

    Over all pairs at once: the mean squared distance of a pair is twice the trace of the covariance. Each
    class weighs as many as it has images; classes of one image are left out. 0 when every class is a single
    picture.
    """
    return diversity_estimate(features, classes).value


def diversity_estimate(features: ArrayLike, classes: ArrayLike | None = None) -> Estimate:
    """`diversity` with its standard error, from the squared distances (N,) of images from the mean of their class."""
    x = as_matrix(features, rows=2)
    groups = np.zeros(len(x), np.int64) if classes is None else np.asarray(classes)
    found = []
    for group in np.unique(groups):
        members = x[groups == group]
        if len(members) > 1:
            around = ((members - members.mean(0)) ** 2).sum(1)
            found.append(2 * around * len(members) / (len(members) - 1))
    squared = matrix.mean(np.concatenate(found)) if found else Estimate(0.0, 0.0)
    root = float(np.sqrt(squared.value))
    return Estimate(root, squared.error / (2 * root) if root else 0.0)


def _labels(labels: ArrayLike, count: int) -> np.ndarray:
    found = np.asarray(labels)
    if found.ndim != 1 or not np.issubdtype(found.dtype, np.integer):
        raise UserError(f"labels must be whole numbers, one an image, not {found.dtype} {found.shape}")
    if len(found) and not 0 <= found.min() <= found.max() < count:
        raise UserError(f"labels run from {found.min()} to {found.max()}; the classifier knows 0 to {count - 1}")
    return found.astype(np.int64)
