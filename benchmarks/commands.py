"""How long the commands take, from a cold process to its end, and what sampling costs once a model is loaded.

Part of `python -m benchmarks.speed`. Each command is a process of its own; its time is the median of some runs, its
memory the largest that the system saw. Nothing is cleared from the system's file cache between them.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REPEATS = 3
SAMPLES = 10_000


def run_once(arguments: Sequence[str], folder: Path) -> tuple[float, float]:
    """Seconds and peak megabytes of `elegan ARGUMENTS`."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "elegan", *arguments], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"elegan {' '.join(arguments)}: ended with code {process.returncode}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def measure_starts() -> dict[str, Any]:
    """Seconds of whole runs of one step of the default recipe, the first and then the median, and their megabytes."""
    arguments = ["train", "--preset", "fashion", "--data", "fashion-mnist", "--steps", "1", "--out"]
    with tempfile.TemporaryDirectory() as name:
        runs = [run_once([*arguments, f"start{i}"], Path(name)) for i in range(REPEATS)]
    seconds = [round(s, 2) for s, _ in runs]
    return {
        "first": seconds[0],
        "again": statistics.median(seconds[1:]),
        "all_seconds": seconds,
        "memory_mb": round(max(megabytes for _, megabytes in runs)),
    }


def measure_commands() -> dict[str, float]:
    """Seconds of the commands on a run of `fashion-dcgan`."""
    train = ["train", "--preset", "fashion-dcgan", "--data", "fashion-mnist", "--steps", "2", "--out", "dcgan"]
    commands = {
        "help": ["--help"],
        "info": ["info", "dcgan"],
        "sample": ["sample", "dcgan", "-n", str(SAMPLES), "--out", "samples.npz"],
        "evaluate": ["evaluate", "dcgan"],
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_once([*train, *(["--precision", "bf16"] if _bf16() else [])], folder)
        repeats = dict.fromkeys(commands, REPEATS) | {"evaluate": 1}
        return {
            key: round(statistics.median(run_once(arguments, folder)[0] for _ in range(repeats[key])), 2)
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
