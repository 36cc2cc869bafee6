"""IDX files (the format of MNIST and Fashion-MNIST), gzipped or not, and where to look for them.

The format: two zero bytes, a type code (8: uint8, the only one that images use), the number of dimensions, each
dimension as a big-endian uint32, then the values. The reader is strict: what it returns is exactly what the
header promises, and everything else is a `UserError` that names the file.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from elegan.errors import UserError

UINT8 = 8
LARGEST = 1 << 34  # bytes; a header that promises more is damaged
CHUNK = 1 << 20

FASHION_CLASSES = [
    "t-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
]  # fmt: skip
DIGIT_CLASSES = [str(digit) for digit in range(10)]
CLASS_NAMES = {"fashion-mnist": FASHION_CLASSES, "mnist": DIGIT_CLASSES}
TITLES = {"fashion-mnist": "Fashion-MNIST", "mnist": "MNIST"}
SUBFOLDERS = {"fashion-mnist": ("fashion-mnist", "FashionMNIST/raw"), "mnist": ("mnist", "MNIST/raw")}

#: split -> (images, labels), the published names without `.gz`
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}

#: SHA-256 of the decompressed content (gzip containers differ between mirrors)
SHA256 = {
    "fashion-mnist": {
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
    "mnist": {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
}


def read_idx(path: Path, ndim: int | None = None) -> tuple[np.ndarray, str]:
    """The uint8 array of an IDX file, and the SHA-256 of its decompressed content.

    `ndim` is the number of dimensions that the caller needs (3 for images, 1 for labels). Raises `UserError` for a
    file that is missing, unreadable, damaged, cut short, too long, empty or not IDX.
    """
    try:
        with path.open("rb") as raw:
            if raw.read(2) == b"\x1f\x8b":
                raw.seek(0)
                with gzip.GzipFile(fileobj=raw) as stream:
                    return _parse(stream, path, ndim)
            raw.seek(0)
            return _parse(raw, path, ndim)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: damaged gzip data ({error}); delete the file and fetch it again") from None
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give the path of an existing IDX file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); check the file") from None


def _parse(stream: BinaryIO | gzip.GzipFile, path: Path, ndim: int | None) -> tuple[np.ndarray, str]:
    """Header, values, and nothing after them. Memory is taken as the bytes arrive, never on the header's word."""
    head = stream.read(4)
    if len(head) < 4 or head[:2] != b"\0\0":
        raise UserError(f"{path}: not an IDX file (bad magic number {head.hex()!r}); fetch it again")
    if head[2] != UINT8:
        raise UserError(f"{path}: IDX type code {head[2]:#04x} is not supported, only 0x08 (uint8); convert it")
    if head[3] == 0 or (ndim is not None and head[3] != ndim):
        wanted = f"{ndim} were expected; images have 3, labels 1" if ndim else "at least 1 was expected"
        raise UserError(f"{path}: has {head[3]} dimensions, {wanted}: check that this is the right file")
    sizes = stream.read(4 * head[3])
    if len(sizes) < 4 * head[3]:
        raise UserError(f"{path}: cut short inside its header; delete the file and fetch it again")
    shape = tuple(int.from_bytes(sizes[i : i + 4], "big") for i in range(0, len(sizes), 4))
    expected = math.prod(shape)
    if expected == 0 or expected > LARGEST or len(shape) > 32:
        raise UserError(f"{path}: its header says {'x'.join(map(str, shape))} values, which cannot be; fetch it again")
    values, digest = bytearray(), hashlib.sha256(head + sizes)
    while len(values) < expected and (chunk := stream.read(min(CHUNK, expected - len(values)))):
        values += chunk
        digest.update(chunk)
    if len(values) < expected:
        raise UserError(
            f"{path}: cut short, {len(values):,} of {expected:,} values; delete the file and fetch it again"
        )
    if stream.read(1):
        raise UserError(f"{path}: has bytes after its {expected:,} values; delete the file and fetch it again")
    return np.frombuffer(values, np.uint8).reshape(shape), digest.hexdigest()


def find_file(folder: Path, name: str) -> Path | None:
    """`name` or `name.gz` in a folder, also in the spelling `train-images.idx3-ubyte`."""
    for spelling in (name, name.replace("-idx", ".idx")):
        for candidate in (folder / spelling, folder / f"{spelling}.gz"):
            if candidate.is_file():
                return candidate
    return None


def cache_folder() -> Path:
    """`ELEGAN_CACHE`, else `elegan` in the user's cache folder (XDG)."""
    if chosen := os.environ.get("ELEGAN_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "elegan"


def search_folders() -> list[Path]:
    """Where named data is looked for, in this order."""
    chosen = os.environ.get("ELEGAN_DATA")
    first = [Path(chosen).expanduser()] if chosen else []
    return [*first, Path("data"), Path("../shared/data"), cache_folder() / "data"]


def find_named(name: str, split: str) -> Path | None:
    """The folder that holds the two files of this split of a named data set, or None.

    MNIST and Fashion-MNIST use the same file names, so a folder that holds the files directly is passed over
    when its labels are those of the other data set.
    """
    for base in search_folders():
        for folder in (*(base / sub for sub in SUBFOLDERS[name]), base):
            found = [find_file(folder, file) for file in FILES[split]]
            if None in found:
                continue
            if folder == base and found[1] is not None:
                _, digest = read_idx(found[1], 1)
                others = (SHA256[other][FILES[split][1]] for other in SHA256 if other != name)
                if digest in others:
                    continue
            return folder
    return None


def read_pair(folder: Path, split: str, name: str | None = None) -> tuple[np.ndarray, np.ndarray, str | None]:
    """Images uint8 (N, H, W), labels int64 (N,), and the name of the data set that this content is known to be.

    With `name` the content must be that published data set, byte for byte.
    """
    images_name, labels_name = FILES[split]
    paths = [find_file(folder, file) for file in (images_name, labels_name)]
    for path, file in zip(paths, (images_name, labels_name), strict=True):
        if path is None:
            raise UserError(f"{folder}: has no {file}[.gz]; put the {split} images and labels there together")
    assert paths[0] is not None and paths[1] is not None
    (images, images_sha), (labels, labels_sha) = read_idx(paths[0], 3), read_idx(paths[1], 1)
    if name is not None:
        for path, file, digest in zip(paths, (images_name, labels_name), (images_sha, labels_sha), strict=True):
            if digest != SHA256[name][file]:
                raise UserError(
                    f"{path}: is not the published {TITLES[name]} (SHA-256 differs); delete it to fetch it again, "
                    f"or use it as it is with --data {folder}"
                )
    if len(images) != len(labels):
        raise UserError(f"{folder}: {len(images):,} {split} images but {len(labels):,} labels; the files do not match")
    known = next((n for n in SHA256 if SHA256[n][images_name] == images_sha), None)
    return images, labels.astype(np.int64), known
