"""Drawn garments: the ten Fashion-MNIST categories with known attributes, at any resolution, never on disk.

Image i of a split is a function of (seed, split, i): the same bytes whatever is drawn with it. Categories come in
shuffled blocks of ten, so every block is balanced. Grey images stand on black like Fashion-MNIST, RGB ones on a
light studio grey; RGBA ones have transparent surroundings.

Attributes of `Dataset.attributes`, arrays (N,):

- `category` int64: the label, an index into `CATEGORIES`;
- `colour`, `accent` int64: indices into `COLOURS` (cloth; stripes, trims and soles);
- `sleeve_length` float32: 0 (none) to 1 (to the wrist);
- `stripes` int64: 0 none, 1 horizontal, 2 vertical, 3 diagonal; `stripe_count` int64: how many on the body;
- `x`, `y` float32: the garment's centre, in fractions of the shorter side from the image's centre;
- `scale` float32: the garment's size, 1 for one that fills the shorter side.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from elegan.data import accessories, clothes
from elegan.data.clothes import Fabric
from elegan.data.dataset import Dataset
from elegan.data.drawing import Array, Layers, keyed_uniform
from elegan.data.idx import FASHION_CLASSES
from elegan.data.params import Params

CATEGORIES = list(FASHION_CLASSES)
DEFAULT_COUNT = {"train": 20_000, "test": 4_000}
STREAM = {"train": 1, "test": 2}
STRIPES = ["none", "horizontal", "vertical", "diagonal"]

#: name -> sRGB
COLOURS: dict[str, tuple[int, int, int]] = {
    "black": (38, 38, 42),
    "white": (246, 245, 240),
    "grey": (140, 142, 146),
    "navy": (36, 52, 102),
    "blue": (74, 128, 200),
    "red": (192, 44, 50),
    "green": (70, 120, 78),
    "yellow": (236, 190, 66),
    "pink": (238, 160, 176),
    "brown": (122, 82, 54),
}
STUDIO = (0.9, 0.9, 0.89)  # the background of RGB images

Draw = Callable[[Layers, Params], Fabric]
DRAW: list[Draw] = [
    clothes.t_shirt, clothes.trouser, clothes.pullover, clothes.dress, clothes.coat,
    accessories.sandal, clothes.shirt, accessories.sneaker, accessories.bag, accessories.ankle_boot,
]  # fmt: skip
SHOES = {5, 7, 9}

#: category -> chances of (horizontal, vertical, diagonal) stripes
STRIPE_CHANCES = {
    0: (0.38, 0.04, 0.0), 1: (0.0, 0.16, 0.0), 2: (0.4, 0.0, 0.0), 3: (0.2, 0.12, 0.0), 4: (0.0, 0.12, 0.0),
    6: (0.1, 0.32, 0.0), 7: (0.0, 0.0, 0.6), 8: (0.2, 0.15, 0.0),
}  # fmt: skip
#: category -> (chance of none, chance of short, short range, long range)
SLEEVES = {
    0: (0.0, 1.0, (0.2, 0.42), (0.0, 0.0)),
    2: (0.0, 0.0, (0.0, 0.0), (0.86, 1.0)),
    3: (0.45, 0.3, (0.14, 0.36), (0.7, 1.0)),
    4: (0.0, 0.0, (0.0, 0.0), (0.88, 1.02)),
    6: (0.0, 0.35, (0.26, 0.4), (0.86, 1.0)),
}
PIXELS_AT_ONCE = 1 << 16  # so that a batch of layers stays in the processor's cache


def _luminance(rgb: Array) -> Array:
    return rgb @ np.array([0.299, 0.587, 0.114])


_RGB = np.array(list(COLOURS.values()), np.float64) / 255
_LUMA = _luminance(_RGB)
#: colour -> the accents that stand out against it
_ACCENTS = [[k for k in range(len(COLOURS)) if abs(_LUMA[k] - luma) > 0.33] for luma in _LUMA]
#: colour -> its brightness in grey images: lifted, so that black cloth is visible on the black background
_TONE = (0.29 + 0.66 * _LUMA**0.8).astype(np.float32)


def garment_attributes(index: Array, seed: int = 0, split: str = "train") -> dict[str, Array]:
    """The attributes of images `index` (n,), without drawing them. See the module's list."""
    index, stream = np.asarray(index, np.int64), STREAM[split]

    def u(name: str) -> Array:
        return keyed_uniform(seed, stream, index, name)

    block, place = index // 10, index % 10
    keys = np.stack([keyed_uniform(seed, stream, block, f"category {c}") for c in range(10)], axis=1)
    category = np.argsort(keys, axis=1, kind="stable")[np.arange(len(index)), place]
    colour = (u("colour") * len(COLOURS)).astype(np.int64)
    widest = np.array([len(a) for a in _ACCENTS])
    pick = (u("accent") * widest[colour]).astype(np.int64)
    accent = np.array([_ACCENTS[c][k] for c, k in zip(colour, pick, strict=True)], np.int64)
    chances = np.array([STRIPE_CHANCES.get(c, (0.0, 0.0, 0.0)) for c in range(10)]).cumsum(1)[category]
    drawn = u("stripes")[:, None] < chances
    stripes = np.where(drawn.any(1), 1 + drawn.argmax(1), 0)
    most = np.array([0, 6, 4, 4])[stripes]
    count = np.where(stripes > 0, 2 + (u("stripe count") * (most - 1)).astype(np.int64), 0)
    sleeve = np.zeros(len(index), np.float32)
    kind, length = u("sleeve kind"), u("sleeve length")
    for c, (none, short, near, far) in SLEEVES.items():
        low = np.where(kind < none + short, near[0], far[0])
        high = np.where(kind < none + short, near[1], far[1])
        value = np.where(kind < none, 0, low + length * (high - low))
        sleeve = np.where(category == c, value, sleeve).astype(np.float32)
    scale = (0.86 + 0.2 * u("scale")).astype(np.float32)
    room = np.maximum(0.5 * (1 - 0.93 * scale), 0.01)
    return {
        "category": category.astype(np.int64),
        "colour": colour,
        "accent": accent,
        "sleeve_length": np.minimum(sleeve, 1).astype(np.float32),
        "stripes": stripes.astype(np.int64),
        "stripe_count": count.astype(np.int64),
        "x": ((2 * u("x") - 1) * room).astype(np.float32),
        "y": ((2 * u("y") - 1) * room).astype(np.float32),
        "scale": scale,
    }


