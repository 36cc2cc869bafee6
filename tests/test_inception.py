"""The FID network, its two input conventions, and how its weights are found, checked and fetched.

The published file cannot be had here: files of the same shape with random numbers stand for it.
"""

from __future__ import annotations

import hashlib
import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from elegan.errors import UserError
from elegan.metrics import inception, load_features
from elegan.metrics import inception_weights as weights
from elegan.metrics.inception import Inception, clean_resize, fold, over_white, prepare, tf1_resize, torch_resize
from test_data_download import cut_off, good, mirror, missing

MIXED = {  # block: {convolution: (outputs, inputs, height, width of its kernel)}, as in the paper's figures 5 to 7
    **{
        f"Mixed_{name}": {
            "branch1x1": (64, ins, 1, 1), "branch5x5_1": (48, ins, 1, 1), "branch5x5_2": (64, 48, 5, 5),
            "branch3x3dbl_1": (64, ins, 1, 1), "branch3x3dbl_2": (96, 64, 3, 3), "branch3x3dbl_3": (96, 96, 3, 3),
            "branch_pool": (pooled, ins, 1, 1),
        }
        for name, ins, pooled in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64))
    },
    "Mixed_6a": {
        "branch3x3": (384, 288, 3, 3), "branch3x3dbl_1": (64, 288, 1, 1), "branch3x3dbl_2": (96, 64, 3, 3),
        "branch3x3dbl_3": (96, 96, 3, 3),
    },
    **{
        f"Mixed_{name}": {
            "branch1x1": (192, 768, 1, 1), "branch7x7_1": (c, 768, 1, 1), "branch7x7_2": (c, c, 1, 7),
            "branch7x7_3": (192, c, 7, 1), "branch7x7dbl_1": (c, 768, 1, 1), "branch7x7dbl_2": (c, c, 7, 1),
            "branch7x7dbl_3": (c, c, 1, 7), "branch7x7dbl_4": (c, c, 7, 1), "branch7x7dbl_5": (192, c, 1, 7),
            "branch_pool": (192, 768, 1, 1),
        }
        for name, c in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192))
    },
    "Mixed_7a": {
        "branch3x3_1": (192, 768, 1, 1), "branch3x3_2": (320, 192, 3, 3), "branch7x7x3_1": (192, 768, 1, 1),
        "branch7x7x3_2": (192, 192, 1, 7), "branch7x7x3_3": (192, 192, 7, 1), "branch7x7x3_4": (192, 192, 3, 3),
    },
    **{
        f"Mixed_{name}": {
            "branch1x1": (320, ins, 1, 1), "branch3x3_1": (384, ins, 1, 1), "branch3x3_2a": (384, 384, 1, 3),
            "branch3x3_2b": (384, 384, 3, 1), "branch3x3dbl_1": (448, ins, 1, 1), "branch3x3dbl_2": (384, 448, 3, 3),
            "branch3x3dbl_3a": (384, 384, 1, 3), "branch3x3dbl_3b": (384, 384, 3, 1), "branch_pool": (192, ins, 1, 1),
        }
        for name, ins in (("7b", 1280), ("7c", 2048))
    },
}  # fmt: skip
STEM = {
    "Conv2d_1a_3x3": (32, 3, 3, 3), "Conv2d_2a_3x3": (32, 32, 3, 3), "Conv2d_2b_3x3": (64, 32, 3, 3),
    "Conv2d_3b_1x1": (80, 64, 1, 1), "Conv2d_4a_3x3": (192, 80, 3, 3),
}  # fmt: skip


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Every name and shape of the published file, written down independently of the network."""
    convolutions = STEM | {
        f"{block}.{name}": shape for block, inside in MIXED.items() for name, shape in inside.items()
    }
    shapes: dict[str, tuple[int, ...]] = {"fc.weight": (1008, 2048), "fc.bias": (1008,)}
    for name, shape in convolutions.items():
        shapes[f"{name}.conv.weight"] = shape
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.bn.{part}"] = shape[:1]
    return shapes


def random_weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """Tensors of the published shapes that keep activations at order one."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in published_shapes().items():
        noise = torch.rand(shape, generator=generator)
        if len(shape) > 1:
            noise = (noise - 0.5) * math.sqrt(24 / math.prod(shape[1:]))
        elif not name.endswith(("running_var", "bn.weight")):
            noise = (noise - 0.5) / 2
        else:
            noise += 0.5
        tensors[name] = noise
    return tensors


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    return random_weights()


