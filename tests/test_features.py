"""Networks of the user's as features, and the features of the real side kept on disk."""

from __future__ import annotations

import io
import os
import sys
import zipfile
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from conftest import make_npz, run_elegan
from elegan.errors import UserError
from elegan.judge import evaluate as judge
from elegan.metrics import Judge, evaluate, load_features, store
from elegan.metrics.convention import convention, split_options
from elegan.metrics.features import Features


def pictures(n: int, shape: tuple[int, int, int] = (8, 8, 3), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


class Means(nn.Module):
    """Features: the weighted mean of each channel. Dropout must not be seen."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.scale = nn.Parameter(torch.arange(1.0, channels + 1))

    def forward(self, x):
        return self.dropout(x.mean((2, 3)) * self.scale)


class MeansAndLogits(Means):
    def forward(self, x):
        means = self.dropout(x.mean((2, 3)) * self.scale)
        return means, 2 * means


def onnx_means(path: Path, batch: object = "n", size: object = "h", logits: bool = False) -> Path:
    """An ONNX file that averages each channel."""
    shape = [batch, 3, size, size]
    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["p"]), helper.make_node("Flatten", ["p"], ["f"])]
    outs = [helper.make_tensor_value_info("f", TensorProto.FLOAT, None)]
    if logits:
        nodes.append(helper.make_node("Add", ["f", "f"], ["l"]))
        outs.append(helper.make_tensor_value_info("l", TensorProto.FLOAT, None))
    takes = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    model = helper.make_model(
        helper.make_graph(nodes, "means", takes, outs), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 8
    onnx.save(model, path)
    return path


def test_module_of_python_gives_features_and_logits():
    images, module = pictures(7), MeansAndLogits()
    module.eval()
    module.dropout.train()  # a mixed state, which is kept, though not a pixel may be dropped
    features = load_features(module)
    out = features(images)
    means = images.mean((1, 2), dtype=np.float64) / 255 * [1, 2, 3]
    np.testing.assert_allclose(out.features, means, rtol=1e-5)
    wanted = np.exp(2 * means) / np.exp(2 * means).sum(1, keepdims=True)
    np.testing.assert_allclose(out.foreign, wanted, rtol=1e-5)
    assert out.probabilities is None  # nobody said that the logits are of the data's classes
    assert load_features(module, classes=True)(images).probabilities.shape == (7, 3)
    assert module.dropout.training and not module.training
    assert "MeansAndLogits" in str(features) and "input in [0, 1]" in str(features)
    changed = MeansAndLogits()
    changed.scale.data += 1
    assert load_features(changed).checksum != features.checksum == load_features(module).checksum


def test_convention_is_applied_as_said():
    image = np.array([[[[0, 100, 255]]]], np.uint8)
    takes = convention(range="-1,1", mean="0.5,0,0", std=2, size="2x3")
    x = takes(image)
    assert x.shape == (1, 3, 2, 3)
    np.testing.assert_allclose(x[0, :, 1, 2], (np.array([-1, 200 / 255 - 1, 1]) - [0.5, 0, 0]) / 2, rtol=1e-5)
    assert str(takes) == "Pillow bicubic to 2x3, input in [-1, 1], mean 0.5,0,0, std 2"
    grey = convention(channels=1)(image)
    assert grey.shape == (1, 1, 1, 1) and float(grey) == pytest.approx((0.587 * 100 + 0.114 * 255) / 255)
    repeated = convention(channels=3)(image[..., :1])
    assert repeated.shape == (1, 3, 1, 1)
    assert convention(channels=3)(np.zeros((1, 1, 1, 4), np.uint8)).min() == 1  # transparent is white
    assert convention(size=4)(pictures(1, (1, 1, 1))).shape == (1, 1, 4, 4)
    assert split_options("a:b/net.onnx:size=224:range=0,255") == ("a:b/net.onnx", {"size": "224", "range": "0,255"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sise": 3}, "did you mean 'size'"),
        ({"size": "big"}, "number of pixels"),
        ({"size": 0}, "number of pixels"),
        ({"range": "1"}, "two different numbers"),
        ({"range": "1,1"}, "two different numbers"),
        ({"std": 0}, "above 0"),
        ({"channels": 4}, "1 or 3"),
        ({"classes": "perhaps"}, "data's own classes"),
        ({"mean": "nan"}, "a number"),
    ],
)
def test_nonsense_in_a_convention_is_named(options, message):
    with pytest.raises(UserError, match=message):
        convention(**options)


def test_transform_replaces_the_convention():
    seen = []

    def transform(x):
        seen.append((x.dtype, tuple(x.shape)))
        return x[:, :2].float()

    images = pictures(3)
    out = load_features(Means(channels=2), transform=transform)(images)
    np.testing.assert_allclose(out.features, images[..., :2].mean((1, 2), dtype=np.float64) * [1, 2], rtol=1e-5)
    assert seen[0][0] == torch.uint8 and seen[0][1][1:] == (3, 8, 8)
    with pytest.raises(UserError, match="either transform or"):
        load_features(Means(), transform=transform, size=3)


def script(path: Path) -> Path:
    with pytest.warns(DeprecationWarning):
        torch.jit.save(torch.jit.script(Means()), path)
    return path


def exported(path: Path, batch: int | None = None) -> Path:
    n = {"x": {0: torch.export.Dim("n")}} if batch is None else None
    program = torch.export.export(Means().eval(), (torch.zeros(batch or 2, 3, 8, 8),), dynamic_shapes=n)
    torch.export.save(program, path)
    return path


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: script(folder / "net.pt"),
        lambda folder: exported(folder / "net.pt2"),
        lambda folder: exported(folder / "four.pt2", 4),
        lambda folder: onnx_means(folder / "net.onnx"),
        lambda folder: onnx_means(folder / "four.onnx", 4, 8),
    ],
    ids=["script", "exported", "exported for 4", "onnx", "onnx for 4"],
)
def test_files_give_the_same_as_the_module(make, tmp_path):
    path, images = make(tmp_path), pictures(9)
    features = load_features(f"{path}:range=0,255")
    means = images.mean((1, 2), dtype=np.float64) * (1 if path.suffix == ".onnx" else np.array([1, 2, 3]))
    np.testing.assert_allclose(features(images).features, means, rtol=1e-4)
    assert np.array_equal(features(images[8:]).features, features(images).features[8:])
    assert features.checksum in str(features) and "[0, 255]" in str(features) and str(path) in str(features)
    assert features.key != load_features(path).key


def test_onnx_logits_and_shapes(tmp_path):
    two = load_features(onnx_means(tmp_path / "two.onnx", logits=True), classes=True)(pictures(3))
    np.testing.assert_allclose(two.probabilities.sum(1), 1, rtol=1e-5)
    fixed = onnx_means(tmp_path / "fixed.onnx", size=16)
    with pytest.raises(UserError, match=r"takes images 3x16x16 .*not 3x8x8.*channels=3:size=16"):
        load_features(fixed)(pictures(2))
    assert load_features(f"{fixed}:size=16")(pictures(2)).features.shape == (2, 3)
    with pytest.raises(UserError, match="not 1x8x8"):
        load_features(fixed)(pictures(2, (8, 8, 1)))


def test_onnx_extra_is_named_when_missing(tmp_path, monkeypatch):
    path = onnx_means(tmp_path / "net.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"needs onnxruntime: pip install 'elegan\[onnx\]'"):
        load_features(path)


class Wrong(nn.Module):
    def __init__(self, answer) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return self.answer(x)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: x, r"returned features \(250, 3, 8, 8\).*pool or flatten"),
        (lambda x: x.mean((2, 3))[0], "not"),
        (lambda x: x.mean((2, 3))[:1], "not"),
        (lambda x: {"a": x}, "returned dict"),
        (lambda x: (x, x, x), "returned Tensor, Tensor, Tensor"),
        (lambda x: x.mean((2, 3)) / 0, "not finite"),
        (lambda x: x.mean((2, 3)) @ torch.zeros(4, 4), "failed on an input of 250x3x8x8"),
    ],
)
def test_wrong_answers_of_a_module_are_one_line(answer, message):
    with pytest.raises(UserError, match=message) as error:
        load_features(Wrong(answer))(pictures(2))
    assert "\n" not in str(error.value)


def test_flat_maps_are_features():
    assert load_features(Wrong(lambda x: x.mean((2, 3), keepdim=True)))(pictures(2)).features.shape == (2, 3)


@pytest.mark.parametrize("name", ["net.pt", "net.pt2", "net.onnx"])
def test_other_files_are_refused(name, tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        load_features(tmp_path / name)
    torch.save({"weights": torch.zeros(3)}, tmp_path / name)
    with pytest.raises(UserError, match="is not a") as error:
        load_features(tmp_path / name)
    assert "\n" not in str(error.value)


def test_options_belong_to_networks():
    with pytest.raises(UserError, match="size: for a network file"):
        load_features("pixels", size=3)
    with pytest.raises(UserError, match="not int"):
        load_features(3)
    with pytest.raises(UserError, match="given twice"):
        load_features("net.onnx:size=3", size=4)
    with pytest.raises(UserError, match="unknown features 'inceptoin'; did you mean 'inception'"):
        load_features("inceptoin")
    features = load_features("pixels")
    assert load_features(features) is features


def test_evaluate_takes_a_module():
    real, samples = pictures(60), pictures(40, seed=1)
    module = MeansAndLogits()
    scores = evaluate(samples, real, real, features=module, sample_labels=np.zeros(40, int), copies=False)
    assert scores.value.classifier_score >= 1 and scores.value.label_accuracy is None
    assert scores.value.class_shares is None and "MeansAndLogits" in scores.protocol.features
    module.scale.data *= 2  # trained further: the real side is computed anew
    again = evaluate(samples, real, real, features=module, copies=False)
    assert again.value.frechet == pytest.approx(4 * scores.value.frechet, rel=1e-3)
    own = evaluate(samples, real, real, features=load_features(module, classes=True), copies=False,
                   sample_labels=np.zeros(40, int))  # fmt: skip
    assert own.value.label_accuracy is not None and len(own.value.class_shares) == 3


class Counting(Features):
    """Features that count how many images they are asked for."""

    asked: ClassVar[list[int]] = []

    def __call__(self, images):
        self.asked.append(len(images))
        return super().__call__(images)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ELEGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Counting, "asked", [])
    return tmp_path / "cache" / "features"


def test_real_side_comes_from_the_disk_the_second_time(cache):
    features, real, samples = Counting("descriptors"), pictures(50), pictures(40, seed=1)
    first = Judge(real, real, features=features, copies=False)(samples)
    assert sorted(features.asked) == [40, 40, 50]  # samples, floor, reference
    features.asked.clear()
    second = Judge(real, real, features=features, copies=False)(samples)
    assert features.asked == [40]  # samples
    assert second == first
    changed = real.copy()
    changed[0, 0, 0, 0] ^= 1
    assert np.array_equal(features.kept(changed).features, features(changed).features)
    assert len(list(cache.iterdir())) == 3


def test_what_is_kept_depends_on_features_and_images(cache):
    images = pictures(30)
    keys = {load_features(name).key for name in ("fashion", "digits", "descriptors", "pixels")}
    assert len(keys) == 4
    load_features("descriptors").kept(images)
    load_features("descriptors").kept(images.reshape(30, 4, 16, 3))  # the same bytes, another shape
    assert len(list(cache.iterdir())) == 2
    load_features(Means()).kept(images)  # code of this process may change: never kept
    load_features("pixels").kept(images)  # faster computed than read
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "other"])
def test_damaged_entry_is_computed_again_with_a_note(cache, harm, capsys):
    features, images = load_features("descriptors"), pictures(30)
    wanted = features.kept(images)
    (path,) = cache.iterdir()
    data = bytearray(path.read_bytes())
    if harm == "flip":
        data[len(data) // 2] ^= 64
    path.write_bytes({"cut": data[:-9], "empty": b"", "other": b"x" * 100}.get(harm, data))
    got = features.kept(images)
    assert np.array_equal(got.features, wanted.features)
    error = capsys.readouterr().err
    assert error.startswith("note: ") and "damaged" in error and error.count("\n") == 1
    assert np.array_equal(store.read(path)["features"], wanted.features)


def test_cache_is_bounded_and_forgets_what_was_not_used(cache, monkeypatch):
    features, sets = load_features("descriptors"), [pictures(30, seed=seed) for seed in range(4)]
    features.kept(sets[0])
    (path,) = cache.iterdir()
    size = path.stat().st_size
    monkeypatch.setenv("ELEGAN_FEATURE_CACHE", str(int(2.5 * size)))
    os.utime(path, (1, 1))
    features.kept(sets[1])
    (second,) = set(cache.iterdir()) - {path}
    os.utime(second, (2, 2))
    features.kept(sets[0])  # used: now the youngest
    features.kept(sets[2])
    assert path.exists() and not second.exists() and len(list(cache.iterdir())) == 2
    monkeypatch.setenv("ELEGAN_FEATURE_CACHE", str(size - 1))
    features.kept(sets[3])  # larger than the whole limit: not kept, nothing is thrown away for it
    assert len(list(cache.iterdir())) == 2
    monkeypatch.setenv("ELEGAN_FEATURE_CACHE", "off")
    features.kept(sets[3])
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize(("said", "bytes_"), [("4g", 4 << 30), ("1.5 MiB", 3 << 19), ("700", 700), ("off", 0)])
def test_limit_is_read(said, bytes_, monkeypatch):
    monkeypatch.setenv("ELEGAN_FEATURE_CACHE", said)
    assert store.limit() == bytes_
    monkeypatch.setenv("ELEGAN_FEATURE_CACHE", "much")
    with pytest.raises(UserError, match="500m or 4g, or off"):
        store.limit()


def test_cache_limit_that_is_none_is_refused_before_anything_is_read(monkeypatch):
    monkeypatch.setenv("ELEGAN_FEATURE_CACHE", "much")
    with pytest.raises(UserError, match="ELEGAN_FEATURE_CACHE=much"):
        judge("no-such-run", "no-such-data")


def test_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ELEGAN_CACHE", str(tmp_path / "file"))
    assert load_features("descriptors").kept(pictures(20)).features.shape == (20, 480)


def test_command_line_names_features_and_mistakes(tmp_path):
    data = make_npz(tmp_path / "blobs.npz", channels=3, count=400)
    onnx_means(tmp_path / "net.onnx")
    arguments = ("evaluate", data, "--data", data, "-n", "40")
    done = run_elegan(*arguments, "--features", "net.onnx:range=-1,1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "features net.onnx (sha256" in done.stdout and "input in [-1, 1]" in done.stdout
    done = run_elegan(*arguments, "--features", "inception", "--inception-weights", "none.pth", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "none.pth" in done.stderr


class Harm:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_pickles_in_an_exported_program_run_no_code(tmp_path):
    exported(tmp_path / "good.pt2")
    buffer = io.BytesIO()
    torch.save((Harm(tmp_path / "harm"),), buffer)
    with zipfile.ZipFile(tmp_path / "good.pt2") as good, zipfile.ZipFile(tmp_path / "bad.pt2", "w") as bad:
        for name in good.namelist():
            bad.writestr(name, buffer.getvalue() if "sample_inputs" in name else good.read(name))
    with pytest.raises(UserError, match="is not an exported program"):
        load_features(tmp_path / "bad.pt2")
    assert not (tmp_path / "harm").exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
