"""StyleGAN2: Karras+ 2019, "A style-based generator architecture"; Karras+ 2020, "Analyzing and improving StyleGAN".

A mapping network turns z into a style w, which scales the channels of every convolution of a network that starts from a
constant; so coarse layers decide what is shown and fine ones its surface, and two styles can be mixed. Noise with a
learnt strength adds what is random at each place. Two penalties are computed only now and then: on D's slope (R1), and
on how far a picture moves when w does (path length), which should be the same everywhere. For few pictures, all that D
sees can be disturbed: StyleGAN2-ADA (Karras+ 2020, "Training GANs with limited data"). The first StyleGAN's G is
`styling=adain` and `skips=false`: it forgets each map's mean and deviation in every layer, so that fine styles decide
more of the colours (docs/evidence.md, stylegan2-colours).

Deviations, for a CPU: narrow and shallow by default (the paper has 512 channels and 8 mapping layers), the smallest map
has 4 to 7 pixels, in plain PyTorch without kernels of its own; a convolution that doubles follows a bilinear resize,
which is the same filter as the paper's; D judges a class by an embedding, without a mapping network; with classes there
is a mean style for each, so that truncation keeps the class. The target of the path length is a constant in its loss.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from elegan.adversarial.augment import AUGMENTATIONS, ada_told, beginning, follow, told_by
from elegan.adversarial.objectives import OBJECTIVES
from elegan.adversarial.penalties import path_lengths, slope, zero_centred
from elegan.adversarial.stabilizers import ema_decay, frozen, update_ema
from elegan.families.base import Batch, Card, Clock, Family, FamilyConfig, ImageSpec, Preset, judging, minimize
from elegan.networks.equalized import GAIN, EqualConv2d, EqualLinear, leaky, pixel_norm
from elegan.networks.layers import Crop, FromMap, Told, base_size
from elegan.networks.minibatch import MinibatchStd
from elegan.networks.resample import blur, double, pad_to, widths_at

Share = Annotated[float, Field(ge=0, lt=1)]
Noise = Callable[[tuple[int, ...]], Tensor]  # a shape -> N(0, 1) of it


class Config(FamilyConfig):
    batch: int = Field(32, gt=0)
    """Real images in a batch."""
    use_labels: bool = True
    """Tell G and D the class where the data has classes."""
    z_dim: int = Field(128, gt=0)
    """Numbers in the noise vector z ~ N(0, 1), brought to unit length."""
    w_dim: int = Field(128, gt=0)
    """Numbers in a style w."""
    mapping_layers: int = Field(2, gt=0)
    """Layers from z to w (the paper: 8)."""
    mapping_lr: float = Field(0.01, gt=0)
    """How much slower the mapping network learns."""
    mixing: float = Field(0.9, ge=0, le=1)
    """The share of pictures whose fine layers have another style than the coarse ones."""
    styling: Literal["demodulation", "adain"] = "demodulation"
    """What a style scales: a convolution's weights, less what that does to the deviation (demodulation), or its maps,
    each of which is brought to mean 0 and deviation 1 before (adain, as in the first StyleGAN)."""
    skips: bool = True
    """Every size of G adds its picture to the doubled one before it. Without, the last size alone draws, as in the
    first StyleGAN."""
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

    augment: Literal["none", "diffaugment", "ada"] = "none"
    """What is done to all that D sees, for few pictures: nothing, DiffAugment, or ADA's transformations."""
    ada_target: float = Field(0.6, gt=-1, lt=1)
    """Where E sign(D(real)) is held by changing p: 0 is a D that cannot tell, 1 one that knows the data by heart."""
    ada_images: int = Field(100_000, gt=0)
    """Real pictures that p takes at least from 0 to 1; the paper's 500,000 are for runs of millions."""
    ada_interval: int = Field(4, gt=0)
    """Steps between changes of p."""
    ada_told: bool = False
    """Tell D what ADA did to each picture, so that drawing pictures that look disturbed does not pay."""

    objective: Literal["nonsaturating", "hinge"] = "nonsaturating"
    """The game: which losses D and G minimise."""
    gamma: float = Field(0.1, ge=0)
    """Weight of R1 (the authors begin with 0.0002 * side^2 / batch)."""
    r1_interval: int = Field(16, gt=0)
    """R1 is computed at every so many steps, and weighs so much more."""
    path_weight: float = Field(2.0, ge=0)
    """Weight of the path length penalty; 0 leaves it out."""
    path_interval: int = Field(4, gt=0)
    """The path length penalty is computed at every so many steps, and weighs so much more."""
    path_decay: float = Field(0.01, gt=0, le=1)
    """How fast the mean path length follows."""
    lr: float = Field(2.5e-3, gt=0)
    """Adam's learning rate for G and D."""
    beta1: Share = 0.0
    """Adam's first decay rate."""
    beta2: Share = 0.99
    """Adam's second decay rate."""
    w_decay: Share = 0.995
    """How slowly the mean style follows, a step."""
    ema_share: float = Field(0.04, gt=0)
    """Half-life of the weight average, as a share of the images seen so far."""