def draw_garments(
    index: Array,
    size: tuple[int, int] = (28, 28),
    channels: int = 1,
    seed: int = 0,
    split: str = "train",
    attributes: dict[str, Array] | None = None,
) -> Array:
    """Draw images `index` (n,) -> uint8 (n, C, H, W). `attributes` overrides those that the index has."""
    index = np.asarray(index, np.int64)
    known = {**garment_attributes(index, seed, split), **(attributes or {})}
    out = np.empty((len(index), channels, *size), np.uint8)
    at_once = max(1, PIXELS_AT_ONCE // (size[0] * size[1]))
    jobs = []
    for category in range(10):
        rows = np.flatnonzero(known["category"] == category)
        jobs += [(category, rows[i : i + at_once]) for i in range(0, len(rows), at_once)]

    def work(job: tuple[int, Array]) -> None:
        category, rows = job
        picked = {name: values[rows] for name, values in known.items()}
        out[rows] = _draw_batch(category, index[rows], picked, size, channels, seed, STREAM[split])

    with ThreadPoolExecutor(min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)) as pool:
        list(pool.map(work, jobs))
    return out


def _draw_batch(
    category: int,
    index: Array,
    attributes: dict[str, Array],
    size: tuple[int, int],
    channels: int,
    seed: int,
    stream: int,
) -> Array:
    """One batch of one category -> uint8 (n, C, H, W)."""
    p = Params(seed, stream, index, CATEGORIES[category], attributes["sleeve_length"])
    at = _canvas(category, attributes, size, p)
    fabric = DRAW[category](at, p)
    _stripes(at, fabric, attributes)
    at.darken(np.clip(2 - 2 * at.cover, 0, 1), 0.25)  # a soft dark rim, as cloth has where it turns away
    return _paint(at, attributes, channels)


