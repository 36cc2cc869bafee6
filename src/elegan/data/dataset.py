"""What every source of images becomes: `Dataset`, uint8 images in memory (or memory-mapped) with their labels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np

from elegan.images import grid, png_bytes

HASHED_AT_ONCE = 1 << 24  # bytes


def fingerprint_of(images: np.ndarray, labels: np.ndarray | None) -> str:
    """16 hex digits of the content: shape, pixels and labels, and nothing else (no names, no paths)."""
    digest = hashlib.blake2b(repr((images.shape, labels is not None)).encode(), digest_size=8)
    rows = max(1, HASHED_AT_ONCE // max(1, images[0].nbytes if len(images) else 1))
    for start in range(0, len(images), rows):
        digest.update(np.ascontiguousarray(images[start : start + rows]).data)
    if labels is not None:
        digest.update(np.ascontiguousarray(labels, np.int64).data)
    return digest.hexdigest()


def sheet_rows(
    total: int, labels: np.ndarray | None, classes: int, n: int = 80, columns: int = 10
) -> tuple[np.ndarray, int]:
    """Which images (k,) a contact sheet shows, row by row, and in how many columns.

    Labelled data has one class in a column (the first ten classes), unlabelled data is sampled evenly.
    """
    if labels is None or classes < 2:
        picked = np.linspace(0, total - 1, min(n, total)).astype(np.int64)
        return picked, min(columns, len(picked))
    members = [np.flatnonzero(labels == c) for c in range(min(columns, classes))]
    members = [m for m in members if len(m)]
    rows = min(max(1, n // len(members)), *(len(m) for m in members), n)
    return np.stack([m[:rows] for m in members], axis=1).ravel(), len(members)


@dataclass(repr=False)
class Dataset:
    """One split of a data set. `images` stay uint8; a folder's are memory-mapped from the cache."""

    name: str
    images: np.ndarray
    """uint8 (N, C, H, W); C is 1 (grey), 3 (RGB) or 4 (RGBA)."""
    labels: np.ndarray | None = None
    """int64 (N,), or None."""
    class_names: list[str] = field(default_factory=list)
    """Name of each label; empty when unlabelled."""
    split: str = "train"
    fingerprint: str = ""
    """16 hex digits of the content (pixels and labels): equal content, equal fingerprint."""
    attributes: dict[str, np.ndarray] = field(default_factory=dict)
    """What is known of each image beyond its label, arrays (N,): the drawn garments have it."""
    skipped: list[str] = field(default_factory=list)
    """Files left out, each with the reason."""
    notes: list[str] = field(default_factory=list)
    """What the user should be told about how the data was read."""

    def __post_init__(self) -> None:
        assert self.images.dtype == np.uint8 and self.images.ndim == 4, self.images.shape
        assert self.labels is None or self.labels.shape == (len(self.images),)
        if not self.fingerprint:
            self.fingerprint = fingerprint_of(self.images, self.labels)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def channels(self) -> int:
        return int(self.images.shape[1])

    @property
    def height(self) -> int:
        return int(self.images.shape[2])

    @property
    def width(self) -> int:
        return int(self.images.shape[3])

    @property
    def classes(self) -> int:
        """Number of classes; 0 when unlabelled."""
        return len(self.class_names)

    @property
    def counts(self) -> dict[str, int]:
        """Images per class name; empty when unlabelled."""
        if self.labels is None:
            return {}
        per_class = np.bincount(self.labels, minlength=self.classes)
        return {name: int(n) for name, n in zip(self.class_names, per_class, strict=True)}

    def __repr__(self) -> str:
        labelled = f", {self.classes} classes" if self.classes else ", unlabelled"
        left_out = f", {len(self.skipped)} files left out" if self.skipped else ""
        return (
            f"Dataset({self.name!r}, {self.split}: {len(self):,} images {self.height}x{self.width}"
            f"x{self.channels}{labelled}{left_out}, {self.fingerprint})"
        )

    def sheet(self, n: int = 80, columns: int = 10, scale: int | None = None) -> np.ndarray:
        """A contact sheet, uint8 (H', W', C): `n` images; labelled data one class a column (first ten classes).

        `scale` repeats pixels; by default small images are enlarged to about 56 pixels.
        """
        picked, columns = sheet_rows(len(self), self.labels, self.classes, n, columns)
        pictures = self.images[picked].transpose(0, 2, 3, 1)
        if scale is None:
            scale = max(1, round(56 / max(self.height, self.width)))
        return grid(pictures, columns, scale=scale)

    def _repr_png_(self) -> bytes | None:
        """The contact sheet, which a notebook shows inline."""
        return png_bytes(self.sheet()) if len(self) else None
