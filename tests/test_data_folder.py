"""Folders, zips and npz files of images: pixels, labels, splits, the cache, and bad input."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from elegan.data import Dataset, open_data
from elegan.data import folder as folder_module
from elegan.data.fit import Fit, fit_array, fit_image, parse_size
from elegan.data.holdout import in_test
from elegan.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("ELEGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "images"


def picture(seed: int, height: int = 8, width: int = 8, mode: str = "RGB") -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels, mode if channels == 2 else None)


def write(path: Path, image: Image.Image, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def fill(root: Path, n: int = 12, names: tuple[str, ...] = ("bag", "coat", "dress"), **kind) -> Path:
    """`n` images in class folders, in turn."""
    for i in range(n):
        write(root / names[i % len(names)] / f"{i:03}.png", picture(i, **kind))
    return root


def zip_of(root: Path, target: Path, inside: str = "") -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(root.rglob("*")):
            if path.is_file():
                archive.write(path, inside + path.relative_to(root).as_posix())
    return target


def both(source: Path, **options) -> tuple[Dataset, Dataset]:
    return open_data(source, "train", **options), open_data(source, "test", **options)


def by_content(data: Dataset) -> dict[bytes, str | None]:
    """Pixels -> class name, independent of the order."""
    names = [None] * len(data) if data.labels is None else [data.class_names[k] for k in data.labels]
    return {image.tobytes(): name for image, name in zip(data.images, names, strict=True)}


# ---- pixels ------------------------------------------------------------------------------------------------


def test_pixels_of_small_equal_images_are_kept_exactly(tmp_path):
    root = fill(tmp_path / "photos", height=10, width=6)
    train, test = both(root)
    assert train.images.shape[1:] == test.images.shape[1:] == (3, 10, 6)
    expected = {
        np.asarray(picture(i, 10, 6)).transpose(2, 0, 1).tobytes(): ("bag", "coat", "dress")[i % 3] for i in range(12)
    }
    assert by_content(train) | by_content(test) == expected
    assert len(train) + len(test) == 12 and train.class_names == ["bag", "coat", "dress"]
    assert train.images.dtype == np.uint8


def test_a_zip_gives_the_same_as_its_folder(tmp_path):
    root = fill(tmp_path / "photos")
    for inside in ("", "export/photos/"):
        archive = zip_of(root, tmp_path / "photos.zip", inside)
        for split in ("train", "test"):
            assert by_content(open_data(archive, split)) == by_content(open_data(root, split))


def test_large_and_unequal_images_come_to_64(tmp_path):
    write(tmp_path / "a" / "1.png", picture(1, 200, 150))
    write(tmp_path / "a" / "2.jpg", picture(2, 90, 300))
    write(tmp_path / "a" / "3.webp", picture(3, 70, 70))
    train, test = both(tmp_path / "a")
    assert len(train) + len(test) == 3 and train.images.shape[1:] == (3, 64, 64)
    assert any("64x64" in note for note in train.notes)


@pytest.mark.parametrize(("size", "shape"), [(16, (16, 16)), ("12x20", (12, 20)), ((9, 5), (9, 5)), ("24", (24, 24))])
def test_size_is_height_by_width(tmp_path, size, shape):
    assert open_data(fill(tmp_path / "x"), size=size).images.shape[2:] == shape


@pytest.mark.parametrize("size", [0, "x", "3x", (1, 2, 3), 5000, True, "-4", "12x20x3"])
def test_bad_sizes(size):
    with pytest.raises(UserError, match="HEIGHTxWIDTH"):
        parse_size(size)


def halves() -> Image.Image:
    """40 wide, 20 high: red | green left half, blue right half, in thirds of the width's quarters."""
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :10], pixels[:, 10:30], pixels[:, 30:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    return Image.fromarray(pixels)


def test_crop_policies():
    centre = fit_image(halves(), Fit(20, 20, 3, "center"))
    assert (centre[1] == 255).all() and (centre[0] == 0).all()  # only the green middle is left
    stretched = fit_image(halves(), Fit(20, 20, 3, "stretch"))
    assert stretched[0, 10, 1] > 200 and stretched[2, 10, 18] > 200
    padded = fit_image(halves(), Fit(20, 20, 3, "pad"))
    assert (padded[:, 0] == 255).all() and (padded[:, -1] == 255).all()  # white bars above and below
    assert padded[1, 10, 10] > 250 and padded[0, 10, 1] > 200
    black = fit_image(halves(), Fit(20, 20, 3, "pad", "black"))
    assert (black[:, 0] == 0).all()
    tall = fit_image(halves().transpose(Image.Transpose.ROTATE_90), Fit(20, 20, 3, "center"))
    assert (tall[1] == 255).all()
    assert fit_image(halves().convert("RGBA"), Fit(20, 20, 4, "pad"))[3, 0].max() == 0  # RGBA pads with nothing


def test_resize_is_antialiased():
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (64, 32)))
    small = fit_image(stripes, Fit(16, 16, 1))
    assert abs(small.astype(int) - 128).max() < 12  # nearest or bilinear without a wide kernel gives 0 or 255


