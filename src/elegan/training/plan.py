"""Before a run: what the machine can do with this model, and how long and how large the run will be.

A few real steps are timed and thrown away. What follows from them (images for a time budget, precision,
intervals) is written into the configuration once, so that a run that goes on does not plan anew.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from elegan import families
from elegan.config import RunConfig, TrainConfig, seconds
from elegan.doctor.evidence import features_for
from elegan.errors import UserError
from elegan.families.base import Clock, Family, ImageSpec
from elegan.training.engine import (
    Engine,
    available_memory,
    check_precision,
    describe_device,
    has_bf16,
    peak_memory,
    pick_device,
    time_step,
)
from elegan.training.events import Planned
from elegan.training.feed import Feed
from elegan.training.recorded import Recorded, steps_to_warm_up
from elegan.training.transfer import freeze_lower

WORTH_IT = 1.1  # bf16 must be this much faster than fp32 to be taken by itself
GRID_SHARE = 0.04  # of a run's time, at most, for sample grids
CHECKPOINT_SECONDS, MOST_CHECKPOINTS = 120, 20
LOG_SECONDS, LOG_ROWS = 10, 200
COLLECTED = 10**7  # weights (40 MB a copy) that were only timed, from which on their memory is asked back at once
CHECK_SHARE, CHECK_SECONDS = 0.035, 0.2  # of the time for the doctor; what a look takes besides samples and features
CHECK_SAMPLES, ENOUGH_CHECKS, FEWEST_CHECKS, MOST_CHECKS = (500, 250), 8, 10, 40


@contextlib.contextmanager
def enough_memory(config: RunConfig) -> Iterator[None]:
    """Turn running out of memory into a message with a remedy."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise UserError(_too_large(config, str(error))) from None
    except RuntimeError as error:
        if "allocate memory" in str(error) or "out of memory" in str(error):
            raise UserError(_too_large(config, str(error))) from None
        raise


def _too_large(config: RunConfig, reason: str) -> str:
    batch = getattr(config.model, "batch", 0)
    reason = " ".join(reason.split())[:120]
    return (
        f"not enough memory for {config.preset!r} with batch {batch} ({reason}); try --set batch={max(batch // 2, 1)} "
        "or smaller images (--set size=...)"
    )


def build_model(config: RunConfig, spec: ImageSpec, engine: Engine) -> Family:
    """A new model with initial weights keyed to the seed, on its device."""
    engine.seed(config.train.seed)
    model: Family = families.get(config.family).Model(config.model, spec)
    engine.place(model)
    if config.train.freeze_D:
        freeze_lower(model, config.train.freeze_D)
    return model


def images_per_step(model: Family) -> int:
    """Real images that one step consumes."""
    return model.batches_per_step * model.config.batch


def make_step(model: Family, feed: Feed, engine: Engine, config: RunConfig) -> Callable[[int], dict[str, Any]]:
    """The function that trains on the images at place `seen`: the same for timing and for the run itself."""
    batch, count, recorded = model.config.batch, model.batches_per_step, Recorded(model, engine)
    learn = recorded if engine.device.type == "cuda" and config.train.record else recorded.plainly

    def step(seen: int) -> dict[str, Any]:
        batches = [feed.batch(seen + i * batch, batch) for i in range(count)]
        engine.seed(config.train.seed, 0, seen)  # 0: the rank
        return learn(batches, Clock(seen, config.train.images))

    return step


def typical_seconds(model: Family, step: Callable[[int], object], engine: Engine, spend: float, images: int) -> float:
    """Mean seconds of a step over a run of `images`, from the places in it that stand for all, timed for `spend`."""
    places = model.typical(images)
    return sum(
        share * time_step(partial(step, place), engine, spend / len(places), warm_up=steps_to_warm_up(engine))
        for place, share in places.items()
    )


def worth_it(found: dict[str, list[float]]) -> bool:
    """Whether bf16 is so much faster than fp32, by the seconds of a step in each, timed in turns.

    Turn by turn, and the median of them: a machine may change its pace from one second to the next.
    """
    return median([fp32 / bf16 for bf16, fp32 in zip(found["bf16"], found["fp32"], strict=True)]) > WORTH_IT


