"""Layers that let a discriminator see how alike the pictures of a batch are, so that a G without variety is found out.

A picture's logit then depends on its whole batch: real and fake pictures must be judged in separate passes, and
penalties on the slope (`adversarial.penalties`) do not apply.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MinibatchStd(nn.Module):
    """(N, C, ...) -> (N, C + 1, ...): one more channel with the deviation among a group of pictures (Karras+ 2018).

    Per group of at most `group` pictures (the largest divisor of N) the standard deviation of every value over the
    group is averaged over all values, and that one number fills the channel.
    """

    def __init__(self, group: int = 4) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        n = len(x)
        group = max(g for g in range(1, min(self.group, n) + 1) if n % g == 0)
        grouped = x.float().unflatten(0, (group, n // group))  # (group, N / group, C, ...)
        variance = (grouped - grouped.mean(0)).square().mean(0)  # what var(0) says, in a third of the time
        deviation = (variance + 1e-8).sqrt().flatten(1).mean(1)  # (N / group,)
        channel = deviation.repeat(group).to(x.dtype).view(n, *[1] * (x.ndim - 1))
        return torch.cat([x, channel.expand(n, 1, *x.shape[2:])], 1)

    def extra_repr(self) -> str:
        return f"group={self.group}"


class MinibatchDiscrimination(nn.Module):
    """(N, F) -> (N, F + kernels): how near the other pictures of the batch are (Salimans+ 2016, section 3.2).

    M_i = T x_i holds `dims` numbers for each kernel, and o_i = sum_{j != i} exp(-||M_i - M_j||_1), kernel by
    kernel: N - 1 in a batch of copies, 0 in one of strangers. The paper's sum has j = i too, which is the constant 1.
    """

    def __init__(self, features: int, kernels: int = 100, dims: int = 5) -> None:
        super().__init__()
        self.T = nn.Parameter(torch.empty(features, kernels * dims))
        nn.init.normal_(self.T, std=0.05)
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        m = (x @ self.T.to(x.dtype)).float().unflatten(1, (-1, self.dims))  # (N, kernels, dims)
        distances = (m[:, None] - m[None]).abs().sum(3)  # (N, N, kernels)
        near = torch.exp(-distances).sum(1) - 1  # without itself
        return torch.cat([x, near.to(x.dtype)], 1)
