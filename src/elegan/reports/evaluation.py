"""A run's scores and its most suspicious samples, made once for each checkpoint and kept in the run folder.

`scores.json` holds the result of `elegan.evaluate` and which checkpoint it is of; `suspects.npz` the samples that
single out one training image most (smallest d1 / d2, see `metrics/memorisation.py`) beside their nearest training
images. Both are written by one function, so that `elegan demo`, `report` and `compare` share one evaluation.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from elegan.errors import UserError
from elegan.files import write_bytes
from elegan.training import checkpoint
from elegan.training.trained import Run

SAMPLES = 10_000
SUSPECTS, NEIGHBOURS = 8, 3
HINT = "; --no-evaluate does without new scores"
PARTS = ("value", "floor", "protocol")


@dataclass(frozen=True)
class Suspects:
    """Samples uint8 (K, H, W, C), most suspicious first, with their nearest training images (K, k, H, W, C)."""

    samples: np.ndarray
    neighbours: np.ndarray
    distances: np.ndarray  # (K, k) ascending
    threshold: float  # d1 / d2 below this counts as a copy
    copies: int  # of all that were searched
    searched: int
    expected: float  # share of test images that count as copies

    @property
    def ratios(self) -> np.ndarray:
        """(K,) d1 / d2; 0 where d1 is."""
        first, second = self.distances[:, 0], self.distances[:, 1]
        return np.divide(first, second, out=np.zeros_like(first), where=second > 0)


@dataclass(frozen=True)
class Evaluation:
    """`scores` as `Scores.to_dict` gives it; None with the reason `why` where there are none."""

    scores: dict[str, Any] | None = None
    suspects: Suspects | None = None
    images: int = 0
    features: str = "auto"  # as they were asked for
    why: str = ""

    @property
    def protocol(self) -> dict[str, Any]:
        """How the numbers were made."""
        return dict(self.scores["protocol"]) if self.scores else {}


def evaluation(
    run: Run,
    samples: int | None = None,
    *,
    features: str | None = None,
    inception_weights: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] | None = None,
    fresh: bool = True,
    suspects: bool = True,
    say: Callable[[str], None] = lambda text: None,
    hint: str = "",
) -> Evaluation:
    """The evaluation of a run's newest checkpoint, made only where none is kept (of these `samples` and `features`,
    where they are given; else of whatever it was).

    With `fresh` false nothing is computed: what is kept is returned, or an empty evaluation that says why. Raises
    UserError when the data cannot be found or judged; `hint` ends its message.
    """
    key = checkpoint_key(run)
    if not key:
        return Evaluation(why="the run has no checkpoint yet")
    kept = read(run, key, samples, features)
    if kept is not None and (kept.suspects is not None or not suspects or not fresh):
        return kept
    if not fresh:
        return Evaluation(why=f"{stale(run)} (leave out --no-evaluate)")
    if not hasattr(run.model, "draw"):
        return Evaluation(why=f"family {run.config.family!r} makes images from images; it is not judged by samples")
    try:
        samples = samples or (int(kept.protocol["samples"]) if kept else SAMPLES)
        features = features or (kept.features if kept else "auto")
        return make(run, key, samples, data, say, features, inception_weights)
    except UserError as error:
        raise UserError(f"{error}{hint}") from None


def checkpoints(run: Run) -> Path:
    """The folder that a run's model comes from: its last checkpoints, or the best one where that was asked for."""
    return run.folder / "best" if run.checkpoint == "best" else run.folder.checkpoints


