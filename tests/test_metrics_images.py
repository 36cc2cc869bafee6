"""Metrics of pixels and labels: copies, sliced Wasserstein, descriptors, class shares."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from elegan.data import open_data
from elegan.errors import UserError
from elegan.metrics import CopyTest, diversity, entropy, histogram, label_accuracy, sliced_wasserstein
from elegan.metrics.descriptors import descriptors
from elegan.metrics.memorisation import TrainingIndex, flatten


def blobs(n, seed, shape=(12, 12, 1)):
    """Smooth random pictures uint8 (n, *shape)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (n, 4, 4, shape[2]), dtype=np.uint8)
    pictures = [[Image.fromarray(c[..., i]).resize(shape[1::-1]) for i in range(shape[2])] for c in coarse]
    return np.stack([np.stack([np.asarray(p) for p in channels], -1) for channels in pictures])


def fashion(split, start, stop):
    try:
        data = open_data("fashion-mnist", split=split, download=False)
    except UserError as error:
        pytest.skip(f"Fashion-MNIST is not on disk: {error}")
    return data.images[start:stop].transpose(0, 2, 3, 1)


def test_nearest_training_images_are_the_nearest():
    train, queries = blobs(300, 1), blobs(40, 2)
    found = TrainingIndex(train).nearest(queries, k=3)
    gaps = queries[:, None].astype(float) - train[None].astype(float)
    distances = np.sqrt((gaps**2).sum((2, 3, 4)))
    np.testing.assert_allclose(found.distance, np.sort(distances, 1)[:, :3], rtol=1e-9)
    assert (found.row[:, 0] == distances.argmin(1)).all()
    own = TrainingIndex(train).own_nearest(np.array([5, 0, 5]))
    among = np.sqrt(((train[[5, 0, 5], None].astype(float) - train[None]) ** 2).sum((2, 3, 4)))
    np.testing.assert_allclose(own, np.sort(among, 1)[:, 1], rtol=1e-9)


def test_planted_copies_are_found_and_blur_is_not_mistaken_for_them():
    train, test, unseen = fashion("train", 0, 8000), fashion("test", 0, 2000), fashion("test", 2000, 4000)
    judge, rng = CopyTest(train, test), np.random.default_rng(0)
    assert judge.floor.ratio == 1 and judge.floor.nearer == 0.5 and judge.floor.copies <= 0.001

    honest = judge(unseen)
    assert honest.copies < 0.005 and honest.ratio == pytest.approx(1, abs=0.05)
    assert honest.authenticity == pytest.approx(judge.floor.authenticity, abs=0.05)

    planted, rows = rng.choice(2000, 200, replace=False), rng.choice(8000, 200, replace=False)
    for noise in (0, 6):
        mixed = unseen.copy()
        mixed[planted] = (train[rows] + rng.normal(0, noise, (200, 28, 28, 1))).clip(0, 255).astype(np.uint8)
        found = judge(mixed)
        assert 0.095 <= found.copies <= 0.105, noise
        assert np.isin(found.suspects[:200], planted).mean() >= 0.95
        assert (found.originals[planted] == rows).mean() >= 0.95

    blurred = np.stack([Image.fromarray(i[..., 0]).filter(ImageFilter.GaussianBlur(1)) for i in unseen])[..., None]
    soft = judge(blurred)
    assert soft.ratio < 0.9  # nearer to the training set, as smooth samples are,
    assert soft.copies < 0.005  # but nearer to all of it

    copied = judge(train[:500])
    assert (copied.ratio, copied.nearer, copied.copies, copied.authenticity) == (0, 1, 1, 0)


def test_a_training_image_that_occurs_twice_does_not_hide_its_copies():
    train = np.concatenate([blobs(100, 1), blobs(100, 1)])
    assert CopyTest(train, blobs(50, 2))(train[:30]).copies == 1
    leaking = np.concatenate([blobs(50, 2), train[40:45]])  # nor does a test split that holds training images
    assert CopyTest(train, leaking)(train[:30]).copies == 1


def test_large_colour_images_are_averaged_before_the_search():
    train, test = blobs(60, 1, (64, 48, 3)), blobs(30, 2, (64, 48, 3))
    assert flatten(train).shape == (60, 21 * 16 * 3)
    np.testing.assert_allclose(flatten(train)[7, :3], train[7, :3, :3].mean((0, 1)) - 128, rtol=1e-5)
    mixed = np.concatenate([train[:10], test[:20]])
    found = CopyTest(train, test)(mixed)
    assert set(found.suspects[:10]) == set(range(10))
    with pytest.raises(UserError, match="shape"):
        CopyTest(train, test)(mixed[:, :32])


