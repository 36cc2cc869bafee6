"""R3GAN, the modern baseline: Huang+ 2024, "The GAN is dead; long live the GAN!".

D compares each real picture with a fake, so that no fake can hide behind the others and modes are not dropped; two
penalties that hold D's slope at zero, on real (R1) and on fake pictures (R2), make that game converge. With a loss that
needs no tricks the networks can be plain: residual blocks without any normalisation, which start as the identity.
Labels enter G beside z, and D by a product of its features with the class's embedding; without labels both fall away.

Deviations: narrow and shallow enough for a CPU, the smallest map has 6 to 11 pixels instead of 4; a side is halved by
the mean of 2x2 pixels, which is bilinear interpolation at that size, where the authors blur with [1, 2, 1] first; the
preset has ten times the authors' rates, which are the settings' own. As in the authors' program, and not in the paper's
text, G's loss is non-saturating.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from elegan.adversarial.augment import AUGMENTATIONS
from elegan.adversarial.objectives import paired
from elegan.adversarial.penalties import slope, zero_centred
from elegan.adversarial.stabilizers import (
    cosine_ramp,
    ema_decay,
    frozen,
    set_beta2,
    set_learning_rate,
    truncated_normal,
    update_ema,
)
from elegan.families.base import Batch, Card, Clock, Family, FamilyConfig, ImageSpec, Preset, judging, minimize
from elegan.networks.layers import Crop, base_size

Share = Annotated[float, Field(ge=0, lt=1)]
SLOPE = 0.2  # of every leaky ReLU
GAIN = math.sqrt(2 / (1 + SLOPE**2))  # what keeps the variance through one


class Config(FamilyConfig):
    z_dim: int = Field(64, gt=0)
    """Numbers in the noise vector z ~ N(0, 1)."""
    embedding: int = Field(32, gt=0)
    """Numbers in the class embedding that is joined to z."""
    G_width: int = Field(32, gt=0)
    """Channels of G at the picture's size; doubled at each halving of the side."""
    G_widest: int = Field(128, gt=0)
    """G's largest number of channels."""
    D_width: int = Field(32, gt=0)
    """Channels of D at the picture's size; doubled at each halving of the side."""
    D_widest: int = Field(128, gt=0)
    """D's largest number of channels."""
    blocks: int = Field(1, gt=0)
    """Residual blocks at each size."""
    expansion: int = Field(2, gt=0)
    """How many times wider a block is inside."""
    group: int = Field(16, gt=0)
    """Channels in a group of a block's 3x3 convolution, more where they do not divide."""

    augment: Literal["none", "diffaugment"] = "none"
    """Disturb all that D sees, real and fake (DiffAugment: colours, shifts, holes): for a few thousand pictures or
    fewer."""

    objective: Literal["relativistic", "relativistic-average", "nonsaturating"] = "relativistic"
    """relativistic: D compares pairs of real and fake. The others are to see what pairing does: relativistic-average
    compares each with the other side's mean, nonsaturating is the plain game."""
    penalties: Literal["R1+R2", "R1", "R2"] = "R1+R2"
    """Whose slopes are punished: real pictures' (R1), fakes' (R2), or both; either alone shows why it takes both."""
    gamma: tuple[float, float] = (1.0, 0.1)
    """Weight of the penalties, at the start and after the burn-in."""
    lr: tuple[float, float] = (2e-4, 5e-5)
    """Adam's learning rate for G and D, at the start and after the burn-in."""
    beta1: Share = 0.0
    """Adam's first decay rate."""
    beta2: tuple[Share, Share] = (0.9, 0.99)
    """Adam's second decay rate, at the start and after the burn-in."""
    burn_in: float = Field(0.5, gt=0, le=1)
    """The share of the run in which gamma, lr and beta2 go to their second value."""
    ema_share: float = Field(0.04, gt=0)
    """Half-life of the weight average, as a share of the images seen so far."""

    @model_validator(mode="after")
    def _agrees(self) -> Config:
        if min(*self.gamma, *self.lr) < 0 or not self.lr[0]:
            raise ValueError("gamma and lr are not negative, and lr begins above 0")
        return self


