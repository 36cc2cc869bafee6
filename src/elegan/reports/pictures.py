"""Pictures inside a page: uint8 arrays and run folder PNGs as data URIs, small enough to mail.

Sample grids in a run folder repeat pixels so that they can be looked at. A page lets the browser do that, so the
grids are taken back to one pixel a pixel. They are kept exactly where there is room, else as lossy WebP.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, features

from elegan.images import to_pil

PAD = 2  # of `images.grid`, before pixels are repeated
ROOM = 1_400_000  # bytes for all frames of one run's grids
QUALITIES = (82, 60, 35)  # of lossy WebP, the first that fits its room


class Picture(NamedTuple):
    """A picture of a page. `scale`: how often its pixels were repeated where it lay in a file."""

    uri: str
    width: int
    height: int
    alt: str
    scale: int = 1

    @property
    def shown_width(self) -> int:
        """Pixels of a page that it would fill."""
        return self.width * self.scale


def picture(image: np.ndarray, alt: str, *, scale: int = 1) -> Picture:
    """uint8 (H, W, C) as a picture. `scale`: shown so many times larger, by the browser."""
    return Picture(_uri(to_pil(image), None), image.shape[1], image.shape[0], alt, scale)


def sheet(images: np.ndarray, columns: int, alt: str, *, scale: int = 1, pad: int = PAD) -> Picture:
    """uint8 images (N, H, W, C) tiled row by row, with gaps that show the page's own ground."""
    n, height, width, channels = images.shape
    rows = -(-n // columns)
    canvas = np.zeros((rows * (height + pad) - pad, columns * (width + pad) - pad, 4 if channels > 1 else 2), np.uint8)
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + pad), (i % columns) * (width + pad)
        cell = canvas[top : top + height, left : left + width]
        cell[..., :channels] = image
        if channels != 4:
            cell[..., -1] = 255
    mode = "LA" if canvas.shape[2] == 2 else "RGBA"
    made = Image.frombytes(mode, (canvas.shape[1], canvas.shape[0]), canvas.tobytes())
    return Picture(_uri(made, QUALITIES[0] if canvas.nbytes > 120_000 else None), made.width, made.height, alt, scale)


def frames(paths: Sequence[Path], size: tuple[int, int], alts: Sequence[str], room: int = ROOM) -> list[Picture | None]:
    """Sample grids of a run whose images are `size` = (height, width), as pictures that take `room` bytes together.

    One that cannot be read is None.
    """
    scale = repeated(size)
    small = []
    for image in map(_open, paths):
        plain, factor = (None, 1) if image is None else _unrepeat(image, scale)
        small.append((None if plain is None else clear_gaps(plain, size), factor))
    made: list[Picture | None] = []
    for quality in (None, *QUALITIES):
        made = [
            None if image is None else Picture(_uri(image, quality), image.width, image.height, alt, factor)
            for (image, factor), alt in zip(small, alts, strict=True)
        ]
        if sum(len(p.uri) for p in made if p) <= room:
            break
    return made


def file_picture(path: Path, alt: str, widest: int = 1400) -> Picture | None:
    """A PNG of a run folder, or None where it is missing or damaged."""
    image = _open(path)
    if image is None:
        return None
    if image.width > widest:
        image = image.resize((widest, max(1, round(image.height * widest / image.width))))
    return Picture(
        _uri(image, QUALITIES[0] if image.width * image.height > 500_000 else None), image.width, image.height, alt
    )


def repeated(size: tuple[int, int]) -> int:
    """How often the pixels of images of this (height, width) are repeated in a run folder's grids."""
    return max(1, round(56 / max(size)))


def cells(image: np.ndarray, size: tuple[int, int]) -> np.ndarray | None:
    """The images (rows, columns, H, W, C) that a grid of a run folder was tiled from; None where it is none."""
    scale = repeated(size)
    small = image[::scale, ::scale]
    height, width = size[0] + PAD, size[1] + PAD
    if (small.shape[0] + PAD) % height or (small.shape[1] + PAD) % width or image.shape[0] % scale:
        return None
    rows, columns = (small.shape[0] + PAD) // height, (small.shape[1] + PAD) // width
    whole = np.zeros((rows * height, columns * width, small.shape[2]), np.uint8)
    whole[: small.shape[0], : small.shape[1]] = small
    tiles = whole.reshape(rows, height, columns, width, -1).transpose(0, 2, 1, 3, 4)
    return tiles[:, :, : size[0], : size[1]]


def clear_gaps(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A grid (one pixel a pixel) whose white gaps let the page's own ground through; another picture unchanged."""
    height, width = size[0] + PAD, size[1] + PAD
    if (image.height + PAD) % height or (image.width + PAD) % width:
        return image
    inside = (np.arange(image.height) % height < size[0])[:, None] & (np.arange(image.width) % width < size[1])[None]
    image = image.convert("RGBA")
    pixels = np.array(image)
    pixels[~inside] = 0
    return Image.fromarray(pixels)


def read(path: Path) -> np.ndarray | None:
    """A PNG as uint8 (H, W, C), or None where it is missing or damaged."""
    image = _open(path)
    return None if image is None else np.atleast_3d(np.asarray(image))


def _open(path: Path) -> Image.Image | None:
    try:
        with Image.open(path) as image:
            image.load()
            return image.copy() if image.mode in ("L", "LA", "RGB", "RGBA") else image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _unrepeat(image: Image.Image, scale: int) -> tuple[Image.Image, int]:
    """The picture without repeated pixels, and how often they were; unchanged where they are not repeats."""
    if scale < 2 or image.width % scale or image.height % scale:
        return image, 1
    pixels = np.asarray(image)
    small = pixels[::scale, ::scale]
    if not np.array_equal(small.repeat(scale, 0).repeat(scale, 1), pixels):
        return image, 1
    return Image.fromarray(np.ascontiguousarray(small)), scale


def _uri(image: Image.Image, quality: int | None) -> str:
    """A data URI: WebP where Pillow has it (exact without a quality), else PNG."""
    buffer = io.BytesIO()
    if features.check("webp"):
        image = image.convert({"L": "RGB", "LA": "RGBA"}.get(image.mode, image.mode))
        image.save(buffer, "WEBP", lossless=quality is None, quality=quality or 60, method=4, exact=False)
        kind = "webp"
    else:
        image.save(buffer, "PNG", optimize=True)
        kind = "png"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
