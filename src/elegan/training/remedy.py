"""What a run does about a collapse: stop, or go back to the last good state with half the learning rates.

Rolling back is recorded in `rollbacks.jsonl`, from which a run that goes on takes its settings again: the run stays
exactly repeatable, and `config.yaml` stays what was asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from elegan.config import RunConfig
from elegan.doctor.finding import Finding, scaled, written
from elegan.errors import UserError
from elegan.families.base import Family
from elegan.training import checkpoint
from elegan.training.folder import RunFolder

MOST = 3  # times that a run goes back
NAME = "rollbacks.jsonl"


class Collapsed(UserError):
    """The run was stopped by `on_collapse`; it is saved. The command line ends with exit code 3."""

    exit_code = 3


def stopped(finding: Finding, folder: RunFolder) -> Collapsed:
    """The message of a run that `on_collapse=stop` has ended."""
    return Collapsed(
        f"{folder.path}: stopped and saved at {finding.images:,} images: {finding.text} Start another run with "
        f"{finding.change}, or run the same command with --on-collapse warn to go on"
    )


def current(config: RunConfig, folder: RunFolder) -> RunConfig:
    """The configuration that a run really trains by: as asked, with what its rollbacks have changed."""
    rows = folder.stats(NAME)
    if not rows:
        return config
    settings = {key: rows[-1]["settings"][key] for key in learning_rates(config.model)}
    return config.model_copy(update={"model": type(config.model)(**config.model.model_dump() | settings)})


def learning_rates(model: BaseModel) -> list[str]:
    """The names of a family's learning rates."""
    return [key for key in type(model).model_fields if key == "lr" or key.endswith("_lr")]


def roll_back(
    config: RunConfig, folder: RunFolder, build: Callable[[RunConfig], Family], finding: Finding
) -> tuple[Family, dict[str, Any] | None, str]:
    """Go back to the newest good state: the model, its counters (None: the run starts again), and a sentence's end.

    `config` is the run's as asked, `build` makes a new model of one. Raises Collapsed when the run has gone back `MOST`
    times already, or its family has no learning rate.
    """
    rows, rates = folder.stats(NAME), learning_rates(config.model)
    if len(rows) >= MOST or not rates:
        why = f"it has gone back {len(rows)} times" if rows else "its family has no learning rate to halve"
        raise Collapsed(f"{folder.path}: {finding.text} Not going back: {why}; start another run with {finding.change}")
    factor = 0.5 ** (len(rows) + 1)
    settings = {key: scaled(factor)(getattr(config.model, key)) for key in rates}
    good = [path for path in checkpoint.listing(folder / "good") if int(path.stem) <= finding.images]
    tensors, meta = checkpoint.read(good[0]) if good else ({}, {})
    images = int(meta["counters"]["images"]) if good else 0
    discard(folder, images)
    folder.append({"images": images, "from": finding.images, "check": finding.check, "settings": settings}, NAME)
    model = build(current(config, folder))
    if good:
        checkpoint.restore(model.parts, tensors, meta["optimizers"])
        slow_down(model)
    changes = ", ".join(f"{key}={written(value)}" for key, value in settings.items())
    return model, meta.get("counters"), f"back from {finding.images:,} to {images:,} images with {changes}"


def slow_down(model: Family) -> None:
    """Halve the learning rates that the optimisers hold: families that set them at every step follow their settings."""
    for optimizer in model.parts.optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * 0.5


def discard(folder: RunFolder, images: int) -> None:
    """Delete every checkpoint after `images` and what was recorded since."""
    for place in (folder.checkpoints, folder / "best"):
        for path in checkpoint.listing(place):
            if int(path.stem) > images:
                path.unlink()
                path.with_suffix(".safetensors").unlink(missing_ok=True)
    folder.rewind(images, keep=("findings.jsonl",))
