"""ACGAN, a discriminator that also names the class: Odena+ 2017.

G is told which class to draw. D answers two questions about a picture, whether it is real and which class it shows,
from one trunk with two heads; both players want the class to be recognised. So G learns classes without D being told
the label, and its known failure is to draw easy, alike members of each class: judge its variety within classes too.

Deviations: the source loss is non-saturating; the class enters G as a one-hot vector beside z; the networks are
DCGAN's with dropout in D; samples come from averaged weights. `D_class_weight` 1 with `G_class_weight` 0.1 is the
choice of the WGAN-GP authors' ACGAN. With conditional=false the class head falls away and a DCGAN remains.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from elegan.adversarial.objectives import OBJECTIVES, class_loss
from elegan.adversarial.stabilizers import (
    ema_decay,
    frozen,
    learning_rate,
    set_learning_rate,
    truncated_normal,
    update_ema,
)
from elegan.errors import UserError
from elegan.families.base import Batch, Card, Clock, Family, FamilyConfig, ImageSpec, Preset, judging, minimize
from elegan.networks.conv import ConvFeatures, ConvGenerator
from elegan.networks.layers import init_glorot

Widths = tuple[Annotated[int, Field(gt=0)], ...]
Share = Annotated[float, Field(ge=0, lt=1)]


class Config(FamilyConfig):
    conditional: bool = True
    """Tell G the class, and have D name it."""
    z_dim: int = Field(100, gt=0)
    """Numbers in the noise vector z ~ N(0, 1)."""
    slope: float = Field(0.2, ge=0)
    """Negative slope of every leaky ReLU."""
    G_widths: Widths = (128, 64, 32)
    """Channels of G's layers; the first is the dense layer, and all but the last double the side."""
    D_widths: Widths = (32, 64, 128, 128)
    """Channels of D's layers; every other one, from the first, halves the side."""
    D_dropout: Share = 0.3
    """Dropout after each of D's layers."""

    pretrain: Share = 0.0
    """The share of the run in which D alone learns, to name the classes of real pictures, before the game begins."""
    objective: Literal["minimax", "nonsaturating", "least-squares", "least-squares-chi2", "hinge"] = "nonsaturating"
    """The game about the source: which losses D and G minimise."""
    D_class_weight: float = Field(1.0, ge=0)
    """Weight of the class loss in D's, on real and on fake pictures each."""
    G_class_weight: float = Field(1.0, ge=0)
    """Weight of the class loss in G's."""
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

    @model_validator(mode="after")
    def _agrees(self) -> Config:
        if self.pretrain and not self.conditional:
            raise ValueError("pretrain needs classes to learn: set conditional=true, or pretrain=0")
        return self


