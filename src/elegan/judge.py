"""Judging: bring a run, a file or a folder of samples before the metrics, with the right real data."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from elegan.config import data_options
from elegan.errors import UserError


def evaluate(
    target: Any,
    data: str | os.PathLike[str] | None = None,
    *,
    n: int = 10_000,
    seed: int = 0,
    features: Any = "auto",
    inception_weights: str | os.PathLike[str] | None = None,
    truncation: float = 1.0,
    checkpoint: str = "last",
    cas: int = 0,
    say: Callable[[str], None] | None = None,
) -> Any:
    """Score generated images against the test split of `data`; what `elegan evaluate` does.

    `target`: a `Run` or its folder, an `.npz` with `images` uint8 (N, H, W, C) [and `labels` (N,)], a folder of
    images, or an array. `data` defaults to a run's own. `n` samples are drawn from a run; of a file at most
    `n` are used. `checkpoint`: "last", or "best" for the one that a run folder kept. `features`: see
    `elegan.metrics.load_features`, whose result or a `torch.nn.Module` also serve; `inception_weights` is the file of
    the FID network, for "inception" and its variants. `cas`: how many classifiers to train on the samples, and on as
    many real images, for the classification accuracy score; `say` is told how long that takes. Returns `Scores`, whose
    `str` is a table. Raises UserError for anything that does not fit.
    """
    from elegan.metrics import store
    from elegan.metrics.evaluate import evaluate as score

    if n < 1:
        raise UserError(f"{n} samples asked for; at least 20 are needed")
    store.limit()  # a mistake in its setting is known before minutes of sampling
    run = _as_run(target, checkpoint)
    if inception_weights is not None or not isinstance(features, str) or features != "auto":
        from elegan.metrics.features import load_features

        features = load_features(features, weights=inception_weights)  # a mistake is known before minutes of sampling
    options: dict[str, Any] = {"features": features, "n": n, "seed": seed, "cas": cas, "say": say}
    if run is not None:
        train, test = run_data(run, data)
        if cas and not run.conditional:
            from elegan.metrics.cas import UNLABELLED

            raise UserError(UNLABELLED)  # known before minutes of sampling
        check_independent(run.config, features, test.name)
        samples = run.sample(n, seed=seed, truncation=truncation)
        return score(samples.images, train, test, sample_labels=samples.labels, **options)
    if data is None:
        raise UserError("--data is needed to judge samples from a file: the data set that they imitate")
    images, labels = read_samples(target)
    train, test = _splits(data, size=images.shape[1:3], channels=int(images.shape[3]))
    return score(images, train, test, sample_labels=labels, **options)


def check_independent(config: Any, features: Any, data: str) -> None:
    """UserError when a run's D has been trained on the very features that are to judge it: they would flatter it.

    `features` is as for `evaluate`, `data` the name of the data set. Files are compared by content.
    """
    from elegan.metrics.evaluate import AUTO
    from elegan.metrics.features import SHIPPED, WEIGHTS, load_features

    seen = getattr(config.model, "features", None)
    if not isinstance(seen, str):
        return
    path = WEIGHTS / f"{seen}.safetensors" if seen in SHIPPED else Path(seen)
    judging = load_features(
        AUTO.get(data, "descriptors") if isinstance(features, str) and features == "auto" else features
    )
    checksum = judging.checksum  # the first digits of a file's SHA-256; none for what has no weights
    if checksum and path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest().startswith(checksum):
        raise UserError(
            f"this run's D was trained on the features {seen!r}, so they cannot judge it; name others, such as "
            "--features descriptors or --features inception"
        )


def run_data(run: Any, data: str | os.PathLike[str] | None = None) -> tuple[Any, Any]:
    """The training and test split that a run is judged by: its own, or those of `data` in its size."""
    options = data_options(run.config.data) | {
        "size": (run.spec.height, run.spec.width),
        "channels": run.spec.channels,
    }
    if data is None:
        return _splits(run.config.data.source, **options)
    return _splits(data, **options | {"labels": None, "validation": 0})  # the label file is the run's own data's


def _splits(source: Any, **options: Any) -> tuple[Any, Any]:
    from elegan.data import open_data

    return open_data(source, "train", **options), open_data(source, "test", **options)


def _as_run(target: Any, checkpoint: str = "last") -> Any:
    from elegan.training.trained import Run

    if isinstance(target, Run):
        return target
    if isinstance(target, str | os.PathLike) and (Path(target) / "config.yaml").is_file():
        return Run(target, checkpoint=checkpoint)
    if checkpoint != "last":
        raise UserError(f"{target}: is not a run folder, and only a run has a {checkpoint} checkpoint; leave it out")
    return None


def read_samples(target: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Images uint8 (N, H, W, C) and labels (N,) or None, of an array, `.npz` or folder. UserError otherwise."""
    from elegan.training.trained import Samples

    if isinstance(target, Samples):
        return target.images, target.labels
    if isinstance(target, np.ndarray):
        return _checked(target, None, "the array")
    path = Path(target)
    if not path.exists():
        raise UserError(f"{path}: no such run, file or folder")
    if path.suffix == ".npz":
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                images = archive["images"]
                labels = archive["labels"] if "labels" in archive.files else None
        except KeyError:
            raise UserError(f"{path}: holds no array 'images'; `elegan sample --out FILE.npz` writes one") from None
        except Exception:  # a damaged zip or array raises any of ten kinds
            raise UserError(f"{path}: not an .npz of plain arrays, or damaged; write it anew") from None
        return _checked(images, labels, str(path))
    if path.is_dir():
        from elegan.data import open_data

        halves = [open_data(path, split, labels="none").images for split in ("train", "test")]
        return np.concatenate(halves).transpose(0, 2, 3, 1), None
    raise UserError(f"{path}: is not a run folder, an .npz or a folder of images")


def _checked(images: np.ndarray, labels: np.ndarray | None, where: str) -> tuple[np.ndarray, np.ndarray | None]:
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[3] not in (1, 3, 4):
        raise UserError(f"{where}: images must be uint8 (N, H, W, C), not {images.dtype} {images.shape}")
    if labels is not None and (labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer)):
        raise UserError(f"{where}: labels must be integers, one per image, not {labels.dtype} {labels.shape}")
    return images, labels
