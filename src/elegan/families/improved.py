"""A DCGAN with the techniques that keep it from collapsing: Salimans+ 2016, Karras+ 2018, Sonderby+ 2017.

D may see how alike the pictures of a batch are (minibatch discrimination, or the deviation within the batch), so a G
that always draws the same is found out. G may match the mean of D's features instead of D's verdict (feature matching).
Real targets a little below 1 and noise on all that D sees, which fades away, keep D from being too sure.

Deviations: labels are not used (the paper's semi-supervised training is another task), and there is neither historical
averaging nor virtual batch norm; the noise fades along half a cosine; samples come from averaged weights. Feature
matching is squared, as in the paper, where the authors' program takes absolute differences.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from elegan.adversarial.objectives import OBJECTIVES, feature_matching
from elegan.adversarial.stabilizers import (
    cosine_ramp,
    ema_decay,
    frozen,
    instance_noise,
    learning_rate,
    set_learning_rate,
    soft_targets,
    truncated_normal,
    update_ema,
)
from elegan.families.base import Batch, Card, Clock, Family, FamilyConfig, ImageSpec, Preset, judging, minimize
from elegan.networks.conv import ConvFeatures, ConvGenerator
from elegan.networks.layers import init_glorot
from elegan.networks.minibatch import MinibatchDiscrimination, MinibatchStd

Widths = tuple[Annotated[int, Field(gt=0)], ...]
Share = Annotated[float, Field(ge=0, lt=1)]


class Config(FamilyConfig):
    z_dim: int = Field(100, gt=0)
    """Numbers in the noise vector z ~ N(0, 1)."""
    slope: float = Field(0.2, ge=0)
    """Negative slope of every leaky ReLU."""
    G_widths: Widths = (128, 64, 32)
    """Channels of G's layers; the first is the dense layer, and all but the last double the side."""
    D_widths: Widths = (32, 64, 128)
    """Channels of D's layers; each of them halves the side."""
    D_dropout: Share = 0.0
    """Dropout after each of D's layers."""
    minibatch: Literal["none", "discrimination", "stddev"] = "discrimination"
    """What D sees of the rest of its batch: nothing, distances between pictures, or their deviation."""
    kernels: int = Field(100, gt=0)
    """Kernels of minibatch discrimination, each with 5 dimensions."""

    goal: Literal["verdict", "features"] = "verdict"
    """What G is after: that D takes its pictures for real, or that D's mean features are those of real ones."""
    objective: Literal["minimax", "nonsaturating"] = "nonsaturating"
    """The game: which losses D and G minimise."""
    label_smoothing: Share = 0.1
    """One-sided: real targets are 1 minus this, fake ones stay 0."""
    noise: float = Field(0.0, ge=0)
    """Deviation, at the start, of the noise on all that D sees; pixels are in -1..1."""
    noise_share: float = Field(0.5, gt=0, le=1)
    """The share of the run over which the noise fades to nothing."""
    G_lr: float = Field(2e-4, gt=0)
    """Adam's learning rate for G."""
    D_lr: float = Field(2e-4, gt=0)
    """Adam's learning rate for D."""
    beta1: Share = 0.5
    """Adam's first decay rate."""
    beta2: Share = 0.999
    """Adam's second decay rate."""
    lr_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rates fall to zero over the planned images."""
    ema_share: float = Field(0.04, gt=0)
    """Half-life of the weight average, as a share of the images seen so far."""


class Discriminator(nn.Module):
    """images (N, C, H, W) of one kind -> logits (N,) and the features f(x) (N, F) that they follow from."""

    def __init__(self, cfg: Config, shape: tuple[int, int, int]) -> None:
        super().__init__()
        layers = len(cfg.D_widths)
        sizes = (cfg.D_widths, (2,) * layers, (5,) * layers)
        self.features = ConvFeatures(shape, *sizes, slope=cfg.slope, dropout=cfg.D_dropout)
        self.minibatch, more = MINIBATCH[cfg.minibatch](self.features.size, cfg.kernels)
        self.head = nn.Linear(self.features.size + more, 1).apply(init_glorot)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(images)
        return self.head(self.minibatch(features)).squeeze(1), features


#: A layer for (N, F) features and the number of features that it adds.
MINIBATCH = {
    "none": lambda features, kernels: (nn.Identity(), 0),
    "discrimination": lambda features, kernels: (MinibatchDiscrimination(features, kernels), kernels),
    "stddev": lambda features, kernels: (MinibatchStd(), 1),
}


class Model(Family):
    card = Card(
        "D compares the pictures of a batch, so a G that draws always the same is found out.",
        "an unlabelled GAN that loses variety, and to try each technique by itself",
    )
    config: Config

    def __init__(self, config: Config, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        shape, layers = (spec.channels, spec.height, spec.width), len(config.G_widths)
        strides = tuple(2 if i < layers - 1 else 1 for i in range(layers))
        self.G = ConvGenerator(config.z_dim, shape, config.G_widths, strides, (5,) * layers, slope=config.slope)
        self.D = Discriminator(config, shape)
        self.G_ema = copy.deepcopy(self.G).requires_grad_(False)
        self.parts.nets = {"G": self.G, "D": self.D, "G_ema": self.G_ema}
        betas = (config.beta1, config.beta2)
        self.G_adam = torch.optim.Adam(self.G.parameters(), config.G_lr, betas, fused=True)
        self.D_adam = torch.optim.Adam(self.D.parameters(), config.D_lr, betas, fused=True)
        self.parts.optimizers = {"G": self.G_adam, "D": self.D_adam}
        self.objective = OBJECTIVES[config.objective]

    @property
    def sampler(self) -> str:
        return "G_ema"

    def form(self, clock: Clock) -> bool:
        return self.config.noise > 0 and clock.progress < self.config.noise_share

    def step(self, batches: Sequence[Batch], clock: Clock) -> dict[str, Tensor]:
        cfg, real = self.config, batches[0].images
        n = len(real)
        noisy = self.form(clock.host)
        sigma = cosine_ramp(clock.progress, cfg.noise, 0.0, cfg.noise_share) if noisy else 0.0
        rate = learning_rate(clock.progress, cfg.lr_schedule)
        set_learning_rate(self.G_adam, cfg.G_lr * rate)
        set_learning_rate(self.D_adam, cfg.D_lr * rate)
        self.G.train()
        self.D.train()

        # (1) Discriminator, on real and on fake apart: it compares pictures of one kind with each other
        with torch.no_grad():
            fake = self.G(torch.randn(n, cfg.z_dim, device=real.device))  # (n, C, H, W)
        real_logits, _ = self.D(instance_noise(real, sigma))
        fake_logits, _ = self.D(instance_noise(fake, sigma))
        real_loss = self.objective.D_real(real_logits, soft_targets(real_logits, 1 - cfg.label_smoothing))
        D_loss = real_loss + self.objective.D_fake(fake_logits, soft_targets(fake_logits, 0.0))
        minimize(D_loss, self.D_adam)

        # (2) Generator
        with frozen(self.D):
            logits, features = self.D(instance_noise(self.G(torch.randn(n, cfg.z_dim, device=real.device)), sigma))
            if cfg.goal == "features":
                with torch.no_grad():
                    _, real_features = self.D(instance_noise(real, sigma))
                G_loss = feature_matching(real_features, features)
            else:
                G_loss = self.objective.G(logits)
            minimize(G_loss, self.G_adam)

        # (3) Average
        update_ema(self.G_ema, self.G, ema_decay(n, math.inf, clock.seen + n, ramp=cfg.ema_share))
        return {
            "D_loss": D_loss.detach(),
            "G_loss": G_loss.detach(),
            **self.objective.right(real_logits, fake_logits),
        }

    def logits(self, images: Tensor, labels: Tensor | None) -> Tensor:
        with judging(self.D):
            return self.D(images)[0].float()

    def draw(self, n: int, labels: Tensor | None, generator: torch.Generator, truncation: float = 1.0) -> Tensor:
        z = truncated_normal((n, self.config.z_dim), truncation, generator).to(self.device)
        return self.G_ema.eval()(z)


PRESETS = {
    "tiny": Preset(
        Config(batch=16, z_dim=16, G_widths=(16, 8, 8), D_widths=(8, 16), kernels=8, noise=0.2),
        "garments", 16 * 64, "Seconds on one core: to see the machinery turn, not to make pictures.",
    ),
    "fashion-minibatch": Preset(
        Config(), "fashion-mnist", 20 * 60_000, "D sees how alike a batch is: against a G without variety.",
    ),
    "fashion-stddev": Preset(
        Config(minibatch="stddev"), "fashion-mnist", 20 * 60_000, "The same by one number, the batch's deviation.",
    ),
    "fashion-matching": Preset(
        Config(minibatch="none", goal="features"), "fashion-mnist", 20 * 60_000,
        "G matches the mean of D's features instead of D's verdict.",
    ),
    "fashion-noise": Preset(
        Config(minibatch="none", noise=0.3), "fashion-mnist", 20 * 60_000, "Noise on all that D sees, fading away.",
    ),
}  # fmt: skip
