"""The numbers of each class, classification accuracy, Stacked MNIST, and the forms that results come in."""

import importlib
import json
import re

import numpy as np
import pytest

from elegan.data import Dataset, open_data
from elegan.data.stacked import stacked_mnist, stacked_rows
from elegan.errors import UserError
from elegan.metrics import (
    CopyTest,
    Judge,
    Scores,
    classification_accuracy,
    detail,
    diversity,
    evaluate,
    frechet,
    ms_ssim,
    prdc,
)
from elegan.metrics import cas as teaching
from elegan.metrics.stacked import ChannelFeatures
from elegan.metrics.tables import pair
from metric_checks import bars


def as_data(images, labels, split="train"):
    return Dataset("bars", images.transpose(0, 3, 1, 2), labels, ["a", "b", "c", "d"], split)


@pytest.fixture(scope="module")
def splits():
    return as_data(*bars(400, 1)), as_data(*bars(300, 2), "test")


NARROW = (16, 3, 1)  # fewer pixels than images of a class: a Frechet distance in pixels has a covariance


@pytest.fixture(scope="module")
def narrow():
    return as_data(*bars(400, 1, shape=NARROW)), as_data(*bars(300, 2, shape=NARROW), "test")


def test_numbers_of_a_class_are_those_of_its_images_alone(narrow):
    images, labels = bars(280, 3, shape=NARROW)
    scores = evaluate(images, *narrow, sample_labels=labels, features="pixels", copies=False)
    assert [c.name for c in scores.per_class] == ["a", "b", "c", "d"]
    flat = lambda x: x.reshape(len(x), -1) / np.float32(255)
    real = flat(narrow[1].images.transpose(0, 2, 3, 1))
    for c, found in enumerate(scores.per_class):
        ours, theirs = flat(images[labels == c]), real[narrow[1].labels == c]
        assert found.value.images == (labels == c).sum() and found.value.share == pytest.approx((labels == c).mean())
        assert found.value.frechet == pytest.approx(frechet(ours, theirs), rel=1e-6)
        near = prdc(ours, theirs)
        assert (found.value.precision, found.value.recall, found.value.coverage) == pytest.approx(
            (near.precision, near.recall, near.coverage)
        )
        assert found.value.diversity == pytest.approx(diversity(ours) / diversity(theirs))
        assert found.value.label_accuracy is None  # pixels name nothing
        assert min(found.value.frechet_error, found.value.recall_error, found.value.share_error) > 0
    assert "the class asked for" in str(scores.protocol)


def test_a_class_that_fails_is_seen_in_its_own_numbers(narrow):
    images, labels = bars(400, 3, shape=NARROW)
    images[labels == 2] = images[labels == 2][:1]  # one picture, again and again
    labels = np.where(labels == 1, 0, labels)  # and b is drawn when a is asked for
    scores = evaluate(images, *narrow, sample_labels=labels, features="pixels", copies=False)
    a, b, c, d = (found.value for found in scores.per_class)
    assert b.images == 0 and b.share == 0 and b.frechet is None and b.share_error > 0
    assert c.diversity < 0.01 and c.coverage < 0.1 and d.diversity > 0.9 and d.coverage > 0.8
    assert a.frechet > 5 * d.frechet and a.precision < 0.7 < d.precision
    floor = [found.floor for found in scores.per_class]
    assert all(one.frechet < a.frechet and one.coverage > 0.9 for one in floor)
    table = scores.to_text(per_class=True)
    assert table.count("  real") == 4 and scores.to_text().count("  real") == 0
    assert max(len(line) for line in table.splitlines()) <= 100


def digits(split="test"):
    try:
        return open_data("mnist", split, download=False)
    except UserError as error:
        pytest.skip(f"MNIST is not on disk: {error}")


