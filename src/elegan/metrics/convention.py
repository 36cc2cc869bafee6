"""What a network of the user's takes: how uint8 images become its input, and how that is written.

After a file's name, `net.onnx:size=224:channels=3:range=-1,1`, or as keywords in Python; printed with the scores.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elegan.errors import UserError, nearest
from elegan.metrics.inception import clean_resize, over_white

GREY = (0.299, 0.587, 0.114)  # ITU-R 601, as in Pillow


@dataclass(frozen=True)
class Convention:
    """What a network takes. `str` of it is what the protocol says."""

    size: tuple[int, int] | None = None
    """(height, width) that images are resized to; None: as they are."""
    channels: int | None = None
    """1 or 3; None: as they are. Grey is repeated, colour becomes luminance, RGBA is put on white."""
    range: tuple[float, float] = (0.0, 1.0)
    """What black and white become."""
    mean: tuple[float, ...] = ()
    """Subtracted after that, per channel."""
    std: tuple[float, ...] = ()
    """Divided by after that, per channel."""
    classes: bool = False
    """The logits are of the data's own classes, in their order: label accuracy and class shares use them."""

    def __str__(self) -> str:
        low, high = self.range
        said = [f"input in [{low:g}, {high:g}]"]
        if self.size:
            said.insert(0, "Pillow bicubic to {}x{}".format(*self.size))
        if self.channels:
            said.append(f"{self.channels} channel{'s' * (self.channels > 1)}")
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if numbers:
                said.append(f"{name} {','.join(f'{x:g}' for x in numbers)}")
        if self.classes:
            said.append("classes of the data")
        return ", ".join(said)

    def __call__(self, images: np.ndarray) -> Tensor:
        """uint8 (N, H, W, C) -> float32 (N, C', H', W')."""
        if self.channels is not None:
            images = over_white(images)
        height, width = self.size or images.shape[1:3]
        if images.shape[1:3] == (height, width):
            x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float()
        else:
            x = clean_resize(images, (height, width))
        if self.channels == 1 and x.shape[1] == 3:
            x = (x * torch.tensor(GREY).view(3, 1, 1)).sum(1, keepdim=True)
        elif self.channels == 3 and x.shape[1] == 1:
            x = x.repeat(1, 3, 1, 1)
        low, high = self.range
        x = x.mul_((high - low) / 255).add_(low)
        for numbers in (self.mean, self.std):
            if len(numbers) not in (0, 1, x.shape[1]):
                raise UserError(f"{len(numbers)} numbers of mean or std for {x.shape[1]} channels; add channels=3")
        if self.mean:
            x -= torch.tensor(self.mean).view(-1, 1, 1)
        if self.std:
            x /= torch.tensor(self.std).view(-1, 1, 1)
        return x


def convention(**asked: Any) -> Convention:
    """A `Convention` of values as the command line or Python gives them. `UserError` for unknown names and nonsense."""
    known = {f.name for f in fields(Convention)}
    values: dict[str, Any] = {}
    for name, value in asked.items():
        if name not in known:
            raise UserError(f"unknown option {name!r} of a features network{nearest(name, known)}")
        if value is not None:
            try:
                values[name] = _PARSE[name](value)
            except (ValueError, TypeError):
                raise UserError(f"{name}={value}: {_WANTED[name]}") from None
    return Convention(**values)


def _numbers(value: Any) -> tuple[float, ...]:
    parts = value.split(",") if isinstance(value, str) else np.atleast_1d(value).tolist()
    numbers = tuple(float(part) for part in parts)
    if not np.isfinite(numbers).all():
        raise ValueError
    return numbers


def _size(value: Any) -> tuple[int, int]:
    parts = re.split("[x,]", value) if isinstance(value, str) else np.atleast_1d(value).tolist()
    sides = tuple(int(part) for part in parts)
    height, width = sides * 2 if len(sides) == 1 else sides
    if min(height, width) < 1:
        raise ValueError
    return height, width


def _range(value: Any) -> tuple[float, ...]:
    low, high = _numbers(value)
    if low == high:
        raise ValueError
    return low, high


def _std(value: Any) -> tuple[float, ...]:
    numbers = _numbers(value)
    if min(numbers) <= 0:
        raise ValueError
    return numbers


def _one_or_three(value: Any) -> int:
    if int(value) not in (1, 3):
        raise ValueError
    return int(value)


def _yes(value: Any) -> bool:
    if str(value).lower() not in ("true", "yes", "1", "data", "false", "no", "0"):
        raise ValueError
    return str(value).lower() in ("true", "yes", "1", "data")


_PARSE: dict[str, Callable[[Any], Any]] = {
    "size": _size, "channels": _one_or_three, "range": _range, "mean": _numbers, "std": _std, "classes": _yes,
}  # fmt: skip
_WANTED = {
    "size": "a number of pixels, or HEIGHTxWIDTH",
    "channels": "1 or 3",
    "range": "two different numbers, what black and white become: 0,1 or -1,1",
    "mean": "a number, or one a channel",
    "std": "a number above 0, or one a channel",
    "classes": "yes if the logits are of the data's own classes, else no",
}


def split_options(text: str) -> tuple[str, dict[str, str]]:
    """`net.onnx:size=224:range=-1,1` -> `("net.onnx", {"size": "224", "range": "-1,1"})`."""
    options: dict[str, str] = {}
    while match := re.fullmatch(r"(.+):([a-z]+)=([^:=/]*)", text):
        text = match[1]
        if match[2] in options:
            raise UserError(f"{match[2]} is given twice to {text}")
        options[match[2]] = match[3]
    return text, options


def with_transform(base: Convention, transform: Callable[[Tensor], Tensor] | None) -> Callable[[np.ndarray], Tensor]:
    """`base`, or the user's own function of uint8 (N, C, H, W)."""
    if transform is None:
        return base
    if replace(base, classes=False) != Convention():
        raise UserError("give either transform or size, channels, range, mean and std")
    return lambda images: transform(torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))))