def checkpoint_key(run: Run) -> str:
    """The SHA-256 of the newest checkpoint's tensors, as its own file says; empty when there is none."""
    for file in checkpoint.listing(checkpoints(run)):
        try:
            return str(json.loads(file.read_text(encoding="utf-8"))["sha256"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # damaged: the run's model is then of the next one, too
    return ""


def make(
    run: Run, key: str, n: int, data: str | os.PathLike[str] | None, say: Callable[[str], None],
    features: str = "auto", inception_weights: str | os.PathLike[str] | None = None,
) -> Evaluation:  # fmt: skip
    """Judge `n` samples of a run, look for copies among them, and keep both in the run folder."""
    from elegan.judge import run_data
    from elegan.metrics.evaluate import Judge
    from elegan.metrics.features import load_features

    chosen: Any = features  # a mistake in them is known before minutes of sampling
    if features != "auto" or inception_weights is not None:
        chosen = load_features(features, weights=inception_weights)
    train, test = run_data(run, data)
    say(f"scoring {n:,} samples of {run.path}")
    judge = Judge(train, test, n=n, features=chosen)
    drawn = run.sample(n)
    scores = judge(drawn.images, drawn.labels).to_dict()
    found = find_suspects(judge.copy_test, drawn.images, scores)
    content = {"images": run.images_seen, "checkpoint": key, "features": features, "scores": scores}
    try:
        keep(run, content, found)
    except OSError as error:  # a run on a read-only disk is judged all the same
        say(f"the scores are not kept: {run.path} cannot be written ({error.strerror})")
    return Evaluation(scores, found, run.images_seen, features)


def find_suspects(test: Any, images: np.ndarray, scores: dict[str, Any]) -> Suspects:
    """The samples that single out one training image most, by a `CopyTest` and the scores of it."""
    rows = np.array([suspect["sample"] for suspect in scores["suspects"][:SUSPECTS]], np.int64)
    near = test.index.nearest(images[rows], k=min(NEIGHBOURS, len(test.train)))
    return Suspects(
        samples=images[rows],
        neighbours=test.train[near.row],
        distances=near.distance,
        threshold=test.threshold,
        copies=round(scores["value"]["copies"] * scores["protocol"]["samples"]),
        searched=int(scores["protocol"]["samples"]),
        expected=float(scores["floor"]["copies"]),
    )


# Kept in the run folder ---------------------------------------------------------------------------------------------


def keep(run: Run, content: dict[str, Any], suspects: Suspects) -> None:
    """Write scores.json and suspects.npz, each whole or not at all. OSError where that cannot be done."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, checkpoint=np.array(content["checkpoint"]), **vars(suspects))
    write_bytes(run.folder / "suspects.npz", buffer.getvalue())
    write_bytes(run.folder / "scores.json", json.dumps(content, indent=1).encode())


def read(run: Run, key: str, samples: int | None, features: str | None) -> Evaluation | None:
    """What is kept of this checkpoint, or None; of `samples` samples and these features where they are given."""
    try:
        content = json.loads((run.folder / "scores.json").read_text(encoding="utf-8"))
        images, scores = int(content["images"]), content["scores"]
        whole = all(isinstance(scores[part], dict) for part in PARTS)
        count, had = int(scores["protocol"]["samples"]), str(content.get("features", "auto"))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not whole or images != run.images_seen or content.get("checkpoint", key) != key:
        return None
    if samples not in (None, count) or features not in (None, had):
        return None
    return Evaluation(scores, read_suspects(run, key), images, had)


def read_suspects(run: Run, key: str) -> Suspects | None:
    """What suspects.npz holds of this checkpoint, or None."""
    try:
        with np.load(run.folder / "suspects.npz", allow_pickle=False) as archive:
            if str(archive["checkpoint"]) != key:
                return None
            found = {name: archive[name] for name in Suspects.__dataclass_fields__}
    except Exception:  # a damaged zip or array raises any of ten kinds
        return None
    shape = (run.spec.height, run.spec.width, run.spec.channels)
    samples, neighbours = found["samples"], found["neighbours"]
    if samples.dtype != np.uint8 or samples.shape[1:] != shape or neighbours.shape[2:] != shape:
        return None
    numbers = {name: found[name].item() for name in ("threshold", "copies", "searched", "expected")}
    return Suspects(samples, neighbours, found["distances"].astype(float), **numbers)


def stale(run: Run) -> str:
    """Why what is kept does not count."""
    if not (run.folder / "scores.json").is_file():
        return "the run has not been evaluated"
    return "the kept evaluation is of another checkpoint, number of samples or features"


def finite(value: Any) -> float | None:
    """A number as a float, or None for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None
