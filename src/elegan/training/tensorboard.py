"""A run's events for TensorBoard, which the extra `track` brings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from elegan.training.events import Checked, Event, Grid, Scores, Step
from elegan.training.folder import RunFolder


def tensorboard(folder: RunFolder) -> Callable[[Event], None]:
    """A function that writes events to TensorBoard."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "tensorboard"))

    def write(event: Event) -> None:
        if isinstance(event, Step):
            for name, value in event.values.items():
                writer.add_scalar(name, value, event.images)
            writer.add_scalar("images_per_second", event.images_per_second, event.images)
        elif isinstance(event, Scores):
            for name, value in event.scores.value.model_dump().items():
                if isinstance(value, float):
                    writer.add_scalar(f"scores/{name}", value, event.images)
        elif isinstance(event, Checked):
            for name, value in event.numbers.items():
                writer.add_scalar(f"doctor/{name}", value, event.images)
        elif isinstance(event, Grid):
            with Image.open(event.path) as picture:
                writer.add_image("samples", np.atleast_3d(np.asarray(picture)), event.images, dataformats="HWC")
        writer.flush()

    return write
