"""Fetch Fashion-MNIST, MNIST or one published file into the cache folder: mirrors, checksum, atomic rename.

A mirror that cannot be reached is not asked again; one that sends other bytes is passed over for that file.
A file under its final name is always complete and verified.
"""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from elegan.data import idx
from elegan.data.progress import bar
from elegan.errors import UserError

TIMEOUT = 5.0  # seconds without an answer or a byte, after which a mirror is given up
CHUNK = 1 << 16

MIRRORS: dict[str, tuple[str, ...]] = {
    "fashion-mnist": (
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "http://yann.lecun.com/exdb/mnist/",
    ),
}


class MirrorError(Exception):
    """This mirror did not deliver this file; `gone` when asking it for another is pointless."""

    def __init__(self, reason: str, gone: bool) -> None:
        super().__init__(reason)
        self.gone = gone


def fetch(
    name: str,
    *,
    allowed: bool = True,
    mirrors: Sequence[str] | None = None,
    folder: Path | None = None,
    timeout: float = TIMEOUT,
) -> Path:
    """Download what is missing of the four files of a named data set; returns the folder that holds them.

    `folder` defaults to the cache folder, `mirrors` (base URLs) to the public ones. Raises `UserError` that says
    what to do when no mirror delivers, the disk is full, or downloads are not `allowed`.
    """
    if not allowed:
        raise UserError(f"{idx.TITLES[name]} is not on this machine; {_remedy(name)}")
    folder = folder or idx.cache_folder() / "data" / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror}); set ELEGAN_CACHE to a folder") from None
    alive, last = list(mirrors if mirrors is not None else MIRRORS[name]), "no mirror is known"
    for file in idx.SHA256[name]:
        if idx.find_file(folder, file) is not None:
            continue
        for mirror in tuple(alive):
            try:
                _fetch_file(name, file, mirror, folder, timeout)
                break
            except MirrorError as error:
                last = f"{mirror}: {error}"
                if error.gone:
                    alive.remove(mirror)
        else:
            raise UserError(
                f"{idx.TITLES[name]} is not on this machine and no mirror sent it ({last}); {_remedy(name)}"
            )
    return folder


def _remedy(name: str) -> str:
    files = ", ".join(f"{file}.gz" for file in idx.SHA256[name])
    return f"put {files} into FOLDER/{name} and set ELEGAN_DATA=FOLDER, or use --data garments, which needs no files"


def _fetch_file(name: str, file: str, mirror: str, folder: Path, timeout: float) -> None:
    """One file of a data set from one mirror. Raises `MirrorError`."""

    def fault(path: Path) -> str | None:
        try:
            _, digest = idx.read_idx(path)
        except UserError:
            return "sent a damaged or incomplete file"
        return None if digest == idx.SHA256[name][file] else "sent other bytes than the published ones"

    url = mirror.rstrip("/") + f"/{file}.gz"
    fetch_file(url, folder / f"{file}.gz", fault, f"{idx.TITLES[name]} {file}.gz", timeout)


def fetch_file(
    url: str, target: Path, fault: Callable[[Path], str | None], title: str, timeout: float = TIMEOUT
) -> None:
    """What is at `url` -> `target`: received under a temporary name, then renamed if `fault(path)` finds nothing.

    `title` is what the progress bar says. Raises `MirrorError`, also with what `fault` says is wrong with the file, and
    `UserError` where the disk is the trouble.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    request = urllib.request.Request(url, headers={"User-Agent": "elegan"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            _receive(answer, temporary, title)
        if (reason := fault(temporary)) is not None:
            raise MirrorError(reason, gone=False)
        temporary.replace(target)
    except urllib.error.HTTPError as error:
        error.close()
        raise MirrorError(f"HTTP {error.code}", gone=False) from None
    except urllib.error.URLError as error:
        raise MirrorError(str(error.reason), gone=True) from None
    except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise MirrorError(f"broke off ({error or type(error).__name__})", gone=False) from None
    finally:
        temporary.unlink(missing_ok=True)


def _receive(answer: http.client.HTTPResponse, path: Path, text: str) -> None:
    """The body of an answer -> a file. Errors of the disk are the user's, errors of the line are the mirror's."""
    total = answer.headers.get("Content-Length", "")
    with bar(text, int(total) if total.isdigit() else None, unit_bytes=True) as advance:
        try:
            file = path.open("wb")
        except OSError as error:
            raise _disk(path, error) from None
        with file:
            while chunk := answer.read(CHUNK):
                try:
                    file.write(chunk)
                except OSError as error:
                    raise _disk(path, error) from None
                advance(len(chunk))


def _disk(path: Path, error: OSError) -> UserError:
    return UserError(f"{path.parent}: cannot write ({error.strerror}); free space or set ELEGAN_CACHE elsewhere")
