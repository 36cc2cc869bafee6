"""The plain GAN, and the family to start reading: Goodfellow+ 2014 with the networks of the tutorials.

A generator G turns noise z into pictures, a discriminator D tells them from real ones, and each learns from
the other. Here are fully connected, transposed-convolution (DCGAN, Radford+ 2016) and upsampling networks
(Odena+ 2016), five objectives, labels by concatenation (Mirza & Osindero 2014), and three ways in which
tutorials take turns; each of the well-read tutorial programs is a preset, layer by layer, and the paper's DCGAN is one.

Deviations: losses are sums over real and fake where some tutorials take the mean (Adam does not see the
factor); a recipe with pixels in [0, 1] keeps them inside its networks, the package's pictures are in [-1, 1];
"real 0, fake 1" labels are D's sign turned over, which is the same game; the paper's DCGAN has one doubling less, for
28x28 pictures, half of the paper's widths or less, and samples from averaged weights.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from elegan.adversarial.objectives import OBJECTIVES, slope_ratio
from elegan.adversarial.stabilizers import (
    clip_weights,
    ema_decay,
    frozen,
    learning_rate,
    set_learning_rate,
    soft_targets,
    steady_share,
    truncated_normal,
    update_ema,
)
from elegan.errors import UserError
from elegan.families.base import Batch, Card, Clock, Family, FamilyConfig, ImageSpec, Preset, judging, minimize
from elegan.networks.conv import ConvDiscriminator, ConvGenerator
from elegan.networks.layers import init_normal
from elegan.networks.mlp import MLPDiscriminator, MLPGenerator

Widths = tuple[Annotated[int, Field(gt=0)], ...]
Share = Annotated[float, Field(ge=0, lt=1)]


class Config(FamilyConfig):
    network: Literal["mlp", "deconv", "upsample"] = "deconv"
    """Fully connected, transposed convolutions, or nearest upsampling and convolutions."""
    conditional: bool = False
    """Give G and D the label too, concatenated to their inputs."""
    pixels: Literal["-1..1", "0..1"] = "-1..1"
    """The range that the networks see; 0..1 ends G with a sigmoid, -1..1 with tanh."""
    z_dim: int = Field(100, gt=0)
    """Numbers in the noise vector z."""
    z_law: Literal["normal", "uniform"] = "normal"
    """z ~ N(0, 1) or U(-1, 1)."""
    slope: float = Field(0.2, ge=0)
    """Negative slope of every leaky ReLU."""
    initial: Literal["glorot", "normal"] = "glorot"
    """Weights to begin with: Glorot's, or N(0, 0.02) and batch norms' scales N(1, 0.02) (Radford+ 2016)."""

    G_widths: Widths = (256, 128, 64)
    """Channels (or units, mlp) of G's layers; the first is the dense layer."""
    G_strides: Widths = (2, 2, 1)
    """By how much each of G's convolutions enlarges; the last one makes the picture."""
    G_kernels: Widths = (5, 5, 5)
    """Kernel side of each of G's convolutions."""
    G_batch_norm: bool = True
    """Batch normalisation after G's hidden layers."""
    G_bn_momentum: Share = 0.9
    """How much of the running statistics is kept at each step."""
    G_bias: bool = True
    """Biases in G's layers."""
    G_relu: bool = False
    """Plain ReLUs in G, whatever D's slope."""

    D_widths: Widths = (64, 128)
    """Channels (or units, mlp) of D's layers."""
    D_strides: Widths = (2, 2)
    """By how much each of D's convolutions shrinks."""
    D_kernels: Widths = (5, 5)
    """Kernel side of each of D's convolutions."""
    D_padding: Literal["same", "valid"] = "same"
    """Zero padding of D's convolutions, or none."""
    D_batch_norm: bool = False
    """Batch normalisation after D's convolutions but the first, of real and of fake pictures apart."""
    D_dropout: Share = 0.0
    """Dropout after each of D's layers."""
    D_head_dropout: Share = 0.0
    """Dropout before D's last layer."""

    fake_labels: Literal["real", "random"] = "real"
    """The classes that fakes are asked for: those of the real batch, whose mix is the data's, or drawn evenly."""
    objective: Literal["minimax", "nonsaturating", "least-squares", "least-squares-chi2", "hinge", "wasserstein"] = (
        "nonsaturating"
    )
    """The game: which losses D and G minimise."""
    updates: Literal["joint", "separate", "shared"] = "joint"
    """joint: D on real and fake, then G on new fakes. separate: D on real, D on fake, then G. shared: D and G at
    once from the same fakes."""
    D_steps: int = Field(1, gt=0)
    """D's updates, each on a new batch, before G's."""
    G_steps: int = Field(1, gt=0)
    """G's updates after D's."""
    G_eval_for_D: bool = False
    """Make the fakes for D in inference mode (batch norm's running statistics)."""
    D_eval_for_G: bool = False
    """D in inference mode (no dropout) while G learns."""

    G_lr: float = Field(2e-4, gt=0)
    """Adam's learning rate for G."""
    D_lr: float = Field(2e-4, gt=0)
    """Adam's learning rate for D."""
    beta1: Share = 0.5
    """Adam's first decay rate."""
    beta2: Share = 0.999
    """Adam's second decay rate."""
    adam_eps: float = Field(1e-7, gt=0)
    """Adam's epsilon (1e-7 is Keras' default)."""
    lr_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rates fall to zero over the planned images."""

    label_smoothing: Share = 0.0
    """One-sided: real targets are 1 minus this, fake ones stay 0."""
    label_noise: Share = 0.0
    """Move D's targets towards the other side by this times U(0, 1)."""
    label_flip: Share = 0.0
    """The probability of exchanging real and fake for D."""
    weight_clip: float = Field(0.0, ge=0)
    """Clamp D's weights to +- this after each of its updates (0: do not)."""
    ema_half_life: int = Field(0, ge=0)
    """Average G's weights, halving a step's share every so many images; samples come from the average (0: do not)."""

    @property
    def softened(self) -> bool:
        """Whether D's targets differ from 1 and 0."""
        return bool(self.label_smoothing or self.label_noise or self.label_flip)

    @model_validator(mode="after")
    def _agrees(self) -> Config:
        if self.network != "mlp":
            if not len(self.G_widths) == len(self.G_strides) == len(self.G_kernels):
                raise ValueError("G_widths, G_strides and G_kernels need one number per layer each")
            if not len(self.D_widths) == len(self.D_strides) == len(self.D_kernels):
                raise ValueError("D_widths, D_strides and D_kernels need one number per layer each")
            if not self.G_widths:
                raise ValueError("G_widths needs at least one number: the channels of the dense layer")
        if self.batch == 1 and (self.G_batch_norm or self.D_batch_norm):
            raise ValueError("batch normalisation needs a batch of at least 2, or G_batch_norm and D_batch_norm false")
        if self.D_batch_norm and self.network == "mlp":
            raise ValueError("D_batch_norm is for convolutions: network=mlp has none")
        if self.D_batch_norm and self.updates == "shared":
            raise ValueError("D_batch_norm does not apply to updates=shared, where D scores each picture by itself")
        if self.softened and not OBJECTIVES[self.objective].has_targets:
            raise ValueError(f"label_smoothing, label_noise and label_flip do not apply to {self.objective!r}")
        if self.updates == "shared" and (self.D_steps, self.G_steps) != (1, 1):
            raise ValueError("updates=shared takes one D and one G update: leave D_steps and G_steps at 1")
        if self.D_batch_norm and self.D_eval_for_G:
            raise ValueError(
                "D_eval_for_G does not go with D_batch_norm: G would see another D than the one that learns"
            )
        if self.objective == "wasserstein" and not self.weight_clip:
            raise ValueError("objective=wasserstein needs weight_clip, or a preset of wgan: it has no bottom without")
        if self.updates == "shared" and (self.G_eval_for_D or self.D_eval_for_G):
            raise ValueError("G_eval_for_D and D_eval_for_G do not apply to updates=shared; use joint")
        return self


