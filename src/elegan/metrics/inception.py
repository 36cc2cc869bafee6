"""The network behind every published FID: Inception v3 as TensorFlow released it on 2015-12-05.

Szegedy+ 2016 (arXiv 1512.00567) describe the architecture; Heusel+ 2017 (arXiv 1706.08500) measured their
distance with that release, and its quirks became part of the number. It differs from the Inception v3 of
torchvision in four ways: 1008 outputs instead of 1000; average pools that do not count the padding; a *max* pool
in the last block; other weights. The names of the layers are those of the weights file in common use, so that it
loads without a translation (see `inception_weights.py`).

Several input conventions are in use, and their scores do not compare:

- `tf1_resize`, the original graph's: bilinear without antialiasing and without half-pixel centres;
- `clean_resize`, of Parmar+ 2022 (clean-fid): Pillow's antialiased bicubic filter, clipped, not rounded;
- `torch_resize`, of pytorch-fid: bilinear without antialiasing, with half-pixel centres.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

SIDE = 299
FEATURES, CLASSES = 2048, 1008


class _Conv(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(self, ins: int, outs: int, kernel: tuple[int, int], stride: int = 1, padded: bool = True) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if padded else 0
        self.conv = nn.Conv2d(ins, outs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Step(NamedTuple):
    """One convolution of a branch. `stride` 2 means no padding, as everywhere in this network."""

    outs: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1


Branch = Sequence[Step | tuple[Step, Step]]  # a pair runs side by side, and only at the end of a branch


class Mixed(nn.Module):
    """Branches of convolutions and one of pooling, side by side; their maps are concatenated in order.

    `pool`: "average" (padding not counted) or "max", then a 1x1 convolution to `pooled` channels; with `pooled` 0
    a max pool of stride 2 without a convolution.
    """

    def __init__(self, ins: int, branches: dict[str, Branch], pool: str, pooled: int) -> None:
        super().__init__()
        self.pool = pool if pooled else "shrink"
        self.paths: list[list[list[str]]] = []  # per branch, per step: the names of the convolutions side by side
        self.outs = pooled if pooled else ins
        for name, steps in branches.items():
            self.paths.append(self._add(name, ins, steps))
        if pooled:
            self.branch_pool = _Conv(ins, pooled, (1, 1))

    def _add(self, name: str, ins: int, steps: Branch) -> list[list[str]]:
        path = []
        for i, step in enumerate(steps, 1):
            sides = [step] if isinstance(step, Step) else list(step)
            names = []
            for side, letter in zip(sides, ("",) if len(sides) == 1 else ("a", "b"), strict=True):
                names.append(f"{name}_{i}{letter}" if len(steps) > 1 else name)
                self.add_module(names[-1], _Conv(ins, side.outs, side.kernel, side.stride, side.stride == 1))
            path.append(names)
            ins = sum(side.outs for side in sides)
        self.outs += ins
        return path

    def forward(self, x: Tensor) -> Tensor:
        maps = []
        for path in self.paths:
            y = [x]
            for names in path:
                y = [getattr(self, name)(y[0]) for name in names]
            maps += y
        if self.pool == "shrink":
            return torch.cat([*maps, F.max_pool2d(x, 3, 2)], 1)
        if self.pool == "max":
            x = F.max_pool2d(x, 3, 1, 1)
        else:
            x = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        return torch.cat([*maps, self.branch_pool(x)], 1)


def _block_35(ins: int, pooled: int) -> Mixed:
    branches: dict[str, Branch] = {
        "branch1x1": [Step(64)],
        "branch5x5": [Step(48), Step(64, (5, 5))],
        "branch3x3dbl": [Step(64), Step(96, (3, 3)), Step(96, (3, 3))],
    }
    return Mixed(ins, branches, "average", pooled)


def _shrink_35(ins: int) -> Mixed:
    branches: dict[str, Branch] = {
        "branch3x3": [Step(384, (3, 3), 2)],
        "branch3x3dbl": [Step(64), Step(96, (3, 3)), Step(96, (3, 3), 2)],
    }
    return Mixed(ins, branches, "max", 0)


def _block_17(ins: int, mid: int) -> Mixed:
    row, column = (1, 7), (7, 1)
    branches: dict[str, Branch] = {
        "branch1x1": [Step(192)],
        "branch7x7": [Step(mid), Step(mid, row), Step(192, column)],
        "branch7x7dbl": [Step(mid), Step(mid, column), Step(mid, row), Step(mid, column), Step(192, row)],
    }
    return Mixed(ins, branches, "average", 192)


def _shrink_17(ins: int) -> Mixed:
    branches: dict[str, Branch] = {
        "branch3x3": [Step(192), Step(320, (3, 3), 2)],
        "branch7x7x3": [Step(192), Step(192, (1, 7)), Step(192, (7, 1)), Step(192, (3, 3), 2)],
    }
    return Mixed(ins, branches, "max", 0)


def _block_8(ins: int, pool: str) -> Mixed:
    fork = (Step(384, (1, 3)), Step(384, (3, 1)))
    branches: dict[str, Branch] = {
        "branch1x1": [Step(320)],
        "branch3x3": [Step(384), fork],
        "branch3x3dbl": [Step(448), Step(384, (3, 3)), fork],
    }
    return Mixed(ins, branches, pool, 192)


class Inception(nn.Module):
    """(N, 3, 299, 299) of (x - 128) / 128 -> pool3 features (N, 2048) and logits (N, 1008), float32.

    The logits are without the last layer's bias, as in the code of the inception score (Salimans+ 2016).
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Conv(3, 32, (3, 3), stride=2, padded=False)
        self.Conv2d_2a_3x3 = _Conv(32, 32, (3, 3), padded=False)
        self.Conv2d_2b_3x3 = _Conv(32, 64, (3, 3))
        self.Conv2d_3b_1x1 = _Conv(64, 80, (1, 1))
        self.Conv2d_4a_3x3 = _Conv(80, 192, (3, 3), padded=False)
        self.Mixed_5b = _block_35(192, 32)
        self.Mixed_5c = _block_35(256, 64)
        self.Mixed_5d = _block_35(288, 64)
        self.Mixed_6a = _shrink_35(288)
        self.Mixed_6b = _block_17(768, 128)
        self.Mixed_6c = _block_17(768, 160)
        self.Mixed_6d = _block_17(768, 160)
        self.Mixed_6e = _block_17(768, 192)
        self.Mixed_7a = _shrink_17(768)
        self.Mixed_7b = _block_8(1280, "average")
        self.Mixed_7c = _block_8(2048, "max")
        self.fc = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))  # (N, 64, 147, 147)
        x = self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2))  # (N, 80, 73, 73)
        x = F.max_pool2d(self.Conv2d_4a_3x3(x), 3, 2)  # (N, 192, 35, 35)
        for name, block in self.named_children():
            if name.startswith("Mixed"):
                x = block(x)
        hidden = x.mean((2, 3))  # (N, 2048)
        return hidden, F.linear(hidden, self.fc.weight)


