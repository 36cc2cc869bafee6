"""Layers that let a discriminator see how alike the pictures of a batch are, so that a G without variety is found out.

A picture's logit then depends on its whole batch: real and fake pictures must be judged in separate passes, and a
penalty on the slope (`adversarial.penalties`) is one on what a picture does to the logits of all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def fitting(group: int, n: int) -> int:
    """The largest number of pictures, at most `group`, that divides a batch of `n`."""
    return max(g for g in range(1, min(group, n) + 1) if n % g == 0)


def deviation(x: Tensor, group: int) -> Tensor:
    """(N, C, ...) -> (N / group, C, ...): the standard deviation over pictures i, i + N / group, ..."""
    grouped = x.float().unflatten(0, (group, -1))  # (group, N / group, C, ...)
    variance = (grouped - grouped.mean(0)).square().mean(0)  # what var(0) says, in a third of the time
    return (variance + 1e-8).sqrt()


class MinibatchStd(nn.Module):
    """(N, C, ...) -> (N, C + 1, ...): one more channel with the deviation among a group of pictures (Karras+ 2018).

    Per group of at most `group` pictures (the largest divisor of N) the standard deviation of every value over the
    group is averaged over all values, and that one number fills the channel.
    """

    def __init__(self, group: int = 4) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        n, group = len(x), fitting(self.group, len(x))
        mean = deviation(x, group).flatten(1).mean(1)  # (N / group,)
        channel = mean.repeat(group).to(x.dtype).view(n, *[1] * (x.ndim - 1))
        return torch.cat([x, channel.expand(n, 1, *x.shape[2:])], 1)

    def extra_repr(self) -> str:
        return f"group={self.group}"


class FeatureStd(nn.Module):
    """maps (N, C, H, W) [, labels (N,)] -> (N, C): how much each feature deviates among a group of one class.

    `MinibatchStd` sums up a group in one number, which says that variety is missing and not of what. Here every channel
    has its own, its deviations averaged over places; and pictures are grouped by class, as far as they go round, since
    classes differ in everything: T-shirts that are all plain are found out among T-shirts.
    """

    def __init__(self, group: int = 4) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        group = fitting(self.group, len(x))
        if labels is None:  # all are of one class
            labels = torch.zeros(len(x), dtype=torch.long, device=x.device)
        order = labels.argsort(stable=True).view(-1, group).t().flatten()  # a class's pictures N / group apart
        own = deviation(x[order], group).flatten(2).mean(2)  # (N / group, C)
        return own.repeat(group, 1)[order.argsort()].to(x.dtype)

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