def test_exif_orientation_is_honoured(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: rotate by 270 degrees to show
    for i in range(3):
        write(tmp_path / "x" / f"{i}.jpg", halves().point(lambda v, i=i: max(v - i, 0)), exif=exif, quality=95)
    data = open_data(tmp_path / "x")
    assert data.images.shape[1:] == (3, 40, 20)
    assert data.images[0, 0, 2].mean() > 200 and data.images[0, 2, -3].mean() > 200  # red on top, blue below


@pytest.mark.parametrize(
    ("modes", "channels"),
    [(["L"], 1), (["RGB"], 3), (["RGBA"], 4), (["L", "RGB"], 3), (["RGBA", "RGB"], 3), (["1"], 1)],
)
def test_channels_follow_the_modes(tmp_path, modes, channels):
    for i in range(6):
        mode = modes[i % len(modes)]
        image = picture(i).convert("1") if mode == "1" else picture(i, mode=mode)
        write(tmp_path / "x" / f"{i}.png", image)
    assert open_data(tmp_path / "x").channels == channels


def test_transparency_becomes_the_background():
    clear = Image.new("RGBA", (4, 4), (200, 10, 10, 0))
    assert (fit_image(clear, Fit(4, 4, 3)) == 255).all()
    assert (fit_image(clear, Fit(4, 4, 1, background="black")) == 0).all()


def test_sixteen_bit_grey_is_scaled_not_clipped():
    deep = Image.fromarray(np.full((4, 4), 0x8080, np.uint16))
    assert (fit_image(deep, Fit(4, 4, 1)) == 0x80).all()


def test_fit_array_changes_only_what_is_asked():
    images = np.random.default_rng(0).integers(0, 256, (3, 1, 8, 8), dtype=np.uint8)
    assert fit_array(images, (8, 8), 1) is images
    rgb = fit_array(images, None, 3)
    assert rgb.shape == (3, 3, 8, 8) and (rgb[:, 2] == images[:, 0]).all()
    assert fit_array(rgb, (4, 6), 1).shape == (3, 1, 4, 6)


# ---- labels ------------------------------------------------------------------------------------------------


def flat(root: Path, n: int = 6) -> Path:
    for i in range(n):
        write(root / "images" / f"{i}.png", picture(i))
    return root


NAMES = ["hat", "belt", "hat", "sock", "belt", "hat"]
CSV_HEADER = "file_name,label\n" + "".join(f"images/{i}.png,{n}\n" for i, n in enumerate(NAMES))
LABEL_FILES = {
    "labels.csv": CSV_HEADER,
    "metadata.csv": "id,label,file_name\n" + "".join(f"{i},{n},images/{i}.png\n" for i, n in enumerate(NAMES)),
    "Labels.csv": "".join(f"images/{i}.png,{n}\n" for i, n in enumerate(NAMES)),
    "labels.json": json.dumps({f"images/{i}.png": n for i, n in enumerate(NAMES)}),
    "dataset.json": json.dumps({"labels": [[f"images/{i}.png", n] for i, n in enumerate(NAMES)]}),
    "images/labels.json": json.dumps([{"file": f"{i}.png", "class": n} for i, n in enumerate(NAMES)]),
}


@pytest.mark.parametrize("name", LABEL_FILES)
@pytest.mark.parametrize("as_zip", [False, True])
def test_label_files(tmp_path, name, as_zip):
    root = flat(tmp_path / "x")
    (root / name).write_text(LABEL_FILES[name])
    source = zip_of(root, tmp_path / "x.zip") if as_zip else root
    train, test = both(source)
    expected = {np.asarray(picture(i)).transpose(2, 0, 1).tobytes(): n for i, n in enumerate(NAMES)}
    assert by_content(train) | by_content(test) == expected
    assert train.class_names == ["belt", "hat", "sock"]


def test_stylegan_numbers_sort_by_value_and_null_means_unlabelled(tmp_path):
    root = flat(tmp_path / "x")
    (root / "dataset.json").write_text(json.dumps({"labels": [[f"images/{i}.png", [10, 9][i % 2]] for i in range(6)]}))
    assert open_data(root).class_names == ["9", "10"]
    (root / "dataset.json").write_text('{"labels": null}')
    data = open_data(root)
    assert data.labels is None and data.classes == 0


def test_a_chosen_label_file_and_none(tmp_path):
    root = fill(tmp_path / "x")
    chosen = tmp_path / "mine.csv"
    chosen.write_text("path,class\n" + "".join(f"{p.relative_to(root)},one\n" for p in sorted(root.rglob("*.png"))))
    assert open_data(root, labels=chosen).class_names == ["one"]
    assert open_data(root, labels="none").labels is None
    assert open_data(root).class_names == ["bag", "coat", "dress"]


BAD_LABELS = {
    "labels.csv": [
        ("file_name,label\nimages/0.png,a\nimages/lost.png,b\n", "'images/lost.png'"),
        ("file_name,label\nimages/0.png,a\n", "5 images have no label"),
        ("file_name,label\nimages/0.png,a\nimages/0.png,b\n", "two labels"),
        ("a,b,c\n1,2,3\n", "header"),
        ("file_name,label\nimages/0.png\n", "too few columns"),
        ("", "empty"),
    ],
    "labels.json": [
        ("{", "not valid JSON"),
        ("[1, 2]", "is not a path"),
        ('{"images/0.png": 1.5}', "is not a path"),
        ("3", "is not a path"),
        ("[" * 100_000, "not valid JSON"),
    ],
}


@pytest.mark.parametrize(("name", "content", "reason"), [(n, *c) for n, cases in BAD_LABELS.items() for c in cases])
def test_bad_label_files(tmp_path, name, content, reason):
    root = flat(tmp_path / "x")
    (root / name).write_text(content)
    with pytest.raises(UserError, match=reason) as caught:
        open_data(root)
    assert str(root) in str(caught.value) and "\n" not in str(caught.value)


def test_an_image_outside_the_class_folders_is_named(tmp_path):
    root = fill(tmp_path / "x")
    write(root / "stray.png", picture(99))
    with pytest.raises(UserError, match=r"'stray.png'.*labels='none'"):
        open_data(root)


# ---- splits ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["test", "val", "Validation"])
def test_split_folders_are_the_splits(tmp_path, other):
    fill(tmp_path / "x" / "train", 9)
    for i in range(4):
        write(tmp_path / "x" / other / ("bag", "shoe")[i % 2] / f"{i}.png", picture(100 + i))
    train, test = both(tmp_path / "x")
    assert (len(train), len(test)) == (9, 4)
    assert train.class_names == test.class_names == ["bag", "coat", "dress", "shoe"]  # one list for both sides
    assert by_content(test) == {
        np.asarray(picture(100 + i)).transpose(2, 0, 1).tobytes(): ("bag", "shoe")[i % 2] for i in range(4)
    }


def test_the_hold_out_is_a_tenth_and_stays_put(tmp_path):
    keys = [f"{i * 2654435761 % 2**32:08x}" for i in range(20_000)]
    held = in_test(keys, "x")
    assert 0.09 < held.mean() < 0.11
    more = in_test(keys + [f"{i * 40503 % 2**32:08x}" for i in range(1, 500)], "x")
    assert (more[: len(keys)] == held).mean() > 0.9999  # only the extreme hashes may change sides
    assert in_test(["aa000000", "aa000000", "bb000000"], "x").tolist() == [True, True, False]  # copies stay together
    assert in_test(["00000001", "00000002"], "x").tolist() == [True, False]  # neither side is ever empty
    with pytest.raises(UserError, match="two different"):
        in_test(["aa000000"] * 3, "x")


def test_the_side_of_an_image_ignores_names_and_options(tmp_path):
    root = fill(tmp_path / "x", 40)
    before = set(by_content(open_data(root, "test")))
    for i, path in enumerate(sorted(root.rglob("*.png"))):
        path.rename(path.with_name(f"renamed{i}.png"))
    assert set(by_content(open_data(root, "test", labels="none"))) == before
    assert len(open_data(root, "test", size=4)) == len(before)


# ---- bad images --------------------------------------------------------------------------------------------


def test_broken_files_are_named_and_can_be_left_out(tmp_path):
    root = fill(tmp_path / "x")
    whole = (root / "bag" / "000.png").read_bytes()
    (root / "bag" / "cut.png").write_bytes(whole[:-30])
    (root / "coat" / "text.jpg").write_text("not an image")
    (root / "dress" / "empty.png").write_bytes(b"")
    with pytest.raises(UserError, match="skip_broken") as caught:
        open_data(root)
    assert "coat/text.jpg" in str(caught.value) and "dress/empty.png" in str(caught.value)
    train, test = both(root, skip_broken=True)
    assert len(train) + len(test) == 12
    assert [s.split(" (")[0] for s in train.skipped] == ["bag/cut.png", "coat/text.jpg", "dress/empty.png"]
    expected = {np.asarray(picture(i)).transpose(2, 0, 1).tobytes() for i in range(12)}
    assert set(by_content(train)) | set(by_content(test)) == expected  # no row shifted by those left out


def test_a_truncated_file_alone_is_found_and_nothing_is_cached(tmp_path, cache):
    root = fill(tmp_path / "x")
    path = root / "bag" / "000.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"bag/000\.png"):
        open_data(root)
    assert not list(cache.iterdir())


def png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


def test_decompression_bombs_are_refused_unopened(tmp_path):
    for width in (9_500, 10_001, 60_000):
        root = fill(tmp_path / f"x{width}")
        (root / "bag" / "bomb.png").write_bytes(png_claiming(width, width))
        with pytest.raises(UserError, match=r"bag/bomb\.png \(too many pixels"):
            open_data(root)
        assert len(open_data(root, skip_broken=True).skipped) == 1


def test_only_image_decoders_are_started(tmp_path):
    root = fill(tmp_path / "x")
    (root / "bag" / "script.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n")
    with pytest.raises(UserError, match=r"script\.png \(not an image"):
        open_data(root)


@pytest.mark.parametrize("content", ["nothing", "text only", "hidden"])
def test_a_folder_without_images(tmp_path, content):
    root = tmp_path / "x"
    root.mkdir()
    if content == "text only":
        (root / "notes.txt").write_text("hello")
    if content == "hidden":
        write(root / ".thumbnails" / "1.png", picture(1))
    with pytest.raises(UserError, match="holds no images"):
        open_data(root)


def test_bad_zips(tmp_path):
    root = fill(tmp_path / "x")
    archive = zip_of(root, tmp_path / "x.zip")
    data = bytearray(archive.read_bytes())
    at = data.index(b"IDAT")
    data[at + 4 : at + 12] = b"\xff" * 8
    archive.write_bytes(data)
    with pytest.raises(UserError, match=r"bag/000\.png"):
        open_data(archive)
    archive.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="neither a folder, a zip"):
        open_data(archive)


