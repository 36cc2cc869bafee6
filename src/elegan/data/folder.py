"""A folder or zip of images -> `Dataset`: scanned, decoded once into the cache, then memory-mapped.

Opening has three steps. (1) List the files, without reading them; with the options this is the cache's key. (2) On a
miss read every file once: its size and mode (which decide the shape of the data) and the hash of its bytes (which
decides the held-out tenth). (3) Decode in threads into the cache, training images first, so that each split is one
contiguous view.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from elegan.data import cache
from elegan.data.dataset import Dataset, fingerprint_of
from elegan.data.fit import Fit, fit_image, natural_channels
from elegan.data.holdout import in_test
from elegan.data.labels import find_labels
from elegan.data.listing import BrokenFileError, Item, Listing, list_images, split_of
from elegan.data.progress import bar
from elegan.errors import UserError

NATIVE_UP_TO = 128  # a size that all images share is kept up to this
DEFAULT_SIZE = 64
EXIF_ORIENTATION = 0x0112
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")  # by content: no other decoder is ever started
_warnings_are_errors = threading.Lock()  # `catch_warnings` is not thread-safe


@dataclass(frozen=True)
class Seen:
    """What a file's header says, and the hash of its bytes."""

    size: tuple[int, int]  # (height, width), upright
    mode: str
    channels: int
    sha256: str


def look(data: bytes) -> Seen:
    """Read the header of an encoded image. Raises `BrokenFileError`, also above Pillow's limit of 89 million pixels."""
    try:
        with _warnings_are_errors, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
        if (image.format != "PNG" or "exif" in image.info) and image.getexif().get(EXIF_ORIENTATION, 1) >= 5:
            width, height = height, width
        return Seen((height, width), image.mode, natural_channels(image), hashlib.sha256(data).hexdigest())
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise BrokenFileError("too many pixels (a decompression bomb?)") from None
    except UnidentifiedImageError:
        raise BrokenFileError("empty file" if not data else "not an image, or damaged") from None
    except Exception as error:  # a decoder may raise anything on damaged data
        raise BrokenFileError(f"damaged ({error})") from None


def decode(data: bytes, fit: Fit) -> np.ndarray:
    """An encoded image -> uint8 (C, H, W). Raises `BrokenFileError` when it is cut short or damaged."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            image.load()
            return fit_image(image, fit)
    except Exception as error:  # a decoder may raise anything on damaged data
        raise BrokenFileError(str(error) or type(error).__name__) from None


def threads() -> int:
    """Processors that this process may use (decoding releases Python's lock)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_folder(
    source: Path,
    split: str,
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    crop: str = "center",
    background: str = "white",
    labels: str | os.PathLike[str] | None = None,
    skip_broken: bool = False,
) -> Dataset:
    """One split of a folder or zip of images; see `open_data` for the arguments."""
    listing = list_images(source)
    try:
        splits, notes = split_of(listing)
        has_splits = any(s is not None for s in splits)
        if has_splits:
            kept = [i for i, s in enumerate(splits) if s is not None]
            listing.images, splits = [listing.images[i] for i in kept], [splits[i] for i in kept]
        marks, names = find_labels(listing, has_splits, labels)
        options = {"size": size, "channels": channels, "crop": crop, "background": background}
        where = str(source.resolve())
        source_key = cache.digest([where, options, skip_broken])
        content_key = cache.digest([[i.path, i.stamp] for i in listing.images])
        opened = cache.load(source_key, content_key)
        if opened is None:
            opened = _decode_all(listing, splits, options, skip_broken, (source_key, content_key))
    finally:
        listing.close()
    images, facts = opened
    return _one_split(images, facts, split, source, marks, names, [*notes, *facts["notes"]])


def _one_split(
    images: np.ndarray,
    facts: dict[str, Any],
    split: str,
    source: Path,
    marks: np.ndarray | None,
    names: list[str],
    notes: list[str],
) -> Dataset:
    """The rows of one split of a decoded folder: a view, not a copy."""
    first = facts["train"]
    rows = slice(0, first) if split == "train" else slice(first, len(images))
    if facts.get("uncached"):
        notes = [*notes, facts["uncached"]]
    if rows.start == len(images) or rows.stop == 0:
        raise UserError(f"{source}: its {split} side has no readable image; add some, or give another folder")
    chosen = None if marks is None else marks[np.array(facts["order"], np.int64)[rows]]
    picked = np.asarray(images[rows])  # a view: still mapped, no longer a `memmap` to print
    print_key = None if chosen is None else hashlib.sha256(chosen.tobytes()).hexdigest()[:8]
    fingerprint = facts["fingerprints"][split]
    if print_key is not None:
        fingerprint = hashlib.blake2b(f"{fingerprint}{print_key}".encode(), digest_size=8).hexdigest()
    name = source.resolve().stem if source.is_file() else source.resolve().name
    return Dataset(name, picked, chosen, names, split, fingerprint, skipped=facts["skipped"], notes=notes)


