"""Self-attention between the places of a map: Zhang+ 2019 (SAGAN)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SelfAttention(nn.Module):
    """(N, C, H, W) -> the same: y = x + gamma * v(sum_i beta_ij h(x_i)), gamma = 0 at first (Zhang+ 2019, eq. 1-3).

    beta_ij = softmax over i of f(x_i) . g(x_j): how much place j looks at place i. f and g have C / 8 channels and h
    C / 2. As in the authors' program places are looked at by 2x2 blocks (the maximum of each), a quarter of the work.
    `wrap` is put around each 1x1 convolution (a spectral norm).
    """

    def __init__(self, channels: int, wrap: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__()
        few, half = max(channels // 8, 1), max(channels // 2, 1)
        self.f, self.g = (wrap(nn.Conv2d(channels, few, 1, bias=False)) for _ in "fg")
        self.h = wrap(nn.Conv2d(channels, half, 1, bias=False))
        self.v = wrap(nn.Conv2d(half, channels, 1, bias=False))
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        key, value = (F.max_pool2d(layer(x), 2, ceil_mode=True) for layer in (self.f, self.h))
        query, key, value = (t.flatten(2).mT for t in (self.g(x), key, value))  # (N, places, channels)
        found = F.scaled_dot_product_attention(query, key, value, scale=1.0)  # (N, H W, C / 2)
        found = self.v(found.mT.unflatten(2, x.shape[2:]).contiguous(memory_format=torch.channels_last))
        return torch.addcmul(x, self.gamma.to(x.dtype), found.to(x.dtype))