def test_label_accuracy_of_each_class_and_classes_as_predicted():
    data = digits()
    images, labels = data.images.transpose(0, 2, 3, 1), data.labels
    test = Dataset("mnist", data.images[:800], labels[:800], data.class_names, "test")
    train = Dataset("mnist", data.images[800:1600], labels[800:1600], data.class_names)
    ours, asked = images[1600:2600], labels[1600:2600].copy()
    asked[asked == 7] = 1  # a model that draws sevens when asked for ones
    told = evaluate(ours, train, test, sample_labels=asked, copies=False)
    accuracy = [c.value.label_accuracy for c in told.per_class]
    assert accuracy[1] == pytest.approx((labels[1600:2600][asked == 1] == 1).mean(), abs=0.02)
    assert accuracy[7] is None and min(a for i, a in enumerate(accuracy) if i not in (1, 7)) > 0.95
    assert all(c.floor.label_accuracy > 0.95 for c in told.per_class)
    sorted_ = evaluate(ours, train, test, copies=False)
    assert "what the classifier says" in str(sorted_.protocol) and sorted_.per_class[7].value.images > 70
    assert all(c.value.label_accuracy is None for c in sorted_.per_class)
    assert sorted_.value.class_shares == pytest.approx([c.value.share for c in sorted_.per_class])


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr(teaching, "LEAST_STEPS", 60)
    monkeypatch.setattr(teaching, "EPOCHS", 1)


def test_classification_accuracy_is_repeatable_and_its_seeds_differ(few_steps, monkeypatch):
    monkeypatch.setattr(teaching, "LEAST_STEPS", 12)  # not to the end
    images, labels = bars(200, 1)
    run = lambda **options: classification_accuracy(images, labels, *bars(200, 2), classes=4, **options)
    assert run() == run() and run(seed=1).accuracy != run().accuracy
    both = run(seeds=2)
    assert both.accuracy == pytest.approx((run().accuracy + run(seed=1).accuracy) / 2)
    assert both.error > run().error / 2 and both.seeds == 2


def test_classification_accuracy_in_scores(splits, few_steps):
    said = []
    images, labels = bars(200, 3, lost=(0,))
    scores = evaluate(images, *splits, sample_labels=labels, copies=False, cas=1, say=said.append)
    assert scores.floor.cas > 0.95 > scores.value.cas + 0.1 and scores.value.cas_error > 0
    assert scores.per_class[0].value.cas < 0.1 and scores.per_class[0].floor.cas > 0.9
    assert re.fullmatch(r"training 2 small classifiers on 200 images each: about \d+ s", *said)
    assert "1 training of 60 steps" in str(scores.protocol) and "train here, test real" in str(scores)
    assert evaluate(images, *splits, sample_labels=labels, copies=False).value.cas is None


def test_classification_accuracy_needs_labels(splits):
    images, labels = bars(60, 3)
    with pytest.raises(UserError, match="needs labelled samples"):
        evaluate(images, *splits, copies=False, cas=1)
    with pytest.raises(UserError, match="needs labelled data"):
        evaluate(images, *(s.images.transpose(0, 2, 3, 1) for s in splits), sample_labels=labels, copies=False, cas=1)
    for wrong, why in ((labels + 1, "0 to 4|1 to 4"), (labels[:5], "5 int64 labels for 60"), (labels / 2, "float64")):
        with pytest.raises(UserError, match=why):
            classification_accuracy(images, wrong, images, labels, classes=4)
    with pytest.raises(UserError, match="too few"):
        classification_accuracy(images[:5], labels[:5], images, labels, classes=4)


def some_digits(split="train"):
    """Forty grey pictures in MNIST's place."""
    images = np.random.default_rng(0).integers(0, 256, (40, 1, 28, 28), dtype=np.uint8)
    return Dataset("mnist", images, np.arange(40) % 10, [str(d) for d in range(10)], split)


def test_stacked_mnist_is_three_digits_by_seed_and_index():
    base = some_digits()
    data = stacked_mnist(base, count=300)
    assert data.images.shape == (300, 3, 28, 28) and data.name == "stacked-mnist" and data.classes == 1000
    rows = stacked_rows(300, 40)
    for i in (0, 7, 299):
        for channel in range(3):
            np.testing.assert_array_equal(data.images[i, channel], base.images[rows[i, channel], 0])
        assert data.class_names[data.labels[i]] == "".join(str(base.labels[row]) for row in rows[i])
    few = stacked_mnist(base, count=10)
    np.testing.assert_array_equal(few.images, data.images[:10])  # the first of many are the few
    assert not np.array_equal(stacked_mnist(base, seed=1, count=300).labels, data.labels)
    assert not np.array_equal(stacked_rows(300, 40, "test"), rows)
    each = np.array([np.bincount(column, minlength=40) for column in stacked_rows(40_000, 40).T])
    assert abs(each - 1000).max() < 6 * np.sqrt(1000)  # every picture as often, in every channel
    pairs = np.corrcoef(stacked_rows(40_000, 40).T)
    assert abs(pairs - np.eye(3)).max() < 0.03


