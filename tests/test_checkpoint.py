"""Checkpoints: what is written is what is read, to the bit; what is damaged is seen, and nothing else is lost."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as save_tensors
from torch import nn

from elegan.errors import UserError
from elegan.families.base import Parts
from elegan.training import checkpoint
from elegan.training.checkpoint import Damaged
from elegan.training.loop import Progress

FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
COUNTERS = {"images": 64, "steps": 4, "seconds": 1.25, "sums": [2, {"D_loss": 1.5}]}


def make_parts(seed: int = 0, steps: int = 2) -> Parts:
    """A convolution stored channels_last and a batch norm, trained a little, and a value."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    adam = torch.optim.Adam(net.parameters(), 0.01, (0.5, 0.9), 1e-7, fused=True)
    parts = Parts({"G": net}, {"G": adam}, {"p": torch.tensor(0.25 + seed)})
    for _ in range(steps):
        advance(parts)
    return parts


def advance(parts: Parts) -> None:
    images = torch.randn(4, 3, 6, 6).contiguous(memory_format=torch.channels_last)
    parts.optimizers["G"].zero_grad()
    parts.nets["G"](images).square().mean().backward()
    parts.optimizers["G"].step()


def saved(folder: Path, images: int = 64, seed: int = 0) -> Path:
    return checkpoint.save(folder, make_parts(seed), COUNTERS | {"images": images})


class Whole(tuple[bytes, bytes]):
    """The JSON and the tensors of a good checkpoint, not printed with every example that fails."""

    def __repr__(self) -> str:
        return "Whole"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    path = saved(tmp_path_factory.mktemp("whole"))
    return Whole((path.read_bytes(), path.with_suffix(".safetensors").read_bytes()))


def put(folder: Path, text: bytes, tensors: bytes) -> Path:
    (folder / "000000064.json").write_bytes(text)
    (folder / "000000064.safetensors").write_bytes(tensors)
    return folder / "000000064.json"


def test_what_was_saved_goes_on_as_if_nothing_had_happened(tmp_path):
    parts, other = make_parts(), make_parts(seed=1)
    checkpoint.save(tmp_path, parts, COUNTERS)
    tensors, meta, faults = checkpoint.newest(tmp_path)
    checkpoint.restore(other, tensors, meta["optimizers"])
    assert faults == []
    assert meta["counters"] == COUNTERS
    assert other.values["p"] == 0.25
    assert other.optimizers["G"].param_groups[0]["betas"] == (0.5, 0.9)
    for bag in (parts, other):
        torch.manual_seed(5)
        advance(bag)
    ours, theirs = checkpoint.flatten(parts)[0], checkpoint.flatten(other)[0]
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_counters_survive(tmp_path):
    saved(tmp_path)
    counters = checkpoint.newest(tmp_path)[1]["counters"]
    assert Progress.from_dict(counters, torch.device("cpu")).to_dict() == COUNTERS


def test_the_files_are_plain(whole):
    text, tensors = whole
    meta = json.loads(text)
    assert meta["bytes"] == len(tensors)
    assert meta["format"] == checkpoint.FORMAT
    header = json.loads(tensors[8 : 8 + int.from_bytes(tensors[:8], "little")])
    assert {"nets/G/0.weight", "nets/G/1.running_mean", "optimizers/G/0/exp_avg", "values/p"} <= header.keys()


