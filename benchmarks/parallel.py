"""Several measurements at once, each in a process of its own on cores of its own.

Narrow networks gain little from a second thread: two processes of one thread each do more in an hour than one process
of two. What is timed must still be timed alone, or beside others in the same way.
"""

from __future__ import annotations

import os
import queue
import subprocess
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import parent_process


def cores() -> list[int]:
    """The processor cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def run_all(commands: Sequence[Sequence[str]], jobs: int) -> int:
    """Run commands in their order, at most `jobs` at a time, each on its share of the cores.

    Returns the largest exit code. One that fails does not keep the others from running.
    """
    shares: queue.Queue[list[int]] = queue.Queue()
    own = cores()
    for i in range(jobs):
        shares.put(own[i::jobs] or own)

    def run(command: Sequence[str]) -> int:
        share = shares.get()
        try:
            with subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": str(len(share))}) as process:
                if hasattr(os, "sched_setaffinity"):
                    os.sched_setaffinity(process.pid, share)
            return abs(process.returncode)
        finally:
            shares.put(share)

    with ThreadPoolExecutor(jobs) as pool:
        return max(pool.map(run, commands), default=0)


def end_with_parent() -> None:
    """For the start of a child of `multiprocessing`, which would go on without its parent, beside what is run next."""

    def watch() -> None:
        parent = parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
