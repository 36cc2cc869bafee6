"""Conditional GANs, the label in D concatenated or projected: Mirza & Osindero 2014, Miyato & Koyama 2018.

G is told which class to draw, and D which class a picture is said to be, so a picture of the wrong class is a fake.
D gets the label as one-hot planes beside the picture (concat), or by an inner product of its features with a learnt
vector for the class, D(x, y) = y^T V phi(x) + psi(phi(x)) (projection): the form that the log ratio of p(x | y) to
q(x | y) has when both are log-linear in the features. With `label` alone changed all else is equal. G gets it as a
one-hot vector beside z (the first paper), or has scales and shifts for each class in every batch norm (the second).

Deviations: the networks are a spectrally normalised DCGAN, small enough for a CPU, with upsampling in G; phi(x) is all
of the last map, where theirs is its sum over places; one D step for each G step unless D_steps says otherwise (their
5); samples come from averaged weights.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

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
from elegan.networks.conv import ConvFeatures, doubling_generator
from elegan.networks.layers import init_glorot, spectral_norm

Share = Annotated[float, Field(ge=0, lt=1)]


class Config(FamilyConfig):
    conditional: bool = True
    """Tell G and D the class; without it a plain GAN remains."""
    label: Literal["projection", "concat"] = "projection"
    """How the label enters D: by an inner product with its features, or as one-hot planes beside the picture."""
    G_label: Literal["concat", "norms"] = "concat"
    """How the label enters G: as a one-hot vector beside z, or by batch norms whose scale and shift each class has."""
    z_dim: int = Field(100, gt=0)
    """Numbers in the noise vector z ~ N(0, 1)."""
    slope: float = Field(0.2, ge=0)
    """Negative slope of every leaky ReLU."""
    G_width: int = Field(64, gt=0)
    """Channels of G at the picture's size; doubled at each halving of the side."""
    G_widest: int = Field(256, gt=0)
    """G's largest number of channels."""
    D_width: int = Field(64, gt=0)
    """Channels of D at half the picture's size; doubled at each halving of the side."""
    D_widest: int = Field(256, gt=0)
    """D's largest number of channels."""

    objective: Literal["hinge", "nonsaturating", "least-squares", "least-squares-chi2"] = "hinge"
    """The game: which losses D and G minimise."""
    D_steps: int = Field(1, gt=0)
    """D's updates, each on a new batch, before G's."""
    G_lr: float = Field(2e-4, gt=0)
    """Adam's learning rate for G."""
    D_lr: float = Field(4e-4, gt=0)
    """Adam's learning rate for D."""
    beta1: Share = 0.0
    """Adam's first decay rate."""
    beta2: Share = 0.9
    """Adam's second decay rate."""
    lr_schedule: Literal["constant", "linear", "cosine"] = "linear"
    """How the learning rates fall to zero over the planned images."""
    lr_hold: Share = 0.4
    """The share of the run before they begin to fall."""
    ema_share: float = Field(0.04, gt=0)
    """Half-life of the weight average, as a share of the images seen so far."""


class Discriminator(nn.Module):
    """images (N, C, H, W) [, labels (N,)] -> logits (N,), float32; every layer spectrally normalised, V too."""

    def __init__(self, cfg: Config, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        layers = max(1, round(math.log2(min(shape[1:]) / 3.5)))
        widths = tuple(min(cfg.D_width * 2**i, cfg.D_widest) for i in range(layers))
        planes = classes if cfg.label == "concat" else 0
        self.phi = ConvFeatures(shape, widths, (2,) * layers, (5,) * layers, classes=planes, slope=cfg.slope)
        self.psi = nn.Linear(self.phi.size, 1).apply(init_glorot)
        self.V = nn.Embedding(classes, self.phi.size) if classes and cfg.label == "projection" else None
        for layer in [m for m in self.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.Embedding)]:
            spectral_norm(layer)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        phi = self.phi(images, labels)  # (N, F)
        logits = self.psi(phi).squeeze(1).float()
        if self.V is not None:
            assert labels is not None
            logits = logits + (phi.float() * self.V(labels)).sum(1)  # y^T V phi(x) (Miyato & Koyama 2018, eq. 3)
        return logits


