"""Labels of a folder or zip of images.

In this order: the file given as `labels`; else `labels.csv`, `metadata.csv`, `labels.json` or `dataset.json` at the
root or in a split folder; else the immediate subfolders, when there are at least two. Forms of the files:

- CSV with a header that names a file column (`file_name`, `filename`, `file`, `path`, `image`) and a label column
  (`label`, `class`, `category`, `target`); or without a header, two columns: path, label;
- JSON `{"path": label, ...}`, `[{"file_name": "path", "label": label}, ...]`, `{"labels": {...}}`, or StyleGAN's
  `{"labels": [["path", label], ...]}`; `{"labels": null}` says unlabelled.

Paths are relative to the file's own folder. Labels are numbers or names; the classes are the distinct labels,
sorted (numbers by value), and the label of an image is its class's position.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from elegan.data.listing import SPLIT_FOLDERS, BrokenFileError, Item, Listing
from elegan.errors import UserError

LABEL_FILES = ("labels.csv", "metadata.csv", "labels.json", "dataset.json")
FILE_COLUMNS = ("file_name", "filename", "file", "path", "image", "file_path", "filepath")
LABEL_COLUMNS = ("label", "class", "category", "target", "class_name", "label_name")
Label = int | str


def find_labels(
    listing: Listing, has_splits: bool, chosen: str | os.PathLike[str] | None
) -> tuple[np.ndarray | None, list[str]]:
    """int64 (N,) in the listing's order and the class names; (None, []) when unlabelled. Raises `UserError`."""
    if chosen is not None and os.fspath(chosen) == "none":
        return None, []
    by_path = _from_files(listing, has_splits, chosen)
    if by_path is None:
        by_path = _from_folders(listing, has_splits)
    if not by_path:
        return None, []
    missing = [i.path for i in listing.images if i.path not in by_path]
    if missing:
        raise UserError(
            f"{listing.source}: {len(missing)} images have no label, the first is {missing[0]!r}; "
            "label them, move them out, or ignore all labels with labels='none'"
        )
    distinct = {by_path[i.path] for i in listing.images}
    numbers = all(isinstance(v, int) for v in distinct)
    names = [str(v) for v in sorted(distinct, key=(int if numbers else str))]
    place = {name: i for i, name in enumerate(names)}
    return np.array([place[str(by_path[i.path])] for i in listing.images], np.int64), names


def _from_folders(listing: Listing, has_splits: bool) -> dict[str, Label]:
    """The first folder of each path (below the split folder); nothing when there are fewer than two of them."""
    found: dict[str, Label] = {}
    depth = 1 if has_splits else 0
    for item in listing.images:
        parts = listing.parts(item)
        if len(parts) > depth + 1:
            found[item.path] = parts[depth]
    return found if len(set(found.values())) > 1 else {}


def _from_files(listing: Listing, has_splits: bool, chosen: str | os.PathLike[str] | None) -> dict[str, Label] | None:
    """path -> label from label files; None when there is no label file, {} when it says unlabelled."""
    known = {i.path for i in listing.images}
    if chosen is not None:
        path = Path(chosen).expanduser()
        try:
            text = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: the label file cannot be read ({error.strerror}); check labels=") from None
        folder = ""
        with contextlib.suppress(ValueError):  # a file inside the source names paths from where it lies
            folder = path.resolve().parent.relative_to(listing.source.resolve()).as_posix() + "/"
        return _resolved(_parse(text, str(path)), known, (folder.removeprefix("./"), "", listing.prefix), str(path))
    found: dict[str, Label] | None = None
    used: set[str] = set()
    for name in LABEL_FILES:
        for item in listing.others:
            folder = item.folder
            if item.path[len(folder) :].lower() != name or folder in used:
                continue
            below = folder.removeprefix(listing.prefix).rstrip("/").lower()
            if folder not in ("", listing.prefix) and not (has_splits and below in SPLIT_FOLDERS):
                continue
            used.add(folder)
            where = f"{listing.source}/{item.path}"
            entries = _parse(_read(listing, item), where)
            found = {**(found or {}), **_resolved(entries, known, (folder, listing.prefix), where)}
    return found


