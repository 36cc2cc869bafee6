"""When, where and with what a run was trained: one row of sittings.jsonl each time that training starts."""

from __future__ import annotations

import datetime
import platform
from pathlib import Path
from typing import Any

import torch

from elegan import __version__
from elegan.training.engine import describe_device


def sitting(images: int, device: torch.device) -> dict[str, Any]:
    """The row for a start at so many `images`: `date` (UTC), `device`, and the versions of what computes."""
    return {
        "images": images,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "device": f"{describe_device(device)}{processor() if device.type == 'cpu' else ''}",
        "elegan": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def processor() -> str:
    """` (AMD EPYC 9B45)`, where Linux says what the processor is."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f" ({names[0]})" if names and names[0] else ""
