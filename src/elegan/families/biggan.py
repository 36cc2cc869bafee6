"""SAGAN and BigGAN: Zhang+ 2019, "Self-attention GANs"; Brock+ 2019, "Large scale GAN training".

Residual networks whose every layer, in G and in D, is divided by its largest singular value; in each an attention layer
relates far places of a picture, so that two sleeves match. BigGAN adds one class embedding shared by all of G's
conditional batch norms, gives each of G's blocks a part of z of its own, and draws samples with z redrawn until it is
near zero (truncation), for which a penalty keeps G's weights orthogonal. D judges by features and class together.

Deviations, for a CPU: narrow networks, the smallest map has 4 to 7 pixels, a batch of 64 where the papers have 256 and
2048; the weight average follows the images seen instead of starting at a fixed step, and averages batch norm's
statistics where the authors collect them anew. Where an asked truncation is below 1, z is restricted to twice it.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from elegan.adversarial.augment import AUGMENTATIONS
from elegan.adversarial.objectives import OBJECTIVES
from elegan.adversarial.penalties import orthogonal
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
from elegan.networks.attention import SelfAttention
from elegan.networks.layers import Crop, ToMap, base_size, spectral_norm
from elegan.networks.resample import widths_at

Share = Annotated[float, Field(ge=0, lt=1)]


class Config(FamilyConfig):
    z_dim: int = Field(80, gt=0)
    """Numbers in the noise vector z ~ N(0, 1)."""
    hierarchical: bool = True
    """Give each of G's blocks a part of z of its own (BigGAN); else all of z enters at the first layer (SAGAN)."""
    embedding: int = Field(64, ge=0)
    """Numbers in the class embedding that all of G's blocks share; 0: each block has its own (SAGAN)."""
    attention: int = Field(32, ge=0)
    """Side of the map with self-attention, in G and D: the size nearest to it above the smallest (0: none)."""
    G_width: int = Field(32, gt=0)
    """Channels of G at the picture's size; doubled at each halving of the side."""
    G_widest: int = Field(256, gt=0)
    """G's largest number of channels."""
    D_width: int = Field(32, gt=0)
    """Channels of D at the picture's size; doubled at each halving of the side."""
    D_widest: int = Field(256, gt=0)
    """D's largest number of channels."""

    augment: Literal["none", "diffaugment"] = "none"
    """Disturb all that D sees, real and fake (DiffAugment: colours, shifts, holes): for a few thousand pictures or
    fewer."""

    objective: Literal["hinge", "nonsaturating"] = "hinge"
    """The game: which losses D and G minimise."""
    D_steps: int = Field(1, gt=0)
    """D's updates, each on a new batch, before G's."""
    orthogonal: float = Field(1e-4, ge=0)
    """Weight of the penalty on products of different rows of each of G's weights."""
    G_lr: float = Field(2e-4, gt=0)
    """Adam's learning rate for G."""
    D_lr: float = Field(2e-4, gt=0)
    """Adam's learning rate for D."""
    beta1: Share = 0.0
    """Adam's first decay rate."""
    beta2: Share = 0.999
    """Adam's second decay rate."""
    lr_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rates fall to zero over the planned images."""
    lr_hold: Share = 0.5
    """The share of the run before they begin to fall."""
    ema_share: float = Field(0.04, gt=0)
    """Half-life of the weight average, as a share of the images seen so far."""


class ConditionNorm(nn.Module):
    """Batch norm whose scale 1 + A c and shift B c follow from a condition c (N, F); plain with F = 0."""

    def __init__(self, channels: int, features: int, normalise: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=not features)
        wrap = spectral_norm if normalise else lambda layer: layer
        self.scale = wrap(started(nn.Linear(features, channels, bias=False))) if features else None
        self.shift = wrap(started(nn.Linear(features, channels, bias=False))) if features else None

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        x = self.norm(x)
        if self.scale is None or self.shift is None:
            return x
        scale, shift = (layer(condition).to(x.dtype)[:, :, None, None] for layer in (self.scale, self.shift))
        return torch.addcmul(x + shift, x, scale)


class UpBlock(nn.Module):
    """(N, c_in, H, W) -> (N, c_out, 2H, 2W): two normalised convolutions beside a 1x1 one."""

    def __init__(self, c_in: int, c_out: int, features: int, normalise: bool) -> None:
        super().__init__()
        self.norms = nn.ModuleList(ConditionNorm(c, features, normalise) for c in (c_in, c_out))
        self.convs = nn.ModuleList((conv(c_in, c_out), conv(c_out, c_out)))
        self.skip = conv(c_in, c_out, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = F.interpolate(F.relu(self.norms[0](x, condition)), scale_factor=2, mode="nearest")
        h = F.relu(self.norms[1](self.convs[0](h), condition))
        return self.convs[1](h) + F.interpolate(self.skip(x), scale_factor=2, mode="nearest")


class DownBlock(nn.Module):
    """(N, c_in, H, W) -> (N, c_out, H / 2, W / 2), or of the same size: two convolutions beside a 1x1 one."""

    def __init__(self, c_in: int, c_out: int, first: bool = False, down: bool = True) -> None:
        super().__init__()
        self.convs = nn.ModuleList((conv(c_in, c_out), conv(c_out, c_out)))
        self.skip = conv(c_in, c_out, 1) if c_in != c_out or down else nn.Identity()
        self.first, self.down = first, down

    def forward(self, x: Tensor) -> Tensor:
        h = self.convs[1](F.relu(self.convs[0](x if self.first else F.relu(x))))
        if self.down:  # a 1x1 convolution and a mean of 2x2 pixels may change places: the smaller map first
            h, x = mean_of_blocks(h), mean_of_blocks(x)
        return h + self.skip(x)


class Generator(nn.Module):
    """z (N, z_dim) [, labels (N,)] -> images (N, C, H, W), doubling a map of 4 to 7 pixels until it is there."""

    def __init__(self, cfg: Config, spec: ImageSpec) -> None:
        super().__init__()
        widths = widths_at(spec.height, spec.width, cfg.G_width, cfg.G_widest)[::-1]  # from the smallest map
        blocks, self.classes = len(widths) - 1, spec.classes
        h, w = base_size(spec.height, (2,) * blocks), base_size(spec.width, (2,) * blocks)
        first = cfg.z_dim - blocks * (cfg.z_dim // (blocks + 1)) if cfg.hierarchical else cfg.z_dim
        self.parts = [first] + [cfg.z_dim // (blocks + 1)] * blocks if cfg.hierarchical else [first] + [0] * blocks
        shared = spec.classes > 0 and cfg.embedding > 0
        self.embed = started(nn.Embedding(spec.classes, cfg.embedding)) if shared else None
        label = cfg.embedding if shared else spec.classes  # without a shared embedding a block sees the one-hot label
        self.start = nn.Sequential(normal(nn.Linear(first, widths[0] * h * w)), ToMap(widths[0], h, w))
        self.blocks = nn.ModuleList(
            UpBlock(a, b, label + part, shared or cfg.hierarchical)
            for (a, b), part in zip(itertools.pairwise(widths), self.parts[1:], strict=True)
        )
        place = attention_at(spec, cfg.attention, blocks)
        self.attention_after = -1 if place is None else blocks - 1 - place
        self.attention = None if place is None else SelfAttention(widths[::-1][place], normal)
        self.norm = nn.BatchNorm2d(widths[-1])
        self.out = nn.Sequential(conv(widths[-1], spec.channels), Crop(spec.height, spec.width))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        first, *parts = z.split(self.parts, 1)
        y = z.new_zeros((len(z), 0))
        if self.classes:
            assert labels is not None
            y = F.one_hot(labels, self.classes).to(z.dtype) if self.embed is None else self.embed(labels)
        x = self.start(first)
        for i, (block, part) in enumerate(zip(self.blocks, parts, strict=True)):
            x = block(x, torch.cat([y, part], 1))
            if self.attention is not None and i == self.attention_after:
                x = self.attention(x)
        return torch.tanh(self.out(F.relu(self.norm(x))).float())


class Discriminator(nn.Module):
    """images (N, C, H, W) [, labels (N,)] -> logits (N,), float32; G's mirror image, summed over places."""

    def __init__(self, cfg: Config, spec: ImageSpec) -> None:
        super().__init__()
        widths = widths_at(spec.height, spec.width, cfg.D_width, cfg.D_widest)
        ends = itertools.pairwise([spec.channels, *widths])
        down = len(widths) - 1
        self.blocks = nn.ModuleList(DownBlock(a, b, i == 0, i < down) for i, (a, b) in enumerate(ends))
        place = attention_at(spec, cfg.attention, down)
        self.attention_before = -1 if place is None else place
        self.attention = None if place is None else SelfAttention(([spec.channels, *widths])[place], normal)
        self.linear = normal(nn.Linear(widths[-1], 1))
        self.embed = normal(nn.Embedding(spec.classes, widths[-1])) if spec.classes else None

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        x = images
        for i, block in enumerate(self.blocks):
            if self.attention is not None and i == self.attention_before:
                x = self.attention(x)
            x = block(x)
        phi = F.relu(x).float().sum((2, 3))  # (N, features)
        logits = self.linear(phi).squeeze(1).float()
        if self.embed is not None:
            assert labels is not None
            logits = logits + (phi * self.embed(labels)).sum(1)  # D(x, y) of Miyato & Koyama 2018, eq. 3
        return logits


