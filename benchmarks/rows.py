"""Rows of a result on disk, which several processes may add to at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from filelock import FileLock


def read(path: Path) -> list[dict[str, Any]]:
    """The rows on disk, none where there is no file."""
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return rows


def add(path: Path, row: dict[str, Any]) -> None:
    """Add a row to those on disk, one process at a time: two may have finished a run in the same moment."""
    with FileLock(path.with_suffix(".lock")):
        new = path.with_suffix(".tmp")
        new.write_text(json.dumps([*read(path), row], indent=1) + "\n", encoding="utf-8")
        new.replace(path)
