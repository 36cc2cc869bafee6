"""Convolutions with "same" padding, in the forms that are quick on a processor.

Output = ceil(input / stride). With an even total padding that is Keras' rule too; a stride-2 layer with an odd
kernel pads (2, 1) where Keras pads (1, 2), which is the mirror image of the same layer and costs no extra pass
over memory. Each form has the weights of the plain layer and its numbers, up to rounding; elsewhere than on a CPU
it is the plain layer.
"""

from __future__ import annotations

from typing import Any

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
