"""Beginning with another run's weights, and FreezeD: what is taken over, what stays, what is refused."""

from __future__ import annotations

import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import elegan
from conftest import make_npz
from elegan import families
from elegan.errors import UserError
from elegan.families.base import Family, ImageSpec
from elegan.training import checkpoint, run
from elegan.training.events import Warned
from elegan.training.folder import RunFolder
from elegan.training.transfer import freeze_lower, open_source

pytestmark = pytest.mark.usefixtures("quick_plan")
QUICK: dict[str, Any] = {"precision": "fp32", "device": "cpu", "grids": 1, "grid_side": 1, "batch": 8}


def train(data: Path, out: Path, preset: str = "sngan-tiny", steps: int = 2, **settings: Any) -> elegan.Run:
    return elegan.train(preset, data, out, steps=steps, show=False, **(QUICK | settings))


def weights(out: Path) -> dict[str, torch.Tensor]:
    return checkpoint.newest(RunFolder(out).checkpoints)[0]


def notes(data: Path, out: Path, preset: str, **settings: Any) -> list[str]:
    """What a run says before it trains."""
    folder, asked = run.prepare(out, preset, data, settings=QUICK | settings)
    stream = run.events(asked, folder, {"steps": 1})
    said = [event.text for event in islice(stream, 20) if isinstance(event, Warned)]
    return [text for text in said if text.startswith("weights of")]


@pytest.fixture
def first(data, tmp_path) -> Path:
    train(data, tmp_path / "first")
    return tmp_path / "first"


def test_a_run_begins_where_another_ended(data, first, tmp_path):
    """With learning rates near zero the new run keeps the old weights; without init it does not."""
    still = {"G_lr": 1e-12, "D_lr": 1e-12, "steps": 1, "seed": 5}
    train(data, tmp_path / "second", init=first, **still)
    train(data, tmp_path / "third", **still)
    old, new, other = (weights(tmp_path / name) for name in ("first", "second", "third"))
    keys = [k for k in old if k.startswith("nets/G/") and k.endswith(("weight", "original"))]
    assert len(keys) > 3
    for key in keys:
        torch.testing.assert_close(new[key], old[key], atol=1e-6, rtol=0)
    assert any((other[key] - old[key]).abs().max() > 1e-2 for key in keys)
    assert new["optimizers/G/0/step"].item() == 1, "optimisers begin anew"
    assert elegan.load(tmp_path / "second").config.train.init == str(first)


def test_what_was_taken_over_is_said(data, first, tmp_path):
    (line,) = notes(data, tmp_path / "second", "sngan-tiny", init=str(first))
    assert line.startswith(f"weights of {first} (sngan, 16 images): G: all ")
    assert "D: all" in line
    assert "G_ema: all" in line


def test_other_classes_keep_all_but_what_knows_the_classes(first, tmp_path):
    unlabelled = make_npz(tmp_path / "plain.npz", labelled=False)
    (line,) = notes(unlabelled, tmp_path / "second", "sngan-tiny", init=str(first))
    assert "anew: " in line
    assert "start.0.weight (576x16 here, 576x20 there)" in line
    assert "(not there)" in line
    source, model = open_source(first), elegan.load(tmp_path / "second").model
    assert torch.equal(source.nets["D"]["linear.bias"], weights(first)["nets/D/linear.bias"])
    assert isinstance(model, Family)


def test_other_widths_and_families_take_what_fits_or_are_refused(data, first, tmp_path):
    (line,) = notes(data, tmp_path / "second", "sngan-tiny", init=str(first), D_width=4)
    assert "D: " in line
    assert "anew" in line.split("D: ")[1]
    with pytest.raises(UserError, match=r"nothing of its sngan fits this wgan; start from a run of the same family"):
        train(data, tmp_path / "third", "wgan-tiny", init=first)
    assert not (tmp_path / "third").exists(), "nothing half-written"


def test_an_average_without_a_counterpart_begins_as_its_network(data, tmp_path):
    train(data, tmp_path / "plain", "tiny", ema_half_life=0)
    (line,) = notes(data, tmp_path / "second", "tiny", init=str(tmp_path / "plain"))
    assert "G_ema: all" in line
    source = open_source(tmp_path / "plain")
    model = families.get("gan").Model(families.preset("tiny")[1].config, ImageSpec(1, 12, 12, 3))
    source.into(model)
    key = "layers.0.weight"
    assert torch.equal(model.parts.nets["G_ema"].state_dict()[key], source.nets["G"][key])


