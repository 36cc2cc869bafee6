"""LAPGAN: Denton+ 2015, "Deep generative image models using a Laplacian pyramid of adversarial networks".

A picture is taken apart into a small one and, for each doubling of the side, the details that the doubled one lacks.
The small picture is learnt by a plain GAN, the details of each level by a GAN of its own, conditional on the picture
that they belong to. Each learns alone, from real pyramids; only in use do they work in a row, from coarse to fine.

Deviations: Adam instead of SGD with momentum; the networks are convolutional at the smallest level too, G with batch
norm and D with a spectral norm instead of dropout (but for the plane of a class); the pyramid's filter is
[1, 3, 3, 1] / 8. As in the paper noise and class enter a level as planes beside the picture, and D sees details and
picture; here beside each other, not as a sum.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from elegan.adversarial.objectives import OBJECTIVES
from elegan.adversarial.stabilizers import (
    ema_decay,
    frozen,
    learning_rate,
    set_learning_rate,
    steady_share,
    truncated_normal,
    update_ema,
)
from elegan.families.base import Batch, Card, Clock, Family, FamilyConfig, ImageSpec, Preset, judging, minimize
from elegan.networks.layers import FromMap, ToMap, spectral_norm
from elegan.networks.resample import double, halve, halvings

Share = Annotated[float, Field(ge=0, lt=1)]
SLOPE = 0.2  # of every leaky ReLU


class Config(FamilyConfig):
    use_labels: bool = True
    """Tell all networks the class where the data has classes."""
    smallest: float = Field(7.0, ge=2)
    """About the side of the pyramid's smallest picture."""
    z_dim: int = Field(64, gt=0)
    """Numbers in the noise vector of the smallest level."""
    z_planes: int = Field(1, gt=0)
    """Noise planes beside the picture at every other level."""
    G_width: int = Field(48, gt=0)
    """Channels of the hidden layers of each G."""
    G_layers: int = Field(3, gt=1)
    """Convolutions of each G above the smallest level."""
    D_width: int = Field(48, gt=0)
    """Channels of the first layer of each D; doubled at each halving of the side."""
    D_widest: int = Field(96, gt=0)
    """The largest number of channels of each D."""
    small_width: int = Field(128, gt=0)
    """Channels of G and D at the smallest level."""
    kernel: Literal[3, 5, 7] = 3
    """Kernel side of G's convolutions."""

    objective: Literal["nonsaturating", "hinge", "least-squares"] = "nonsaturating"
    """The game at every level: which losses D and G minimise."""
    G_lr: float = Field(2e-4, gt=0)
    """Adam's learning rate for each G."""
    D_lr: float = Field(4e-4, gt=0)
    """Adam's learning rate for each D."""
    beta1: Share = 0.5
    """Adam's first decay rate."""
    beta2: Share = 0.99
    """Adam's second decay rate."""
    lr_schedule: Literal["constant", "linear", "cosine"] = "linear"
    """How the learning rates fall to zero over the planned images."""
    lr_hold: Share = 0.5
    """The share of the run before they begin to fall."""
    ema_share: float = Field(0.04, gt=0)
    """Half-life of the weight average, as a share of the images seen so far."""


def expand(image: Tensor, height: int, width: int) -> Tensor:
    """u(x): a picture (N, C, h, w) of twice the size, cut to (height, width)."""
    return double(image)[:, :, :height, :width]


def pyramid(images: Tensor, levels: int) -> tuple[list[Tensor], list[Tensor]]:
    """Details h_k = x_k - u(x_{k+1}) and low-passes u(x_{k+1}), fine to coarse; the last of the details is x itself.

    There are `levels` details and levels - 1 low-passes; x_{k+1} = `halve(x_k)` (Denton+ 2015, eq. 4).
    """
    details, lows = [], []
    for _ in range(levels - 1):
        smaller = halve(images)
        lows.append(expand(smaller, *images.shape[2:]))
        details.append(images - lows[-1])
        images = smaller
    return [*details, images], lows


def collapse(details: Sequence[Tensor]) -> Tensor:
    """Pictures (N, C, H, W) from their details, fine to coarse: x_k = u(x_{k+1}) + h_k (eq. 5)."""
    *rest, image = details
    for detail in reversed(rest):
        image = expand(image, *detail.shape[2:]) + detail
    return image


class SmallGenerator(nn.Module):
    """z (N, z_dim) [, y (N, classes)] -> the smallest picture (N, C, h, w)."""

    def __init__(self, cfg: Config, channels: int, size: tuple[int, int], classes: int) -> None:
        super().__init__()
        width = cfg.small_width
        self.start = nn.Sequential(nn.Linear(cfg.z_dim + classes, width * math.prod(size)), ToMap(width, *size))
        self.layers = nn.Sequential(
            nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, channels, 3, padding=1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, z: Tensor, y: Tensor | None) -> Tensor:
        return self.layers(self.start(z if y is None else torch.cat([z, y], 1))).float()


