"""Sliced Wasserstein distance between patches of a Laplacian pyramid (Karras+ 2018, section 5): weight free.

Each image becomes a pyramid: differences between a scale and its blurred, halved and re-enlarged self, and at
the end the coarsest scale. On each level, small patches at random places of the two sets are projected on
random directions; in one dimension the Wasserstein distance is the mean difference of sorted values. Coarse
levels tell about arrangement, fine ones about texture.

Convention. Values in [0, 1]; patches 7x7 (smaller where the level is), one mean and one deviation per channel
*of the real patches* normalise both sets. (The paper normalises each set by its own, which hides a change of
brightness or contrast.) The level's distance is the mean over directions of the mean absolute difference:
unscaled, where the paper multiplies by 1,000. Any size and number of channels; levels are halved down to 16
pixels at the shorter side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from elegan.errors import UserError
from elegan.metrics.matrix import Estimate

if TYPE_CHECKING:
    from torch import Generator, Tensor

COARSEST = 16
PATCH = 7
PARTS = 10
FAINTEST = 1e-3  # a quarter of a grey level: less is rounding, not texture


class Sliced(NamedTuple):
    """Distance per level, finest first, and their mean. No unit: standard deviations of real patches."""

    levels: tuple[float, ...]
    mean: float
    error: float

    @property
    def estimate(self) -> Estimate:
        """The mean and its standard error."""
        return Estimate(self.mean, self.error)


def sliced_wasserstein(
    fake: np.ndarray,
    real: np.ndarray,
    *,
    images: int = 2048,
    patches: int = 16,
    directions: int = 128,
    seed: int = 0,
) -> Sliced:
    """Distance of uint8 `fake` (N, H, W, C) from `real` (M, H, W, C). `UserError` for other shapes.

    The first min(images, N, M) images of each are used, `patches` from each level of each image. Positive
    even for equal laws, by about the root of one over the number of images: compare with the floor.
    """
    import torch

    if fake.shape[1:] != real.shape[1:]:
        raise UserError(f"generated images are {fake.shape[1:]} and real ones {real.shape[1:]}: resize one of them")
    count = min(images, len(fake), len(real))
    if count < 2:
        raise UserError("the sliced Wasserstein distance needs at least 2 images on each side")
    generator = torch.Generator().manual_seed(seed)
    parts = min(PARTS, count // 2)
    levels, spread = [], []
    for a, b in zip(_pyramid(fake[:count]), _pyramid(real[:count]), strict=True):
        # Places are drawn anew for each set: shared ones would correlate the two.
        x, y = (_patches(level, patches, generator) for level in (a, b))  # (P, C, size)
        mean, deviation = y.mean((0, 2), keepdim=True), y.std((0, 2), keepdim=True)
        x, y = ((p - mean) / deviation.clamp(min=FAINTEST) for p in (x, y))
        axes = torch.randn(x[0].numel(), directions, generator=generator)
        axes = axes / axes.norm(dim=0, keepdim=True)
        along_x, along_y = ((p.flatten(1) @ axes).T.contiguous().numpy() for p in (x, y))  # (directions, P)
        levels.append(_gap(along_x, along_y))
        spread.append([_gap(p, q) for p, q in zip(_cut(along_x, parts), _cut(along_y, parts), strict=True)])
    drawn = np.mean(spread, 0)  # (parts,)
    return Sliced(
        tuple(levels), float(np.mean(levels)), float(np.std(drawn, ddof=1) / np.sqrt(parts)) if parts > 1 else 0.0
    )


def _gap(x: np.ndarray, y: np.ndarray) -> float:
    """Mean over rows of the Wasserstein distance of values (directions, P): that of sorted values."""
    return float(np.abs(np.sort(x, 1) - np.sort(y, 1)).mean())


def _cut(along: np.ndarray, parts: int) -> list[np.ndarray]:
    """Disjoint parts of as many images: the patches of an image lie side by side."""
    size = along.shape[1] // parts
    return [along[:, i * size : (i + 1) * size] for i in range(parts)]


def _pyramid(images: np.ndarray) -> list[Tensor]:
    """uint8 (N, H, W, C) -> levels (N, C, h, w) float32: differences, finest first, then the coarsest scale."""
    import torch
    from torch.nn import functional as F

    x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float().div_(255)
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16  # binomial, as in Burt and Adelson 1983
    channels = x.shape[1]
    down, across = (taps.view(s).expand(channels, *s[1:]) for s in ((1, 1, 5, 1), (1, 1, 1, 5)))
    levels: list[Tensor] = []
    while min(x.shape[2:]) >= 2 * COARSEST or (not levels and min(x.shape[2:]) > PATCH):
        blurred = F.conv2d(F.pad(x, (0, 0, 2, 2), mode="reflect"), down.contiguous(), groups=channels)
        blurred = F.conv2d(F.pad(blurred, (2, 2, 0, 0), mode="reflect"), across.contiguous(), groups=channels)
        small = blurred[:, :, ::2, ::2]
        levels.append(x - F.interpolate(small, size=x.shape[2:], mode="bilinear", align_corners=False))
        x = small
    return [*levels, x]


def _patches(level: Tensor, count: int, generator: Generator) -> Tensor:
    """(N, C, h, w) -> `count` patches of each image at random places: (N * count, C, patch * patch)."""
    import torch

    height, width = min(PATCH, level.shape[2]), min(PATCH, level.shape[3])
    n = len(level)
    windows = level.unfold(2, height, 1).unfold(3, width, 1)  # (N, C, rows, columns, height, width), a view
    rows = torch.randint(windows.shape[2], (n * count,), generator=generator)
    columns = torch.randint(windows.shape[3], (n * count,), generator=generator)
    which = torch.arange(n).repeat_interleave(count)
    return windows[which, :, rows, columns].flatten(2)
