"""python -m benchmarks.evidence [FAMILY or GATE ...] [--seeds 0,1,2] [--broken] [--list] [--stop-after SECONDS]

With `--jobs 2` two gates are measured at a time, each on half of the cores.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import platform
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.evidence.gate import Gate
from benchmarks.evidence.page import RESULTS, result_path
from benchmarks.evidence.table import chosen
from benchmarks.parallel import run_all

RUNS = Path(__file__).resolve().parents[2] / "runs" / "evidence"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="FAMILY|GATE", help="default: all")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--broken", action="store_true", help="the variants with a planted fault, at the first seed")
    parser.add_argument("--list", action="store_true", help="the gates and what is known of them")
    parser.add_argument("--stop-after", type=float, default=math.inf, metavar="SECONDS", help="go on another time")
    parser.add_argument("--runs", type=Path, default=RUNS, help="where the trained runs are kept")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="so many at once, each on cores of its own")
    options = parser.parse_args()
    try:
        gates = chosen(options.names)
    except ValueError as error:
        parser.error(f"{error}; --list shows them")
    seeds = [int(seed) for seed in options.seeds.split(",")]
    if options.list:
        show(gates)
        return 0
    if options.broken:
        gates, seeds = [g for g in gates if g.broken], seeds[:1]
    missing = [(g, s) for g in gates for s in seeds if not result_path(g.name, s, options.broken).is_file()]
    if options.jobs > 1:
        if options.stop_after < math.inf:
            parser.error("--stop-after is for one gate at a time: leave --jobs out")
        again = [sys.executable, "-m", "benchmarks.evidence", "--runs", str(options.runs)]
        again += ["--broken"] if options.broken else []
        return run_all([[*again, gate.name, "--seeds", str(seed)] for gate, seed in missing], options.jobs)
    deadline = time.monotonic() + options.stop_after
    for gate, seed in missing:
        if time.monotonic() > deadline or not measure(gate, seed, options.broken, options.runs, deadline):
            print("out of time; the same command goes on")
            return 75
    return 0


def measure(gate: Gate, seed: int, broken: bool, runs: Path, deadline: float) -> bool:
    """Measure one gate and write what came out. False when the time was over before the end."""
    import torch

    from benchmarks.evidence.lab import Lab, OutOfTime, precision
    from elegan.training.engine import describe_device, pick_device

    lab = Lab(seed, broken, runs, deadline)
    start = time.monotonic()
    torch.manual_seed(seed)
    try:
        found = gate.function()(lab)
    except OutOfTime as stopped:
        print(f"{gate.name}, seed {seed}{', broken' if broken else ''}: {stopped}")
        return False
    measured = {key: value if isinstance(value, str) else round(float(value), 5) for key, value in found.items()}
    told = {k: v if isinstance(v, str) or math.isfinite(v) else None for k, v in measured.items()}
    result: dict[str, Any] = {
        "gate": gate.name,
        "seed": seed,
        "broken": broken,
        "measured": told,
        "trained": lab.trained,
        "command": f"python -m benchmarks.evidence {gate.name} --seeds {seed}{' --broken' if broken else ''}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seconds": round(time.monotonic() - start),  # of the last call: a run that was cut goes on in the next
        "threads": torch.get_num_threads(),
        "precision": precision(),
        "device": describe_device(pick_device("auto")),
        "machine": f"{platform.machine()}, torch {torch.__version__}, Python {platform.python_version()}",
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    if lab.picture is not None and not broken:
        shutil.copyfile(lab.picture, result_path(gate.name, seed, broken).with_suffix(".png"))
    text = json.dumps(result, indent=1) + "\n"
    path = result_path(gate.name, seed, broken)
    path.with_suffix(".tmp").write_text(text, encoding="utf-8")
    path.with_suffix(".tmp").replace(path)
    verdict = "holds" if gate.passed(told) else "missed"
    print(f"{gate.name}, seed {seed}{', broken' if broken else ''}: {verdict}: {result['measured']}", flush=True)
    return True


def show(gates: list[Gate]) -> None:
    """One line a gate: its results so far, its threshold."""
    for gate in gates:
        marks = []
        for path in sorted(RESULTS.glob(f"{gate.name}-seed*.json")):
            result = json.loads(path.read_text(encoding="utf-8"))
            broken = "broken " if result["broken"] else ""
            marks.append(f"{broken}{result['seed']} {'holds' if gate.passed(result['measured']) else 'missed'}")
        print(f"{gate.name:24} {', '.join(marks) or 'not run':40} {gate.threshold}")


if __name__ == "__main__":
    sys.exit(main())
