"""SNGAN with a projection discriminator: Miyato+ 2018, Miyato & Koyama 2018. The default recipe's family.

Every layer of D is divided by its largest singular value, which keeps D's slope bounded without a penalty. The
label enters G through batch norms whose scale and shift depend on the class, and D through an inner product of
its features with a class embedding, D(x, y) = y^T V phi(x) + psi(phi(x)). Without labels both fall away.

Deviations, for quality per minute on a CPU: one D step per G step (`D_steps`; theirs are 5); D's first layer reads
and G's last one draws 2x2 blocks of pixels on half the picture's side, where layers with one channel run at a twentieth
of the speed; phi(x) is all of the last map, and not its sum over places; learning rates fall to zero over the run;
samples come from averaged weights. Five options are of other papers: z in all of G's batch norms (Chen+ 2019), the
deviation among pictures in D (after Karras+ 2018, but for each feature and among pictures of one class), a further D
for shrunk pictures (Wang+ 2018), kinds of pictures for labels (Sage+ 2018), and relativistic pairs
(Jolicoeur-Martineau 2019).
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from elegan.adversarial.augment import AUGMENTATIONS
from elegan.adversarial.objectives import paired
from elegan.adversarial.stabilizers import (
    ema_decay,
    frozen,
    learning_rate,
    set_learning_rate,
    shortness,
    steady_share,
    truncated_normal,
    update_ema,
)
from elegan.families.base import Batch, Card, Clock, Family, FamilyConfig, ImageSpec, Preset, judging, minimize
from elegan.networks.convolutions import Shuffle, StridedConv2d, conv, unshuffle
from elegan.networks.kinds import Kinds
from elegan.networks.layers import ConditionalBatchNorm, Crop, FromMap, ToMap, base_size, spectral_norm
from elegan.networks.minibatch import FeatureStd
from elegan.networks.resize import ResizeConv2d

Share = Annotated[float, Field(ge=0, lt=1)]


class Config(FamilyConfig):
    z_dim: int = Field(100, gt=0)
    """Numbers in the noise vector z ~ N(0, 1)."""
    embedding: int = Field(32, gt=0)
    """Numbers in the class embedding that is joined to z."""
    upsampling: Literal["deconv", "nearest", "bilinear"] = "bilinear"
    """How G doubles a side: a transposed convolution, or a resize before a 3x3 convolution."""
    self_modulation: bool = False
    """Let z, too, and not the class alone, scale and shift what each of G's layers makes: for pictures in colour."""
    G_pixels: Literal["single", "blocks"] = "single"
    """What G's last layer draws: pixels, or from a map of half the side 2x2 blocks of them, for half of G's work."""
    G_width: int = Field(64, gt=0)
    """Channels of G at the picture's size; doubled at each halving of the side."""
    G_widest: int = Field(256, gt=0)
    """G's largest number of channels."""
    D_width: int = Field(64, gt=0)
    """Channels of D at half the picture's size; doubled at each halving of the side."""
    D_widest: int = Field(256, gt=0)
    """D's largest number of channels."""
    slope: float = Field(0.2, ge=0)
    """Negative slope of D's leaky ReLUs."""
    group: int = Field(0, ge=0)
    """Pictures of a class in a group, whose deviation D sees feature by feature; 0: none."""
    D_small: int = Field(0, ge=0, multiple_of=2)
    """Shorter side, in pixels, to which pictures are shrunk for a second D, which so sees colours and outlines alone;
    0: there is none."""

    kinds: int = Field(0, ge=0)
    """Kinds of pictures, by their colours, that are found in the data before training and that G and D are told: G
    draws each as often as there are pictures of it; 0: none."""

    objective: Literal["hinge", "nonsaturating", "least-squares", "least-squares-chi2", "relativistic"] = "hinge"
    """The game: which losses D and G minimise. relativistic: D compares each real picture with a fake (of its
    class), which keeps more of the variety."""
    D_steps: int = Field(1, gt=0)
    """D's updates, each on a new batch, before G's."""
    augment: Literal["none", "diffaugment"] = "none"
    """Disturb all that D sees, real and fake (DiffAugment: colours, shifts, holes): for a few thousand pictures or
    fewer."""
    G_lr: float = Field(3e-4, gt=0)
    """Adam's learning rate for G."""
    D_lr: float = Field(6e-4, gt=0)
    """Adam's learning rate for D."""
    beta1: Share = 0.0
    """Adam's first decay rate."""
    beta2: Share = 0.9
    """Adam's second decay rate."""
    lr_schedule: Literal["constant", "linear", "cosine"] = "linear"
    """How the learning rates fall to zero over the planned images."""
    lr_hold: Share = 0.4
    """The share of the run before they begin to fall."""
    short_run: int = Field(0, ge=0)
    """Images up to which a run is short: its rates are twice as large and do not fall, since it has to get far rather
    than to come to rest. Up to twice as many a quarter of this is done, up to four times a sixteenth. 0: never."""
    ema_share: float = Field(0.04, gt=0)
    """Half-life of the weight average, as a share of the images seen so far."""


