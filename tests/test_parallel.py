"""Measurements side by side: each with cores of its own, none lost when another fails, one maker of each file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from benchmarks import parallel
from benchmarks.evidence.lab import alone
from filelock import Timeout

COUNTED = """
import os, pathlib, sys, time
here, name, code = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
(here / f"now-{name}").touch()
time.sleep(0.3)
there = len(list(here.glob("now-*")))
(here / f"now-{name}").unlink()
(here / name).write_text(f"{there} {os.environ['OMP_NUM_THREADS']}")
sys.exit(code)
"""


@pytest.mark.parametrize(("jobs", "codes"), [(1, [0, 3, 0]), (2, [0, 75, 1, 0, 0])])
def test_commands_side_by_side(tmp_path: Path, jobs: int, codes: list[int]):
    commands = [[sys.executable, "-c", COUNTED, str(tmp_path), f"c{i}", str(code)] for i, code in enumerate(codes)]
    assert parallel.run_all(commands, jobs) == max(codes)
    told = [tuple(map(int, (tmp_path / f"c{i}").read_text().split())) for i in range(len(codes))]
    assert max(there for there, _ in told) <= jobs
    threads = max(1, len(parallel.cores()) // jobs)
    assert all(threads <= count <= threads + 1 for _, count in told)


def test_no_commands():
    assert parallel.run_all([], 2) == 0


def test_one_maker_at_a_time(tmp_path: Path):
    with alone(tmp_path / "runs" / "a"), pytest.raises(Timeout), alone(tmp_path / "runs" / "a").acquire(timeout=0.05):
        pass
    with alone(tmp_path / "runs" / "a"), alone(tmp_path / "runs" / "b"):
        pass
