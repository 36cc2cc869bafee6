"""Progressive growing: Karras+ 2018, "Progressive growing of GANs for improved quality, stability, and variation".

G and D begin with small pictures and are given one doubling of the side after another: the whole is learnt before its
details, and most steps are cheap. A new layer fades in: what G draws and what D sees goes from the old path to the new
one while alpha rises from 0 to 1. Around it the paper's other means: weights of one size that are scaled when used
(equalised learning rate), features of length one at each place, the deviation within the batch, and WGAN-GP's loss.

Deviations, for a CPU: narrow networks, the smallest map has 4 to 7 pixels, one batch size throughout, Adam goes on when
a layer is added, and the growth is told as a share of the run unless `phase_images` says how long a phase is. As in the
paper the critic has a layer that compares pictures of a batch, which the penalty on its slope does not foresee. The
paper has no truncation: here it draws the first map towards its mean, as StyleGAN does with styles.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from elegan.adversarial.objectives import OBJECTIVES
from elegan.adversarial.penalties import gradient_penalty
from elegan.adversarial.stabilizers import at_least, at_most, ema_decay, frozen, update_ema
from elegan.families.base import Batch, Card, Clock, Family, FamilyConfig, ImageSpec, Preset, judging, minimize
from elegan.networks.equalized import GAIN, EqualConv2d, EqualLinear, leaky, pixel_norm
from elegan.networks.layers import Crop, FromMap, ToMap, base_size
from elegan.networks.minibatch import MinibatchStd
from elegan.networks.resample import halvings, pad_to, widths_at

Share = Annotated[float, Field(ge=0, lt=1)]


class Config(FamilyConfig):
    batch: int = Field(32, gt=0)
    """Real images in a batch."""
    z_dim: int = Field(128, gt=0)
    """Numbers in the noise vector z ~ N(0, 1), brought to unit length."""
    G_width: int = Field(32, gt=0)
    """Channels of G at the picture's size; doubled at each halving of the side."""
    G_widest: int = Field(128, gt=0)
    """G's largest number of channels."""
    D_width: int = Field(32, gt=0)
    """Channels of D at the picture's size; doubled at each halving of the side."""
    D_widest: int = Field(128, gt=0)
    """D's largest number of channels."""
    group: int = Field(4, gt=0)
    """Pictures in a group whose deviation D sees."""

    grow_share: float = Field(0.6, gt=0, lt=1)
    """The share of the run after which the last layer has faded in; steady and fading phases before are as long."""
    phase_images: int = Field(0, ge=0)
    """Real images in each phase, steady or fading, instead (the paper: 600,000); 0: by grow_share."""
    penalty_weight: float = Field(10.0, gt=0)
    """Weight of the gradient penalty, lambda."""
    drift: float = Field(1e-3, ge=0)
    """Weight of E D(x)^2, which keeps D's values near zero."""
    D_steps: int = Field(1, gt=0)
    """D's updates, each on a new batch, before G's."""
    lr: float = Field(1e-3, gt=0)
    """Adam's learning rate for G and D."""
    beta1: Share = 0.0
    """Adam's first decay rate."""
    beta2: Share = 0.99
    """Adam's second decay rate."""
    ema_share: float = Field(0.04, gt=0)
    """Half-life of the weight average, as a share of the images seen so far."""


class Generator(nn.Module):
    """z (N, z_dim) -> images (N, C, h, w) at a level: 2 is the second doubling, 1.3 that one at alpha = 0.3.

    A truncation below 1 draws the first map towards its mean: z itself has unit length, and cannot be drawn in.
    """

    def __init__(self, cfg: Config, spec: ImageSpec) -> None:
        super().__init__()
        widths = widths_at(spec.height, spec.width, cfg.G_width, cfg.G_widest)[::-1]  # from the smallest map
        h, w = smallest(spec)
        dense = EqualLinear(cfg.z_dim, widths[0] * h * w, gain=GAIN / 4)
        self.start = nn.Sequential(dense, ToMap(widths[0], h, w))
        self.first = EqualConv2d(widths[0], widths[0], 3, GAIN)
        self.blocks = nn.ModuleList(
            nn.ModuleList((EqualConv2d(a, b, 3, GAIN), EqualConv2d(b, b, 3, GAIN)))
            for a, b in itertools.pairwise(widths)
        )
        self.pictures = nn.ModuleList(EqualConv2d(width, spec.channels, 1) for width in widths)

    def forward(self, z: Tensor, level: float | Stage, truncation: float = 1.0) -> Tensor:
        x = self.first_map(z)
        if truncation < 1:
            x = torch.lerp(self.mean_map(z).to(x.dtype), x, truncation)
        x = pixel_norm(leaky(self.first(x)))
        whole, alpha = stage(level)
        for i in range(whole):
            old, x = x, twice(x)
            for conv in self.blocks[i]:  # type: ignore[attr-defined]
                x = pixel_norm(leaky(conv(x)))
        new = self.pictures[whole](x).float()
        return fade(twice(self.pictures[whole - 1](old).float()), new, alpha) if fades(alpha) else new

    def first_map(self, z: Tensor) -> Tensor:
        """z (N, z_dim) -> the map (N, C, h, w) that all begins with."""
        return pixel_norm(leaky(self.start(pixel_norm(z))))

    def mean_map(self, like: Tensor) -> Tensor:
        """The mean (1, C, h, w) of the first map over 1,000 z, the same ones each time, placed as `like`."""
        z = torch.randn(1000, like.shape[1], generator=torch.Generator().manual_seed(0))
        return self.first_map(z.to(like.device)).mean(0, keepdim=True)