def test_saving_leaves_no_temporary_files(tmp_path):
    saved(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000000064.json", "000000064.safetensors"]


def test_the_newest_good_one_is_taken_and_every_fault_is_told(tmp_path):
    for images in (64, 128, 192, 1_000_000_000, 2_000_000_000):  # by number, not by spelling
        saved(tmp_path, images, seed=images % 7)
    (tmp_path / "2000000000.safetensors").unlink()
    truncated = tmp_path / "1000000000.safetensors"
    truncated.write_bytes(truncated.read_bytes()[:-1])
    (tmp_path / "000000192.json").write_text("{")
    _, meta, faults = checkpoint.newest(tmp_path)
    assert meta["counters"]["images"] == 128
    assert [f.split(":")[0] for f in faults] == ["2000000000.safetensors", "1000000000.safetensors", "000000192.json"]


def test_all_damaged_is_an_error_that_names_them(tmp_path):
    for images in (64, 128):
        saved(tmp_path, images).write_text("[]")
    with pytest.raises(UserError, match=r"no checkpoint can be read \(000000128.json.*000000064.json"):
        checkpoint.newest(tmp_path)


def test_none_at_all_is_not_an_error_of_the_user(tmp_path):
    with pytest.raises(FileNotFoundError):
        checkpoint.newest(tmp_path / "nothing")


def test_another_format_is_said(tmp_path, whole):
    meta = json.loads(whole[0]) | {"format": 99}
    with pytest.raises(Damaged, match="format 99"):
        checkpoint.read(put(tmp_path, json.dumps(meta).encode(), whole[1]))


def test_a_checkpoint_under_another_name_is_refused(tmp_path, whole):
    put(tmp_path, *whole)
    for suffix in (".json", ".safetensors"):
        (tmp_path / "000000064").with_suffix(suffix).rename((tmp_path / "000000999").with_suffix(suffix))
    with pytest.raises(Damaged, match="checksum"):
        checkpoint.read(tmp_path / "000000999.json")


@FUZZ
@given(data=st.data())
def test_one_changed_byte_is_seen(tmp_path, whole, data):
    """Of either file: what is read is damaged, or means the same (a space, the case of a digit's exponent)."""
    which = data.draw(st.sampled_from([0, 1]))
    content = bytearray(whole[which])
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    files = [bytes(content), whole[1]] if which == 0 else [whole[0], bytes(content)]
    path = put(tmp_path, *files)
    try:
        tensors, meta = checkpoint.read(path)
    except Damaged:
        return
    assert which == 0
    assert meta["counters"] == COUNTERS
    assert meta["optimizers"] == json.loads(whole[0])["optimizers"]
    assert len(tensors) > 5


@FUZZ
@given(cut=st.integers(0, 10**6), which=st.sampled_from([0, 1]))
def test_a_cut_file_is_seen(tmp_path, whole, cut, which):
    cut %= len(whole[which])
    path = put(tmp_path, *(w[:cut] if i == which else w for i, w in enumerate(whole)))
    with pytest.raises(Damaged):
        checkpoint.read(path)


@FUZZ
@given(junk=st.binary(max_size=200))
def test_junk_is_damaged(tmp_path, whole, junk):
    with pytest.raises(Damaged):
        checkpoint.read(put(tmp_path, junk, whole[1]))
    with pytest.raises(Damaged):
        checkpoint.read(put(tmp_path, whole[0], junk))


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@FUZZ
@given(key=st.sampled_from(["counters", "optimizers", "bytes", "sha256", "format"]), value=ANYTHING)
def test_a_part_of_another_kind_is_an_error_of_ours(tmp_path, whole, key, value):
    """Even where the checksum was made to fit (or left out), only Damaged and UserError come out."""
    meta = json.loads(whole[0]) | {key: value}
    del meta["self"]
    path = put(tmp_path, json.dumps(meta).encode(), whole[1])
    try:
        tensors, read = checkpoint.read(path)
        checkpoint.restore(make_parts(steps=0), tensors, read["optimizers"])
        Progress.from_dict(read["counters"], torch.device("cpu"))
    except (Damaged, UserError) as error:
        assert "\n" not in str(error)


@FUZZ
@given(
    key=st.sampled_from(["images", "steps", "seconds", "sums"]), value=ANYTHING, inner=st.sampled_from(["G", "groups"])
)
def test_odd_counters_and_settings(tmp_path, whole, key, value, inner):
    meta = json.loads(whole[0])
    meta["counters"][key] = value
    if inner == "G":
        meta["optimizers"]["G"] = value
    else:
        meta["optimizers"]["G"][0]["betas"] = value
    meta["self"] = checkpoint.digest_of(meta)
    path = put(tmp_path, json.dumps(meta).encode(), whole[1])
    try:
        tensors, read = checkpoint.read(path)
        checkpoint.restore(make_parts(steps=0), tensors, read["optimizers"])
        Progress.from_dict(read["counters"], torch.device("cpu"))
    except (Damaged, UserError) as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nets/G/0.weight": torch.zeros(2, 2)}, "does not fit network 'G'"),
        ({"nets/G/extra": torch.zeros(2)}, "does not fit network 'G'"),
        ({"values/p": None}, "lacks 'values/p'"),
        ({"nets/G/0.weight": None}, "does not fit network 'G'"),
    ],
)
def test_tensors_of_another_model_are_refused(tmp_path, change, message):
    tensors, settings_ = checkpoint.flatten(make_parts())
    tensors = {k: v for k, v in (tensors | change).items() if v is not None}
    with pytest.raises(UserError, match=message):
        checkpoint.restore(make_parts(), tensors, settings_)


