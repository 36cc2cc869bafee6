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

from elegan.config import RunConfig
from elegan.errors import UserError
from elegan.families.base import Family
from elegan.images import grid, to_uint8
from elegan.training import checkpoint
from elegan.training.engine import Engine, Sums, peak_memory
from elegan.training.events import Event, Finished, Grid, Saved, Scores, Step, Stopped
from elegan.training.feed import Feed
from elegan.training.folder import RunFolder
from elegan.training.plan import images_per_step, make_step

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
    score: Callable[[Family], Any] | None = None,
) -> Iterator[Event]:
    """Train from `at` to `config.train.images`, writing into `folder` and yielding what happens.

    `stop` is asked after every step; when it says so the run saves and ends. `score` judges the model every
    `config.train.score_every` images. Raises UserError when a loss is no longer finite; the checkpoints
    before it stay.
    """
    train, per_step = config.train, images_per_step(model)
    step = make_step(model, feed, engine, config)
    grid_every = max(per_step, train.images // train.grids) if train.grids else train.images
    if at.images == 0:
        yield save_grid(model, config, folder, 0)
    clock, since = time.perf_counter(), at.images

    while at.images < train.images:
        at.sums.add(step(at.images))
        before, at.images, at.steps = at.images, at.images + per_step, at.steps + 1
        ended, stopping = at.images >= train.images, stop()

        if at.steps % train.log_every == 0 or ended:
            values = at.sums.means()  # the only place where the loop waits for the device
            now = time.perf_counter()
            at.seconds, speed, clock = at.seconds + now - clock, (at.images - since) / (now - clock), now
            since = at.images
            event = Step(at.images, train.images, at.steps, at.seconds, speed, peak_memory(engine.device), values)
            check_finite(values, event.images, folder)
            folder.append(
                {"images": event.images, "steps": event.steps, "seconds": round(event.seconds, 3)}
                | {"images_per_second": round(speed, 1), "memory": event.memory}
                | values
            )
            yield event
        if train.grids and (at.images // grid_every > before // grid_every or ended):
            yield save_grid(model, config, folder, at.images)
        if score and train.score_every and at.images // train.score_every > before // train.score_every:
            result = score(model)
            folder.append({"images": at.images} | result.value.model_dump(), "scores.jsonl")
            yield Scores(at.images, result)
        if at.steps % train.checkpoint_every == 0 or ended or stopping:
            at.seconds, clock, since = at.seconds + time.perf_counter() - clock, time.perf_counter(), at.images
            yield save(model, folder, at, train.keep)
        if stopping and not ended:
            yield Stopped(at.images, train.images)
            return
    yield Finished(at.images, at.seconds)


def save(model: Family, folder: RunFolder, at: Progress, keep: int) -> Saved:
    """Write a checkpoint of a model whose weights are finite; UserError otherwise."""
    for name, net in model.parts.nets.items():
        for key, value in net.state_dict().items():
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise UserError(_diverged(f"{name}'s {key}", at.images, folder))
    path = checkpoint.save(folder.checkpoints, model.parts, at.to_dict())
    checkpoint.prune(folder.checkpoints, keep, path)
    return Saved(at.images, path)


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


def check_finite(values: dict[str, float], images: int, folder: RunFolder) -> None:
    """Raise UserError when any of a step's values is not a number."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise UserError(_diverged(f"{name} = {value}", images, folder))


def _diverged(what: str, images: int, folder: RunFolder) -> str:
    last = checkpoint.listing(folder.checkpoints)
    kept = f"the checkpoint at {int(last[0].stem):,} images is good" if last else "no checkpoint was written yet"
    return (
        f"{folder.path}: training diverged after {images:,} images ({what}); {kept}; start another run with smaller "
        "learning rates (--set G_lr=... --set D_lr=...) or --precision fp32"
    )
