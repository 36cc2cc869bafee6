"""How long the commands take, from a cold process to its end, and what sampling costs once a model is loaded.

Part of `python -m benchmarks.speed`. Each command is a process of its own; its time is the median of some runs, its
memory the largest that the system saw. Nothing is cleared from the system's file cache between them.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

REPEATS = 3
SAMPLES = 10_000


class Ran(NamedTuple):
    """What a command took: seconds, peak megabytes, and seconds until it first wrote a text that was waited for."""

    seconds: float
    megabytes: float
    until: float


def run_once(arguments: Sequence[str], folder: Path, waited_for: str = "") -> Ran:
    """Run `elegan ARGUMENTS` to its end."""
    start, until = time.perf_counter(), math.nan
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "elegan", *arguments],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env=os.environ | {"ELEGAN_CACHE": str(folder / "cache")},  # none that was kept before
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if waited_for and waited_for in line and math.isnan(until):
            until = time.perf_counter() - start
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"elegan {' '.join(arguments)}: ended with code {process.returncode}")
    return Ran(time.perf_counter() - start, usage.ru_maxrss / 1024, until)


def measure_starts() -> dict[str, Any]:
    """Seconds from the command to the end of the first step of the default recipe, and to the end of a run of that one
    step, the first time and then the median; megabytes.
    """
    arguments = ["train", "--preset", "fashion", "--data", "fashion-mnist", "--steps", "1", "--out"]
    with tempfile.TemporaryDirectory() as name:
        runs = [run_once([*arguments, f"start{i}"], Path(name), waited_for="64/64 images") for i in range(REPEATS)]
    return {
        "first": round(runs[0].until, 2),
        "again": round(statistics.median(run.until for run in runs[1:]), 2),
        "whole": round(statistics.median(run.seconds for run in runs[1:]), 2),
        "memory_mb": round(max(run.megabytes for run in runs)),
    }


def measure_commands() -> dict[str, float]:
    """Seconds of the commands on a run of `fashion-dcgan`."""
    train = ["train", "--preset", "fashion-dcgan", "--data", "fashion-mnist", "--steps", "2", "--out", "dcgan"]
    commands = {
        "help": ["--help"],
        "info": ["info", "dcgan"],
        "sample": ["sample", "dcgan", "-n", str(SAMPLES), "--out", "samples.npz"],
        "evaluate": ["evaluate", "dcgan"],
        "evaluate_again": ["evaluate", "dcgan"],
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_once([*train, *(["--precision", "bf16"] if _bf16() else [])], folder)
        repeats = dict.fromkeys(commands, REPEATS) | {"evaluate": 1}  # only then nothing is kept of the real images
        return {
            key: round(statistics.median(run_once(arguments, folder).seconds for _ in range(repeats[key])), 2)
            for key, arguments in commands.items()
        }


def measure_floor(preset: str) -> dict[str, Any]:
    """What `elegan bench` says of a preset."""
    command = [sys.executable, "-m", "elegan", "bench", "--preset", preset, "--seconds", "15", "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def sampler(name: str, precision: str) -> None:
    """Our contestant in warm sampling: draws 10,000 pictures as often as each line of standard input says."""
    import torch

    from elegan import families
    from elegan.families.base import ImageSpec
    from elegan.training.engine import Engine
    from elegan.training.trained import draw

    family, recipe = families.preset("fashion-dcgan")
    engine = Engine(torch.device("cpu"), precision)
    model = families.get(family).Model(recipe.config, ImageSpec(1, 28, 28, 10))
    engine.place(model)
    for line in sys.stdin:
        if not line.strip():
            return
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            draw(model, engine, SAMPLES)
            seconds.append(time.perf_counter() - start)
        print(json.dumps({"seconds": seconds}), flush=True)


def _bf16() -> bool:
    import torch

    from elegan.training.engine import has_bf16

    return has_bf16(torch.device("cpu"))