class Discriminator(nn.Module):
    """images (N, C, h, w) of one kind at a level -> logits (N,), float32; G's mirror image."""

    def __init__(self, cfg: Config, spec: ImageSpec) -> None:
        super().__init__()
        widths = widths_at(spec.height, spec.width, cfg.D_width, cfg.D_widest)[::-1]  # from the smallest map
        h, w = smallest(spec)
        self.pictures = nn.ModuleList(EqualConv2d(spec.channels, width, 1, GAIN) for width in widths)
        self.blocks = nn.ModuleList(
            nn.ModuleList((EqualConv2d(b, b, 3, GAIN), EqualConv2d(b, a, 3, GAIN)))
            for a, b in itertools.pairwise(widths)
        )
        self.deviation = MinibatchStd(cfg.group)
        self.last = EqualConv2d(widths[0] + 1, widths[0], 3, GAIN)
        self.dense = EqualLinear(widths[0] * h * w, widths[0], GAIN)
        self.out = EqualLinear(widths[0], 1)

    def forward(self, images: Tensor, level: float | Stage) -> Tensor:
        whole, alpha = stage(level)
        x = leaky(self.pictures[whole](images))
        for i in reversed(range(whole)):
            for conv in self.blocks[i]:  # type: ignore[attr-defined]
                x = leaky(conv(x))
            x = F.avg_pool2d(x, 2)
            if i == whole - 1 and fades(alpha):
                x = fade(leaky(self.pictures[i](F.avg_pool2d(images, 2))).to(x.dtype), x, alpha)
        x = leaky(self.last(self.deviation(x)))
        return self.out(leaky(self.dense(FromMap()(x)))).squeeze(1).float()


