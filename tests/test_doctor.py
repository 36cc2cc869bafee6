"""The doctor's checks, one by one: what each finds, what it lets pass, and that its advice can be followed."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from elegan import families
from elegan.config import RunConfig, build, parse_set
from elegan.data.dataset import Dataset
from elegan.doctor import checks
from elegan.doctor.evidence import (
    Evidence,
    RealSide,
    above,
    ask,
    gather,
    movement,
    not_finite,
    of_samples,
    real_side,
    snapshot,
    some_weights,
)
from elegan.doctor.finding import Finding, propose
from elegan.doctor.leakage import spots
from elegan.doctor.pictures import draw
from elegan.doctor.reader import fit_cells, fit_labels, squared
from elegan.families.base import ImageSpec
from elegan.training.engine import Engine

PRESETS = families.presets()
NAMES = ["bag", "boot", "coat", "dress"]
#: A healthy run at its half.
FINE: dict[str, float] = {
    "frechet": 2.0, "precision": 0.8, "recall": 0.5, "density": 0.9, "coverage": 0.8, "diversity": 0.95,
    "diversity_within": 0.9, "twins": 0.05, "class_entropy": 2.0, "label_accuracy": 0.9, "D_tells": 0.8,
    "D_memory": 0.52, "real": 1.0, "held": 0.9, "fake": -1.0, "G_grad": 1.0, "average": 0.05,
}  # fmt: skip
MOVED = {"G": 0.1, "D": 0.1, "G_ema": 0.09}


def pictures(n: int = 240, classes: int = 4, split: str = "train", seed: int = 0) -> Dataset:
    """Pictures of 12x12 where the class is the quarter that is bright."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    images = rng.integers(0, 90, (n, 1, 12, 12), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[0, 3 * label : 3 * label + 3] += 120
    return Dataset("blobs", images, labels, NAMES[:classes], split)


@pytest.fixture(scope="module")
def real() -> RealSide:
    data = pictures()
    return replace(real_side(data, data, pictures(80, split="test", seed=1), 60), count=5000)


def configured(preset: str = "sngan-tiny", **settings: Any) -> RunConfig:
    family, recipe = PRESETS[preset]
    return build(preset, family, recipe.config, data={"source": recipe.data}, overrides=settings)


def evidence(real: RealSide | None, numbers: dict[str, Any] | None = None, **known: Any) -> Evidence:
    """A healthy look at the half of a run, but for `numbers` and other fields."""
    known = {
        "moved": MOVED,
        "shares": [0.25] * 4,
        "images": 50_000,
        "history": ({**FINE, "shares": [0.25] * 4},) * 3,
    } | known
    return Evidence(total=100_000, config=configured(), numbers=FINE | (numbers or {}), real=real, **known)


def names(e: Evidence) -> set[str]:
    return {finding.check for finding in checks.examine(e)}


def test_a_healthy_look_finds_nothing(real):
    assert checks.examine(evidence(real)) == []


SICK: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "alike": ("collapse", {"diversity": 0.1}, {}),
    "alike in a class": ("collapse", {"diversity_within": 0.1}, {}),
    "twins": ("collapse", {"twins": 0.9}, {}),
    "classes": ("lost classes", {}, {"shares": [0.5, 0.5, 0.0, 0.0]}),
    "one class": ("lost classes", {}, {"shares": [0.4, 0.3, 0.3, 0.0]}),
    "ignored": ("ignored labels", {"label_accuracy": 0.3}, {}),
    "worse": ("diverging", {"frechet": 1e6}, {}),
    "memory": ("D overfits", {"D_memory": 0.95}, {}),
    "still D": ("D does not learn", {}, {"moved": MOVED | {"D": 1e-9}}),
    "stopped D": ("D does not learn", {}, {"lately": {"G": 1e-3, "D": 0.0, "G_ema": 1e-5}}),
    "stopped average": ("dead average", {}, {"lately": {"G": 1e-3, "D": 1e-3, "G_ema": 0.0}}),
    "weak D": ("D too weak", {"D_tells": 0.3, "frechet": 1e6}, {"history": [FINE | {"D_tells": 0.2}]}),
    "strong D": ("D too strong", {"D_tells": 1.0}, {"history": [FINE | {"D_tells": 1.0}] * 3}),
    "gradient": ("vanishing gradient", {"G_grad": 1e-9}, {}),
    "jumps": (
        "oscillation",
        {},
        {"shares": [1, 0, 0, 0], "history": [{"shares": [1, 0, 0, 0]}, {"shares": [0, 1, 0, 0]}]},
    ),
    "restless": (
        "rates too large",
        {},
        {
            "moved": {"G": 0.02, "D": 0.9, "G_ema": 0.02},
            "history": [FINE | {"images": 48_400, "shares": [0.25] * 4}] * 2,
        },
    ),
    "average": ("dead average", {}, {"moved": MOVED | {"G_ema": 0.0}}),
    "far average": ("dead average", {"average": 1.5}, {}),
    "nan": ("not finite", {}, {"broken": ["G's layers.0.weight"]}),
}