class Mapping(nn.Module):
    """z (N, z_dim) [, labels (N,)] -> styles w (N, w_dim)."""

    def __init__(self, cfg: Config, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.embed = EqualLinear(classes, cfg.z_dim) if classes else None
        sizes = [cfg.z_dim * (2 if classes else 1)] + [cfg.w_dim] * cfg.mapping_layers
        self.layers = nn.ModuleList(
            EqualLinear(a, b, lr=cfg.mapping_lr, out=GAIN) for a, b in itertools.pairwise(sizes)
        )

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        x = pixel_norm(z)
        if self.embed is not None:
            assert labels is not None
            x = torch.cat([x, pixel_norm(self.embed(F.one_hot(labels, self.classes).to(z.dtype))).to(z.dtype)], 1)
        for layer in self.layers:
            x = leaky(layer(x))
        return x.float()


class StyledConv(nn.Module):
    """(N, c_in, H, W), w -> (N, c_out, H, W): a convolution whose weights the style scales (Karras+ 2020, eq. 1-3).

    w'_ijk = s_i w_ijk is applied as s_i to the input, and its demodulation / sqrt(sum w'^2 + 1e-8) to the output: the
    same numbers, without a kernel for each picture. With `doubles` the input is doubled in between, which commutes with
    a factor for each channel and leaves a quarter of it to multiply. `out`: see `networks.equalized`.
    """

    def __init__(
        self, c_in: int, c_out: int, kernel: int, w_dim: int, *, demodulate: bool = True, doubles: bool = False,
        out: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.affine = EqualLinear(w_dim, c_in, bias=1.0)
        self.weight = nn.Parameter(torch.randn(c_out, c_in, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(c_out))
        self.scale, self.padding, self.demodulate = 1 / math.sqrt(c_in * kernel**2), kernel // 2, demodulate
        self.doubles, self.out = doubles, out

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        weight, style = self.weight * self.scale, self.affine(w).float()  # (N, c_in)
        x = x * style[:, :, None, None].to(x.dtype)
        x = F.conv2d(double(x) if self.doubles else x, weight, padding=self.padding)
        if self.demodulate:
            with torch.autocast(x.device.type, enabled=False):
                squares = style.square() @ weight.square().sum((2, 3)).t()  # (N, c_out)
                scale = (squares + 1e-8).rsqrt()
            x = x * (self.out * scale)[:, :, None, None].to(x.dtype)
        return x + (self.out * self.bias)[:, None, None].to(x.dtype)


class NoisyConv(StyledConv):
    """A styled convolution, noise with a learnt strength, and a leaky ReLU."""

    def __init__(self, c_in: int, c_out: int, w_dim: int, doubles: bool = False) -> None:
        super().__init__(c_in, c_out, 3, w_dim, doubles=doubles, out=GAIN)
        self.strength = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, w: Tensor, noise: Noise | None = None) -> Tensor:
        return leaky(with_noise(super().forward(x, w), self.out * self.strength, noise))


class NormedConv(nn.Module):
    """A convolution, noise, a leaky ReLU, and AdaIN: a style sets each map's mean and deviation.

    Karras+ 2019, equation 1; the scale is one more than what the style says.
    """

    def __init__(self, c_in: int, c_out: int, w_dim: int, doubles: bool = False) -> None:
        super().__init__()
        self.conv = EqualConv2d(c_in, c_out, 3, out=GAIN)
        self.affine, self.doubles = EqualLinear(w_dim, 2 * c_out), doubles
        self.strength = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, w: Tensor, noise: Noise | None = None) -> Tensor:
        x = self.conv(double(x) if self.doubles else x)
        x = F.instance_norm(leaky(with_noise(x, GAIN * self.strength, noise)))
        scale, shift = self.affine(w)[:, :, None, None].to(x.dtype).chunk(2, 1)
        return x * (1 + scale) + shift


def with_noise(x: Tensor, strength: Tensor, noise: Noise | None) -> Tensor:
    """(N, C, H, W) and the same noise in all channels, unless there is none."""
    if noise is None:
        return x
    return x + (strength * noise((len(x), 1, *x.shape[2:])).to(x.device)).to(x.dtype)


class Generator(nn.Module):
    """Styles (N, layers, w_dim) -> images (N, C, H, W), doubling a learnt map of 4 to 7 pixels until it is there.

    `mapping` makes a style from z. Each size adds its picture to the doubled one before it (the paper's skips), or the
    last one alone has a picture. In training nothing bounds the pictures but D; in use they are cut to [-1, 1].
    """

    def __init__(self, cfg: Config, spec: ImageSpec, classes: int) -> None:
        super().__init__()
        widths = widths_at(spec.height, spec.width, cfg.G_width, cfg.G_widest)[::-1]  # from the smallest map
        strides = (2,) * (len(widths) - 1)
        h, w = base_size(spec.height, strides), base_size(spec.width, strides)
        self.mapping = Mapping(cfg, classes)
        self.basis = nn.Parameter(torch.randn(1, widths[0], h, w))
        layer = {"demodulation": NoisyConv, "adain": NormedConv}[cfg.styling]
        self.ups = nn.ModuleList(layer(a, b, cfg.w_dim, doubles=True) for a, b in itertools.pairwise(widths))
        self.convs = nn.ModuleList(layer(width, width, cfg.w_dim) for width in widths)
        self.pictures = nn.ModuleList(
            StyledConv(width, spec.channels, 1, cfg.w_dim, demodulate=False)
            for width in widths[0 if cfg.skips else -1 :]
        )
        self.crop = Crop(spec.height, spec.width)
        self.layers = 2 * len(widths)  # a picture's layer shares its style with the next size's first

    def forward(self, ws: Tensor, noise: Noise | None = None) -> Tensor:
        styles = ws.unbind(1)
        x = self.basis.expand(len(ws), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        image: Tensor | None = None
        bare = len(self.convs) - len(self.pictures)  # so many sizes have no picture
        for i, conv in enumerate(self.convs):
            x = self.ups[i - 1](x, styles[2 * i - 1], noise) if i else x
            x = conv(x, styles[2 * i], noise)
            if i >= bare:
                new = self.pictures[i - bare](x, styles[2 * i + 1])
                image = new if image is None else double(image) + new
        assert image is not None
        image = self.crop(image).float()
        return image if self.training else image.clamp(-1, 1)


class DownBlock(nn.Module):
    """(N, c_in, H, W) -> (N, c_out, H / 2, W / 2): two convolutions, the second on every other blurred place."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        half = 1 / math.sqrt(2)  # of a sum of two, so that its variance stays
        self.same = EqualConv2d(c_in, c_in, 3, out=GAIN)
        self.down = EqualConv2d(c_in, c_out, 3, stride=2, out=GAIN * half)
        self.skip = EqualConv2d(c_in, c_out, 1, out=half)

    def forward(self, x: Tensor) -> Tensor:
        return leaky(self.down(blur(leaky(self.same(x)), 2))) + self.skip(blur(x, 1, 2))


class Discriminator(nn.Module):
    """images (N, C, H, W) of one kind [, labels (N,)] -> logits (N,), float32: residual, without normalisation."""

    def __init__(self, cfg: Config, spec: ImageSpec, classes: int) -> None:
        super().__init__()
        widths = widths_at(spec.height, spec.width, cfg.D_width, cfg.D_widest)
        strides = (2,) * (len(widths) - 1)
        h, w = base_size(spec.height, strides), base_size(spec.width, strides)
        self.size, self.classes = (h * 2 ** len(strides), w * 2 ** len(strides)), classes
        self.start = EqualConv2d(spec.channels, widths[0], 1, out=GAIN)
        self.blocks = nn.Sequential(*(DownBlock(a, b) for a, b in itertools.pairwise(widths)))
        last, self.deviation = widths[-1], MinibatchStd(cfg.group)
        self.mix = EqualConv2d(last + 1, last, 3, out=GAIN)
        self.dense = EqualLinear(last * h * w, last, out=GAIN)
        self.out = EqualLinear(last, last if classes else 1)
        self.embed = EqualLinear(classes, last) if classes else None
        told = told_by(cfg.augment, cfg.ada_told)
        self.told = nn.ModuleList(Told(told, width) for width in widths if told)

    def forward(self, images: Tensor, labels: Tensor | None = None, told: Tensor | None = None) -> Tensor:
        x = self.start(pad_to(images, *self.size))
        x = leaky(x if told is None else self.told[0](x, told))
        for i, block in enumerate(self.blocks, 1):
            x = block(x) if told is None else self.told[i](block(x), told)
        x = leaky(self.mix(self.deviation(x)))
        phi = self.out(leaky(self.dense(FromMap()(x)))).float()  # (N, features)
        if self.embed is None:
            return phi.squeeze(1)
        assert labels is not None
        y = pixel_norm(self.embed(F.one_hot(labels, self.classes).to(phi.dtype)).float())
        return (phi * y).sum(1) / math.sqrt(phi.shape[1])


class Model(Family):
    card = Card(
        "A style scales every layer of a network that starts from a constant: coarse and fine can be mixed.",
        "exploring and editing: mixing, even walks, truncation, few pictures too (ADA); asks for patience or a GPU",
    )
    config: Config

    def __init__(self, config: Config, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        classes = spec.classes if config.use_labels else 0
        self.G, self.D = Generator(config, spec, classes), Discriminator(config, spec, classes)
        self.G_ema = copy.deepcopy(self.G).requires_grad_(False)
        self.parts.nets = {"G": self.G, "D": self.D, "G_ema": self.G_ema}
        self.G_adam = lazy_adam(self.G, config, config.path_interval if config.path_weight else 0)
        self.D_adam = lazy_adam(self.D, config, config.r1_interval if config.gamma else 0)
        self.parts.optimizers = {"G": self.G_adam, "D": self.D_adam}
        self.parts.values = {"path_length": torch.zeros(()), "w_mean": torch.zeros(max(classes, 1), config.w_dim)}
        if config.augment != "none":
            self.parts.values |= beginning(config.augment)
        self.objective, self.augment = OBJECTIVES[config.objective], AUGMENTATIONS[config.augment]

    @property
    def conditional(self) -> bool:
        return self.config.use_labels and self.spec.classes > 0

    @property
    def sampler(self) -> str:
        return "G_ema"

    def ladder(self) -> list[list[nn.Module]]:
        D = self.D
        rungs: list[list[nn.Module]] = [[D.start], *([block] for block in D.blocks)]
        for rung, told in zip(rungs, D.told, strict=False):  # none where nothing is told
            rung.append(told)
        rungs += [[D.mix], [D.dense], [D.out]]
        return rungs if D.embed is None else [*rungs, [D.embed]]

    def typical(self, total: int) -> dict[int, float]:
        r1, path, batch = self.config.r1_interval, self.config.path_interval, self.config.batch
        cycle = math.lcm(r1, path)
        kinds = [(step % r1 == 0, step % path == 0) for step in range(cycle)]
        return {kinds.index(kind) * batch: kinds.count(kind) / cycle for kind in dict.fromkeys(kinds)}

    def form(self, clock: Clock) -> tuple[bool, bool]:
        """Whether R1 and the path length penalty are due: lazily, each once in a while for all steps between."""
        cfg, number = self.config, clock.seen // self.config.batch
        penalised = bool(cfg.gamma) and number % cfg.r1_interval == 0
        return penalised, bool(cfg.path_weight) and number % cfg.path_interval == 0

    def step(self, batches: Sequence[Batch], clock: Clock) -> dict[str, Tensor]:
        cfg, (real, labels) = self.config, batches[0]
        labels = labels if self.conditional else None
        n, (r1_due, path_due) = len(real), self.form(clock.host)
        self.G.train()
        self.D.train()

        # (1) Discriminator, on real and on fake apart: it compares pictures of one kind with each other
        with torch.no_grad():
            fake = self.G(self.styles(n, labels), self.noise)  # (n, C, H, W)
        real_logits, fake_logits = self.judge(real, labels), self.judge(fake, labels)
        ones, zeros = torch.ones_like(real_logits), torch.zeros_like(fake_logits)
        D_loss = self.objective.D_real(real_logits, ones) + self.objective.D_fake(fake_logits, zeros)
        minimize(D_loss, self.D_adam)
        if r1_due:  # an update of its own, for all that were left out
            slopes = slope(lambda x: self.judge(x, labels), real)[1]
            minimize(cfg.r1_interval * zero_centred(slopes, cfg.gamma), self.D_adam)

        # (2) Generator
        with frozen(self.D):
            ws = self.styles(n, labels)
            self.follow_styles(ws[:, 0].detach(), labels)
            G_loss = self.objective.G(self.judge(self.G(ws, self.noise), labels))
            minimize(G_loss, self.G_adam)
        if path_due:
            half = None if labels is None else labels[: -(-n // 2)]
            minimize(cfg.path_interval * cfg.path_weight * self.path_penalty(-(-n // 2), half), self.G_adam)

        # (3) Probability of the augmentation
        told = self.adapt(real_logits)

        # (4) Average
        update_ema(self.G_ema, self.G, ema_decay(n, math.inf, clock.seen + n, ramp=cfg.ema_share))
        return {
            "D_loss": D_loss.detach(),
            "G_loss": G_loss.detach(),
            **self.objective.right(real_logits, fake_logits),
            "path_length": self.parts.values["path_length"],
            **told,
        }

    def judge(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """D's logits (N,) of what the augmentation makes of images (N, C, H, W)."""
        if self.D.told:
            images, told = ada_told(images, self.parts.values["p"])
            return self.D(images, labels, told)
        return self.D(self.augment(images, self.parts.values.get("p", 0.0)), labels)

    def adapt(self, real_logits: Tensor) -> dict[str, Tensor]:
        """ADA (Karras+ 2020, section 3): move p by the signs of these logits (N,); what the log tells of it."""
        cfg, values = self.config, self.parts.values
        if cfg.augment != "ada":
            return {}
        follow(values, real_logits, cfg.ada_interval, target=cfg.ada_target, images_to_one=cfg.ada_images)
        return {"sign": torch.sign(real_logits.detach().float()).mean(), "p": values["p"].clone()}

    def noise(self, shape: tuple[int, ...]) -> Tensor:
        """N(0, 1) where the networks are: what is random at each place of a picture in training."""
        return torch.randn(shape, device=self.device)

    def styles(self, n: int, labels: Tensor | None) -> Tensor:
        """Styles (n, layers, w_dim) from new z, a share of them with a second style from some layer on."""
        z = torch.randn(2 * n, self.config.z_dim, device=self.device)
        both = None if labels is None else torch.cat([labels, labels])
        first, second = self.G.mapping(z, both)[:, None].chunk(2)  # (n, 1, w_dim)
        layers = self.G.layers
        cut = torch.randint(1, layers, (n, 1, 1), device=self.device)
        cut = torch.where(torch.rand(n, 1, 1, device=self.device) < self.config.mixing, cut, layers)
        return torch.where(torch.arange(layers, device=self.device)[:, None] < cut, first, second)

    @torch.no_grad()
    def follow_styles(self, w: Tensor, labels: Tensor | None) -> None:
        """Move the mean style (of each class in the batch) towards that of new styles w (n, w_dim)."""
        mean = self.parts.values["w_mean"]
        y = torch.zeros(len(w), dtype=torch.int64, device=w.device) if labels is None else labels
        belongs = F.one_hot(y, len(mean)).to(w.dtype)  # (n, classes)
        count = belongs.sum(0)[:, None]
        change = belongs.t() @ w - count * mean  # 0 for a class that is not there
        self.parts.values["w_mean"] = mean + (1 - self.config.w_decay) * change / count.clamp(min=1)

    def path_penalty(self, n: int, labels: Tensor | None) -> Tensor:
        """E(||J^T y|| - a)^2 on n new pictures, a the running mean of the lengths, in float32 (eq. 4)."""
        with torch.autocast(self.device.type, enabled=False):
            ws = self.styles(n, labels)
            lengths = path_lengths(self.G(ws, self.noise), ws)
        old = self.parts.values["path_length"]
        self.parts.values["path_length"] = old.lerp(lengths.mean().detach(), self.config.path_decay)
        return (lengths - self.parts.values["path_length"]).square().mean()

    def draw(self, n: int, labels: Tensor | None, generator: torch.Generator, truncation: float = 1.0) -> Tensor:
        G = self.G_ema.eval()
        w = G.mapping(torch.randn(n, self.config.z_dim, generator=generator).to(self.device), labels)
        mean = self.parts.values["w_mean"].to(w.device)
        mean = mean if labels is None else mean[labels]
        w = mean + truncation * (w - mean)  # in w, not in z (Karras+ 2019, appendix B)
        return G(w[:, None].expand(-1, G.layers, -1), lambda shape: torch.randn(shape, generator=generator))

    def logits(self, images: Tensor, labels: Tensor | None) -> Tensor:
        with judging(self.D):
            return self.D(images, labels if self.conditional else None)


def lazy_adam(net: nn.Module, cfg: Config, interval: int) -> torch.optim.Adam:
    """Adam for a network that takes one more update, a penalty's, in every `interval` steps (0: never).

    So that it learns as fast as if each step had both in one, lr and both betas are those of interval + 1 shorter
    steps in place of `interval` (Karras+ 2020, appendix B).
    """
    c = interval / (interval + 1) if interval else 1.0
    return torch.optim.Adam(net.parameters(), cfg.lr * c, (cfg.beta1**c, cfg.beta2**c), eps=1e-8, fused=True)


PRESETS = {
    "tiny": Preset(
        Config(
            batch=16, z_dim=16, w_dim=16, G_width=8, G_widest=16, D_width=8, D_widest=16, r1_interval=4, path_interval=2
        ),
        "garments", 16 * 64, "Seconds on one core: to see the machinery turn, not to make pictures.",
    ),
    "fashion-stylegan2": Preset(
        Config(), "fashion-mnist", 20 * 60_000, "Styles: mixed, truncated, walked through. Narrow, and slow on a CPU.",
    ),
    "garments-stylegan2": Preset(
        Config(gamma=0.3, mapping_layers=4), "garments", 20 * 60_000, "Styles of drawn garments, 64x64 in colour.",
        {"size": 64, "channels": 3},
    ),
    "small-stylegan2": Preset(
        Config(gamma=0.3, mapping_layers=4, augment="ada", G_width=16, D_width=16), "garments", 300_000,
        "StyleGAN2-ADA: a few hundred pictures of your own, in colour: --data FOLDER.", {"size": 64, "channels": 3},
    ),
}  # fmt: skip