class Model(Family):
    card = Card(
        "Attention relates far places of a picture, one class embedding steers all layers, z can be truncated.",
        "larger pictures whose far parts must match, many classes; asks for patience or a GPU",
    )
    config: Config

    def __init__(self, config: Config, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        self.G, self.D = Generator(config, spec), Discriminator(config, spec)
        self.G_ema = copy.deepcopy(self.G).requires_grad_(False)
        self.parts.nets = {"G": self.G, "D": self.D, "G_ema": self.G_ema}
        betas = (config.beta1, config.beta2)
        self.G_adam = torch.optim.Adam(self.G.parameters(), config.G_lr, betas, eps=1e-6, fused=True)
        self.D_adam = torch.optim.Adam(self.D.parameters(), config.D_lr, betas, eps=1e-6, fused=True)
        self.parts.optimizers = {"G": self.G_adam, "D": self.D_adam}
        self.objective, self.augment = OBJECTIVES[config.objective], AUGMENTATIONS[config.augment]

    @property
    def batches_per_step(self) -> int:
        return self.config.D_steps

    @property
    def conditional(self) -> bool:
        return self.spec.classes > 0

    @property
    def sampler(self) -> str:
        return "G_ema"

    @property
    def steady(self) -> float:
        return steady_share(self.config.lr_schedule, self.config.lr_hold)

    def ladder(self) -> list[list[nn.Module]]:
        D, rungs = self.D, [[block] for block in self.D.blocks]
        if D.attention is not None:
            rungs.insert(D.attention_before, [D.attention])
        return [*rungs, [D.linear], *([] if D.embed is None else [[D.embed]])]

    def step(self, batches: Sequence[Batch], clock: Clock) -> dict[str, Tensor]:
        cfg = self.config
        rate = learning_rate(clock.progress, cfg.lr_schedule, cfg.lr_hold)
        set_learning_rate(self.G_adam, cfg.G_lr * rate)
        set_learning_rate(self.D_adam, cfg.D_lr * rate)
        self.G.train()
        self.D.train()

        # (1) Discriminator, each time on new real pictures and new fakes, both in one pass
        for real, labels in batches:
            with torch.no_grad():
                fake = self.generate(len(real), labels)  # (n, C, H, W)
            both = None if labels is None else torch.cat([labels, labels])
            real_logits, fake_logits = self.judge(torch.cat([real, fake]), both).chunk(2)
            ones, zeros = torch.ones_like(real_logits), torch.zeros_like(fake_logits)
            D_loss = self.objective.D_real(real_logits, ones) + self.objective.D_fake(fake_logits, zeros)
            minimize(D_loss, self.D_adam)

        # (2) Generator
        with frozen(self.D):
            G_loss = self.objective.G(self.judge(self.generate(len(real), labels), labels))
            # beta ||W W^T (1 - I)||^2 (Brock+ 2019, eq. 3)
            penalty = orthogonal(orthogonal_weights(self.G), cfg.orthogonal)
            minimize(G_loss + penalty, self.G_adam)

        # (3) Average
        seen = len(batches) * len(real)
        update_ema(self.G_ema, self.G, ema_decay(seen, math.inf, clock.seen + seen, ramp=cfg.ema_share))
        return {
            "D_loss": D_loss.detach(),
            "G_loss": G_loss.detach(),
            **self.objective.right(real_logits, fake_logits),
            "penalty": penalty.detach(),
        }

    def judge(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """D's logits (N,) of what the augmentation makes of images (N, C, H, W)."""
        return self.D(self.augment(images, 1.0), labels)

    def generate(self, n: int, labels: Tensor | None) -> Tensor:
        """`n` fakes (n, C, H, W) from new noise, for the labels of the real batch (so their mix is the data's)."""
        return self.G(torch.randn(n, self.config.z_dim, device=self.device), labels)

    def draw(self, n: int, labels: Tensor | None, generator: torch.Generator, truncation: float = 1.0) -> Tensor:
        z = truncated_normal((n, self.config.z_dim), truncation, generator).to(self.device)
        return self.G_ema.eval()(z, labels)

    def logits(self, images: Tensor, labels: Tensor | None) -> Tensor:
        with judging(self.D):
            return self.D(images, labels)


def attention_at(spec: ImageSpec, side: int, halvings: int) -> int | None:
    """After how many halvings of the picture attention stands: nearest to `side`, never at the smallest map or 0."""
    if not side or halvings < 2:
        return None
    return min(range(1, halvings), key=lambda i: abs(math.log2(min(spec.height, spec.width) / 2**i / side)))


def mean_of_blocks(x: Tensor) -> Tensor:
    """The mean of 2x2 pixels; at an odd border, of those that are there."""
    return F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)


def started(layer: nn.Module) -> nn.Module:
    """Orthogonal weights and zero biases at the start, as BigGAN has them; returns the layer."""
    assert isinstance(layer.weight, Tensor)
    if not layer.weight.is_meta:  # torch 2.11 would work it out for a layer that is only sized up too
        nn.init.orthogonal_(layer.weight)
    if isinstance(getattr(layer, "bias", None), Tensor):
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def normal(layer: nn.Module) -> nn.Module:
    """A layer with orthogonal weights at the start and a spectral norm."""
    return spectral_norm(started(layer))


def conv(c_in: int, c_out: int, kernel: int = 3) -> nn.Module:
    """A convolution with a spectral norm that keeps the size."""
    return normal(nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2))


