"""The dataset doctor: what is in a data set, what is wrong with it, and a picture of it."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from elegan.data.dataset import sheet_rows
from elegan.data.fit import Fit
from elegan.data.folder import Seen, decode, look, threads
from elegan.data.holdout import in_test
from elegan.data.labels import find_labels
from elegan.data.listing import BrokenFileError, Item, Listing, list_images, split_of
from elegan.data.progress import bar
from elegan.data.sources import check_path, is_idx_folder, name_of, open_data
from elegan.errors import UserError
from elegan.images import MODES, grid, save_png

FEW = 1000  # images; a GAN trained on fewer mostly copies them
IMBALANCE = 5  # the largest class over the smallest
SHOWN = 5  # names in the printed report; `to_dict` has all


@dataclass
class DataReport:
    """What `inspect_data` found. `str()` is for reading, `to_dict()` for JSON."""

    source: str
    kind: str  # "named data", "folder", "zip", "npz", "IDX folder"
    images: int  # readable ones
    splits: dict[str, int]
    counts: dict[str, int]  # class name -> images, both splits; empty when unlabelled
    sizes: dict[str, int]  # "HxW" -> images
    modes: dict[str, int]  # Pillow's name of the mode -> images
    unreadable: dict[str, str] = field(default_factory=dict)  # file -> reason
    duplicates: list[list[str]] = field(default_factory=list)  # groups of files or "split[index]" of equal pixels
    warnings: list[str] = field(default_factory=list)
    sheet: str | None = None

    @property
    def ok(self) -> bool:
        """Nothing unreadable and nothing to warn of."""
        return not self.unreadable and not self.warnings

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.source} ({self.kind}): {self.images:,} images"]
        lines.append("  splits      " + ", ".join(f"{k} {n:,}" for k, n in self.splits.items()))
        if self.counts:
            lines.append(f"  classes     {len(self.counts)}")
            width = max(len(name) for name in self.counts)
            lines += [f"    {name:<{width}}  {n:,}" for name, n in self.counts.items()]
        else:
            lines.append("  classes     none (unlabelled)")
        lines.append("  sizes       " + _counted(self.sizes))
        lines.append("  modes       " + _counted(self.modes))
        lines.append(f"  unreadable  {len(self.unreadable)}")
        lines += [f"    {name}: {reason}" for name, reason in list(self.unreadable.items())[:SHOWN]]
        if len(self.unreadable) > SHOWN:
            lines.append(f"    and {len(self.unreadable) - SHOWN} more")
        extra = sum(len(group) - 1 for group in self.duplicates)
        lines.append(f"  duplicates  {extra}")
        lines += ["    " + " = ".join(group[:SHOWN]) for group in self.duplicates[:SHOWN]]
        if len(self.duplicates) > SHOWN:
            lines.append(f"    and {len(self.duplicates) - SHOWN} more groups")
        lines += [f"  warning     {w}" for w in self.warnings]
        if self.sheet:
            lines.append(f"  sheet       {self.sheet}")
        return "\n".join(lines)


def _counted(counts: dict[str, int]) -> str:
    shown = [f"{name} ({n:,})" for name, n in list(counts.items())[:SHOWN]]
    return ", ".join(shown) + (f" and {len(counts) - SHOWN} more" if len(counts) > SHOWN else "")


def inspect_data(
    source: str | os.PathLike[str],
    sheet: str | os.PathLike[str] | None = None,
    *,
    labels: str | os.PathLike[str] | None = None,
) -> DataReport:
    """Look at every image of a named data set, folder, zip or npz; write a contact sheet PNG if `sheet` is given.

    Every file is decoded, so that truncated ones are found; broken files are reported, never an error. Duplicates
    are images of equal size, mode and pixels. Raises `UserError` when there is nothing to look at or the sheet
    cannot be written.
    """
    name, path = name_of(source), Path(source).expanduser()
    if name is None:
        check_path(path)
    picture: np.ndarray | None
    if name is not None or path.suffix.lower() == ".npz" or is_idx_folder(path):
        report, picture = _inspect_arrays(source, name, path, labels)
    else:
        report, picture = _inspect_files(path, labels)
    _warn(report)
    if sheet is not None and picture is not None:
        target = Path(sheet)
        try:
            save_png(target, picture)
        except OSError as error:
            raise UserError(
                f"{target}: the contact sheet cannot be written ({error.strerror}); choose another"
            ) from None
        report.sheet = str(target)
    return report


def _inspect_arrays(
    source: str | os.PathLike[str], name: str | None, path: Path, labels: str | os.PathLike[str] | None
) -> tuple[DataReport, np.ndarray]:
    """Data that is one array a split: named data, IDX, npz."""
    sides = {split: open_data(source, split, labels=labels) for split in ("train", "test")}
    train = sides["train"]
    counts = {c: sum(d.counts.get(c, 0) for d in sides.values()) for c in train.class_names}
    kind = "named data" if name else "npz" if path.suffix.lower() == ".npz" else "IDX folder"
    total = sum(len(d) for d in sides.values())
    groups: dict[bytes, list[str]] = defaultdict(list)
    for split, data in sides.items():
        for i, key in enumerate(pixel_keys(data.images)):
            groups[key].append(f"{split}[{i}]")
    report = DataReport(
        source=name or str(path),
        kind=kind,
        images=total,
        splits={split: len(d) for split, d in sides.items()},
        counts=counts,
        sizes={f"{train.height}x{train.width}": total},
        modes={MODES[train.channels]: total},
        duplicates=[group for group in groups.values() if len(group) > 1],
    )
    return report, train.sheet()


def pixel_keys(images: np.ndarray) -> list[bytes]:
    """16-byte hashes (N) of the pixels of each image (N, C, H, W)."""
    return [hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest() for image in images]


class Examined(NamedTuple):
    """What is kept of one file."""

    seen: Seen
    key: bytes  # of its pixels


def _examine(listing: Listing, item: Item) -> Examined | str:
    """Decode one file at its own size; a string is the reason why that failed."""
    try:
        data = listing.read(item)
        seen = look(data)
        pixels = decode(data, Fit(*seen.size, seen.channels))
        return Examined(seen, pixel_keys(pixels[None])[0] + repr(pixels.shape).encode())
    except BrokenFileError as error:
        return str(error)


def _inspect_files(source: Path, labels: str | os.PathLike[str] | None) -> tuple[DataReport, np.ndarray | None]:
    """A folder or zip: every file decoded in threads, only its hash kept; the sheet's few are decoded again."""
    listing = list_images(source)
    try:
        splits, notes = split_of(listing)
        marks, names = _labels_or_warning(lambda: find_labels(listing, any(splits), labels), notes)
        examined: list[Examined | str] = []
        with (
            bar(f"Inspecting {source.name}", len(listing.images)) as advance,
            ThreadPoolExecutor(threads()) as pool,
        ):
            for result in pool.map(lambda item: _examine(listing, item), listing.images):
                examined.append(result)
                advance(1)
        good = {i: e for i, e in enumerate(examined) if not isinstance(e, str)}
        rows = list(good)
        picture = _thumbnails(listing, rows, None if marks is None else marks[rows], len(names)) if good else None
    finally:
        listing.close()
    groups: dict[bytes, list[str]] = defaultdict(list)
    for i, e in good.items():
        groups[e.key].append(listing.images[i].path)
    sizes = Counter(f"{e.seen.size[0]}x{e.seen.size[1]}" for e in good.values())
    modes = Counter(e.seen.mode for e in good.values())
    report = DataReport(
        source=str(source),
        kind="folder" if source.is_dir() else "zip",
        images=len(good),
        splits=_split_counts([splits[i] for i in rows], [e.seen.sha256 for e in good.values()], source),
        counts={} if marks is None else {n: int((marks[rows] == c).sum()) for c, n in enumerate(names)},
        sizes=dict(sizes.most_common()),
        modes=dict(modes.most_common()),
        unreadable={listing.images[i].path: e for i, e in enumerate(examined) if isinstance(e, str)},
        duplicates=[group for group in groups.values() if len(group) > 1],
        warnings=notes,
    )
    return report, picture


