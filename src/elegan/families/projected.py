"""Projected GAN: Sauer+ 2021. D looks at the maps of a network that has learnt to see elsewhere, and never changes.

A frozen network turns real and fake pictures into maps at several scales; fixed random 1x1 convolutions mix each map's
channels, and again the maps of neighbouring scales, so that D cannot settle on a few channels; on each of the four
mixed maps a small discriminator plays the hinge game, and G minimises the sum. Good features make the game easy to
learn, so few pictures and few images seen suffice, and no penalty is needed.

Deviations: the frozen network is of the user's choice (`features`), the shipped classifiers, a file, or a random one;
the paper's are ImageNet's. Its 3x3 convolutions across scales are 1x1, as in the authors' program; the heads have
spectral norms and no batch norms, and each has the same two layers at every scale; G is a plain upsampling one in place
of FastGAN's; labels enter G by concatenation and each head as one-hot planes. A run is not to be judged by the features
that its D has seen: `elegan evaluate` refuses. Nor is a judge that has learnt the same classes as D's network a neutral
one (Kynkaanniemi+ 2022): docs/evidence.md tells beside its distance that of one which has never seen such pictures.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from elegan.adversarial.augment import AUGMENTATIONS
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
from elegan.errors import UserError
from elegan.families.base import Batch, Card, Clock, Family, FamilyConfig, ImageSpec, Preset, judging, minimize
from elegan.networks.backbones import load_backbone
from elegan.networks.conv import doubling_generator
from elegan.networks.layers import label_planes, spectral_norm

Share = Annotated[float, Field(ge=0, lt=1)]
SCALES = 4


class Config(FamilyConfig):
    features: str = "digits"
    """The frozen network: fashion, fashion-tuning, digits, a .safetensors or TorchScript file, or random, which has
    learnt nothing."""
    mix_width: int = Field(64, gt=0)
    """Channels of each mixed map."""
    augment: Literal["none", "diffaugment"] = "diffaugment"
    """What is done to all that D sees."""

    z_dim: int = Field(100, gt=0)
    """Numbers in the noise vector z ~ N(0, 1)."""
    slope: float = Field(0.2, ge=0)
    """Negative slope of every leaky ReLU."""
    G_width: int = Field(64, gt=0)
    """Channels of G at the picture's size; doubled at each halving of the side."""
    G_widest: int = Field(256, gt=0)
    """G's largest number of channels."""
    D_width: int = Field(64, gt=0)
    """Channels of the discriminators' hidden layers."""

    G_lr: float = Field(2e-4, gt=0)
    """Adam's learning rate for G."""
    D_lr: float = Field(2e-4, gt=0)
    """Adam's learning rate for the discriminators."""
    beta1: Share = 0.0
    """Adam's first decay rate."""
    beta2: Share = 0.99
    """Adam's second decay rate."""
    lr_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rates fall to zero over the planned images."""
    ema_share: float = Field(0.04, gt=0)
    """Half-life of the weight average, as a share of the images seen so far."""


class Projector(nn.Module):
    """images (N, C, H, W) -> four mixed maps (N, mix_width, h, w), from fine to coarse. Nothing in it learns."""

    def __init__(self, cfg: Config, spec: ImageSpec) -> None:
        super().__init__()
        self.backbone = load_backbone(cfg.features, spec.channels)
        try:
            with torch.no_grad():
                maps = self.maps(torch.zeros(1, spec.channels, spec.height, spec.width, device="cpu"))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:160]
            size = f"{spec.height}x{spec.width}x{spec.channels}"
            raise UserError(f"features={cfg.features}: cannot take {size} pictures ({reason})") from None
        # A random 1x1 convolution from each map (section 3.2, CCM), and from each mixed map to the next finer one (CSM)
        self.channels = nn.ModuleList(random_mix(m.shape[1], cfg.mix_width) for m in maps)
        self.scales = nn.ModuleList(random_mix(cfg.mix_width, cfg.mix_width) for _ in maps[1:])
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Projector:
        """Always in evaluation mode."""
        return super().train(False)

    def maps(self, images: Tensor) -> list[Tensor]:
        """The backbone's maps: four of them, evenly chosen; where it has fewer the last one is halved on."""
        maps = self.backbone(images)
        if len(maps) > SCALES:
            maps = [maps[round(i * (len(maps) - 1) / (SCALES - 1))] for i in range(SCALES)]
        while len(maps) < SCALES:
            maps.append(F.avg_pool2d(maps[-1], 2, ceil_mode=True))
        return maps

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = [mix(m) for mix, m in zip(self.channels, self.maps(images), strict=True)]
        for i in reversed(range(SCALES - 1)):
            coarse = F.interpolate(maps[i + 1].float(), maps[i].shape[2:], mode="bilinear", align_corners=False)
            maps[i] = maps[i] + self.scales[i](coarse)
        return maps


