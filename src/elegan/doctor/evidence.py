"""What the doctor looks at: numbers and pictures gathered from a model in training, which is left as it was.

Samples come from the averaged generator with noise of their own, D is asked in evaluation mode, gradients are the last
step's, and nothing draws from the training's random numbers. Features are the data's own (`metrics.features`); the
reference is the validation split where the run has one, else training pictures: never the test split, so that what
follows from these numbers (the best checkpoint, stopping) has not seen it. Only the question whether D has learnt its
pictures by heart needs unseen ones: those of the validation split, or else of the test split, for a warning alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elegan.config import RunConfig
from elegan.doctor.leakage import Spot, spots
from elegan.doctor.reader import Reader, fit_cells, fit_labels, squared
from elegan.families.base import Family
from elegan.images import to_float, to_uint8
from elegan.metrics.features import Features, load_features
from elegan.metrics.frechet_distance import Moments, frechet, moments
from elegan.metrics.labels import diversity, entropy
from elegan.metrics.manifold import Balls, balls, prdc

JUDGED = 256  # pictures of each kind that D is asked about
KEPT = 2048  # values of a weight tensor that are remembered to see it move
SEED = 2_000_003  # of the samples' noise: the same at every check of every run, for comparison
PER_CLASS = 30  # real pictures for the reader, at least, where the data has them
MOST = 4000  # real pictures in the reference
YOUNG, YOUNG_BATCHES = 0.1, 500  # of the plan, and batches seen, under which a run is young
LATE, LATE_BATCHES = 0.3, 1500  # from which it is late: every class should come
SMALLEST = 8  # pictures that a comparison needs
TWIN = 0.1  # a twin is nearer than this part of the squared distance at which real pictures have their nearest other
GREY = (28, 28, 1)
FEATURES = {"fashion-mnist": "fashion", "mnist": "digits"}  # what the shipped classifiers know


@dataclass(frozen=True)
class Pictures:
    """Some real pictures for D: uint8 (N, C, H, W), their labels, and which they are."""

    images: np.ndarray
    labels: np.ndarray | None
    what: str


@dataclass(frozen=True)
class RealSide:
    """The data's side, prepared once: reference features and what follows from them."""

    extract: Features
    n: int  # samples at each check; the first `n` of the reference are compared with them
    images: np.ndarray  # uint8 (n, H, W, C)
    features: np.ndarray  # (n, F)
    balls: Balls
    moments: Moments
    reader: Reader
    classes: np.ndarray  # (n,) as the reader sees them
    spread: float  # root mean square distance of two pictures
    spread_within: float  # of two pictures of one class
    near: float  # median squared distance of a picture to its nearest other
    label_shares: np.ndarray  # (K,) of the training pictures' labels themselves
    frechet: float  # of other real pictures to the reference: what a perfect model would get
    trained: Pictures
    held: Pictures | None
    count: int  # training pictures
    reference: str  # which pictures the reference is, for people
    spots: Sequence[Spot] = ()  # that give a class away, the plainest first


