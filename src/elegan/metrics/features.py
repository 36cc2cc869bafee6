"""Features: images -> the matrices that every metric is computed from.

A *feature set* is one of

- `fashion`, `digits`: small classifiers trained by this project (`scripts/train_features.py`) and shipped in
  `weights/`, each with a card. Features are the penultimate activations (after the global average),
  probabilities come from the last layer. They take 28x28 grey images and nothing else;
- a path to another `.safetensors` file written by that script;
- `pixels`: the image itself, divided by 255;
- `descriptors`: weight free, for images of any size (see `descriptors.py`).

Distances in one feature set never compare with distances in another, nor with published Inception numbers.
Everything is evaluated in float32 on the CPU in a fixed internal batch, the last one padded: the features of
an image do not depend on how many others are asked for.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from elegan.errors import UserError, nearest

if TYPE_CHECKING:
    import torch

SHIPPED = ("fashion", "digits")
WEIGHT_FREE = ("pixels", "descriptors")
BATCH = 250  # fits the caches; any fixed number would do
WEIGHTS = Path(__file__).parent / "weights"


class Extracted(NamedTuple):
    """What a feature set says about N images."""

    features: np.ndarray  # (N, D) float32
    probabilities: np.ndarray | None  # (N, K) float32, rows sum to 1; None where there is no classifier


@dataclass(frozen=True)
class Features:
    """A feature set: call it on uint8 images (N, H, W, C). Made by `load_features`."""

    name: str
    checksum: str = ""  # SHA-256 of the weights file, first 16 hex digits; "" for weight-free ones
    card: dict[str, Any] = field(default_factory=dict)
    net: torch.nn.Module | None = None

    @property
    def classes(self) -> int:
        """How many classes the classifier knows; 0 where there is none."""
        return int(self.card.get("classes", 0))

    def __call__(self, images: np.ndarray) -> Extracted:
        """uint8 (N, H, W, C) -> features and class probabilities. `UserError` for other shapes."""
        if self.net is not None:
            return _classify(self, images)
        if self.name == "pixels":
            return Extracted(images.reshape(len(images), -1).astype(np.float32) / 255, None)
        from elegan.metrics.descriptors import descriptors

        return Extracted(descriptors(images), None)

    def __str__(self) -> str:
        if self.net is None:
            return f"{self.name} (weight free)"
        accuracy = self.card.get("test_accuracy")
        said = f", test accuracy {100 * accuracy:.2f} %" if accuracy else ""
        return f"{self.name} (sha256 {self.checksum}{said})"


@lru_cache(maxsize=8)
def load_features(name: str) -> Features:
    """The feature set of this name, or of this `.safetensors` file. `UserError` when there is none."""
    if name in WEIGHT_FREE:
        return Features(name)
    path = WEIGHTS / f"{name}.safetensors" if name in SHIPPED else Path(name)
    if not path.is_file():
        if path.suffix == ".safetensors":
            raise UserError(f"no feature weights at {path}; make them with scripts/train_features.py")
        known = nearest(name, SHIPPED + WEIGHT_FREE)
        raise UserError(f"unknown features {name!r}{known}, or a .safetensors path")
    return _read(path)


def _read(path: Path) -> Features:
    from safetensors import SafetensorError, safe_open

    from elegan.metrics.classifiers import fold

    try:
        with safe_open(path, framework="pt") as f:
            card = json.loads((f.metadata() or {}).get("card", "{}"))
            tensors = {key: f.get_tensor(key) for key in f.keys()}  # noqa: SIM118 (not a dict)
        net = build(card["architecture"], card["classes"])
        net.load_state_dict(tensors)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        why = str(error).splitlines()[0]
        raise UserError(f"{path} is not a feature classifier of scripts/train_features.py: {why}") from error
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return Features(path.stem if path.parent == WEIGHTS else str(path), checksum, card, fold(net.eval()))


def _classify(features: Features, images: np.ndarray) -> Extracted:
    import torch

    shape = tuple(features.card["image"])  # (H, W, C)
    if images.shape[1:] != shape:
        got, made = "x".join(map(str, images.shape[1:])), "x".join(map(str, shape))
        raise UserError(f"features {features.name!r} take {made} images, not {got}; use 'descriptors'")
    assert features.net is not None
    out_features, out_probabilities = [], []
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            part = images[start : start + BATCH]
            batch = torch.zeros((BATCH, *shape), dtype=torch.uint8)
            batch[: len(part)] = torch.from_numpy(np.ascontiguousarray(part))
            x = batch.permute(0, 3, 1, 2).float().div_(255)  # (BATCH, C, H, W), channels_last by construction
            hidden, logits = features.net(x)
            out_features.append(hidden[: len(part)])
            out_probabilities.append(logits[: len(part)].softmax(1))
        return Extracted(torch.cat(out_features).numpy(), torch.cat(out_probabilities).numpy())


def build(architecture: str, classes: int) -> torch.nn.Module:
    """The classifier called `residual` (shipped) or `plain` (model search): (N, 1, H, W) in [0, 1] -> hidden,
    logits.

    The two differ on purpose (depth, pooling, kernel, activation, width): a model chosen with one and judged
    with the other cannot profit from the chooser's blind spots.
    """
    from elegan.metrics.classifiers import PlainClassifier, ResidualClassifier

    known = {"residual": ResidualClassifier, "plain": PlainClassifier}
    if architecture not in known:
        raise UserError(f"unknown classifier architecture {architecture!r}{nearest(architecture, known)}")
    return known[architecture](classes).to(memory_format=_channels_last())  # type: ignore[call-overload]


def _channels_last() -> torch.memory_format:
    import torch

    return torch.channels_last