def random_mix(c_in: int, c_out: int) -> nn.Conv2d:
    """A 1x1 convolution with weights N(0, 1 / c_in): each output is a random sum of all inputs, about as large."""
    layer = nn.Conv2d(c_in, c_out, 1, bias=False)
    nn.init.normal_(layer.weight, std=c_in**-0.5)
    return layer


class Discriminators(nn.Module):
    """Mixed maps [, labels (N,)] -> one map of logits (N, h, w) for each scale."""

    def __init__(self, cfg: Config, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.heads = nn.ModuleList(
            nn.Sequential(
                spectral_norm(nn.Conv2d(cfg.mix_width + classes, cfg.D_width, 4, 2, 1)),
                nn.LeakyReLU(cfg.slope),
                spectral_norm(nn.Conv2d(cfg.D_width, cfg.D_width, 3, padding=1)),
                nn.LeakyReLU(cfg.slope),
                spectral_norm(nn.Conv2d(cfg.D_width, 1, 3, padding=1)),
            )
            for _ in range(SCALES)
        )

    def forward(self, maps: list[Tensor], labels: Tensor | None = None) -> list[Tensor]:
        if self.classes:
            assert labels is not None
            maps = [label_planes(m, labels, self.classes) for m in maps]
        return [head(_at_least(m, 2)).squeeze(1).float() for head, m in zip(self.heads, maps, strict=True)]


def _at_least(x: Tensor, side: int) -> Tensor:
    """Maps of one pixel are padded, so that a convolution of stride 2 fits."""
    h, w = max(side - x.shape[2], 0), max(side - x.shape[3], 0)
    return F.pad(x, (0, w, 0, h), mode="replicate") if h or w else x


class Model(Family):
    card = Card(
        "D judges by what a frozen network sees, which has learnt to see elsewhere.",
        "when a network that knows such pictures is at hand, and few images may be seen",
    )
    config: Config

    def __init__(self, config: Config, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        self.G = doubling_generator(
            config.z_dim, (spec.channels, spec.height, spec.width), config.G_width, config.G_widest,
            classes=spec.classes, slope=config.slope,
        )  # fmt: skip
        self.P, self.D = Projector(config, spec), Discriminators(config, spec.classes)
        self.G_ema = copy.deepcopy(self.G).requires_grad_(False)
        self.parts.nets = {"G": self.G, "D": self.D, "G_ema": self.G_ema, "P": self.P}
        betas = (config.beta1, config.beta2)
        self.G_adam = torch.optim.Adam(self.G.parameters(), config.G_lr, betas, fused=True)
        self.D_adam = torch.optim.Adam(self.D.parameters(), config.D_lr, betas, fused=True)
        self.parts.optimizers = {"G": self.G_adam, "D": self.D_adam}
        self.objective, self.augment = OBJECTIVES["hinge"], AUGMENTATIONS[config.augment]

    @property
    def conditional(self) -> bool:
        return self.spec.classes > 0

    @property
    def sampler(self) -> str:
        return "G_ema"

    @property
    def steady(self) -> float:
        return steady_share(self.config.lr_schedule)

    def ladder(self) -> list[list[nn.Module]]:
        return [list(self.D.heads)]

    def step(self, batches: Sequence[Batch], clock: Clock) -> dict[str, Tensor]:
        cfg, (real, labels) = self.config, batches[0]
        n = len(real)
        rate = learning_rate(clock.progress, cfg.lr_schedule)
        set_learning_rate(self.G_adam, cfg.G_lr * rate)
        set_learning_rate(self.D_adam, cfg.D_lr * rate)
        self.G.train()
        self.D.train()

        # (1) Discriminators: the sum over scales of hinge losses (eq. 2), on maps that need no gradient here
        with torch.no_grad():
            fake = self.G(torch.randn(n, cfg.z_dim, device=real.device), labels)  # (n, C, H, W)
            maps = self.P(self.augment(torch.cat([real, fake.to(real.dtype)]), 1.0))
        both = None if labels is None else torch.cat([labels, labels])
        pairs = [logits.chunk(2) for logits in self.D(maps, both)]
        one, zero = (make((), device=real.device) for make in (torch.ones, torch.zeros))
        D_loss = sum_of(self.objective.D_real(r, one) + self.objective.D_fake(f, zero) for r, f in pairs)
        minimize(D_loss, self.D_adam)

        # (2) Generator: its gradient comes through the frozen network
        with frozen(self.D):
            fake = self.G(torch.randn(n, cfg.z_dim, device=real.device), labels)
            G_loss = sum_of(self.objective.G(logits) for logits in self.D(self.P(self.augment(fake, 1.0)), labels))
            minimize(G_loss, self.G_adam)

        # (3) Average
        update_ema(self.G_ema, self.G, ema_decay(n, math.inf, clock.seen + n, ramp=cfg.ema_share))
        real_logits, fake_logits = (torch.stack([score(pair[i]) for pair in pairs]).sum(0) for i in (0, 1))
        return {
            "D_loss": D_loss.detach(),
            "G_loss": G_loss.detach(),
            **self.objective.right(real_logits, fake_logits),
        }

    def logits(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """The sum of the four discriminators' mean logits."""
        with judging(self.D):
            return torch.stack([score(logits) for logits in self.D(self.P(images), labels)]).sum(0)

    def draw(self, n: int, labels: Tensor | None, generator: torch.Generator, truncation: float = 1.0) -> Tensor:
        z = truncated_normal((n, self.config.z_dim), truncation, generator).to(self.device)
        return self.G_ema.eval()(z, labels)


def score(logits: Tensor) -> Tensor:
    """A picture's mean logit (N,) of a map of logits (N, h, w)."""
    return logits.flatten(1).mean(1)


def sum_of(losses: Iterable[Tensor]) -> Tensor:
    """Their sum, as a tensor."""
    return torch.stack(list(losses)).sum()


NARROW: dict[str, Any] = {
    "batch": 32, "G_width": 32, "G_widest": 128, "D_width": 32, "G_lr": 6e-4, "D_lr": 6e-4,
}  # fmt: skip

PRESETS = {
    "tiny": Preset(
        Config(features="random", batch=16, z_dim=16, mix_width=8, G_width=8, G_widest=16, D_width=8),
        "garments", 16 * 64, "Seconds on one core: to see the machinery turn.",
    ),
    # 60,000 pictures need no disturbance. Rates that fall did harm: 1.52 away for 0.48 after 60,000 images, one seed.
    "fashion-projected": Preset(
        Config(features="fashion-tuning", augment="none", **NARROW),
        "fashion-mnist", 5 * 60_000, "Garments by way of a classifier that knows garments: clear shapes soon.",
    ),
    "digits-projected": Preset(
        Config(features="fashion", augment="none", **NARROW),
        "mnist", 5 * 60_000, "Digits by way of a network that has learnt to tell garments.",
    ),
}  # fmt: skip
