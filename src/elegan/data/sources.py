"""`open_data`: a name or a path becomes a `Dataset`."""

from __future__ import annotations

import hashlib
import os
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from elegan.data import idx
from elegan.data.dataset import Dataset
from elegan.data.fit import check_options, fit_array, parse_size
from elegan.data.holdout import in_test
from elegan.errors import UserError, nearest

NAMES = ("fashion-mnist", "garments", "mnist", "stacked-mnist")
ALIASES = {"fashion_mnist": "fashion-mnist", "fashionmnist": "fashion-mnist", "fmnist": "fashion-mnist"}
ALIASES |= {"stacked_mnist": "stacked-mnist", "stackedmnist": "stacked-mnist"}
SPLITS = ("train", "test", "validation")


def open_data(
    source: str | os.PathLike[str],
    split: str = "train",
    *,
    size: int | str | tuple[int, int] | None = None,
    channels: int | None = None,
    crop: str = "center",
    background: str = "white",
    labels: str | os.PathLike[str] | None = None,
    skip_broken: bool = False,
    validation: float = 0.0,
    limit: int | None = None,
    seed: int = 0,
    download: bool = True,
) -> Dataset:
    """Open one split ("train", "test" or "validation") of a data set.

    `source`: "fashion-mnist", "mnist", "garments" (drawn by this package), "stacked-mnist" (composed from MNIST), a
    folder or zip of images, a folder with the four IDX files, or an `.npz` with `images` uint8 (N, H, W, C) and, if
    labelled, `labels` (N,).
    A folder that is called like a built-in name is reached as "./mnist".

    - `size`: a number, (height, width) or "HxW"; by default that of the data (for images: their common size
      up to 128, else 64). `channels`: 1, 3 or 4; by default what the data has.
    - `crop`: "center", "pad" or "stretch", for images of another aspect; `background`: "white" or "black",
      behind transparency and in padding.
    - `labels`: a CSV or JSON file for a folder or zip; "none" to ignore labels (see `elegan.data.labels`).
    - `skip_broken`: leave unreadable images out (named in `Dataset.skipped`) instead of stopping.
    - `validation`: the share of the training images that the split "validation" takes from "train", to choose
      settings by without looking at the test images.
    - `limit`: at most so many images, the first ones; for garments and Stacked MNIST, how many are made.
    - `seed`: of the drawn garments and the stacked digits. `download`: whether missing named data may be fetched.

    Data without a test side of its own (no test/, val/ folder) gets one: each image whose content hash falls into
    the lowest tenth. An image never changes sides when others are added, and copies of it are on the same side.

    Raises `UserError` for a mistake in the arguments or the files.
    """
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}{nearest(str(split), SPLITS)}")
    if limit is not None and limit < 1:
        raise UserError(f"limit={limit} leaves no images; give a number of at least 1")
    if not 0 <= validation <= 0.5:
        raise UserError(f"validation={validation} is not a share of the training images; give one from 0 to 0.5")
    if split == "validation" and validation == 0:
        raise UserError("no share of the training images is held out for validation; give one, such as validation=0.1")
    side, split = split, "train" if split == "validation" else split
    ignore_labels = labels is not None and os.fspath(labels) == "none"
    wanted = parse_size(size)
    check_options(channels, crop, background)
    name = name_of(source)
    if name is not None:
        _no_label_file(name, labels)
        data = _open_builtin(name, split, size=wanted, channels=channels, seed=seed, limit=limit, download=download)
    else:
        options = {"size": wanted, "channels": channels, "crop": crop, "background": background}
        data = _open_path(Path(source).expanduser(), split, labels, skip_broken, options)
    if ignore_labels:
        data = without_labels(data)
    data = without_validation(data, side, validation)
    if limit is not None and limit < len(data):
        marks = None if data.labels is None else data.labels[:limit]
        data = replace(data, images=data.images[:limit], labels=marks, fingerprint="")
    images = fit_array(data.images, wanted, channels, crop, background)
    return data if images is data.images else replace(data, images=images, fingerprint="")


def _open_builtin(
    name: str,
    split: str,
    *,
    size: tuple[int, int] | None,
    channels: int | None,
    seed: int,
    limit: int | None,
    download: bool,
) -> Dataset:
    """One split of a data set of NAMES. What is made is made as it is asked for, what is read comes whole."""
    if name == "garments":
        from elegan.data.garments import garments_dataset

        return garments_dataset(split, size=size, channels=channels, seed=seed, count=limit)
    if name == "stacked-mnist":
        from elegan.data.stacked import stacked_mnist

        return stacked_mnist(_open_named("mnist", split, download), seed=seed, count=limit)
    return _open_named(name, split, download)


