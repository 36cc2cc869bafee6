"""Rows of a result: what is scored of a run, and the rows on disk, which several processes may add to at once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from benchmarks.machine import about
from elegan.files import write_bytes
from elegan.judge import evaluate
from elegan.training.trained import Run

ON = " on "


def labelled(what: str, machine: str) -> str:
    """What was measured, and where if that is said: on another machine the same time is worth more or less."""
    return f"{what}{ON}{machine}" if machine else what


def unlabelled(label: str) -> tuple[str, str]:
    """What was measured, and the machine, "" if none is said."""
    what, _, machine = label.partition(ON)
    return what, machine


def read(path: Path) -> list[dict[str, Any]]:
    """The rows on disk, none where there is no file."""
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return rows


def add(path: Path, row: dict[str, Any]) -> None:
    """Add a row to those on disk, one process at a time: two may have finished a run in the same moment."""
    with FileLock(path.with_suffix(".lock")):
        write_bytes(path, (json.dumps([*read(path), row], indent=1) + "\n").encode())


def of_run(run: Run, names: Sequence[str]) -> dict[str, Any]:
    """How long a run was, these of its scores, copies in real test images, and how uneven its classes are."""
    scores = evaluate(run)
    value, shares = scores.value.model_dump(), scores.value.class_shares or []
    return {
        "images": run.images_seen,
        "seconds": round(run.stats[-1]["seconds"], 1),
        **{name: value[name] for name in names},
        "copies_of_test_images": scores.floor.copies,
        "uneven": max((abs(share * len(shares) - 1) for share in shares), default=None),
        "about": about(),
    }