def _scan(listing: Listing) -> tuple[list[Seen | None], list[str]]:
    """Every file's header and hash, and "path (reason)" of those that cannot be read."""
    seen: list[Seen | None] = []
    broken = []
    with bar(f"Reading {listing.source.name}", len(listing.images)) as advance:
        for item in listing.images:
            try:
                seen.append(look(listing.read(item)))
            except BrokenFileError as error:
                seen.append(None)
                broken.append(f"{item.path} ({error})")
            advance(1)
    return seen, broken


def _refuse(source: Path, broken: list[str]) -> UserError:
    more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
    return UserError(
        f"{source}: {len(broken)} unreadable image{'s' * (len(broken) > 1)}: {', '.join(broken[:3])}{more}; "
        "replace them, or leave them out with skip_broken=True (--set skip_broken=true)"
    )


def choose_fit(seen: list[Seen], options: dict[str, Any]) -> tuple[Fit, list[str]]:
    """The shape of the data: what the user chose, else the files' common size (up to 128, else 64) and modes."""
    sizes, notes = {s.size for s in seen}, []
    size = options["size"]
    if size is None:
        common = next(iter(sizes)) if len(sizes) == 1 else None
        if common is not None and max(common) <= NATIVE_UP_TO:
            size = common
        else:
            size = (DEFAULT_SIZE, DEFAULT_SIZE)
            notes.append(
                f"images of {len(sizes)} size(s) were brought to {DEFAULT_SIZE}x{DEFAULT_SIZE}; choose with size="
            )
    channels = options["channels"]
    if channels is None:
        needs = {s.channels for s in seen}
        channels = 4 if needs == {4} else 1 if needs == {1} else 3
        if len(needs) > 1:
            modes = ", ".join(f"{n} {m}" for m, n in Counter(s.mode for s in seen).most_common())
            notes.append(f"images of different modes ({modes}) were brought to {channels} channels")
    return Fit(size[0], size[1], channels, options["crop"], options["background"]), notes


def _decode_all(
    listing: Listing,
    splits: list[str | None],
    options: dict[str, Any],
    skip_broken: bool,
    keys: tuple[str, str],
) -> tuple[np.ndarray, dict[str, Any]]:
    """Scan, decide the shape and the sides, decode into the cache."""
    seen, broken = _scan(listing)
    good = [i for i, s in enumerate(seen) if s is not None]
    if broken and not skip_broken:
        raise _refuse(listing.source, broken)
    if not good:
        raise UserError(f"{listing.source}: none of its {len(seen)} images can be read; check the files")
    headers = [s for s in seen if s is not None]
    fit, notes = choose_fit(headers, options)
    if splits[0] is not None:
        is_test = np.array([splits[i] == "test" for i in good])
    else:
        is_test = in_test([s.sha256 for s in headers], listing.source)
        notes.append(f"no test folder: {int(is_test.sum()):,} of {len(good):,} images are held out as test")
    order = [good[k] for k in np.argsort(is_test, kind="stable")]

    def fill(out: np.ndarray) -> tuple[int, dict[str, Any]]:
        late = _decode_into(out, listing, [listing.images[i] for i in order], fit)
        if late and not skip_broken:
            raise _refuse(listing.source, [f"{listing.images[order[k]].path} ({late[k]})" for k in sorted(late)])
        kept = [k for k in range(len(order)) if k not in late]
        if not kept:
            raise UserError(f"{listing.source}: none of its {len(seen)} images can be read; check the files")
        for to, k in enumerate(kept):
            if to != k:
                out[to] = out[k]
        rows = [order[k] for k in kept]
        test = set(np.array(good)[is_test].tolist())
        train = sum(i not in test for i in rows)
        skipped = [*broken, *(f"{listing.images[order[k]].path} ({late[k]})" for k in sorted(late))]
        prints = {"train": fingerprint_of(out[:train], None), "test": fingerprint_of(out[train : len(rows)], None)}
        return len(rows), {
            "order": rows, "train": train, "skipped": sorted(skipped), "notes": notes, "fingerprints": prints,
        }  # fmt: skip

    return cache.store(*keys, (len(order), fit.channels, fit.height, fit.width), fill)


def _decode_into(out: np.ndarray, listing: Listing, items: list[Item], fit: Fit) -> dict[int, str]:
    """Decode items in threads into the rows of `out`; returns row -> reason for those that failed."""
    failed: dict[int, str] = {}
    chunk = 64

    with bar(f"Decoding {listing.source.name}", len(items)) as advance, ThreadPoolExecutor(threads()) as pool:

        def work(start: int) -> int:
            rows = range(start, min(start + chunk, len(items)))
            for row in rows:
                try:
                    out[row] = decode(listing.read(items[row]), fit)
                except BrokenFileError as error:
                    failed[row] = str(error)
            return len(rows)

        for done in pool.map(work, range(0, len(items), chunk)):
            advance(done)
    return failed