def test_sliced_wasserstein_of_a_shift_is_its_closed_form():
    """Flat patches of 49 equal values, moved by s deviations: |s| times the mean of |sum of a unit vector|."""
    rng = np.random.default_rng(0)
    level = rng.normal(100, 20, (500, 1, 1, 1)).clip(0, 215)
    flat = np.broadcast_to(level, (500, 16, 16, 1)).astype(np.uint8)
    found = sliced_wasserstein(flat + np.uint8(40), flat, patches=4, directions=2000)
    assert found.levels[-1] == pytest.approx(40 / flat.std() * np.sqrt(2 / np.pi), rel=0.05)
    assert found.levels[0] == pytest.approx(0, abs=1e-3)  # no detail at all on either side


@pytest.mark.parametrize("shape", [(28, 28, 1), (40, 64, 3), (64, 33, 4), (9, 16, 1), (6, 6, 1)])
def test_sliced_wasserstein_grows_with_the_damage_for_any_shape(shape):
    a, b = blobs(300, 1, shape), blobs(300, 2, shape)
    rng = np.random.default_rng(0)
    damaged = [(b + rng.normal(0, s, b.shape)).clip(0, 255).astype(np.uint8) for s in (0, 15, 60)]
    found = [sliced_wasserstein(x, a).mean for x in damaged]
    assert 0 < found[0] < found[1] < found[2]
    assert found[0] == sliced_wasserstein(b, a).mean  # the same seed, the same number
    darker = (b * 0.5).astype(np.uint8)
    assert sliced_wasserstein(darker, a).mean > 3 * found[0]  # contrast is not normalised away


@pytest.mark.parametrize("shape", [(28, 28, 1), (40, 64, 3), (64, 33, 4), (5, 3, 1)])
def test_descriptors_have_their_width_and_depend_on_one_image_alone(shape):
    images = blobs(260, 1, shape)
    found = descriptors(images)
    assert found.shape == (260, 384 + 32 * shape[2]) and found.dtype == np.float32 and np.isfinite(found).all()
    np.testing.assert_allclose(descriptors(images[[255, 3]]), found[[255, 3]], atol=1e-6)
    turned = descriptors(images[:, :, ::-1])
    assert np.abs(turned - found).mean() > 1e-3  # directions and places are told apart
    edges, negative = found[:, -384:], descriptors(255 - images)[:, -384:]
    assert np.abs(negative - edges).mean() > 1e-3  # and from bright to dark is not from dark to bright


def test_class_shares_entropy_and_accuracy():
    assert histogram([0, 0, 2, 2], 4).tolist() == [0.5, 0, 0.5, 0]
    assert entropy([0.25] * 4) == pytest.approx(2) and entropy([1, 0, 0]) == 0
    p = np.eye(3)[[0, 1, 2, 2]] * 0.7 + 0.1
    assert label_accuracy(p, [0, 1, 1, 2]) == 0.75
    for labels, why in (([0, 1], "2 labels for 4"), ([0, 1, 2, 3], "0 to 3"), ([0.5] * 4, "whole"), ([-1] * 4, "-1")):
        with pytest.raises(UserError, match=why):
            label_accuracy(p, labels)


def test_diversity_is_the_root_mean_square_distance_of_pairs():
    x = np.random.default_rng(0).normal(size=(30, 4))
    gaps = ((x[:, None] - x[None]) ** 2).sum(2)
    assert diversity(x) == pytest.approx(np.sqrt(gaps.sum() / (30 * 29)))
    apart = np.concatenate([x, x + 100])
    assert diversity(apart, np.repeat([0, 1], 30)) == pytest.approx(diversity(x))  # within classes only
    assert diversity(np.ones((5, 2))) == 0
    assert diversity(x, np.arange(30)) == 0


def test_what_is_found_of_the_real_images_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ELEGAN_CACHE", str(tmp_path))
    train, test, fresh = blobs(300, 1), blobs(60, 2), blobs(50, 3)
    judges = [CopyTest(train, test, keep=True) for _ in range(2)] + [CopyTest(train, test)]
    for kept, plain in zip(judges[0](fresh), judges[2](fresh), strict=True):
        np.testing.assert_equal(kept, plain)
    (entry,) = (tmp_path / "features").glob("*.safetensors")
    monkeypatch.setattr(TrainingIndex, "nearest", None)  # nothing is looked for a second time ...
    for kept, plain in zip(judges[1].floor, judges[2].floor, strict=True):
        np.testing.assert_equal(kept, plain)
    monkeypatch.undo()

    monkeypatch.setenv("ELEGAN_CACHE", str(tmp_path))
    other = CopyTest(train[1:], test, keep=True)  # ... but other images are
    assert other.floor.originals.max() < 299 and len(list((tmp_path / "features").iterdir())) == 2
    entry.write_bytes(entry.read_bytes()[:-9])
    np.testing.assert_equal(CopyTest(train, test, keep=True).floor.ratios, judges[2].floor.ratios)
    assert "was damaged" in capsys.readouterr().err
    monkeypatch.setenv("ELEGAN_CACHE", str(tmp_path / "off"))
    monkeypatch.setenv("ELEGAN_FEATURE_CACHE", "off")
    CopyTest(train, test, keep=True).floor
    assert not (tmp_path / "off").exists()