def quickest(
    config: RunConfig, spec: ImageSpec, feed: Feed, device: torch.device, budget: str | None
) -> tuple[Family, Engine, float]:
    """A model that was trained for a moment, to be thrown away, the engine to train it with, and seconds a step.

    Where the precision is left to the plan and the hardware has both, the quicker one is taken.
    """
    wanted = config.train.precision
    choices = ["bf16", "fp32"] if wanted == "auto" and has_bf16(device) else ["fp32" if wanted == "auto" else wanted]
    timing = with_length(config, images=10**9)  # as at the start of a long run
    spend = min(2.0, 0.02 * seconds(budget)) if budget else 0.5
    check_memory(timing, spec, feed, device)
    found: dict[str, list[float]] = {precision: [] for precision in choices}

    def turn(spend: float) -> Family:
        for precision in choices:
            engine = Engine(device, precision)
            model = build_model(timing, spec, engine)
            step = make_step(model, feed, engine, timing)
            found[precision].append(typical_seconds(model, step, engine, spend, timing.train.images))
        return model

    model = turn(spend)
    if len(choices) == 2 and not worth_it(found):  # a busy moment would cost the whole run its speed: look again
        for _ in range(2):
            model = turn(spend / 2)
    precision = "bf16" if len(choices) == 2 and worth_it(found) else choices[-1]
    return model, Engine(device, precision), median(found[precision])


