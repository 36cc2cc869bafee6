"""An `.npz` with `images` uint8 (N, H, W, C) or (N, H, W) and, if labelled, `labels` (N,): the form of our samples.

`class_names` (K,) of strings is read when it is there. Pickled arrays are refused.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from elegan.data.dataset import Dataset
from elegan.errors import UserError
from elegan.images import MODES


def read_npz(path: Path) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Images uint8 (N, C, H, W), labels int64 (N,) or None, class names. Raises `UserError`."""
    try:
        if not zipfile.is_zipfile(path):
            raise UserError(f"{path}: is not an .npz, or cut short; save it again with numpy.savez")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if "images" not in archive.files:
                held = ", ".join(archive.files) or "nothing"
                raise UserError(f"{path}: has no array 'images' (it holds {held}); save it with images=...")
            images = archive["images"]
            labels = archive["labels"] if "labels" in archive.files else None
            names = archive["class_names"] if "class_names" in archive.files else None
    except UserError:
        raise
    except (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: cannot be read as an .npz ({error}); save it again") from None
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in MODES or images.size == 0:
        raise UserError(
            f"{path}: 'images' is {images.dtype} {images.shape}; it must be uint8 (N, H, W, C) with C 1, 3 or 4"
        )
    if labels is not None:
        whole = np.issubdtype(labels.dtype, np.integer)
        if not whole or labels.shape != (len(images),) or labels.min() < 0:
            raise UserError(
                f"{path}: 'labels' is {labels.dtype} {labels.shape}; it must be {len(images)} integers from 0 up"
            )
        labels = labels.astype(np.int64)
        if labels.max() >= 1 << 20:
            raise UserError(f"{path}: 'labels' reaches {labels.max()}; classes are counted from 0 without gaps")
    chosen = [] if labels is None else [str(i) for i in range(int(labels.max()) + 1)]
    if names is not None and labels is not None:
        if names.dtype.kind != "U" or names.ndim != 1 or len(names) < len(chosen):
            raise UserError(f"{path}: 'class_names' must be at least {len(chosen)} strings, one for each label")
        chosen = [str(n) for n in names]
    return images.transpose(0, 3, 1, 2), labels, chosen


def open_npz(path: Path, split: str) -> Dataset:
    """One side of an npz: the held-out tenth is chosen by each image's content."""
    from elegan.data.sources import held_out_rows

    images, labels, names = read_npz(path)
    rows = held_out_rows(images, split, path)
    chosen = None if labels is None else labels[rows]
    picked = np.ascontiguousarray(images[rows])
    notes = [f"an .npz has no test side: {len(rows):,} of {len(images):,} images are the {split} side"]
    return Dataset(path.stem, picked, chosen, names, split, notes=notes)