def orthogonal_weights(G: nn.Module) -> list[Tensor]:
    """The stored weights of G's layers but the class embedding, as BigGAN's authors choose them."""
    return [p for name, p in G.named_parameters() if p.ndim > 1 and not name.startswith("embed.")]


_sagan = Config(hierarchical=False, embedding=0, orthogonal=0.0, z_dim=128, G_lr=1e-4, D_lr=4e-4, beta2=0.9)

PRESETS = {
    "tiny": Preset(
        Config(batch=16, z_dim=16, embedding=8, G_width=8, G_widest=16, D_width=8, D_widest=16, attention=16),
        "garments", 16 * 64, "Seconds on one core: to see the machinery turn, not to make pictures.",
    ),
    "fashion-sagan": Preset(
        _sagan, "fashion-mnist", 20 * 60_000, "Attention and normalised weights in both networks, garments by class.",
    ),
    "fashion-biggan": Preset(
        Config(), "fashion-mnist", 20 * 60_000, "z in every block, one class embedding: choose typical or varied.",
    ),
    "garments-sagan": Preset(
        _sagan, "garments", 20 * 60_000, "Attention on drawn garments, 64x64 in colour.", {"size": 64, "channels": 3},
    ),
    "garments-biggan": Preset(
        Config(), "garments", 20 * 60_000, "BigGAN on drawn garments, 64x64 in colour.", {"size": 64, "channels": 3},
    ),
}  # fmt: skip
