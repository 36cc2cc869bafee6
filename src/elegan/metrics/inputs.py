"""What is handed to the judge, checked: splits of a data set, and generated images with their labels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from elegan.errors import UserError

SMALLEST = 20  # below this not one of the numbers means anything


@dataclass(frozen=True)
class Split:
    """One split of a data set as the metrics want it: uint8 images (N, H, W, C)."""

    name: str
    images: np.ndarray
    labels: np.ndarray | None = None
    fingerprint: str = ""
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)


def as_split(data: Any, what: str, labels: np.ndarray | None = None) -> Split:
    """A `Dataset` (uint8 (N, C, H, W)) or a uint8 array (N, H, W, C) as `Split`, else `UserError`."""
    if isinstance(data, Split):
        return data
    if hasattr(data, "images") and hasattr(data, "name"):
        images = np.asarray(data.images).transpose(0, 2, 3, 1)
        known = getattr(data, "labels", None) if labels is None else labels
        names = tuple(getattr(data, "class_names", ()))
        split = Split(data.name, images, known, getattr(data, "fingerprint", ""), names)
    else:
        split = Split("array", np.asarray(data), labels)
    check_images(split.images, what)
    if split.labels is not None and len(split.labels) != len(split):
        raise UserError(f"{len(split.labels)} labels for {len(split)} {what} images: give one label an image")
    return split


def check_images(images: np.ndarray, what: str) -> None:
    """`UserError` unless these are at least `SMALLEST` uint8 images (N, H, W, C) with 1, 3 or 4 channels."""
    if images.dtype != np.uint8:
        hint = "NaN is among them; the model has diverged" if _broken(images) else "elegan.images.to_uint8 makes them"
        raise UserError(f"{what} images must be uint8 (0 to 255), not {images.dtype}: {hint}")
    if images.ndim != 4 or images.shape[3] not in (1, 3, 4):
        raise UserError(f"{what} images must be (N, H, W, C) with 1, 3 or 4 channels, not {images.shape}")
    if len(images) < SMALLEST:
        raise UserError(f"{len(images)} {what} images are too few: give at least {SMALLEST}, better 10000")


def size(images: np.ndarray) -> str:
    """`28x28x1` of images (N, H, W, C)."""
    return "x".join(map(str, images.shape[1:]))


def _broken(images: np.ndarray) -> bool:
    return np.issubdtype(images.dtype, np.floating) and not np.isfinite(images).all()


def samples_and_labels(
    samples: np.ndarray | Callable[[int], Any], labels: np.ndarray | None, n: int, seed: int
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """At most n images (N, H, W, C), the labels that were asked for, if any, and their rows in what was given."""
    drawn = samples(n) if callable(samples) else samples
    images, asked = drawn if isinstance(drawn, tuple) else (drawn, labels)
    images = np.asarray(images)
    check_images(images, "generated")
    rows = draw_rows(len(images), n, seed)
    if asked is None:
        return images[rows], None, rows
    asked = np.asarray(asked)
    if len(asked) != len(images):
        raise UserError(f"{len(asked)} labels for {len(images)} generated images: give one label an image")
    return images[rows], asked[rows], rows


def draw_rows(available: int, n: int, seed: int) -> np.ndarray:
    """Sorted row numbers: all, or a random n of them."""
    if available <= n:
        return np.arange(available)
    return np.sort(np.random.default_rng(seed).choice(available, n, replace=False))


def content_key(data: Any) -> str:
    """The content of what was given: the same arrays need not be prepared again."""
    if data is None:
        return ""
    if isinstance(getattr(data, "fingerprint", None), str) and data.fingerprint:
        return f"{data.name} {data.fingerprint}"
    array = np.ascontiguousarray(getattr(data, "images", data))
    return hashlib.blake2b(array.data, digest_size=16).hexdigest() + str((array.shape, array.dtype))
