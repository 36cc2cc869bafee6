"""What a gate works with: training that stops and goes on, checkpoints along a run, and a reader of samples."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from filelock import FileLock
from scipy.stats import spearmanr

from benchmarks.parallel import end_with_parent
from elegan import families
from elegan.data import Dataset, open_data
from elegan.families.base import Family
from elegan.metrics import labels as label_metrics
from elegan.metrics.features import load_features
from elegan.metrics.frechet_distance import frechet, moments
from elegan.training import checkpoint
from elegan.training import run as training
from elegan.training.engine import Engine, has_bf16, pick_device
from elegan.training.events import Stopped
from elegan.training.folder import RunFolder
from elegan.training.trained import Run, draw

SAMPLES = 10_000
DROPPED = (0, 1, 2)  # the classes whose absence is the yardstick of s
FEATURES = {"fashion-mnist": "fashion", "mnist": "digits"}


class OutOfTime(Exception):
    """The time that was given is over; what was trained is kept, and the same command goes on."""


@dataclass
class Reading:
    """What the classifier C sees in a set of samples."""

    frechet: float
    s: float  # (FCD - floor) / (drop3 - floor): below 1 is nearer than losing three of ten classes
    smallest_share: float  # of the classes
    diversity: float  # spread within classes, that of real images being 1
    accuracy: float | None  # share recognised as the class that was asked for
    worst_class: float | None  # the same for the worst of the classes


class Reader:
    """C for one data set: Frechet distance on its features, classes, accuracy. See the protocol in `page.py`."""

    def __init__(self, data: str) -> None:
        self.features = load_features(FEATURES[data])
        train, test = open_data(data, "train"), open_data(data, "test")
        real = self.features(test.images.transpose(0, 2, 3, 1))
        assert test.labels is not None and real.probabilities is not None
        self.real = moments(real.features)
        self.spread = label_metrics.diversity(real.features, real.probabilities.argmax(1))
        rows = np.sort(np.random.default_rng(0).choice(len(train), len(test), replace=False))
        self.floor = frechet(moments(self.features(train.images[rows].transpose(0, 2, 3, 1)).features), self.real)
        kept = ~np.isin(test.labels, DROPPED)
        self.drop3 = frechet(moments(real.features[kept]), self.real)
        classes = real.probabilities.argmax(1)
        self.right = label_metrics.label_accuracy(real.probabilities, test.labels)
        self.worst_right = min((classes[test.labels == c] == c).mean() for c in range(test.classes))

    def __call__(self, images: np.ndarray, asked: np.ndarray | None = None) -> Reading:
        """uint8 (N, H, W, C) and the labels (N,) that were asked for, if any."""
        seen = self.features(images)
        assert seen.probabilities is not None
        classes = seen.probabilities.argmax(1)
        distance = frechet(moments(seen.features), self.real)
        shares = label_metrics.histogram(classes, seen.probabilities.shape[1])
        right = None if asked is None else [(classes[asked == c] == c).mean() for c in np.unique(asked)]
        return Reading(
            frechet=distance,
            s=(distance - self.floor) / (self.drop3 - self.floor),
            smallest_share=float(shares.min()),
            diversity=label_metrics.diversity(seen.features, classes) / self.spread,
            accuracy=None if right is None else float(np.mean(right)),
            worst_class=None if right is None else float(np.min(right)),
        )


@lru_cache(maxsize=2)
def reader(data: str) -> Reader:
    """The reader of "fashion-mnist" or "mnist", made once."""
    return Reader(data)


@dataclass
class Lab:
    """One seed of one gate. `broken`: the variant with the planted fault."""

    seed: int
    broken: bool
    runs: Path
    deadline: float = float("inf")  # of time.monotonic()
    picture: Path | None = None
    trained: list[str] = field(default_factory=list)  # what was trained, for the record
    cut: int = 0  # steps after which every training ends, where only its cost is asked for
    left: dict[str, float] = field(default_factory=dict)  # seconds that each training so cut would still have taken

    def train(
        self,
        name: str,
        preset: str,
        images: int,
        *,
        data: Any = None,
        checkpoints: int = 1,
        shared: bool = False,
        sabotage: Callable[[Family], None] | None = None,
        **settings: Any,
    ) -> Run:
        """A run of a preset, trained now or before. `shared`: the same for the broken variant too.

        `checkpoints` are kept along the way, evenly. `sabotage` changes the model before it trains.
        """
        variant = "-broken" if self.broken and not shared else ""
        folder = RunFolder(self.runs / f"{name}{variant}-seed{self.seed}")
        settings |= {"train.precision": precision()}
        model: Any = training.configure(preset, data, seed=self.seed, settings=settings).model
        per_step = model.batch * getattr(model, "D_steps", 1)
        steps = max(1, images // per_step)
        done = min(steps, self.cut or steps)
        watched = {"grids": 4, "keep": checkpoints + 1, "checkpoint_every": max(1, done // checkpoints)}
        watched |= {"grids": 0, "log_every": max(1, done // 4)} if self.cut else {}
        settings |= {f"train.{key}": value for key, value in watched.items()}
        self.trained.append(f"{name}: {preset}, {steps * per_step:,} images")
        with alone(folder.path), _sabotaged(sabotage):
            base = folder.config() if folder.exists else None
            asked = training.configure(preset, data, seed=self.seed, settings=settings, base=base)
            for event in training.events(asked, folder, {"steps": done}, stop=lambda: time.monotonic() > self.deadline):
                if isinstance(event, Stopped):
                    raise OutOfTime(f"{name}: {event.images:,} of {event.total:,} images")
        if self.picture is None:
            self.picture = folder / "samples.png"
        run = Run(folder.path)
        if done < steps:  # all of its steps count: where networks grow, the first ones are the cheap ones
            each = float(np.mean([1 / row["images_per_second"] for row in run.stats]))
            self.left[run.folder.path.name] = (steps - done) * per_step * each
        return run

    def together(self, *asked: dict[str, Any]) -> list[Run]:
        """The runs that `train` makes of each of these arguments, at once, each on its share of the threads.

        Narrow networks gain little from a second core. With one thread, and on a GPU, one after the other; the runs
        are the same up to the order of sums.
        """
        threads = torch.get_num_threads() if pick_device("auto").type == "cpu" else 1
        jobs = min(len(asked), threads)
        if jobs > 1:
            with ProcessPoolExecutor(jobs, get_context("spawn"), _begin, (threads // jobs,)) as pool:
                list(pool.map(_train, [replace(self, trained=[], left={})] * len(asked), asked))
        known, self.left = self.left, {}
        runs = [self.train(**arguments) for arguments in asked]  # which finds what is there
        if cut := self.left:
            known[" and ".join(cut)] = max(*cut.values(), sum(cut.values()) / jobs)
        self.left = known
        return runs

    def seconds(self, run: Run) -> float:
        """What a run's training took; what it would have taken, where it was cut."""
        return float(run.stats[-1]["seconds"]) + self.left.get(run.folder.path.name, 0.0)

    def samples(self, run: Run) -> tuple[np.ndarray, np.ndarray | None]:
        """uint8 (SAMPLES, H, W, C) from a run, and the labels (SAMPLES,) that were asked for."""
        drawn = run.sample(SAMPLES, seed=1)
        return drawn.images, drawn.labels

    def read(self, run: Run, data: str) -> Reading:
        """Draw from a run and read the samples."""
        return reader(data)(*self.samples(run))

    def models(self, run: Run) -> Iterator[tuple[int, Family]]:
        """(images seen, model with all its networks) at every checkpoint of a run, oldest first."""
        for counters, model in along(run):
            yield int(counters["images"]), model

    def model(self, run: Run) -> Family:
        """The model of the newest checkpoint, with all its networks."""
        return list(self.models(run))[-1][1]

    def read_model(self, model: Family, data: str) -> Reading:
        """Draw half as many from a model, one of several along a run, and read the samples."""
        return reader(data)(*draw(model, Engine(torch.device("cpu"), "fp32"), SAMPLES // 2, seed=1))


def _begin(threads: int) -> None:
    """The first thing that a process of `Lab.together` does."""
    end_with_parent()
    torch.set_num_threads(threads)


def _train(lab: Lab, arguments: dict[str, Any]) -> None:
    lab.train(**arguments)


def precision() -> str:
    """What all gates are trained in: the same whatever a busy moment says, as the machine can."""
    return "bf16" if has_bf16(pick_device("auto")) else "fp32"


def along(run: Run) -> Iterator[tuple[dict[str, Any], Family]]:
    """(counters, model with all its networks) at every checkpoint of a run, oldest first."""
    for path in sorted(run.folder.checkpoints.glob("*.json")):
        tensors, meta = checkpoint.read(path)
        model = families.get(run.config.family).Model(run.config.model, run.spec)
        for name, net in model.parts.nets.items():
            checkpoint.load_net(net, name, tensors)
        checkpoint.load_values(model.parts, tensors)
        yield meta["counters"], model


def alone(path: Path) -> FileLock:
    """Within the block nobody else makes `path`: another process may want the same run just now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_name(f"{path.name}.lock"))


@contextlib.contextmanager
def _sabotaged(sabotage: Callable[[Family], None] | None) -> Iterator[None]:
    """Within the block every model that training builds is changed by `sabotage`."""
    if sabotage is None:
        yield
        return
    build = training.build_model

    def broken(*args: Any) -> Family:
        model = build(*args)
        sabotage(model)
        return model

    with mock.patch.object(training, "build_model", broken):
        yield


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Within the block torch computes on one core: for networks so small that a second one only waits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's; 0 where one of the two never changes: it is not defined there, and nothing follows from it."""
    return 0.0 if min(np.ptp(x), np.ptp(y)) == 0 else float(spearmanr(x, y)[0])


def few(data: str, count: int, path: Path, seed: int = 0) -> Path:
    """An .npz with `count` training images of a data set, drawn by the seed, equally many of each class."""
    target = path / f"{data}-{count}-seed{seed}.npz"
    with alone(target):
        if target.is_file():
            return target
        whole: Dataset = open_data(data, "train")
        assert whole.labels is not None
        rng = np.random.default_rng(seed)
        rows = np.concatenate(
            [rng.choice(np.flatnonzero(whole.labels == c), count // whole.classes, replace=False)
             for c in range(whole.classes)]
        )  # fmt: skip
        np.savez(
            target,
            images=whole.images[rows].transpose(0, 2, 3, 1),
            labels=whole.labels[rows],
            class_names=np.array(whole.class_names),
        )
    return target
