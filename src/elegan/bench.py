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

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from elegan import families
from elegan.config import RunConfig, build
from elegan.errors import UserError
from elegan.families.base import ImageSpec
from elegan.training.engine import Engine, describe_device, has_bf16, peak_memory, pick_device
from elegan.training.feed import Feed
from elegan.training.plan import build_model, enough_memory, images_per_step, make_step


@dataclass(frozen=True)
class Bench:
    """What was measured: times are medians of whole steps, data gathering included."""

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
    """Time training steps of a preset on random 28x28 images (64x64x3 for `faces-*`), for about `seconds`.

    Precision `auto` is bf16 where the hardware has it. Raises UserError for an unknown preset or device.
    """
    if not 0 < seconds <= 3600:
        raise UserError(f"--seconds {seconds} is not between 0 and 3600")
    preset = preset or families.DEFAULT_PRESET
    family, recipe = families.preset(preset)
    overrides = {} if batch is None else {"model.batch": batch}
    config = build(preset, family, recipe.config, overrides=overrides, train={"images": 10**12})
    place = pick_device(device)
    if precision == "auto":
        precision = "bf16" if has_bf16(place) else "fp32"
    engine = Engine(place, precision)
    spec = ImageSpec(3, 64, 64, 10) if preset.startswith("faces") else ImageSpec(1, 28, 28, 10)
    with enough_memory(config):
        step, per_step = _stepper(config, spec, engine)
        for seen in (0, 0):
            step(seen)
        with FlopCounterMode(display=False) as counter:
            step(0)
        rate = ceiling(engine)
        times = _times(partial(step, 0), engine, seconds)
    rate = max(rate, ceiling(engine))  # a machine that others use is judged by its better moment
    median = sorted(times)[len(times) // 2]
    flop = float(counter.get_total_flops())
    return Bench(
        preset=preset,
        batch=config.model.batch,  # type: ignore[attr-defined]
        ms_per_step=1e3 * median,
        images_per_second=per_step / median,
        floor_ms=1e3 * flop / rate,
        ratio_to_floor=median / (flop / rate),
        gflop_per_step=flop / 1e9,
        ceiling_gflops=rate / 1e9,
        peak_memory_mb=peak_memory(place) / 1e6,
        device=describe_device(place),
        precision=precision,
        steps=len(times),
        torch=torch.__version__,
    )


def _stepper(config: RunConfig, spec: ImageSpec, engine: Engine) -> tuple[Callable[[int], object], int]:
    """The step function of a fresh model on random data, and the images that it consumes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (2048, spec.channels, spec.height, spec.width), generator=generator, dtype=torch.uint8)
    labels = torch.randint(spec.classes, (len(images),), generator=generator)
    feed = Feed(images.numpy(), labels.numpy(), 0, engine.device)
    model = build_model(config, spec, engine)
    return make_step(model, feed, engine, config), images_per_step(model)


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
