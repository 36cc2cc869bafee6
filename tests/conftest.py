# ruff: noqa: E402 - threads are set before anything reads the setting
"""What all tests share: one thread each (fast under xdist, and results do not depend on the machine), small data."""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"  # before torch is imported, and for the processes that tests start

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

torch.set_num_threads(1)

SIDE, COUNT, CLASSES = 12, 96, 3


def make_npz(path: Path, side: int = SIDE, channels: int = 1, count: int = COUNT, labelled: bool = True) -> Path:
    """A data set of small blobs, `images` and `labels`: a class is a place."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % CLASSES
    images = rng.integers(0, 60, (count, side, side, channels), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        start = int(label) * side // CLASSES
        image[start : start + side // CLASSES] += 180
    names = {"labels": labels, "class_names": np.array(["low hat", "bag", "sneaker"])} if labelled else {}
    np.savez(path, images=images, **names)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """96 labelled grey images of 12x12 in an npz."""
    return make_npz(tmp_path / "blobs.npz")


@pytest.fixture
def quick_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plan without timing: every step is said to take 10 ms."""
    from elegan.training import plan

    def time_step(step: Callable[[], object], *_: object, **__: object) -> float:
        step()
        return 0.01

    monkeypatch.setattr(plan, "time_step", time_step)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Decoded images go to a folder of the test session, not to the user's cache."""
    monkeypatch.setenv("ELEGAN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    yield


def elegan_command(*arguments: object) -> list[str]:
    """The command line of `elegan` with these arguments, for subprocess."""
    return [sys.executable, "-W", "error", "-m", "elegan", *map(str, arguments)]


def run_elegan(*arguments: object, cwd: Path | None = None, **options: object) -> subprocess.CompletedProcess[str]:
    """Run `elegan` in a process of its own, to its end."""
    return subprocess.run(
        elegan_command(*arguments),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
        **options,  # type: ignore[call-overload]
    )
