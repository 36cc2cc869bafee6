"""Decoded images on disk: one uncompressed .npy that is memory-mapped, and a small JSON beside it.

The name of an entry holds two hashes: of where the images come from and how they are decoded, and of what is there
(every path with size and time, or CRC). A changed folder so never meets its old entry, and the old one is removed
when the new one is written. An entry counts only with its JSON, which is written last; both are renamed into place.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from elegan.data.idx import cache_folder
from elegan.errors import UserError
from elegan.files import write_bytes

FORMAT = 1  # raise when decoding changes
STALE = 24 * 3600  # seconds without a write, after which a temporary file belongs to nobody

Fill = Callable[[np.ndarray], tuple[int, dict[str, Any]]]


def digest(value: Any) -> str:
    """12 hex digits of a JSON-able value."""
    return hashlib.sha256(json.dumps([FORMAT, value], sort_keys=True).encode()).hexdigest()[:12]


def load(source_key: str, content_key: str) -> tuple[np.ndarray, dict[str, Any]] | None:
    """The images uint8 (N, C, H, W), memory-mapped copy-on-write, and what `store` put beside them; else None."""
    stem = cache_folder() / "images" / f"{source_key}-{content_key}"
    try:
        facts = json.loads(stem.with_suffix(".json").read_text())
        images = np.load(stem.with_suffix(".npy"), mmap_mode="c")
    except (OSError, ValueError, EOFError):  # absent, or damaged: made again
        return None
    if not isinstance(facts, dict) or facts.get("shape") != list(images.shape) or images.dtype != np.uint8:
        return None
    return images, facts


def store(
    source_key: str, content_key: str, shape: tuple[int, int, int, int], fill: Fill
) -> tuple[np.ndarray, dict[str, Any]]:
    """Make an entry and open it. `fill` gets an array of `shape`, returns how many rows it used, and the facts.

    Space is reserved first, so that a full disk is a `UserError` before any work. Where no cache folder can be made the
    images stay in memory.
    """
    folder = cache_folder() / "images"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob(".*.tmp"):  # of a run that was killed
            if time.time() - stale.stat().st_mtime > STALE:
                stale.unlink(missing_ok=True)
        temporary = folder / f".{source_key}-{content_key}.{os.getpid()}-{threading.get_ident()}.tmp"
        temporary.touch()
    except OSError:
        images = np.empty(shape, np.uint8)
        used, facts = fill(images)
        return images[:used], {**facts, "uncached": f"{folder} cannot be written: images were decoded into memory"}
    try:
        used, facts = _write(temporary, shape, fill)
        target = folder / f"{source_key}-{content_key}.npy"
        for old in folder.glob(f"{source_key}-*"):
            if not old.name.startswith(f"{source_key}-{content_key}"):
                with contextlib.suppress(OSError):
                    old.unlink()
        temporary.replace(target)
        facts = {**facts, "shape": [used, *shape[1:]]}
        write_bytes(target.with_suffix(".json"), json.dumps(facts).encode())
    except OSError as error:
        if error.errno == errno.ENOSPC:
            need = int(np.prod(shape)) >> 20
            raise UserError(
                f"{folder}: no space for {need} MiB of decoded images; set ELEGAN_CACHE elsewhere"
            ) from None
        raise
    finally:
        temporary.unlink(missing_ok=True)
    opened = load(source_key, content_key)
    assert opened is not None, "an entry that was just written opens"
    return opened


def _write(path: Path, shape: tuple[int, int, int, int], fill: Fill) -> tuple[int, dict[str, Any]]:
    """The .npy at `path`: reserved, filled through a memory map, then shortened to the rows that were used."""
    header = _header(shape)
    with path.open("r+b") as file:
        file.write(header)
        size = len(header) + int(np.prod(shape, dtype=np.int64))
        if hasattr(os, "posix_fallocate"):  # writing to a map of a full disk would kill the process
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
    images = np.memmap(path, np.uint8, "r+", offset=len(header), shape=shape)
    used, facts = fill(images)
    images.flush()
    del images
    with path.open("r+b") as file:
        file.write(_header((used, *shape[1:])))
        file.truncate(len(header) + used * int(np.prod(shape[1:], dtype=np.int64)))
        os.fsync(file.fileno())
    return used, facts


def _header(shape: tuple[int, ...]) -> bytes:
    """A .npy header of fixed length, so that it can be rewritten in place."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape!r}, }}".ljust(117) + "\n"
    assert len(text) == 118
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()
