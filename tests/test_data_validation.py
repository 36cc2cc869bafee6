"""The part of the training images that is held out to choose by."""

from __future__ import annotations

import numpy as np
import pytest

from conftest import make_npz
from elegan import UserError, open_data
from elegan.data.inspect import pixel_keys


def test_validation_divides_the_training_images(tmp_path):
    path = make_npz(tmp_path / "blobs.npz", count=400)
    whole = open_data(path, "train")
    train, validation = (open_data(path, split, validation=0.25) for split in ("train", "validation"))
    a, b = set(pixel_keys(train.images)), set(pixel_keys(validation.images))
    assert not a & b
    assert a | b == set(pixel_keys(whole.images))
    assert 0.15 < len(validation) / len(whole) < 0.35
    assert open_data(path, "test", validation=0.25).fingerprint == open_data(path, "test").fingerprint
    assert len({whole.fingerprint, train.fingerprint, validation.fingerprint}) == 3
    assert validation.split == "validation"


def test_labels_and_attributes_stay_with_their_images():
    whole = open_data("garments", "train", limit=300)
    place = {key: i for i, key in enumerate(pixel_keys(whole.images))}
    for split in ("train", "validation"):
        part = open_data("garments", split, limit=300, validation=0.3)
        rows = [place[key] for key in pixel_keys(part.images)]
        np.testing.assert_array_equal(part.labels, whole.labels[rows])
        np.testing.assert_array_equal(part.attributes["colour"], whole.attributes["colour"][rows])


def test_validation_does_not_follow_the_test_side(tmp_path):
    """Both are chosen by content: were it by the same hash, the lowest tenth would be gone already."""
    path = make_npz(tmp_path / "blobs.npz", count=600)
    assert 20 < len(open_data(path, "validation", validation=0.1)) < 90


@pytest.mark.parametrize(("share", "word"), [(0.0, "give one"), (0.6, "0 to 0.5"), (-0.1, "0 to 0.5")])
def test_impossible_shares_are_refused(data, share, word):
    with pytest.raises(UserError, match=word):
        open_data(data, "validation", validation=share)
