"""What lies in a folder or zip of images: one list of items, whatever holds them. Nothing is ever extracted.

Hidden files, `__MACOSX` and everything that is neither an image nor a label file are passed over. When all images
lie below one single folder (as in most zips), that folder is the root. `train/` beside `test/` (or `val/`) at the
root are the two splits.
"""

from __future__ import annotations

import os
import threading
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from elegan.errors import UserError

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
LARGEST_FILE = 1 << 28  # bytes of one encoded image; a zip member that claims more is not an image
SPLIT_FOLDERS = {
    "train": "train", "training": "train",
    "test": "test", "testing": "test",
    "val": "val", "valid": "val", "validation": "val",
}  # fmt: skip


class BrokenFileError(Exception):
    """This file cannot be read as an image; the message is the reason."""


@dataclass(frozen=True)
class Item:
    """One file: its path from the source ("/" between the parts), and what changes when its content does."""

    path: str
    stamp: tuple[int, int]  # (size, mtime in ns) in a folder, (size, CRC) in a zip

    @property
    def folder(self) -> str:
        """The path up to and with the last "/"; empty at the top."""
        return self.path[: self.path.rfind("/") + 1]


@dataclass
class Listing:
    """The images and label files of a source, sorted by path, and how to read one. Reading is thread-safe."""

    source: Path
    images: list[Item]
    others: list[Item]
    prefix: str = ""  # "a/b/" when all images lie below a/b, the root
    archive: zipfile.ZipFile | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, item: Item) -> bytes:
        """The bytes of one file. Raises `BrokenFileError`."""
        try:
            if self.archive is None:
                path = self.source / item.path
                if path.stat().st_size > LARGEST_FILE:
                    raise BrokenFileError("larger than 256 MiB")
                return path.read_bytes()
            if item.stamp[0] > LARGEST_FILE:
                raise BrokenFileError("larger than 256 MiB")
            with self.lock, self.archive.open(item.path) as member:
                data = member.read(LARGEST_FILE + 1)
            if len(data) > LARGEST_FILE:
                raise BrokenFileError("larger than 256 MiB")
            return data
        except OSError as error:
            raise BrokenFileError(error.strerror or str(error)) from None
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise BrokenFileError(f"damaged in the zip ({error})") from None
        except RuntimeError as error:  # encrypted, or an unknown compression
            raise BrokenFileError(str(error)) from None

    def parts(self, item: Item) -> tuple[str, ...]:
        """The parts of an image's path below the root."""
        return PurePosixPath(item.path[len(self.prefix) :]).parts

    def close(self) -> None:
        if self.archive is not None:
            self.archive.close()


def list_images(source: Path) -> Listing:
    """The listing of a folder or zip. Raises `UserError` when it holds no image or is not readable."""
    archive = None
    if source.is_dir():
        items = _walk(source)
    else:
        try:
            archive = zipfile.ZipFile(source)
            infos = [i for i in archive.infolist() if not i.is_dir()]
        except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
            raise UserError(f"{source}: cannot be read as a zip ({error}); make or fetch it again") from None
        items = [Item(i.filename, (i.file_size, i.CRC)) for i in infos]
    items = [i for i in items if not any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(i.path).parts)]
    images = [i for i in items if PurePosixPath(i.path).suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        if archive is not None:
            archive.close()
        kinds = "PNG, JPEG, WebP, BMP, GIF, TIFF"
        raise UserError(f"{source}: holds no images ({kinds}); give the folder or zip that does")
    others = [i for i in items if PurePosixPath(i.path).suffix.lower() in (".csv", ".json")]
    images.sort(key=lambda i: i.path)
    return Listing(source, images, others, _common_prefix(images), archive)


def _walk(root: Path) -> list[Item]:
    items = []
    for folder, folders, files in os.walk(root, followlinks=False):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        base = Path(folder).relative_to(root).as_posix()
        for name in files:
            try:
                stat = (Path(folder) / name).stat()
            except OSError:  # a link to nowhere: it is reported when it is read
                items.append(Item(name if base == "." else f"{base}/{name}", (0, 0)))
                continue
            items.append(Item(name if base == "." else f"{base}/{name}", (stat.st_size, stat.st_mtime_ns)))
    return items


def _common_prefix(images: list[Item]) -> str:
    """ "a/b/" when all images lie below a/b, else nothing."""
    folders = [PurePosixPath(i.folder).parts for i in images]
    first, last = min(folders), max(folders)
    shared = []
    for a, b in zip(first, last, strict=False):
        if a != b:
            break
        shared.append(a)
    return "/".join(shared) + "/" if shared else ""


def split_of(listing: Listing) -> tuple[list[str | None], list[str]]:
    """For each image "train", "test" or None (left out), and notes. All None when there are no split folders."""
    parts = [listing.parts(i) for i in listing.images]
    tops = [SPLIT_FOLDERS.get(p[0].lower()) if len(p) > 1 else None for p in parts]
    kinds = set(tops)
    if "train" not in kinds or not kinds & {"test", "val"}:
        return [None] * len(tops), []
    test = "test" if "test" in kinds else "val"
    splits: list[str | None] = [{"train": "train", test: "test"}.get(t or "") for t in tops]
    left_out = sum(s is None for s in splits)
    notes = [f"{left_out} images outside the train and {test} folders are not used"] if left_out else []
    return splits, notes
