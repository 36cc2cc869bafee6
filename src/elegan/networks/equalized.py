"""Layers with an equalised learning rate (Karras+ 2018, section 4.1), and the normalisations that go with them.

Weights are stored as N(0, 1) and multiplied by gain / sqrt(inputs) when they are used. Adam moves every stored weight
by about its learning rate, so every layer learns at the same speed relative to its size.

`out` is a factor of all that a layer gives, bias too. Where a leaky ReLU follows it stands for that one's gain, since
a leaky(x) = leaky(a x) for a > 0, and saves a pass over the maps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2  # of every leaky ReLU
GAIN = math.sqrt(2)  # about what keeps the variance through one


class EqualLinear(nn.Module):
    """(N, c_in) -> (N, c_out). `lr` scales the learning speed of this layer alone; the bias starts at `bias`."""

    def __init__(
        self, c_in: int, c_out: int, gain: float = 1.0, lr: float = 1.0, bias: float = 0.0, out: float = 1.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.normal_(torch.empty(c_out, c_in), std=1 / lr))
        self.bias = nn.Parameter(torch.full((c_out,), bias / lr))
        self.scale, self.bias_scale = gain * lr / math.sqrt(c_in) * out, lr * out

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias * self.bias_scale)


class EqualConv2d(nn.Module):
    """(N, c_in, H, W) -> (N, c_out, H, W): a convolution with an odd kernel; `stride` 2 drops the padding."""

    def __init__(
        self, c_in: int, c_out: int, kernel: int, gain: float = 1.0, stride: int = 1, out: float = 1.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c_out, c_in, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(c_out))
        self.scale, self.out = gain / math.sqrt(c_in * kernel**2) * out, out
        self.stride, self.padding = stride, kernel // 2 if stride == 1 else 0

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, self.bias * self.out, self.stride, self.padding)


def pixel_norm(x: Tensor) -> Tensor:
    """x / sqrt(mean over channels of x^2): (N, C, ...) with unit length a place (Karras+ 2018, section 4.2)."""
    return x * (x.float().square().mean(1, keepdim=True) + 1e-8).rsqrt().to(x.dtype)


def leaky(x: Tensor) -> Tensor:
    """A leaky ReLU."""
    return F.leaky_relu(x, SLOPE)