def test_unknown_names_and_arguments(tmp_path):
    with pytest.raises(UserError, match="did you mean 'fashion-mnist'"):
        open_data("fashion-mnits")
    with pytest.raises(UserError, match="no such file or folder"):
        open_data(tmp_path / "absent.zip")
    with pytest.raises(UserError, match="did you mean 'train'"):
        open_data("garments", "trian")
    with pytest.raises(UserError, match="did you mean 'center'"):
        open_data(tmp_path, crop="centre")
    for bad in ({"channels": 2}, {"background": "red"}, {"limit": 0}, {"size": "big"}):
        with pytest.raises(UserError):
            open_data("garments", **bad)
    with pytest.raises(UserError, match="own labels"):
        open_data("garments", labels="x.csv", limit=1)
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(UserError, match="neither a folder"):
        open_data(tmp_path / "file.txt")


@pytest.mark.parametrize("as_zip", [False, True])
def test_the_litter_of_operating_systems_is_passed_over(tmp_path, as_zip):
    root = fill(tmp_path / "x")
    for litter in ("bag/._000.png", "__MACOSX/bag/._000.png", ".thumbs/1.png", "bag/Thumbs.db"):
        (root / litter).parent.mkdir(parents=True, exist_ok=True)
        (root / litter).write_bytes(b"litter")
    source = zip_of(root, tmp_path / "x.zip") if as_zip else root
    assert sum(map(len, both(source))) == 12 and open_data(source).classes == 3