class Discriminator(nn.Module):
    """images (N, C, H, W) -> source logits (N,) and class logits (N, classes)."""

    def __init__(self, cfg: Config, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        layers = len(cfg.D_widths)
        strides = tuple(2 if i % 2 == 0 else 1 for i in range(layers))
        self.features = ConvFeatures(
            shape, cfg.D_widths, strides, (3,) * layers, slope=cfg.slope, dropout=cfg.D_dropout
        )
        self.source = nn.Linear(self.features.size, 1).apply(init_glorot)
        self.classes = nn.Linear(self.features.size, classes).apply(init_glorot) if classes else None

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.features(images)
        classes = x.new_zeros((len(x), 0)) if self.classes is None else self.classes(x)
        return self.source(x).squeeze(1), classes


class Model(Family):
    card = Card(
        "D names the class besides judging, so labels are learnt without D being told any.",
        "labelled data where D's class head is wanted too; members of a class tend to be alike",
    )
    config: Config

    def __init__(self, config: Config, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        if config.conditional and not spec.classes:
            raise UserError("this preset needs labels and the data has none; add them, or --set conditional=false")
        shape, classes = (spec.channels, spec.height, spec.width), spec.classes if config.conditional else 0
        layers = len(config.G_widths)
        strides = tuple(2 if i < layers - 1 else 1 for i in range(layers))
        self.G = ConvGenerator(
            config.z_dim, shape, config.G_widths, strides, (5,) * layers, classes=classes, slope=config.slope
        )
        self.D = Discriminator(config, shape, classes)
        self.G_ema = copy.deepcopy(self.G).requires_grad_(False)
        self.parts.nets = {"G": self.G, "D": self.D, "G_ema": self.G_ema}
        betas = (config.beta1, config.beta2)
        self.G_adam = torch.optim.Adam(self.G.parameters(), config.G_lr, betas, fused=True)
        self.D_adam = torch.optim.Adam(self.D.parameters(), config.D_lr, betas, fused=True)
        self.parts.optimizers = {"G": self.G_adam, "D": self.D_adam}
        self.objective = OBJECTIVES[config.objective]

    @property
    def conditional(self) -> bool:
        return self.config.conditional

    @property
    def sampler(self) -> str:
        return "G_ema"

    def typical(self, total: int) -> dict[int, float]:
        first = self.config.pretrain
        return {0: first, total: 1 - first} if first else {0: 1.0}

    def form(self, clock: Clock) -> bool:
        return clock.progress < self.config.pretrain

    def step(self, batches: Sequence[Batch], clock: Clock) -> dict[str, Tensor]:
        cfg, (real, labels) = self.config, batches[0]
        n = len(real)
        rate = learning_rate(clock.progress, cfg.lr_schedule)
        set_learning_rate(self.G_adam, cfg.G_lr * rate)
        set_learning_rate(self.D_adam, cfg.D_lr * rate)
        self.G.train()
        self.D.train()
        if self.form(clock.host):
            return self.learn_classes(real, labels)

        # (1) Discriminator: source and class, of real and of fake pictures. It minimises -(L_S + L_C)
        with torch.no_grad():
            fake = self.G(torch.randn(n, cfg.z_dim, device=real.device), labels)  # (n, C, H, W), of the same classes
        logits, class_logits = self.D(torch.cat([real, fake.to(real.dtype)]))
        (real_logits, fake_logits), (real_classes, fake_classes) = logits.chunk(2), class_logits.chunk(2)
        ones, zeros = torch.ones_like(real_logits), torch.zeros_like(fake_logits)
        # L_S = E log P(real | x_real) + E log P(fake | x_fake) (eq. 2)
        source_loss = self.objective.D_real(real_logits, ones) + self.objective.D_fake(fake_logits, zeros)
        # L_C = E log P(c | x_real) + E log P(c | x_fake) (eq. 3)
        D_class_loss = class_loss(real_classes, labels) + class_loss(fake_classes, labels)
        D_loss = source_loss + cfg.D_class_weight * D_class_loss
        minimize(D_loss, self.D_adam)

        # (2) Generator: pictures that pass for real and show their class. It minimises -(L_C - L_S)
        with frozen(self.D):
            logits, class_logits = self.D(self.G(torch.randn(n, cfg.z_dim, device=real.device), labels))
            G_class_loss = class_loss(class_logits, labels)
            G_loss = self.objective.G(logits) + cfg.G_class_weight * G_class_loss
            minimize(G_loss, self.G_adam)

        # (3) Average
        update_ema(self.G_ema, self.G, ema_decay(n, math.inf, clock.seen + n, ramp=cfg.ema_share))
        return {
            "D_loss": D_loss.detach(),
            "G_loss": G_loss.detach(),
            **self.objective.right(real_logits, fake_logits),
            "D_class": D_class_loss.detach(),
            "G_class": G_class_loss.detach(),
        }

    def learn_classes(self, real: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        """D's trunk and class head as a classifier of real pictures; G rests."""
        _, class_logits = self.D(real)
        loss = class_loss(class_logits, labels)
        minimize(loss, self.D_adam)
        return {"D_class": loss.detach(), "D_right": share_right(class_logits, labels)}

    def logits(self, images: Tensor, labels: Tensor | None) -> Tensor:
        with judging(self.D):
            return self.D(images)[0].float()

    def draw(self, n: int, labels: Tensor | None, generator: torch.Generator, truncation: float = 1.0) -> Tensor:
        z = truncated_normal((n, self.config.z_dim), truncation, generator).to(self.device)
        return self.G_ema.eval()(z, labels)


def share_right(class_logits: Tensor, labels: Tensor | None) -> Tensor:
    """The share of pictures whose most probable class (N, K) is their label (N,)."""
    assert labels is not None
    return torch.eq(class_logits.detach().argmax(1), labels).float().mean()


PRESETS = {
    "tiny": Preset(
        Config(batch=16, z_dim=16, G_widths=(16, 8, 8), D_widths=(8, 16), D_dropout=0.0),
        "garments", 16 * 64, "Seconds on one core: to see the machinery turn, not to make pictures.",
    ),
    "fashion-acgan": Preset(
        Config(batch=100), "fashion-mnist", 15 * 60_000, "Garments by class, from a D that also names the class.",
    ),
    "digits-acgan": Preset(
        Config(batch=100), "mnist", 15 * 60_000, "Digits by class, from a D that also names the digit.",
    ),
}  # fmt: skip
