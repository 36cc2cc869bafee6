"""The two small image classifiers behind the shipped features. They import torch: load them lazily.

Both take grey images (N, 1, H, W) in [0, 1] and return `(hidden, logits)`: hidden (N, D) is the global
average of the last map, the matrix that Frechet distance and its kin are computed from; logits are (N,
classes). About 25 and 20 million multiply-adds per 28x28 image, so that 10,000 images take a second or two on
two cores.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval


def _conv(ins: int, outs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(ins, outs, kernel, stride, kernel // 2, bias=False)


def fold(net: nn.Module) -> nn.Module:
    """Every batch normalisation becomes part of the convolution before it, for evaluation; changes `net`.

    Within a module the convolution must be registered just before its normalisation, as it is in this file.
    """
    for module in list(net.modules()):
        before = ""
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                convolution = getattr(module, before)
                assert isinstance(convolution, nn.Conv2d)
                setattr(module, before, fuse_conv_bn_eval(convolution, child))
                setattr(module, name, nn.Identity())
            before = name
    return net


class _Residual(nn.Module):
    """x + conv(relu(conv(x))), each convolution normalised; a 1x1 shortcut where the shape changes."""

    def __init__(self, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = _conv(ins, outs, 3, stride), nn.BatchNorm2d(outs)
        self.conv2, self.norm2 = _conv(outs, outs), nn.BatchNorm2d(outs)
        self.short = nn.Sequential(nn.AvgPool2d(stride), _conv(ins, outs, 1)) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)), inplace=True)))
        return F.relu(y + self.short(x), inplace=True)


class ResidualClassifier(nn.Module):
    """A strided stem to 14x14x48, then residual blocks at 14x14x48, 7x7x96 and 7x7x96; 96 features.

    Nothing happens at full resolution, where pointwise passes would cost more than all convolutions together.
    """

    dims = 96

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(1, 48, 5, 2), nn.BatchNorm2d(48), nn.ReLU(inplace=True))
        self.body = nn.Sequential(_Residual(48, 48, 1), _Residual(48, 96, 2), _Residual(96, 96, 1))
        self.head = nn.Linear(self.dims, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.body(self.stem(x * 2 - 1)).mean((2, 3))  # (N, 96)
        return hidden, self.head(hidden)


class PlainClassifier(nn.Module):
    """Straight convolutions with 5x5 kernels first, max pooling and SiLU; 64 features."""

    dims = 64

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for ins, outs, kernel, pool in (
            (1, 24, 5, True),
            (24, 64, 5, True),
            (64, 80, 3, False),
            (80, 64, 3, False),
        ):
            layers += [_conv(ins, outs, kernel), nn.BatchNorm2d(outs), nn.SiLU()]
            if pool:
                layers.append(nn.MaxPool2d(2))
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(self.dims, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.flatten(F.adaptive_avg_pool2d(self.body(x * 2 - 1), 1), 1)  # (N, 64)
        return hidden, self.head(hidden)
