"""The drawn garments: determinism, balance, attributes that are true of the pixels, and that they look different."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys

import numpy as np
import pytest

from elegan.data import open_data
from elegan.data.drawing import keyed_uniform, spline, wave
from elegan.data.garments import CATEGORIES, COLOURS, STUDIO, draw_garments, garment_attributes
from elegan.data.idx import FASHION_CLASSES
from elegan.errors import UserError

NAMES = list(COLOURS)


def of(category: int, n: int, seed: int = 0) -> np.ndarray:
    """The indices of the first n images of a category."""
    return np.flatnonzero(garment_attributes(np.arange(n * 20), seed)["category"] == category)[:n]


def cover(index: np.ndarray, size: tuple[int, int] = (96, 96), **attributes: np.ndarray) -> np.ndarray:
    """float (n, H, W): how much of each pixel the garment covers."""
    drawn = draw_garments(index, size, 4, attributes=attributes or None)
    return drawn[:, 3] / np.float32(255)


def test_an_image_depends_on_seed_split_and_index_alone():
    together = draw_garments(np.arange(60), (28, 28), 3)
    for order in (np.arange(60)[::-1], np.array([7]), np.array([3, 3, 59, 12])):
        np.testing.assert_array_equal(draw_garments(order, (28, 28), 3), together[order])
    assert (draw_garments(np.arange(60), (28, 28), 3, seed=1) != together).any(axis=(1, 2, 3)).all()
    assert (draw_garments(np.arange(60), (28, 28), 3, split="test") != together).any(axis=(1, 2, 3)).all()


def test_the_drawing_is_the_same_on_every_machine():
    """Only IEEE-exact operations are used. Whoever changes the drawing on purpose updates the digest."""
    images = draw_garments(np.arange(200), (28, 28), 1)
    attributes = garment_attributes(np.arange(200))
    assert hashlib.sha256(images.tobytes()).hexdigest()[:16] == PIXELS
    assert hashlib.sha256(attributes["category"].tobytes()).hexdigest()[:16] == CATEGORY


PIXELS = "8bbd995a957beb47"
CATEGORY = "8adb4420be7b0dcb"


def test_a_prefix_of_more_is_the_same():
    few, many = open_data("garments", limit=30), open_data("garments", limit=70)
    np.testing.assert_array_equal(few.images, many.images[:30])
    for name, values in few.attributes.items():
        np.testing.assert_array_equal(values, many.attributes[name][:30])


def test_every_ten_images_hold_every_category_in_shuffled_order():
    labels = garment_attributes(np.arange(1000))["category"].reshape(100, 10)
    assert (np.sort(labels, 1) == np.arange(10)).all()
    assert len({tuple(row) for row in labels}) > 90
    assert CATEGORIES == FASHION_CLASSES


def test_defaults_and_shapes():
    data = open_data("garments", limit=20)
    assert data.images.shape == (20, 1, 28, 28) and data.class_names == FASHION_CLASSES
    assert data.labels is not None and (data.labels == data.attributes["category"]).all()
    assert open_data("garments", "test", limit=5, size=(40, 24), channels=3).images.shape == (5, 3, 40, 24)
    assert open_data("garments", "test").images.shape == (4000, 1, 28, 28)
    assert all(len(values) == 20 for values in data.attributes.values())


def test_grey_stands_on_black_rgb_on_studio_grey():
    index = np.arange(40)
    clear = cover(index, (28, 28)) == 0
    assert (draw_garments(index)[:, 0][clear] == 0).all()
    rgb = draw_garments(index, channels=3).transpose(0, 2, 3, 1)[clear]
    assert np.abs(rgb / 255 - np.array(STUDIO)).max() < 0.01
    assert clear.mean() > 0.3 and (~clear).mean() > 0.2


@pytest.mark.parametrize("category", range(10))
def test_the_colour_is_the_colour_of_the_cloth(category):
    index = of(category, 20)
    for name in ("red", "blue", "yellow"):
        k = np.full(len(index), NAMES.index(name))
        drawn = draw_garments(index, (48, 48), 3, attributes={"colour": k, "accent": k}) / 255
        mask = cover(index, (48, 48)) == 1
        pixels = drawn.transpose(0, 2, 3, 1)[mask]
        expected = np.array(COLOURS[name]) / 255
        typical = np.median(pixels / pixels.max(1, keepdims=True), axis=0)  # shading changes brightness only
        assert np.abs(typical - expected / expected.max()).max() < 0.06


def test_position_and_scale_are_where_the_garment_is():
    index = np.arange(40)
    n = len(index)
    zero, one = np.zeros(n, np.float32), np.full(n, 0.8, np.float32)
    base = cover(index, x=zero, y=zero, scale=one)
    moved = cover(index, x=zero + 0.0625, y=zero - 0.125, scale=one)  # 6 pixels right, 12 up, of 96
    np.testing.assert_allclose(moved[:, :-12, 6:], base[:, 12:, :-6], atol=0.02)
    smaller = cover(index, x=zero, y=zero, scale=one / 2)
    ratio = smaller.sum((1, 2)) / base.sum((1, 2))
    np.testing.assert_allclose(ratio, 0.25, atol=0.03)


def test_garments_stay_in_the_picture():
    a = cover(np.arange(600), (48, 48))
    edge = np.concatenate([a[:, 0], a[:, -1], a[:, :, 0], a[:, :, -1]], axis=1)
    assert (edge > 0.5).mean() < 0.02


@pytest.mark.parametrize("category", [0, 2, 3, 4, 6])
def test_longer_sleeves_cover_more(category):
    index = of(category, 30)
    areas = [
        cover(index, sleeve_length=np.full(len(index), length, np.float32)).sum((1, 2))
        for length in (0.0, 0.3, 0.6, 1.0)
    ]
    for shorter, longer in itertools.pairwise(areas):
        assert (longer > shorter * 1.01).all()


def test_stripes_are_counted_true():
    """Along the middle of a striped t-shirt, the accent appears as many times as `stripe_count` says."""
    index = of(0, 60)
    n = len(index)
    black, white = np.full(n, NAMES.index("black")), np.full(n, NAMES.index("white"))
    for count in (2, 3, 5):
        attributes = {"colour": black, "accent": white, "stripes": np.ones(n, int), "stripe_count": np.full(n, count)}
        drawn = draw_garments(index, (128, 128), 1, attributes=attributes)[:, 0]
        side = drawn[:, :, 64 + 12] > 130  # a column beside the neck opening
        starts = (side[:, 1:] & ~side[:, :-1]).sum(1)
        assert (starts == count).mean() > 0.8, (count, np.bincount(starts))
    plain = draw_garments(
        index, (128, 128), 1, attributes={"colour": black, "accent": white, "stripes": np.zeros(n, int)}
    )
    assert (plain[:, 0, 60:100, 64 + 12] < 130).all()


def test_attributes_are_as_documented():
    a = garment_attributes(np.arange(5000))
    assert a["colour"].min() == 0 and a["colour"].max() == len(COLOURS) - 1
    assert (a["colour"] != a["accent"]).all()
    assert ((a["stripe_count"] > 0) == (a["stripes"] > 0)).all() and a["stripes"].max() == 3
    bare = ~np.isin(a["category"], [0, 2, 3, 4, 6])
    assert (a["sleeve_length"][bare] == 0).all() and a["sleeve_length"].max() <= 1
    assert a["sleeve_length"][a["category"] == 2].min() > 0.8
    assert a["sleeve_length"][a["category"] == 0].max() < 0.45
    assert 0.8 < a["scale"].min() < a["scale"].max() < 1.1 and np.abs(a["x"]).max() < 0.15


def test_categories_can_be_told_apart():
    """A linear rule fitted on 2,000 tiny images recognises most of 1,000 others: shapes do not melt together."""
    train, test = open_data("garments", limit=2000), open_data("garments", "test", limit=1000)
    assert train.labels is not None and test.labels is not None

    def features(images: np.ndarray) -> np.ndarray:
        lit = (images[:, 0] > 20).astype(np.float64).reshape(len(images), -1)
        grey = (images[:, 0] / 255).reshape(len(images), -1)
        return np.concatenate([lit, grey, np.ones((len(images), 1))], axis=1)

    x, y = features(train.images), np.eye(10)[train.labels]
    weights = np.linalg.solve(x.T @ x + 10 * np.eye(x.shape[1]), x.T @ y)
    right = (features(test.images) @ weights).argmax(1) == test.labels
    assert right.mean() > 0.85
    assert min(right[test.labels == c].mean() for c in range(10)) > 0.6


def test_drawing_is_smooth_not_aliased():
    """Drawn large and reduced, or drawn small: nearly the same picture."""
    index = np.arange(40)
    large = draw_garments(index, (112, 112), 1).astype(float)
    reduced = large.reshape(40, 28, 4, 28, 4).mean((2, 4))
    difference = np.abs(reduced - draw_garments(index, (28, 28), 1)[:, 0]).mean((1, 2))
    assert difference.max() < 12 and difference.mean() < 5


def test_keyed_numbers_are_uniform_and_independent():
    index = np.arange(20_000)
    a, b = keyed_uniform(0, 1, index, "a"), keyed_uniform(0, 1, index, "b")
    others = [keyed_uniform(1, 1, index, "a"), keyed_uniform(0, 2, index, "a"), b]
    assert abs(a.mean() - 0.5) < 0.01 and abs(a.std() - 12**-0.5) < 0.01 and a.min() >= 0 and a.max() < 1
    assert all(abs(np.corrcoef(a, other)[0, 1]) < 0.03 for other in others)
    assert abs(np.corrcoef(a[1:], a[:-1])[0, 1]) < 0.03
    np.testing.assert_array_equal(keyed_uniform(0, 1, index[500:510], "a"), a[500:510])


def test_curves():
    t = np.linspace(-1, 2, 301, dtype=np.float32)[None, :, None]
    y = spline(t, [0.0, 0.4, 1.0], [1.0, 3.0, -1.0])[0, :, 0]
    at = {round(float(v), 2): k for k, v in enumerate(t[0, :, 0])}
    np.testing.assert_allclose(
        [y[at[-1.0]], y[at[0.0]], y[at[0.4]], y[at[1.0]], y[at[2.0]]], [1, 1, 3, -1, -1], atol=1e-3
    )
    assert np.abs(np.diff(y)).max() < 0.15  # continuous
    np.testing.assert_allclose(wave(np.array([0.0, 0.25, 0.5, 0.75, 1.25, -0.25])), [0, 1, 0, -1, 1, -1], atol=1e-6)


def test_a_split_of_that_name_only():
    with pytest.raises(UserError):
        open_data("garments", "validation")


def test_data_never_needs_torch():
    code = "import sys, elegan.data; elegan.data.open_data('garments', limit=10); print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


@pytest.mark.parametrize("split", ["train", "test", "validation"])
def test_labels_can_be_ignored(split):
    options = {"validation": 0.2} if split == "validation" else {}
    named = open_data("garments", split, size=(16, 16), limit=40, **options)
    plain = open_data("garments", split, size=(16, 16), limit=40, labels="none", **options)
    assert named.labels is not None
    assert plain.labels is None
    assert plain.class_names == []
    assert plain.classes == 0
    assert np.array_equal(plain.images, named.images)
    assert plain.fingerprint != named.fingerprint


def test_training_ignores_labels_where_it_is_told_to(tmp_path):
    import elegan

    run = elegan.train("tiny", "garments", tmp_path / "run", steps=2, show=False, **{"data.labels": "ignore"})
    assert not run.model.conditional
    assert run.sample(2).labels is None