@pytest.mark.parametrize(("check", "numbers", "known"), SICK.values(), ids=SICK.keys())
def test_each_failure_is_found_and_told(real, check, numbers, known):
    findings = {f.check: f for f in checks.examine(evidence(real, numbers, **known))}
    assert check in findings
    finding = findings[check]
    assert finding.text.endswith((".", ")."))
    assert finding.text[0].isupper()
    assert finding.evidence
    assert all(math.isfinite(v) for v in finding.evidence.values())
    assert finding.change.startswith(("--set ", "--seed "))
    assert finding.row()["images"] == 50_000


def test_the_tensor_is_named(real):
    (finding,) = checks.examine(evidence(real, broken=["G's layers.0.weight", "D's head"]))
    assert "G's layers.0.weight and 1 more" in finding.text


def test_what_only_tells_late_is_not_asked_early(real):
    early = {"images": 5000, "shares": [0.5, 0.5, 0.0, 0.0]}
    assert names(evidence(real, {"label_accuracy": 0.25, "frechet": 1e6, "D_tells": 0.3}, history=(), **early)) == set()


def test_what_came_before_is_missed_even_early(real):
    early, even = {"images": 5000}, {"shares": [0.25] * 4}
    lost, both = [0.5, 0.5, 0.0, 0.0], [FINE | even] * 3
    assert names(evidence(real, shares=lost, history=both, **early)) == {"lost classes"}
    assert names(evidence(real, shares=lost, history=both[:2], **early)) == set()
    assert (
        names(
            evidence(
                real, shares=lost, history=[FINE | even, FINE | {"shares": lost}, FINE | even, FINE | even], **early
            )
        )
        == set()
    )
    assert names(evidence(real, {"label_accuracy": 0.25}, history=both, **early)) == {"ignored labels"}
    assert (
        names(evidence(real, {"label_accuracy": 0.25}, history=[FINE | {"label_accuracy": 0.3}] * 2, **early)) == set()
    )


def test_what_a_reader_saw_in_pictures_of_nothing_has_not_come(real):
    """A quarter-width run on garments was read as nearly all coats at first, and told to have lost its trousers."""
    even, mush, lost = [0.25] * 4, [0.82, 0.16, 0.01, 0.01], [0.5, 0.0, 0.3, 0.2]
    looks = [[FINE | {"shares": shares}] * 3 for shares in (even, mush)]
    assert names(evidence(real, shares=lost, history=looks[0], images=5000)) == {"lost classes"}
    assert names(evidence(real, shares=lost, history=looks[1], images=5000)) == set()


