"""What a folder, zip or npz of pictures holds, from a look at some of them: what a recipe's settings follow from.

At most `LOOKED_AT` files are opened (every n-th, in the order of their paths), and of these at most `DECODED` are
decoded, small. The same files give the same answer.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from elegan.data.folder import FORMATS, Seen, look
from elegan.data.labels import find_labels
from elegan.data.listing import BrokenFileError, Item, Listing, list_images, split_of
from elegan.data.sources import check_path, is_idx_folder, name_of
from elegan.errors import UserError
from elegan.images import to_pil

LOOKED_AT, DECODED = 1_000, 120
SIDE = 96  # of the small pictures that are looked at closely
COLOURED = 4.0  # mean distance of the channels, of 255, from which on a picture is not grey
SEE_THROUGH = 0.005  # share of pixels that are transparent, from which on alpha is used
#: Text and figures: most pixels in two of 16 bands of lightness, and many steps between dark and light. (Measured:
#: MNIST 0.90 and 0.13, printed text 0.60 and 0.58 to 0.83 and 0.22, drawn garments 0.87 and 0.04.)
FLAT, BUSY, BANDS = 0.55, 0.1, 16


@dataclass
class Survey:
    """What was found. `seen` of `count` pictures were looked at."""

    name: str
    count: int
    seen: int
    different: int
    """Different pictures among those seen."""
    sizes: list[tuple[int, int]]
    """(height, width) of each picture seen."""
    channels: list[int]
    """Channels that each picture seen has by its mode: 1, 3 or 4."""
    coloured: float = 0.0
    """Share of the decoded pictures that are not grey, whatever their mode."""
    see_through: float = 0.0
    """Share of the pictures seen that have transparent pixels."""
    written: float = 0.0
    """Share of the decoded pictures that look like text or figures: two tones, and many edges between them."""
    classes: dict[str, int] = field(default_factory=dict)
    """Class name -> pictures; empty when unlabelled."""
    where_labels: str = ""
    """Where the labels come from, for a sentence."""


def can_survey(source: str | os.PathLike[str]) -> bool:
    """Whether `source` is a folder, zip or npz of pictures of the user's own: no named data, no IDX files."""
    path = Path(source).expanduser()
    return name_of(source) is None and path.exists() and not is_idx_folder(path)


def survey(source: str | os.PathLike[str]) -> Survey:
    """Look at the pictures of a folder, zip or npz. UserError when there are none, or its label file is wrong."""
    path = Path(source).expanduser()
    check_path(path)
    return _survey_npz(path) if path.suffix.lower() == ".npz" else _survey_files(path)


def _survey_npz(path: Path) -> Survey:
    from elegan.data.npz import read_npz

    images, labels, names = read_npz(path)  # (N, C, H, W)
    rows = _every(len(images), LOOKED_AT)
    keys = {hashlib.sha256(np.ascontiguousarray(images[i]).data).digest() for i in rows}
    size, channels = (int(images.shape[2]), int(images.shape[3])), int(images.shape[1])
    found = Survey(path.stem, len(images), len(rows), len(keys), [size] * len(rows), [channels] * len(rows))
    _look_closely(found, [to_pil(images[i].transpose(1, 2, 0)) for i in _every(len(images), DECODED)])
    if labels is not None:
        found.classes = {name: int((labels == c).sum()) for c, name in enumerate(names)}
        found.where_labels = "its labels"
    return found


def _survey_files(path: Path) -> Survey:
    listing = list_images(path)
    try:
        splits, _ = split_of(listing)
        has_splits = any(s is not None for s in splits)
        if has_splits:
            listing.images = [item for item, side in zip(listing.images, splits, strict=True) if side is not None]
        marks, names = find_labels(listing, has_splits, None)
        seen = _headers(listing, [listing.images[i] for i in _every(len(listing.images), LOOKED_AT)])
        if not seen:
            raise UserError(f"{path}: none of its images can be read; check the files")
        all_seen = len(listing.images) <= LOOKED_AT  # then it is known which ones are broken, and these do not count
        found = Survey(
            path.resolve().stem if path.is_file() else path.resolve().name,
            count=len(seen) if all_seen else len(listing.images),
            seen=len(seen),
            different=len({s.sha256 for _, s in seen}),
            sizes=[s.size for _, s in seen],
            channels=[s.channels for _, s in seen],
        )
        chosen = [seen[i][0] for i in _every(len(seen), DECODED)]
        _look_closely(found, [p for p in (_small(listing, item) for item in chosen) if p is not None])
    finally:
        listing.close()
    if marks is not None:
        found.classes = {name: int((marks == c).sum()) for c, name in enumerate(names)}
        from_file = any(item.path.lower().endswith(("labels.csv", "labels.json")) for item in listing.others)
        found.where_labels = "a label file" if from_file or listing.others else "the subfolders"
    return found


def _every(count: int, most: int) -> list[int]:
    """At most `most` places of `count`, evenly spread."""
    return [int(i) for i in np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))]


def _headers(listing: Listing, items: list[Item]) -> list[tuple[Item, Seen]]:
    found = []
    for item in items:
        try:
            found.append((item, look(listing.read(item))))
        except BrokenFileError:
            continue  # opening the data says which file that is
    return found


def _small(listing: Listing, item: Item) -> Image.Image | None:
    """One picture, small; a JPEG is decoded small to begin with."""
    try:
        image = Image.open(io.BytesIO(listing.read(item)), formats=FORMATS)
        image.draft(None, (2 * SIDE, 2 * SIDE))
        image.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
        image.load()
    except Exception:  # a decoder may raise anything on damaged data; opening the data says which file that is
        return None
    return image


def _look_closely(found: Survey, pictures: list[Image.Image]) -> None:
    """Colour, transparency, and whether they look like text."""
    if not pictures:
        return
    coloured = see_through = written = 0
    for picture in pictures:
        rgba = np.asarray(picture.convert("RGBA"), np.float32)  # (H, W, 4)
        visible = rgba[..., 3] > 127
        colour = rgba[..., :3][visible] if visible.any() else rgba[..., :3].reshape(-1, 3)
        coloured += float((colour.max(1) - colour.min(1)).mean()) > COLOURED
        see_through += float((rgba[..., 3] < 250).mean()) > SEE_THROUGH
        written += _looks_written(rgba[..., :3].mean(2))
    found.coloured, found.see_through = coloured / len(pictures), see_through / len(pictures)
    found.written = written / len(pictures)


def _looks_written(light: np.ndarray) -> bool:
    """Whether lightness (H, W), 0 to 255, is that of text or figures."""
    bands = np.bincount((light * BANDS / 256).astype(int).ravel(), minlength=BANDS) / light.size
    dark = light < np.quantile(light, (0.02, 0.98)).mean()
    steps = np.mean(dark[:, 1:] != dark[:, :-1]) + np.mean(dark[1:] != dark[:-1])
    return bool(np.sort(bands)[-2:].sum() > FLAT and steps > BUSY)


def size_counts(found: Survey) -> Counter[tuple[int, int]]:
    """How many of the pictures seen have each (height, width)."""
    return Counter(found.sizes)