class Model(Family):
    card = Card(
        "A forger learns from the mistakes that a detective points out, and the detective from the forger's.",
        "learning how GANs work: the tutorials' programs, layer by layer",
    )
    config: Config

    def __init__(self, config: Config, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        if config.conditional and not spec.classes:
            raise UserError("this preset needs labels and the data has none; add them, or --set conditional=false")
        self.G, self.D = build_generator(config, spec), build_discriminator(config, spec)
        if config.initial == "normal":
            self.G.apply(init_normal)
            self.D.apply(init_normal)
        self.parts.nets = {"G": self.G, "D": self.D}
        if config.ema_half_life:
            self.parts.nets["G_ema"] = copy.deepcopy(self.G).requires_grad_(False)
        betas, eps = (config.beta1, config.beta2), config.adam_eps
        self.G_adam = torch.optim.Adam(self.G.parameters(), config.G_lr, betas, eps, fused=True)
        self.D_adam = torch.optim.Adam(self.D.parameters(), config.D_lr, betas, eps, fused=True)
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
        return "G_ema" if self.config.ema_half_life else "G"

    @property
    def steady(self) -> float:
        return steady_share(self.config.lr_schedule)

    def step(self, batches: Sequence[Batch], clock: Clock) -> dict[str, Tensor]:
        cfg = self.config
        rate = learning_rate(clock.progress, cfg.lr_schedule)
        set_learning_rate(self.G_adam, cfg.G_lr * rate)
        set_learning_rate(self.D_adam, cfg.D_lr * rate)
        self.G.train()
        self.D.train()

        if cfg.updates == "shared":
            # (1, 2) Both players at once, from the same fakes
            logs = self.learn_together(*batches[0])
        else:
            # (1) Discriminator
            for images, labels in batches:
                logs = self.learn_D(images, labels)
            # (2) Generator
            for _ in range(cfg.G_steps):
                logs |= self.learn_G(len(images), labels)

        # (3) Average
        if cfg.ema_half_life:
            seen = len(batches) * len(batches[0].images)
            update_ema(self.parts.nets["G_ema"], self.G, ema_decay(seen, cfg.ema_half_life, clock.seen))
        return logs

    def learn_D(self, real: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        """D's update: up on real pictures, down on fakes, which no gradient reaches."""
        self.G.train(not self.config.G_eval_for_D)
        with torch.no_grad():
            asked = self.asked(labels)
            fake = self.generate(len(real), asked)
        self.G.train()
        if self.config.updates == "separate":
            real_logits = self.D(real, labels)
            loss_real = self.loss_on_real(real_logits)
            minimize(loss_real, self.D_adam)
            self.clip()
            fake_logits = self.D(fake, asked)
            loss_fake = self.loss_on_fake(fake_logits)
            minimize(loss_fake, self.D_adam)
            loss = loss_real.detach() + loss_fake
        else:
            real_logits, fake_logits = self.judge(real, fake, labels, asked)
            loss = self.loss_on_real(real_logits) + self.loss_on_fake(fake_logits)
            minimize(loss, self.D_adam)
        self.clip()
        return {"D_loss": loss.detach()} | self.objective.right(real_logits, fake_logits)

    def clip(self) -> None:
        """What follows each of D's updates where `weight_clip` is set."""
        if self.config.weight_clip:
            clip_weights(self.D.parameters(), self.config.weight_clip)

    def learn_G(self, n: int, labels: Tensor | None) -> dict[str, Tensor]:
        """G's update: its gradient flows through D, whose weights stay."""
        self.D.train(not self.config.D_eval_for_G)
        with frozen(self.D):
            asked = self.asked(labels)
            fake_logits = self.D(self.generate(n, asked), asked)
            loss = self.objective.G(fake_logits)
            minimize(loss, self.G_adam)
        self.D.train()
        return {"G_loss": loss.detach()}

    def learn_together(self, real: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        """Both updates from one forward pass; each gradient is taken before either network moves.

        D scores each picture by itself, so G's gradient at a fake is D's, times the ratio of the losses' slopes at
        its logit: one backward pass through D serves both. Where D's loss can be flat (hinge, soft targets), the
        ratio does not exist and G's gradient takes a pass of its own.
        """
        asked = self.asked(labels)
        fake = self.generate(len(real), asked)
        judged = fake.detach().requires_grad_()  # D's graph ends here: its backward must not enter G
        real_logits, fake_logits = self.judge(real, judged, labels, asked)
        D_loss = self.loss_on_real(real_logits) + self.loss_on_fake(fake_logits)
        G_loss = self.objective.G(fake_logits)

        self.D_adam.zero_grad()
        if self.objective.steep and not self.config.softened:
            D_loss.backward()
            ratio = slope_ratio(self.objective, fake_logits)
            assert judged.grad is not None
            fake_grad = judged.grad * ratio[:, None, None, None]
        else:
            (fake_grad,) = torch.autograd.grad(G_loss, judged, retain_graph=True)
            D_loss.backward()
        self.D_adam.step()
        self.clip()
        self.G_adam.zero_grad()
        fake.backward(fake_grad.to(fake.dtype))
        self.G_adam.step()
        logs = {"D_loss": D_loss.detach(), "G_loss": G_loss.detach()}
        return logs | self.objective.right(real_logits, fake_logits)

    def generate(self, n: int, labels: Tensor | None) -> Tensor:
        """`n` fakes (n, C, H, W) from new noise."""
        size = (n, self.config.z_dim)
        even = self.config.z_law == "uniform"
        z = torch.rand(size, device=self.device) * 2 - 1 if even else torch.randn(size, device=self.device)
        return self.G(z, labels)

    def asked(self, labels: Tensor | None) -> Tensor | None:
        """The classes (N,) to ask fakes for, beside real pictures with these labels."""
        if labels is None or not self.conditional or self.config.fake_labels == "real":
            return labels
        return torch.randint(self.categories, labels.shape, device=labels.device)

    def judge(self, real: Tensor, fake: Tensor, labels: Tensor | None, asked: Tensor | None) -> tuple[Tensor, Tensor]:
        """D's logits on real and fake (N,) each, in one pass where no batch norm would mix them."""
        if self.config.D_batch_norm:
            return self.D(real, labels), self.D(fake.to(real.dtype), asked)
        both = None if labels is None or asked is None else torch.cat([labels, asked])
        real_logits, fake_logits = self.D(torch.cat([real, fake.to(real.dtype)]), both).chunk(2)
        return real_logits, fake_logits

    def loss_on_real(self, logits: Tensor) -> Tensor:
        """D's loss on real pictures, with targets as soft as the settings say."""
        cfg = self.config
        target = soft_targets(logits, 1 - cfg.label_smoothing, noise=-cfg.label_noise, flip=cfg.label_flip)
        return self.objective.D_real(logits, target)

    def loss_on_fake(self, logits: Tensor) -> Tensor:
        """D's loss on fakes, with targets as soft as the settings say."""
        target = soft_targets(logits, 0.0, noise=self.config.label_noise, flip=self.config.label_flip)
        return self.objective.D_fake(logits, target)

    def logits(self, images: Tensor, labels: Tensor | None) -> Tensor:
        with judging(self.D):
            return self.D(images, labels).float()

    def draw(self, n: int, labels: Tensor | None, generator: torch.Generator, truncation: float = 1.0) -> Tensor:
        size = (n, self.config.z_dim)
        if self.config.z_law == "uniform":
            z = (torch.rand(size, generator=generator) * 2 - 1) * min(truncation, 1.0)
        else:
            z = truncated_normal(size, truncation, generator)
        z = z.to(self.device)
        return self.parts.nets[self.sampler].eval()(z, labels)


def build_generator(cfg: Config, spec: ImageSpec) -> nn.Module:
    """G: z (N, z_dim) [, labels (N,)] -> images (N, C, H, W)."""
    shape = (spec.channels, spec.height, spec.width)
    shared: dict[str, Any] = {
        "classes": spec.classes if cfg.conditional else 0, "slope": 0.0 if cfg.G_relu else cfg.slope,
        "batch_norm": cfg.G_batch_norm, "bn_momentum": cfg.G_bn_momentum, "unit_range": cfg.pixels == "0..1",
    }  # fmt: skip
    if cfg.network == "mlp":
        return MLPGenerator(cfg.z_dim, shape, cfg.G_widths, **shared)
    layers, upsample = (cfg.G_widths, cfg.G_strides, cfg.G_kernels), cfg.network == "upsample"
    return ConvGenerator(cfg.z_dim, shape, *layers, upsample=upsample, bias=cfg.G_bias, **shared)


def build_discriminator(cfg: Config, spec: ImageSpec) -> nn.Module:
    """D: images (N, C, H, W) [, labels (N,)] -> logits (N,)."""
    shape = (spec.channels, spec.height, spec.width)
    shared: dict[str, Any] = {
        "classes": spec.classes if cfg.conditional else 0, "slope": cfg.slope, "dropout": cfg.D_dropout,
        "unit_range": cfg.pixels == "0..1",
    }  # fmt: skip
    if cfg.network == "mlp":
        return MLPDiscriminator(shape, cfg.D_widths, **shared)
    return ConvDiscriminator(
        shape, cfg.D_widths, cfg.D_strides, cfg.D_kernels, same=cfg.D_padding == "same",
        head_dropout=cfg.D_head_dropout, batch_norm=cfg.D_batch_norm, **shared,
    )  # fmt: skip


_mlp = Config(
    network="mlp",
    batch=32,
    G_widths=(256, 512, 1024),
    D_widths=(512, 256),
    G_bn_momentum=0.8,
    updates="separate",
    G_eval_for_D=True,
)
# G swings from batch to batch in all `digits-*` and in `fashion-dcgan`, so that its last weights are as good as luck:
# samples come from their average, which the training does not see
_AVERAGED = 10_000
_digits = Config(
    batch=128, pixels="0..1", G_widths=(128, 128, 64), G_bn_momentum=0.99, D_dropout=0.3, G_eval_for_D=True,
    ema_half_life=_AVERAGED,
)  # fmt: skip


def _but(config: Config, **changes: object) -> Config:
    return Config(**(config.model_dump() | changes))


PRESETS = {
    "tiny": Preset(
        Config(batch=16, z_dim=16, G_widths=(16, 8, 8), D_widths=(8, 16), ema_half_life=1_000),
        "garments", 16 * 64, "Seconds on one core: to see the machinery turn, not to make pictures.",
    ),
    "fashion-upsample": Preset(
        Config(
            network="upsample", pixels="0..1", batch=128, z_dim=128, G_batch_norm=False,
            G_widths=(128, 128, 128, 128, 128), G_strides=(2, 2, 1, 1, 1), G_kernels=(5, 5, 4, 4, 4),
            D_widths=(32, 64, 128, 256), D_strides=(1, 1, 1, 1), D_kernels=(5, 5, 5, 5), D_padding="valid",
            D_dropout=0.4, D_head_dropout=0.4, label_noise=0.15, G_eval_for_D=True, D_eval_for_G=True,
            G_lr=1e-4, D_lr=1e-5, beta1=0.9,
        ),
        "fashion-mnist", 20 * 60_000, "Upsampling and convolutions, noisy labels, a slow D (20 epochs).",
    ),
    "fashion-mlp": Preset(
        _mlp, "fashion-mnist", 5_000 * 32, "Fully connected; D on real, then on fake, then G (5,000 iterations).",
    ),
    "fashion-dcgan": Preset(
        Config(
            batch=128, slope=0.3, G_widths=(256, 128, 64), G_strides=(1, 2, 2), G_bias=False, G_bn_momentum=0.99,
            D_dropout=0.3, G_lr=1e-4, D_lr=1e-4, beta1=0.9, updates="shared",
            ema_half_life=_AVERAGED,
        ),
        "fashion-mnist", 30 * 60_000, "The DCGAN of the best-known tutorial (30 epochs).",
    ),
    "fashion-dcgan-paper": Preset(
        Config(
            batch=128, z_law="uniform", initial="normal", G_strides=(2, 2, 2), G_bias=False, G_relu=True,
            D_widths=(64, 128, 256), D_strides=(2, 2, 2), D_kernels=(5, 5, 5), D_batch_norm=True,
            ema_half_life=_AVERAGED,
        ),
        "fashion-mnist", 20 * 60_000, "The DCGAN of the paper: batch norm in both players, weights from N(0, 0.02).",
    ),
    "digits-mlp": Preset(
        _but(_mlp, updates="joint", G_steps=2, G_bn_momentum=0.7, ema_half_life=_AVERAGED),
        "mnist", 12_000 * 32, "Fully connected, G twice for each D (12,000 iterations).",
    ),
    "digits-dcgan": Preset(_digits, "mnist", 10_000 * 128, "DCGAN with pixels in 0..1 (10,000 iterations)."),
    "digits-cgan": Preset(
        _but(_digits, conditional=True, fake_labels="random"), "mnist", 10_000 * 128,
        "digits-dcgan that is told which digit to draw.",
    ),
    "faces-dcgan": Preset(
        Config(batch=128, z_dim=128, G_strides=(2, 2, 2), G_bn_momentum=0.99, D_dropout=0.3, G_eval_for_D=True),
        "garments", 20 * 60_000, "DCGAN for 64x64 colour pictures: --data FOLDER.",
        {"size": 64, "channels": 3},
    ),
}  # fmt: skip