def test_stacked_mnist_opens_by_name():
    digits("train")
    data = open_data("stacked-mnist", "test", limit=50, download=False)
    assert len(data) == 50 and (data.channels, data.height) == (3, 28) and data.split == "test"
    assert open_data("stackedmnist", "test", limit=50, labels="none", download=False).labels is None
    assert np.array_equal(open_data("stacked-mnist", "test", limit=20).images, data.images[:20])


def test_modes_are_counted_on_stacked_mnist():
    """Real images have nearly every mode of their own; a model without one digit lacks a tenth of each channel."""
    base = digits()
    test = stacked_mnist(base, count=300)
    train = stacked_mnist(base, seed=1, count=300)
    samples = stacked_mnist(base, seed=2, count=300)
    scores = evaluate(samples.images.transpose(0, 2, 3, 1), train, test, sample_labels=samples.labels, copies=False)
    value = scores.value
    assert "published ones have 26,000" in str(scores.protocol)
    assert "on each channel" in str(scores.protocol) and "KL to equal modes" in str(scores)
    expected = 1000 * (1 - 0.999**300)
    assert value.modes == pytest.approx(expected, abs=30) and scores.floor.modes == pytest.approx(expected, abs=30)
    assert value.modes == pytest.approx(len(np.unique(samples.labels)), abs=8)
    assert value.label_accuracy > 0.96 and value.classifier_score is None and scores.per_class == []
    assert value.modes_kl == pytest.approx(scores.floor.modes_kl, abs=0.1) and 0.4 < value.modes_kl_real < 1
    kept = samples.images[(samples.labels < 900) & (samples.labels >= 100)].transpose(0, 2, 3, 1)
    fewer = evaluate(kept, train, test, copies=False).value
    assert fewer.modes < value.modes - 30 and fewer.modes_kl > value.modes_kl + 0.1 and fewer.coverage < value.coverage


def test_channel_features_name_the_first_channel_first():
    class Grey:
        classes = 10

        def __call__(self, images):
            from elegan.metrics.features import Extracted

            level = images.reshape(len(images), -1)[:, 0]
            return Extracted(level[:, None].astype(np.float32), np.eye(10, dtype=np.float32)[level])

    images = np.stack([np.full((4, 4, 3), (7, 0, 2), np.uint8), np.full((4, 4, 3), (0, 9, 9), np.uint8)])
    found, codes = ChannelFeatures(Grey()).with_codes(images)
    assert codes.tolist() == [702, 99] and found.features.tolist() == [[7, 0, 2], [0, 9, 9]]


def test_every_number_has_an_error(splits):
    images, labels = bars(200, 3)
    scores = evaluate(images, *splits, sample_labels=labels, copies=True)
    for numbers in (scores.value, scores.floor):
        content = numbers.model_dump()
        for name, value in content.items():
            if value is None or name.endswith("_error") or name == "spectrum_curve":
                continue
            assert content[f"{name}_error"] is not None, name
    assert Scores.model_validate(json.loads(scores.to_json())) == scores


def test_numbers_do_not_depend_on_the_order_of_samples(splits):
    images, labels = bars(150, 3)
    order = np.random.default_rng(0).permutation(150)
    one, other = (evaluate(images[o], *splits, sample_labels=labels[o]).value for o in (np.arange(150), order))
    drawn = {"kernel", "wasserstein", "ms_ssim", "classifier_score"}  # of random parts, pairs or places
    for name, value in one.model_dump().items():
        if isinstance(value, float) and name not in drawn and not name.endswith("_error"):
            assert getattr(other, name) == pytest.approx(value, rel=1e-5), name
    for name in ("kernel", "wasserstein", "ms_ssim"):
        far = abs(getattr(one, name) - getattr(other, name))
        assert far < 5 * getattr(one, f"{name}_error"), name


