"""Everything about a set of generated images in one call, beside what real images get, with the protocol.

The reference is the test split. The *floor* scores as many training images as there are samples against the
same reference: no model needs to be better, since every distance has some bias at finite counts and every
classifier some error. (The shipped classifiers have seen the training images, which moves their floor a
little; label accuracy and the copy numbers therefore take the test images themselves as floor.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from elegan.errors import UserError
from elegan.metrics import cas as teaching
from elegan.metrics import labels as label_metrics
from elegan.metrics.classes import ByClass, fields
from elegan.metrics.features import Extracted, Features, load_features
from elegan.metrics.inputs import Split, as_split, content_key, draw_rows, samples_and_labels, size
from elegan.metrics.matrix import Estimate
from elegan.metrics.memorisation import Copying, CopyTest
from elegan.metrics.reference import K_DC, K_PR, MODES, Looked, Reference, look
from elegan.metrics.scores import ClassNumbers, ClassScores, Numbers, Protocol, Scores, Suspect
from elegan.metrics.stacked import CHANNELS, PUBLISHED, ChannelFeatures

AUTO = {"fashion-mnist": "fashion", "mnist": "digits", "stacked-mnist": "digits"}
MOST_CLASSES = 200  # with more, each has too few images for numbers of its own
SUSPECTS = 10


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
        features: Any = "auto",
        n: int = 10_000,
        seed: int = 0,
        copies: bool = True,
        cas: int = 0,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.train, self.test = as_split(train, "training"), as_split(test, "test", labels)
        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            sizes = f"training images are {size(self.train.images)}, test images {size(self.test.images)}"
            raise UserError(f"{sizes}: use two splits of one data set")
        self.auto = isinstance(features, str) and features == "auto"
        self.features = _features(AUTO.get(self.test.name, "descriptors") if self.auto else features, self.test)
        self.n, self.seed, self.copies, self.cas = n, seed, copies, cas
        self.say = say or _silent
        self.rows = draw_rows(len(self.test), n, seed)  # of the test split: the reference
        self._floors: dict[int, _Floor] = {}
        self._by_class: dict[tuple[bool, int], ByClass] = {}

    @cached_property
    def reference(self) -> Reference:
        """The real side."""
        return Reference(look(self.features, self.test.images[self.rows], keep=True), self.seed)

    @property
    def real(self) -> Extracted:
        """Features of the reference."""
        return self.reference.real.extracted

    @cached_property
    def copy_test(self) -> CopyTest:
        """The training split, searchable; calibrated by the reference images."""
        return CopyTest(self.train.images, self.test.images[self.rows], keep=True)

    def floor(self, count: int) -> Numbers:
        """Numbers of `count` training images (or all there are); copy numbers of the reference itself."""
        return self._floor(count).numbers

    def __call__(self, samples: np.ndarray | Callable[[int], Any], sample_labels: np.ndarray | None = None) -> Scores:
        """Score samples; see `evaluate`."""
        images, asked, rows = samples_and_labels(samples, sample_labels, self.n, self.seed)
        if images.shape[1:] != self.test.images.shape[1:]:
            both = f"generated images are {size(images)}, the data's {size(self.test.images)}"
            raise UserError(f"{both}: train or resize to the data's size")
        self._check_cas(asked)
        ours, floor = look(self.features, images), self._floor(len(images))
        extra: dict[str, Any] = {}
        right = None if asked is None else self._right(ours, asked)
        if right is not None:
            extra |= fields(label_accuracy=right)
        suspects = []
        if self.copies:
            copying = self.copy_test(images)
            extra |= _copy_numbers(copying)
            suspects = [
                Suspect(sample=int(rows[i]), original=int(copying.originals[i]), ratio=float(copying.ratios[i]))
                for i in copying.suspects[:SUSPECTS]
            ]
        per_class = self._per_class(ours, asked, floor)
        scores = Scores(
            value=self.reference.numbers(ours).model_copy(update=extra),
            floor=floor.numbers,
            protocol=self._protocol(len(images), bool(per_class), by_label=self._by_label(asked)),
            class_names=list(self.test.class_names),
            per_class=per_class,
            suspects=suspects,
        )
        if self.cas and asked is not None:
            scores = teaching.add(scores, *self._teach(images, asked, floor))
        return scores

    def _floor(self, count: int) -> _Floor:
        count = min(count, len(self.train))
        if count not in self._floors:
            rows = draw_rows(len(self.train), count, self.seed + 1)
            seen = look(self.features, self.train.images[rows], keep=True)
            extra: dict[str, Any] = {}
            real, known = self.reference.real, self.test.labels
            right = None if known is None else self._right(real, known[self.rows], refuse=False)
            if right is not None:
                extra |= fields(label_accuracy=right)
            if self.copies:
                extra |= _copy_numbers(self.copy_test.floor)
            self._floors[count] = _Floor(rows, seen, self.reference.numbers(seen).model_copy(update=extra))
        return self._floors[count]

    def _right(self, ours: Looked, labels: np.ndarray, refuse: bool = True) -> Estimate | None:
        """Label accuracy, or None where nothing names the classes (or, unless `refuse`, where they are others)."""
        if ours.codes is not None:
            return label_metrics.agreement(ours.codes, labels, MODES)
        p = ours.extracted.probabilities
        if p is None or (not refuse and labels.max(initial=0) >= p.shape[1]):
            return None
        return label_metrics.label_accuracy_estimate(p, labels)

    def _per_class(self, ours: Looked, asked: np.ndarray | None, floor: _Floor) -> list[ClassScores]:
        """The numbers of each class: as asked for, where they were and the data has labels; else as predicted."""
        real, by_label = self.reference.real, self._by_label(asked)
        sides: tuple[Any, Any, Any] = (real.kinds, ours.kinds, floor.seen.kinds)
        count = self.features.classes
        if by_label:
            assert asked is not None and self.test.labels is not None and self.train.labels is not None
            sides, count = (self.test.labels[self.rows], asked, self.train.labels[floor.rows]), self._classes(asked)
        if not 0 < count <= MOST_CLASSES:
            return []
        (of_real, of_ours, of_floor), key = sides, (by_label, count)
        if key not in self._by_class:
            self._by_class[key] = self.reference.by_class(of_real, count)
        by_class = self._by_class[key]
        named = by_label and ours.kinds is not None and real.kinds is not None
        values = by_class(ours.extracted.features, of_ours, np.asarray(ours.kinds) == of_ours if named else None)
        if key not in floor.per_class:
            numbers = by_class(floor.seen.extracted.features, of_floor)
            if named:
                numbers = by_class.with_accuracy(numbers, np.asarray(real.kinds) == of_real)
            floor.per_class[key] = numbers
        names = self.test.class_names
        return [
            ClassScores(name=names[c] if c < len(names) else f"class {c}", value=value, floor=of_real_images)
            for c, (value, of_real_images) in enumerate(zip(values, floor.per_class[key], strict=True))
        ]

    def _by_label(self, asked: np.ndarray | None) -> bool:
        """Whether classes are labels: samples were asked for some, and both splits have them."""
        return asked is not None and self.test.labels is not None and self.train.labels is not None

    def _classes(self, asked: np.ndarray) -> int:
        """How many classes there are, by the data and by what was asked for."""
        labels = [labels for labels in (self.train.labels, self.test.labels, asked) if labels is not None]
        return max(len(self.test.class_names), *(int(known.max(initial=-1)) + 1 for known in labels))

    def _check_cas(self, asked: np.ndarray | None) -> None:
        """Classification accuracy needs labels on all sides."""
        if not self.cas:
            return
        if self.train.labels is None or self.test.labels is None:
            raise UserError(f"the classification accuracy score needs labelled data; {self.test.name!r} has no labels")
        if asked is None:
            raise UserError(teaching.UNLABELLED)

    def _teach(self, images: np.ndarray, asked: np.ndarray, floor: _Floor) -> tuple[teaching.Taught, teaching.Taught]:
        """Classification accuracy of the samples, and of as many training images."""
        assert self.train.labels is not None and self.test.labels is not None
        trainings = self.cas * (1 if floor.taught else 2)
        took = teaching.seconds(images, trainings)
        self.say(f"training {trainings} small classifiers on {len(images):,} images each: about {took:.0f} s")
        test = self.test.images[self.rows], self.test.labels[self.rows]
        options: dict[str, Any] = {"classes": self._classes(asked), "seeds": self.cas, "seed": self.seed}
        ours = teaching.classification_accuracy(images, asked, *test, **options)
        if floor.taught is None:
            real = self.train.images[floor.rows], self.train.labels[floor.rows]
            floor.taught = teaching.classification_accuracy(*real, *test, **options)
        return ours, floor.taught

    def _protocol(self, count: int, per_class: bool, by_label: bool) -> Protocol:
        notes = []
        if min(count, len(self.rows)) < self.n:
            fewer = f"{count:,} samples and {len(self.rows):,} real images instead of {self.n:,}"
            notes.append(f"{fewer}: Frechet distance is biased upwards at small counts; compare equal ones")
        if self.auto and self.features.net is None:
            notes.append(f"no classifier is shipped for {self.test.name!r}: weight-free descriptors instead")
        if isinstance(self.features, ChannelFeatures) and count != PUBLISHED:
            notes.append(
                f"KL of modes falls with the number of samples: published ones have {PUBLISHED:,} (-n {PUBLISHED})"
            )
        if count > len(self.train):
            notes.append(f"the floor has {len(self.train):,} images only, all that the training split holds")
        prints = self.test.fingerprint
        grouped = (
            "the class asked for, real images by their label" if by_label else "what the classifier says, both sides"
        )
        trainings = f"{self.cas} training{'s' if self.cas > 1 else ''} of {teaching.steps_for(count)} steps"
        return Protocol(
            data=self.test.name + (f" ({prints})" if prints else ""),
            features=str(self.features),
            samples=count,
            real=len(self.rows),
            floor=f"{min(count, len(self.train)):,} training images",
            training=len(self.train) if self.copies else None,
            classes=f"numbers of a class: {grouped}" if per_class else None,
            cas=f"train here, test real: {trainings} of a small convolutional network" if self.cas else None,
            k_precision_recall=K_PR,
            k_density_coverage=K_DC,
            seed=self.seed,
            notes=notes,
        )


@dataclass
class _Floor:
    """Training images that are scored like samples."""

    rows: np.ndarray
    seen: Looked
    numbers: Numbers
    per_class: dict[tuple[bool, int], list[ClassNumbers]] = field(default_factory=dict)
    taught: teaching.Taught | None = None


_judges: dict[tuple[Any, ...], Judge] = {}


def evaluate(
    samples: np.ndarray | Callable[[int], Any],
    train: Any,
    test: Any,
    *,
    labels: np.ndarray | None = None,
    sample_labels: np.ndarray | None = None,
    features: Any = "auto",
    n: int = 10_000,
    seed: int = 0,
    copies: bool = True,
    cas: int = 0,
    say: Callable[[str], None] | None = None,
) -> Scores:
    """Score generated images against a data set.

    - samples: uint8 (N, H, W, C), or a callable: `samples(n)` gives such images, or `(images, labels)`. Of more
      than `n`, a random `n` are taken.
    - train, test: data sets (`.images` uint8 (N, C, H, W), `.labels`, `.name`), or uint8 arrays (N, H, W, C).
      The test split is the reference (a random `n` of it); the training split gives the floor and is searched
      for copies.
    - labels: int (N,), the classes of the test images, where `test` is an array: the floor of label accuracy.
    - sample_labels: int (N,), the classes that a conditional model was asked for; without them no label accuracy.
    - features: "auto" (by the data set's name: fashion, digits, else descriptors), any of `load_features`, what that
      returns, or a `torch.nn.Module`.
    - n: images a side, fewer where there are fewer. Numbers compare at equal counts only.
    - seed: of every random choice here. The same samples and seed give the same scores.
    - copies: False leaves out the search for copies, the part that needs the whole training split.
    - cas: how many classifiers to train on each side for the classification accuracy score; 0: none.
    - say: is told in a line how long a training will take.

    The last data set's side is kept in memory for the next call. Raises `UserError` for images of another size,
    NaN, too few images, or labels that do not fit.
    """
    if not isinstance(features, str) or features != "auto":
        features = load_features(features)
    name = features if isinstance(features, str) else features.key
    key = (content_key(train), content_key(test), content_key(labels), name, n, seed, copies, cas)
    if key not in _judges:
        judge = Judge(train, test, labels=labels, features=features, n=n, seed=seed, copies=copies, cas=cas)
        _judges.clear()
        _judges[key] = judge
    _judges[key].say = say or _silent
    return _judges[key](samples, sample_labels)


def _features(name: Any, data: Split) -> Features | ChannelFeatures:
    """The feature set of this name; for Stacked MNIST the digit classifier looks at each channel."""
    features = load_features(name)
    if data.name == "stacked-mnist" and features.name == "digits" and data.images.shape[3] == CHANNELS:
        return ChannelFeatures(features)
    return features


def _silent(_: str) -> None:
    """Say nothing."""


def _copy_numbers(copying: Copying) -> dict[str, float | None]:
    return fields(
        copy_ratio=Estimate(copying.ratio, copying.errors["ratio"]),
        nearer=Estimate(copying.nearer, copying.errors["nearer"]),
        copies=Estimate(copying.copies, copying.errors["copies"]),
        authenticity=Estimate(copying.authenticity, copying.errors["authenticity"]),
    )