def test_settings_of_another_optimizer_are_refused():
    tensors, settings_ = checkpoint.flatten(make_parts())
    with pytest.raises(UserError, match="no optimiser 'G'"):
        checkpoint.restore(make_parts(), tensors, {})
    with pytest.raises(UserError, match="does not fit optimiser 'G'"):
        checkpoint.restore(make_parts(), tensors, {"G": settings_["G"] * 2})


def test_pruning_keeps_the_newest_and_sweeps_up(tmp_path):
    for images in (64, 128, 192):
        latest = saved(tmp_path, images)
    (tmp_path / "000000100.safetensors").write_bytes(b"its JSON was never written")
    (tmp_path / ".000000128.safetensors.77.tmp").write_bytes(b"killed while writing")
    checkpoint.prune(tmp_path, 2, latest)
    assert {p.name for p in tmp_path.iterdir()} == {
        f"{stem}.{suffix}" for stem in ("000000128", "000000192") for suffix in ("json", "safetensors")
    }


def test_pruning_never_prefers_a_damaged_checkpoint_to_the_one_just_written(tmp_path):
    """A run went back from a damaged 192 to 64, and saved 128."""
    saved(tmp_path, 64)
    saved(tmp_path, 192).write_text("damaged")
    latest = saved(tmp_path, 128)
    checkpoint.prune(tmp_path, 1, latest)
    assert [p.name for p in checkpoint.listing(tmp_path)] == ["000000128.json"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path, monkeypatch, number):
    saved(tmp_path, 64)
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    for failing in (1, 2):
        calls: list[int] = []

        def fsync(descriptor: int, calls: list[int] = calls, failing: int = failing) -> None:
            calls.append(descriptor)
            if len(calls) == failing:
                raise OSError(number, "no more")

        monkeypatch.setattr("elegan.files.os.fsync", fsync)
        with pytest.raises(UserError, match="earlier checkpoints are intact") as caught:
            saved(tmp_path, 128)
        monkeypatch.undo()
        assert "\n" not in str(caught.value)
        assert ("disk is full" in str(caught.value)) == (number != errno.EIO)
        assert {p: p.read_bytes() for p in before} == before
        assert not list(tmp_path.glob(".*"))
        assert checkpoint.newest(tmp_path)[1]["counters"]["images"] == 64


def test_safetensors_of_odd_content_with_a_fitting_checksum(tmp_path, whole):
    import hashlib

    for content in (b"", b"\0" * 8, save_tensors({})[:-1], b"\xff" * 30, b"\x02\0\0\0\0\0\0\0{}xx"):
        meta: dict[str, Any] = json.loads(whole[0])
        meta |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        meta["self"] = checkpoint.digest_of(meta)
        with pytest.raises(Damaged):
            checkpoint.read(put(tmp_path, json.dumps(meta).encode(), content))
