"""The real side of a comparison, and every number that needs nothing else: neither labels nor training images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from elegan.metrics import labels as label_metrics
from elegan.metrics.class_score import classifier_score
from elegan.metrics.classes import ByClass, fields, over
from elegan.metrics.features import Extracted, Features
from elegan.metrics.frechet_distance import Moments, frechet_estimate, moments
from elegan.metrics.kernel_distance import kernel
from elegan.metrics.manifold import Balls, balls, prdc_estimates
from elegan.metrics.matrix import Estimate, as_matrix
from elegan.metrics.scores import Numbers
from elegan.metrics.similarity import pair_similarity, scales_of
from elegan.metrics.spectrum import Detail, detail, sharpness
from elegan.metrics.stacked import ChannelFeatures, Modes, modes
from elegan.metrics.wasserstein import sliced_wasserstein

K_PR, K_DC = 3, 5
MODES = 1000
SMALLEST_SPECTRUM = 4  # pixels a side


@dataclass(frozen=True)
class Looked:
    """A set of images and what a feature set says about it."""

    images: np.ndarray  # uint8 (N, H, W, C)
    extracted: Extracted
    codes: np.ndarray | None = None  # (N,) modes of Stacked MNIST

    @cached_property
    def kinds(self) -> np.ndarray | None:
        """The class that the classifier sees in each image (N,), or None where there is no classifier."""
        if self.codes is not None:
            return self.codes
        return None if self.extracted.probabilities is None else label_metrics.predicted(self.extracted.probabilities)


def look(features: Features | ChannelFeatures, images: np.ndarray, keep: bool = False) -> Looked:
    """Extract the features of uint8 images (N, H, W, C). `keep`: on disk, for the real side, which comes again."""
    if isinstance(features, ChannelFeatures):
        return Looked(images, *features.with_codes(images, keep))
    return Looked(images, features.kept(images) if keep else features(images))


@dataclass(frozen=True)
class Reference:
    """The real images that others are compared with; what is expensive is computed when it is first needed."""

    real: Looked
    seed: int = 0

    @cached_property
    def balls(self) -> Balls:
        """Neighbourhoods."""
        return balls(self.real.extracted.features, (K_PR, K_DC), "real")

    @cached_property
    def moments(self) -> Moments:
        """Mean and covariance."""
        return moments(self.real.extracted.features)

    @cached_property
    def diversity(self) -> float:
        """Spread within classes."""
        return label_metrics.diversity(self.real.extracted.features, self.real.kinds)

    @cached_property
    def detail(self) -> Detail:
        """Edges and spectra."""
        return detail(self.real.images)

    @cached_property
    def mode_shares(self) -> np.ndarray | None:
        """Shares of the modes of Stacked MNIST."""
        codes = self.real.codes
        return None if codes is None else label_metrics.histogram(codes, MODES)

    def by_class(self, classes: np.ndarray, count: int) -> ByClass:
        """The same, class by class: `classes` (M,) of the real images."""
        return ByClass(as_matrix(self.real.extracted.features, "real"), classes, count, (K_PR, K_DC))

    def numbers(self, ours: Looked) -> Numbers:
        """Every number of a set of images that needs the real ones alone."""
        features, real = ours.extracted.features, self.real
        near = prdc_estimates(features, self.balls, k_pr=K_PR, k_dc=K_DC, seed=self.seed)
        spread = label_metrics.diversity_estimate(features, ours.kinds)
        found: dict[str, Any] = fields(
            frechet=frechet_estimate(features, self.moments),
            kernel=kernel(features, real.extracted.features, seed=self.seed),
            wasserstein=sliced_wasserstein(ours.images, real.images, seed=self.seed).estimate,
            diversity=over(spread, self.diversity) if self.diversity > 0 else Estimate(0.0, 0.0),
            **near._asdict(),
        )
        return Numbers(**found, **self._pictures(ours), **self._classes(ours))

    def _pictures(self, ours: Looked) -> dict[str, Any]:
        """Detail and similarity, for images that are large enough."""
        found: dict[str, Any] = {}
        height, width = ours.images.shape[1:3]
        if min(height, width) >= SMALLEST_SPECTRUM:
            sharp = sharpness(detail(ours.images), self.detail)
            found |= fields(sharpness=sharp.gradient, top_octave=sharp.fine, spectrum=sharp.distance)
            found["spectrum_curve"] = list(sharp.curve)
        if scales_of(height, width) and _has_pair(ours.kinds, len(ours.images)):
            found |= fields(ms_ssim=pair_similarity(ours.images, ours.kinds, seed=self.seed))
        return found

    def _classes(self, ours: Looked) -> dict[str, Any]:
        """What a classifier says, or the modes of Stacked MNIST."""
        if ours.codes is not None:
            seen: Modes = modes(ours.codes, MODES, self.mode_shares)
            assert seen.kl_real is not None
            return fields(modes=seen.found, modes_kl=seen.kl_uniform, modes_kl_real=seen.kl_real)
        p, foreign = ours.extracted.probabilities, ours.extracted.foreign
        if foreign is not None:
            return fields(classifier_score=classifier_score(foreign, seed=self.seed))
        if p is None or ours.kinds is None:
            return {}
        shares = [label_metrics.share_of(ours.kinds, c) for c in range(p.shape[1])]
        return {
            **fields(
                classifier_score=classifier_score(p, seed=self.seed),
                class_entropy=label_metrics.entropy_estimate(ours.kinds, p.shape[1]),
            ),
            "class_shares": [share.value for share in shares],
            "class_shares_error": [share.error for share in shares],
        }


def _has_pair(kinds: np.ndarray | None, count: int) -> bool:
    return count > 1 if kinds is None else bool(len(kinds) and np.bincount(kinds).max() > 1)