# ---- the cache ---------------------------------------------------------------------------------------------


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """Counts the images that are decoded."""
    count = [0]
    original = folder_module.decode

    def counting(data: bytes, fit: Fit) -> np.ndarray:
        count[0] += 1
        return original(data, fit)

    monkeypatch.setattr(folder_module, "decode", counting)
    return count


def test_decoded_once_for_both_splits_and_again(tmp_path, decoded):
    root = fill(tmp_path / "x")
    first = [both(root), both(root)]
    assert decoded[0] == 12
    for a, b in zip(*first, strict=True):
        assert a.fingerprint == b.fingerprint and (a.images == b.images).all()
    assert first[0][0].fingerprint != first[0][1].fingerprint


def test_the_cache_notices_changes(tmp_path, decoded, cache):
    root = fill(tmp_path / "x")
    before = open_data(root)
    write(root / "bag" / "new.png", picture(77))
    assert sum(map(len, both(root))) == 13 and decoded[0] == 12 + 13
    path = root / "bag" / "000.png"
    old = path.stat()
    write(path, picture(78))  # other pixels under the same name and time
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns + 1))
    pixels = np.asarray(picture(78)).transpose(2, 0, 1).tobytes()
    assert pixels in by_content(open_data(root)) | by_content(open_data(root, "test"))
    path.unlink()
    assert sum(map(len, both(root))) == 12
    assert len(list(cache.glob("*.npy"))) == 1  # the entries of earlier states are removed
    assert before.images.sum() > 0  # and an open one stays readable


