"""Arrays on disk under a key: features of the real side and converted weights, in the package's cache folder.

An entry is one safetensors file with a checksum of its content in the header, written under another name and renamed.
One that is damaged is removed, said so on standard error, and counts as absent. The folder of features stays below a
limit: what was not used for longest goes first.

`ELEGAN_CACHE` is the cache folder; `ELEGAN_FEATURE_CACHE` the limit for features: `4g`, `500m`, or `off`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from elegan.data.idx import cache_folder
from elegan.errors import UserError
from elegan.files import write_bytes

LIMIT = "2g"
STALE = 24 * 3600  # seconds, after which the temporary file of a killed process is removed
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def limit() -> int:
    """Bytes that cached features may take: `ELEGAN_FEATURE_CACHE`, else 2 GiB; 0 for `off`. UserError for nonsense."""
    said = os.environ.get("ELEGAN_FEATURE_CACHE", LIMIT).strip().lower()
    if said in ("off", "no", "0"):
        return 0
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", said)
    if match is None:
        raise UserError(f"ELEGAN_FEATURE_CACHE={said}: give a size such as 500m or 4g, or off")
    return int(float(match[1]) * _UNITS[match[2]])


def digest(*parts: object) -> str:
    """32 hex digits of texts, numbers and arrays."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, np.ndarray):
            state.update(f"{part.dtype.str}{part.shape}".encode())
            state.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
        else:
            state.update(f"{type(part).__name__} {part}\n".encode())
    return state.hexdigest()


def features_path(key: str) -> Path:
    """Where the features under this key are kept."""
    return cache_folder() / "features" / f"{key}.safetensors"


def read(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of an entry, or None if there is none. A damaged one is removed, with a note."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            sum_ = (file.metadata() or {}).get("digest")
        if sum_ != _content(arrays):
            raise ValueError("its content is not what was written")
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        with contextlib.suppress(OSError):
            path.unlink()
        print(f"note: {path} was damaged ({str(error).splitlines()[0]}): made again", file=sys.stderr)
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # used just now
    return arrays


def write(path: Path, arrays: dict[str, np.ndarray], *, most: int | None = None) -> None:
    """Make an entry. `most`: bytes that the folder may take with it. Raises OSError where it cannot be written."""
    from safetensors.numpy import save

    data = save({k: np.ascontiguousarray(v) for k, v in arrays.items()}, {"digest": _content(arrays)})
    if most is not None and len(data) > most:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if most is not None:
        _make_room(path.parent, most - len(data))
    write_bytes(path, data)


def kept(key: str, needed: set[str], make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays under a key of the features' folder, where all that is `needed` is there; else made, and kept.

    Where the limit is 0 nothing is read or kept; a disk that is full or read only is no error.
    """
    most = limit()
    if not most:
        return make()
    path = features_path(key)
    arrays = read(path)
    if arrays is None or not needed <= arrays.keys():
        arrays = make()
        with contextlib.suppress(OSError):
            write(path, arrays, most=most)
    return arrays


def _content(arrays: dict[str, np.ndarray]) -> str:
    return digest(*(part for name in sorted(arrays) for part in (name, arrays[name])))


def _make_room(folder: Path, most: int) -> None:
    """Remove what was not used for longest, until the entries take at most `most` bytes; and forgotten leftovers."""
    for leftover in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - leftover.stat().st_mtime > STALE:
                leftover.unlink()
    entries = []
    for path in folder.glob("*.safetensors"):
        with contextlib.suppress(OSError):  # another process was faster
            facts = path.stat()
            entries.append((facts.st_mtime, facts.st_size, path))
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total <= most:
            break
        with contextlib.suppress(OSError):
            path.unlink()
        total -= size