def double(c_in: int, c_out: int, how: Literal["deconv", "nearest", "bilinear"]) -> nn.Module:
    """A layer that doubles both sides of a map."""
    if how == "deconv":
        return nn.ConvTranspose2d(c_in, c_out, 4, 2, 1, bias=False)
    return ResizeConv2d(c_in, c_out, 3, how, bias=False)


class Generator(nn.Module):
    """z (N, z_dim) [, labels (N,)] -> images (N, C, H, W), doubling a map of 6 to 11 pixels until it is there.

    With kinds z's first number says which of them, and leaps from one to the next; the others move smoothly.
    """

    def __init__(self, cfg: Config, spec: ImageSpec) -> None:
        super().__init__()
        stages = max(0, round(math.log2(min(spec.height, spec.width) / 6.5)))
        blocks = cfg.G_pixels == "blocks" and stages > 0
        strides = (2,) * stages
        h, w = base_size(spec.height, strides), base_size(spec.width, strides)
        widths = [min(cfg.G_width * 2**i, cfg.G_widest) for i in reversed(range(int(blocks), stages + 1))]
        self.embed = nn.Embedding(spec.classes, cfg.embedding) if spec.classes else None
        self.kinds = Kinds(cfg.kinds, spec.channels, spec.classes) if cfg.kinds else None
        self.embed_kind = nn.Embedding(cfg.kinds, cfg.embedding) if cfg.kinds else None
        told = cfg.z_dim + (cfg.embedding if cfg.kinds else 0)
        inputs = told + (cfg.embedding if spec.classes else 0)
        self.start = nn.Sequential(nn.Linear(inputs, h * w * widths[0], bias=False), ToMap(widths[0], h, w))
        noise = told if cfg.self_modulation else 0
        self.norms = nn.ModuleList(ConditionalBatchNorm(width, spec.classes, noise) for width in widths)
        self.ups = nn.ModuleList(double(a, b, cfg.upsampling) for a, b in itertools.pairwise(widths))
        draw = [conv(widths[-1], 4 * spec.channels, 3), Shuffle()] if blocks else [conv(widths[-1], spec.channels, 3)]
        self.out = nn.Sequential(*draw, Crop(spec.height, spec.width))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.kinds is not None and self.embed_kind is not None:
            z = torch.cat([z, self.embed_kind(self.kinds.told(z, labels)).to(z.dtype)], 1)
        start = z
        if self.embed is not None:
            assert labels is not None
            start = torch.cat([z, self.embed(labels).to(z.dtype)], 1)
        x = F.relu(self.norms[0](self.start(start), labels, z))
        for up, norm in zip(self.ups, list(self.norms)[1:], strict=True):
            x = F.relu(norm(up(x), labels, z))
        return torch.tanh(self.out(x).float())


class Judge(nn.Module):
    """x (N, ...) [, labels (N,)] [, kinds (N,)] -> logits (N,), float32, of `layers(x)`: maps (N, width, *size)."""

    def __init__(self, layers: list[nn.Module], width: int, size: tuple[int, int], cfg: Config, classes: int) -> None:
        super().__init__()
        self.features, self.flat = nn.Sequential(*layers), FromMap()
        self.deviation = FeatureStd(cfg.group) if cfg.group else None
        features = width * size[0] * size[1] + (width if cfg.group else 0)
        self.linear = spectral_norm(nn.Linear(features, 1))
        self.embed = spectral_norm(nn.Embedding(classes, features)) if classes else None
        self.embed_kind = spectral_norm(nn.Embedding(cfg.kinds, features)) if cfg.kinds else None

    def forward(self, x: Tensor, labels: Tensor | None = None, kinds: Tensor | None = None) -> Tensor:
        maps = self.features(x)
        phi = self.flat(maps)  # phi(x): (N, features)
        if self.deviation is not None:
            phi = torch.cat([phi, self.deviation(maps, labels)], 1)
        logits = self.linear(phi).squeeze(1).float()
        if self.embed is not None:
            assert labels is not None
            logits = logits + (phi.float() * self.embed(labels)).sum(1)  # Miyato & Koyama 2018, eq. 3
        if self.embed_kind is not None:
            assert kinds is not None
            logits = logits + (phi.float() * self.embed_kind(kinds)).sum(1)
        return logits


