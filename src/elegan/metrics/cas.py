"""Classification accuracy score (CAS; Ravuri & Vinyals 2019): are generated images good teachers?

A fresh classifier is trained on generated images with the labels that they were made for, and tested on real
images. It errs where classes are mixed up, missing or without variety, which no distance says as directly.
Beside it stands the same classifier trained on as many real images: their gap is what the generated ones lack.

Convention. Where the paper trains a ResNet-50, this is a network of three convolutions (24, 48 and 64 channels,
batch normalisation, a global mean, a linear layer) on images averaged down to at most 32 pixels a side. Both
trainings have the same number of steps of 100 images, order, start and settings (AdamW, a learning rate that
rises to 4e-3 and falls to 0, label smoothing 0.05); nothing is chosen by looking at the test images. The accuracy
is the mean over seeds; its error joins the spread over the test images and that over seeds. Only scores of one
protocol compare, and none with published ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from elegan.errors import UserError
from elegan.metrics.matrix import share

if TYPE_CHECKING:
    from torch import Tensor, nn

    from elegan.metrics.scores import Scores

SIDE = 32
CHANNELS = (24, 48, 64)
BATCH = 100
LEAST_STEPS = 600
EPOCHS = 8
RATE = 4e-3
SMOOTHING = 0.05
UNLABELLED = "the classification accuracy score needs labelled samples, of a conditional run or an .npz with labels"
TIMED = 10  # steps from which `seconds` concludes


@dataclass(frozen=True)
class Taught:
    """How well a classifier trained on some images does on real ones."""

    accuracy: float
    error: float
    per_class: tuple[float | None, ...]  # accuracy on the test images of each class; None where there are none
    seeds: int
    steps: int


def classification_accuracy(
    images: np.ndarray,
    labels: np.ndarray,
    test_images: np.ndarray,
    test_labels: np.ndarray,
    *,
    classes: int,
    seeds: int = 1,
    seed: int = 0,
) -> Taught:
    """Train on uint8 `images` (N, H, W, C) with `labels` (N,) in 0..classes-1, test on real ones.

    `seeds`: how many trainings, with seeds `seed`, `seed` + 1 and so on. `UserError` for labels that do
    not fit, or fewer than 20 images.
    """
    x, y = _prepared(images, labels, classes, "training")
    real, wanted = _prepared(test_images, test_labels, classes, "test")
    if len(x) < 20:
        raise UserError(f"{len(x)} images are too few to train a classifier on; give at least 20")
    if seeds < 1:
        raise UserError(f"{seeds} trainings asked for; give at least 1")
    right = np.stack([_right(_train(x, y, classes, seed + i), real, wanted) for i in range(seeds)])  # (seeds, M)
    each = right.mean(1)
    sampling = np.mean([share(row).error for row in right])
    between = each.std(ddof=1) / np.sqrt(seeds) if seeds > 1 else 0.0
    truth = wanted.numpy()
    per_class = tuple(float(right[:, truth == c].mean()) if (truth == c).any() else None for c in range(classes))
    return Taught(float(each.mean()), float(np.hypot(sampling, between)), per_class, seeds, steps_for(len(x)))


def steps_for(count: int) -> int:
    """Training steps for `count` images: eight passes, and enough for a handful of images."""
    return max(LEAST_STEPS, -(-EPOCHS * count // BATCH))


def seconds(images: np.ndarray, trainings: int) -> float:
    """About how long `trainings` trainings on images like these will take here, from a few timed steps."""
    import torch

    x, y = _prepared(images[:BATCH], np.zeros(min(BATCH, len(images)), np.int64), 2, "training")
    step = _stepper(_network(x.shape[1], 2, 0), TIMED + 3)
    for _ in range(3):
        step(x, y)
    start = time.perf_counter()
    for _ in range(TIMED):
        step(x, y)
    torch.zeros(1).item()
    return (time.perf_counter() - start) / TIMED * steps_for(len(images)) * trainings


def _prepared(images: np.ndarray, labels: np.ndarray, classes: int, what: str) -> tuple[Tensor, Tensor]:
    """Images (N, C, h, w) in [-1, 1], channels last, and labels."""
    import torch
    from torch.nn import functional as F

    labels = np.asarray(labels)
    if len(labels) != len(images) or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(
            f"{len(labels)} {labels.dtype} labels for {len(images)} {what} images: give one whole number each"
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise UserError(f"{what} labels run from {labels.min()} to {labels.max()}; there are {classes} classes")
    size = tuple(min(SIDE, side) for side in images.shape[1:3])
    parts = []
    for start in range(0, len(images), 1000):
        part = torch.from_numpy(np.ascontiguousarray(images[start : start + 1000])).permute(0, 3, 1, 2).float()
        parts.append(F.adaptive_avg_pool2d(part, size).div_(127.5).sub_(1))
    x = torch.cat(parts).contiguous(memory_format=torch.channels_last)
    return x, torch.from_numpy(labels.astype(np.int64))


def _network(channels: int, classes: int, seed: int) -> nn.Module:
    import torch
    from torch import nn

    a, b, c = CHANNELS
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [
            *(nn.Conv2d(channels, a, 5, 2, 2, bias=False), nn.BatchNorm2d(a), nn.ReLU()),
            *(nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()),
            *(nn.Conv2d(b, c, 3, 1, 1, bias=False), nn.BatchNorm2d(c), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, classes)),
        ]
        return nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _stepper(net: nn.Module, steps: int) -> Callable[[Tensor, Tensor], None]:
    """A function that takes one training step on images and labels."""
    import torch
    from torch.nn import functional as F

    adam = torch.optim.AdamW(net.parameters(), RATE, weight_decay=1e-2)
    plan = torch.optim.lr_scheduler.OneCycleLR(adam, RATE, total_steps=steps)

    def step(x: Tensor, y: Tensor) -> None:
        loss = F.cross_entropy(net(x), y, label_smoothing=SMOOTHING)
        adam.zero_grad()
        loss.backward()
        adam.step()
        plan.step()

    return step


def _train(x: Tensor, y: Tensor, classes: int, seed: int) -> nn.Module:
    import torch

    net, steps = _network(x.shape[1], classes, seed), steps_for(len(x))
    step, generator = _stepper(net, steps), torch.Generator().manual_seed(seed)
    batch = min(BATCH, len(x))
    left = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(left) < batch:
            left = torch.randperm(len(x), generator=generator)
        step(x[left[:batch]], y[left[:batch]])
        left = left[batch:]
    return net.eval()


def _right(net: nn.Module, x: Tensor, y: Tensor) -> np.ndarray:
    """bool (M,): which images the network names rightly."""
    import torch

    with torch.inference_mode():
        found = torch.cat([net(part).argmax(1) for part in x.split(500)])
    return (found == y).numpy()


def add(scores: Scores, ours: Taught, real: Taught) -> Scores:
    """Scores with both accuracies, over all and of each class."""
    value, floor = (
        numbers.model_copy(update={"cas": taught.accuracy, "cas_error": taught.error})
        for numbers, taught in ((scores.value, ours), (scores.floor, real))
    )
    per_class = [
        one.model_copy(
            update={
                "value": one.value.model_copy(update={"cas": ours.per_class[c]}),
                "floor": one.floor.model_copy(update={"cas": real.per_class[c]}),
            }
        )
        for c, one in enumerate(scores.per_class)
    ]
    return scores.model_copy(update={"value": value, "floor": floor, "per_class": per_class})
