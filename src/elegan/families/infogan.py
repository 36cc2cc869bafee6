"""InfoGAN, which finds the categories and the handles of unlabelled pictures by itself: Chen+ 2016.

Beside noise, G gets a code: one of several categories and a few numbers in (-1, 1). A second head Q on D's trunk must
read the code back from the picture, and G is rewarded where it can, so a part of every picture follows the code alone:
on digits the category becomes the digit, the numbers its slant and width. Labels are never used.

What Q achieves, L_I, is a lower bound of the mutual information between the code and the picture, reported in nats for
the category (at most log 10 for ten) and for the numbers. A sample's `labels` choose the category; since what a
category means is only known by looking, the family does not count as conditional.

Deviations: G has one dense layer; samples come from averaged weights. As in the authors' program the numbers' Q has the
fixed deviation 1, and D's trunk and Q have batch norms, which matter: without them categories are as easy to read but
mix digits. Real and fake pictures are normalised apart.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from elegan.adversarial.objectives import OBJECTIVES, category_information, codes_information
from elegan.adversarial.stabilizers import ema_decay, frozen, learning_rate, set_learning_rate, steady_share, update_ema
from elegan.families.base import Batch, Card, Clock, Family, FamilyConfig, ImageSpec, Preset, judging, minimize
from elegan.networks.conv import ConvFeatures, ConvGenerator
from elegan.networks.layers import init_glorot

Widths = tuple[Annotated[int, Field(gt=0)], ...]
Share = Annotated[float, Field(ge=0, lt=1)]


class Config(FamilyConfig):
    z_dim: int = Field(62, gt=0)
    """Numbers in the noise vector z ~ U(-1, 1)."""
    code_categories: int = Field(10, gt=1)
    """Values of the categorical code, all equally likely."""
    code_numbers: int = Field(2, ge=0)
    """Continuous codes, each ~ U(-1, 1)."""
    slope: float = Field(0.1, ge=0)
    """Negative slope of D's leaky ReLUs (G's are plain)."""
    G_widths: Widths = (128, 64)
    """Channels of G's layers; each of them doubles the picture's side."""
    D_widths: Widths = (64, 128)
    """Channels of D's layers; each of them halves the picture's side."""
    trunk_width: int = Field(1024, gt=0)
    """Units of the dense layer that D and Q share."""
    Q_width: int = Field(128, gt=0)
    """Units of Q's own hidden layer."""
    D_batch_norm: bool = True
    """Batch normalisation in D's trunk, after all but the first layer, and in Q."""

    objective: Literal["minimax", "nonsaturating", "least-squares", "least-squares-chi2", "hinge"] = "nonsaturating"
    """The game: which losses D and G minimise."""
    info_weight: float = Field(1.0, ge=0)
    """lambda, the weight of the information that Q reads from the pictures."""
    G_lr: float = Field(1e-3, gt=0)
    """Adam's learning rate for G."""
    D_lr: float = Field(2e-4, gt=0)
    """Adam's learning rate for D and Q."""
    beta1: Share = 0.5
    """Adam's first decay rate."""
    beta2: Share = 0.999
    """Adam's second decay rate."""
    lr_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rates fall to zero over the planned images."""
    ema_share: float = Field(0.04, gt=0)
    """Half-life of the weight average, as a share of the images seen so far."""


class Discriminator(nn.Module):
    """images (N, C, H, W) -> source logits (N,), Q's category logits (N, K) and means of the numbers (N, J)."""

    def __init__(self, cfg: Config, shape: tuple[int, int, int]) -> None:
        super().__init__()
        layers, self.sizes = len(cfg.D_widths), [cfg.code_categories, cfg.code_numbers]
        norm, strides, kernels = cfg.D_batch_norm, (2,) * layers, (4,) * layers
        convolutions = ConvFeatures(shape, cfg.D_widths, strides, kernels, slope=cfg.slope, batch_norm=norm)

        def dense(size: int, width: int) -> list[nn.Module]:
            normed = [nn.BatchNorm1d(width)] if norm else []
            return [nn.Linear(size, width), *normed, nn.LeakyReLU(cfg.slope)]

        self.trunk = nn.Sequential(convolutions, *dense(convolutions.size, cfg.trunk_width))
        self.source = nn.Linear(cfg.trunk_width, 1)
        self.Q = nn.Sequential(*dense(cfg.trunk_width, cfg.Q_width), nn.Linear(cfg.Q_width, sum(self.sizes)))
        self.apply(init_glorot)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.trunk(images)
        category_logits, means = self.Q(x).split(self.sizes, 1)
        return self.source(x).squeeze(1), category_logits, means


