"""Everything about a set of generated images in one call, beside what real images get, with the protocol.

The reference is the test split. The *floor* scores as many training images as there are samples against the
same reference: no model needs to be better, since every distance has some bias at finite counts and every
classifier some error. (The shipped classifiers have seen the training images, which moves their floor a
little; label accuracy and the copy numbers therefore take the test images themselves as floor.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from elegan.errors import UserError
from elegan.metrics import distances
from elegan.metrics import labels as label_metrics
from elegan.metrics.features import Extracted, load_features
from elegan.metrics.manifold import Balls, balls, prdc
from elegan.metrics.memorisation import Copying, CopyTest
from elegan.metrics.scores import Numbers, Protocol, Scores
from elegan.metrics.wasserstein import sliced_wasserstein

K_PR, K_DC = 3, 5
SMALLEST = 20  # below this not one of the numbers means anything
SMALL = 2_000
AUTO = {"fashion-mnist": "fashion", "mnist": "digits"}


@dataclass(frozen=True)
class Split:
    """One split of a data set as the metrics want it: uint8 images (N, H, W, C)."""

    name: str
    images: np.ndarray
    labels: np.ndarray | None = None
    fingerprint: str = ""
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)


class Judge:
    """A data set made ready for judging: what does not depend on the samples is computed once.

    `judge = Judge(train, test); judge(samples)`; the arguments are those of `evaluate`.
    """

    def __init__(
        self,
        train: Any,
        test: Any,
        *,
        labels: np.ndarray | None = None,
        features: str = "auto",
        n: int = 10_000,
        seed: int = 0,
        copies: bool = True,
    ) -> None:
        self.train, self.test = as_split(train, "training"), as_split(test, "test", labels)
        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            sizes = f"training images are {size(self.train.images)}, test images {size(self.test.images)}"
            raise UserError(f"{sizes}: use two splits of one data set")
        self.auto = features == "auto"
        self.features = load_features(AUTO.get(self.test.name, "descriptors") if self.auto else features)
        self.n, self.seed, self.copies = n, seed, copies
        self.rows = _draw(len(self.test), n, seed)  # of the test split: the reference
        self._floors: dict[int, Numbers] = {}

    @cached_property
    def real(self) -> Extracted:
        """Features of the reference."""
        return self.features(self.test.images[self.rows])

    @cached_property
    def balls(self) -> Balls:
        """Neighbourhoods of the reference."""
        return balls(self.real.features, (K_PR, K_DC), "real")

    @cached_property
    def moments(self) -> distances.Moments:
        """Mean and covariance of the reference."""
        return distances.moments(self.real.features)

    @cached_property
    def diversity(self) -> float:
        """Spread within the classes of the reference."""
        return label_metrics.diversity(self.real.features, _classes(self.real))

    @cached_property
    def copy_test(self) -> CopyTest:
        """The training split, searchable; calibrated by the reference images."""
        return CopyTest(self.train.images, self.test.images[self.rows])

    def floor(self, count: int) -> Numbers:
        """Numbers of `count` training images (or all there are); copy numbers of the reference itself."""
        count = min(count, len(self.train))
        if count not in self._floors:
            images = self.train.images[_draw(len(self.train), count, self.seed + 1)]
            numbers = self._numbers(images, self.features(images))
            if self.test.labels is not None and self._labels_fit(self.test.labels):
                assert self.real.probabilities is not None
                right = label_metrics.label_accuracy(self.real.probabilities, self.test.labels[self.rows])
                numbers = numbers.model_copy(update={"label_accuracy": right})
            if self.copies:
                numbers = numbers.model_copy(update=_copy_numbers(self.copy_test.floor))
            self._floors[count] = numbers
        return self._floors[count]

    def __call__(self, samples: np.ndarray | Callable[[int], Any], sample_labels: np.ndarray | None = None) -> Scores:
        """Score samples; see `evaluate`."""
        images, asked = _samples(samples, sample_labels, self.n, self.seed)
        if images.shape[1:] != self.test.images.shape[1:]:
            both = f"generated images are {size(images)}, the data's {size(self.test.images)}"
            raise UserError(f"{both}: train or resize to the data's size")
        extracted = self.features(images)
        numbers = self._numbers(images, extracted)
        if asked is not None and extracted.probabilities is not None:
            right = label_metrics.label_accuracy(extracted.probabilities, asked)
            numbers = numbers.model_copy(update={"label_accuracy": right})
        if self.copies:
            numbers = numbers.model_copy(update=_copy_numbers(self.copy_test(images)))
        protocol = self._protocol(len(images))
        names = list(self.test.class_names)
        return Scores(value=numbers, floor=self.floor(len(images)), protocol=protocol, class_names=names)

    def _numbers(self, images: np.ndarray, extracted: Extracted) -> Numbers:
        """All numbers that need neither labels nor the training split."""
        features, p = extracted.features, extracted.probabilities
        near = prdc(features, self.balls, k_pr=K_PR, k_dc=K_DC)
        distance = distances.kernel(features, self.real.features, seed=self.seed)
        spread = label_metrics.diversity(features, _classes(extracted))
        sliced = sliced_wasserstein(images, self.test.images[self.rows], seed=self.seed)
        seen: dict[str, Any] = {}
        if p is not None:
            score = distances.classifier_score(p, seed=self.seed)
            shares = label_metrics.histogram(label_metrics.predicted(p), p.shape[1])
            seen = {
                "classifier_score": score.value,
                "classifier_score_error": score.error,
                "class_shares": shares.tolist(),
                "class_entropy": label_metrics.entropy(shares),
            }
        return Numbers(
            frechet=distances.frechet(distances.moments(features), self.moments),
            kernel=distance.value,
            kernel_error=distance.error,
            wasserstein=sliced.mean,
            diversity=spread / self.diversity if self.diversity > 0 else 0.0,
            **near._asdict(),
            **seen,
        )

    def _labels_fit(self, labels: np.ndarray) -> bool:
        """Whether the classifier knows these classes."""
        return self.features.classes > int(labels.max(initial=0))

    def _protocol(self, count: int) -> Protocol:
        notes = []
        if min(count, len(self.rows)) < self.n:
            fewer = f"{count:,} samples and {len(self.rows):,} real images instead of {self.n:,}"
            notes.append(f"{fewer}: Frechet distance is biased upwards at small counts; compare equal ones")
        if self.auto and self.features.net is None:
            notes.append(f"no classifier is shipped for {self.test.name!r}: weight-free descriptors instead")
        if count > len(self.train):
            notes.append(f"the floor has {len(self.train):,} images only, all that the training split holds")
        prints = self.test.fingerprint
        return Protocol(
            data=self.test.name + (f" ({prints})" if prints else ""),
            features=str(self.features),
            samples=count,
            real=len(self.rows),
            floor=f"{min(count, len(self.train)):,} training images",
            training=len(self.train) if self.copies else None,
            k_precision_recall=K_PR,
            k_density_coverage=K_DC,
            seed=self.seed,
            notes=notes,
        )


_judges: dict[tuple[Any, ...], Judge] = {}


def evaluate(
    samples: np.ndarray | Callable[[int], Any],
    train: Any,
    test: Any,
    *,
    labels: np.ndarray | None = None,
    sample_labels: np.ndarray | None = None,
    features: str = "auto",
    n: int = 10_000,
    seed: int = 0,
    copies: bool = True,
) -> Scores:
    """Score generated images against a data set.

    samples: uint8 (N, H, W, C), or a callable: `samples(n)` gives such images, or `(images, labels)`. Of more
    than
      `n`, a random `n` are taken.
    train, test: data sets (`.images` uint8 (N, C, H, W), `.labels`, `.name`), or uint8 arrays (N, H, W, C).
    The test
      split is the reference (a random `n` of it); the training split gives the floor and is searched for
      copies.
    labels: int (N,), the classes of the test images, where `test` is an array: the floor of label accuracy.
    sample_labels: int (N,), the classes that a conditional model was asked for; without them no label
    accuracy. features: "auto" (by the data set's name: fashion, digits, else descriptors), or any of
    `load_features`. n: images a side, fewer where there are fewer. Numbers compare at equal counts only.
    seed: of every random choice here. The same samples and seed give the same scores. copies: False leaves
    out the search for copies, the part that needs the whole training split.

    The last data set's side is kept in memory for the next call. Raises `UserError` for images of another size,
    NaN, too few images, or labels that do not fit.
    """
    key = (_key(train), _key(test), _key(labels), features, n, seed, copies)
    if key not in _judges:
        judge = Judge(train, test, labels=labels, features=features, n=n, seed=seed, copies=copies)
        _judges.clear()
        _judges[key] = judge
    return _judges[key](samples, sample_labels)


def as_split(data: Any, what: str, labels: np.ndarray | None = None) -> Split:
    """A `Dataset` (uint8 (N, C, H, W)) or a uint8 array (N, H, W, C) as `Split`, else `UserError`."""
    if isinstance(data, Split):
        return data
    if hasattr(data, "images") and hasattr(data, "name"):
        images = np.asarray(data.images).transpose(0, 2, 3, 1)
        known = getattr(data, "labels", None) if labels is None else labels
        names = tuple(getattr(data, "class_names", ()))
        split = Split(data.name, images, known, getattr(data, "fingerprint", ""), names)
    else:
        split = Split("array", np.asarray(data), labels)
    check_images(split.images, what)
    if split.labels is not None and len(split.labels) != len(split):
        raise UserError(f"{len(split.labels)} labels for {len(split)} {what} images: give one label an image")
    return split


def check_images(images: np.ndarray, what: str) -> None:
    """`UserError` unless these are at least `SMALLEST` uint8 images (N, H, W, C) with 1, 3 or 4 channels."""
    if images.dtype != np.uint8:
        hint = "NaN is among them; the model has diverged" if _broken(images) else "elegan.images.to_uint8 makes them"
        raise UserError(f"{what} images must be uint8 (0 to 255), not {images.dtype}: {hint}")
    if images.ndim != 4 or images.shape[3] not in (1, 3, 4):
        raise UserError(f"{what} images must be (N, H, W, C) with 1, 3 or 4 channels, not {images.shape}")
    if len(images) < SMALLEST:
        raise UserError(f"{len(images)} {what} images are too few: give at least {SMALLEST}, better 10000")


def size(images: np.ndarray) -> str:
    """`28x28x1` of images (N, H, W, C)."""
    return "x".join(map(str, images.shape[1:]))


def _broken(images: np.ndarray) -> bool:
    return np.issubdtype(images.dtype, np.floating) and not np.isfinite(images).all()


def _samples(
    samples: np.ndarray | Callable[[int], Any], labels: np.ndarray | None, n: int, seed: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """At most n images (N, H, W, C) and the labels that were asked for, if any."""
    drawn = samples(n) if callable(samples) else samples
    images, asked = drawn if isinstance(drawn, tuple) else (drawn, labels)
    images = np.asarray(images)
    check_images(images, "generated")
    if asked is None:
        return images[_draw(len(images), n, seed)], None
    asked = np.asarray(asked)
    if len(asked) != len(images):
        raise UserError(f"{len(asked)} labels for {len(images)} generated images: give one label an image")
    rows = _draw(len(images), n, seed)
    return images[rows], asked[rows]


def _draw(available: int, n: int, seed: int) -> np.ndarray:
    """Sorted row numbers: all, or a random n of them."""
    if available <= n:
        return np.arange(available)
    return np.sort(np.random.default_rng(seed).choice(available, n, replace=False))


def _classes(extracted: Extracted) -> np.ndarray | None:
    return None if extracted.probabilities is None else extracted.probabilities.argmax(1)


def _copy_numbers(copying: Copying) -> dict[str, float]:
    return {
        "copy_ratio": copying.ratio,
        "nearer": copying.nearer,
        "copies": copying.copies,
        "authenticity": copying.authenticity,
    }


def _key(data: Any) -> str:
    """The content of what was given: the same arrays need not be prepared again."""
    if data is None:
        return ""
    if isinstance(getattr(data, "fingerprint", None), str) and data.fingerprint:
        return f"{data.name} {data.fingerprint}"
    array = np.ascontiguousarray(getattr(data, "images", data))
    return hashlib.blake2b(array.data, digest_size=16).hexdigest() + str((array.shape, array.dtype))