def _open_path(
    path: Path, split: str, labels: str | os.PathLike[str] | None, skip_broken: bool, options: dict[str, Any]
) -> Dataset:
    """One split of IDX files, an npz, or a folder or zip of images; `options` say how images of many sizes fit."""
    check_path(path)
    if is_idx_folder(path):
        _no_label_file(str(path), labels)
        return _open_idx(path, split)
    if path.suffix.lower() == ".npz":
        from elegan.data.npz import open_npz

        _no_label_file(str(path), labels)
        return open_npz(path, split)
    from elegan.data.folder import open_folder

    return open_folder(path, split, labels=labels, skip_broken=skip_broken, **options)


def _no_label_file(source: str, labels: str | os.PathLike[str] | None) -> None:
    if labels is not None and os.fspath(labels) != "none":
        raise UserError(f"{source}: brings its own labels; labels= names a file only for a folder or zip of images")


def name_of(source: str | os.PathLike[str]) -> str | None:
    """The built-in name that `source` is, or None for a path. A name wins over a folder of the same name."""
    text = os.fspath(source).strip()
    name = ALIASES.get(text.lower(), text.lower())
    return name if name in NAMES else None


def check_path(path: Path) -> None:
    """`UserError` unless the path is a folder, a zip or an npz."""
    if path.is_dir():
        return
    if not path.exists():
        looks_like_path = path.suffix or len(path.parts) > 1
        hint = "; give a folder or a zip of images, an .npz, or a name: " + ", ".join(NAMES)
        if not looks_like_path:
            hint = nearest(str(path), NAMES)
        raise UserError(f"no data called {str(path)!r}, and no such file or folder{hint}")
    if path.suffix.lower() != ".npz" and not zipfile.is_zipfile(path):
        raise UserError(f"{path}: is neither a folder, a zip of images nor an .npz; give one of these")


def is_idx_folder(path: Path) -> bool:
    """Whether a folder holds IDX files under their published names, for either split."""
    return path.is_dir() and any(idx.find_file(path, images) for images, _ in idx.FILES.values())


def _open_named(name: str, split: str, download: bool) -> Dataset:
    folder = idx.find_named(name, split)
    if folder is None:
        from elegan.data.download import fetch

        folder = fetch(name, allowed=download)
    images, labels, _ = idx.read_pair(folder, split, name)
    return Dataset(name, images[:, None], labels, list(idx.CLASS_NAMES[name]), split)


def _open_idx(folder: Path, split: str) -> Dataset:
    """A folder of IDX files; known content gets its class names, a missing test pair is held out of the train pair."""
    has = {s: idx.find_file(folder, files[0]) is not None for s, files in idx.FILES.items()}
    notes = []
    if all(has.values()):
        images, labels, known = idx.read_pair(folder, split)
    else:
        only = "train" if has["train"] else "test"
        images, labels, known = idx.read_pair(folder, only)
        chosen = held_out_rows(images, split, folder)
        images, labels = images[chosen], labels[chosen]
        notes.append(f"{folder} has only the {only} files: a tenth, chosen by content, is held out as test")
    names = idx.CLASS_NAMES[known] if known else [str(i) for i in range(int(labels.max()) + 1)]
    return Dataset(known or folder.resolve().name, images[:, None], labels, list(names), split, notes=notes)


def without_labels(data: Dataset) -> Dataset:
    """The same pictures as if nobody had named their classes."""
    return data if data.labels is None else replace(data, labels=None, class_names=[], fingerprint="")


def without_validation(data: Dataset, side: str, share: float) -> Dataset:
    """The side "train" or "validation" of a training split, divided by content; other data as it is."""
    if not share or data.split != "train":
        return data
    keys = [hashlib.sha256(b"validation" + np.ascontiguousarray(image).data).hexdigest() for image in data.images]
    rows = np.flatnonzero(in_test(keys, data.name, share) == (side == "validation"))
    return replace(
        data,
        images=data.images[rows],
        labels=None if data.labels is None else data.labels[rows],
        attributes={key: values[rows] for key, values in data.attributes.items()},
        split=side,
        fingerprint="",
    )


def held_out_rows(images: np.ndarray, split: str, where: Path) -> np.ndarray:
    """The rows (k,) of one side of the hold-out of an array of images (N, ...), keyed by each image's content."""
    keys = [hashlib.sha256(np.ascontiguousarray(image).data).hexdigest() for image in images]
    return np.flatnonzero(in_test(keys, where) == (split == "test"))
