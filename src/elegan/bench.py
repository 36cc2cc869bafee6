"""How fast a recipe trains on this machine, and how far that is from what the machine could do.

The floor of a step is its floating-point operations (counted by torch on a real step: convolutions and matrix
products, forward and backward) over the best rate that a convolution or a matrix product reached on this machine
in the same run and precision. A ratio of 1 would mean that nothing but those operations takes time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from elegan import families
from elegan.config import RunConfig, build
from elegan.errors import UserError
from elegan.families.base import ImageSpec
from elegan.training.engine import Engine, describe_device, has_bf16, peak_memory, pick_device
from elegan.training.feed import Feed
from elegan.training.plan import build_model, enough_memory, images_per_step, make_step


@dataclass(frozen=True)
class Bench:
    """What was measured: times are medians of whole steps, data gathering included.

    Where steps differ in cost (penalties now and then, networks that grow), they are the mean over a whole run.
    """

    preset: str
    batch: int
    ms_per_step: float
    images_per_second: float
    floor_ms: float
    ratio_to_floor: float
    gflop_per_step: float
    ceiling_gflops: float
    peak_memory_mb: float
    device: str
    precision: str
    steps: int
    torch: str

    def to_dict(self) -> dict[str, object]:
        """All of it, rounded as far as it is meaningful."""
        return {k: round(v, 3) if isinstance(v, float) else v for k, v in asdict(self).items()}

    def __str__(self) -> str:
        speed = f"median of {self.steps}, {self.images_per_second:,.0f} images/s"
        work = f"{self.gflop_per_step:.1f} GFLOP at {self.ceiling_gflops:,.0f} GFLOP/s"
        return "\n".join(
            [
                f"{self.preset}, batch {self.batch}, {self.device}, {self.precision}, torch {self.torch}",
                f"  step      {self.ms_per_step:.1f} ms ({speed})",
                f"  floor     {self.floor_ms:.1f} ms ({work})",
                f"  ratio     {self.ratio_to_floor:.2f} times the floor",
                f"  memory    {self.peak_memory_mb:,.0f} MB at the peak",
            ]
        )


def bench(
    preset: str | None = None,
    batch: int | None = None,
    seconds: float = 10.0,
    device: str = "auto",
    precision: str = "auto",
) -> Bench:
    """Time training steps of a preset on random images of its size, for about `seconds`.

    Precision `auto` is bf16 where the hardware has it. Raises UserError for an unknown preset or device.
    """
    if not 0 < seconds <= 3600:
        raise UserError(f"--seconds {seconds} is not between 0 and 3600")
    preset = preset or families.DEFAULT_PRESET
    family, recipe = families.preset(preset)
    overrides = {} if batch is None else {"model.batch": batch}
    config = build(preset, family, recipe.config, overrides=overrides, train={"images": recipe.images})
    chosen = pick_device(device)
    if precision == "auto":
        precision = "bf16" if has_bf16(chosen) else "fp32"
    engine = Engine(chosen, precision)
    side, channels = recipe.data_settings.get("size", 28), recipe.data_settings.get("channels", 1)
    count, mean, flop = 0, 0.0, 0.0
    with enough_memory(config):
        step, per_step, places = _stepper(config, ImageSpec(channels, side, side, 10), engine)
        rate = ceiling(engine)
        for place, share in places.items():
            for _ in range(2):
                step(place)
            with Flops() as counter:
                step(place)
            flop += share * counter.total
            times = _times(partial(step, place), engine, seconds / len(places))
            count, mean = count + len(times), mean + share * sorted(times)[len(times) // 2]
    rate = max(rate, ceiling(engine))  # a machine that others use is judged by its better moment
    return Bench(
        preset=preset,
        batch=config.model.batch,  # type: ignore[attr-defined]
        ms_per_step=1e3 * mean,
        images_per_second=per_step / mean,
        floor_ms=1e3 * flop / rate,
        ratio_to_floor=mean / (flop / rate),
        gflop_per_step=flop / 1e9,
        ceiling_gflops=rate / 1e9,
        peak_memory_mb=peak_memory(engine.device) / 1e6,
        device=describe_device(engine.device),
        precision=precision,
        steps=count,
        torch=torch.__version__,
    )


class Flops(TorchDispatchMode):
    """Counts the floating-point operations of convolutions and matrix products while it is active.

    By torch's own formulas, but without its `FlopCounterMode`, whose hooks fail where a step takes a gradient within a
    gradient, as penalties on D's slope do.
    """

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def _stepper(
    config: RunConfig, spec: ImageSpec, engine: Engine
) -> tuple[Callable[[int], object], int, dict[int, float]]:
    """The step function of a fresh model on random data, the images that it consumes, and its typical places."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (2048, spec.channels, spec.height, spec.width), generator=generator, dtype=torch.uint8)
    labels = torch.randint(spec.classes, (len(images),), generator=generator)
    feed = Feed(images.numpy(), labels.numpy(), 0, engine.device)
    model = build_model(config, spec, engine)
    return make_step(model, feed, engine, config), images_per_step(model), model.typical(config.train.images)


def _times(step: Callable[[], object], engine: Engine, seconds: float) -> list[float]:
    """Seconds of each call, for `seconds` and at least five calls."""
    times: list[float] = []
    while sum(times) < seconds or len(times) < 5:
        start = time.perf_counter()
        step()
        engine.synchronize()
        times.append(time.perf_counter() - start)
    return times


def ceiling(engine: Engine) -> float:
    """The best rate in FLOP/s of a large convolution or matrix product, in the engine's precision."""
    kind = torch.bfloat16 if engine.precision == "bf16" else torch.float32
    scale = 8 if engine.device.type == "cuda" else 1
    x = torch.randn(128 * scale, 128, 14, 14, device=engine.device).to(kind, memory_format=torch.channels_last)
    w = torch.randn(128, 128, 5, 5, device=engine.device).to(kind, memory_format=torch.channels_last)
    m = torch.randn(2048 * scale, 2048, device=engine.device).to(kind)
    square = m[:2048]
    work = {
        partial(F.conv2d, x, w, padding=2): 2 * x.shape[0] * 14 * 14 * 128 * 128 * 25,
        partial(torch.mm, m, square): 2 * m.shape[0] * 2048 * 2048,
    }
    with torch.no_grad():
        return max(flop / min(_times(f, engine, 0.3)) for f, flop in work.items())