def real_side(train: Any, reference: Any, held: Any, n: int) -> RealSide:
    """Prepare the data's side from data sets (`Dataset`): training split, reference, unseen pictures or None.

    `n` samples are drawn at each check; fewer where the reference has less than twice as many.
    """
    rng = np.random.default_rng(0)
    n = max(min(n, len(reference) // 2), min(len(reference), SMALLEST))
    size = min(len(reference), MOST, max(2 * n, PER_CLASS * reference.classes))
    rows = rng.permutation(len(reference))[:size]
    images = np.ascontiguousarray(reference.images[rows].transpose(0, 2, 3, 1))
    extract = features_for(train.name, images.shape[1:])
    features = extract(images).features
    if reference.classes > 1:
        reader = fit_labels(features, reference.labels[rows], reference.class_names)
    else:
        reader = fit_cells(features)
    first, classes = features[:n], reader.read(features[:n])
    apart = squared(first, first)
    np.fill_diagonal(apart, np.inf)
    target = moments(first)
    return RealSide(
        extract=extract,
        n=n,
        images=images[:n],
        features=first,
        balls=balls(first, (3, 5), "real"),
        moments=target,
        reader=reader,
        classes=classes,
        spread=diversity(first),
        spread_within=diversity(first, classes),
        near=float(np.median(apart.min(1))),
        label_shares=np.bincount(train.labels, minlength=train.classes) / len(train)
        if reference.classes > 1
        else reader.shares,
        frechet=frechet(moments(features[-n:]), target) if size >= 2 * n else 0.0,
        trained=some(train, "training"),
        held=None if held is None else some(held, held.split),
        count=len(train),
        reference=f"{n} of the {reference.split if reference.split == 'validation' else 'training'} images",
        spots=spots(images, reference.labels[rows], reference.classes) if reference.classes > 1 else (),
    )


def features_for(name: str, shape: tuple[int, ...]) -> Features:
    """The features that fit a data set of this name and pictures of this shape (H, W, C)."""
    return load_features(FEATURES.get(name, "descriptors") if shape == GREY else "descriptors")


def some(data: Any, what: str) -> Pictures:
    """`JUDGED` pictures of a data set, the same ones every time."""
    rows = np.random.default_rng(1).permutation(len(data))[:JUDGED]
    labels = data.labels[rows] if data.classes else None
    return Pictures(np.ascontiguousarray(data.images[rows]), labels, what)


@dataclass(frozen=True)
class Evidence:
    """One look at a run: what the checks judge."""

    images: int  # seen by the model
    total: int
    config: RunConfig
    numbers: dict[str, float]
    """Of the samples: frechet, precision, recall, density, coverage, diversity and diversity_within (1: as real
    pictures), twins (share of samples with a twin), class_entropy and label_accuracy. Of the players: D_tells and
    D_memory (the probability that D scores a real above a fake picture, a training above an unseen picture), real,
    held and fake (mean logits), G_grad (norm of G's gradient), average (distance of the average from G over G's
    norm)."""
    moved: dict[str, float] = field(default_factory=dict)
    """How far each network's weights moved since the last check, relative to their size."""
    lately: dict[str, float] = field(default_factory=dict)
    """The same for the end of that time, at least one step: exactly 0 is a network that does not learn any more."""
    broken: list[str] = field(default_factory=list)
    """Tensors with NaN or infinity."""
    shares: list[float] = field(default_factory=list)
    """Of each class in the samples."""
    real: RealSide | None = None
    samples: np.ndarray | None = None  # uint8 (n, H, W, C)
    asked: np.ndarray | None = None  # (n,) the classes they were asked for
    classes: np.ndarray | None = None  # (n,) as the reader sees them
    logits: dict[str, np.ndarray] = field(default_factory=dict)  # "training", "held", "fake" -> (k,)
    history: Sequence[Mapping[str, Any]] = ()
    """The rows of earlier checks, oldest first."""
    stats: Sequence[Mapping[str, Any]] = ()
    """The rows of stats.jsonl."""

    @property
    def progress(self) -> float:
        """0 at the start, 1 at the planned end."""
        return min(self.images / max(self.total, 1), 1.0)

    @property
    def young(self) -> bool:
        """Whether the run has hardly begun: a tenth of its plan, or five hundred batches."""
        return self.progress < YOUNG or self.images < YOUNG_BATCHES * getattr(self.config.model, "batch", 1)

    @property
    def late(self) -> bool:
        """Whether the run has come so far that every class should come: three tenths, and 1,500 batches."""
        return self.progress >= LATE and self.images >= LATE_BATCHES * getattr(self.config.model, "batch", 1)

    @property
    def improving(self) -> bool:
        """Whether the samples are nearer to the data than at any look but the last one: what is missing may come.

        At the second look, than at the first.
        """
        distance, before = self.numbers.get("frechet"), self.before("frechet")
        earlier = before[:-1] or before
        return distance is not None and bool(earlier) and distance < 0.95 * min(earlier)

    def before(self, name: str) -> list[float]:
        """A number's values at earlier checks."""
        return [row[name] for row in self.history if isinstance(row.get(name), int | float)]

    def row_numbers(self) -> dict[str, float]:
        """The numbers, rounded to six digits."""
        return {name: float(f"{value:.6g}") for name, value in self.numbers.items()}

    def row(self) -> dict[str, Any]:
        """As it stands in `checks.jsonl`."""
        return {"images": self.images} | self.row_numbers() | {"moved": self.moved, "shares": self.shares}


def gather(model: Family, real: RealSide, images: int, total: int, config: RunConfig, **known: Any) -> Evidence:
    """Look at a model; call it within the engine's context. `known` are fields of `Evidence` that are at hand."""
    broken = not_finite(model)
    if broken:
        return Evidence(images, total, config, {}, broken=broken, real=real, **known)
    numbers = players(model)
    asked = torch.arange(real.n) % model.categories if model.conditional else None
    drawn = model.sample(real.n, asked, seed=SEED)  # (n, C, H, W)
    if not bool(torch.isfinite(drawn).all()):
        return Evidence(images, total, config, numbers, broken=["the samples"], real=real, **known)
    samples = np.ascontiguousarray(to_uint8(drawn).permute(0, 2, 3, 1).numpy())
    wanted = None if asked is None else asked.numpy()
    with torch.autocast("cpu", enabled=False):  # features are the metrics', whatever the model computes in
        features = real.extract(samples).features
    classes = real.reader.read(features)
    numbers |= of_samples(features, classes, wanted, real)
    logits = verdicts(model, drawn, asked, real)
    numbers |= of_logits(logits)
    shares = np.bincount(classes, minlength=len(real.reader.names)) / len(classes)
    return Evidence(
        images=images,
        total=total,
        config=config,
        numbers=numbers,
        shares=[round(float(s), 4) for s in shares],
        real=real,
        samples=samples,
        asked=wanted,
        classes=classes,
        logits=logits,
        **known,
    )


def of_samples(features: np.ndarray, classes: np.ndarray, asked: np.ndarray | None, real: RealSide) -> dict[str, float]:
    """Numbers of samples from their features (n, F), the classes (n,) that are seen and those asked for."""
    near = prdc(features, real.balls)
    apart = squared(features, features)
    np.fill_diagonal(apart, np.inf)
    found = {
        "frechet": frechet(moments(features), real.moments),
        **near._asdict(),
        "diversity": diversity(features) / max(real.spread, 1e-12),
        "diversity_within": diversity(features, classes) / max(real.spread_within, 1e-12),
        "twins": float((apart.min(1) < TWIN * real.near).mean()),
        "class_entropy": entropy(np.bincount(classes, minlength=len(real.reader.names)) / len(classes)),
    }
    if asked is not None and real.reader.accuracy is not None:
        found["label_accuracy"] = float((classes == asked).mean())
    return found


def verdicts(model: Family, fake: Tensor, asked: Tensor | None, real: RealSide) -> dict[str, np.ndarray]:
    """D's logits of training pictures, unseen pictures and fakes, each kind in batches of the training's size."""
    found = {"training": ask(model, real.trained.images, real.trained.labels)}
    if real.held is not None:
        found["held"] = ask(model, real.held.images, real.held.labels)
    found["fake"] = ask(model, fake[:JUDGED], None if asked is None else asked[:JUDGED].numpy())
    return found


def ask(model: Family, images: np.ndarray | Tensor, labels: np.ndarray | None) -> np.ndarray:
    """D's logits (N,) of uint8 or float pictures (N, C, H, W), batch by batch; a last small batch is left out."""
    pictures = to_float(torch.from_numpy(images)) if isinstance(images, np.ndarray) else images
    size = min(model.config.batch, len(pictures))
    found = []
    for start in range(0, len(pictures) - size + 1, size):
        part = pictures[start : start + size].to(model.device).contiguous(memory_format=torch.channels_last)
        y = None if labels is None else torch.from_numpy(labels[start : start + size]).to(model.device)
        found.append(model.logits(part, y).float().cpu())
    return torch.cat(found).numpy()


def of_logits(logits: Mapping[str, np.ndarray]) -> dict[str, float]:
    """What D's logits say, by ranks: no scale of D's enters."""
    found = {"real": float(logits["training"].mean()), "fake": float(logits["fake"].mean())}
    found["D_tells"] = above(logits["training"], logits["fake"])
    if "held" in logits:
        found["held"] = float(logits["held"].mean())
        found["D_memory"] = above(logits["training"], logits["held"])
    return found


def above(a: np.ndarray, b: np.ndarray) -> float:
    """The probability that one of `a` is larger than one of `b`, half for ties (Mann & Whitney 1947)."""
    difference = a[:, None] - b[None]
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


def players(model: Family) -> dict[str, float]:
    """Numbers of the networks themselves: G's gradient, and how far the average is from G."""
    G = model.parts.nets.get(learner(model))
    found: dict[str, float] = {}
    if G is None:
        return found
    gradients = [p.grad.detach().float().norm() for p in G.parameters() if p.grad is not None]
    if gradients:
        found["G_grad"] = float(torch.stack(gradients).norm())
    average = model.parts.nets[model.sampler]
    if average is not G:
        pairs = list(zip(average.parameters(), G.parameters(), strict=True))
        apart = sum(float((a.detach() - b.detach()).float().square().sum()) for a, b in pairs)
        size = sum(float(b.detach().float().square().sum()) for _, b in pairs)
        found["average"] = (apart / max(size, 1e-30)) ** 0.5
    return found


def learner(model: Family) -> str:
    """The name of the generator that learns: the sampler, or what it is the average of."""
    return model.sampler.removesuffix("_ema")


def not_finite(model: Family, gradients: bool = True) -> list[str]:
    """The names of the tensors in a model that hold NaN or infinity: weights first, then the last gradients."""
    found = []
    for name, net in model.parts.nets.items():
        for key, value in net.state_dict().items():
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                found.append(f"{name}'s {key}")
    for name, net in model.parts.nets.items() if gradients else ():
        for key, p in net.named_parameters():
            if p.grad is not None and not bool(torch.isfinite(p.grad).all()):
                found.append(f"the gradient of {name}'s {key}")
    return found


def snapshot(model: Family) -> dict[str, Tensor]:
    """Some of the weights of every network, copied: `KEPT` a tensor, the same ones each time."""
    return {name: some_weights([p.detach() for p in net.parameters()]) for name, net in model.parts.nets.items()}


def some_weights(tensors: Sequence[Tensor]) -> Tensor:
    """At most `KEPT` values of each tensor, evenly, as one copied vector (k,) on the CPU."""
    picked = [t.flatten()[:: max(1, t.numel() // KEPT)].float() for t in tensors if t.is_floating_point()]
    return torch.cat(picked).cpu().clone() if picked else torch.zeros(1)


def movement(before: Mapping[str, Tensor] | None, now: Mapping[str, Tensor]) -> dict[str, float]:
    """How far each network moved between two snapshots, relative to the size of its weights."""
    if before is None:
        return {}
    return {
        name: float(f"{float((now[name] - old).norm() / max(float(old.norm()), 1e-30)):.4g}")
        for name, old in before.items()
        if name in now and now[name].shape == old.shape
    }


def discriminators(moved: Mapping[str, float]) -> dict[str, float]:
    """Of how far networks moved, what is neither a generator's nor an average's."""
    return {name: m for name, m in moved.items() if name.startswith("D") and not name.endswith("_ema")}


def learner_of(e: Evidence) -> str | None:
    """The name of the generator whose average draws the samples, from the networks that moved; None without one."""
    return next((name.removesuffix("_ema") for name in e.moved if name.endswith("_ema")), "G")
