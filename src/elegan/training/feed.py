"""Batches of real data, gathered on the device, as a pure function of (seed, images seen)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from elegan.families.base import Batch, mix
from elegan.images import to_float


class Feed:
    """A data set on its device, dealt in an order that depends on the seed and the epoch alone.

    Epoch e is a permutation keyed by (seed, e); image number `seen` of a run is number `seen % N` of epoch
    `seen // N`. So a run that goes on needs no loader state. Images stay uint8 until they are dealt.
    """

    def __init__(
        self, images: np.ndarray, labels: np.ndarray | None, seed: int, device: torch.device, mirror: bool = False
    ) -> None:
        """`images` uint8 (N, C, H, W), `labels` int64 (N,) or None."""
        # a memory-mapped array is read-only, which torch warns of; nothing here writes to it
        self.images = torch.from_numpy(images if images.flags.writeable else images.copy()).to(device)
        self.labels = None if labels is None else torch.from_numpy(np.asarray(labels, np.int64)).to(device)
        self.seed, self.device, self.mirror = seed, device, mirror
        self._epochs: dict[int, Tensor] = {}

    def order(self, epoch: int) -> Tensor:
        """The permutation (N,) of one epoch."""
        if epoch not in self._epochs:
            generator = torch.Generator().manual_seed(mix(self.seed, 0x0DE, epoch))
            kept = {e: order for e, order in self._epochs.items() if e == epoch - 1}
            self._epochs = kept | {epoch: torch.randperm(len(self.images), generator=generator).to(self.device)}
        return self._epochs[epoch]

    def indices(self, seen: int, n: int) -> Tensor:
        """Which images come at places `seen` to `seen + n` of the run: (n,), across epochs if need be."""
        size, found = len(self.images), []
        while n > 0:
            epoch, place = divmod(seen, size)
            found.append(self.order(epoch)[place : place + n])
            seen, n = seen + len(found[-1]), n - len(found[-1])
        return torch.cat(found)

    def batch(self, seen: int, n: int) -> Batch:
        """The `n` images at place `seen`: float (n, C, H, W) in [-1, 1], channels_last, and labels (n,)."""
        rows = self.indices(seen, n)
        images = to_float(self.images[rows])
        if self.mirror:
            generator = torch.Generator().manual_seed(mix(self.seed, 0xF11B, seen))
            flip = torch.rand(n, generator=generator).to(self.device) < 0.5
            images = torch.where(flip[:, None, None, None], images.flip(3), images)
        images = images.contiguous(memory_format=torch.channels_last)
        return Batch(images, None if self.labels is None else self.labels[rows])
