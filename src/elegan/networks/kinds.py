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
LOOKED_AT = 20_000  # pictures, at most, in which kinds are looked for
CHUNK = 100  # pictures whose colours are counted at a time
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
        with torch.autocast(images.device.type, enabled=False):  # the same kinds in any precision
            way = self._colours(images) - self.means[self._rows(len(images), labels)]
            return (way @ self.centres.T).argmax(1)

    @torch.no_grad()
    def learn(self, images: Tensor, labels: Tensor | None = None) -> None:
        """Find the kinds in uint8 images (N, C, H, W): spherical k-means, begun as k-means++ (Arthur+ 2007) does."""
        generator = torch.Generator().manual_seed(0)
        chosen = torch.randperm(len(images), generator=generator)[:LOOKED_AT].to(images.device)
        # On the CPU, where sums come out the same each time. Written into one tensor: many small ones, each made after
        # large ones are gone, would keep the holes between them from being used again (5 GB for 20,000 pictures).
        colours = torch.empty(len(chosen), WAVES)
        for start in range(0, len(chosen), CHUNK):
            part = chosen[start : start + CHUNK]
            colours[start : start + CHUNK] = self._colours(to_float(images[part]))
        rows = self._rows(len(images), labels)[chosen].cpu()
        counts = torch.bincount(rows, minlength=len(self.means))[:, None]
        means = colours.new_zeros(self.means.shape).index_add_(0, rows, colours) / counts.clamp(min=1)
        points = F.normalize(colours - means[rows], dim=1)
        centres = points[torch.randint(len(points), (1,), generator=generator)]
        for _ in range(len(self.centres) - 1):
            far = (1 - (points @ centres.T).amax(1)).clamp(min=1e-9)
            centres = torch.cat([centres, points[torch.multinomial(far, 1, generator=generator)]])
        for _ in range(ROUNDS):
            sums = torch.zeros_like(centres).index_add_(0, (points @ centres.T).argmax(1), points)
            centres = F.normalize(torch.where(sums.norm(dim=1, keepdim=True) > 1e-6, sums, centres), dim=1)
        found = torch.zeros(self.shares.shape)
        found.index_put_((rows, (points @ centres.T).argmax(1)), torch.ones(()), accumulate=True)
        shares = torch.where(counts > 0, found / counts.clamp(min=1), 1 / len(centres))
        for buffer, value in zip((self.means, self.centres, self.shares), (means, centres, shares), strict=True):
            buffer.copy_(value)

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
        sides = (min(SIDE, images.shape[2]), min(SIDE, images.shape[3]))
        pixels = F.adaptive_avg_pool2d(images.float(), sides).flatten(2).transpose(1, 2)  # (N, P, C)
        return torch.cos(pixels @ self.waves + self.phases).mean(1)


def _quantile(z: Tensor) -> Tensor:
    """(N, 1): the share of N(0, 1) that lies below the first number of each row of z."""
    return 0.5 * (1 + torch.erf(z[:, :1].float() / math.sqrt(2)))