def plan(config: RunConfig, spec: ImageSpec, feed_for: Callable[[torch.device], Feed], length: dict[str, Any]) -> tuple:
    """Resolve a configuration: `(config, engine, Planned)`.

    `length` has one of `budget` (text), `images`, `epochs`, `steps`, else the preset's own length is taken.
    """
    preset = families.preset(config.preset)[1]
    device = pick_device(config.train.device)
    feed = feed_for(device)
    check_precision(Engine(device, config.train.precision))
    with enough_memory(config):
        model, engine, step_seconds = quickest(config, spec, feed, device, length.get("budget"))
        grid_seconds = time_step(partial(model.sample, 1, seed=0), engine, 0.0, warm_up=0)
        feature_seconds = time_features(config.data.source, feed, engine)
    sizes = {name: sum(p.numel() for p in net.parameters()) for name, net in model.parts.nets.items()}
    per_step = images_per_step(model)
    memory = peak_memory(device)
    del model
    if sum(sizes.values()) > COLLECTED or device.type != "cpu":
        gc.collect()  # networks with norms of weights refer to themselves

    images = resolve_length(length, preset.images, step_seconds, per_step, len(feed.images))
    steps = -(-images // per_step)
    train = {
        "images": steps * per_step,
        "budget": length.get("budget"),
        "device": device.type,
        "precision": engine.precision,
        "checkpoint_every": config.train.checkpoint_every
        or max(1, -(-steps // MOST_CHECKPOINTS), round(CHECKPOINT_SECONDS / step_seconds)),
        "log_every": config.train.log_every or max(1, min(steps // LOG_ROWS, round(LOG_SECONDS / step_seconds))),
        "grids": min(
            config.train.grids, max(4, int(GRID_SHARE * steps * step_seconds / max(grid_seconds, 1e-6))), steps
        ),
    }
    train |= plan_checks(config.train, steps * per_step, steps * step_seconds, grid_seconds + feature_seconds)
    config = config.model_copy(update={"train": config.train.model_copy(update=train)})
    planned = Planned(
        preset=config.preset,
        family=config.family,
        data="",
        device=describe_device(device),
        precision=engine.precision,
        parameters={name: n for name, n in sizes.items() if not name.endswith("_ema")},
        batch=config.model.batch,  # type: ignore[attr-defined]
        images=config.train.images,
        seen=0,
        step_seconds=step_seconds,
        seconds=steps * step_seconds * 1.02 + config.train.grids * grid_seconds,
        memory=memory,
    )
    return config, engine, planned


def time_features(source: str, feed: Feed, engine: Engine) -> float:
    """Seconds in which the doctor reads the features of a block of samples."""
    block = feed.images[:100].cpu().permute(0, 2, 3, 1).numpy()
    extract = features_for(source, block.shape[1:])
    return time_step(partial(extract, block), engine, 0.0, warm_up=0) * 100 / max(len(block), 1)


def plan_checks(train: TrainConfig, images: int, run_seconds: float, block_seconds: float) -> dict[str, int]:
    """How often the doctor looks, and at how many samples, so that it takes `CHECK_SHARE` of the time.

    `block_seconds` are those of drawing and reading a hundred samples. No looks in a run that is too short for two,
    unless they decide something.
    """
    needed = train.on_collapse != "warn" or train.patience > 0
    for samples in [train.check_samples] if train.check_samples else CHECK_SAMPLES:
        once = samples / 100 * block_seconds + CHECK_SECONDS
        looks = min(int((CHECK_SHARE * run_seconds - 3 * once) / once), MOST_CHECKS)
        if looks >= ENOUGH_CHECKS:
            break
    looks = max(looks, FEWEST_CHECKS) if needed else looks
    every = train.check_every or (-(-images // looks) if looks >= 2 else 0)
    return {"check_every": every, "check_samples": samples}


def resolve_length(length: dict[str, Any], default: int, step_seconds: float, per_step: int, data: int) -> int:
    """How many images a run sees: from a budget, images, epochs or steps, else `default`."""
    if length.get("budget"):
        return max(1, int(0.94 * seconds(length["budget"]) / step_seconds)) * per_step
    if length.get("images"):
        return int(length["images"])
    if length.get("epochs"):
        return max(1, round(length["epochs"] * data))
    if length.get("steps"):
        return int(length["steps"]) * per_step
    return default


def with_length(config: RunConfig, **length: Any) -> RunConfig:
    """The same configuration with another length."""
    return config.model_copy(update={"train": config.train.model_copy(update=length)})


def check_memory(config: RunConfig, spec: ImageSpec, feed: Feed, device: torch.device) -> None:
    """Refuse what cannot fit before the system kills the process: what a step on few images keeps is scaled up."""
    free = available_memory(device)
    if free is None:
        return
    try:
        with torch.device("meta"), Unfilled():
            model = families.get(config.family).Model(config.model, spec)
    except (RuntimeError, TypeError, OverflowError):  # numbers beyond 64 bits
        raise UserError(_too_large(config, "its layers are beyond any memory")) from None
    weights = [p for net in model.parts.nets.values() for p in net.parameters()]
    needed = 4 * 4 * sum(p.numel() for p in weights)  # float32 weights, gradients and Adam's two moments
    batch = model.config.batch
    if needed < 0.8 * free and batch >= 64:
        little = config.model_copy(update={"model": config.model.model_copy(update={"batch": 4})})
        kept = kept_by_step(little, spec, feed, device)
        needed += kept * batch // 4 if kept * batch // 4 > 0.5 * free else 0
    if needed > 0.95 * free:
        raise UserError(_too_large(config, f"about {needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free"))


class Unfilled(TorchFunctionMode):
    """Within the block tensors get no initial values: where they have no memory, torch would import its
    compiler (over a second) to do so.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if name in ("normal_", "uniform_", "orthogonal_", "normalize"):
            return [*args, *kwargs.values()][0]  # the tensor
        if name in ("rand", "randn"):
            return torch.empty(*args, **{key: value for key, value in kwargs.items() if key != "generator"})
        return func(*args, **kwargs)


def kept_by_step(config: RunConfig, spec: ImageSpec, feed: Feed, device: torch.device) -> int:
    """Bytes that the players of one step keep for their gradients, weights apart; about half of them at a time."""
    engine = Engine(device, "fp32")
    model = build_model(config, spec, engine)
    known = {p.untyped_storage().data_ptr() for net in model.parts.nets.values() for p in net.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    step, most = make_step(model, feed, engine, config), 0
    for place in model.typical(config.train.images):  # the dearest of them: networks grow, penalties come and go
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            step(place)
        most = max(most, sum(kept.values()))
    return most
