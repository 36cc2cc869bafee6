"""The numbers of each class: a model may be good on average and fail on one class.

Convention. Images are compared with the real images of the same class only. Where a model was asked for classes, an
image's class is the one asked for, and that of a real image its label; else both are what the classifier says, which
the protocol tells. The numbers are those over all classes, with their conventions; each class has fewer images, so
that the Frechet distances are larger and compare with their floor, not with the whole set's. A number is None
where a class has fewer than 6 images on either side, and the Frechet distance where it has no more images than there
are features: its covariance would be singular.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from elegan.metrics import labels, matrix
from elegan.metrics.frechet_distance import Moments, frechet_estimate, moments
from elegan.metrics.manifold import Balls, balls, prdc_estimates
from elegan.metrics.matrix import Matrix
from elegan.metrics.scores import ClassNumbers

LEAST = 6


@dataclass(frozen=True)
class _Real:
    moments: Moments
    balls: Balls
    diversity: float


@dataclass(frozen=True)
class ByClass:
    """The real side, class by class: features (M, D), classes (M,) int in 0..count-1."""

    features: Matrix
    classes: np.ndarray
    count: int
    ks: tuple[int, int] = (3, 5)
    _made: dict[int, _Real] = field(default_factory=dict)

    def __call__(self, features: ArrayLike, classes: np.ndarray, right: np.ndarray | None = None) -> list[ClassNumbers]:
        """The numbers of each class of features (N, D) with classes (N,); `right` bool (N,): the classifier agrees."""
        x = matrix.as_matrix(features)
        return [
            self._one(c, x[classes == c], None if right is None else right[classes == c], len(x))
            for c in range(self.count)
        ]

    def with_accuracy(self, numbers: list[ClassNumbers], right: np.ndarray) -> list[ClassNumbers]:
        """The numbers with the label accuracy of the real images; `right` bool (M,): the classifier agrees."""
        found = [right[self.classes == c] for c in range(self.count)]
        return [
            one.model_copy(update=fields(label_accuracy=matrix.share(hits))) if len(hits) else one
            for one, hits in zip(numbers, found, strict=True)
        ]

    def _one(self, c: int, x: Matrix, right: np.ndarray | None, total: int) -> ClassNumbers:
        share = matrix.share(np.arange(total) < len(x))
        numbers: dict[str, float | None] = {"share": share.value, "share_error": share.error}
        if right is not None and len(right):
            numbers |= fields(label_accuracy=matrix.share(right))
        real = self._real(c)
        if real is not None and len(x) >= LEAST:
            near = prdc_estimates(x, real.balls, k_pr=self.ks[0], k_dc=self.ks[1])
            if min(len(x), len(real.balls.features)) > x.shape[1]:
                numbers |= fields(frechet=frechet_estimate(x, real.moments))
            numbers |= fields(
                precision=near.precision,
                recall=near.recall,
                coverage=near.coverage,
            )
            if real.diversity > 0:
                numbers |= fields(diversity=over(labels.diversity_estimate(x), real.diversity))
        return ClassNumbers(images=len(x), **numbers)

    def _real(self, c: int) -> _Real | None:
        members = self.features[self.classes == c]
        if len(members) < LEAST:
            return None
        if c not in self._made:
            self._made[c] = _Real(moments(members), balls(members, self.ks, "real"), labels.diversity(members))
        return self._made[c]


def fields(**estimates: matrix.Estimate) -> dict[str, float | None]:
    """`{"x": value, "x_error": error}` of each estimate; None for what is not finite."""
    found: dict[str, float | None] = {}
    for name, (value, error) in estimates.items():
        found[name] = float(value) if np.isfinite(value) else None
        found[f"{name}_error"] = float(error) if np.isfinite(error) else None
    return found


def over(estimate: matrix.Estimate, reference: float) -> matrix.Estimate:
    """An estimate in units of a reference that is fixed."""
    return matrix.Estimate(estimate.value / reference, estimate.error / reference)
