"""Convolutional generator and discriminator: DCGAN's transposed convolutions, or upsampling and convolution."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from elegan.errors import UserError
from elegan.networks.convolutions import conv, up_conv
from elegan.networks.layers import (
    ConditionalBatchNorm,
    Crop,
    Dropout,
    FromMap,
    Sigmoid01,
    To01,
    Told,
    ToMap,
    base_size,
    init_glorot,
    label_planes,
    label_vector,
)
from elegan.networks.resize import resize_conv


class ConvGenerator(nn.Module):
    """z (N, z_dim) [, labels (N,)] -> images (N, C, H, W).

    A dense layer makes the smallest map, `widths[0]` channels deep; layer i then multiplies its sides by
    `strides[i]` and has `widths[i + 1]` channels, the last one the image's. With `upsample` a stride is
    nearest upsampling before the convolution, else a transposed convolution. Sides that the strides do not
    divide are cut from the next larger size. Labels stand beside z as one-hot vectors, or with `label_norms` each
    class has scales and shifts of its own in every batch norm, and stands nowhere else.
    """

    def __init__(
        self,
        z_dim: int,
        shape: tuple[int, int, int],  # (C, H, W)
        widths: tuple[int, ...],
        strides: tuple[int, ...],
        kernels: tuple[int, ...],
        *,
        classes: int = 0,
        upsample: bool = False,
        slope: float = 0.2,
        batch_norm: bool = True,
        bn_momentum: float = 0.9,
        bias: bool = True,
        unit_range: bool = False,
        label_norms: bool = False,
    ) -> None:
        super().__init__()
        self.classes, self.label_norms = classes, label_norms and classes > 0
        channels, height, width = shape
        h, w = base_size(height, strides), base_size(width, strides)
        make = resize_conv if upsample else up_conv

        beside = 0 if self.label_norms else classes
        layers: list[nn.Module] = [nn.Linear(z_dim + beside, h * w * widths[0], bias=bias)]
        if self.label_norms:
            layers += [ToMap(widths[0], h, w), ConditionalBatchNorm(widths[0], classes), nn.LeakyReLU(slope)]
        else:
            if batch_norm:
                layers.append(nn.BatchNorm1d(h * w * widths[0], eps=1e-3, momentum=1 - bn_momentum))
            layers += [nn.LeakyReLU(slope), ToMap(widths[0], h, w)]  # (N, widths[0], h, w)
        for c_in, c_out, kernel, stride in zip(widths, widths[1:], kernels, strides, strict=False):
            layers.append(make(c_in, c_out, kernel, stride, bias))
            if self.label_norms:
                layers.append(ConditionalBatchNorm(c_out, classes))
            elif batch_norm:
                layers.append(nn.BatchNorm2d(c_out, eps=1e-3, momentum=1 - bn_momentum))
            layers.append(nn.LeakyReLU(slope))
        layers.append(make(widths[-1], channels, kernels[-1], strides[-1], bias))
        layers += [Crop(height, width), Sigmoid01() if unit_range else nn.Tanh()]
        self.layers = nn.Sequential(*layers).apply(init_glorot)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        assert labels is not None or not self.classes
        x = z if labels is None or not self.classes or self.label_norms else label_vector(z, labels, self.classes)
        for layer in self.layers:
            x = layer(x, labels) if isinstance(layer, ConditionalBatchNorm) else layer(x)
        return x


def doubling_generator(
    z_dim: int,
    shape: tuple[int, int, int],
    width: int,
    widest: int,
    *,
    classes: int = 0,
    slope: float = 0.2,
    label_norms: bool = False,
) -> ConvGenerator:
    """G for images of any size: a map of 5 to 9 pixels is doubled until it is there, by resizing and 3x3 convolutions.

    `width` channels at the picture's size, doubled at each halving of the side, at most `widest`.
    """
    stages = max(0, round(math.log2(min(shape[1:]) / 6.5)))
    widths = tuple(min(width * 2**i, widest) for i in reversed(range(stages + 1)))
    strides, kernels = (2,) * stages + (1,), (3,) * (stages + 1)
    options: dict[str, Any] = {"classes": classes, "upsample": True, "slope": slope, "label_norms": label_norms}
    return ConvGenerator(z_dim, shape, widths, strides, kernels, **options)


class ConvFeatures(nn.Module):
    """images (N, C, H, W) [, labels (N,)] -> features (N, F): the trunk that discriminators put their heads on.

    Labels enter as one-hot planes beside the image. `batch_norm` stands after each convolution but the first. With
    `told` numbers about each picture, (N, told), a linear map of them is added to all that a convolution makes; None
    are zeros. `self.size` is F.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],  # (C, H, W)
        widths: tuple[int, ...],
        strides: tuple[int, ...],
        kernels: tuple[int, ...],
        *,
        classes: int = 0,
        same: bool = True,
        slope: float = 0.2,
        dropout: float = 0.0,
        head_dropout: float = 0.0,
        unit_range: bool = False,
        batch_norm: bool = False,
        told: int = 0,
    ) -> None:
        super().__init__()
        self.classes = classes
        self.inputs = To01() if unit_range else nn.Identity()
        self.told = nn.ModuleDict()  # by the place of the convolution among the layers
        c_in, height, width = shape
        c_in += classes
        layers: list[nn.Module] = []
        for c_out, kernel, stride in zip(widths, kernels, strides, strict=True):
            normed = [nn.BatchNorm2d(c_out)] if batch_norm and layers else []
            if told:
                self.told[str(len(layers))] = Told(told, c_out)
            layers += [conv(c_in, c_out, kernel, stride, same=same), *normed, nn.LeakyReLU(slope)]
            if dropout:
                layers.append(Dropout(dropout))
            reach = 0 if same else kernel - 1
            height, width = -(-(height - reach) // stride), -(-(width - reach) // stride)
            c_in = c_out
        if height < 1 or width < 1:
            raise UserError(f"{shape[1]}x{shape[2]} images are too small for {len(widths)} unpadded convolutions")
        layers.append(FromMap())
        if head_dropout:
            layers.append(Dropout(head_dropout))
        self.size = c_in * height * width
        self.layers = nn.Sequential(*layers).apply(init_glorot)

    def forward(self, images: Tensor, labels: Tensor | None = None, told: Tensor | None = None) -> Tensor:
        x = self.inputs(images)
        if self.classes:
            assert labels is not None
            x = label_planes(x, labels, self.classes)
        if told is None or not self.told:
            return self.layers(x)
        for place, layer in enumerate(self.layers):
            x = layer(x)
            if str(place) in self.told:
                x = self.told[str(place)](x, told)
        return x


class ConvDiscriminator(ConvFeatures):
    """images (N, C, H, W) [, labels (N,)] -> logits (N,): `ConvFeatures` and one dense layer."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        head = nn.Linear(self.size, 1)
        init_glorot(head)
        self.layers.append(head)

    def forward(self, images: Tensor, labels: Tensor | None = None, told: Tensor | None = None) -> Tensor:
        return super().forward(images, labels, told).squeeze(1)