def test_options_have_entries_of_their_own(tmp_path, decoded):
    root = fill(tmp_path / "x")
    assert open_data(root, size=4).height == 4 and open_data(root, size=6).height == 6
    assert open_data(root, size=4).height == 4 and open_data(root, channels=1).channels == 1
    assert decoded[0] == 36


@pytest.mark.parametrize("damage", ["cut npy", "other npy", "cut json", "no json", "other json"])
def test_a_damaged_entry_is_made_again(tmp_path, decoded, cache, damage):
    root = fill(tmp_path / "x")
    good = by_content(open_data(root))
    npy, facts = next(cache.glob("*.npy")), next(cache.glob("*.json"))
    if damage == "cut npy":
        npy.write_bytes(npy.read_bytes()[:-5])
    elif damage == "other npy":
        with npy.open("wb") as file:
            np.save(file, np.zeros((5, 3, 8, 8), np.uint8))
    elif damage == "cut json":
        facts.write_bytes(facts.read_bytes()[:-5])
    elif damage == "other json":
        facts.write_text("[]")
    else:
        facts.unlink()
    assert by_content(open_data(root)) == good and decoded[0] == 24


def test_the_images_can_be_changed_without_harming_the_cache(tmp_path):
    root = fill(tmp_path / "x")
    data = open_data(root)
    data.images[:] = 0
    assert open_data(root).images.any()


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("ELEGAN_CACHE", str(tmp_path / "file"))
    data = open_data(fill(tmp_path / "x"))
    assert len(data) > 0 and any("into memory" in note for note in data.notes)


def test_a_full_disk_is_the_users_error_and_leaves_nothing(tmp_path, monkeypatch, cache):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match="ELEGAN_CACHE"):
        open_data(fill(tmp_path / "x"))
    assert list(cache.iterdir()) == []


def test_reopening_gives_thousands_of_images_a_second(tmp_path):
    root = fill(tmp_path / "x", 600, height=32, width=32)
    open_data(root)
    start = time.perf_counter()
    data = open_data(root)
    assert int(data.images.sum()) > 0
    assert len(data) / (time.perf_counter() - start) > 2000


