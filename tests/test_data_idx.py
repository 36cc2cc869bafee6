"""The IDX reader: exactly what the header promises, or a `UserError` that names the file; and the real data."""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elegan.data import idx, open_data
from elegan.errors import UserError


def idx_bytes(array: np.ndarray) -> bytes:
    sizes = b"".join(s.to_bytes(4, "big") for s in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def zipped(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1, mtime=0) as f:
        f.write(data)
    return buffer.getvalue()


def images_of(n: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 7, 6), dtype=np.uint8)


@pytest.mark.parametrize("pack", [bytes, zipped])
def test_reads_what_was_written(tmp_path, pack):
    array = images_of()
    path = tmp_path / "some-idx3-ubyte"
    path.write_bytes(pack(idx_bytes(array)))
    read, digest = idx.read_idx(path, 3)
    np.testing.assert_array_equal(read, array)
    assert digest == hashlib.sha256(idx_bytes(array)).hexdigest()  # of the content, whatever the container


GOOD = idx_bytes(images_of())
BAD_FILES = {
    "empty": (b"", "not an IDX file"),
    "magic": (b"\x01" + GOOD[1:], "magic"),
    "type": (GOOD[:2] + b"\x0d" + GOOD[3:], "0x0d is not supported"),
    "dimensions": (idx_bytes(np.arange(9, dtype=np.uint8)), "1 dimensions"),
    "header cut": (GOOD[:9], "inside its header"),
    "cut": (GOOD[:-1], "cut short"),
    "trailing": (GOOD + b"\0", "after its"),
    "no values": (idx_bytes(np.zeros((0, 7, 6), np.uint8)), "cannot be"),
    "huge": (bytes([0, 0, 8, 3]) + b"\xff" * 12 + b"\0", "cannot be"),
    "promises 8 GiB": (bytes([0, 0, 8, 3, 0, 0, 32, 0, 0, 0, 4, 0, 0, 0, 4, 0]) + b"\0", "cut short"),
    "gzip cut": (zipped(GOOD)[:-9], "gzip"),
    "gzip checksum": (zipped(GOOD)[:-8] + b"\0" * 8, "gzip"),
    "gzip trailing": (zipped(GOOD) + b"junk", "gzip"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_file_is_one_line_that_names_it(tmp_path, name):
    content, reason = BAD_FILES[name]
    path = tmp_path / "bad-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(UserError, match=reason) as caught:
        idx.read_idx(path, 3)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_file_and_folder_instead_of_file(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        idx.read_idx(tmp_path / "absent")
    with pytest.raises(UserError, match="cannot be read"):
        idx.read_idx(tmp_path)


def check_array_or_user_error(path: Path, data: bytes) -> None:
    """The property: an array that is the file's own bytes, or a one-line `UserError`; nothing else."""
    path.write_bytes(data)
    try:
        array, _ = idx.read_idx(path)
    except UserError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return
    plain = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    assert plain == idx_bytes(array) and array.size == math.prod(array.shape) > 0


fuzz = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fuzz
@given(st.one_of(st.binary(max_size=64), st.binary(max_size=48).map(lambda b: b"\0\0\x08" + b)))
def test_fuzz_random_bytes(tmp_path, data):
    check_array_or_user_error(tmp_path / "fuzz", data)


@fuzz
@given(st.binary(max_size=64))
def test_fuzz_random_gzip(tmp_path, data):
    check_array_or_user_error(tmp_path / "fuzz", zipped(data))
    check_array_or_user_error(tmp_path / "fuzz", b"\x1f\x8b" + data)


@fuzz
@given(
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 299), st.integers(0, 255)), max_size=4),
    st.integers(0, 300),
    st.binary(max_size=3),
)
def test_fuzz_mutated_valid_files(tmp_path, gz, changes, keep, tail):
    data = bytearray(zipped(GOOD) if gz else GOOD)
    for position, value in changes:
        data[position % len(data)] = value
    check_array_or_user_error(tmp_path / "fuzz", bytes(data[:keep]) + tail)


@fuzz
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_fuzz_valid_files_always_read(tmp_path, shape, random):
    array = np.frombuffer(random.randbytes(math.prod(shape)), np.uint8).reshape(shape)
    path = tmp_path / "valid"
    for pack in (bytes, zipped):
        path.write_bytes(pack(idx_bytes(array)))
        np.testing.assert_array_equal(idx.read_idx(path, len(shape))[0], array)


# ---- folders of IDX files ----------------------------------------------------------------------------------


def write_pair(folder: Path, split: str, images: np.ndarray, labels: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in zip(idx.FILES[split], (images, labels), strict=True):
        (folder / f"{name}.gz").write_bytes(zipped(idx_bytes(array)))


def test_a_folder_of_idx_files_is_data(tmp_path):
    labels = np.array([2, 0, 1, 1, 0], np.uint8)
    write_pair(tmp_path, "train", images_of(), labels)
    write_pair(tmp_path, "test", images_of(seed=1), labels)
    data = open_data(tmp_path, "test")
    np.testing.assert_array_equal(data.images[:, 0], images_of(seed=1))
    assert data.labels is not None and data.labels.dtype == np.int64 and data.labels.tolist() == labels.tolist()
    assert data.class_names == ["0", "1", "2"] and (data.height, data.width, data.channels) == (7, 6, 1)


def test_without_a_test_pair_a_tenth_is_held_out(tmp_path):
    images = images_of(300)
    write_pair(tmp_path, "train", images, np.zeros(300, np.uint8))
    train, test = open_data(tmp_path), open_data(tmp_path, "test")
    sides = [{i.tobytes() for i in d.images} for d in (train, test)]
    assert not sides[0] & sides[1] and sides[0] | sides[1] == {i.tobytes() for i in images}
    assert 10 <= len(test) <= 60


def test_images_and_labels_must_match_in_number(tmp_path):
    write_pair(tmp_path, "train", images_of(5), np.zeros(4, np.uint8))
    write_pair(tmp_path, "test", images_of(5), np.zeros(5, np.uint8))
    with pytest.raises(UserError, match="5 train images but 4 labels"):
        open_data(tmp_path)


def test_labels_missing(tmp_path):
    write_pair(tmp_path, "train", images_of(5), np.zeros(5, np.uint8))
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match="train-labels-idx1-ubyte"):
        open_data(tmp_path)


