"""The contract between a GAN family and the rest of the package. No GAN logic lives here.

A module in `families/` exports exactly three names:

- `Config`: its settings, a frozen `FamilyConfig`; the docstring under each field becomes its help text;
- `PRESETS`: `{name: Preset}`, with at least `tiny` (seconds on one core);
- `Model`: made as `Model(config, spec)`, see `Family`.

The file is found by its name: nothing is registered.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn


class FamilyConfig(BaseModel):
    """What every family's settings share: frozen, strict about keys, documented by attribute docstrings."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )

    batch: int = Field(64, gt=0)
    """Real images in a batch."""


@dataclass(frozen=True)
class ImageSpec:
    """What the data looks like: all that a family may know of it."""

    channels: int
    height: int
    width: int
    classes: int = 0  # 0: no labels

    def __str__(self) -> str:
        return f"{self.height}x{self.width}x{self.channels}" + (f", {self.classes} classes" if self.classes else "")


class Batch(NamedTuple):
    """One batch of real data."""

    images: Tensor  # (N, C, H, W) float in [-1, 1]
    labels: Tensor | None  # (N,) int64, or None for unlabelled data


class Clock(NamedTuple):
    """Where the run stands, in real images seen: schedules follow it, never the step count or the time.

    In a step that a GPU records (`training.recorded`) both are 0-d tensors on the device, which schedules compute with
    as they do with numbers; what cannot be computed there, such as which way to go, asks `host`.
    """

    seen: int
    total: int
    on_host: tuple[int, int] | None = None  # the same as numbers, in a step that is recorded

    @property
    def progress(self) -> float:
        """0 at the start, 1 at the planned end."""
        if isinstance(self.seen, Tensor):
            return (self.seen / self.total).clamp(max=1).float()
        return min(self.seen / max(self.total, 1), 1.0)

    @property
    def host(self) -> Clock:
        """The same in numbers. A step may use of it only what `Family.form` tells of it."""
        return self if self.on_host is None else Clock(*self.on_host)


@dataclass
class Parts:
    """The one bag of everything in a model that has state. A checkpoint is this bag and the loop's counters.

    `values` are small named tensors (an ADA probability, a path-length mean, an alpha): changed in place or
    reassigned by key, always saved.
    """

    nets: dict[str, nn.Module] = field(default_factory=dict)
    optimizers: dict[str, torch.optim.Optimizer] = field(default_factory=dict)
    values: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Preset:
    """A named recipe: settings, the data it is meant for, and how long it trains."""

    config: FamilyConfig
    data: str
    images: int  # real images seen by the end of the recipe
    about: str  # one line for `elegan presets`
    data_settings: dict[str, Any] = field(default_factory=dict)  # such as {"size": 64}


class Card(NamedTuple):
    """What tables say of a family, beside the names and papers at the head of its file."""

    idea: str  # one sentence
    use: str  # what to choose it for


