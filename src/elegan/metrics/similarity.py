"""How alike two images of one class are: multi-scale structural similarity (MS-SSIM; Wang+ 2003; Odena+ 2017).

Convention. Values 0 to 255; a Gaussian window of 11x11 pixels with deviation 1.5, used only where it fits
whole; K1 = 0.01, K2 = 0.03. At each scale contrast and structure, at the last also luminance, averaged over the
picture, and between scales 2x2 means. The exponents are the first of the published five (0.0448, 0.2856,
0.3001, 0.2363, 0.1333), scaled to sum 1: as many scales as leave 11 pixels at the shorter side, so 2 at 28
pixels and 3 at 64 (the full five need 161). Negative products count as 0.
Colour channels are compared apart and averaged.

`pair_similarity` draws disjoint pairs within classes, so that pairs are independent: 1 when all images of a
class are one picture. What is healthy depends on the data: compare with the floor. Clearly above it, samples of
a class are too much alike (mode collapse within a class); blur also raises it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from elegan.errors import UserError
from elegan.metrics import matrix
from elegan.metrics.matrix import Estimate

if TYPE_CHECKING:
    from torch import Tensor

EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW, DEVIATION = 11, 1.5
K1, K2 = 0.01, 0.03
BATCH = 250


def scales_of(height: int, width: int) -> int:
    """How many scales a picture of this size has; 0 when the window does not fit."""
    return sum(min(height, width) >> scale >= WINDOW for scale in range(len(EXPONENTS)))


def ms_ssim(a: np.ndarray, b: np.ndarray, scales: int | None = None) -> np.ndarray:
    """MS-SSIM (N,) float64 of each image of uint8 `a` with that of `b`, both (N, H, W, C).

    `scales`: by default as many as fit. `UserError` for unequal shapes, or images below 11 pixels a side.
    """
    import torch

    if a.shape != b.shape:
        raise UserError(f"images of shapes {a.shape} and {b.shape} cannot be compared one by one")
    fit = scales_of(*a.shape[1:3])
    scales = fit if scales is None else scales
    if not 1 <= scales <= fit:
        raise UserError(f"MS-SSIM with {scales} scales needs larger images: {a.shape[1]}x{a.shape[2]} allow {fit}")
    found = []
    with torch.inference_mode():
        for start in range(0, len(a), BATCH):
            part = slice(start, start + BATCH)
            found.append(_compare(_tensor(a[part]), _tensor(b[part]), scales))
    return torch.cat(found).numpy()


def pair_similarity(
    images: np.ndarray, classes: ArrayLike | None = None, *, pairs: int = 2000, seed: int = 0
) -> Estimate:
    """Mean MS-SSIM of at most `pairs` disjoint random pairs within the classes (N,) of uint8 images (N, H, W, C).

    Each class has pairs in proportion to its images; without `classes` all are one. `UserError` where no class
    has two images.
    """
    groups = np.zeros(len(images), np.int64) if classes is None else np.asarray(classes)
    shuffled = np.random.default_rng(seed).permutation(len(images))
    found = []
    for group in np.unique(groups):
        members = shuffled[groups[shuffled] == group]
        half = len(members) // 2
        if len(images) > 2 * pairs:  # rounded up: a rare class still has a pair
            half = min(half, -(-half * 2 * pairs // len(images)))
        found.append(members[: 2 * half].reshape(half, 2))
    rows = np.concatenate(found)
    if not len(rows):
        raise UserError("similarity within a class needs two images of some class")
    return matrix.mean(ms_ssim(images[rows[:, 0]], images[rows[:, 1]]))


def _tensor(images: np.ndarray) -> Tensor:
    """uint8 (N, H, W, C) -> float64 (N, C, H, W): the variances are differences of large numbers."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).double()


def _compare(a: Tensor, b: Tensor, scales: int) -> Tensor:
    """(N, C, H, W) twice -> (N,)."""
    import torch
    from torch.nn import functional as F

    total = sum(EXPONENTS[:scales])
    product = torch.ones(a.shape[:2], dtype=a.dtype)  # (N, C)
    for scale in range(scales):
        luminance, structure = _ssim(a, b)
        last = luminance * structure if scale == scales - 1 else structure
        product = product * last.mean((2, 3)).clamp(min=0) ** (EXPONENTS[scale] / total)
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return product.mean(1)


def _ssim(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Maps (N, C, h, w) of luminance and of contrast times structure."""
    c1, c2 = (K1 * 255) ** 2, (K2 * 255) ** 2
    mean_a, mean_b = _blur(a), _blur(b)
    var_a, var_b = _blur(a * a) - mean_a * mean_a, _blur(b * b) - mean_b * mean_b
    covariance = _blur(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + c1) / (mean_a * mean_a + mean_b * mean_b + c1)
    return luminance, (2 * covariance + c2) / (var_a + var_b + c2)


def _blur(x: Tensor) -> Tensor:
    """Gaussian means (N, C, h, w) where the window fits whole."""
    import torch

    at = torch.arange(WINDOW, dtype=x.dtype) - WINDOW // 2
    taps = torch.exp(-(at**2) / (2 * DEVIATION**2))
    taps = taps / taps.sum()
    rows = x.unfold(2, WINDOW, 1) @ taps
    return rows.unfold(3, WINDOW, 1) @ taps