class Model(Family):
    card = Card(
        "G must keep a code readable in its pictures, so the code comes to mean something.",
        "unlabelled data whose categories and handles are to be found",
    )
    config: Config

    def __init__(self, config: Config, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        shape, layers = (spec.channels, spec.height, spec.width), len(config.G_widths)
        latent = config.z_dim + config.code_categories + config.code_numbers
        self.G = ConvGenerator(latent, shape, config.G_widths, (2,) * layers, (4,) * layers, slope=0.0)
        self.D = Discriminator(config, shape)
        self.G_ema = copy.deepcopy(self.G).requires_grad_(False)
        self.parts.nets = {"G": self.G, "D": self.D, "G_ema": self.G_ema}
        betas = (config.beta1, config.beta2)
        self.G_adam = torch.optim.Adam(self.G.parameters(), config.G_lr, betas, fused=True)
        self.D_adam = torch.optim.Adam(self.D.parameters(), config.D_lr, betas, fused=True)
        self.parts.optimizers = {"G": self.G_adam, "D": self.D_adam}
        self.objective = OBJECTIVES[config.objective]

    @property
    def categories(self) -> int:
        return self.config.code_categories

    @property
    def sampler(self) -> str:
        return "G_ema"

    @property
    def steady(self) -> float:
        return steady_share(self.config.lr_schedule)

    def step(self, batches: Sequence[Batch], clock: Clock) -> dict[str, Tensor]:
        cfg, real = self.config, batches[0].images
        n = len(real)
        rate = learning_rate(clock.progress, cfg.lr_schedule)
        set_learning_rate(self.G_adam, cfg.G_lr * rate)
        set_learning_rate(self.D_adam, cfg.D_lr * rate)
        self.G.train()
        self.D.train()

        # (1) Discriminator and Q: tell real from fake, and read the code from the fakes
        category, numbers = self.codes(n)
        with torch.no_grad():
            fake = self.G(self.latent(self.noise(n), category, numbers))  # (n, C, H, W)
        real_logits = self.D(real)[0]
        fake_logits, category_logits, means = self.D(fake.to(real.dtype))
        ones, zeros = torch.ones_like(real_logits), torch.zeros_like(fake_logits)
        D_loss = self.objective.D_real(real_logits, ones) + self.objective.D_fake(fake_logits, zeros)
        # L_I(G, Q) = E log Q(c | G(z, c)) + H(c), never on real pictures, whose code nobody knows (eq. 5)
        information = category_information(category_logits, category) + codes_information(means, numbers)
        minimize(D_loss - cfg.info_weight * information, self.D_adam)

        # (2) Generator: min V - lambda L_I (eq. 6)
        category, numbers = self.codes(n)
        with frozen(self.D):
            logits, category_logits, means = self.D(self.G(self.latent(self.noise(n), category, numbers)))
            of_category, of_numbers = category_information(category_logits, category), codes_information(means, numbers)
            G_loss = self.objective.G(logits)
            minimize(G_loss - cfg.info_weight * (of_category + of_numbers), self.G_adam)

        # (3) Average
        update_ema(self.G_ema, self.G, ema_decay(n, math.inf, clock.seen + n, ramp=cfg.ema_share))
        return {
            "D_loss": D_loss.detach(),
            "G_loss": G_loss.detach(),
            **self.objective.right(real_logits, fake_logits),
            "I_category": of_category.detach(),
            "I_numbers": of_numbers.detach(),
        }

    def noise(self, n: int) -> Tensor:
        """z (n, z_dim) ~ U(-1, 1)."""
        return torch.rand(n, self.config.z_dim, device=self.device) * 2 - 1

    def codes(self, n: int) -> tuple[Tensor, Tensor]:
        """A category (n,) and numbers (n, J) for each picture, independent of everything else."""
        cfg = self.config
        category = torch.randint(cfg.code_categories, (n,), device=self.device)
        return category, torch.rand(n, cfg.code_numbers, device=self.device) * 2 - 1

    def latent(self, z: Tensor, category: Tensor, numbers: Tensor) -> Tensor:
        """G's input (N, z_dim + K + J): noise (N, z_dim), the category (N,) as one-hot, the numbers (N, J)."""
        one_hot = nn.functional.one_hot(category, self.config.code_categories).to(z.dtype)
        return torch.cat([z, one_hot, numbers], 1)

    def logits(self, images: Tensor, labels: Tensor | None) -> Tensor:
        with judging(self.D):
            return self.D(images)[0].float()

    def draw(self, n: int, labels: Tensor | None, generator: torch.Generator, truncation: float = 1.0) -> Tensor:
        """`labels` (n,) choose the category; without them it is drawn too. U(-truncation, truncation) else."""
        cfg, spread = self.config, min(truncation, 1.0)
        z, numbers = (
            ((torch.rand(n, size, generator=generator) * 2 - 1) * spread).to(self.device)
            for size in (cfg.z_dim, cfg.code_numbers)
        )
        category = torch.randint(cfg.code_categories, (n,), generator=generator).to(self.device)
        return self.G_ema.eval()(self.latent(z, category if labels is None else labels, numbers))


PRESETS = {
    "tiny": Preset(
        Config(
            batch=16, z_dim=16, code_categories=4, G_widths=(16, 8), D_widths=(8, 16), trunk_width=32, Q_width=16,
        ),
        "garments", 16 * 64, "Seconds on one core: to see the machinery turn, not to make pictures.",
    ),
    "digits-infogan": Preset(
        Config(batch=128), "mnist", 20 * 60_000, "Finds the ten digits, slant and width without any label.",
    ),
    "fashion-infogan": Preset(
        Config(batch=128), "fashion-mnist", 20 * 60_000, "Finds kinds of garments by itself, without any label.",
    ),
}  # fmt: skip