class Model(Family):
    card = Card(
        "The label is told to both players, so a picture of the wrong class is a fake.",
        "the plainest GAN that obeys labels, and to compare the two ways of telling D",
    )
    config: Config

    def __init__(self, config: Config, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        if config.conditional and not spec.classes:
            raise UserError("this preset needs labels and the data has none; add them, or --set conditional=false")
        shape, classes = (spec.channels, spec.height, spec.width), spec.classes if config.conditional else 0
        self.G = doubling_generator(
            config.z_dim, shape, config.G_width, config.G_widest, classes=classes, slope=config.slope,
            label_norms=config.G_label == "norms",
        )  # fmt: skip
        self.D = Discriminator(config, shape, classes)
        self.G_ema = copy.deepcopy(self.G).requires_grad_(False)
        self.parts.nets = {"G": self.G, "D": self.D, "G_ema": self.G_ema}
        betas = (config.beta1, config.beta2)
        self.G_adam = torch.optim.Adam(self.G.parameters(), config.G_lr, betas, fused=True)
        self.D_adam = torch.optim.Adam(self.D.parameters(), config.D_lr, betas, fused=True)
        self.parts.optimizers = {"G": self.G_adam, "D": self.D_adam}
        self.objective = OBJECTIVES[config.objective]

    @property
    def batches_per_step(self) -> int:
        return self.config.D_steps

    @property
    def conditional(self) -> bool:
        return self.config.conditional

    @property
    def sampler(self) -> str:
        return "G_ema"

    @property
    def steady(self) -> float:
        return steady_share(self.config.lr_schedule, self.config.lr_hold)

    def step(self, batches: Sequence[Batch], clock: Clock) -> dict[str, Tensor]:
        cfg = self.config
        rate = learning_rate(clock.progress, cfg.lr_schedule, cfg.lr_hold)
        set_learning_rate(self.G_adam, cfg.G_lr * rate)
        set_learning_rate(self.D_adam, cfg.D_lr * rate)
        self.G.train()
        self.D.train()

        # (1) Discriminator: real pictures with their labels, fakes with the labels that were asked for
        for real, labels in batches:
            n = len(real)
            with torch.no_grad():
                fake = self.G(torch.randn(n, cfg.z_dim, device=real.device), labels)  # (n, C, H, W)
            both = None if labels is None else torch.cat([labels, labels])
            real_logits, fake_logits = self.D(torch.cat([real, fake.to(real.dtype)]), both).chunk(2)
            ones, zeros = torch.ones_like(real_logits), torch.zeros_like(fake_logits)
            D_loss = self.objective.D_real(real_logits, ones) + self.objective.D_fake(fake_logits, zeros)
            minimize(D_loss, self.D_adam)

        # (2) Generator
        with frozen(self.D):
            fake = self.G(torch.randn(n, cfg.z_dim, device=real.device), labels)
            G_loss = self.objective.G(self.D(fake, labels))
            minimize(G_loss, self.G_adam)

        # (3) Average
        seen = len(batches) * n
        update_ema(self.G_ema, self.G, ema_decay(seen, math.inf, clock.seen + seen, ramp=cfg.ema_share))
        return {
            "D_loss": D_loss.detach(),
            "G_loss": G_loss.detach(),
            **self.objective.right(real_logits, fake_logits),
        }

    def logits(self, images: Tensor, labels: Tensor | None) -> Tensor:
        with judging(self.D):
            return self.D(images, labels).float()

    def draw(self, n: int, labels: Tensor | None, generator: torch.Generator, truncation: float = 1.0) -> Tensor:
        z = truncated_normal((n, self.config.z_dim), truncation, generator).to(self.device)
        return self.G_ema.eval()(z, labels)


PRESETS = {
    "tiny": Preset(
        Config(G_label="norms", batch=16, z_dim=16, G_width=8, G_widest=16, D_width=8, D_widest=16),
        "garments", 16 * 64, "Seconds on one core: to see the machinery turn.",
    ),
    "fashion-projection": Preset(
        Config(G_label="norms", G_lr=8e-4, D_lr=1.6e-3), "fashion-mnist", 10 * 60_000,
        "Garments by class; the label enters D by an inner product, and G's norms.",
    ),
    "fashion-concat": Preset(
        Config(label="concat"), "fashion-mnist", 10 * 60_000, "The same, the label beside picture and z.",
    ),
}  # fmt: skip