class Family(ABC):
    """A model in training. `parts` holds all of its state; nothing else may change between steps."""

    card: ClassVar[Card]
    config: FamilyConfig
    spec: ImageSpec
    parts: Parts

    #: Samples are drawn in blocks of this many, aligned to the index: a block always runs at the same size, so
    #: that sample i comes out the same, to the last bit, whatever else is drawn with it.
    block: ClassVar[int] = 100

    def __init__(self, config: Any, spec: ImageSpec) -> None:
        self.config, self.spec = config, spec
        self.parts = Parts()

    @property
    def batches_per_step(self) -> int:
        """How many real batches one step consumes (a Wasserstein critic takes several)."""
        return 1

    @property
    def conditional(self) -> bool:
        """Whether samples can be asked for by label."""
        return False

    @property
    def categories(self) -> int:
        """How many values the `labels` of `sample` may take; 0 where they have no meaning."""
        return self.spec.classes if self.conditional else 0

    @property
    @abstractmethod
    def sampler(self) -> str:
        """The name in `parts.nets` of the network that draws the samples, usually an average."""

    def typical(self, total: int) -> dict[int, float]:
        """Places (images seen) in a run of `total` images whose steps stand for all of its steps, with their shares.

        One will do unless steps differ in cost: networks that grow, penalties that are computed now and then.
        """
        return {0: 1.0}

    @property
    def steady(self) -> float:
        """The share of a run, from its start, in which no step depends on its planned length, but for its `regime`."""
        return 0.0

    def regime(self, total: int) -> Hashable:
        """What steps, from the first one on, make of the planned length: lengths of one regime begin alike."""
        return ()

    def unfinished(self, total: int) -> str:
        """What a run of `total` images would leave half done, in a line for its user; nothing in most families."""
        return ""

    def form(self, clock: Clock) -> Hashable:
        """Which of its forms the step at this place takes: steps of one form do the same with other numbers.

        One form will do unless a step branches on the clock. On a GPU each form is recorded once. None: it cannot be.
        """
        return ()

    def ladder(self) -> list[list[nn.Module]]:
        """D from the picture upwards, for FreezeD: rungs of parts of D that stand beside one another, each part put
        together from below. Only a D that is not put together in that order as a whole has more than one rung.
        """
        return [[self.parts.nets["D"]]]

    def prepare(self, images: Tensor, labels: Tensor | None) -> None:  # noqa: B027, most families need no look
        """Look at the data, uint8 images (N, C, H, W) with labels (N,) int64 or None, before the first step.

        Once for a run, with all of its images, and not a copy of them. What is found belongs to `parts`, and comes back
        with them; the same data find the same.
        """

    @abstractmethod
    def step(self, batches: Sequence[Batch], clock: Clock) -> dict[str, Tensor]:
        """One training step on `batches_per_step` batches.

        Returns 0-d tensors, still on the device (reading them would synchronise). Names used by the progress
        bar: `D_loss`, `G_loss`, `D_real`, `D_fake` (the share of real and fake that D judged rightly).
        """

    @abstractmethod
    def draw(self, n: int, labels: Tensor | None, generator: torch.Generator, truncation: float = 1.0) -> Tensor:
        """`n` images (n, C, H, W) in [-1, 1]; all randomness comes from `generator` (on the CPU)."""

    @abstractmethod
    def logits(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """D's logits (N,) float32 of `images` (N, C, H, W) in [-1, 1] with `labels` (N,) int64 or None, on the device.

        Larger means more real. D is in evaluation mode, its own mode comes back, and no gradient is kept: with
        `judging(D)`. Where a D compares the pictures of a batch, give it batches of the training's size and one kind.
        """

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.parts.nets[self.sampler].parameters()).device

    @torch.inference_mode()
    def sample(self, n: int, labels: Tensor | None = None, seed: int | None = None, truncation: float = 1.0) -> Tensor:
        """`n` images (n, C, H, W) float32 in [-1, 1] from the averaged generator.

        Sample i depends on (seed, i) and its label alone, whatever `n`; without a seed one is drawn at random.
        `labels` (n,) int64 is for models with `categories`; without it conditional ones take the classes in turn.
        `truncation` in (0, 1] trades variety for typicality.
        """
        if seed is None:
            seed = int(torch.seed() % 2**31)
        if self.conditional and labels is None:
            labels = torch.arange(n) % self.categories
        if self.categories and labels is not None:
            labels = torch.cat([labels.cpu(), labels.new_zeros(-n % self.block, device="cpu")]).to(self.device)
        images = torch.empty((n, self.spec.channels, self.spec.height, self.spec.width))
        for start in range(0, n, self.block):
            generator = torch.Generator().manual_seed(mix(seed, start // self.block))
            y = labels[start : start + self.block] if self.categories and labels is not None else None
            block = self.draw(self.block, y, generator, truncation)
            images[start : start + self.block] = block[: n - start].float().cpu()
        return images


def mix(*numbers: int) -> int:
    """One 63-bit seed from several numbers, such that nearby numbers give unrelated seeds (splitmix64)."""
    state = 0
    for number in numbers:
        state = (state ^ (number & (2**64 - 1))) + 0x9E3779B97F4A7C15 & (2**64 - 1)
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & (2**64 - 1)
        state = (state ^ state >> 27) * 0x94D049BB133111EB & (2**64 - 1)
        state ^= state >> 31
    return state >> 1


@contextmanager
def judging(net: nn.Module) -> Iterator[None]:
    """Within the block `net` is in evaluation mode and no gradient is kept; then every layer has its own mode again."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def minimize(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """One step of an optimiser down `loss`."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
