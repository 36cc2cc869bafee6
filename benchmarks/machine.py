"""When and on what something was measured, in words: the same line under every table."""

from __future__ import annotations

import datetime
import platform

import torch

import elegan


def about() -> str:
    """Date, processor, threads and versions."""
    cpu = f"{platform.processor() or platform.machine()} ({torch.backends.cpu.get_cpu_capability()})"
    versions = f"elegan {elegan.__version__}, torch {torch.__version__}, Python {platform.python_version()}"
    return f"{datetime.date.today()}, {cpu}, {torch.get_num_threads()} threads, {versions}"