def test_a_run_that_still_improves_is_given_time(real):
    worse, lost = FINE | {"frechet": 2 * FINE["frechet"], "label_accuracy": 0.3}, [0.5, 0.5, 0.0, 0.0]
    assert names(evidence(real, {"label_accuracy": 0.3}, shares=lost, history=[worse, worse])) == set()
    assert names(evidence(real, {"label_accuracy": 0.3}, shares=lost, history=[FINE, worse | {"shares": lost}])) >= {
        "lost classes"
    }
    weak = [{"frechet": f, "D_tells": 0.2} for f in (2e6, 1.5e6)]
    assert "D too weak" not in names(evidence(real, {"frechet": 1e6, "D_tells": 0.3}, history=weak))
    assert "D too weak" not in names(evidence(real, {"frechet": 1e6, "D_tells": 0.3}, history=weak[:1])), "the second"
    assert "D too weak" in names(evidence(real, {"frechet": 1.99e6, "D_tells": 0.3}, history=weak[:1]))
    far = {"frechet": 1e6, "D_tells": 1.0}
    assert "diverging" not in names(evidence(real, far, history=[{"frechet": 2e6}, {"frechet": 1.5e6}]))
    assert "diverging" in names(evidence(real, far, history=[{"frechet": 1e6}, {"frechet": 1.5e6}]))


def test_a_new_generator_has_not_collapsed_but_one_that_was_better_has(real):
    alike = {"diversity": 0.05, "twins": 1.0}
    assert names(evidence(real, alike, images=5000, history=())) == set()
    assert names(evidence(real, alike, images=5000, history=({"diversity": 0.1},))) == set()
    assert names(evidence(real, alike, images=5000)) == {"collapse"}
    assert names(evidence(real, alike, history=())) == {"collapse"}


def test_one_look_at_a_weak_discriminator_is_not_enough(real):
    assert "D too weak" not in names(evidence(real, {"D_tells": 0.3, "frechet": 1e6}))


def test_what_follows_from_a_collapse_is_not_told_as_well(real):
    sick = {"diversity": 0.05, "label_accuracy": 0.25, "frechet": 1e6}
    assert names(evidence(real, sick, shares=[1.0, 0.0, 0.0, 0.0])) == {"collapse"}


def test_little_data_is_told(real):
    assert names(evidence(replace(real, count=300))) == {"small data"}


def test_shuffled_labels_are_seen_in_the_data_alone():
    data = pictures(400)
    fair = real_side(data, data, None, 60)
    assert fair.reader.accuracy > 0.95
    mixed = replace(data, labels=np.random.default_rng(0).permutation(data.labels), fingerprint="")
    unfair = real_side(mixed, mixed, None, 60)
    assert "meaningless labels" in names(evidence(replace(unfair, count=5000)))
    assert "meaningless labels" not in names(evidence(replace(fair, count=5000)))


def stamped(data: Dataset, label: int = 1) -> Dataset:
    """A mark in the corner of one class."""
    images = data.images.copy()
    images[data.labels == label, 0, 0, 9] = 120
    return replace(data, images=images, fingerprint="")


def test_a_spot_that_gives_a_class_away_is_seen_in_the_data_alone(tmp_path):
    blobs = pictures(400)
    noise = replace(blobs, images=np.random.default_rng(3).integers(0, 90, blobs.images.shape, dtype=np.uint8))
    marked = stamped(noise)
    (spot,) = real_side(marked, marked, None, 60).spots
    assert (spot.label, spot.row, spot.column) == (1, 0, 9)
    assert spot.advantage >= 0.99
    assert spot.inside[0, 9, 0] == 120
    assert real_side(noise, noise, None, 60).spots == []
    e = evidence(replace(real_side(marked, marked, None, 60), count=5000), asked=np.arange(60) % 4)
    (finding,) = [f for f in checks.examine(e) if f.check == "label leakage"]
    assert "boot" in finding.text
    assert "row 0 and column 9" in finding.text
    assert finding.change == "--set labels=ignore"
    assert draw(finding, e, tmp_path / "a.png")
    assert "label leakage" not in names(replace(e, asked=None)), "a model without labels has none that leak"