class Model(Family):
    card = Card(
        "Small pictures are learnt first, and networks grow with them, new layers fading in.",
        "larger pictures, from 64 px on: most steps are cheap",
    )
    config: Config

    def __init__(self, config: Config, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        self.G, self.D = Generator(config, spec), Discriminator(config, spec)
        self.G_ema = copy.deepcopy(self.G).requires_grad_(False)
        self.parts.nets = {"G": self.G, "D": self.D, "G_ema": self.G_ema}
        betas = (config.beta1, config.beta2)
        self.G_adam = torch.optim.Adam(self.G.parameters(), config.lr, betas, eps=1e-8, fused=True)
        self.D_adam = torch.optim.Adam(self.D.parameters(), config.lr, betas, eps=1e-8, fused=True)
        self.parts.optimizers = {"G": self.G_adam, "D": self.D_adam}
        self.doublings = len(self.G.blocks)
        self.parts.values = {"level": torch.zeros(())}  # of the latest step: what is drawn with
        self.objective = OBJECTIVES["wasserstein"]
        self.crop = Crop(spec.height, spec.width)

    @property
    def batches_per_step(self) -> int:
        return self.config.D_steps

    @property
    def sampler(self) -> str:
        return "G_ema"

    def ladder(self) -> list[list[nn.Module]]:
        D = self.D
        return [list(D.pictures), *([block] for block in reversed(D.blocks)), [D.last], [D.dense], [D.out]]

    def typical(self, total: int) -> dict[int, float]:
        places = [total * (2 * i + 1) // 200 for i in range(100)]
        sizes = [math.ceil(self.level(Clock(place, total))) for place in places]
        found = {}
        for size in dict.fromkeys(sizes):
            of_size = [place for place, at in zip(places, sizes, strict=True) if at == size]
            found[of_size[len(of_size) // 2]] = len(of_size) / len(places)
        return found

    def level(self, clock: Clock) -> float:
        """How far the networks have grown: the doublings that are there, the last of them at alpha = its fraction.

        Steady at 0, then each doubling fades in for a phase and stays for one.
        """
        cfg = self.config
        phase = cfg.phase_images or cfg.grow_share * clock.total / max(2 * self.doublings, 1)
        past = clock.seen / at_least(phase, 1)  # in phases: steady, fading, steady, fading, ...
        return at_most(past // 2 + at_least(past % 2 - 1, 0), self.doublings)

    def unfinished(self, total: int) -> str:
        level = self.level(Clock(total - self.batches_per_step * self.config.batch, total))
        if level >= self.doublings:
            return ""
        how = "a smaller phase_images" if self.config.phase_images else "a smaller grow_share"
        return (
            f"this run ends at {level:.2g} of {self.doublings} doublings, with blurred pictures: train longer, or {how}"
        )

    def form(self, clock: Clock) -> tuple[int, bool]:
        whole, alpha = stage(self.level(clock))
        return whole, fades(alpha)

    def step(self, batches: Sequence[Batch], clock: Clock) -> dict[str, Tensor]:
        cfg, level = self.config, stage(self.level(clock.host))
        if fades(level.alpha):
            level = Stage(level.whole, 1 - level.whole + self.level(clock))
        self.parts.values["level"] = torch.zeros_like(self.parts.values["level"]) + (level.whole - 1 + level.alpha)
        self.G.train()
        self.D.train()

        # (1) Critic, on real and on fake apart: it compares pictures of one kind with each other
        for images, _ in batches:
            real = self.shrink(images, level)  # (n, C, h, w)
            with torch.no_grad():
                fake = self.G(torch.randn(len(real), cfg.z_dim, device=real.device), level)
            real_logits, fake_logits = self.D(real, level), self.D(fake, level)
            D_loss = fake_logits.mean() - real_logits.mean()
            # lambda E(||grad D(xhat)|| - 1)^2 (Gulrajani+ 2017, eq. 3), and the drift of appendix A.1
            penalty = gradient_penalty(lambda x: self.D(x, level), real, fake, cfg.penalty_weight)
            minimize(D_loss + penalty + cfg.drift * real_logits.square().mean(), self.D_adam)

        # (2) Generator
        with frozen(self.D):
            fake = self.G(torch.randn(len(real), cfg.z_dim, device=real.device), level)
            G_loss = self.objective.G(self.D(fake, level))
            minimize(G_loss, self.G_adam)

        # (3) Average
        seen = len(batches) * len(real)
        update_ema(self.G_ema, self.G, ema_decay(seen, math.inf, clock.seen + seen, ramp=cfg.ema_share))
        return {
            "D_loss": D_loss.detach(),
            "G_loss": G_loss.detach(),
            "penalty": penalty.detach(),
            "level": self.parts.values["level"],
        }

    def shrink(self, images: Tensor, level: float | Stage) -> Tensor:
        """Pictures (N, C, H, W) of the data as they are at a level: halved, and faded like G's."""
        whole, alpha = stage(level)
        h, w = smallest(self.spec)
        x = pad_to(images, h * 2**self.doublings, w * 2**self.doublings)
        x = F.avg_pool2d(x, 2 ** (self.doublings - whole))
        return fade(twice(F.avg_pool2d(x, 2)), x, alpha) if fades(alpha) else x

    def draw(self, n: int, labels: Tensor | None, generator: torch.Generator, truncation: float = 1.0) -> Tensor:
        z = torch.randn(n, self.config.z_dim, generator=generator).to(self.device)
        level = self.parts.values["level"].item()
        images = self.G_ema.eval()(z, level, truncation)
        for _ in range(self.doublings - math.ceil(level)):
            images = twice(images)
        return self.crop(images).clamp(-1, 1)

    def logits(self, images: Tensor, labels: Tensor | None) -> Tensor:
        level = self.parts.values["level"].item()
        with judging(self.D):
            return self.D(self.shrink(images, level), level)


class Stage(NamedTuple):
    """The doublings that are there and the last one's alpha; a 0-d tensor below 1 in a step that is recorded."""

    whole: int
    alpha: float


def stage(level: float | Stage) -> Stage:
    """Of a level: 1.3 -> (2, 0.3), 2.0 -> (2, 1.0), 0.0 -> (0, 1.0)."""
    if isinstance(level, Stage):
        return level
    whole = math.ceil(level)
    return Stage(whole, 1.0 if whole == level else 1 - (whole - level))


def fades(alpha: float) -> bool:
    """Whether the last doubling is not all there yet."""
    return isinstance(alpha, Tensor) or alpha < 1


def fade(old: Tensor, new: Tensor, alpha: float) -> Tensor:
    """alpha of the new way, the rest of the old one (section 3, figure 2)."""
    return torch.lerp(old, new, alpha.to(new.dtype) if isinstance(alpha, Tensor) else alpha)


def twice(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, 2H, 2W): every value becomes a block."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def smallest(spec: ImageSpec) -> tuple[int, int]:
    """Sides of the map that all begins with."""
    strides = (2,) * halvings(spec.height, spec.width)
    return base_size(spec.height, strides), base_size(spec.width, strides)


PRESETS = {
    "tiny": Preset(
        Config(batch=16, z_dim=16, G_width=8, G_widest=16, D_width=8, D_widest=16),
        "garments", 16 * 96, "Seconds on one core: to see the machinery turn, not to make pictures.",
    ),
    "fashion-progan": Preset(
        Config(), "fashion-mnist", 20 * 60_000, "Grows from 7x7 to 28x28: early steps are cheap, training is steady.",
    ),
    "garments-progan": Preset(
        Config(), "garments", 20 * 60_000, "Grows from 4x4 to 64x64 in colour, on drawn garments.",
        {"size": 64, "channels": 3},
    ),
}  # fmt: skip
