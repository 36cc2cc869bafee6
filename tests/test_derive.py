"""`elegan train --data FOLDER` without a preset: what is decided from the pictures, and what is left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import elegan
from conftest import make_npz
from elegan import UserError
from elegan.data.survey import Survey, survey
from elegan.training.derive import choose_mirror, choose_size, derive
from elegan.training.run import configure

Paint = Callable[[np.random.Generator, int, int], np.ndarray]


def photo(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    """Smooth colours, many tones: uint8 (h, w, 3)."""
    small = rng.integers(0, 256, (5, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((w, h), Image.Resampling.BICUBIC))


def grey_photo(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    return np.repeat(photo(rng, h, w)[..., :1], 3, 2)


def cut_out(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    alpha = np.zeros((h, w, 1), np.uint8)
    alpha[h // 4 : -h // 4, w // 4 : -w // 4] = 255
    return np.concatenate([photo(rng, h, w), alpha], 2)


def opaque(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    return np.concatenate([photo(rng, h, w), np.full((h, w, 1), 255, np.uint8)], 2)


def coloured_text(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    picture = np.full((h, w, 3), (250, 240, 200), np.uint8)
    picture[rng.integers(0, 4, (h, w)) == 0] = (20, 20, 120)
    return picture


def plain(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    return np.full((h, w, 3), 7, np.uint8)


def folder(
    root: Path, paint: Paint = photo, n: int = 60, size: tuple[int, int] = (70, 70), classes: tuple[str, ...] = ("",),
    ending: str = "png", jitter: int = 0,
) -> Path:  # fmt: skip
    rng = np.random.default_rng(0)
    for i in range(n):
        place = root / classes[i % len(classes)]
        place.mkdir(parents=True, exist_ok=True)
        h, w = (s + int(rng.integers(0, jitter + 1)) for s in size)
        Image.fromarray(paint(rng, h, w)).save(place / f"{i:03}.{ending}")
    return root


def survey_of(**changes: object) -> Survey:
    known = {
        "name": "x", "count": 2000, "seen": 1000, "different": 1000, "sizes": [(300, 300)] * 9, "channels": [3] * 9,
        "coloured": 1.0,
    }  # fmt: skip
    return Survey(**{**known, **changes})  # type: ignore[arg-type]


def test_photos_in_subfolders_become_a_plan(tmp_path):
    config = configure(data=folder(tmp_path / "p", size=(140, 100), jitter=6, classes=("coat", "shoe"), ending="jpg"))
    assert (config.data.size, config.data.channels, config.data.mirror) == ((80, 56), 3, True)
    assert config.data.labels is None
    text = "\n".join(config.derived)
    assert "60 RGB pictures of" in text
    assert "2 classes from the subfolders (coat, shoe)" in text
    assert "as high as wide" in text
    dataset = elegan.open_data(tmp_path / "p", size=config.data.size, channels=3)
    assert (dataset.height, dataset.width, dataset.classes) == (80, 56, 2)


@pytest.mark.parametrize(
    ("paint", "channels", "words"),
    [
        (photo, 3, "RGB"),
        (grey_photo, 1, "none has colour, though the files are written in colour"),
        (cut_out, 4, "have transparent parts"),
        (opaque, 3, "the files' transparency is not used"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_channels_follow_what_the_pictures_show(tmp_path, paint, channels, words, packed):
    if packed:
        rng = np.random.default_rng(0)
        np.savez(tmp_path / "p.npz", images=np.stack([paint(rng, 30, 30) for _ in range(60)]))
    config = configure(data=tmp_path / "p.npz" if packed else folder(tmp_path / "p", paint, size=(30, 30)))
    assert config.data.channels == channels
    assert words in "\n".join(config.derived)
    assert config.data.crop == ("pad" if channels == 4 else "center")


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(28, 28)] * 20, (28, 28)),
        ([(30, 20)] * 20, (30, 20)),
        ([(128, 128)] * 20, (64, 64)),
        ([(3000, 4000)] * 20, (56, 72)),
        ([(4000, 3000)] * 11 + [(3000, 4000)] * 9, (64, 64)),
        ([(500, 520), (480, 450), (900, 870)] * 5, (64, 64)),
        ([(40, 41), (42, 40), (44, 44)] * 5, (40, 40)),
        ([(100, 300)] * 20, (40, 120)),
    ],
)
def test_size_and_shape(sizes, expected):
    size, reason = choose_size(survey_of(sizes=sizes))
    assert size == expected
    assert reason.startswith(f"{size[0]}x{size[1]}")


def test_text_is_not_mirrored(tmp_path):
    assert not configure(data=folder(tmp_path / "text", coloured_text)).data.mirror
    assert not configure(data=folder(tmp_path / "grey", grey_photo)).data.mirror
    assert configure(data=folder(tmp_path / "photos", photo)).data.mirror
    assert configure(data=tmp_path / "text", settings={"mirror": "true"}).data.mirror, "unless asked for"


@pytest.mark.parametrize(
    ("names", "mirrored"), [("0 1 2", False), ("A B C", False), ("cat dog", True), ("_7 _8", False)]
)
def test_classes_called_by_figures_or_letters_are_not_mirrored(names, mirrored):
    assert choose_mirror(survey_of(classes=dict.fromkeys(names.split(), 50)))[0] is mirrored


def test_folders_with_a_picture_or_two_are_no_classes():
    few = derive(survey_of(classes={f"roll {i}": 3 for i in range(200)}), {})
    assert few.settings["data.labels"] == "ignore"
    enough = derive(survey_of(classes={f"roll {i}": 10 for i in range(200)}), {})
    assert "data.labels" not in enough.settings


def test_few_pictures_are_treated_as_few():
    few, many = (derive(survey_of(count=n), {}, ("batch", "augment")) for n in (200, 60_000))
    assert few.settings["model.batch"] == 32
    assert few.settings["model.augment"] == "diffaugment"
    assert few.settings["train.images"] == 100_000
    assert not {"model.batch", "model.augment"} & many.settings.keys()
    assert many.settings["train.images"] == 600_000
    plain_recipe = derive(survey_of(count=200), {}, ("batch",))
    assert "model.augment" not in plain_recipe.settings, "where a recipe has none"
    assert any("small-ada" in reason for reason in plain_recipe.reasons)
    assert not any("small-ada" in reason for reason in [*few.reasons, *many.reasons])


def test_photos_have_no_kinds_of_colours_unless_asked_for(tmp_path):
    root = folder(tmp_path / "p")
    assert configure(data=root).model.kinds == 0
    assert configure(data=root, settings={"kinds": 4}).model.kinds == 4
    assert configure("garments").model.kinds == 32


def test_what_the_user_sets_stays(tmp_path):
    root = folder(tmp_path / "p", classes=("a cat", "a dog"))
    settings = {"size": "32", "data.channels": "1", "batch": "5", "labels": "ignore"}
    config = configure(data=root, settings=settings, config={"data": {"mirror": False}, "images": 64})
    assert (config.data.size, config.data.channels, config.data.mirror) == (32, 1, False)
    assert (config.model.batch, config.train.images, config.data.labels) == (5, 64, "ignore")
    text = "\n".join(config.derived)
    assert not any(word in text for word in ("64x64", "RGB:", "mirrored", "batch", "images if"))
    assert config.preset == "fashion", "the recipe follows the size that was asked for"


def test_a_named_preset_decides_nothing(tmp_path):
    root = folder(tmp_path / "p", n=4)
    for config in (configure("fashion", root), configure(data=root, config={"preset": "fashion"})):
        assert config.derived == ()
        assert config.data.size is None
        assert config.data.mirror is False
    assert configure(data="garments").derived == ()


@pytest.mark.parametrize(("n", "paint", "words"), [(49, photo, "49 pictures are too"), (60, plain, "60: 1, the rest")])
def test_hopeless_data_is_refused(tmp_path, n, paint, words):
    with pytest.raises(UserError, match=words) as caught:
        configure(data=folder(tmp_path / "p", paint, n))
    assert "\n" not in str(caught.value)


def test_the_survey_is_bounded_and_tells_where_labels_come_from(tmp_path, monkeypatch):
    from elegan.data import survey as module

    monkeypatch.setattr(module, "LOOKED_AT", 20)
    monkeypatch.setattr(module, "DECODED", 5)
    root = folder(tmp_path / "p", size=(20, 20))
    (root / "labels.csv").write_text("".join(f"{p.name},{int(p.stem) % 3}\n" for p in sorted(root.glob("*.png"))))
    found = survey(root)
    assert (found.count, found.seen, found.where_labels) == (60, 20, "a label file")
    assert found.classes == {"0": 20, "1": 20, "2": 20}
    assert survey(make_npz(tmp_path / "b.npz")).where_labels == "its labels"
    with pytest.raises(UserError, match="no such file"):
        survey(tmp_path / "nowhere.zip")


def test_broken_pictures_do_not_count(tmp_path):
    root = folder(tmp_path / "p")
    (root / "torn.png").write_bytes(b"\x89PNG nonsense")
    assert survey(root).count == 60


def test_plan_record_and_going_on(tmp_path, quick_plan, capsys):
    root = folder(tmp_path / "p", size=(20, 20), classes=("hat", "sock"))
    options = {"G_width": 4, "G_widest": 8, "D_width": 4, "D_widest": 8, "z_dim": 4, "batch": 8, "grids": 1}
    run = elegan.train(data=root, out=tmp_path / "run", steps=2, **options)
    printed = capsys.readouterr().out
    assert "derived    60 RGB pictures of 20x20, 2 classes from the subfolders (hat, sock)" in printed
    content = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert content["derived"][0].startswith("60 RGB pictures")
    assert content["data"]["mirror"] is True
    again = elegan.train(data=root, out=tmp_path / "run", steps=3, show=False, **options)
    assert again.config.derived == run.config.derived
    same = elegan.train(config=tmp_path / "run/config.yaml", out=tmp_path / "same", steps=2, show=False)
    assert same.config.model == run.config.model