def test_a_mark_on_large_pictures_is_seen_and_chance_on_few_is_not():
    rng = np.random.default_rng(0)
    images, labels = rng.integers(20, 256, (60, 200, 150, 3), dtype=np.uint8), rng.permutation(60) % 2
    assert spots(images, labels, 2) == []
    images[labels == 1, 100:112, 60:72] = 7
    found = spots(images, labels, 2)
    assert 1 in {s.label for s in found}
    assert all(100 <= s.row < 112 and 60 <= s.column < 72 for s in found)
    assert spots(images[:18], labels[:18], 2) == []


def test_labels_that_tell_fakes_from_real_pictures(real, tmp_path):
    uneven = replace(real, label_shares=np.array([0.7, 0.1, 0.1, 0.1]))
    config = configured("digits-cgan")
    e = replace(evidence(uneven, asked=np.arange(60) % 4), config=config)
    (finding,) = [f for f in checks.examine(e) if f.check == "label leakage"]
    assert finding.evidence["label_tells"] == pytest.approx(0.5 + 0.5 * 0.45)
    assert finding.change == "--set fake_labels=real"
    assert draw(finding, e, tmp_path / "a.png")
    assert "label leakage" not in names(replace(e, real=real))
    fair = build("digits-cgan", "gan", PRESETS["digits-cgan"][1].config, overrides={"fake_labels": "real"})
    assert "label leakage" not in names(replace(e, config=fair))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_proposed_change_is_a_setting_of_the_family(preset, real):
    """What the doctor says can be typed: the run's configuration takes it, and differs by it."""
    family, recipe = PRESETS[preset]
    config = configured(preset)
    for check, numbers, known in SICK.values():
        e = replace(evidence(real, numbers, **known), config=config)
        for finding in checks.examine(e):
            flag, _, value = finding.change.partition(" ")
            if flag == "--seed":
                assert int(value) == config.train.seed + 1
                continue
            changed = build(preset, family, recipe.config, data={"source": recipe.data}, overrides=parse_set([value]))
            assert changed != config, (check, finding.change)


def test_a_proposal_that_the_settings_refuse_is_passed_over():
    config = configured("fashion-wgan-gp")
    assert propose(config, [("label_smoothing", lambda v: 0.1), ("D_lr", lambda v: -1.0)]) == "--seed 1"
    assert propose(config, [("penalty", lambda _: "none"), ("D_steps", lambda n: n + 1)]) == "--set D_steps=6"
    assert (
        propose(configured("fashion-r3gan"), [("lr", lambda pair: [v / 2 for v in pair])]) == "--set lr=[0.001,0.00025]"
    )


def test_ranks_of_logits():
    assert above(np.array([1.0, 2.0]), np.array([0.0, -1.0])) == 1
    assert above(np.array([1.0, 1.0]), np.array([1.0])) == 0.5
    assert above(np.array([0.0, 2.0]), np.array([1.0])) == 0.5


def test_squared_distances():
    a, b = np.random.default_rng(0).normal(size=(2, 5, 3))
    assert squared(a, b) == pytest.approx(((a[:, None] - b[None]) ** 2).sum(2))


def test_cells_are_those_of_the_nearest_centre():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(40, 2)) * 0.1 + centre for centre in ([0, 0], [5, 0], [0, 5])])
    reader = fit_cells(x, cells=3)
    cells = reader.read(x).reshape(3, 40)
    assert (cells == cells[:, :1]).all()
    assert len(set(cells[:, 0])) == 3
    assert reader.shares == pytest.approx([1 / 3] * 3)


def test_the_readers_accuracy_is_of_pictures_that_it_has_not_seen():
    x = np.random.default_rng(0).normal(size=(120, 100))
    labels = np.random.default_rng(1).integers(0, 2, 120)
    reader = fit_labels(x, labels, ["a", "b"])
    seen = np.arange(120) % 4 != 3
    assert (reader.read(x)[seen] == labels[seen]).mean() > 0.9
    assert reader.accuracy < 0.8


