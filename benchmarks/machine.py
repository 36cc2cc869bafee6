"""When and on what something was measured, in words: the same line under every table."""

from __future__ import annotations

import datetime
import platform

import torch

import elegan
from elegan.training.engine import has_bf16


def about() -> str:
    """Date, GPU if there is one, processor, threads and versions."""
    can = torch.backends.cpu.get_cpu_capability() + (", bf16" if has_bf16(torch.device("cpu")) else "")
    cpu = f"{platform.processor() or platform.machine()} ({can})"
    gpu = f"one {torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    versions = f"elegan {elegan.__version__}, torch {torch.__version__}, Python {platform.python_version()}"
    return f"{datetime.date.today()}, {gpu}{cpu}, {torch.get_num_threads()} threads, {versions}"