def _read(listing: Listing, item: Item) -> bytes:
    try:
        return listing.read(item)
    except BrokenFileError as error:
        raise UserError(f"{listing.source}: {item.path} cannot be read ({error}); write it again") from None


def _resolved(
    entries: Iterable[tuple[str, Label]], known: set[str], folders: Sequence[str], where: str
) -> dict[str, Label]:
    """Entries by path from the source, sought below `folders` in turn.

    `UserError` for a path that names no image, or an image with two labels.
    """
    found: dict[str, Label] = {}
    missing = []
    for name, label in entries:
        path = PurePosixPath(name.replace("\\", "/")).as_posix()
        match = next((folder + path for folder in folders if folder + path in known), None)
        if match is None:
            missing.append(name)
            continue
        if found.setdefault(match, label) != label:
            raise UserError(f"{where}: gives {name!r} two labels, {found[match]!r} and {label!r}; remove one")
    if missing:
        raise UserError(
            f"{where}: {len(missing)} of its entries name no image, the first is {missing[0]!r}; "
            "correct the paths (they are relative to the label file) or remove the lines"
        )
    return found


def _parse(data: bytes, where: str) -> list[tuple[str, Label]]:
    """(path, label) pairs of a CSV or JSON label file."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{where}: is not UTF-8 text; save it as UTF-8") from None
    if where.lower().endswith(".csv"):
        return _parse_csv(text, where)
    if not where.lower().endswith(".json"):
        raise UserError(f"{where}: labels come from a .csv or .json file; rename or convert it")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: is not valid JSON ({error}); correct it") from None
    return _parse_json(content, where)


def _parse_csv(text: str, where: str) -> list[tuple[str, Label]]:
    try:
        rows = [row for row in csv.reader(io.StringIO(text)) if row]
    except csv.Error as error:
        raise UserError(f"{where}: is not valid CSV ({error}); correct it") from None
    if not rows:
        raise UserError(f"{where}: is empty; write one line 'path,label' for each image, or remove it")
    header = [cell.strip().lower() for cell in rows[0]]
    file_at = next((header.index(c) for c in FILE_COLUMNS if c in header), None)
    label_at = next((header.index(c) for c in LABEL_COLUMNS if c in header), None)
    if file_at is None and label_at is None and len(header) == 2:
        file_at, label_at = 0, 1
    else:
        rows = rows[1:]
    if file_at is None or label_at is None:
        raise UserError(
            f"{where}: its header {','.join(header)!r} names no file and label columns; call them file_name and label"
        )
    for row in rows:
        if len(row) <= max(file_at, label_at):
            raise UserError(f"{where}: the line {','.join(row)!r} has too few columns; complete it")
    cells = [(row[file_at].strip(), row[label_at].strip()) for row in rows]
    if all(re.fullmatch(r"-?[0-9]{1,18}", label) for _, label in cells):
        return [(path, int(label)) for path, label in cells]
    return list(cells)


def _parse_json(content: Any, where: str) -> list[tuple[str, Label]]:
    if isinstance(content, dict) and "labels" in content and not isinstance(content["labels"], str | int):
        content = content["labels"]
    if content is None:
        return []
    pairs: list[tuple[Any, Any]] = []
    if isinstance(content, dict):
        pairs = list(content.items())
    elif isinstance(content, list):
        for entry in content:
            if isinstance(entry, list) and len(entry) == 2:
                pairs.append((entry[0], entry[1]))
            elif isinstance(entry, dict):
                path = next((entry[c] for c in FILE_COLUMNS if c in entry), None)
                pairs.append((path, next((entry[c] for c in LABEL_COLUMNS if c in entry), None)))
            else:
                pairs.append((None, None))
    else:
        pairs = [(None, None)]
    for path, label in pairs:
        if not isinstance(path, str) or isinstance(label, bool) or not isinstance(label, int | str):
            shown = json.dumps([path, label])[:60]
            raise UserError(f"{where}: the entry {shown} is not a path with a number or name; correct it")
    return [(str(path), label) for path, label in pairs]