@pytest.fixture(scope="module")
def net(tensors: dict[str, torch.Tensor]) -> Inception:
    net = Inception()
    net.load_state_dict(tensors)
    return net.eval()


@pytest.fixture(scope="module")
def fake_bytes(tensors: dict[str, torch.Tensor]) -> bytes:
    """A file as pytorch-fid publishes it: a dictionary of parameters in torch's old format."""
    buffer = io.BytesIO()
    parameters = {name: nn.Parameter(tensor) for name, tensor in tensors.items()}
    torch.save(parameters, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


@pytest.fixture
def fake(fake_bytes: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The fake file, which passes for the published one; nothing else is on this machine."""
    from elegan.metrics import features

    monkeypatch.setattr(weights, "SHA256", hashlib.sha256(fake_bytes).hexdigest())
    monkeypatch.setattr(weights, "BYTES", len(fake_bytes))
    monkeypatch.setenv("ELEGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("ELEGAN_INCEPTION", raising=False)
    features._inception_net.cache_clear()
    path = tmp_path / "downloads" / weights.FILE
    path.parent.mkdir()
    path.write_bytes(fake_bytes)
    return path


def pictures(n: int, shape: tuple[int, int, int] = (28, 28, 1), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def test_names_shapes_and_count_are_those_of_the_published_file():
    with torch.device("meta"):
        state = Inception().state_dict()
    mine = {name: tuple(t.shape) for name, t in state.items() if not name.endswith("num_batches_tracked")}
    assert mine == published_shapes() and len(mine) == 472
    # the published file has 95,628,359 bytes; 95,541,568 of them are these numbers, the rest names and pickle
    assert 4 * sum(math.prod(shape) for shape in mine.values()) == 95_541_568


def test_network_is_the_one_of_the_papers_figures(net, tensors):
    """Against the graph written out anew, in float64, with plain functions and without any module."""

    def conv(x, name, stride=1, padding=0):
        x = F.conv2d(x, w[f"{name}.conv.weight"], None, stride, padding)
        mean, var = w[f"{name}.bn.running_mean"], w[f"{name}.bn.running_var"]
        scale = w[f"{name}.bn.weight"] / (var + 0.001).sqrt()
        return ((x - mean.view(-1, 1, 1)) * scale.view(-1, 1, 1) + w[f"{name}.bn.bias"].view(-1, 1, 1)).clamp(min=0)

    def same(x, name):
        kernel = w[f"{name}.conv.weight"].shape[2:]
        return conv(x, name, 1, (kernel[0] // 2, kernel[1] // 2))

    def average(x):  # sums over counts: padding is not counted
        return F.avg_pool2d(x, 3, 1, 1) / F.avg_pool2d(torch.ones_like(x), 3, 1, 1)

    def chain(x, block, *names):
        for name in names:
            x = same(x, f"{block}.{name}")
        return x

    w = {name: t.double() for name, t in tensors.items()}
    x = prepare(pictures(2)).double()
    y = same(conv(conv(x, "Conv2d_1a_3x3", 2), "Conv2d_2a_3x3"), "Conv2d_2b_3x3")
    y = F.max_pool2d(conv(same(F.max_pool2d(y, 3, 2), "Conv2d_3b_1x1"), "Conv2d_4a_3x3"), 3, 2)
    dbl3, dbl7 = [f"branch3x3dbl_{i}" for i in (1, 2, 3)], [f"branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5)]
    for b in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        five = chain(y, b, "branch5x5_1", "branch5x5_2")
        y = torch.cat([chain(y, b, "branch1x1"), five, chain(y, b, *dbl3), chain(average(y), b, "branch_pool")], 1)
    b = "Mixed_6a"
    last = conv(chain(y, b, *dbl3[:2]), f"{b}.branch3x3dbl_3", 2)
    y = torch.cat([conv(y, f"{b}.branch3x3", 2), last, F.max_pool2d(y, 3, 2)], 1)
    for b in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        seven = chain(y, b, "branch7x7_1", "branch7x7_2", "branch7x7_3")
        y = torch.cat([chain(y, b, "branch1x1"), seven, chain(y, b, *dbl7), chain(average(y), b, "branch_pool")], 1)
    b = "Mixed_7a"
    three = conv(chain(y, b, "branch3x3_1"), f"{b}.branch3x3_2", 2)
    seven = conv(chain(y, b, *(f"branch7x7x3_{i}" for i in (1, 2, 3))), f"{b}.branch7x7x3_4", 2)
    y = torch.cat([three, seven, F.max_pool2d(y, 3, 2)], 1)
    for b, pooled in (("Mixed_7b", average), ("Mixed_7c", lambda x: F.max_pool2d(x, 3, 1, 1))):
        one, two = chain(y, b, "branch3x3_1"), chain(y, b, "branch3x3dbl_1", "branch3x3dbl_2")
        forks = [chain(one, b, "branch3x3_2a"), chain(one, b, "branch3x3_2b")]
        forks += [chain(two, b, "branch3x3dbl_3a"), chain(two, b, "branch3x3dbl_3b")]
        y = torch.cat([chain(y, b, "branch1x1"), *forks, chain(pooled(y), b, "branch_pool")], 1)
    hidden = y.mean((2, 3))
    with torch.inference_mode():
        features, logits = net(x.float())
    assert features.shape == (2, 2048) and logits.shape == (2, 1008)
    assert hidden.std() > 0.01  # the random network says something
    torch.testing.assert_close(features.double(), hidden, rtol=1e-3, atol=1e-3 * float(hidden.std()))
    wanted = hidden @ w["fc.weight"].T  # without bias, as in the code of the inception score
    torch.testing.assert_close(logits.double(), wanted, rtol=1e-3, atol=1e-3 * float(wanted.std()))


def test_folding_changes_nothing(net, tensors):
    folded = Inception()
    folded.load_state_dict(tensors)
    x = prepare(pictures(1))
    with torch.inference_mode():
        for one, two in zip(fold(folded.eval())(x), net(x), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-3 * float(two.std()))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())


def tf1_pixel(plane: np.ndarray, i: float, j: float, side: int) -> float:
    """One pixel of TensorFlow 1's ResizeBilinear, by the definition: position i * size / side, four neighbours.

    With `side` 0 i and j are the position itself.
    """
    y, x = (i * plane.shape[0] / side, j * plane.shape[1] / side) if side else (i, j)
    total = 0.0
    for a in range(plane.shape[0] + 1):
        for b in range(plane.shape[1] + 1):
            share = max(0.0, 1 - abs(y - a)) * max(0.0, 1 - abs(x - b))
            total += share * float(plane[min(a, plane.shape[0] - 1), min(b, plane.shape[1] - 1)])
    return total


@pytest.mark.parametrize("shape", [(28, 28, 1), (7, 12, 3), (40, 33, 1)])
def test_tf1_resize_is_the_definition(shape):
    image, side = pictures(1, shape), 31  # enlarges 28 and 7, shrinks 40 and 33
    out = tf1_resize(image, side)
    wanted = [
        [[tf1_pixel(image[0, :, :, c], i, j, side) for j in range(side)] for i in range(side)] for c in range(shape[2])
    ]
    np.testing.assert_allclose(out[0].numpy(), wanted, atol=2e-3)  # positions are float32, as there


def test_tf1_resize_is_not_torchs():
    """No half-pixel centres: the first pixel is kept, every 299/23rd too, and torch's interpolation differs."""
    image = pictures(1, (23, 23, 3))
    out = tf1_resize(image)
    torch.testing.assert_close(
        out[0, :, ::13, ::13], torch.from_numpy(image[0]).permute(2, 0, 1).float(), atol=2e-3, rtol=0
    )
    torchs = F.interpolate(torch.from_numpy(image).permute(0, 3, 1, 2).float(), (299, 299), mode="bilinear")
    assert (out - torchs).abs().max() > 20


def test_torch_resize_has_half_pixel_centres():
    image, side = pictures(1, (6, 9, 1)), 31
    wanted = np.zeros((side, side))
    for i in range(side):
        for j in range(side):
            y, x = (min(max((k + 0.5) * n / side - 0.5, 0), n - 1) for k, n in ((i, 6), (j, 9)))
            wanted[i, j] = tf1_pixel(image[0, :, :, 0], y, x, 0)
    np.testing.assert_allclose(torch_resize(image, side)[0, 0], wanted, atol=2e-3)


def bicubic_weights(size: int, side: int) -> np.ndarray:
    """(side, size): the antialiased bicubic filter with a = -0.5, support and centre scaled, rows summing to 1."""
    scale = max(size / side, 1.0)
    centres = (np.arange(side)[:, None] + 0.5) * size / side
    t = np.abs((np.arange(size)[None] + 0.5 - centres) / scale)
    near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    kernel = np.where(t < 1, near, np.where(t < 2, far, 0.0))
    return kernel / kernel.sum(1, keepdims=True)


@pytest.mark.parametrize(("shape", "side"), [((28, 28, 1), 299), ((40, 70, 3), 31)])
def test_clean_resize_is_the_antialiased_bicubic_filter(shape, side):
    image = pictures(1, shape)
    down, across = bicubic_weights(shape[0], side), bicubic_weights(shape[1], side)
    wanted = np.einsum("ih,hwc,jw->cij", down, image[0].astype(float), across)
    out = clean_resize(image, side)[0].numpy()
    np.testing.assert_allclose(out, wanted.clip(0, 255), atol=1e-3)  # clipped, not rounded
    if side > shape[0]:
        assert wanted.min() < -10 and wanted.max() > 265
    else:
        plain = np.asarray(Image.fromarray(image[0, :, :, 0]).resize((side, side), Image.Resampling.BICUBIC), float)
        assert np.abs(out[0] - plain).max() < 1.5 and np.abs(out[0] - out[0].round()).max() > 0.2


def test_input_is_scaled_repeated_and_put_on_white():
    grey = pictures(2)
    x = prepare(grey)
    assert x.shape == (2, 3, 299, 299) and torch.equal(x[:, 0], x[:, 2])
    torch.testing.assert_close(x[:, 1, 0, 0], (torch.from_numpy(grey[:, 0, 0, 0]).float() - 128) / 128)
    assert prepare(np.full((1, 4, 4, 3), 255, np.uint8), "inception-clean").max() == pytest.approx(127 / 128)
    black_and_white = prepare(np.array([0, 255], np.uint8).reshape(2, 1, 1, 1), "inception-pytorch")
    assert black_and_white.amin() == pytest.approx(-1) and black_and_white.amax() == pytest.approx(1)
    rgba = np.array([[[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 51]]]], np.uint8)
    assert over_white(rgba).tolist() == [[[[200, 100, 0], [255, 255, 255], [244, 224, 204]]]]


def test_features_do_not_depend_on_how_many_are_asked_for(fake, monkeypatch):
    from elegan.metrics import features

    monkeypatch.setattr(features, "PIXELS", 3 * 299**2)
    five = pictures(5, (8, 8, 3))
    for name in inception.WAYS:
        judge = load_features(name, weights=fake)
        together, alone = judge(five), judge(five[4:])
        assert together.features.shape == (5, 2048) and together.foreign.shape == (5, 1008)
        assert together.probabilities is None and judge.classes == 0  # ImageNet's classes are not the data's
        assert np.array_equal(together.features[4:], alone.features)
        assert np.array_equal(together.foreign[4:], alone.foreign)
        np.testing.assert_allclose(together.foreign.sum(1), 1, rtol=1e-4)
    assert "torch bilinear to 299x299" in str(judge) and weights.SHA256[:16] in str(judge)
    assert judge.key != load_features("inception", weights=fake).key


def test_file_is_found_in_each_of_its_places(fake, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"needs pt_inception.*ELEGAN_INCEPTION"):
        weights.load_inception(download=False)
    hub = tmp_path / "torch" / "hub" / "checkpoints"
    for place, name in ((weights.weights_folder(), weights.FILE), (hub, weights.SAME)):
        place.mkdir(parents=True)
        (place / name).write_bytes(fake.read_bytes())
        assert next(weights._places()) == place / name
        (place / name).unlink()
    monkeypatch.setenv("ELEGAN_INCEPTION", str(fake.parent))  # the folder serves as well
    one = weights.load_inception(download=False)
    monkeypatch.delenv("ELEGAN_INCEPTION")
    fake.unlink()  # converted by now
    two = weights.load_inception(download=False)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    converted = list(weights.weights_folder().iterdir())
    assert [path.suffix for path in converted] == [".safetensors"]


def test_damaged_conversion_is_made_again(fake, capsys):
    weights.load_inception(fake)
    (converted,) = weights.weights_folder().iterdir()
    data = bytearray(converted.read_bytes())
    data[-5] ^= 1
    converted.write_bytes(data)
    with pytest.raises(UserError, match="not on this machine"):
        weights.load_inception(download=False)
    assert "damaged" in capsys.readouterr().err and not converted.exists()
    weights.load_inception(fake)
    assert converted.exists()


def test_published_checksum_begins_as_the_files_name_says():
    assert weights.FILE.endswith(f"-{weights.SHA256[:8]}.pth") and len(weights.SHA256) == 64


def test_wrong_and_truncated_files_are_refused(fake, tmp_path):
    whole = fake.read_bytes()
    fake.write_bytes(whole[:-1])
    with pytest.raises(UserError, match="incomplete"):
        weights.load_inception(fake)
    fake.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match="not the published weights"):
        weights.load_inception(fake)
    with pytest.raises(UserError, match="where there is no file"):
        weights.load_inception(tmp_path / "nowhere.pth")
    with pytest.raises(UserError, match="a folder without"):
        weights.load_inception(tmp_path)
    assert not weights.weights_folder().exists()


