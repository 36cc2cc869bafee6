"""Layers with the padding, initial values and memory layout that every network here uses.

Convolutions are "same": output = ceil(input / stride). With an even total padding that is Keras' rule too; a
stride-2 layer with an odd kernel pads (2, 1) where Keras pads (1, 2), which is the mirror image of the same
layer and costs no extra pass over memory.

Feature maps go to and from vectors in (H, W, C) order. Keras does so, and it is what keeps gradients
channels_last: a plain `flatten(1)` hands the convolution before it an NCHW gradient, up to 8 times slower.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

FEW = 4  # channels up to which the library's convolutions are slow, and folding pays
THIN = 24  # inputs for each output from which ThinConv2d's matrix product is the quicker form


def conv(c_in: int, c_out: int, kernel: int, stride: int = 1, bias: bool = True, same: bool = True) -> nn.Module:
    """A convolution with "same" (default) or "valid" padding; see the module's text."""
    if not same:
        return nn.Conv2d(c_in, c_out, kernel, stride, bias=bias)
    if stride == 1 and c_out <= FEW:
        return ThinConv2d(c_in, c_out, kernel, padding=kernel // 2, bias=bias)
    if kernel % 2:
        kind = FoldedConv2d if stride == 2 and c_in <= FEW and kernel <= 5 else StridedConv2d
        return kind(c_in, c_out, kernel, stride, padding=kernel // 2, bias=bias)
    before, after = (kernel - 1) // 2, kernel // 2
    if stride == 2:  # of an even side the last row that such padding adds is never met
        return nn.Sequential(ToEven(), StridedConv2d(c_in, c_out, kernel, stride, padding=before, bias=bias))
    pad = nn.ZeroPad2d((before, after, before, after))
    return nn.Sequential(pad, nn.Conv2d(c_in, c_out, kernel, stride, bias=bias))


def up_conv(c_in: int, c_out: int, kernel: int, stride: int, bias: bool = True) -> nn.Module:
    """A transposed convolution, output = input * stride. With stride 1 that is a convolution, twice as fast."""
    if stride == 1:
        return conv(c_in, c_out, kernel, bias=bias)
    padding = max((kernel - stride + 1) // 2, 0)
    extra = 2 * padding + stride - kernel
    kind = FoldedConvTranspose2d if stride == 2 and c_out <= FEW and kernel <= 5 else StridedConvTranspose2d
    return kind(c_in, c_out, kernel, stride, padding, output_padding=extra, bias=bias)


class ToEven(nn.Module):
    """(N, C, H, W) with a row or a column of zeros more after an odd side, as the padding would be."""

    def forward(self, x: Tensor) -> Tensor:
        return to_even(x)


def to_even(x: Tensor) -> Tensor:
    """`ToEven`."""
    h, w = x.shape[2] % 2, x.shape[3] % 2
    return nn.functional.pad(x, (0, w, 0, h)) if h or w else x


class FoldedConv2d(nn.Conv2d):
    """A stride-2 convolution computed on 2x2 blocks of pixels: the same weights and numbers, several times faster.

    Output i sees input 2i + k - p through tap k. Writing the input's place as 2(i + d) + b, tap k = 2d + b + p of
    pixel b in the block at distance d: a 3x3 convolution with stride 1 on four times the channels, where the
    library's kernels for one to four channels reach a twentieth of the processor's speed.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or not (x.requires_grad or _in_bf16(x)):
            return super().forward(x)  # float32 kernels idle on the way back to the picture alone
        taps = [[2 * d + b + self.padding[0] for d in (-1, 0, 1)] for b in (0, 1)]  # type: ignore[operator]
        weight = fold(self.weight, taps)  # (O, I, 2, 3, 2, 3): block row, distance, block column, distance
        weight = weight.permute(0, 2, 4, 1, 3, 5).reshape(self.out_channels, 4 * self.in_channels, 3, 3)
        size = (-(-x.shape[2] // 2), -(-x.shape[3] // 2))
        return nn.functional.conv2d(unshuffle(to_even(x)), weight, self.bias, padding=1)[:, :, : size[0], : size[1]]


class FoldedConvTranspose2d(nn.ConvTranspose2d):
    """A stride-2 transposed convolution computed as a 3x3 convolution that makes 2x2 blocks of pixels.

    Output 2i + a receives input i + d through tap k = a + p - 2d: the same weights and numbers as the transposed
    convolution, faster where there are few output channels.
    """

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if x.device.type != "cpu" or not (self.kernel_size[0] == 5 or _in_bf16(x)):
            return super().forward(x, output_size)
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


class ThinConv2d(nn.Conv2d):
    """A "same" convolution with stride 1 to one to four channels, such as the one that makes the picture.

    The library's kernels idle on so few outputs of many channels. Here one matrix product makes every pixel's share
    in its neighbours, (N, H, W, C_out * k * k), and small maps are added up, shifted: the same sums. With fewer than
    `THIN` inputs for each output these maps cost more than the library idles away.
    """

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        k, after = self.kernel_size[0], self.kernel_size[0] // 2
        if x.device.type != "cpu" or c < THIN * self.out_channels:
            if k % 2:
                return super().forward(x)
            edge = (after - 1, after, after - 1, after)
            return nn.functional.conv2d(nn.functional.pad(x, edge), self.weight, self.bias)
        taps = self.weight.flip(2, 3).permute(0, 2, 3, 1).reshape(-1, c)  # rows (C_out, tap y, tap x)
        shares = nn.functional.linear(x.permute(0, 2, 3, 1).reshape(-1, c), taps).view(n, h * w, -1).transpose(1, 2)
        out = nn.functional.fold(shares, (h + k - 1, w + k - 1), k)[:, :, after : after + h, after : after + w]
        return out if self.bias is None else out + self.bias.to(out.dtype)[:, None, None]


class StridedConv2d(nn.Conv2d):
    """A convolution whose weights' gradient, with stride 2 and in bf16, is a product of matrices: up to twice as fast.

    With many channels, that is; with 64 the library is as fast, and in float32 it is always faster.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.stride != (2, 2) or not _in_bf16(x) or not torch.is_grad_enabled():
            return super().forward(x)
        x, weight, bias = cast(x), cast(self.weight), None if self.bias is None else cast(self.bias)
        return _Strided.apply(x, weight, bias, self.padding[0], None)


class StridedConvTranspose2d(nn.ConvTranspose2d):
    """The transposed counterpart of `StridedConv2d`."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if self.stride != (2, 2) or not _in_bf16(x) or not torch.is_grad_enabled():
            return super().forward(x)
        x, weight, bias = cast(x), cast(self.weight), None if self.bias is None else cast(self.bias)
        return _Strided.apply(x, weight, bias, self.padding[0], self.output_padding[0])


def _in_bf16(x: Tensor) -> bool:
    """Whether a CPU computes in bf16 here."""
    return x.device.type == "cpu" and (x.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu"))


def cast(x: Tensor) -> Tensor:
    """In the precision that a convolution would take it under autocast."""
    return x.to(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else x


class _Strided(torch.autograd.Function):
    """A convolution with stride 2, or with `extra` (the output padding) the transposed one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, extra: int | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding, ctx.extra, ctx.sizes = padding, extra, None if bias is None else list(bias.shape)
        if extra is None:
            return nn.functional.conv2d(x, weight, bias, 2, padding)
        return nn.functional.conv_transpose2d(x, weight, bias, 2, padding, extra)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs, p, extra = ctx.needs_input_grad, ctx.padding, ctx.extra
        k = weight.shape[2]
        plain = torch.is_grad_enabled() or not x.is_contiguous(memory_format=torch.channels_last)
        by_product = needs[1] and not plain
        wanted = [needs[0], False, False] if by_product else list(needs[:3])
        to_x, to_weight, to_bias = torch.ops.aten.convolution_backward(
            g, x, weight, ctx.sizes, [2, 2], [p, p], [1, 1], extra is not None, [extra or 0] * 2, 1, wanted
        )
        if by_product:
            to_weight = meetings(x, g, k, p) if extra is None else meetings(g, x, k, p)
            to_bias = g.sum((0, 2, 3)) if needs[2] else None  # the library would work out the weights again for it
        return to_x, to_weight, to_bias, None, None


def meetings(large: Tensor, small: Tensor, kernel: int, padding: int) -> Tensor:
    """The weights' gradient (small's C, large's C, k, k) of a convolution with stride 2 between two maps.

    The pixels of the small map times the patches of the large one that they met, a few images at a time so that the
    patches stay in the processor's cache.
    """
    n, c, h, w = small.shape
    ends = [2 * (m - 1) + kernel - padding - side for m, side in zip((h, w), large.shape[2:], strict=True)]
    large = nn.functional.pad(large, (padding, ends[1], padding, ends[0])).permute(0, 2, 3, 1)
    windows = large.unfold(1, kernel, 2).unfold(2, kernel, 2).permute(0, 1, 2, 4, 5, 3)  # (N, h, w, k, k, C)
    pixels = small.permute(0, 2, 3, 1)  # (N, h, w, c)
    total = torch.zeros(windows[0, 0, 0].numel(), c, dtype=torch.promote_types(small.dtype, torch.float32))
    block = max(1, 2**22 // windows[0].numel())
    for start in range(0, n, block):
        patches = windows[start : start + block].reshape(-1, len(total))
        total += patches.t() @ pixels[start : start + block].reshape(-1, c)
    return total.view(kernel, kernel, -1, c).permute(3, 2, 0, 1).to(small.dtype)


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


def shuffle(x: Tensor) -> Tensor:
    """(N, 4C, H, W) -> (N, C, 2H, 2W): four channels become a 2x2 block, channels_last all the way."""
    n, c, h, w = x.shape
    x = x.permute(0, 2, 3, 1).reshape(n, h, w, 2, 2, c // 4).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(n, 2 * h, 2 * w, c // 4).permute(0, 3, 1, 2)


class Shuffle(nn.Module):
    """`shuffle` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        return shuffle(x)


def unshuffle(x: Tensor) -> Tensor:
    """(N, C, 2H, 2W) -> (N, 4C, H, W), the inverse of `shuffle`; an odd side is padded by its last row first."""
    n, c, h, w = x.shape
    if h % 2 or w % 2:
        x = nn.functional.pad(x, (0, w % 2, 0, h % 2), mode="replicate")
        n, c, h, w = x.shape
    x = x.permute(0, 2, 3, 1).reshape(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(n, h // 2, w // 2, 4 * c).permute(0, 3, 1, 2)
