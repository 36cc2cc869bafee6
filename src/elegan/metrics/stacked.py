"""How many modes does a model make? Stacked MNIST: a digit in each of three channels, 1,000 modes (Metz+ 2017).

Convention (that of PacGAN, Lin+ 2018). A digit classifier names each channel; a sample's mode is the three-digit
number; a mode counts as found when at least one sample has it. KL is sum q log(q / p) in nats, q the samples'
shares and p either the same for all modes (the published number) or the shares of the real data. At 26,000
samples, which is the number that published results use, real images have 0.023: (modes - 1) / 2N = 0.019 from the
finite number of samples, and 0.004 because the ten digits of MNIST are not equally frequent. Much less than that
against equal shares is a bug, not a success.

The errors are those of a jackknife over samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from elegan.errors import UserError
from elegan.metrics import matrix
from elegan.metrics.matrix import Estimate, Matrix

if TYPE_CHECKING:
    from elegan.metrics.features import Extracted, Features


CHANNELS = 3
PUBLISHED = 26_000  # samples behind published numbers


@dataclass(frozen=True)
class Modes:
    """Modes found, and divergence from equal shares and from the reference's shares, in nats."""

    found: Estimate
    kl_uniform: Estimate
    kl_real: Estimate | None


def modes(codes: ArrayLike, count: int = 1000, real: ArrayLike | None = None) -> Modes:
    """Of mode numbers (N,) in 0..count-1 of the samples and, if known, shares (count,) of the real modes.

    Where real shares are 0 the samples' are compared with half an image's share: the divergence stays finite.
    `UserError` for other codes.
    """
    numbers = np.asarray(codes)
    if numbers.ndim != 1 or not np.issubdtype(numbers.dtype, np.integer) or not len(numbers):
        raise UserError(f"modes are whole numbers, one an image, not {numbers.dtype} {numbers.shape}")
    if not 0 <= numbers.min() <= numbers.max() < count:
        raise UserError(f"modes run from {numbers.min()} to {numbers.max()}; there are {count}")
    parts = np.array_split(np.random.default_rng(0).permutation(numbers), min(matrix.GROUPS, len(numbers)))
    counts = np.stack([np.bincount(part, minlength=count) for part in parts]).astype(np.float64)  # (G, count)
    uniform = np.full(count, 1 / count)
    return Modes(
        found=_left_out(counts, lambda have: float((have > 0).sum())),
        kl_uniform=_left_out(counts, lambda have: divergence(have, uniform)),
        kl_real=None
        if real is None
        else _left_out(counts, lambda have: divergence(have, np.asarray(real, np.float64))),
    )


def divergence(counts: Matrix, real: Matrix) -> float:
    """KL(samples || real) in nats from counts (K,) and shares (K,)."""
    q = counts / counts.sum()
    seen = q > 0
    p = np.where(real > 0, real, 0.5 / counts.sum())
    return float((q[seen] * np.log(q[seen] / p[seen])).sum())


def _left_out(counts: Matrix, number: Callable[[Matrix], float]) -> Estimate:
    total = counts.sum(0)
    if len(counts) < 2:
        return Estimate(number(total), 0.0)
    return Estimate(number(total), matrix.spread_left_out([number(total - part) for part in counts]))


@dataclass(frozen=True)
class ChannelFeatures:
    """A classifier of grey images applied to every channel: its features side by side, and the mode of each image."""

    one: Features
    classes: int = 0  # so many probabilities would not fit; the modes say it

    @property
    def net(self) -> Any:
        """The classifier."""
        return self.one.net

    def __call__(self, images: np.ndarray) -> Extracted:
        return self.with_codes(images)[0]

    def with_codes(self, images: np.ndarray, keep: bool = False) -> tuple[Extracted, np.ndarray]:
        """uint8 (N, H, W, C) -> features (N, C D), and mode numbers (N,): the first channel's digit counts most."""
        from elegan.metrics.features import Extracted

        look = self.one.kept if keep else self.one
        found = [look(images[..., channel : channel + 1]) for channel in range(CHANNELS)]
        codes = np.zeros(len(images), np.int64)
        for channel in found:
            assert channel.probabilities is not None
            codes = codes * self.one.classes + channel.probabilities.argmax(1)
        return Extracted(np.concatenate([channel.features for channel in found], 1), None), codes

    def __str__(self) -> str:
        return f"{self.one}, on each channel"
