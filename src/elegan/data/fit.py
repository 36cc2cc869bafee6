"""From a picture of any mode and size to the one shape of a data set: orientation, mode, crop, one resize."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from elegan.errors import UserError, nearest
from elegan.images import MODES, resize, to_pil

CROPS = ("center", "pad", "stretch")
BACKGROUNDS = {"white": 255, "black": 0}
LARGEST_SIDE = 4096


@dataclass(frozen=True)
class Fit:
    """How every picture is brought to one shape.

    `crop`: "center" cuts the longer side to the target's aspect, "pad" adds bars, "stretch" ignores the aspect.
    `background` ("white" or "black") fills the bars and stands behind transparent pixels that lose their alpha.
    """

    height: int
    width: int
    channels: int
    crop: str = "center"
    background: str = "white"

    def key(self) -> dict[str, Any]:
        """Everything that changes the pixels, for the cache's key."""
        return asdict(self)


def parse_size(size: int | str | tuple[int, int] | list[int] | None) -> tuple[int, int] | None:
    """64, "64", "64x48" or (64, 48) (height x width) -> (height, width); None stays None."""
    if size is None:
        return None
    pair: list[int]
    if isinstance(size, str):
        match = re.fullmatch(r"\s*(\d+)\s*(?:[xX,]\s*(\d+)\s*)?", size)
        pair = [int(g) for g in match.groups() if g] if match else []
    elif isinstance(size, int):
        pair = [] if isinstance(size, bool) else [size]
    else:
        try:
            pair = [int(s) for s in size]
        except (TypeError, ValueError):
            pair = []
    if len(pair) == 1:
        pair *= 2
    if len(pair) != 2 or not all(1 <= s <= LARGEST_SIDE for s in pair):
        raise UserError(
            f"size {size!r} is not an image size; give one number or HEIGHTxWIDTH, each from 1 to {LARGEST_SIDE}"
        )
    return pair[0], pair[1]


def check_options(channels: int | None, crop: str, background: str) -> None:
    """`UserError` for an impossible choice, before any file is read."""
    if channels is not None and channels not in MODES:
        raise UserError(f"channels={channels!r} is impossible; use 1 (grey), 3 (RGB) or 4 (RGBA)")
    if crop not in CROPS:
        raise UserError(f"unknown crop policy {crop!r}{nearest(str(crop), CROPS)}")
    if background not in BACKGROUNDS:
        raise UserError(f"unknown background {background!r}{nearest(str(background), BACKGROUNDS)}")


def natural_channels(image: Image.Image) -> int:
    """Channels that a picture needs, by its mode: 1, 3, or 4 where it has transparency."""
    if image.has_transparency_data:
        return 4
    return 1 if image.mode in ("L", "1") or image.mode.startswith(("I", "F")) else 3


def to_mode(image: Image.Image, channels: int, background: str) -> Image.Image:
    """A picture of any mode in the mode of `channels`; lost transparency is composited on the background."""
    if image.mode.startswith(("I", "F")):  # 16-bit grey: Pillow would clip it at 255 instead of scaling
        values = np.asarray(image, np.float64) * (1.0 if image.mode == "F" else 1 / 257)
        image = Image.fromarray(values.clip(0, 255).round().astype(np.uint8))
    if image.has_transparency_data and channels != 4:
        image = image.convert("RGBA")
        behind = Image.new("RGBA", image.size, (BACKGROUNDS[background],) * 3 + (255,))
        image = Image.alpha_composite(behind, image).convert("RGB")
    elif image.mode == "P" and channels == 1:
        image = image.convert("RGB")
    return image if image.mode == MODES[channels] else image.convert(MODES[channels])


def _to_aspect(image: Image.Image, fit: Fit) -> Image.Image:
    """Cut or pad to the target's aspect, at the source's resolution, so that only one resize follows."""
    width, height = image.size
    wider = width * fit.height - height * fit.width
    if wider == 0 or fit.crop == "stretch":
        return image
    keep_height = (wider > 0) == (fit.crop == "center")
    if keep_height:
        target = (max(1, round(height * fit.width / fit.height)), height)
    else:
        target = (width, max(1, round(width * fit.height / fit.width)))
    left, top = (width - target[0]) // 2, (height - target[1]) // 2
    if fit.crop == "center":
        return image.crop((left, top, left + target[0], top + target[1]))
    fill = BACKGROUNDS[fit.background]
    colour: Any = (0, 0, 0, 0) if fit.channels == 4 else fill if fit.channels == 1 else (fill,) * 3
    canvas = Image.new(image.mode, target, colour)
    canvas.paste(image, (-left, -top))
    return canvas


def fit_image(image: Image.Image, fit: Fit) -> np.ndarray:
    """One picture -> uint8 (C, H, W): EXIF orientation, mode, crop policy, then one antialiased resize."""
    image = ImageOps.exif_transpose(image)
    image = to_mode(image, fit.channels, fit.background)
    image = resize(_to_aspect(image, fit), (fit.height, fit.width))
    pixels = np.asarray(image, np.uint8)
    return pixels[None] if fit.channels == 1 else pixels.transpose(2, 0, 1)


def fit_array(
    images: np.ndarray,
    size: tuple[int, int] | None,
    channels: int | None,
    crop: str = "center",
    background: str = "white",
) -> np.ndarray:
    """uint8 (N, C, H, W) in another size or number of channels; the same array when nothing changes."""
    n, had, height, width = images.shape
    height, width = size or (height, width)
    channels = channels or had
    if (had, height, width) == (channels, *images.shape[2:]):
        return images
    if (height, width) == images.shape[2:] and had == 1 and channels == 3:
        return np.repeat(images, 3, axis=1)
    fit = Fit(height, width, channels, crop, background)
    fitted = np.empty((n, channels, height, width), np.uint8)
    for i in range(n):
        fitted[i] = fit_image(to_pil(images[i].transpose(1, 2, 0)), fit)
    return fitted
