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

FEW = 4  # channels up to which the library's convolutions are slow, and folding pays


def conv(c_in: int, c_out: int, kernel: int, stride: int = 1, bias: bool = True, same: bool = True) -> nn.Module:
    """A convolution with "same" (default) or "valid" padding; see the module's text."""
    if not same:
        return nn.Conv2d(c_in, c_out, kernel, stride, bias=bias)
    if kernel % 2:
        kind = FoldedConv2d if stride == 2 and c_in <= FEW and kernel <= 5 else nn.Conv2d
        return kind(c_in, c_out, kernel, stride, padding=kernel // 2, bias=bias)
    before, after = (kernel - 1) // 2, kernel // 2
    pad = nn.ZeroPad2d((before, after, before, after))
    return nn.Sequential(pad, nn.Conv2d(c_in, c_out, kernel, stride, bias=bias))


def up_conv(c_in: int, c_out: int, kernel: int, stride: int, bias: bool = True) -> nn.Module:
    """A transposed convolution, output = input * stride. With stride 1 that is a convolution, twice as fast."""
    if stride == 1:
        return conv(c_in, c_out, kernel, bias=bias)
    padding = max((kernel - stride + 1) // 2, 0)
    extra = 2 * padding + stride - kernel
    kind = FoldedConvTranspose2d if stride == 2 and c_out <= FEW and kernel <= 5 else nn.ConvTranspose2d
    return kind(c_in, c_out, kernel, stride, padding, output_padding=extra, bias=bias)


class FoldedConv2d(nn.Conv2d):
    """A stride-2 convolution computed on 2x2 blocks of pixels: the same weights and numbers, several times faster.

    Output i sees input 2i + k - p through tap k. Writing the input's place as 2(i + d) + b, tap k = 2d + b + p of
    pixel b in the block at distance d: a 3x3 convolution with stride 1 on four times the channels, where the
    library's kernels for one to four channels reach a twentieth of the processor's speed.
    """

    def forward(self, x: Tensor) -> Tensor:
        taps = [[2 * d + b + self.padding[0] for d in (-1, 0, 1)] for b in (0, 1)]  # type: ignore[operator]
        weight = fold(self.weight, taps)  # (O, I, 2, 3, 2, 3): block row, distance, block column, distance
        weight = weight.permute(0, 2, 4, 1, 3, 5).reshape(self.out_channels, 4 * self.in_channels, 3, 3)
        size = (-(-x.shape[2] // 2), -(-x.shape[3] // 2))
        if x.shape[2] % 2 or x.shape[3] % 2:
            x = nn.functional.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))  # zeros, as the padding would be
        return nn.functional.conv2d(unshuffle(x), weight, self.bias, padding=1)[:, :, : size[0], : size[1]]


class FoldedConvTranspose2d(nn.ConvTranspose2d):
    """A stride-2 transposed convolution computed as a 3x3 convolution that makes 2x2 blocks of pixels.

    Output 2i + a receives input i + d through tap k = a + p - 2d: the same weights and numbers as the transposed
    convolution, faster where there are few output channels.
    """

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        taps = [[a + self.padding[0] - 2 * d for d in (-1, 0, 1)] for a in (0, 1)]  # type: ignore[operator]
        weight = fold(self.weight, taps)  # (I, O, 2, 3, 2, 3)
        weight = weight.permute(2, 4, 1, 0, 3, 5).reshape(4 * self.out_channels, self.in_channels, 3, 3)
        bias = None if self.bias is None else self.bias.repeat(4)
        return shuffle(nn.functional.conv2d(x, weight, bias, padding=1))


def fold(weight: Tensor, taps: list[list[int]]) -> Tensor:
    """Kernels (A, B, k, k) -> (A, B, 2, 3, 2, 3), tap `taps[i][j]` at (i, j) on both axes, zero outside the kernel."""
    kernel = weight.shape[2]
    inside = [[tap if 0 <= tap < kernel else kernel for tap in row] for row in taps]
    index = torch.tensor(inside, device=weight.device).flatten()
    padded = nn.functional.pad(weight, (0, 1, 0, 1))  # row and column `kernel` are the zeros
    return padded[:, :, index][:, :, :, index].unflatten(3, (2, 3)).unflatten(2, (2, 3))


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
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[: x.numel()]
        mask = (bits >= dropped - 32768).to(x.dtype).mul_(65536 / (65536 - dropped))
        # the mask is laid out like x in memory, so that the product keeps x's layout
        return x * torch.as_strided(mask, x.shape, torch.empty_like(x, device="meta").stride())


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