@pytest.mark.parametrize(
    ("path", "match"),
    [("nowhere", "no such run folder"), (".", "not a run folder"), ("empty", "has no checkpoint yet")],
)
def test_what_is_no_run_is_refused_before_anything_is_written(path, match, data, first, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(first, tmp_path / "empty")
    shutil.rmtree(tmp_path / "empty" / "checkpoints")
    with pytest.raises(UserError, match=match):
        train(data, tmp_path / "second", init=path)
    assert not (tmp_path / "second").exists()


def test_going_on_does_not_begin_again(data, first, tmp_path):
    """k steps, a stop, k more equal 2k, with init and frozen layers; the first run is not needed any more."""
    settings: dict[str, Any] = {"init": first, "freeze_D": 1, "checkpoint_every": 2}
    train(data, tmp_path / "whole", steps=4, **settings)
    folder, asked = run.prepare(
        tmp_path / "parts", "sngan-tiny", data, init=first, settings=QUICK | {"freeze_D": 1, "checkpoint_every": 2}
    )
    calls = iter(range(10))
    list(run.events(asked, folder, {"steps": 4}, stop=lambda: next(calls) >= 2))
    assert weights(tmp_path / "parts").keys()
    shutil.rmtree(first)
    elegan.train(out=tmp_path / "parts", show=False)
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_frozen_layers_stay_and_the_others_learn(data, first, tmp_path):
    train(data, tmp_path / "second", init=first, freeze_D=2, steps=3, objective="least-squares")
    old, new = weights(first), weights(tmp_path / "second")
    changed = {k: not torch.equal(old[k], new[k]) for k in old if k.startswith("nets/D/") and not k.endswith(".u")}
    lower = [k for k in changed if k.startswith(("nets/D/features.0.", "nets/D/features.2."))]
    assert len(lower) == 4
    assert not any(changed[k] for k in lower)
    assert [k for k, moved in changed.items() if not moved and k not in lower] == []


def model_of(preset: str) -> Family:
    family, recipe = families.preset(preset)
    return families.get(family).Model(recipe.config, ImageSpec(1, 24, 24, 3))


def frozen_names(model: Family) -> set[str]:
    return {name for name, p in model.parts.nets["D"].named_parameters() if not p.requires_grad}


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("tiny", {"layers.0.weight", "layers.0.bias"}),
        ("ada-tiny", {"layers.0.weight", "layers.0.bias", "told.0.weight"}),
        ("acgan-tiny", {"features.layers.0.weight", "features.layers.0.bias"}),
        ("sngan-tiny", {"features.0.bias", "features.0.parametrizations.weight.original"}),
    ],
)
def test_the_lowest_layer_is_the_one_at_the_picture(preset, expected):
    model = model_of(preset)
    freeze_lower(model, 1)
    assert frozen_names(model) == expected


@pytest.mark.parametrize(
    ("preset", "layers", "frozen", "learning"),
    [
        # all that see pictures, whatever their size, then the blocks from the largest map down
        ("progressive-tiny", 1, {"pictures.0", "pictures.2"}, {"blocks.1", "blocks.0", "last"}),
        ("progressive-tiny", 3, {"pictures.0", "blocks.1"}, {"blocks.0", "last"}),
        ("lapgan-tiny", 1, {"0.plane", "0.layers.0", "1.layers.0", "2.layers.0"}, {"0.layers.2", "2.layers.2"}),
        ("projected-tiny", 2, {"heads.0.0", "heads.3.2"}, {"heads.0.4", "heads.3.4"}),
        ("r3gan-tiny", 5, {"start", "stages.0", "downs.0"}, {"stages.1", "downs.1", "out"}),
        ("biggan-tiny", 7, {"blocks.0", "attention"}, {"blocks.1", "linear"}),
        ("stylegan2-tiny", 2, {"start", "blocks.0.same"}, {"blocks.0.down", "mix"}),
    ],
)
def test_layers_freeze_from_the_picture_upwards(preset, layers, frozen, learning):
    model = model_of(preset)
    freeze_lower(model, layers)
    names = {name for name, _ in model.parts.nets["D"].named_parameters()}
    for part in frozen | learning:
        assert (own := {name for name in names if name.startswith(f"{part}.")}), part
        assert (own <= frozen_names(model)) == (part in frozen), part
        assert part in frozen or not own & frozen_names(model), part


def test_a_second_D_freezes_beside_the_first():
    family, recipe = families.preset("sngan-tiny")
    Family = families.get(family)
    model = Family.Model(recipe.config.model_copy(update={"D_small": 8}), ImageSpec(1, 24, 24, 3))
    freeze_lower(model, 1)
    assert {name.split(".parametrizations")[0].removesuffix(".bias") for name in frozen_names(model)} == {
        "features.0", "small.features.0",
    }  # fmt: skip


@pytest.mark.parametrize("preset", sorted(p for p in families.presets() if p.split("-")[-1] == "tiny"))
def test_all_of_D_is_on_the_ladder_once_and_its_top_learns(preset):
    model = model_of(preset)
    if "D" not in model.parts.nets:
        return
    D = model.parts.nets["D"]
    held = [id(p) for rung in model.ladder() for part in rung for p in part.parameters()]
    assert sorted(held) == sorted(id(p) for p in D.parameters())
    with pytest.raises(UserError, match=r"freeze_D=999: D has \d+ layers") as refused:
        freeze_lower(model, 999)
    freeze_lower(model, int(str(refused.value).rpartition(" ")[2]))
    assert any(p.requires_grad for p in D.parameters())


def test_more_layers_than_there_are_cannot_be_frozen():
    with pytest.raises(UserError, match=r"freeze_D=3: D has 3 layers; freeze at most 2"):
        freeze_lower(model_of("tiny"), 3)


def test_freezing_needs_something_learnt(data, tmp_path):
    with pytest.raises(UserError, match=r"name that run with --init RUN"):
        train(data, tmp_path / "x", freeze_D=1)


def test_a_clipped_critic_leaves_frozen_weights_alone():
    from elegan.adversarial.stabilizers import clip_weights

    layer = torch.nn.Linear(4, 4)
    layer.weight.requires_grad_(False).fill_(3.0)
    clip_weights(layer.parameters(), 0.01)
    assert np.allclose(layer.weight, 3.0)
    assert layer.bias.abs().max() <= 0.01
