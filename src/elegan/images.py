"""Pictures at the edge of the program: uint8 <-> [-1, 1], grids, PNG and GIF, and the one resize.

Inside, images are float tensors (N, C, H, W) in [-1, 1]; outside, uint8 arrays. C is 1 (grey), 3 (RGB) or
4 (RGBA) everywhere.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from elegan.files import write_bytes

if TYPE_CHECKING:
    import torch

MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def to_float(images: torch.Tensor) -> torch.Tensor:
    """uint8 (N, C, H, W) -> float32 in [-1, 1], on the same device: x / 127.5 - 1."""
    return images.float().mul_(1 / 127.5).sub_(1.0)


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """float (N, C, H, W) in [-1, 1] -> uint8; values outside are clipped. Inverse of `to_float`."""
    return images.float().add(1.0).mul(127.5).round_().clamp_(0, 255).to(dtype=_torch().uint8)


def _torch():  # type: ignore[no-untyped-def]
    import torch

    return torch


def to_pil(image: np.ndarray) -> Image.Image:
    """uint8 (H, W, C) or (H, W) -> PIL image of mode L, RGB or RGBA."""
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    return Image.fromarray(np.ascontiguousarray(image))


def resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The one resize: antialiased Lanczos to `size` = (height, width), the width of the kernel following the scale.

    RGBA is premultiplied first, so that transparent pixels do not bleed their colour into the edge.
    """
    height, width = size
    if image.size == (width, height):
        return image
    if image.mode == "RGBA":
        return image.convert("RGBa").resize((width, height), Image.Resampling.LANCZOS).convert("RGBA")
    return image.resize((width, height), Image.Resampling.LANCZOS)


def grid(images: np.ndarray, columns: int | None = None, pad: int = 2, scale: int = 1) -> np.ndarray:
    """Tile uint8 images (N, H, W, C) into one (H', W', C), row by row; `columns` defaults to a near-square.

    `scale` repeats pixels (nearest), so that 28x28 samples can be looked at. The gaps are white.
    """
    n, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    canvas = np.full((rows * (height + pad) - pad, columns * (width + pad) - pad, channels), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + pad), (i % columns) * (width + pad)
        canvas[top : top + height, left : left + width] = image
    return canvas.repeat(scale, 0).repeat(scale, 1)


def png_bytes(image: np.ndarray) -> bytes:
    """uint8 (H, W, C) -> the bytes of a PNG file."""
    buffer = io.BytesIO()
    to_pil(image).save(buffer, "PNG")
    return buffer.getvalue()


def save_png(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Write uint8 (H, W, C) as a PNG, atomically."""
    write_bytes(Path(path), png_bytes(image))


def save_gif(path: str | os.PathLike[str], frames: Sequence[np.ndarray], seconds: float = 0.25) -> None:
    """Write uint8 frames (H, W, C) of one size as a looping GIF; the last frame stays four times as long."""
    pictures = [to_pil(f) for f in frames]
    pictures = [p.convert("RGB") if p.mode == "RGBA" else p for p in pictures]
    durations = [int(1000 * seconds)] * len(pictures)
    durations[-1] *= 4
    buffer = io.BytesIO()
    pictures[0].save(buffer, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0, disposal=1)
    write_bytes(Path(path), buffer.getvalue())