class Discriminator(Judge):
    """images (N, C, H, W) [, labels (N,)] [, kinds (N,)] -> logits (N,), float32; (N, 2) with a second D."""

    def __init__(self, cfg: Config, spec: ImageSpec) -> None:
        side_h, side_w = -(-spec.height // 2), -(-spec.width // 2)
        layers = [spectral_norm(nn.Conv2d(4 * spec.channels, cfg.D_width, 3, padding=1)), nn.LeakyReLU(cfg.slope)]
        width = cfg.D_width
        while min(side_h, side_w) > 4:
            wider = min(2 * width, cfg.D_widest)
            layers += [spectral_norm(StridedConv2d(width, wider, 4, 2, 1)), nn.LeakyReLU(cfg.slope)]
            side_h, side_w, width = side_h // 2, side_w // 2, wider
        super().__init__(layers, width, (side_h, side_w), cfg, spec.classes)
        shrink = min(1.0, (cfg.D_small or math.inf) / min(spec.height, spec.width))
        self.small_size = (round(spec.height * shrink), round(spec.width * shrink))
        self.small = small_judge(cfg, spec.channels, self.small_size, spec.classes) if cfg.D_small else None
        # Pictures whose colours differ lie k times closer together once they are shrunk by k: without this factor a
        # slope of at most 1 there would be one of 1/k in the pictures, and D's details would drown out the colours.
        self.small_slope = math.sqrt(spec.height * spec.width / math.prod(self.small_size))

    def forward(self, images: Tensor, labels: Tensor | None = None, kinds: Tensor | None = None) -> Tensor:
        logits = super().forward(unshuffle(images), labels, kinds)
        if self.small is None:
            return logits
        small = F.adaptive_avg_pool2d(images, self.small_size)
        return torch.stack([logits, self.small_slope * self.small(small, labels, kinds)], 1)


def small_judge(cfg: Config, channels: int, size: tuple[int, int], classes: int) -> Judge:
    """The second D: small images (N, channels, *size) [, labels (N,)] -> logits (N,)."""
    layers = [
        spectral_norm(nn.Conv2d(channels, 32, 3, padding=1)), nn.LeakyReLU(cfg.slope),
        spectral_norm(nn.Conv2d(32, 32, 3, padding=1)), nn.LeakyReLU(cfg.slope),
        spectral_norm(StridedConv2d(32, 64, 4, 2, 1)), nn.LeakyReLU(cfg.slope),
    ]  # fmt: skip
    return Judge(layers, 64, (size[0] // 2, size[1] // 2), cfg, classes)


class Model(Family):
    card = Card(
        "A spectral norm bounds D's slope, and the class scales and shifts what G's layers make.",
        "first: the default recipe, tuned for quality per minute on a laptop, with labels or without",
    )
    config: Config

    def __init__(self, config: Config, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        self.G, self.D = Generator(config, spec), Discriminator(config, spec)
        self.G_ema = copy.deepcopy(self.G).requires_grad_(False)
        self.parts.nets = {"G": self.G, "D": self.D, "G_ema": self.G_ema}
        betas = (config.beta1, config.beta2)
        self.G_adam = torch.optim.Adam(self.G.parameters(), config.G_lr, betas, fused=True)
        self.D_adam = torch.optim.Adam(self.D.parameters(), config.D_lr, betas, fused=True)
        self.parts.optimizers = {"G": self.G_adam, "D": self.D_adam}
        self.objective, self.augment = paired(config.objective), AUGMENTATIONS[config.augment]

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

    def regime(self, total: int) -> float:
        return shortness(total, self.config.short_run)

    def prepare(self, images: Tensor, labels: Tensor | None) -> None:
        if self.G.kinds is not None and self.G_ema.kinds is not None:
            self.G.kinds.learn(images, labels)
            self.G_ema.kinds.load_state_dict(self.G.kinds.state_dict())

    def ladder(self) -> list[list[nn.Module]]:
        judges = [self.D, *([] if self.D.small is None else [self.D.small])]
        rungs = [[getattr(D, part) for D in judges] for part in ("features", "linear", "embed", "embed_kind")]
        return [rung for rung in rungs if rung[0] is not None]

    def step(self, batches: Sequence[Batch], clock: Clock) -> dict[str, Tensor]:
        cfg, n = self.config, len(batches[0].images)
        short = self.regime(clock.total)
        rate = (1 + short) * learning_rate(clock.progress, cfg.lr_schedule, cfg.lr_hold, short)
        set_learning_rate(self.G_adam, cfg.G_lr * rate)
        set_learning_rate(self.D_adam, cfg.D_lr * rate)
        self.G.train()
        self.D.train()

        # (1) Discriminator, on real and fake; both are disturbed alike where the recipe says so
        for real, labels in batches:
            kinds = None if self.G.kinds is None else self.G.kinds(real, labels)
            with torch.no_grad():
                fake = self.G(self.noise(n, labels, kinds), labels)  # (n, C, H, W)
                shown = self.augment(torch.cat([real, fake]), 1.0)
            if cfg.group:  # apart: a group of both would tell D nothing
                real_logits, fake_logits = (self.D(half, labels, kinds) for half in shown.chunk(2))
            else:  # in one pass, which is quicker
                twice = [None if told is None else torch.cat([told, told]) for told in (labels, kinds)]
                real_logits, fake_logits = self.D(shown, *twice).chunk(2)
            D_loss = self.objective.D(real_logits, fake_logits)
            minimize(D_loss, self.D_adam)

        # (2) Generator, on new fakes: D has just learnt those above by heart, and G would lose variety on them. Where D
        # compares, it is with the real pictures as D judged them above, which saves a pass.
        with frozen(self.D):
            fake = self.G(self.noise(n, labels, kinds), labels)
            G_loss = self.objective.G(real_logits.detach(), self.D(self.augment(fake, 1.0), labels, kinds))
            minimize(G_loss, self.G_adam)

        # (3) Average
        seen = n * len(batches)
        update_ema(self.G_ema, self.G, ema_decay(seen, math.inf, clock.seen + seen, ramp=cfg.ema_share))
        return {
            "D_loss": D_loss.detach(),
            "G_loss": G_loss.detach(),
            **self.objective.right(real_logits, fake_logits),
        }

    def noise(self, n: int, labels: Tensor | None, kinds: Tensor | None) -> Tensor:
        """z (n, z_dim) of n pictures of these kinds, or of any."""
        z = torch.randn(n, self.config.z_dim, device=self.device)
        return z if kinds is None or self.G.kinds is None else self.G.kinds.telling(z, kinds, labels)

    def logits(self, images: Tensor, labels: Tensor | None) -> Tensor:
        with judging(self.D):
            kinds = None if self.G.kinds is None else self.G.kinds(images, labels)
            logits = self.D(images, labels, kinds)
            return logits if logits.ndim == 1 else logits[:, 0]

    def draw(self, n: int, labels: Tensor | None, generator: torch.Generator, truncation: float = 1.0) -> Tensor:
        z = truncated_normal((n, self.config.z_dim), truncation, generator)
        if self.G.kinds is not None and truncation < 1:  # all kinds, the first and the last ones, too
            z[:, 0] = torch.randn(n, generator=generator)
        return self.G_ema.eval()(z.to(self.device), labels)


# A third of width 64's time for a picture, so that a minute holds three times as many; and rates that this width bears.
NARROW: dict[str, Any] = {
    "G_pixels": "blocks", "G_width": 32, "G_widest": 128, "D_width": 32, "D_widest": 128,
    "G_lr": 1.6e-3, "D_lr": 3.2e-3, "lr_hold": 0.7,
}  # fmt: skip

PRESETS = {
    "tiny": Preset(
        Config(batch=16, z_dim=16, embedding=4, G_pixels="blocks", G_width=8, G_widest=16, D_width=8, D_widest=16),
        "garments", 16 * 64, "Seconds on one core: to see the machinery turn.",
    ),
    "fashion": Preset(
        Config(**NARROW, short_run=60_000), "fashion-mnist", 15 * 60_000,
        "The default: good pictures, class by class, in minutes on a laptop.",
    ),
    "fashion-best": Preset(
        Config(**(NARROW | {"G_width": 48, "G_widest": 192, "D_width": 48, "D_widest": 192})),
        "fashion-mnist", 40 * 60_000, "The default with wider networks, for an hour.",
    ),
    "digits": Preset(
        Config(**NARROW, short_run=60_000), "mnist", 10 * 60_000, "The default recipe on handwritten digits.",
    ),
    "garments": Preset(
        # One colour is hard to keep over a garment drawn from a map of noise, and easy where noise scales all of a map.
        # A D that sees the deviation of every feature learns quickly: it has G's rate here, not twice that. It tells
        # fakes by their details, which teaches G little about colours; a second D sees outlines and colours alone. And
        # a G that is told which kind of colours to draw leaves out those between them.
        Config(**(NARROW | {
            "batch": 32, "G_pixels": "single", "G_width": 16, "self_modulation": True, "group": 4, "D_small": 8,
            "kinds": 32, "objective": "relativistic", "G_lr": 1.2e-3, "D_lr": 1.2e-3, "short_run": 20_000,
        })),
        "garments", 10 * 60_000, "The default recipe on drawn garments, 64x64 in colour.",
        {"size": 64, "channels": 3},
    ),
}  # fmt: skip