def test_copies_are_twins_and_have_no_diversity(real):
    features = real.features
    one = np.repeat(features[:1], len(features), 0)
    assert of_samples(features, real.classes, real.classes, real)["twins"] < 0.05
    same = of_samples(one, np.zeros(len(one), int), None, real)
    assert same["twins"] == 1
    assert same["diversity"] < 1e-6
    assert same["frechet"] == pytest.approx(real.spread**2 / 2 + ((one[0] - features.mean(0)) ** 2).sum(), rel=1e-3)


def model_of(preset: str = "sngan-tiny", spec: ImageSpec = ImageSpec(1, 12, 12, 4)) -> Any:  # noqa: B008
    family, recipe = PRESETS[preset]
    torch.manual_seed(0)
    return families.get(family).Model(recipe.config, spec)


def test_gathering_names_the_tensor_that_is_broken(real):
    model = model_of()
    assert not_finite(model) == []
    with torch.no_grad():
        model.D.linear.parametrizations.weight.original[0, 3] = float("nan")
    e = gather(model, real, 10, 100, configured())
    assert e.broken == ["D's linear.parametrizations.weight.original"]
    assert names(e) == {"not finite"}


def test_gathering_sees_a_frozen_D_and_a_still_average(real):
    model = model_of()
    before = snapshot(model)
    with torch.no_grad():
        for p in model.G.parameters():
            p.add_(0.1)
    moved = movement(before, snapshot(model))
    assert moved["D"] == 0
    assert moved["G"] > 0.01
    e = gather(model, real, 500, 1000, configured(), moved=moved)
    assert {"D does not learn", "dead average"} <= names(e)
    assert e.samples.shape == (60, 12, 12, 1)
    assert set(e.logits) == {"training", "held", "fake"}


def test_gathering_in_half_precision_reads_features_in_full(real):
    """On machines that compute in bfloat16 the default is to: features and metrics stay what they are."""
    data = replace(
        pictures(), name="mnist", images=np.zeros((240, 1, 28, 28), np.uint8) + pictures().images[..., :1, :1]
    )
    known = real_side(data, data, None, 60)
    assert known.extract.net is not None, "a classifier, which autocast would reach"
    with Engine(torch.device("cpu"), "bf16").context():
        e = gather(model_of(spec=ImageSpec(1, 28, 28, 4)), known, 500, 1000, configured())
    assert e.numbers["frechet"] > 0
    assert e.logits["fake"].dtype == np.float32


def test_D_is_asked_in_whole_batches_of_one_kind():
    model = model_of("improved-tiny")
    images = pictures(40).images
    assert ask(model, images, None).shape == (32,)  # two batches of sixteen
    assert ask(model, images[:10], None).shape == (10,)


def test_a_part_of_the_weights_is_a_copy():
    weight = torch.arange(10000.0)
    part = some_weights([weight])
    weight += 1
    assert len(part) <= 2500
    assert part[0] == 0


@pytest.mark.parametrize("check", ["collapse", "lost classes", "D overfits", "diverging", "not finite"])
def test_each_kind_of_picture_is_drawn(check, real, tmp_path):
    e = gather(model_of(), real, 500, 1000, configured(), history=({**FINE, "images": 100},))
    e = replace(e, stats=[{"images": i, "D_loss": 1.0, "G_loss": 2.0} for i in (8, 16)])
    assert draw(Finding(500, check, "problem", "text"), e, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


def test_nothing_to_see_is_no_picture(tmp_path):
    e = Evidence(500, 1000, configured(), {}, broken=["x"])
    assert not draw(Finding(500, "not finite", "problem", "text"), e, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_pictures_that_are_far_but_come_nearer_are_not_called_diverging(real):
    """Nor at the first look, where nothing is known of how they come: an MLP on digits was called so, and did well."""
    far = 0.8 * real.spread**2
    assert far > checks.FAR * real.spread**2
    first = evidence(real, {"frechet": far}, history=())
    nearer = evidence(real, {"frechet": far}, history=[FINE | {"frechet": 1.2 * far}])
    stuck = evidence(real, {"frechet": far}, history=[FINE | {"frechet": 1.01 * far}])
    assert "diverging" not in names(first)
    assert "diverging" not in names(nearer)
    assert "diverging" in names(stuck)