def test_no_code_of_the_file_is_run(fake, tmp_path, monkeypatch):
    class Harm:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "harm",))

    buffer = io.BytesIO()
    torch.save({"fc.weight": Harm()}, buffer)
    fake.write_bytes(buffer.getvalue())
    monkeypatch.setattr(weights, "SHA256", hashlib.sha256(buffer.getvalue()).hexdigest())
    with pytest.raises(Exception, match="eights"):
        weights.load_inception(fake)
    assert not (tmp_path / "harm").exists()


def test_download_checks_the_file_and_asks_the_next_mirror(fake, fake_bytes):
    wrong = {"/a.pth": b"x" * 1000}
    with mirror({"/a.pth": fake_bytes}, cut_off) as (cut, _), mirror(wrong, good) as (other, _):
        with pytest.raises(UserError, match=r"no mirror sent it .*incomplete.*--inception-weights FILE"):
            weights.load_inception(mirrors=[f"{cut}/a.pth", f"{other}/a.pth"])
        assert not list(weights.weights_folder().iterdir())
        with mirror({"/b.pth": fake_bytes}, good) as (right, asked):
            weights.load_inception(mirrors=[f"{other}/a.pth", f"{right}/b.pth"])
            weights.load_inception(mirrors=[f"{right}/b.pth"])
            assert asked == ["/b.pth"]  # once
    assert [path.suffix for path in weights.weights_folder().iterdir()] == [".safetensors"]
    with mirror({"/b.pth": fake_bytes}, missing) as (gone, _):
        (converted,) = weights.weights_folder().iterdir()
        converted.unlink()
        with pytest.raises(UserError, match="HTTP 404"):
            weights.load_inception(mirrors=[f"{gone}/b.pth"])


def test_weights_belong_to_inception_only(tmp_path):
    with pytest.raises(UserError, match="--inception-weights belongs to"):
        load_features("fashion", weights=tmp_path / "x.pth")
    assert inception.CLASSES == 1008