class Block(nn.Module):
    """x + W3 * act(W2 * act(W1 * x)): 1x1, grouped 3x3 and 1x1 convolutions without normalisation.

    `total` is the number of blocks in the network: by Fixup (Zhang+ 2019) W3 starts at zero and the others are
    total^(-1/4) narrower than usual, so that an update moves the output as much in a deep network as in a shallow one.
    """

    def __init__(self, width: int, expansion: int, group: int, total: int) -> None:
        super().__init__()
        hidden = width * expansion
        groups = math.gcd(hidden, max(1, hidden // group))  # groups are larger where `group` does not divide
        gain = GAIN * total ** (-1 / 4)  # Fixup: L^(-1 / (2 m - 2)) for m = 3 layers
        self.widen = scaled(nn.Conv2d(width, hidden, 1), gain)
        self.mix = scaled(nn.Conv2d(hidden, hidden, 3, padding=1, groups=groups), gain)
        self.narrow = scaled(nn.Conv2d(hidden, width, 1, bias=False), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(self.mix(F.leaky_relu(self.widen(x), SLOPE)), SLOPE)
        return x + self.narrow(h)


class Generator(nn.Module):
    """z (N, z_dim) [, labels (N,)] -> images (N, C, H, W), doubling a map of 6 to 11 pixels until it is there.

    There is no tanh: while G learns nothing bounds its pictures but D; in use they are cut to [-1, 1].
    """

    def __init__(self, cfg: Config, spec: ImageSpec) -> None:
        super().__init__()
        widths = stage_widths(spec, cfg.G_width, cfg.G_widest)[::-1]  # from the smallest map
        strides = (2,) * (len(widths) - 1)
        h, w = base_size(spec.height, strides), base_size(spec.width, strides)
        self.embed = scaled(nn.Embedding(spec.classes, cfg.embedding), cfg.embedding**0.5) if spec.classes else None
        inputs = cfg.z_dim + (cfg.embedding if spec.classes else 0)
        self.start = scaled(nn.Linear(inputs, widths[0], bias=False))
        self.basis = nn.Parameter(torch.randn(widths[0], h, w))
        self.stages = nn.ModuleList(stage(cfg, width, len(widths)) for width in widths)
        self.ups = nn.ModuleList(scaled(nn.Conv2d(a, b, 1, bias=False)) for a, b in itertools.pairwise(widths))
        self.out = nn.Sequential(scaled(nn.Conv2d(widths[-1], spec.channels, 1)), Crop(spec.height, spec.width))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.embed is not None:
            assert labels is not None
            z = torch.cat([z, self.embed(labels).to(z.dtype)], 1)
        x = (self.basis * self.start(z)[:, :, None, None]).contiguous(memory_format=torch.channels_last)
        x = self.stages[0](x)
        for up, blocks in zip(self.ups, list(self.stages)[1:], strict=True):
            x = blocks(F.interpolate(up(x), scale_factor=2, mode="bilinear", align_corners=False))
        x = self.out(x).float()
        return x if self.training else x.clamp(-1, 1)


class Discriminator(nn.Module):
    """images (N, C, H, W) [, labels (N,)] -> logits (N,), float32; G's mirror image."""

    def __init__(self, cfg: Config, spec: ImageSpec) -> None:
        super().__init__()
        widths = stage_widths(spec, cfg.D_width, cfg.D_widest)
        h, w = base_size(spec.height, (2,) * (len(widths) - 1)), base_size(spec.width, (2,) * (len(widths) - 1))
        self.start = scaled(nn.Conv2d(spec.channels, widths[0], 1))
        self.stages = nn.ModuleList(stage(cfg, width, len(widths)) for width in widths)
        self.downs = nn.ModuleList(scaled(nn.Conv2d(a, b, 1, bias=False)) for a, b in itertools.pairwise(widths))
        self.basis = scaled(nn.Conv2d(widths[-1], widths[-1], (h, w), groups=widths[-1], bias=False))
        features = cfg.embedding if spec.classes else 1
        self.out = scaled(nn.Linear(widths[-1], features, bias=False))
        self.embed = scaled(nn.Embedding(spec.classes, features), 1.0) if spec.classes else None

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.stages[0](self.start(images))
        for down, blocks in zip(self.downs, list(self.stages)[1:], strict=True):
            x = blocks(down(F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)))
        phi = self.out(self.basis(x).flatten(1)).float()  # (N, features)
        if self.embed is None:
            return phi.squeeze(1)
        assert labels is not None
        return (phi * self.embed(labels)).sum(1)  # (N,)


class Model(Family):
    card = Card(
        "Real and fake are judged in pairs and two penalties make the game converge: networks need no tricks.",
        "a modern baseline for research on losses and networks",
    )
    config: Config

    def __init__(self, config: Config, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        self.G, self.D = Generator(config, spec), Discriminator(config, spec)
        self.G_ema = copy.deepcopy(self.G).requires_grad_(False)
        self.parts.nets = {"G": self.G, "D": self.D, "G_ema": self.G_ema}
        betas = (config.beta1, config.beta2[0])
        self.G_adam = torch.optim.Adam(self.G.parameters(), config.lr[0], betas, fused=True)
        self.D_adam = torch.optim.Adam(self.D.parameters(), config.lr[0], betas, fused=True)
        self.parts.optimizers = {"G": self.G_adam, "D": self.D_adam}
        self.objective, self.augment = paired(config.objective), AUGMENTATIONS[config.augment]

    @property
    def conditional(self) -> bool:
        return self.spec.classes > 0

    @property
    def sampler(self) -> str:
        return "G_ema"

    def ladder(self) -> list[list[nn.Module]]:
        D, stages = self.D, list(self.D.stages)
        pairs = [net for pair in zip(D.downs, stages[1:], strict=True) for net in pair]
        ends = [D.basis, D.out, *([] if D.embed is None else [D.embed])]
        return [[net] for net in (D.start, stages[0], *pairs, *ends)]

    def form(self, clock: Clock) -> tuple[()] | None:
        """None while beta2 moves: Adam takes it as a number, which a recording would keep for good."""
        first, last = self.config.beta2
        return None if clock.progress < self.config.burn_in and first != last else ()

    def step(self, batches: Sequence[Batch], clock: Clock) -> dict[str, Tensor]:
        cfg, (real, labels) = self.config, batches[0]
        n, both = len(real), None if labels is None else torch.cat([labels, labels])
        gamma = cosine_ramp(clock.progress, *cfg.gamma, cfg.burn_in)
        for optimizer in (self.G_adam, self.D_adam):
            set_learning_rate(optimizer, cosine_ramp(clock.progress, *cfg.lr, cfg.burn_in))
            set_beta2(optimizer, cosine_ramp(clock.host.progress, *cfg.beta2, cfg.burn_in))
        self.G.train()
        self.D.train()

        # (1) Discriminator: logits and their slopes on real and fake, in one pass in float32
        with torch.no_grad():
            fake = self.G(torch.randn(n, cfg.z_dim, device=real.device), labels)  # (n, C, H, W)
        logits, slopes = slope(lambda x: self.judge(x, both), torch.cat([real, fake]))
        (real_logits, fake_logits), (real_slopes, fake_slopes) = logits.chunk(2), slopes.chunk(2)
        # E f(D(x) - D(G(z))) + R1 + R2, at every step (eq. 2)
        D_loss = self.objective.D(real_logits, fake_logits)
        slopes_of = {"R1": real_slopes, "R2": fake_slopes}
        penalty = torch.stack([zero_centred(slopes_of[name], gamma) for name in cfg.penalties.split("+")]).sum()
        minimize(D_loss + penalty, self.D_adam)

        # (2) Generator, on new fakes, each paired with a real picture (of its class)
        with frozen(self.D):
            fake = self.G(torch.randn(n, cfg.z_dim, device=real.device), labels)
            G_loss = self.objective.G(*self.judge(torch.cat([real, fake]), both).chunk(2))
            minimize(G_loss, self.G_adam)

        # (3) Average
        update_ema(self.G_ema, self.G, ema_decay(n, math.inf, clock.seen + n, ramp=cfg.ema_share))
        return {
            "D_loss": D_loss.detach(),
            "G_loss": G_loss.detach(),
            **self.objective.right(real_logits, fake_logits),
            "penalty": penalty.detach(),
        }

    def judge(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """D's logits (N,) of what the augmentation makes of images (N, C, H, W)."""
        return self.D(self.augment(images, 1.0), labels)

    def logits(self, images: Tensor, labels: Tensor | None) -> Tensor:
        with judging(self.D):
            return self.D(images, labels).float()

    def draw(self, n: int, labels: Tensor | None, generator: torch.Generator, truncation: float = 1.0) -> Tensor:
        z = truncated_normal((n, self.config.z_dim), truncation, generator).to(self.device)
        return self.G_ema.eval()(z, labels)


def stage_widths(spec: ImageSpec, width: int, widest: int) -> list[int]:
    """Channels at each size, from the picture's to a map of 6 to 11 pixels."""
    halvings = max(0, round(math.log2(min(spec.height, spec.width) / 6.5)))
    return [min(width * 2**i, widest) for i in range(halvings + 1)]


def stage(cfg: Config, width: int, stages: int) -> nn.Sequential:
    """The residual blocks at one size."""
    total = cfg.blocks * stages
    return nn.Sequential(*(Block(width, cfg.expansion, cfg.group, total) for _ in range(cfg.blocks)))


def scaled(layer: nn.Module, gain: float = 1.0) -> nn.Module:
    """Weights ~ N(0, gain^2 / inputs), biases 0; returns the layer."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    nn.init.normal_(weight, std=gain / math.sqrt(weight[0].numel()))
    if isinstance(getattr(layer, "bias", None), Tensor):
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


PRESETS = {
    "tiny": Preset(
        Config(batch=16, z_dim=16, embedding=8, G_width=8, G_widest=16, D_width=8, D_widest=16),
        "garments", 16 * 64, "Seconds on one core: to see the machinery turn, not to make pictures.",
    ),
    "fashion-r3gan": Preset(
        # Ten times the authors' rates: networks this narrow bear them, and a CPU has thousands of steps, not millions.
        Config(G_width=16, G_widest=64, D_width=16, D_widest=64, lr=(2e-3, 5e-4)),
        "fashion-mnist", 10 * 60_000, "A game that converges without tricks; small, and still slow on a CPU.",
    ),
}  # fmt: skip