def _canvas(category: int, attributes: dict[str, Array], size: tuple[int, int], p: Params) -> Layers:
    """Empty layers whose coordinates place, scale and slightly shear the garment."""
    height, width = size
    unit = np.float32(min(size) / 2)  # pixels per 1 at scale 1
    scale, px, py = (attributes[k].astype(np.float32)[:, None, None] for k in ("scale", "x", "y"))
    x = ((np.arange(width, dtype=np.float32) + 0.5 - width / 2) / unit)[None, None, :]
    y = ((np.arange(height, dtype=np.float32) + 0.5 - height / 2) / unit)[None, :, None]
    x, y = (x - 2 * px) / scale, (y - 2 * py) / scale
    if category in SHOES:
        y = y + p("shear", -0.04, 0.04) * x
    else:
        x = x + p("shear", -0.04, 0.04) * y
    return Layers(x, y, 1 / (unit * scale))


def _stripes(at: Layers, fabric: Fabric, attributes: dict[str, Array]) -> None:
    """Stripes in the accent colour: `stripe_count` of them over the fabric's 0..1 coordinate."""
    kind = attributes["stripes"][:, None, None]
    if not kind.any():
        return
    count = np.maximum(attributes["stripe_count"], 1).astype(np.float32)[:, None, None]
    t = np.where(kind == 1, fabric.down, fabric.across)
    u = t * count
    period = fabric_period(t, at)
    distance = (np.abs(u - np.floor(u) - 0.5) - 0.24) / np.maximum(count * period, 1e-6)
    mask = np.clip(0.5 - distance, 0, 1) * fabric.mask * ((t > 0) & (t < 1)) * (kind > 0)
    at.tint(mask)


def fabric_period(t: Array, at: Layers) -> Array:
    """How far the stripe coordinate moves from one pixel to the next, (n, 1, 1): the width of antialiasing."""
    dx = np.abs(np.diff(t, axis=2)).max(axis=(1, 2), keepdims=True) if t.shape[2] > 1 else 0
    dy = np.abs(np.diff(t, axis=1)).max(axis=(1, 2), keepdims=True) if t.shape[1] > 1 else 0
    return np.maximum(dx, dy)


def _paint(at: Layers, attributes: dict[str, Array], channels: int) -> Array:
    """Layers -> uint8 (n, C, H, W)."""
    cover, shade, accent = at.cover, at.shade, at.accent
    out = np.empty((len(cover), channels, *cover.shape[1:]), np.uint8)
    for c in range(min(channels, 3)):
        table = _TONE if channels == 1 else _RGB[:, c].astype(np.float32)
        cloth, trim = (table[attributes[k]][:, None, None] for k in ("colour", "accent"))
        value = np.clip((cloth + (trim - cloth) * accent) * shade, 0, 1)
        if channels != 4:
            behind = 0.0 if channels == 1 else STUDIO[c]
            value = behind + (value - behind) * cover
        out[:, c] = (value * 255 + 0.5).astype(np.uint8)
    if channels == 4:
        out[:, 3] = (cover * 255 + 0.5).astype(np.uint8)
    return out


def garments_dataset(
    split: str = "train",
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    seed: int = 0,
    count: int | None = None,
) -> Dataset:
    """The data set "garments": 20,000 training and 4,000 test images unless `count` says otherwise."""
    index = np.arange(count or DEFAULT_COUNT[split])
    attributes = garment_attributes(index, seed, split)
    images = draw_garments(index, size or (28, 28), channels or 1, seed, split, attributes)
    return Dataset("garments", images, attributes["category"].copy(), list(CATEGORIES), split, attributes=attributes)
