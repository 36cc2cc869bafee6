"""Critics with a bounded slope: WGAN-GP (Gulrajani+ 2017), WGAN (Arjovsky+ 2017), DRAGAN (Kodali+ 2017), R1.

A critic whose slope is at most 1 measures how far the fakes are from the data, and that distance shrinks smoothly as
G improves where a classifier's loss would be flat. WGAN-GP asks the slope to be 1 between real and fake pictures, WGAN
clips the weights, DRAGAN asks for 1 near the data, R1 for 0 on it. The critic learns several times for each time that
G does, since the distance is only as good as the critic that measures it.

Deviations: the networks are DCGAN's, in WGAN-GP without batch norm on either side, as the authors' MNIST program has
them; samples come from averaged weights; DRAGAN and R1 keep the objective of a plain GAN, as their papers do. DRAGAN's
disturbance is told in `adversarial.penalties`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from elegan.adversarial.objectives import OBJECTIVES
from elegan.adversarial.penalties import PENALTIES
from elegan.adversarial.stabilizers import (
    clip_weights,
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
from elegan.networks.conv import ConvDiscriminator, ConvGenerator

Widths = tuple[Annotated[int, Field(gt=0)], ...]
Share = Annotated[float, Field(ge=0, lt=1)]


class Config(FamilyConfig):
    conditional: bool = False
    """Give G and D the label too, concatenated to their inputs."""
    z_dim: int = Field(128, gt=0)
    """Numbers in the noise vector z ~ N(0, 1)."""
    slope: float = Field(0.2, ge=0)
    """Negative slope of every leaky ReLU."""
    G_widths: Widths = (256, 128, 64)
    """Channels of G's layers; each of them doubles the picture's side."""
    G_batch_norm: bool = False
    """Batch normalisation after G's hidden layers; D never has any."""
    D_widths: Widths = (64, 128, 256)
    """Channels of D's layers; each of them halves the picture's side."""
    kernel: int = Field(5, gt=1, le=9)
    """Kernel side of every convolution."""

    objective: Literal["wasserstein", "nonsaturating", "least-squares", "least-squares-chi2", "hinge"] = "wasserstein"
    """The game: which losses D and G minimise."""
    penalty: Literal["gradient", "dragan", "r1", "r2", "none"] = "gradient"
    """What holds D's slope. gradient: 1 between real and fake. dragan: 1 near real. r1, r2: 0 on real, on fake."""
    penalty_weight: float = Field(10.0, ge=0)
    """The weight of the penalty: lambda, or gamma of r1 and r2."""
    weight_clip: float = Field(0.0, ge=0)
    """Clamp D's weights to +- this after each of its updates (0: do not)."""
    D_steps: int = Field(5, gt=0)
    """D's updates, each on a new batch, before G's."""

    optimizer: Literal["adam", "rmsprop"] = "adam"
    """Adam, or RMSProp, which has no momentum (beta1 and beta2 do not enter)."""
    G_lr: float = Field(1e-4, gt=0)
    """The learning rate for G."""
    D_lr: float = Field(1e-4, gt=0)
    """The learning rate for D."""
    beta1: Share = 0.5
    """Adam's first decay rate."""
    beta2: Share = 0.9
    """Adam's second decay rate."""
    lr_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rates fall to zero over the planned images."""
    ema_share: float = Field(0.04, gt=0)
    """Half-life of the weight average, as a share of the images seen so far."""

    @model_validator(mode="after")
    def _tamed(self) -> Config:
        if self.objective == "wasserstein" and self.penalty == "none" and not self.weight_clip:
            raise ValueError("a Wasserstein critic needs a penalty or weight_clip: its loss has no bottom without")
        return self


class Model(Family):
    card = Card(
        "The critic measures a distance, its slope bounded by a penalty or clipping, instead of giving a verdict.",
        "studying critics, and data whose pictures a D would tell apart at once",
    )
    config: Config

    def __init__(self, config: Config, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        if config.conditional and not spec.classes:
            raise UserError("this preset needs labels and the data has none; add them, or --set conditional=false")
        shape, classes = (spec.channels, spec.height, spec.width), spec.classes if config.conditional else 0
        layers, slope = (len(config.G_widths), len(config.D_widths)), config.slope
        G_sizes = (config.G_widths, (2,) * layers[0], (config.kernel,) * layers[0])
        D_sizes = (config.D_widths, (2,) * layers[1], (config.kernel,) * layers[1])
        self.G = ConvGenerator(
            config.z_dim, shape, *G_sizes, classes=classes, slope=slope, batch_norm=config.G_batch_norm
        )
        self.D = ConvDiscriminator(shape, *D_sizes, classes=classes, slope=slope)
        self.G_ema = copy.deepcopy(self.G).requires_grad_(False)
        self.parts.nets = {"G": self.G, "D": self.D, "G_ema": self.G_ema}
        self.G_optimizer = OPTIMIZERS[config.optimizer](self.G, config.G_lr, config)
        self.D_optimizer = OPTIMIZERS[config.optimizer](self.D, config.D_lr, config)
        self.parts.optimizers = {"G": self.G_optimizer, "D": self.D_optimizer}
        self.objective, self.penalty = OBJECTIVES[config.objective], PENALTIES[config.penalty]

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
        return steady_share(self.config.lr_schedule)

    def step(self, batches: Sequence[Batch], clock: Clock) -> dict[str, Tensor]:
        cfg = self.config
        rate = learning_rate(clock.progress, cfg.lr_schedule)
        set_learning_rate(self.G_optimizer, cfg.G_lr * rate)
        set_learning_rate(self.D_optimizer, cfg.D_lr * rate)
        self.G.train()
        self.D.train()

        # (1) Critic, several times, each on new real pictures and new fakes
        for real, labels in batches:
            with torch.no_grad():
                fake = self.generate(len(real), labels)  # (n, C, H, W)
            both = None if labels is None else torch.cat([labels, labels])
            real_logits, fake_logits = self.D(torch.cat([real, fake.to(real.dtype)]), both).chunk(2)
            ones, zeros = torch.ones_like(real_logits), torch.zeros_like(fake_logits)
            D_loss = self.objective.D_real(real_logits, ones) + self.objective.D_fake(fake_logits, zeros)
            # lambda E(||grad D(xhat)|| - 1)^2 (Gulrajani+ 2017, eq. 3), or its like
            penalty = self.penalty(lambda x, y=labels: self.D(x, y), real, fake, cfg.penalty_weight)  # type: ignore[misc]
            minimize(D_loss + penalty, self.D_optimizer)
            if cfg.weight_clip:
                clip_weights(self.D.parameters(), cfg.weight_clip)

        # (2) Generator
        with frozen(self.D):
            G_loss = self.objective.G(self.D(self.generate(len(real), labels), labels))
            minimize(G_loss, self.G_optimizer)

        # (3) Average
        seen = len(batches) * len(real)
        update_ema(self.G_ema, self.G, ema_decay(seen, math.inf, clock.seen + seen, ramp=cfg.ema_share))
        return {
            "D_loss": D_loss.detach(),
            "G_loss": G_loss.detach(),
            "gap": (real_logits.detach().float().mean() - fake_logits.detach().float().mean()),
            "penalty": penalty.detach(),
        } | self.accuracy(real_logits, fake_logits)

    def generate(self, n: int, labels: Tensor | None) -> Tensor:
        """`n` fakes (n, C, H, W) from new noise, for the labels of the real batch (so their mix is the data's)."""
        return self.G(torch.randn(n, self.config.z_dim, device=self.device), labels)

    def accuracy(self, real_logits: Tensor, fake_logits: Tensor) -> dict[str, Tensor]:
        """The share of real and fake that D judged rightly; none for a critic, whose logits have no zero."""
        if self.config.objective == "wasserstein":
            return {}
        return self.objective.right(real_logits, fake_logits)

    def logits(self, images: Tensor, labels: Tensor | None) -> Tensor:
        with judging(self.D):
            return self.D(images, labels).float()

    def draw(self, n: int, labels: Tensor | None, generator: torch.Generator, truncation: float = 1.0) -> Tensor:
        z = truncated_normal((n, self.config.z_dim), truncation, generator).to(self.device)
        return self.G_ema.eval()(z, labels)


def adam(net: torch.nn.Module, lr: float, cfg: Config) -> torch.optim.Optimizer:
    return torch.optim.Adam(net.parameters(), lr, (cfg.beta1, cfg.beta2), fused=True)


def rmsprop(net: torch.nn.Module, lr: float, cfg: Config) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(net.parameters(), lr)


OPTIMIZERS = {"adam": adam, "rmsprop": rmsprop}

_narrow = Config(batch=50, G_widths=(128, 64, 32), D_widths=(32, 64, 128))
_plain = _narrow.model_dump() | {"batch": 64, "objective": "nonsaturating", "D_steps": 1}

PRESETS = {
    "tiny": Preset(
        Config(batch=16, z_dim=16, G_widths=(16, 8), D_widths=(8, 16), kernel=3, D_steps=2),
        "garments", 32 * 64, "Seconds on one core: to see the machinery turn, not to make pictures.",
    ),
    "fashion-wgan-gp": Preset(
        _narrow, "fashion-mnist", 50 * 60_000, "The gradient penalty's settings at half width: slow, and steady.",
    ),
    "fashion-wgan-clip": Preset(
        Config(**_plain | {
            "objective": "wasserstein", "penalty": "none", "weight_clip": 0.01, "D_steps": 5, "optimizer": "rmsprop",
            "G_lr": 5e-5, "D_lr": 5e-5, "G_batch_norm": True,
        }),
        "fashion-mnist", 50 * 60_000, "The first Wasserstein GAN, with clipped weights: to see why penalties came.",
    ),
    "fashion-dragan": Preset(
        Config(**_plain | {"penalty": "dragan", "G_batch_norm": True, "G_lr": 2e-4, "D_lr": 2e-4, "beta2": 0.999}),
        "fashion-mnist", 20 * 60_000, "A plain GAN whose D is kept smooth near the data.",
    ),
    "fashion-r1": Preset(
        Config(**_plain | {"penalty": "r1", "penalty_weight": 1.0, "beta1": 0.0, "beta2": 0.99}),
        "fashion-mnist", 20 * 60_000, "A plain GAN whose D is kept flat on the data.",
    ),
}  # fmt: skip
