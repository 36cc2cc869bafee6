"""Layers with the padding, initial values and memory layout that every network here uses.

Convolutions are "same": output = ceil(input / stride). With an even total padding that is Keras' rule too; a
stride-2 layer with an odd kernel pads (2, 1) where Keras pads (1, 2), which is the mirror image of the same
layer and costs no extra pass over memory.

Feature maps go to and from vectors in (H, W, C) order. Keras does so, and it is what keeps gradients
channels_last: a plain `flatten(1)` hands the convolution before it an NCHW gradient, up to 8 times slower.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def conv(c_in: int, c_out: int, kernel: int, stride: int = 1, bias: bool = True, same: bool = True) -> nn.Module:
    """A convolution with "same" (default) or "valid" padding; see the module's text."""
    if not same:
        return nn.Conv2d(c_in, c_out, kernel, stride, bias=bias)
    if kernel % 2:
        return nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=bias)
    before, after = (kernel - 1) // 2, kernel // 2
    pad = nn.ZeroPad2d((before, after, before, after))
    return nn.Sequential(pad, nn.Conv2d(c_in, c_out, kernel, stride, bias=bias))


def up_conv(c_in: int, c_out: int, kernel: int, stride: int, bias: bool = True) -> nn.Module:
    """A transposed convolution, output = input * stride. With stride 1 that is a convolution, twice as fast."""
    if stride == 1:
        return conv(c_in, c_out, kernel, bias=bias)
    padding = max((kernel - stride + 1) // 2, 0)
    extra = 2 * padding + stride - kernel
    return nn.ConvTranspose2d(c_in, c_out, kernel, stride, padding, output_padding=extra, bias=bias)


def resize_conv(c_in: int, c_out: int, kernel: int, stride: int, bias: bool = True) -> nn.Module:
    """Nearest upsampling, then a convolution: no checkerboard (Odena+ 2016). Output = input * stride."""
    layer = conv(c_in, c_out, kernel, bias=bias)
    return layer if stride == 1 else nn.Sequential(nn.Upsample(scale_factor=stride, mode="nearest"), layer)


def init_glorot(module: nn.Module) -> None:
    """Glorot uniform weights, zero biases: the default of Keras. Use with `net.apply(init_glorot)`."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


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
        kind = weight.device.type
        with torch.autocast("cpu" if kind == "meta" else kind, enabled=False):  # meta: sizes only, no autocast
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
    """Batch norm whose scale and shift are learnt per class (de Vries+ 2017); plain with `classes` = 0."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=not classes)
        if classes:
            self.scale = nn.Embedding(classes, channels)
            self.shift = nn.Embedding(classes, channels)
            nn.init.ones_(self.scale.weight)
            nn.init.zeros_(self.shift.weight)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        x = self.norm(x)
        if labels is None:
            return x
        scale = self.scale(labels).to(x.dtype)[:, :, None, None]
        shift = self.shift(labels).to(x.dtype)[:, :, None, None]
        return torch.addcmul(shift, x, scale)


def shuffle(x: Tensor) -> Tensor:
    """(N, 4C, H, W) -> (N, C, 2H, 2W): four channels become a 2x2 block, channels_last all the way."""
    n, c, h, w = x.shape
    x = x.permute(0, 2, 3, 1).reshape(n, h, w, 2, 2, c // 4).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(n, 2 * h, 2 * w, c // 4).permute(0, 3, 1, 2)


def unshuffle(x: Tensor) -> Tensor:
    """(N, C, 2H, 2W) -> (N, 4C, H, W), the inverse of `shuffle`; an odd side is padded by its last row first."""
    n, c, h, w = x.shape
    if h % 2 or w % 2:
        x = nn.functional.pad(x, (0, w % 2, 0, h % 2), mode="replicate")
        n, c, h, w = x.shape
    x = x.permute(0, 2, 3, 1).reshape(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(n, h // 2, w // 2, 4 * c).permute(0, 3, 1, 2)
