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


def measure_commands() -> dict[str, Any]:
    """Seconds of each command, and the megabytes of training."""
    data = ["--data", "fashion-mnist"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        precision = ["--precision", "bf16"] if _bf16() else []
        starts = [
            run_once(["train", "--preset", "fashion", *data, "--steps", "1", "--out", f"start{i}"], folder)
            for i in range(3)
        ]
        run_once(["train", "--preset", "fashion-dcgan", *data, *precision, "--steps", "2", "--out", "dcgan"], folder)
        commands = {
            "help": ["--help"],
            "info": ["info", "dcgan"],
            "sample": ["sample", "dcgan", "-n", str(SAMPLES), "--out", "samples.npz"],
        }
        seconds = {}
        for key, arguments in commands.items():
            seconds[key] = [run_once(arguments, folder)[0] for _ in range(REPEATS)]
        seconds["evaluate"] = [run_once(["evaluate", "dcgan"], folder)[0] for _ in range(2)]
    seconds["start"] = [s for s, _ in starts]
    medians = {key: round(statistics.median(values), 2) for key, values in seconds.items()}
    medians["start_first"] = round(seconds["start"][0], 2)
    return {
        "seconds": medians,
        "all_seconds": {key: [round(s, 2) for s in values] for key, values in seconds.items()},
        "training_memory_mb": round(max(megabytes for _, megabytes in starts)),
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