def _thumbnails(listing: Listing, rows: list[int], marks: np.ndarray | None, classes: int) -> np.ndarray:
    """The contact sheet of a folder, uint8 (H, W, 3), each image whole on a 64x64 square."""
    picked, columns = sheet_rows(len(rows), marks, classes)
    items = [listing.images[rows[k]] for k in picked]
    pictures = np.stack([decode(listing.read(item), Fit(64, 64, 3, "pad")) for item in items])
    return grid(pictures.transpose(0, 2, 3, 1), columns)


def _labels_or_warning(
    find: Callable[[], tuple[np.ndarray | None, list[str]]], warnings: list[str]
) -> tuple[np.ndarray | None, list[str]]:
    """A doctor does not stop at a bad label file: it reports it."""
    try:
        return find()
    except UserError as error:
        warnings.append(str(error))
        return None, []


def _split_counts(splits: Sequence[str | None], keys: list[str], source: Path) -> dict[str, int]:
    """Images per split; of data without split folders, as the hold-out divides them."""
    if (splits and splits[0] is not None) or any(splits):
        return {"train": splits.count("train"), "test": splits.count("test")}
    if len(set(keys)) < 2:
        return {"train": len(keys), "test": 0}
    held = int(in_test(keys, source).sum())
    return {"train": len(keys) - held, "test (held out)": held}


def _warn(report: DataReport) -> None:
    """Add what a person should know before training."""
    warnings = report.warnings
    if report.unreadable:
        warnings.append(
            f"{len(report.unreadable)} files cannot be read: replace them or train with --set skip_broken=true"
        )
    if 0 < report.images < FEW:
        warnings.append(f"only {report.images} images: fewer than {FEW:,}, a GAN tends to copy them")
    if len(report.modes) > 1:
        warnings.append(f"mixed modes ({_counted(report.modes)}): all will be brought to one; choose with channels=")
    if len(report.sizes) > 1:
        warnings.append(f"{len(report.sizes)} different sizes: all will be brought to one; choose with size= and crop=")
    if report.counts and min(report.counts.values()) * IMBALANCE < max(report.counts.values()):
        most = max(report.counts, key=lambda c: report.counts[c])
        least = min(report.counts, key=lambda c: report.counts[c])
        warnings.append(
            f"unbalanced classes: {most} has {report.counts[most]:,} images, {least} {report.counts[least]:,}"
        )
    extra = sum(len(group) - 1 for group in report.duplicates)
    if extra:
        warnings.append(f"{extra} exact duplicates: they weigh double in training and in scores")