def test_the_most_suspicious_samples_are_named(splits):
    images, _ = bars(100, 3)
    images[[17, 60]] = splits[0].images[[5, 99]].transpose(0, 2, 3, 1)
    scores = evaluate(images, *splits, n=100)
    assert {(s.sample, s.original) for s in scores.suspects[:2]} == {(17, 5), (60, 99)}
    assert scores.suspects[0].ratio == 0 and scores.suspects[2].ratio > 0.3 and len(scores.suspects) == 10
    many = np.concatenate([images, images])  # of which a random half is scored: rows are those of what was given
    half = evaluate(many, *splits, n=100)
    assert all(s.sample % 100 in (17, 60) for s in half.suspects if s.ratio == 0)
    assert any(s.sample >= 100 for s in half.suspects)


def test_the_size_of_a_batch_does_not_matter(monkeypatch):
    (a, _), (b, _) = bars(60, 1, shape=(24, 20, 3)), bars(60, 2, shape=(24, 20, 3))

    def numbers():
        seen = detail(a)
        copying = CopyTest(b, a[:30])(a)
        return [*seen.gradient, *seen.power.ravel(), *seen.fine, *ms_ssim(a, b), *copying.ratios, copying.authenticity]

    whole = numbers()
    for name, constant in (("spectrum", "BATCH"), ("similarity", "BATCH"), ("memorisation", "BLOCK")):
        monkeypatch.setattr(importlib.import_module(f"elegan.metrics.{name}"), constant, 7)
    np.testing.assert_allclose(numbers(), whole, rtol=1e-5)


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (0.87123, 0.00341, "0.8712 +- 0.0034"),
        (23.61, 0.124, "23.61 +- 0.12"),
        (1000, 12, "1000 +- 12"),
        (-0.0007, 0.0009, "-0.00070 +- 0.00090"),
        (0.5, None, "0.500"),
        (0.5, 0.0, "0.500 +- 0.000"),
        (None, None, "-"),
    ],
)
def test_a_number_has_as_many_places_as_its_error(value, error, shown):
    assert pair(value, error, 3) == shown


def test_rows_for_markdown_and_latex(splits):
    images, labels = bars(150, 3)
    scores = evaluate(images, *splits, sample_labels=labels)
    lines = scores.to_markdown("my_run").splitlines()
    header, rule, ours, real = lines[:4]
    assert header.count("|") == rule.count("|") == ours.count("|") == real.count("|")
    assert (
        ours.startswith("| my_run | ")
        and real.startswith("| real images | ")
        and "Frechet ↓" in header
        and "| density |" in header
    )
    value, error = ours.split(" | ")[1].split(" ± ")
    assert float(value) == pytest.approx(scores.value.frechet, rel=0.01)
    assert float(error) == pytest.approx(scores.value.frechet_error, rel=0.1)
    assert lines[5:] == [f"- {line}".replace("+-", "±") for line in scores.protocol.lines()]
    by_class = scores.to_markdown(per_class=True)
    assert by_class.count("\n| class |") == 1 and "\n| c, real |" in by_class

    tex = scores.to_latex("my_run", per_class=True)
    assert tex.count("\\begin{tabular}") == tex.count("\\end{tabular}") == tex.count("\\toprule") == 2
    assert "my\\_run & $" in tex and "+-" not in tex and "descriptors (weight free)" in tex
    for block in re.findall(r"\\midrule\n(.*?)\\bottomrule", tex, re.S):
        columns = {row.count("&") for row in block.strip().splitlines()}
        assert len(columns) == 1
    bare = re.sub(r"\\[%&$#_{}]", "", tex.split("\\end{tabular}")[-1])
    assert not re.search(r"(?<!\\)[%&#_]", bare)


def test_a_judge_is_reused_for_samples_of_other_counts_and_classes(narrow):
    judge = Judge(*narrow, features="pixels", copies=False)
    images, labels = bars(120, 3, shape=NARROW)
    once = judge(images, labels)
    other = judge(images[:90], np.where(labels[:90] == 0, 5, labels[:90]))  # classes that the data does not have
    assert len(other.per_class) == 6 and other.per_class[5].value.images == (labels[:90] == 0).sum()
    assert other.per_class[5].value.precision is None and other.per_class[5].name == "class 5"
    assert judge(images, labels) == once and judge(images).per_class == []
