"""The contract between a GAN family and the rest of the package. No GAN logic lives here.

A module in `families/` exports exactly three names:

- `Config`: its settings, a frozen `FamilyConfig`; the docstring under each field becomes its help text;
- `PRESETS`: `{name: Preset}`, with at least `tiny` (seconds on one core);
- `Model`: made as `Model(config, spec)`, see `Family`.

The file is found by its name: nothing is registered.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn


class FamilyConfig(BaseModel):
    """What every family's settings share: frozen, strict about keys, documented by attribute docstrings."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)

    batch: int = 64
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
    """Where the run stands, in real images seen: schedules follow it, never the step count or the time."""

    seen: int
    total: int

    @property
    def progress(self) -> float:
        """0 at the start, 1 at the planned end."""
        return min(self.seen / max(self.total, 1), 1.0)


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


class Family(ABC):
    """A model in training. `parts` holds all of its state; nothing else may change between steps."""

    config: FamilyConfig
    spec: ImageSpec
    parts: Parts

    #: which of `parts.nets` draw the samples, and nothing but: `Model.load_for_sampling` needs no others
    sampler: ClassVar[str] = "G_ema"

    def __init__(self, config: Any, spec: ImageSpec) -> None:
        self.config, self.spec = config, spec

    @property
    def batches_per_step(self) -> int:
        """How many real batches one step consumes (WGAN's critic takes several)."""
        return 1

    @abstractmethod
    def step(self, batches: Sequence[Batch], clock: Clock) -> dict[str, Tensor]:
        """One training step on `batches_per_step` batches.

        Returns 0-d tensors, still on the device (reading them would synchronise). Names used by the progress
        bar: `D_loss`, `G_loss`, `D_real`, `D_fake` (the share of real and fake that D judged rightly).
        """

    @abstractmethod
    def sample(
        self, n: int, labels: Tensor | None = None, seed: int | None = None, truncation: float = 1.0
    ) -> Tensor:
        """`n` images (n, C, H, W) in [-1, 1] from the averaged generator.

        Sample i depends on (seed, i) alone, whatever `n`. `labels` (n,) is for conditional models; without it
        they take classes in turn. `truncation` in (0, 1] trades variety for typicality.
        """
