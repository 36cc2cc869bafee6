"""Kinds of pictures, by their colours, which are found in the data before training: labels that nobody has to give.

A G that is told nothing but continuous noise passes from one colour to the next through all that lie between. Told a
kind it can leap (Sage+ 2018, "Logo Synthesis and Manipulation with Clustered Generative Adversarial Networks"; Liu+
2020, "Diverse Image Generation via Self-Conditioned GANs"), and how often each is drawn is known, not learnt.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elegan.images import to_float

WAVES = 64  # numbers in a histogram of colours
NEAR = 0.5  # colours in [-1, 1]^C this far apart are told from one another
SIDE = 32  # pixels, at most, of the pictures whose colours are counted
ROUNDS = 30  # of k-means
MARGIN = 0.01  # of a kind's share of the noise, at either end, that rounding may cost


class Kinds(nn.Module):
    """images (N, C, H, W) in [-1, 1] [, labels (N,)] -> which of `count` kinds each is, (N,) int64.

    Compared is in which way the histogram of a picture's colours differs from the mean of its class, and not by how
    much: so a boot and a dress that are both red are of one kind, though one has more of it.
    """

    waves: Tensor
    phases: Tensor
    means: Tensor
    centres: Tensor
    shares: Tensor

    def __init__(self, count: int, channels: int, classes: int) -> None:
        super().__init__()
        generator, rows = torch.Generator().manual_seed(0), max(classes, 1)
        self.register_buffer("waves", torch.randn(channels, WAVES, generator=generator) / NEAR)
        self.register_buffer("phases", 2 * math.pi * torch.rand(WAVES, generator=generator))
        self.register_buffer("means", torch.zeros(rows, WAVES))  # of the histograms of a class
        self.register_buffer("centres", F.normalize(torch.randn(count, WAVES, generator=generator), dim=1))
        self.register_buffer("shares", torch.full((rows, count), 1 / count))  # of a class's pictures

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return self._nearest(self._colours(images), self._rows(len(images), labels))

    @torch.no_grad()
    def learn(self, images: Tensor, labels: Tensor | None = None) -> None:
        """Find the kinds in uint8 images (N, C, H, W): spherical k-means, begun as k-means++ (Arthur+ 2007) does."""
        generator = torch.Generator().manual_seed(0)
        colours = torch.cat([self._colours(to_float(part)) for part in images.split(250)])
        rows = self._rows(len(images), labels)
        counts = torch.bincount(rows, minlength=len(self.means))[:, None]
        self.means.zero_().index_add_(0, rows, colours).div_(counts.clamp(min=1))
        points = self._ways(colours, rows).cpu()
        centres = points[torch.randint(len(points), (1,), generator=generator)]
        for _ in range(len(self.centres) - 1):
            far = (1 - (points @ centres.T).amax(1)).clamp(min=1e-9)
            centres = torch.cat([centres, points[torch.multinomial(far, 1, generator=generator)]])
        for _ in range(ROUNDS):
            sums = torch.zeros_like(centres).index_add_(0, (points @ centres.T).argmax(1), points)
            centres = F.normalize(torch.where(sums.norm(dim=1, keepdim=True) > 1e-6, sums, centres), dim=1)
        self.centres.copy_(centres)
        found = torch.zeros_like(self.shares)
        found.index_put_((rows, self._nearest(colours, rows)), found.new_ones(()), accumulate=True)
        self.shares.copy_(torch.where(counts > 0, found / counts.clamp(min=1), self.shares))

    def told(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """(N,) int64: the kinds that the first numbers of z (N, ...) ~ N(0, 1) say, in the shares of the class."""
        below = self.shares[self._rows(len(z), labels)].cumsum(1)[:, :-1]
        return (_quantile(z) > below).sum(1)

    def telling(self, z: Tensor, kinds: Tensor, labels: Tensor | None = None) -> Tensor:
        """z (N, ...) with first numbers that say these kinds (N,), and are as random as they were."""
        shares = self.shares[self._rows(len(z), labels)]
        own = shares.gather(1, kinds[:, None])
        below = shares.cumsum(1).gather(1, kinds[:, None]) - own
        quantile = below + own * _quantile(z).clamp(MARGIN, 1 - MARGIN)
        first = math.sqrt(2) * torch.erfinv((2 * quantile - 1).clamp(-1 + 1e-6, 1 - 1e-6))
        return torch.cat([first.to(z.dtype), z[:, 1:]], 1)

    def _rows(self, n: int, labels: Tensor | None) -> Tensor:
        return self.means.new_zeros(n, dtype=torch.long) if labels is None else labels

    def _colours(self, images: Tensor) -> Tensor:
        """(N, WAVES): the mean over the picture of random waves of its colours (Rahimi & Recht 2007)."""
        with torch.autocast(images.device.type, enabled=False):  # the same kinds in any precision
            sides = (min(SIDE, images.shape[2]), min(SIDE, images.shape[3]))
            pixels = F.adaptive_avg_pool2d(images.float(), sides).flatten(2).transpose(1, 2)  # (N, P, C)
            return torch.cos(pixels @ self.waves + self.phases).mean(1)

    def _ways(self, colours: Tensor, rows: Tensor) -> Tensor:
        return F.normalize(colours - self.means[rows], dim=1)

    def _nearest(self, colours: Tensor, rows: Tensor) -> Tensor:
        with torch.autocast(colours.device.type, enabled=False):
            return (self._ways(colours, rows) @ self.centres.T).argmax(1)


def _quantile(z: Tensor) -> Tensor:
    """(N, 1): the share of N(0, 1) that lies below the first number of each row of z."""
    return 0.5 * (1 + torch.erf(z[:, :1].float() / math.sqrt(2)))
