"""The shipped classifiers, the loading of features, and `evaluate` from end to end."""

import hashlib
import json

import numpy as np
import pytest
import torch

from elegan.data import Dataset, open_data
from elegan.errors import UserError
from elegan.metrics import Judge, Scores, evaluate, frechet, load_features
from elegan.metrics.classifiers import fold
from elegan.metrics.features import WEIGHTS, build


def on_disk(name, split):
    try:
        return open_data(name, split=split, download=False)
    except UserError as error:
        pytest.skip(f"{name} is not on disk: {error}")


def noise(n, seed=0, shape=(28, 28, 1)):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def dataset(n, seed, shape=(16, 12, 3), name="squares"):
    """A bright square at a random place of a dark picture, labelled by its quarter."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 30, (n, *shape), dtype=np.uint8)
    at = rng.integers(0, 8, (n, 2))
    for image, (y, x) in zip(images, at, strict=True):
        image[y : y + 4, x : x + 4] += 200
    labels = (at[:, 0] // 4 * 2 + at[:, 1] // 4).astype(np.int64)
    return Dataset(name, images.transpose(0, 3, 1, 2), labels, ["a", "b", "c", "d"])


@pytest.mark.parametrize(("name", "data", "least"), [("fashion", "fashion-mnist", 0.92), ("digits", "mnist", 0.99)])
def test_shipped_classifier_reaches_the_accuracy_on_its_card(name, data, least):
    test = on_disk(data, "test")
    card = json.loads((WEIGHTS / f"{name}.json").read_text())
    right = load_features(name)(test.images.transpose(0, 2, 3, 1)).probabilities.argmax(1) == test.labels
    assert right.mean() == pytest.approx(card["test_accuracy"], abs=0.0005)
    assert right.mean() >= least


@pytest.mark.parametrize("name", ["fashion", "digits"])
def test_card_and_weights_belong_together(name):
    weights, card = WEIGHTS / f"{name}.safetensors", json.loads((WEIGHTS / f"{name}.json").read_text())
    assert weights.stat().st_size < 2_000_000
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == card["sha256"]
    features = load_features(name)
    assert features.card.items() <= card.items()
    assert features.checksum in str(features) and features.classes == 10
    extracted = features(noise(3))
    assert extracted.features.shape == (3, card["features"])
    np.testing.assert_allclose(extracted.probabilities.sum(1), 1, rtol=1e-5)


def test_features_of_an_image_do_not_depend_on_the_others():
    features, images = load_features("fashion"), noise(300)
    whole = features(images).features
    assert (features(images[:7]).features == whole[:7]).all()
    np.testing.assert_allclose(features(images[::-1]).features[::-1], whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ["residual", "plain"])
def test_folding_the_normalisation_changes_nothing(architecture):
    torch.manual_seed(0)
    net = build(architecture, 10)
    x = torch.rand(64, 1, 28, 28)
    with torch.no_grad():
        for _ in range(3):
            net(x * torch.rand(1))  # gives every normalisation statistics of its own
        before = net.eval()(x)
        after = fold(net)(x)
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in net.modules())


def test_features_can_be_loaded_from_a_path(tmp_path):
    path = tmp_path / "mine.safetensors"
    path.write_bytes((WEIGHTS / "digits.safetensors").read_bytes())
    mine = load_features(str(path))
    assert mine.name == str(path) and mine.checksum == load_features("digits").checksum
    assert load_features("pixels")(noise(4)).features.shape == (4, 784)


def test_wrong_features_are_said(tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes((WEIGHTS / "digits.safetensors").read_bytes()[:1000])
    for name, why in (
        ("fasion", "did you mean 'fashion'"),
        ("x.safetensors", "no feature weights"),
        (broken, "not a fe"),
    ):
        with pytest.raises(UserError, match=why) as error:
            load_features(str(name))
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="take 28x28x1 images, not 32x32x3"):
        load_features("fashion")(noise(2, shape=(32, 32, 3)))


def test_real_images_score_as_the_floor_and_damage_scores_worse():
    train, test = on_disk("fashion-mnist", "train"), on_disk("fashion-mnist", "test")
    judge = Judge(train, test, n=1000, copies=False)
    unseen = np.setdiff1d(np.arange(len(test)), judge.rows)[:1000]
    images, labels = test.images[unseen].transpose(0, 2, 3, 1), test.labels[unseen]
    real = judge(images, labels)
    assert "features fashion (sha256" in str(real) and real.class_names[0] == test.class_names[0]
    assert real.value.frechet == pytest.approx(real.floor.frechet, abs=0.2)
    assert abs(real.value.kernel) < 4 * real.value.kernel_error
    assert real.value.label_accuracy == pytest.approx(real.floor.label_accuracy, abs=0.03)
    assert real.value.class_entropy > 3.25 and real.value.coverage > 0.93

    seven = images[labels < 7]
    lost = judge(seven, labels[labels < 7])
    assert lost.value.recall < real.value.recall - 0.1 and lost.value.precision > real.value.precision - 0.05
    assert lost.value.frechet > 5 * real.value.frechet and lost.value.class_entropy < 2.95
    assert sum(lost.value.class_shares[7:]) < 0.05

    shuffled = judge(images, np.roll(labels, 1))
    assert shuffled.value.label_accuracy < 0.2
    grainy = judge((images + noise(1000) / 6).clip(0, 255).astype(np.uint8))
    assert grainy.value.frechet > 5 * real.value.frechet and grainy.value.precision < real.value.precision
    assert grainy.value.label_accuracy is None and grainy.floor.label_accuracy is not None


def test_data_without_a_classifier_is_judged_by_descriptors_and_told_so():
    train, test = dataset(300, 1), dataset(200, 2)
    scores = evaluate(lambda n: dataset(150, 3).images.transpose(0, 2, 3, 1), train, test)
    assert scores.value.classifier_score is None and scores.value.label_accuracy is None
    assert "weight free" in scores.protocol.features and "no classifier is shipped for 'squares'" in str(scores)
    assert "150 samples and 200 real images instead of 10,000" in str(scores)
    assert scores.value.precision > 0.7 and scores.value.copies < 0.05 and scores.floor.copy_ratio == 1
    assert Scores.model_validate(json.loads(scores.to_json())) == scores
    table = str(scores).splitlines()
    assert table[0].split() == ["value", "floor", "better"] and table[1].startswith("Frechet distance")
    again = evaluate(dataset(150, 3).images.transpose(0, 2, 3, 1), train, test)
    assert again == scores
    copies = evaluate(train.images[:150].transpose(0, 2, 3, 1), train, test)
    assert copies.value.copies == 1 and copies.value.copy_ratio == 0


def test_arrays_serve_as_data_sets():
    train, test = noise(100, 1), noise(80, 2)
    labels, asked = np.arange(80) % 10, np.arange(60) % 10
    scores = evaluate(lambda n: (noise(60, 3), asked), train, test, labels=labels, features="digits", copies=False)
    assert scores.value.label_accuracy is not None and scores.floor.label_accuracy is not None
    assert scores.value.copies is None and scores.protocol.training is None
    assert scores.value.frechet == pytest.approx(
        frechet(load_features("digits")(noise(60, 3)).features, load_features("digits")(test).features), rel=1e-6
    )


def test_more_samples_than_asked_for_are_drawn_with_their_labels():
    train, test = noise(100, 1), noise(80, 2)
    samples = noise(500, 3) // 8
    samples[::2, 4:24, 13:16] = 255  # a one
    samples[1::2, 5:24, 8:20] = 255  # a nought
    samples[1::2, 8:21, 11:17] = 0
    asked = load_features("digits")(samples).probabilities.argmax(1)
    assert len(set(asked.tolist())) > 1
    scores = evaluate(samples, train, test, sample_labels=asked, n=50, features="digits")
    assert (scores.protocol.samples, scores.protocol.real, scores.protocol.training) == (50, 50, 100)
    assert scores.value.label_accuracy == 1


def test_what_cannot_be_judged_is_said():
    train, test, good = noise(100, 1), noise(80, 2), noise(60, 3)
    floats = good / np.float32(255)
    broken = floats.copy()
    broken[3] = np.nan
    for samples, why in (
        (good[:5], "5 generated images are too few"),
        (good[:, :20], "20x28x1, the data's 28x28x1"),
        (good.transpose(0, 3, 1, 2), "N, H, W, C"),
        (floats, "must be uint8"),
        (broken, "NaN"),
        ((good, np.zeros(3, int)), "3 labels for 60"),
    ):
        with pytest.raises(UserError, match=why) as error:
            evaluate(lambda n, s=samples: s, train, test)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="two splits of one data set"):
        evaluate(good, noise(50, shape=(8, 8, 1)), test)
    with pytest.raises(UserError, match="2 labels for 80 test images"):
        evaluate(good, train, test, labels=np.zeros(2, int))


def test_the_package_imports_without_torch():
    import subprocess
    import sys

    code = "import sys, elegan.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
