"""What a training step of each family costs on this machine: the numbers in the table of docs/families.md.

    python -m benchmarks.cost [--seconds 5]

Each family's leading preset is timed in a process of its own, as `elegan bench` does, so that its peak of memory is its
own. Writes `benchmarks/results/cost.json`; `make docs` puts it into the page.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from benchmarks.machine import about
from elegan import families

RESULT = Path(__file__).parent / "results" / "cost.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each is timed")
    seconds = parser.parse_args().seconds
    found = {}
    for name in families.names():
        command = [sys.executable, "-m", "elegan", "families", name, "--time", str(seconds), "--json"]
        found[name] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["cost"]
        print(f"{name:12} {found[name]['images_per_second']:8,.0f} images/s  ({found[name]['preset']})", flush=True)
    RESULT.write_text(json.dumps({"machine": about(), "families": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
