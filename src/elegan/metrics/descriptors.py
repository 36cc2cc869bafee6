"""A weight-free embedding of images of any size: the feature set `descriptors`.

For images that no shipped classifier knows. It describes arrangement, edges and texture by fixed filters,
like the descriptors that came before learned ones:

- each image is area-averaged to at most 32 pixels a side (smaller sides stay);
- arrangement and colour: the mean and the deviation of each channel in each cell of a 4x4 grid: 32 C numbers;
- edges at three scales: the luminance's derivative in 8 directions, positive part, averaged in each cell and
  square-rooted so that faint and strong edges differ less: 3 x 128 numbers.

384 + 32 C float32 numbers an image, all of order 0.1 to 1. RGBA is described as colour over black and its
opacity as a channel. Nothing is learned, so nothing is known of meaning: use it to compare models on one data
set, no further.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

SIDE = 32
GRID = 4
DIRECTIONS = 8
SCALES = 3
BATCH = 250


def descriptors(images: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, C) -> float32 (N, 384 + 32 C). Each row depends on its image alone."""
    import torch

    out = []
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            part = np.ascontiguousarray(images[start : start + BATCH].transpose(0, 3, 1, 2))
            out.append(_describe(torch.from_numpy(part).float().div_(255)))
    return torch.cat(out).numpy()


def _describe(x: Tensor) -> Tensor:
    """(N, C, H, W) in [0, 1] -> (N, 384 + 32 C)."""
    import torch
    from torch.nn import functional as F

    if x.shape[1] == 4:
        x = torch.cat([x[:, :3] * x[:, 3:], x[:, 3:]], 1)
    x = F.adaptive_avg_pool2d(x, (min(SIDE, x.shape[2]), min(SIDE, x.shape[3])))
    mean = F.adaptive_avg_pool2d(x, GRID)
    spread = (F.adaptive_avg_pool2d(x * x, GRID) - mean * mean).clamp(min=0).sqrt()
    parts = [mean.flatten(1), spread.flatten(1)]
    grey = x[:, :3].mean(1, keepdim=True)  # (N, 1, h, w)
    for _ in range(SCALES):
        padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
        dy = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) / 2
        dx = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) / 2
        angles = [2 * np.pi * i / DIRECTIONS for i in range(DIRECTIONS)]
        edges = torch.cat([(np.cos(t) * dx + np.sin(t) * dy).clamp(min=0) for t in angles], 1)  # (N, 8, h, w)
        parts.append(F.adaptive_avg_pool2d(edges, GRID).flatten(1).sqrt())
        smaller = (max(grey.shape[2] // 2, 1), max(grey.shape[3] // 2, 1))
        grey = F.adaptive_avg_pool2d(grey, smaller)
    return torch.cat(parts, 1)  # (N, 2 * 16 C + 3 * 128)