def fold(net: Inception) -> Inception:
    """Every batch normalisation becomes part of its convolution, for evaluation; changes `net`."""
    for module in net.modules():
        if isinstance(module, _Conv):
            module.conv = fuse_conv_bn_eval(module.conv, module.bn)
            module.bn = nn.Identity()  # type: ignore[assignment]
    return net


def tf1_resize(images: np.ndarray, side: int = SIDE) -> Tensor:
    """uint8 (N, H, W, C) -> float32 (N, C, side, side) in [0, 255]: `ResizeBilinear` of the original graph.

    TensorFlow 1 without `align_corners`: output pixel i looks at position i * size / side (no half-pixel centres, no
    antialiasing), in float32, and blends its two neighbours along the row first. The last pixels repeat the border.
    """
    x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float()
    rows, rows_after, down = _taps(x.shape[2], side)
    columns, columns_after, right = _taps(x.shape[3], side)
    x = _blend(x, 3, columns, columns_after, right)  # (N, C, H, side)
    return _blend(x, 2, rows, rows_after, down[:, None])


def _blend(x: Tensor, axis: int, before: Tensor, after: Tensor, share: Tensor) -> Tensor:
    first = x.index_select(axis, before)
    return x.index_select(axis, after).sub_(first).mul_(share).add_(first)


def _taps(size: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """For each of `side` outputs: the pixel before, the pixel after, and the share of the latter."""
    scale = torch.tensor(size, dtype=torch.float32) / torch.tensor(side, dtype=torch.float32)
    at = torch.arange(side, dtype=torch.float32) * scale
    before = at.floor().long().clamp_(max=size - 1)
    return before, (before + 1).clamp_(max=size - 1), at - before


def clean_resize(images: np.ndarray, side: int | tuple[int, int] = SIDE) -> Tensor:
    """uint8 (N, H, W, C) -> float32 (N, C, side, side): Pillow's bicubic, antialiased, not rounded.

    Each channel goes through Pillow as floats and is clipped to [0, 255], as in clean-fid 0.1.35.
    """
    height, width = (side, side) if isinstance(side, int) else side
    count, _, _, channels = images.shape
    out = np.empty((count, channels, height, width), np.float32)
    for picture, image in zip(out, images, strict=True):
        for c in range(channels):
            plane = Image.fromarray(np.ascontiguousarray(image[:, :, c], np.float32))
            picture[c] = np.asarray(plane.resize((width, height), Image.Resampling.BICUBIC))
    return torch.from_numpy(out).clamp_(0, 255)


def over_white(images: np.ndarray) -> np.ndarray:
    """uint8 RGBA (N, H, W, 4) -> RGB as seen on white paper; grey and RGB stay as they are."""
    if images.shape[3] != 4:
        return images
    colour, alpha = images[..., :3].astype(np.uint32), images[..., 3:].astype(np.uint32)
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def torch_resize(images: np.ndarray, side: int = SIDE) -> Tensor:
    """uint8 (N, H, W, C) -> float32 (N, C, side, side) in [0, 255]: bilinear, without antialiasing.

    Output pixel i is at (i + 1/2) size / side - 1/2; what is outside is the border's.
    """
    x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float()
    return F.interpolate(x, (side, side), mode="bilinear", align_corners=False)


class Way(NamedTuple):
    """How pictures become the network's input."""

    resize: Callable[[np.ndarray], Tensor]
    middle: float  # becomes 0
    said: str


WAYS = {
    "inception": Way(tf1_resize, 128, "TensorFlow 1 bilinear to 299x299, (x - 128) / 128"),
    "inception-clean": Way(clean_resize, 128, "Pillow bicubic to 299x299, (x - 128) / 128"),
    "inception-pytorch": Way(torch_resize, 127.5, "torch bilinear to 299x299, (x - 127.5) / 127.5"),
}


def prepare(images: np.ndarray, way: str = "inception") -> Tensor:
    """uint8 (N, H, W, C) -> the network's input (N, 3, 299, 299); grey is repeated, RGBA is put on white."""
    resize, middle, _ = WAYS[way]
    x = resize(over_white(images)).sub_(middle).div_(middle)
    return x.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
