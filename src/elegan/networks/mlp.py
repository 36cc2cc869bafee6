"""Fully connected generator and discriminator, for pictures of any shape."""

from __future__ import annotations

from torch import Tensor, nn

from elegan.networks.layers import Dropout, FromMap, Sigmoid01, To01, ToMap, init_glorot, label_vector


class MLPGenerator(nn.Module):
    """z (N, z_dim) [, labels (N,)] -> images (N, C, H, W): Dense, LeakyReLU and batch norm per width."""

    def __init__(
        self,
        z_dim: int,
        shape: tuple[int, int, int],  # (C, H, W)
        widths: tuple[int, ...],
        *,
        classes: int = 0,
        slope: float = 0.2,
        batch_norm: bool = True,
        bn_momentum: float = 0.9,
        unit_range: bool = False,
    ) -> None:
        super().__init__()
        self.classes = classes
        channels, height, width = shape
        layers: list[nn.Module] = []
        features = z_dim + classes
        for out in widths:
            layers += [nn.Linear(features, out), nn.LeakyReLU(slope)]
            if batch_norm:
                layers.append(nn.BatchNorm1d(out, eps=1e-3, momentum=1 - bn_momentum))
            features = out
        layers.append(nn.Linear(features, channels * height * width))
        layers += [Sigmoid01() if unit_range else nn.Tanh(), ToMap(channels, height, width)]
        self.layers = nn.Sequential(*layers).apply(init_glorot)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.classes:
            assert labels is not None
            z = label_vector(z, labels, self.classes)
        return self.layers(z)


class MLPDiscriminator(nn.Module):
    """images (N, C, H, W) [, labels (N,)] -> logits (N,)."""

    def __init__(
        self,
        shape: tuple[int, int, int],  # (C, H, W)
        widths: tuple[int, ...],
        *,
        classes: int = 0,
        slope: float = 0.2,
        dropout: float = 0.0,
        unit_range: bool = False,
    ) -> None:
        super().__init__()
        self.classes = classes
        self.inputs = nn.Sequential(*([To01()] if unit_range else []), FromMap())
        channels, height, width = shape
        features = channels * height * width + classes
        layers: list[nn.Module] = []
        for out in widths:
            layers += [nn.Linear(features, out), nn.LeakyReLU(slope)]
            if dropout:
                layers.append(Dropout(dropout))
            features = out
        layers.append(nn.Linear(features, 1))
        self.layers = nn.Sequential(*layers).apply(init_glorot)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.inputs(images)
        if self.classes:
            assert labels is not None
            x = label_vector(x, labels, self.classes)
        return self.layers(x).squeeze(1)
