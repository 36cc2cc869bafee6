"""Half and double size without aliasing, and the grid of sizes that a network climbs.

All is linear, with the filter [1, 3, 3, 1] / 8 along each side (Karras+ 2020 use it for both ways; doubling with it is
bilinear interpolation), so it commutes with sums and may be differentiated twice.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def blur(x: Tensor, pad: int, stride: int = 1) -> Tensor:
    """(N, C, H, W) filtered by [1, 3, 3, 1] / 8 along both sides, `pad` zeros around, every `stride`-th kept."""
    taps = torch.full((4,), 3 / 8, dtype=x.dtype, device=x.device)  # made there: a GPU would wait for a copy
    taps[::3].fill_(1 / 8)
    kernel = torch.outer(taps, taps).expand(x.shape[1], 1, -1, -1)  # one for each channel
    x = F.conv2d(x, kernel, padding=pad, groups=x.shape[1])  # with a stride its gradient is ten times as slow
    return x[:, :, ::stride, ::stride]


def halve(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, ceil(H / 2), ceil(W / 2)), blurred first; pictures go on beyond their border."""
    right, bottom = 1 + x.shape[3] % 2, 1 + x.shape[2] % 2
    return blur(F.pad(x, (1, right, 1, bottom), mode="replicate"), 0, 2)


def double(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, 2H, 2W), bilinear."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def pad_to(x: Tensor, height: int, width: int) -> Tensor:
    """Grow pictures to (height, width) by repeating their border: `layers.Crop` cuts the same part out again."""
    h, w = height - x.shape[2], width - x.shape[3]
    if not (h or w):
        return x
    return F.pad(x, (w // 2, w - w // 2, h // 2, h - h // 2), mode="replicate")


def halvings(height: int, width: int, smallest: float = 5.0) -> int:
    """How often a picture's sides are halved so that the shorter comes nearest `smallest` (4 to 7 pixels at 5)."""
    return max(0, round(math.log2(min(height, width) / smallest)))


def widths_at(height: int, width: int, channels: int, widest: int) -> list[int]:
    """Channels at each size from the picture's to the smallest map: doubled at each halving, at most `widest`."""
    return [min(channels * 2**i, widest) for i in range(halvings(height, width) + 1)]