# ---- named data: where it is looked for --------------------------------------------------------------------


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """An empty place: no data of this machine is found, nothing is downloaded."""
    monkeypatch.delenv("ELEGAN_DATA", raising=False)
    monkeypatch.setenv("ELEGAN_CACHE", str(tmp_path / "cache"))
    work = tmp_path / "here" / "project"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def tiny(monkeypatch):
    """Small stand-ins for both named data sets, with their checksums in the table; writes one into a folder."""
    content = {}
    for number, name in enumerate(("fashion-mnist", "mnist")):
        images, labels = images_of(4, seed=number), np.array([number, 1, 2, 3], np.uint8)
        content[name] = (images, labels)
        table = dict(idx.SHA256[name])
        for split in idx.FILES:
            for file, array in zip(idx.FILES[split], (images, labels), strict=True):
                table[file] = hashlib.sha256(idx_bytes(array)).hexdigest()
        monkeypatch.setitem(idx.SHA256, name, table)

    def put(name: str, folder: Path) -> np.ndarray:
        for split in idx.FILES:
            write_pair(folder, split, *content[name])
        return content[name][0]

    return put


@pytest.mark.parametrize("place", ["data", "../shared/data", "../../cache/data"])
@pytest.mark.parametrize("below", ["fashion-mnist", "FashionMNIST/raw", "."])
def test_search_order_finds_each_place(alone, tiny, place, below):
    images = tiny("fashion-mnist", alone / place / below)
    data = open_data("fashion-mnist", download=False)
    np.testing.assert_array_equal(data.images[:, 0], images)
    assert data.class_names[9] == "ankle boot" and data.name == "fashion-mnist"


def test_elegan_data_comes_first(alone, tiny, monkeypatch):
    tiny("mnist", alone / "elsewhere" / "mnist")
    (alone / "data" / "mnist").mkdir(parents=True)
    for split in idx.FILES:  # would be refused, if it were read
        write_pair(alone / "data" / "mnist", split, images_of(2), np.zeros(2, np.uint8))
    with pytest.raises(UserError, match="SHA-256"):
        open_data("mnist", download=False)
    monkeypatch.setenv("ELEGAN_DATA", "elsewhere")
    assert len(open_data("mnist", download=False)) == 4


def test_the_other_data_set_of_the_same_file_names_is_passed_over(alone, tiny):
    tiny("mnist", alone / "data")
    with pytest.raises(UserError, match="ELEGAN_DATA"):
        open_data("fashion-mnist", download=False)
    images = tiny("fashion-mnist", alone.parent / "shared" / "data")
    np.testing.assert_array_equal(open_data("fashion-mnist", download=False).images[:, 0], images)


def test_altered_content_is_refused_with_both_remedies(alone, tiny):
    folder = alone / "data" / "fashion-mnist"
    images = tiny("fashion-mnist", folder).copy()
    images[0, 0, 0] ^= 1
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(zipped(idx_bytes(images)))
    with pytest.raises(UserError, match=r"train-images.*delete it.*--data"):
        open_data("fashion-mnist", download=False)
    assert len(open_data(folder)) == 4  # as a folder of anyone's IDX files it is fine


# ---- the real data -----------------------------------------------------------------------------------------


def real(name: str) -> Path:
    folder = idx.find_named(name, "train")
    if folder is None or idx.find_named(name, "test") is None:
        pytest.skip(f"the real {name} is not on this machine (set ELEGAN_DATA to have it tested)")
    return folder


@pytest.mark.parametrize(
    ("name", "mean", "first"), [("fashion-mnist", 72.94, [9, 0, 0, 3, 0]), ("mnist", 33.32, [5, 0, 4, 1, 9])]
)
def test_real_data(name, mean, first):
    real(name)
    train, test = open_data(name), open_data(name, "test")
    assert (len(train), len(test)) == (60_000, 10_000) and train.images.shape[1:] == (1, 28, 28)
    assert train.images.mean() == pytest.approx(mean, abs=0.01)  # the published means, times 255
    assert train.labels is not None and train.labels[:5].tolist() == first
    assert train.classes == 10 and min(test.counts.values()) > 800
    assert train.fingerprint != test.fingerprint


def test_real_folder_by_path_knows_its_class_names(tmp_path):
    folder = real("fashion-mnist")
    for file in idx.FILES["test"]:
        found = idx.find_file(folder, file)
        assert found is not None
        shutil.copy(found, tmp_path)
    data = open_data(tmp_path, "test", limit=100, size=32, channels=3)
    assert data.class_names == idx.FASHION_CLASSES and data.images.shape == (100, 3, 32, 32)
