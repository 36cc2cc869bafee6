"""Layers with an equalised learning rate (Karras+ 2018, section 4.1), and the normalisations that go with them.

Weights are stored as N(0, 1) and multiplied by gain / sqrt(inputs) when they are used. Adam moves every stored weight
by about its learning rate, so every layer learns at the same speed relative to its size.
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

    def __init__(self, c_in: int, c_out: int, gain: float = 1.0, lr: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c_out, c_in) / lr)
        self.bias = nn.Parameter(torch.full((c_out,), bias / lr))
        self.scale, self.lr = gain * lr / math.sqrt(c_in), lr

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias * self.lr)


class EqualConv2d(nn.Module):
    """(N, c_in, H, W) -> (N, c_out, H, W): a convolution with an odd kernel; `stride` 2 drops the padding."""

    def __init__(self, c_in: int, c_out: int, kernel: int, gain: float = 1.0, stride: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c_out, c_in, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(c_out))
        self.scale = gain / math.sqrt(c_in * kernel**2)
        self.stride, self.padding = stride, kernel // 2 if stride == 1 else 0

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, self.bias, self.stride, self.padding)


def pixel_norm(x: Tensor) -> Tensor:
    """x / sqrt(mean over channels of x^2): (N, C, ...) with unit length a place (Karras+ 2018, section 4.2)."""
    return x * (x.float().square().mean(1, keepdim=True) + 1e-8).rsqrt().to(x.dtype)


def leaky(x: Tensor, gain: float = 1.0) -> Tensor:
    """A leaky ReLU, times `gain`."""
    x = F.leaky_relu(x, SLOPE)
    return x if gain == 1 else x * gain
