"""Speed against the original programs, taking turns on one machine.

    python -m benchmarks.speed --tensorflow PATH_OF_A_PYTHON_WITH_TENSORFLOW [--only fashion-dcgan] [--rounds 7]

`--only` takes presets, `sampling`, `floors` (steps against what the processor could do), `commands` and `starts` (of
training); what is left out keeps its last result.

Every contestant is a process that waits for its turn: it runs a few training steps, says how long each took, and
waits again, so that a machine that is slower for a minute is slower for all of them. A round's number is its median
step; the ratio of a pair is the median over rounds of the ratio within the round. Real data is read from
ELEGAN_DATA by all. Writes `benchmarks/results/speed.json` and `speed.md`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import targets
from benchmarks.commands import measure_commands, measure_floor, measure_starts, sampler
from benchmarks.targets import PLAIN, PREDICT, TF

RESULTS = Path(__file__).parent / "results"
STEPS = {"fashion-mlp": 100, "digits-mlp": 100, "fashion-upsample": 2, "fashion-dcgan": 10, "sampling": 1}
PRESETS = ("fashion-dcgan", "fashion-mlp", "fashion-upsample", "digits-dcgan")
SAMPLING = "sampling"  # 10,000 pictures instead of steps
ORDER = [*PRESETS, SAMPLING]
FLOORS = ("fashion-dcgan", "fashion")  # whose distance to the floor is measured
IDLE = 0.5  # seconds between turns: threads that spin for work have gone to sleep by then


class Contestant:
    """A program in a process of its own, which runs as many steps as it is told."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self.medians: list[float] = []
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def turn(self, steps: int) -> float:
        """Median seconds of a step."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: ended with code {self.process.wait()}")
        return statistics.median(json.loads(line)["seconds"])

    def end(self) -> None:
        """Let it go."""
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.close()
        self.process.wait(timeout=60)


def worker(preset: str, precision: str) -> None:
    """Our own contestant: training steps of a preset, on real data, as `elegan train` runs them."""
    from elegan import families
    from elegan.config import build
    from elegan.data import open_data
    from elegan.families.base import ImageSpec
    from elegan.training.engine import Engine, pick_device
    from elegan.training.feed import Feed
    from elegan.training.plan import build_model, images_per_step, make_step

    family, recipe = families.preset(preset)
    config = build(preset, family, recipe.config, train={"images": 10**12})
    data = open_data(recipe.data)
    engine = Engine(pick_device("cpu"), precision)
    spec = ImageSpec(data.channels, data.height, data.width, data.classes)
    model = build_model(config, spec, engine)
    feed = Feed(data.images, data.labels, 0, engine.device)
    step, seen = make_step(model, feed, engine, config), 0
    for line in sys.stdin:
        if not line.strip():
            return
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            step(seen)
            seconds.append(time.perf_counter() - start)
            seen += images_per_step(model)
        print(json.dumps({"seconds": seconds}), flush=True)


def contestants(preset: str, tensorflow: str | None) -> list[Contestant]:
    """Those that exist for a preset, or for warm sampling."""
    ours = [sys.executable, "-m", "benchmarks.speed", "--worker", preset]
    found = [Contestant("elegan bf16", [*ours, "bf16"]), Contestant("elegan fp32", [*ours, "fp32"])]
    if tensorflow:
        program = [tensorflow, "-m", "benchmarks.reference.keras_programs"]
        if preset == SAMPLING:
            found.append(Contestant(TF, [*program, "fashion-dcgan", "--sampling"]))
        else:
            found.append(Contestant(TF, [*program, preset, "--bursts"]))
        if preset.endswith("-mlp"):
            found.append(Contestant(PREDICT, [*program, preset, "--bursts", "--predict"]))
    if preset == "fashion-dcgan":
        plain = [sys.executable, "-m", "benchmarks.reference.torch_plain", preset, "--bursts"]
        found.append(Contestant(PLAIN, plain))
    return found


def measure(preset: str, tensorflow: str | None, rounds: int) -> dict[str, Any]:
    """Let the contestants of a preset take turns."""
    from elegan.bench import ceiling
    from elegan.training.engine import Engine, pick_device

    steps = STEPS.get(preset, 10)
    people = contestants(preset, tensorflow)
    ceilings = []
    try:
        for person in people:
            person.turn(max(1, steps // 3))  # compile, allocate, warm up
        for _ in range(rounds):
            for person in people:
                time.sleep(IDLE)
                person.medians.append(person.turn(steps))
            ceilings.append(ceiling(Engine(pick_device("cpu"), "bf16")) / 1e9)
    finally:
        for person in people:
            person.end()
    return {
        "preset": preset,
        "rounds": rounds,
        "bf16_ceiling_gflops": round(max(ceilings), 1),
        "ms": {p.name: round(1e3 * statistics.median(p.medians), 2) for p in people},
        "all_ms": {p.name: [round(1e3 * m, 2) for m in p.medians] for p in people},
        "slower_than": {
            ours.name: {
                p.name: round(statistics.median(b / a for a, b in zip(ours.medians, p.medians, strict=True)), 2)
                for p in people
                if p is not ours
            }
            for ours in people[:2]
        },
    }


def text(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    names = ["elegan bf16", "elegan fp32", TF, PREDICT, PLAIN]
    lines = [
        "# Speed against the original programs",
        "",
        "Milliseconds a training step (median of rounds, contestants taking turns), and in brackets how many times",
        "slower than elegan in bf16 (median of the ratios within each round). `sampling` is 10,000 pictures of",
        "`fashion-dcgan`, with everything loaded.",
        "",
        "| preset | " + " | ".join(names) + " |",
        "|---|" + "---|" * len(names),
    ]
    for r in results.get("rows", []):
        cells = []
        for name in names:
            ms, times = r["ms"].get(name), r["slower_than"]["elegan bf16"].get(name)
            cells.append("" if ms is None else f"{ms:.1f}" + (f" ({times:.2f}x)" if times else ""))
        lines.append(f"| `{r['preset']}` | " + " | ".join(cells) + " |")
    return "\n".join(
        [
            *lines,
            "",
            "## Targets",
            "",
            *targets.table(results),
            "",
            results["about"],
            *(["", results["note"]] if "note" in results else []),
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tensorflow", help="the Python of a virtual environment with TensorFlow")
    parser.add_argument("--only", nargs="*", default=[*PRESETS, SAMPLING, "floors", "commands", "starts"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--note", help="a sentence on the circumstances, printed below the tables")
    parser.add_argument("--worker", nargs=2, metavar=("PRESET", "PRECISION"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        (sampler if args.worker[0] == SAMPLING else worker)(*args.worker)
        return
    import torch

    path = RESULTS / "speed.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if args.note:
        results["note"] = args.note
    for part in args.only:
        if part == "commands":
            results["commands"] = measure_commands()
        elif part == "starts":
            results["starts"] = measure_starts()
        elif part == "floors":
            results["floors"] = {preset: measure_floor(preset) for preset in FLOORS}
        else:
            rows = [r for r in results.get("rows", []) if r["preset"] != part]
            rows.append(measure(part, args.tensorflow, args.rounds))
            results["rows"] = sorted(rows, key=lambda r: ORDER.index(r["preset"]) if r["preset"] in ORDER else 99)
        cpu = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
        results["about"] = (
            f"{datetime.date.today()}; {cpu}; Python {platform.python_version()}, torch {torch.__version__}, "
            "TensorFlow as in benchmarks/requirements-tensorflow.txt; `python -m benchmarks.speed`."
        )
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        (RESULTS / "speed.md").write_text(text(results), encoding="utf-8")
    print(text(results))


if __name__ == "__main__":
    main()
