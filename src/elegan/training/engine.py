"""What the machine offers, and how a step runs on it: device, precision, memory layout, threads.

Families write plain PyTorch; everything here is put around them. Weights, optimiser state and averages stay
float32; with bf16, matrix products and convolutions run under autocast.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from elegan.errors import UserError
from elegan.families.base import Family, mix


@dataclass(frozen=True)
class Engine:
    """A device and a precision, resolved: no `auto` left."""

    device: torch.device
    precision: str  # "fp32" or "bf16"

    def place(self, model: Family) -> None:
        """Move a model's networks to the device and store their convolutions channels_last."""
        keep_freed_memory()
        for net in model.parts.nets.values():
            net.to(self.device)
            net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for name, value in model.parts.values.items():
            model.parts.values[name] = value.to(self.device)

    def context(self) -> contextlib.AbstractContextManager[None]:
        """What a step runs inside.

        Autocast would keep the bf16 copy of a weight until the step ends; a step that moves weights and uses them
        again (a critic's second update, D in G's loss) needs them cast anew.
        """
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16", cache_enabled=False)

    def seed(self, *numbers: int) -> None:
        """Key the randomness of the CPU and of this device to `numbers` (seed, rank, images seen): resuming needs no
        other state.

        `torch.manual_seed` would also note for every kind of device that is absent where it was called from, each step.
        """
        number = mix(*numbers)
        torch.default_generator.manual_seed(number)
        if self.device.type == "cuda":
            torch.cuda.manual_seed_all(number)

    def synchronize(self) -> None:
        """Wait for the device, before reading a clock."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def pick_device(wanted: str) -> torch.device:
    """`auto` is a CUDA GPU if torch sees one, else the CPU. UserError when CUDA is asked for and absent."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted == "cuda" and not torch.cuda.is_available():
        built = "this torch is built without CUDA" if torch.version.cuda is None else "torch sees no GPU"
        raise UserError(f"--device cuda: {built}; use --device cpu")
    return torch.device(wanted)


def has_bf16(device: torch.device) -> bool:
    """Whether the hardware itself computes in bfloat16; elsewhere it would be emulated, and slow."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def keep_freed_memory() -> None:
    """Tell glibc to keep what the process frees for its next use; elsewhere nothing.

    By default every large tensor is a fresh mapping, whose pages the kernel clears one by one: a seventh of a step's
    time. The process then stays at the size of its peak.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):  # another C library
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(-3, 2**30)  # M_MMAP_THRESHOLD
            mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def leave_out_the_compiler() -> None:
    """Let optimisers work without torch's compiler, which they import (over a second) to be left alone by it.

    Nothing here is compiled. Where torch is built otherwise this does nothing, and they import it.
    """
    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        plain = getattr(getattr(torch.optim.Optimizer, name), "__wrapped__", None)
        if plain is not None and not hasattr(plain, "__dynamo_disable"):
            plain.__dynamo_disable = plain  # what torch._compile.inner looks for
    for kind in (torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop):
        if "step" in vars(kind) and hasattr(kind.step, "__wrapped__"):
            kind.step = _without_gradient(kind.step)  # type: ignore[method-assign]


def _without_gradient(step: Callable[..., Any]) -> Callable[..., Any]:
    """An optimiser's `step`, done as torch's own wrapper does it but for the word to the compiler."""
    plain = step.__wrapped__  # type: ignore[attr-defined]

    @functools.wraps(plain)
    def quick(self: torch.optim.Optimizer, closure: Callable[[], Any] | None = None) -> Any:
        if self.defaults.get("differentiable") or torch.compiler.is_compiling():
            return step(self, closure)
        with torch.no_grad():
            return plain(self, closure)

    return quick


leave_out_the_compiler()


def check_precision(engine: Engine) -> None:
    """UserError when bf16 is asked of hardware that does not compute in it."""
    if engine.precision == "bf16" and not has_bf16(engine.device):
        raise UserError("--precision bf16: this machine computes bfloat16 in software only; use --precision fp32")


def time_step(step: Callable[[], object], engine: Engine, seconds: float, warm_up: int = 1) -> float:
    """Median seconds of one call of `step`, over `seconds` and at least three calls, after a warm-up."""
    for _ in range(warm_up):
        step()
    engine.synchronize()
    times: list[float] = []
    while sum(times) < seconds or len(times) < 3:
        start = time.perf_counter()
        step()
        engine.synchronize()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def peak_memory(device: torch.device) -> int:
    """Peak memory in bytes: of the process on a CPU, of torch's allocations on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def available_memory(device: torch.device) -> int | None:
    """Free memory in bytes, or None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), None)


def describe_device(device: torch.device) -> str:
    """`NVIDIA H100` or `CPU, 2 threads`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


class Sums:
    """Running means of a step's values, kept on the device: reading them is the only synchronisation."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.steps = 0

    def add(self, values: dict[str, Tensor]) -> None:
        """Take in one step's 0-d tensors."""
        for name, value in values.items():
            single = value.detach().float()
            self.sums[name] = self.sums[name] + single if name in self.sums else single
        self.steps += 1

    def means(self) -> dict[str, float]:
        """The means since the last call."""
        means = {name: (value / self.steps).item() for name, value in self.sums.items()}
        self.sums, self.steps = {}, 0
        return means
