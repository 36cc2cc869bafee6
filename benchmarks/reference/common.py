"""What the reference programs share: reading data, counting and timing steps, writing results.

Nothing in here learns: each program's whole training loop is in its own function, and looks like

    while run.going:
        ... one training iteration ...
        run.record(images_in_the_batch, d_loss=..., g_loss=...)

and `Run` knows when to stop, how long each step took, and when half of the schedule is over.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

WARM_UP = 5  # first steps that no timing counts: they trace graphs and fill caches


def read_idx(path: Path) -> np.ndarray:
    """Reads one IDX file of bytes (MNIST's format), gzipped or not."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if raw[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path}: not an IDX file of unsigned bytes")
    shape = np.frombuffer(raw, ">i4", count=raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)


def load_mnist_like(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The training split of `name` ("fashion-mnist" or "mnist"): images uint8 (N, 28, 28, 1), labels int64.

    The files lie in `folder/name` or, if that folder does not exist, in `folder` itself.
    """
    root = folder / name if (folder / name).is_dir() else folder
    arrays = []
    for stem in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        found = [path for path in (root / f"{stem}.gz", root / stem) if path.exists()]
        if not found:
            raise FileNotFoundError(f"no {stem}(.gz) in {root}: give the data's folder with --data or ELEGAN_DATA")
        arrays.append(read_idx(found[0]))
    return arrays[0][..., None], arrays[1].astype(np.int64)


def to_uint8(images: np.ndarray, low: float) -> np.ndarray:
    """Float images in [low, 1], low being -1 or 0, as uint8 in [0, 255], rounded to the nearest."""
    return np.clip(np.rint((images - low) * (255 / (1 - low))), 0, 255).astype(np.uint8)


class Run:
    """Counts and times the steps of one program, and ends it.

    It ends after `iterations` steps or as soon as `images` real images were seen. `at_half` is called once,
    when half of that is done; its time counts for no step. With `bursts`, each line of standard input is a
    number of steps: they are run, then one JSON line with the seconds of each is printed, so that programs in
    several processes can take turns on one machine. An empty line or the end of the input ends the run.
    """

    def __init__(
        self,
        iterations: int | None = None,
        images: int | None = None,
        at_half: Callable[[], None] | None = None,
        bursts: bool = False,
        report_every: int = 0,
    ) -> None:
        assert bursts or iterations or images, "a run needs an end"
        self.iterations, self.images, self.at_half, self.bursts = iterations, images, at_half, bursts
        self.report_every = report_every
        self.steps = self.images_seen = 0
        self.seconds: list[float] = []  # of each step
        self.curves: dict[str, list[Any]] = {}  # one value per step and name
        self.going = True
        self._burst_left = 0
        if bursts:
            self._next_burst()
        self._began = self._last = time.perf_counter()

    def record(self, images: int, **losses: Any) -> None:
        """A step is done, which saw `images` real images. Losses may be tensors: they are read at the end."""
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self.steps += 1
        self.images_seen += images
        for name, value in losses.items():
            self.curves.setdefault(name, []).append(value)
        if self.bursts:
            self._burst_left -= 1
            if self._burst_left == 0:
                self._next_burst()
        else:
            self._stop_or_snapshot()
        self._last = time.perf_counter()

    def _done(self) -> float:
        """The part of the run that is over, from 0 to 1 and beyond."""
        return self.steps / self.iterations if self.iterations else self.images_seen / (self.images or 1)

    def _stop_or_snapshot(self) -> None:
        if self.report_every and self.steps % self.report_every == 0:
            shown = ", ".join(f"{name} {float(values[-1]):.3f}" for name, values in self.curves.items())
            print(f"step {self.steps}: {shown}, {self.median_seconds() * 1000:.1f} ms a step", file=sys.stderr)
        if self.at_half and 0.5 <= self._done() < 1:
            self.at_half()
            self.at_half = None
        self.going = self._done() < 1

    def _next_burst(self) -> None:
        if self.steps:
            print(json.dumps({"seconds": self.seconds}), flush=True)
            self.seconds = []
        self._burst_left = int(sys.stdin.readline().strip() or 0)
        self.going = self._burst_left > 0

    def median_seconds(self) -> float:
        """Of a step, without the first few."""
        return statistics.median(self.seconds[WARM_UP:] or self.seconds or [0.0])

    def summary(self) -> dict[str, Any]:
        """What the JSON file tells of the run, without the curves."""
        return {
            "steps": self.steps,
            "images_seen": self.images_seen,
            "seconds_per_step": round(self.median_seconds(), 6),
            "seconds_total": round(time.perf_counter() - self._began, 2),
        }

    def loss_curves(self) -> dict[str, list[float]]:
        """Every recorded loss, a number per step."""
        return {name: [round(float(value), 5) for value in values] for name, values in self.curves.items()}


def machine() -> dict[str, Any]:
    """The processor and system that this runs on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), model)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": model, "cores": usable, "system": f"{platform.system()} {platform.machine()}"}


def write_samples(path: Path, images: np.ndarray, labels: np.ndarray | None) -> None:
    """Writes `images` uint8 (N, H, W, C) and, of a conditional program, `labels` int64 (N,)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, images=images, **({} if labels is None else {"labels": labels}))


def arguments(names: list[str], description: str) -> argparse.ArgumentParser:
    """The flags that every reference program has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=names, help="which program")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--iterations", "--steps", type=int, metavar="N", help="train for this many steps")
    length.add_argument("--images", type=int, metavar="N", help="train until this many real images were seen")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, help="folder of the data (default: the ELEGAN_DATA variable)")
    parser.add_argument("--out", type=Path, metavar="FILE.npz", help="where samples go; FILE.json gets the numbers")
    parser.add_argument("-n", type=int, default=10_000, metavar="N", help="how many samples (default: 10000)")
    parser.add_argument("--half", action="store_true", help="also write FILE-half.npz half-way")
    parser.add_argument("--report", type=int, default=0, metavar="N", help="print the losses every N steps")
    parser.add_argument("--time-only", action="store_true", help="time the steps, write no samples, print the JSON")
    parser.add_argument("--bursts", action="store_true", help="time as many steps as each line on stdin says")
    return parser


def data_folder(args: argparse.Namespace, parser: argparse.ArgumentParser) -> Path:
    """The folder from --data or ELEGAN_DATA; ends the program where there is neither."""
    folder = args.data or (Path(os.environ["ELEGAN_DATA"]) if "ELEGAN_DATA" in os.environ else None)
    if folder is None:
        parser.error("give the data's folder with --data or the ELEGAN_DATA variable")
    return folder