class DetailGenerator(nn.Module):
    """Noise planes (N, z, H, W), low-pass (N, C, H, W) [, y (N, classes)] -> details (N, C, H, W) of any height."""

    def __init__(self, cfg: Config, channels: int, size: tuple[int, int], classes: int) -> None:
        super().__init__()
        self.plane = ClassPlane(size, classes) if classes else None
        width, pad = cfg.G_width, cfg.kernel // 2
        layers: list[nn.Module] = []
        inputs = channels + cfg.z_planes + (1 if classes else 0)
        for _ in range(cfg.G_layers - 1):
            layers += [nn.Conv2d(inputs, width, cfg.kernel, padding=pad, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            inputs = width
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, channels, cfg.kernel, padding=pad))

    def forward(self, z: Tensor, low: Tensor, y: Tensor | None) -> Tensor:
        planes = [low, z] if self.plane is None else [low, z, self.plane(y)]
        return self.layers(torch.cat(planes, 1)).float()


class Discriminator(nn.Module):
    """Details (N, C, H, W) [, low-pass] [, y (N, classes)] -> logits (N,), float32."""

    def __init__(self, cfg: Config, channels: int, size: tuple[int, int], classes: int, width: int, low: bool) -> None:
        super().__init__()
        self.plane = ClassPlane(size, classes) if classes else None
        h, w = size
        inputs = channels * (2 if low else 1) + (1 if classes else 0)
        layers: list[nn.Module] = []
        for i in range(3):
            stride = 2 if i and min(h, w) > 4 else 1
            kernel = 4 if stride == 2 else 3
            layers += [spectral_norm(nn.Conv2d(inputs, width, kernel, stride, 1)), nn.LeakyReLU(SLOPE)]
            h, w = (h // 2, w // 2) if stride == 2 else (h, w)
            inputs, width = width, min(2 * width, max(cfg.D_widest, width))
        self.layers = nn.Sequential(*layers, FromMap(), spectral_norm(nn.Linear(inputs * h * w, 1)))

    def forward(self, details: Tensor, low: Tensor | None, y: Tensor | None) -> Tensor:
        planes = [details] + ([] if low is None else [low]) + ([] if self.plane is None else [self.plane(y)])
        return self.layers(torch.cat(planes, 1)).squeeze(1).float()


class ClassPlane(nn.Module):
    """y (N, classes), one-hot -> a plane (N, 1, H, W) learnt for each class."""

    def __init__(self, size: tuple[int, int], classes: int) -> None:
        super().__init__()
        self.size, self.planes = size, nn.Linear(classes, math.prod(size), bias=False)

    def forward(self, y: Tensor | None) -> Tensor:
        assert y is not None
        return self.planes(y).view(-1, 1, *self.size)


class Model(Family):
    card = Card(
        "A small picture is drawn first, then the details of each doubling by a GAN of its own.",
        "drawing or replacing details apart from the whole, and levels that train one by one",
    )
    config: Config

    def __init__(self, config: Config, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        self.classes = spec.classes if config.use_labels else 0
        levels = halvings(spec.height, spec.width, config.smallest) + 1
        self.sizes = [(-(-spec.height // 2**i), -(-spec.width // 2**i)) for i in range(levels)]  # fine to coarse
        c, K, small = spec.channels, self.classes, self.sizes[-1]
        details: list[nn.Module] = [DetailGenerator(config, c, size, K) for size in self.sizes[:-1]]
        judges = [Discriminator(config, c, size, K, config.D_width, low=True) for size in self.sizes[:-1]]
        self.G = nn.ModuleList([*details, SmallGenerator(config, c, small, K)])
        self.D = nn.ModuleList([*judges, Discriminator(config, c, small, K, config.small_width, low=False)])
        self.G_ema = copy.deepcopy(self.G).requires_grad_(False)
        self.parts.nets = {"G": self.G, "D": self.D, "G_ema": self.G_ema}
        betas = (config.beta1, config.beta2)
        self.G_adam = torch.optim.Adam(self.G.parameters(), config.G_lr, betas, fused=True)
        self.D_adam = torch.optim.Adam(self.D.parameters(), config.D_lr, betas, fused=True)
        self.parts.optimizers = {"G": self.G_adam, "D": self.D_adam}
        self.objective = OBJECTIVES[config.objective]

    @property
    def conditional(self) -> bool:
        return self.classes > 0

    @property
    def sampler(self) -> str:
        return "G_ema"

    @property
    def steady(self) -> float:
        return steady_share(self.config.lr_schedule, self.config.lr_hold)

    def ladder(self) -> list[list[nn.Module]]:
        judges: list[Any] = list(self.D)
        return [[judge.layers for judge in judges] + [judge.plane for judge in judges if judge.plane is not None]]

    def step(self, batches: Sequence[Batch], clock: Clock) -> dict[str, Tensor]:
        cfg, (images, labels) = self.config, batches[0]
        n, y = len(images), self.one_hot(labels)
        rate = learning_rate(clock.progress, cfg.lr_schedule, cfg.lr_hold)
        set_learning_rate(self.G_adam, cfg.G_lr * rate)
        set_learning_rate(self.D_adam, cfg.D_lr * rate)
        self.G.train()
        self.D.train()
        reals, lows = pyramid(images, len(self.sizes))  # lists of (n, C, h, w), fine to coarse

        # (1) Discriminators: the levels share neither weights nor gradients, so their sum trains each alone
        with torch.no_grad():
            fakes = self.details(self.G, self.noise(n), lows, y)
        real_logits, fake_logits = self.judge(reals, lows, y), self.judge(fakes, lows, y)  # (levels, n)
        ones, zeros = torch.ones_like(real_logits), torch.zeros_like(fake_logits)
        D_losses = [self.objective.D_real(*pair) for pair in zip(real_logits, ones, strict=True)]
        D_losses += [self.objective.D_fake(*pair) for pair in zip(fake_logits, zeros, strict=True)]
        D_loss = torch.stack(D_losses).sum()
        minimize(D_loss, self.D_adam)

        # (2) Generators, each above the smallest level given the real low-pass, not the fake of the level below
        with frozen(self.D):
            logits = self.judge(self.details(self.G, self.noise(n), lows, y), lows, y)
            G_loss = torch.stack([self.objective.G(level) for level in logits]).sum()
            minimize(G_loss, self.G_adam)

        # (3) Average
        update_ema(self.G_ema, self.G, ema_decay(n, math.inf, clock.seen + n, ramp=cfg.ema_share))
        return {
            "D_loss": D_loss.detach(),
            "G_loss": G_loss.detach(),
            **self.objective.right(real_logits, fake_logits),
        }

    def details(self, G: nn.ModuleList, z: Sequence[Tensor], lows: Sequence[Tensor], y: Tensor | None) -> list[Tensor]:
        """What each level makes of its noise and its low-pass: details (n, C, h, w), fine to coarse."""
        made = [G[i](z[i], low, y) for i, low in enumerate(lows)]
        return [*made, G[-1](z[-1], y)]

    def judge(self, details: Sequence[Tensor], lows: Sequence[Tensor], y: Tensor | None) -> Tensor:
        """The logits (levels, n) of details, each level's by its own D."""
        return torch.stack([D(h, low, y) for D, h, low in zip(self.D, details, [*lows, None], strict=True)])

    def noise(self, n: int, truncation: float = 1.0, generator: torch.Generator | None = None) -> list[Tensor]:
        """New noise for each level, fine to coarse: planes (n, z_planes, h, w), and a vector (n, z_dim)."""
        shapes = [(n, self.config.z_planes, *size) for size in self.sizes[:-1]] + [(n, self.config.z_dim)]
        if generator is None:
            return [torch.randn(shape, device=self.device) for shape in shapes]
        return [truncated_normal(shape, truncation, generator).to(self.device) for shape in shapes]

    def one_hot(self, labels: Tensor | None) -> Tensor | None:
        """Labels (n,) as the networks take them: (n, classes) float, or None where they are not told."""
        if not self.classes:
            return None
        assert labels is not None
        return F.one_hot(labels, self.classes).float()

    def draw(self, n: int, labels: Tensor | None, generator: torch.Generator, truncation: float = 1.0) -> Tensor:
        G, y, z = self.G_ema, self.one_hot(labels), self.noise(n, truncation, generator)
        G.eval()
        image = G[-1](z[-1], y)
        for i in reversed(range(len(self.sizes) - 1)):  # x_k = u(x_{k+1}) + G_k(z_k, u(x_{k+1})) (eq. 7)
            low = expand(image, *self.sizes[i])
            image = low + G[i](z[i], low, y)
        return image.clamp(-1, 1)

    def logits(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """The sum over the levels, (N,): D_k's logit is the log of a ratio of densities of h_k given its low-pass,
        and the log density of a picture is the sum of those.
        """
        details, lows = pyramid(images, len(self.sizes))
        with judging(self.D):
            return self.judge(details, lows, self.one_hot(labels)).sum(0)


PRESETS = {
    "tiny": Preset(
        Config(batch=16, z_dim=16, G_width=8, D_width=8, D_widest=16, small_width=16),
        "garments", 16 * 64, "Seconds on one core: to see the machinery turn, not to make pictures.",
    ),
    "fashion-lapgan": Preset(
        Config(), "fashion-mnist", 20 * 60_000, "From coarse to fine: 7x7, then the details of 14x14 and of 28x28.",
    ),
    "garments-lapgan": Preset(
        Config(), "garments", 20 * 60_000, "Drawn garments, 64x64 in colour, from 8x8 in three steps.",
        {"size": 64, "channels": 3},
    ),
}  # fmt: skip