# ---- npz ---------------------------------------------------------------------------------------------------


def test_npz(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (200, 6, 5, 3), dtype=np.uint8)
    labels = np.arange(200) % 4
    path = tmp_path / "samples.npz"
    np.savez(path, images=images, labels=labels)
    train, test = both(path)
    expected = {image.transpose(2, 0, 1).tobytes(): str(k) for image, k in zip(images, labels, strict=True)}
    assert by_content(train) | by_content(test) == expected and len(train) + len(test) == 200
    assert train.name == "samples" and train.classes == 4 and 5 < len(test) < 40
    np.savez(path, images=images[..., 0])
    assert open_data(path).channels == 1 and open_data(path).labels is None
    np.savez(path, images=images, labels=labels, class_names=np.array(["a", "b", "c", "d"]))
    assert open_data(path).class_names == ["a", "b", "c", "d"]


U8 = np.zeros((3, 4, 4, 3), np.uint8)
BAD_NPZ = {
    "no images": {"x": U8},
    "float": {"images": U8.astype(np.float32)},
    "two channels": {"images": U8[..., :2]},
    "none": {"images": U8[:0]},
    "label count": {"images": U8, "labels": np.zeros(2, np.int64)},
    "label type": {"images": U8, "labels": np.zeros(3)},
    "negative label": {"images": U8, "labels": np.array([0, -1, 2])},
    "pickle": {"images": np.array([{}], dtype=object)},
    "few names": {"images": U8, "labels": np.arange(3), "class_names": np.array(["a"])},
}


@pytest.mark.parametrize("name", [*BAD_NPZ, "cut", "text", "npy"])
def test_bad_npz(tmp_path, name):
    path = tmp_path / "bad.npz"
    if name in BAD_NPZ:
        np.savez(path, **BAD_NPZ[name])
    elif name == "cut":
        np.savez(path, images=U8)
        path.write_bytes(path.read_bytes()[:-40])
    elif name == "npy":
        buffer = io.BytesIO()
        np.save(buffer, U8)
        path.write_bytes(buffer.getvalue())
    else:
        path.write_text("hello")
    with pytest.raises(UserError) as caught:
        open_data(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


class Payload:
    """Unpickling it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_an_npz_never_runs_code(tmp_path):
    for name in ("images", "labels", "class_names"):
        arrays: dict[str, np.ndarray] = {"images": U8, "labels": np.arange(3)}
        arrays[name] = np.array([Payload(tmp_path / "ran")], dtype=object)
        np.savez(tmp_path / "evil.npz", **arrays)
        with pytest.raises(UserError):
            open_data(tmp_path / "evil.npz")
    assert not (tmp_path / "ran").exists()


# ---- Dataset -----------------------------------------------------------------------------------------------


def test_dataset_says_what_it_is(tmp_path):
    data = open_data(fill(tmp_path / "shop"), labels=None)
    assert "shop" in repr(data) and "8x8x3" in repr(data) and "3 classes" in repr(data)
    png = data._repr_png_()
    assert png is not None and Image.open(io.BytesIO(png)).size[0] > 50
    assert sum(data.counts.values()) == len(data)


def test_fingerprint_is_of_the_content_alone(tmp_path):
    images = np.arange(48, dtype=np.uint8).reshape(3, 1, 4, 4)
    labels = np.array([0, 1, 1])
    a = Dataset("a", images, labels, ["x", "y"])
    assert a.fingerprint == Dataset("b", images.copy(), labels.copy(), ["p", "q"], "test").fingerprint
    assert len(a.fingerprint) == 16
    assert a.fingerprint != Dataset("a", images, None).fingerprint
    assert a.fingerprint != Dataset("a", images.reshape(3, 1, 2, 8), labels, ["x", "y"]).fingerprint
    assert a.fingerprint != Dataset("a", images, 1 - labels, ["x", "y"]).fingerprint
    root = fill(tmp_path / "x")
    before = open_data(root).fingerprint
    moved = shutil.move(root, tmp_path / "moved")
    assert open_data(moved).fingerprint == before
    assert open_data(moved, labels="none").fingerprint != before
