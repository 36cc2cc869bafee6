"""Layers with the initial values and the memory layout that every network here uses; convolutions have their own file.

Feature maps go to and from vectors in (H, W, C) order. Keras does so, and it is what keeps gradients
channels_last: a plain `flatten(1)` hands the convolution before it an NCHW gradient, up to 8 times slower.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """Dropout whose mask is drawn sixteen bits a value: torch's own takes a third of a CPU's training step.

    The probability is rounded to 1/65536, and what is kept is scaled by its exact inverse.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu":
            return super().forward(x)
        dropped = round(self.p * 65536)
        # torch's generator makes one word at a time; numpy's, seeded by it, is seven times as fast
        source = np.random.Generator(np.random.SFC64(int(torch.randint(2**63 - 1, ()))))
        words = torch.from_numpy(source.integers(-(2**63), 2**63, -(-x.numel() // 4)))
        mask = kept(words.view(torch.int16)[: x.numel()], dropped, x.dtype)
        # the mask is laid out like x in memory, so that the product keeps x's layout
        return x * torch.as_strided(mask, x.shape, torch.empty_like(x, device="meta").stride())


def kept(bits: Tensor, dropped: int, dtype: torch.dtype) -> Tensor:
    """Dropout's mask from uniform `bits` (N,) int16, which it may overwrite: 0 where one is among the `dropped` lowest
    of 65536 values, else the scale that keeps the mean; (N,) of `dtype`.
    """
    scale, first = 65536 / (65536 - dropped), dropped - 32768
    if dtype != torch.bfloat16 or not dropped:
        return (bits >= first).to(dtype).mul_(scale)
    # booleans become bf16 at a tenth of memory's speed; here its bit pattern is made by integers that wrap around
    pattern = int(torch.tensor(scale, dtype=dtype).view(torch.int16))
    below = (first - 1) * pattern
    return bits.clamp_(first - 1, first).mul_(pattern).sub_((below + 32768) % 65536 - 32768).view(dtype)


def init_glorot(module: nn.Module) -> None:
    """Glorot uniform weights, zero biases: the default of Keras. Use with `net.apply(init_glorot)`."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def init_normal(module: nn.Module) -> None:
    """Weights from N(0, 0.02), zero biases, batch norms' scales from N(1, 0.02) (Radford+ 2016 and its program)."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


class ToMap(nn.Module):
    """(N, H*W*C) -> (N, C, H, W), stored channels_last."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.shape = (height, width, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x.view(-1, *self.shape).permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        return "x".join(map(str, self.shape))


class FromMap(nn.Module):
    """(N, C, H, W) -> (N, H*W*C); no copy when the input is channels_last."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)


class Crop(nn.Module):
    """Cut the centre (height, width) out of a larger map: how sizes that strides do not divide are reached."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width

    def forward(self, x: Tensor) -> Tensor:
        top, left = (x.shape[2] - self.height) // 2, (x.shape[3] - self.width) // 2
        return x[:, :, top : top + self.height, left : left + self.width]

    def extra_repr(self) -> str:
        return f"{self.height}x{self.width}"


class Sigmoid01(nn.Module):
    """A sigmoid's [0, 1] picture, handed on in the package's [-1, 1]: 2 sigmoid(x) - 1 = tanh(x / 2)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(0.5 * x)


class To01(nn.Module):
    """[-1, 1] -> [0, 1], for networks whose recipe is written for pixels in [0, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x + 0.5


def label_planes(images: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Append one-hot label planes to images: (N, C, H, W) -> (N, C + classes, H, W) (Mirza & Osindero 2014)."""
    one_hot = nn.functional.one_hot(labels, classes).to(images.dtype)
    planes = one_hot[:, :, None, None].expand(-1, -1, *images.shape[2:])
    return torch.cat([images, planes], 1)


def label_vector(x: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Append a one-hot label to vectors: (N, F) -> (N, F + classes)."""
    return torch.cat([x, nn.functional.one_hot(labels, classes).to(x.dtype)], 1)


class Told(nn.Linear):
    """Adds to maps (N, C, H, W) what numbers (N, told) about each picture say, a linear map of them: nothing for 0."""

    def __init__(self, told: int, channels: int) -> None:
        super().__init__(told, channels, bias=False)
        nn.init.normal_(self.weight, std=0.3)  # from zero it learns slowly what is rare

    def forward(self, x: Tensor, told: Tensor) -> Tensor:  # type: ignore[override]
        return x + super().forward(told)[:, :, None, None].to(x.dtype)


def base_size(size: int, strides: tuple[int, ...]) -> int:
    """The side of the smallest map from which `strides` reach at least `size`."""
    return math.ceil(size / math.prod(strides))


class SpectralNorm(nn.Module):
    """A parametrization W -> W / sigma(W), sigma the largest singular value of W as a matrix (C_out, rest).

    One power iteration per forward pass in training mode, from a persistent start (Miyato+ 2018, algorithm 1);
    gradients flow through sigma. Computed in float32 under autocast too.
    """

    u: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("u", nn.functional.normalize(torch.randn(weight.shape[0]), dim=0))

    def forward(self, weight: Tensor) -> Tensor:
        if weight.is_meta:  # sizes only
            return weight
        with torch.autocast(weight.device.type, enabled=False):
            matrix = weight.flatten(1)
            with torch.no_grad():
                v = nn.functional.normalize(matrix.t() @ self.u, dim=0)
                u = nn.functional.normalize(matrix @ v, dim=0)
                if self.training:
                    self.u.copy_(u)
            return weight / (u @ (matrix @ v))


def spectral_norm(layer: nn.Module) -> nn.Module:
    """Normalise a layer's weight by its largest singular value; returns the layer."""
    assert isinstance(layer.weight, Tensor)
    return nn.utils.parametrize.register_parametrization(layer, "weight", SpectralNorm(layer.weight))


class ConditionalBatchNorm(nn.Module):
    """Batch norm whose scale and shift are learnt per class (de Vries+ 2017); plain with `classes` = 0.

    With `noise` > 0 a linear layer, which starts at zero, adds to both what a vector z (N, noise) says (Chen+ 2019,
    "On Self Modulation for Generative Adversarial Networks").
    """

    def __init__(self, channels: int, classes: int, noise: int = 0) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=not classes and not noise)
        if classes:
            self.scale = nn.Embedding(classes, channels)
            self.shift = nn.Embedding(classes, channels)
            nn.init.ones_(self.scale.weight)
            nn.init.zeros_(self.shift.weight)
        self.modulate = nn.Linear(noise, 2 * channels, bias=not classes) if noise else None
        if self.modulate is not None:
            nn.init.zeros_(self.modulate.weight)
            if not classes:  # what the classes' scale and shift are at first: 1 and 0
                self.modulate.bias.data = torch.cat([torch.ones(channels), torch.zeros(channels)])

    def forward(self, x: Tensor, labels: Tensor | None, z: Tensor | None = None) -> Tensor:
        x = self.norm(x)
        affine = []  # (N, 2 channels): scale, shift
        if labels is not None:
            affine.append(torch.cat([self.scale(labels), self.shift(labels)], 1))
        if self.modulate is not None:
            assert z is not None
            affine.append(self.modulate(z).float())
        if not affine:
            return x
        scale, shift = torch.stack(affine).sum(0).to(x.dtype)[:, :, None, None].chunk(2, 1)
        return torch.addcmul(shift, x, scale)
