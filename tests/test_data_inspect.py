"""The dataset doctor on healthy and sick data."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from elegan.data import inspect_data
from elegan.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ELEGAN_CACHE", str(tmp_path / "cache"))


def picture(seed: int, mode: str = "RGB", size: tuple[int, int] = (8, 8)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def sick(root: Path) -> Path:
    """12 bags (one doubled, one grey, one larger), 2 coats, 3 unreadable files."""
    (root / "bag").mkdir(parents=True)
    (root / "coat").mkdir()
    for i in range(10):
        picture(i).save(root / "bag" / f"{i}.png")
    picture(3).save(root / "bag" / "again.bmp")  # the same pixels in another file format
    picture(50, "L").save(root / "bag" / "grey.png")
    picture(60, size=(9, 12)).save(root / "coat" / "large.png")
    picture(61).save(root / "coat" / "1.png")
    whole = (root / "bag" / "0.png").read_bytes()
    (root / "bag" / "cut.png").write_bytes(whole[:-40])
    (root / "coat" / "empty.jpg").write_bytes(b"")
    (root / "coat" / "text.webp").write_text("hello")
    return root


@pytest.mark.parametrize("as_zip", [False, True])
def test_a_sick_folder(tmp_path, as_zip):
    source = sick(tmp_path / "shop")
    if as_zip:
        with zipfile.ZipFile(tmp_path / "shop.zip", "w") as archive:
            for path in sorted(source.rglob("*.*")):
                archive.write(path, path.relative_to(source))
        source = tmp_path / "shop.zip"
    report = inspect_data(source, tmp_path / "sheet.png")
    assert report.images == 14 and report.counts == {"bag": 12, "coat": 2}
    assert report.sizes == {"8x8": 13, "9x12": 1} and report.modes == {"RGB": 13, "L": 1}
    assert set(report.unreadable) == {"bag/cut.png", "coat/empty.jpg", "coat/text.webp"}
    assert report.duplicates == [["bag/3.png", "bag/again.bmp"]]
    assert sum(report.splits.values()) == 14
    told = " | ".join(report.warnings)
    for word in (
        "3 files cannot be read",
        "only 14 images",
        "mixed modes",
        "different sizes",
        "unbalanced",
        "1 exact dup",
    ):
        assert word in told
    text = str(report)
    assert "bag/cut.png" in text and "bag/3.png = bag/again.bmp" in text and "unbalanced" in text
    assert json.loads(json.dumps(report.to_dict()))["counts"] == {"bag": 12, "coat": 2}
    assert not report.ok
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.mode == "RGB" and sheet.size == (130, 130)  # two classes by two images of 64, and the gap


def test_healthy_data_has_no_warnings(tmp_path):
    report = inspect_data("garments", tmp_path / "sheet.png")
    assert report.splits == {"train": 20_000, "test": 4_000} and report.images == 24_000
    assert report.kind == "named data" and set(report.counts.values()) == {2400}
    assert report.sizes == {"28x28": 24_000} and report.duplicates == [] and report.ok
    assert (tmp_path / "sheet.png").stat().st_size > 1000


def test_npz_duplicates_across_the_sides_are_found(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (1200, 4, 4, 1), dtype=np.uint8)
    images[7] = images[900]
    np.savez(tmp_path / "x.npz", images=images)
    report = inspect_data(tmp_path / "x.npz")
    assert report.kind == "npz" and len(report.duplicates) == 1 and len(report.duplicates[0]) == 2
    assert report.counts == {} and report.modes == {"L": 1200}
    assert "1 exact duplicates" in " ".join(report.warnings)


def test_a_bad_label_file_is_a_warning_not_the_end(tmp_path):
    root = sick(tmp_path / "x")
    (root / "labels.csv").write_text("file_name,label\nlost.png,1\n")
    report = inspect_data(root)
    assert report.images == 14 and report.counts == {} and any("lost.png" in w for w in report.warnings)


def test_a_folder_of_only_broken_files_is_reported(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "1.png").write_bytes(b"\x89PNG")
    report = inspect_data(tmp_path / "x", tmp_path / "sheet.png")
    assert report.images == 0 and list(report.unreadable) == ["1.png"] and report.sheet is None
    assert "1.png" in str(report)


def test_user_errors(tmp_path):
    with pytest.raises(UserError, match="did you mean"):
        inspect_data("garmets")
    (tmp_path / "x").mkdir()
    with pytest.raises(UserError, match="holds no images"):
        inspect_data(tmp_path / "x")
    root = sick(tmp_path / "y")
    with pytest.raises(UserError, match="contact sheet"):
        inspect_data(root, tmp_path / "absent" / "sheet.png")
