"""The training loop: a generator of events. It knows nothing about GANs.

The way of one batch: `Feed.batch` gathers it on the device, the family's `step` learns from it, and the
family's step calls the functions in `adversarial/`. Everything random in a step is keyed to the seed and the
images seen so far, so the loop's whole state is three counters.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from elegan.config import RunConfig, TrainConfig
from elegan.doctor.evidence import not_finite
from elegan.doctor.finding import Finding
from elegan.errors import UserError
from elegan.families.base import Family, ImageSpec
from elegan.images import grid, to_uint8
from elegan.training import checkpoint, remedy
from elegan.training.checkup import Checkup
from elegan.training.engine import Engine, Sums, peak_memory
from elegan.training.events import Event, Finished, Grid, Lengthened, OffPace, Saved, Scores, Step, Stopped, Warned
from elegan.training.feed import Feed
from elegan.training.folder import RunFolder
from elegan.training.plan import build_model, images_per_step, make_step, with_length

GRID_SEED = 1_000_003  # of the noise behind every sample grid: the same in every run, for comparison


@dataclass
class Progress:
    """The loop's counters: with the model's parts, the whole state of a run."""

    images: int = 0
    steps: int = 0
    seconds: float = 0.0
    sums: Sums = field(default_factory=Sums)

    def to_dict(self) -> dict[str, Any]:
        """As it stands in a checkpoint, unfinished means included."""
        sums = {name: value.item() for name, value in self.sums.sums.items()}
        return {"images": self.images, "steps": self.steps, "seconds": self.seconds, "sums": [self.sums.steps, sums]}

    @classmethod
    def from_dict(cls, counters: dict[str, Any], device: torch.device) -> Progress:
        """Read back from a checkpoint. Raises UserError when a counter is missing or no number."""
        try:
            progress = cls(int(counters["images"]), int(counters["steps"]), float(counters["seconds"]))
            progress.sums.steps, sums = counters["sums"]
            progress.sums.sums = {name: torch.tensor(float(v), device=device) for name, v in sums.items()}
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise UserError(f"the checkpoint's counters are damaged ({type(error).__name__}: {error})") from None
        return progress


def run(
    model: Family,
    feed: Feed,
    engine: Engine,
    config: RunConfig,
    folder: RunFolder,
    at: Progress,
    *,
    stop: Callable[[], bool] = lambda: False,
    off_pace: Callable[[], bool] = lambda: False,
    length: Callable[[int, int], int] = lambda images, total: total,
    score: Callable[[Family], Any] | None = None,
    doctor: Checkup | None = None,
) -> Iterator[Event]:
    """Train from `at` to `config.train.images`, writing into `folder` and yielding what happens.

    `stop` is asked after every step; when it says so the run saves and ends. `off_pace` is asked too; when it says
    so the run ends, with nothing saved, to be planned anew. `length` is told the images seen and planned, at each row
    of the log, and says how many are planned from now on. `score` judges the model every
    `config.train.score_every` images, `doctor` looks at it every `check_every`. Raises UserError when a loss is no
    longer finite, or on a collapse that `config.train.on_collapse` stops at; the checkpoints before it stay.
    """
    train, per_step = config.train, images_per_step(model)
    step = begin(model, feed, engine, config, folder, at.images)
    if at.images == 0:
        yield save_grid(model, config, folder, 0)
    clock, since = time.perf_counter(), at.images
    early = doctor is not None and doctor.exhausted(at.images)

    while at.images < train.images and not early:
        at.sums.add(step(at.images))
        before, at.images, at.steps = at.images, at.images + per_step, at.steps + 1
        ended, stopping = at.images >= train.images, stop()
        saving = at.steps % train.checkpoint_every == 0 or ended or stopping
        if not (ended or stopping) and off_pace():
            yield OffPace(at.images)
            return
        values: dict[str, float] = {}

        if at.steps % train.log_every == 0 or ended:
            values = at.sums.means()  # the only place where the loop waits for the device
            now = time.perf_counter()
            at.seconds, speed, clock = at.seconds + now - clock, (at.images - since) / (now - clock), now
            since = at.images
        ill = breakdown(values, model, saving, at.images, folder, doctor)
        if values and ill is None:
            yield log(at, train.images, speed, peak_memory(engine.device), values, folder)
            if (total := length(at.images, train.images)) != train.images and not ended:
                config = lengthen(config, total, folder, doctor)
                yield Lengthened(at.images, train.images, total)
                train, step = config.train, begin(model, feed, engine, config, folder, at.images)
        if ill is None and train.grids and (crossed(before, at.images, grid_every(train, per_step)) or ended):
            yield save_grid(model, config, folder, at.images)
        if ill is None and score and train.score_every and crossed(before, at.images, train.score_every):
            result = score(model)
            folder.append({"images": at.images} | result.value.model_dump(), "scores.jsonl")
            yield Scores(at.images, result)
        elapsed = at.seconds + time.perf_counter() - clock
        if ill is None and doctor and doctor.due(before, at.images, ended, elapsed):
            yield from doctor.look(model, at.to_dict())
            ill, early = doctor.fatal, doctor.exhausted(at.images)
        if doctor:
            doctor.watch(model, before, at.images)

        if ill is not None and train.on_collapse == "rollback":
            at.seconds, clock = at.seconds + time.perf_counter() - clock, time.perf_counter()
            model, at, text = go_back(config, folder, engine, model.spec, at, ill)
            assert doctor is not None
            doctor.forget(at.images)
            step, since, early = begin(model, feed, engine, config, folder, at.images), at.images, False
            yield Warned(f"the run had collapsed and goes {text}")
            yield save(model, folder, at, train.keep)
            continue
        collapsed = ill is not None and train.on_collapse == "stop"
        if saving or early or collapsed:
            at.seconds, clock, since = at.seconds + time.perf_counter() - clock, time.perf_counter(), at.images
            yield save(model, folder, at, train.keep)
        if ill is not None and collapsed:
            raise remedy.stopped(ill, folder)
        if stopping and not ended:
            yield Stopped(at.images, train.images)
            return
    if early and doctor is not None:
        yield Warned(doctor.ended_early(at.images))
    yield Finished(at.images, at.seconds, *((len(doctor.rows), doctor.spent) if doctor else (0, 0.0)))


def begin(
    model: Family, feed: Feed, engine: Engine, config: RunConfig, folder: RunFolder, images: int
) -> Callable[[int], dict[str, Any]]:
    """The step that takes a model on from `images`; before the first one the model looks at the data."""
    if images == 0:
        model.prepare(feed.images, feed.labels)
    return make_step(model, feed, engine, remedy.current(config, folder))


def lengthen(config: RunConfig, images: int, folder: RunFolder, doctor: Checkup | None) -> RunConfig:
    """Give a run another length, for all who ask for it."""
    config = with_length(config, images=images)
    folder.write_config(config)
    if doctor:
        doctor.config = config
    return config


def crossed(before: int, images: int, every: int) -> bool:
    """Whether a multiple of `every` images lies after `before` and not after `images`."""
    return images // every > before // every


def grid_every(train: TrainConfig, per_step: int) -> int:
    """Images between sample grids."""
    return max(per_step, train.images // train.grids)


def log(at: Progress, total: int, speed: float, memory: int, values: dict[str, float], folder: RunFolder) -> Step:
    """Write a row of stats.jsonl."""
    folder.append(
        {"images": at.images, "steps": at.steps, "seconds": round(at.seconds, 3)}
        | {"images_per_second": round(speed, 1), "memory": memory}
        | values
    )
    return Step(at.images, total, at.steps, at.seconds, speed, memory, values)


def go_back(
    config: RunConfig, folder: RunFolder, engine: Engine, spec: ImageSpec, at: Progress, ill: Finding
) -> tuple[Family, Progress, str]:
    """Roll a collapsed run back: its model and counters (the time stays spent), and what was done, in words."""
    model, counters, text = remedy.roll_back(config, folder, lambda c: build_model(c, spec, engine), ill)
    back = Progress.from_dict(counters, engine.device) if counters else Progress()
    back.seconds = at.seconds
    return model, back, text


def save(model: Family, folder: RunFolder, at: Progress, keep: int) -> Saved:
    """Write a checkpoint of a model whose weights are finite; UserError otherwise."""
    broken = not_finite(model, gradients=False)
    if broken:
        raise UserError(_diverged(broken[0], model, at.images, folder))
    path = checkpoint.save(folder.checkpoints, model.parts, at.to_dict())
    checkpoint.prune(folder.checkpoints, keep, path)
    return Saved(at.images, path)


def breakdown(
    values: dict[str, float], model: Family, saving: bool, images: int, folder: RunFolder, doctor: Checkup | None
) -> Finding | None:
    """What the doctor says when one of a step's values, or a weight about to be saved, is no number; None otherwise.

    Raises UserError, naming the tensor, unless the run is to go back by itself.
    """
    faults = [f"{name} = {value}" for name, value in values.items() if not math.isfinite(value)][:1]
    if faults or saving:
        faults = not_finite(model, gradients=bool(faults))[:1] + faults
    if not faults:
        return None
    finding = doctor.broke(images, faults) if doctor else None
    if doctor is None or doctor.config.train.on_collapse != "rollback":
        raise UserError(_diverged(", ".join(faults), model, images, folder))
    return finding


def save_grid(model: Family, config: RunConfig, folder: RunFolder, images: int) -> Grid:
    """Draw the fixed noise once more; conditional models show one class a column."""
    rows = columns = config.train.grid_side
    labels = None
    if model.categories:
        columns = min(model.categories, 10)
        labels = torch.arange(columns).repeat(rows)
    samples = to_uint8(model.sample(rows * columns, labels, seed=GRID_SEED)).permute(0, 2, 3, 1).numpy()
    scale = max(1, round(56 / max(samples.shape[1:3])))
    return Grid(images, folder.save_grid(images, grid(samples, columns=columns, scale=scale)))


def _diverged(what: str, model: Family, images: int, folder: RunFolder) -> str:
    last = checkpoint.listing(folder.checkpoints)
    kept = f"the checkpoint at {int(last[0].stem):,} images is good" if last else "no checkpoint was written yet"
    rates = " ".join(f"--set {name}=..." for name in ("lr", "G_lr", "D_lr") if hasattr(model.config, name))
    return (
        f"{folder.path}: training diverged after {images:,} images ({what}); {kept}; start another run with smaller "
        f"learning rates ({rates}) or --precision fp32"
    )
