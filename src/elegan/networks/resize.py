"""A resize to twice the side and a convolution after it, computed in the other order: a quarter of the multiplications.

Resizing mixes pixels within a channel, tap t of a convolution mixes channels within a pixel, so the two commute:

    conv(up(x))[p] = sum_t W_t up(x)[p + t] = sum_t up(W_t x)[p + t],  pixels outside the enlarged map being zero.

On the right all products of channels happen on the small map, one matrix product for the taps together. What
remains, enlarging by a fixed rule and adding up shifted maps, is separable and again a matrix product on each axis,
with a small constant matrix. Weights, zero padding and results are those of the plain two layers, up to rounding.

With nearest resizing and a 5x5 kernel the taps that fall on one small pixel are added up beforehand instead, which
leaves four 3x3 convolutions of the small map, one for each pixel of a 2x2 block: 36 products for 100.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from elegan.networks.convolutions import conv, shuffle

LARGEST = 32  # small sides up to which the matrices on each axis are worth it: their work grows with the side


def resize_conv(c_in: int, c_out: int, kernel: int, stride: int, bias: bool = True) -> nn.Module:
    """Nearest upsampling, then a convolution: no checkerboard (Odena+ 2016). Output = input * stride."""
    if stride == 2 and kernel % 2:
        return ResizeConv2d(c_in, c_out, kernel, "nearest", bias)
    layer = conv(c_in, c_out, kernel, bias=bias)
    return layer if stride == 1 else nn.Sequential(nn.Upsample(scale_factor=stride, mode="nearest"), layer)


class ResizeConv2d(nn.Sequential):
    """(N, C_in, H, W) -> (N, C_out, 2H, 2W): `nn.Upsample` by two, then a "same" `nn.Conv2d` with an odd kernel.

    A sequence of these two, whose weights it holds, computed as the module's text says on a CPU.
    """

    def __init__(
        self, c_in: int, c_out: int, kernel: int = 3, how: Literal["nearest", "bilinear"] = "nearest", bias: bool = True
    ) -> None:
        align = False if how == "bilinear" else None
        layer = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=bias)
        super().__init__(nn.Upsample(scale_factor=2, mode=how, align_corners=align), layer)
        assert kernel % 2, "an even kernel has no 'same' padding"
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        n, c_in, h, w = x.shape
        weight, bias = self.last.weight, self.last.bias
        c_out, _, k, _ = weight.shape
        if x.device.type != "cpu":
            return super().forward(x)
        if self.how == "nearest" and k == 5:
            return self.by_phase(x)
        if max(h, w) > LARGEST or c_in < 2 * max(h, w):  # few channels save few products
            return super().forward(x)
        taps = weight.permute(3, 2, 0, 1).reshape(k * k * c_out, c_in)  # rows (tap x, tap y, C_out)
        y = nn.functional.linear(x.permute(0, 2, 3, 1).reshape(-1, c_in), taps)
        across, down = (torch.from_numpy(enlarge_and_add(side, k, self.how)).to(y.dtype) for side in (w, h))
        z = torch.bmm(across.expand(n * h, -1, -1), y.view(n * h, w * k, k * c_out))  # columns (tap y, C_out)
        z = z.view(n, h, 2 * w, k, c_out).transpose(2, 3).reshape(n, h * k, 2 * w * c_out)
        out = torch.bmm(down.expand(n, -1, -1), z).view(n, 2 * h, 2 * w, c_out).permute(0, 3, 1, 2)
        return out if bias is None else out + bias.to(out.dtype)[:, None, None]

    @property
    def last(self) -> nn.Conv2d:
        """The convolution."""
        layer = self[1]
        assert isinstance(layer, nn.Conv2d)
        return layer

    def by_phase(self, x: Tensor) -> Tensor:
        """Nearest resizing and a 5x5 kernel as one 3x3 convolution that makes 2x2 blocks of pixels."""
        weight, bias = self.last.weight, self.last.bias
        c_out, c_in, _, _ = weight.shape
        # pixel a of a block sees through tap t the small pixel at distance (a + t - 2) // 2: -1, 0 or 1
        met = torch.tensor([[[(a + t - 2) // 2 == d for t in range(5)] for d in (-1, 0, 1)] for a in (0, 1)])
        summed = met.to(weight).flatten(0, 1)  # (2 * 3, 5)
        with torch.autocast(x.device.type, enabled=False):  # sums of weights before they are rounded
            folded = (summed @ weight @ summed.t()).view(c_out, c_in, 2, 3, 2, 3)
        folded = folded.permute(2, 4, 0, 1, 3, 5).reshape(4 * c_out, c_in, 3, 3)
        return shuffle(nn.functional.conv2d(x, folded, None if bias is None else bias.repeat(4), padding=1))


@lru_cache(maxsize=256)
def enlarge_and_add(side: int, taps: int, how: str) -> np.ndarray:
    """The matrix (2 * side, side * taps) that enlarges `taps` rows of `side` values and adds them up, shifted.

    Row i, column (j, t): how much place j of the small row contributes to place i + t - taps // 2 of the large one.
    """
    up = torch.nn.functional.interpolate(
        torch.eye(side)[:, None],
        scale_factor=2,
        mode="linear" if how == "bilinear" else "nearest",
        align_corners=False if how == "bilinear" else None,
    )[:, 0].t()  # (2 * side, side)
    padded = nn.functional.pad(up, (0, 0, taps // 2, taps // 2))
    return padded.unfold(0, taps, 1).flatten(1).contiguous().numpy()  # (2 * side, side, taps) flattened
