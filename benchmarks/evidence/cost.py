"""How long one seed of each gate takes on this machine: the minutes in the table of docs/evidence.md.

    python -m benchmarks.evidence.cost [FAMILY or GATE ...]

Each gate is measured as ever, but its trainings end after a few steps; what the rest of them would take follows from
the steps' own time. A gate has a process of its own, so that none finds ready what another has learnt. Writes
`benchmarks/results/evidence/cost.json`; `make docs` puts it into the page.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.evidence.page import COST, costs
from benchmarks.evidence.table import GATES, chosen
from benchmarks.machine import about
from benchmarks.parallel import end_with_parent

STEPS = 64  # of each training: whole periods of all penalties that a step has only now and then


def seconds(name: str) -> float:
    """What one seed of a gate takes, trained anew."""
    from benchmarks.evidence.lab import Lab

    (gate,) = [g for g in GATES if g.name == name]
    with tempfile.TemporaryDirectory() as folder:
        lab, start = Lab(0, False, Path(folder), cut=STEPS), time.monotonic()
        gate.function()(lab)
        return time.monotonic() - start + sum(lab.left.values())


def main() -> None:
    try:
        gates = chosen(sys.argv[1:])
    except ValueError as error:
        sys.exit(f"{error}; `python -m benchmarks.evidence --list` shows them")
    for gate in gates:
        with ProcessPoolExecutor(1, get_context("spawn"), end_with_parent) as pool:
            taken = pool.submit(seconds, gate.name).result()
        print(f"{gate.name:24} {taken / 60:6.1f} minutes", flush=True)
        COST.write_text(json.dumps(joined(costs(), gate.name, taken, about()), indent=1) + "\n", encoding="utf-8")


def joined(known: dict[str, dict[str, Any]], name: str, taken: float, about: str) -> dict[str, dict[str, Any]]:
    """What is known with one gate more, in seconds, on the machine of such a line; what others took stays."""
    date, _, machine = about.partition(", ")
    minutes = known.get(machine, {}).get("minutes", {})
    return known | {machine: {"date": date, "minutes": minutes | {name: round(taken / 60, 1)}}}


if __name__ == "__main__":
    main()
