"""GANs for data of a few hundred pictures: ADA (Karras+ 2020) and DiffAugment (Zhao+ 2020).

With few pictures D soon knows the real ones by heart and has nothing left to teach. Here all that D sees, real and
fake, in its own step and in G's, is disturbed first: by DiffAugment's colours, shifts and holes, always, or by ADA's
stronger transformations with a probability p that follows how sure D is of real pictures. p rises while
r_t = E sign(D(real)) is above its target and falls below, so that the same settings serve 100 pictures and 100,000.

Deviations: the papers put this on StyleGAN2 and BigGAN, here it is on a convolutional GAN that a CPU can train, with
upsampling in G and the label concatenated on both sides; R1 is lazy (scaled by its interval) and goes through the
augmentation, as in the authors' program; the learning rate of p is told in pictures, `ada_images`.

With `ada_told` D is also told what was done to each picture. While p is small D knows plain pictures better than
disturbed ones, and a G that is not good enough gains by drawing what looks disturbed: a tenth of its pictures did
(docs/evidence.md). Where D knows that nothing was done it does not pay; diffusion models are told for the same reason
(Karras+ 2022, section 5).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from elegan.adversarial.augment import AUGMENTATIONS, ada_told, beginning, follow, told_by
from elegan.adversarial.objectives import OBJECTIVES
from elegan.adversarial.penalties import r1
from elegan.adversarial.stabilizers import (
    ema_decay,
    frozen,
    learning_rate,
    set_learning_rate,
    truncated_normal,
    update_ema,
)
from elegan.families.base import Batch, Card, Clock, Family, FamilyConfig, ImageSpec, Preset, judging, minimize
from elegan.networks.conv import ConvDiscriminator, doubling_generator

Share = Annotated[float, Field(ge=0, lt=1)]


class Config(FamilyConfig):
    augment: Literal["none", "diffaugment", "ada"] = "ada"
    """What is done to all that D sees: nothing, DiffAugment, or ADA's transformations."""
    ada_target: float = Field(0.6, gt=-1, lt=1)
    """Where E sign(D(real)) is held by changing p: 0 is a D that cannot tell, 1 one that knows the data by heart."""
    ada_images: int = Field(100_000, gt=0)
    """Real pictures that p takes at least from 0 to 1; the paper's 500,000 are for runs of millions."""
    ada_interval: int = Field(4, gt=0)
    """Steps between changes of p."""
    ada_told: bool = False
    """Tell D what ADA did to each picture, so that drawing pictures that look disturbed does not pay."""

    z_dim: int = Field(100, gt=0)
    """Numbers in the noise vector z ~ N(0, 1)."""
    slope: float = Field(0.2, ge=0)
    """Negative slope of every leaky ReLU."""
    G_width: int = Field(64, gt=0)
    """Channels of G at the picture's size; doubled at each halving of the side."""
    G_widest: int = Field(256, gt=0)
    """G's largest number of channels."""
    D_width: int = Field(32, gt=0)
    """Channels of D at half the picture's size; doubled at each halving of the side."""
    D_widest: int = Field(256, gt=0)
    """D's largest number of channels."""

    objective: Literal["nonsaturating", "hinge"] = "nonsaturating"
    """The game: which losses D and G minimise."""
    r1: float = Field(0.1, ge=0)
    """Weight gamma of R1, the penalty on D's slope at real pictures (0: none)."""
    r1_every: int = Field(4, gt=0)
    """Steps between R1 penalties, each scaled by this."""
    G_lr: float = Field(2e-4, gt=0)
    """Adam's learning rate for G."""
    D_lr: float = Field(2e-4, gt=0)
    """Adam's learning rate for D."""
    beta1: Share = 0.5
    """Adam's first decay rate."""
    beta2: Share = 0.99
    """Adam's second decay rate."""
    lr_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rates fall to zero over the planned images."""
    ema_share: float = Field(0.04, gt=0)
    """Half-life of the weight average, as a share of the images seen so far."""


class Model(Family):
    card = Card(
        "All that D sees is disturbed at random, by as much as D's memory of the data calls for.",
        "a folder of a hundred to a few thousand pictures, which D would learn by heart",
    )
    config: Config

    def __init__(self, config: Config, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        shape = (spec.channels, spec.height, spec.width)
        self.G = doubling_generator(
            config.z_dim, shape, config.G_width, config.G_widest, classes=spec.classes, slope=config.slope
        )
        self.D = build_discriminator(config, spec)
        self.G_ema = copy.deepcopy(self.G).requires_grad_(False)
        self.parts.nets = {"G": self.G, "D": self.D, "G_ema": self.G_ema}
        betas = (config.beta1, config.beta2)
        self.G_adam = torch.optim.Adam(self.G.parameters(), config.G_lr, betas, fused=True)
        self.D_adam = torch.optim.Adam(self.D.parameters(), config.D_lr, betas, fused=True)
        self.parts.optimizers = {"G": self.G_adam, "D": self.D_adam}
        self.parts.values = beginning(config.augment)
        self.objective, self.augment = OBJECTIVES[config.objective], AUGMENTATIONS[config.augment]

    @property
    def conditional(self) -> bool:
        return self.spec.classes > 0

    @property
    def sampler(self) -> str:
        return "G_ema"

    def ladder(self) -> list[list[nn.Module]]:
        return [[self.D.layers, nn.ModuleList(self.D.told.values())]]

    def typical(self, total: int) -> dict[int, float]:
        with_r1 = 1 / self.config.r1_every if self.config.r1 else 1.0
        return {0: with_r1, self.config.batch: 1 - with_r1} if with_r1 < 1 else {0: 1.0}

    def form(self, clock: Clock) -> bool:
        return bool(self.config.r1) and clock.seen // self.config.batch % self.config.r1_every == 0

    def step(self, batches: Sequence[Batch], clock: Clock) -> dict[str, Tensor]:
        cfg, (real, labels) = self.config, batches[0]
        n = len(real)
        rate = learning_rate(clock.progress, cfg.lr_schedule)
        set_learning_rate(self.G_adam, cfg.G_lr * rate)
        set_learning_rate(self.D_adam, cfg.D_lr * rate)
        self.G.train()
        self.D.train()

        # (1) Discriminator, on disturbed real and fake pictures
        with torch.no_grad():
            fake = self.G(torch.randn(n, cfg.z_dim, device=real.device), labels)  # (n, C, H, W)
        both = None if labels is None else torch.cat([labels, labels])
        real_logits, fake_logits = self.judge(torch.cat([real, fake.to(real.dtype)]), both).chunk(2)
        ones, zeros = torch.ones_like(real_logits), torch.zeros_like(fake_logits)
        D_loss = self.objective.D_real(real_logits, ones) + self.objective.D_fake(fake_logits, zeros)
        penalty = torch.zeros_like(D_loss)
        if self.form(clock.host):  # lazily
            penalty = r1(lambda x: self.judge(x, labels), real, fake, cfg.r1 * cfg.r1_every)
        minimize(D_loss + penalty, self.D_adam)

        # (2) Generator: its gradient comes through D and through the disturbance
        with frozen(self.D):
            fake = self.G(torch.randn(n, cfg.z_dim, device=real.device), labels)
            G_loss = self.objective.G(self.judge(fake, labels))
            minimize(G_loss, self.G_adam)

        # (3) Probability of the augmentation
        if cfg.augment == "ada":
            self.adapt(real_logits)

        # (4) Average
        update_ema(self.G_ema, self.G, ema_decay(n, math.inf, clock.seen + n, ramp=cfg.ema_share))
        return {
            "D_loss": D_loss.detach(),
            "G_loss": G_loss.detach(),
            **self.objective.right(real_logits, fake_logits),
            "sign": torch.sign(real_logits.detach().float()).mean(),
            "p": self.parts.values["p"].clone(),
        }

    def judge(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """D's logits (N,) of what the augmentation makes of images (N, C, H, W)."""
        if self.D.told:
            images, told = ada_told(images, self.parts.values["p"])
            return self.D(images, labels, told)
        return self.D(self.augment(images, self.parts.values["p"]), labels)

    def adapt(self, real_logits: Tensor) -> None:
        """Every `ada_interval` steps: p += sign(r_t - target) * images / ada_images (Karras+ 2020, section 3)."""
        cfg, values = self.config, self.parts.values
        follow(values, real_logits, cfg.ada_interval, target=cfg.ada_target, images_to_one=cfg.ada_images)

    def logits(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """Of the pictures as they are: what D says of real ones it has not seen tells how much it knows by heart."""
        with judging(self.D):
            return self.D(images, labels).float()

    def draw(self, n: int, labels: Tensor | None, generator: torch.Generator, truncation: float = 1.0) -> Tensor:
        z = truncated_normal((n, self.config.z_dim), truncation, generator).to(self.device)
        return self.G_ema.eval()(z, labels)


def build_discriminator(cfg: Config, spec: ImageSpec) -> ConvDiscriminator:
    """D: images (N, C, H, W) [, labels (N,)] -> logits (N,), halving the sides to about 4 pixels."""
    layers = max(1, round(math.log2(min(spec.height, spec.width) / 3.5)))
    widths = tuple(min(cfg.D_width * 2**i, cfg.D_widest) for i in range(layers))
    shape = (spec.channels, spec.height, spec.width)
    options: dict[str, Any] = {"classes": spec.classes, "slope": cfg.slope, "told": told_by(cfg.augment, cfg.ada_told)}
    return ConvDiscriminator(shape, widths, (2,) * layers, (5,) * layers, **options)


PRESETS = {
    "tiny": Preset(
        Config(batch=16, z_dim=16, G_width=8, G_widest=16, D_width=8, D_widest=16, ada_images=1_000, ada_told=True),
        "garments", 16 * 64, "Seconds on one core: to see the machinery turn.",
    ),
    "small-ada": Preset(
        Config(ada_told=True), "garments", 500_000, "A few hundred pictures of your own, in colour: --data FOLDER.",
        {"size": 64, "channels": 3},
    ),
    "small-diffaugment": Preset(
        Config(augment="diffaugment"), "garments", 500_000, "The same with DiffAugment, milder and always on.",
        {"size": 64, "channels": 3},
    ),
}  # fmt: skip
