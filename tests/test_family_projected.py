"""Projected GAN: D sees frozen maps, four games are played on them, and the judge is somebody else."""

from __future__ import annotations

import hashlib
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import elegan
from elegan.errors import UserError
from elegan.families import projected
from elegan.families.base import Batch, Clock, ImageSpec
from elegan.judge import check_independent
from elegan.metrics.evaluate import AUTO
from elegan.metrics.features import WEIGHTS, load_features
from elegan.networks.backbones import RandomMaps, load_backbone
from elegan.training import run

SPEC = ImageSpec(1, 28, 28, 3)


def make(spec: ImageSpec = SPEC, **changes: Any) -> Any:
    torch.manual_seed(0)
    config = projected.PRESETS["tiny"].config
    return projected.Model(projected.Config(**(config.model_dump() | {"batch": 4} | changes)), spec)


def step(model: Any, at: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(at)
    spec = model.spec
    images = torch.rand(4, spec.channels, spec.height, spec.width) * 2 - 1
    return model.step([Batch(images, torch.arange(4) % 3)], Clock(at, 1000))


def hash_of(net: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(net.state_dict().items()):
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("features", ["fashion", "digits", "random"])
def test_training_leaves_the_frozen_network_and_its_mixing_alone(features):
    model = make(features=features)
    before, heads = hash_of(model.P), hash_of(model.D)
    for at in range(2):
        step(model, at)
    assert hash_of(model.P) == before
    assert hash_of(model.D) != heads
    assert not any(p.requires_grad for p in model.P.parameters())
    assert not any(m.training for m in model.P.modules())


def test_the_hash_notices_a_change():
    model = make()
    before = hash_of(model.P)
    with torch.no_grad():
        next(model.P.parameters()).mul_(1.001)
    assert hash_of(model.P) != before


@pytest.mark.parametrize("features", ["fashion", "digits", "random"])
def test_four_mixed_maps_from_fine_to_coarse(features):
    model = make(features=features)
    maps = model.P(torch.rand(2, 1, 28, 28))
    assert [len(m) for m in maps] == [2] * 4
    assert [m.shape[1] for m in maps] == [8] * 4
    assert all(a.shape[2] >= b.shape[2] for a, b in pairwise(maps))
    assert len(model.D.heads) == 4


def test_scales_are_mixed_downwards():
    """The finest mixed map follows from every map, the coarsest from its own alone."""
    model = make(features="random")
    images, plain = torch.rand(1, 1, 28, 28), model.P.maps
    before = model.P(images)
    for changed in range(4):
        model.P.maps = lambda x, i=changed: [m + (k == i) for k, m in enumerate(plain(x))]
        after = model.P(images)
        differs = [not torch.allclose(a, b) for a, b in zip(before, after, strict=True)]
        assert differs == [i <= changed for i in range(4)]


def test_the_mixing_is_drawn_anew_for_every_seed_and_the_random_network_is_not():
    a, b = make(), projected.Model(projected.PRESETS["tiny"].config, SPEC)
    assert not torch.equal(a.P.channels[0].weight, b.P.channels[0].weight)
    assert torch.equal(a.P.backbone.layers[0].weight, b.P.backbone.layers[0].weight)
    torch.manual_seed(7)
    assert torch.equal(RandomMaps(1).layers[2].weight, RandomMaps(1).layers[2].weight)


def test_four_hinge_games_are_summed():
    """Where every head says 0, D's loss is 1 + 1 at each of four scales and G's is 0; G still learns."""
    model = make()
    for head in model.D.heads:
        torch.nn.utils.parametrize.remove_parametrizations(head[-1], "weight")
        nn.init.zeros_(head[-1].bias)
        nn.init.zeros_(head[-1].weight)
    model.D_adam.param_groups[0]["lr"] = 0.0
    model.config = model.config.model_copy(update={"D_lr": 0.0})
    values = step(model)
    assert values["D_loss"].item() == pytest.approx(8.0)
    assert values["G_loss"].item() == pytest.approx(0.0)


def test_g_is_taught_through_the_frozen_network():
    model = make()
    before = model.G.layers[0].weight.detach().clone()
    step(model)
    assert not torch.equal(model.G.layers[0].weight, before)


def test_all_that_the_frozen_network_sees_is_augmented():
    model = make(augment="diffaugment")
    made, seen = [], []
    plain = model.augment
    model.augment = lambda images, p: made.append(plain(images, p)) or made[-1]
    model.P.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    step(model)
    assert [len(x) for x in seen] == [8, 4]
    assert all(a is b for a, b in zip(made, seen, strict=True))


class Own(nn.Module):
    """A user's network: two maps of colour pictures in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 5, 3, 2, 1), nn.Conv2d(5, 6, 3, 2, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        first = self.a(x)
        return [first, self.b(first)]


@pytest.fixture
def own(tmp_path) -> Path:
    path = tmp_path / "own.pt"
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer torch would rather have another format
        torch.jit.save(torch.jit.script(Own()), str(path))
    return path


def test_a_network_of_the_users_own(own):
    spec = ImageSpec(3, 24, 20, 3)
    model = make(spec, features=str(own))
    images = torch.rand(2, 3, 24, 20) * 2 - 1
    found = load_backbone(str(own), 3)(images)
    torch.manual_seed(3)
    for a, b in zip(found, Own()(0.5 * images + 0.5), strict=True):
        torch.testing.assert_close(a, b)
    assert [m.shape[2] for m in model.P(images)] == [12, 6, 3, 2], "fewer than four maps are halved on"
    before = hash_of(model.P)
    assert all(torch.isfinite(v) for v in step(model).values())
    assert hash_of(model.P) == before


@pytest.mark.parametrize(
    ("features", "match"),
    [
        ("fashoin", r"unknown; did you mean 'fashion'"),
        ("nowhere.pt", "no such file"),
        ("nowhere.safetensors", "no such file"),
        ("broken.pt", "is not a TorchScript file"),
        ("broken.safetensors", "is not a feature classifier"),
    ],
)
def test_what_is_no_network_is_refused(features, match, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("broken.pt", "broken.safetensors"):
        Path(name).write_bytes(b"nothing")
    with pytest.raises(UserError, match=match):
        make(features=features)


def test_a_network_that_takes_other_pictures_is_refused(own):
    with pytest.raises(UserError, match=r"cannot take 28x28x1 pictures"):
        make(features=str(own))


class Settings:
    """As much of a configuration as the check reads."""

    def __init__(self, features: str | None) -> None:
        self.model = projected.Config(features=features) if features else projected.FamilyConfig()


def test_nobody_is_judged_by_the_features_it_was_trained_on(tmp_path):
    copy = tmp_path / "renamed.safetensors"
    copy.write_bytes((WEIGHTS / "fashion.safetensors").read_bytes())
    for trained, judge, data, refused in [
        ("fashion", "auto", "fashion-mnist", True),
        ("fashion", "fashion", "mnist", True),
        ("fashion", str(copy), "garments", True),
        (str(copy), "auto", "fashion-mnist", True),
        ("digits", "auto", "fashion-mnist", False),
        ("fashion-tuning", "fashion-tuning", "fashion-mnist", True),
        ("fashion-tuning", "auto", "fashion-mnist", False),
        ("fashion", "descriptors", "fashion-mnist", False),
        ("random", "auto", "fashion-mnist", False),
        (None, "auto", "fashion-mnist", False),
    ]:
        if refused:
            with pytest.raises(UserError, match="cannot judge it; name others"):
                check_independent(Settings(trained), judge, data)
        else:
            check_independent(Settings(trained), judge, data)


@pytest.mark.usefixtures("quick_plan")
def test_evaluate_and_scores_during_the_run_ask_first(data, tmp_path, monkeypatch):
    monkeypatch.setitem(AUTO, "blobs", "fashion")
    settings = {"features": "fashion", "batch": 8, "grids": 1, "grid_side": 1, "precision": "fp32"}
    with pytest.raises(UserError, match="cannot judge it"):
        elegan.train("projected-tiny", data, tmp_path / "a", steps=1, show=False, score_every=8, **settings)
    assert not (tmp_path / "a").exists()
    trained = elegan.train("projected-tiny", data, tmp_path / "b", steps=1, show=False, **settings)
    for features in ("auto", "fashion", load_features("fashion")):
        with pytest.raises(UserError, match="cannot judge it"):
            elegan.evaluate(trained, n=20, features=features)
    with pytest.raises(UserError, match="too few"):  # this small data set is: the judge was let in
        elegan.evaluate(trained, n=20, features="descriptors")
    assert run.RunFolder(tmp_path / "b").exists
