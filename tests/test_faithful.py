"""What a family's name promises beyond its equations, in trained networks: what a D learns, what its layers keep, what
settings reach, at every size of picture."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.evidence.gates.labels import fresh_information
from torch import Tensor, nn

from elegan import families
from elegan.adversarial.objectives import OBJECTIVES
from elegan.families import gan, improved
from elegan.families.base import Batch, Clock, Family, ImageSpec, minimize
from elegan.metrics import classifiers
from elegan.networks.convolutions import up_conv
from elegan.networks.resize import resize_conv
from elegan.training import checkpoint

TINY = sorted(name for name in families.presets() if name.endswith("-tiny"))
SPEC = ImageSpec(1, 24, 20, 3)


def make(preset: str, spec: ImageSpec = SPEC, seed: int = 0, **changes: Any) -> Any:
    family, recipe = families.preset(preset)
    torch.manual_seed(seed)
    settings = recipe.config.model_dump() | {"batch": 4} | changes
    return families.get(family).Model(families.get(family).Config(**settings), spec)


def step(model: Family, seen: int = 0, total: int = 1000) -> dict[str, Tensor]:
    torch.manual_seed(seen)
    n, spec = model.config.batch, model.spec
    size = (n, spec.channels, spec.height, spec.width)
    batches = [Batch(torch.rand(size) * 2 - 1, torch.arange(n) % spec.classes) for _ in range(model.batches_per_step)]
    return model.step(batches, Clock(seen, total))


# Vanilla -----------------------------------------------------------------------------------------------------------


def test_a_D_that_learns_two_gaussians_finds_their_log_ratio():
    """N(0, 1) is real and N(1, 1) fake: D's logit comes to 1/2 - x within 0.1 where both are (Goodfellow+ 2014)."""
    torch.manual_seed(0)
    game = OBJECTIVES["minimax"]
    D = nn.Sequential(nn.Linear(1, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
    adam = torch.optim.Adam(D.parameters(), 1e-2)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(adam, 400)
    for _ in range(400):
        real, fake = D(torch.randn(4096, 1)), D(torch.randn(4096, 1) + 1)
        minimize(game.D_real(real, torch.ones(4096, 1)) + game.D_fake(fake, torch.zeros(4096, 1)), adam)
        rates.step()
    x = torch.linspace(-2, 2, 81)[:, None]
    assert (D(x) - (0.5 - x)).abs().max() <= 0.1


# Upsampling --------------------------------------------------------------------------------------------------------


def checkerboard(layer: nn.Module) -> float:
    """The variance among the four places of a 2x2 block, far from the edges, of what a constant becomes."""
    with torch.no_grad():
        y = layer(torch.randn(1, 8, 1, 1).expand(1, 8, 12, 12))[:, :, 6:-6, 6:-6]
    places = torch.stack([y[:, :, i::2, j::2].mean((0, 2, 3)) for i in (0, 1) for j in (0, 1)])
    return float(places.var(0).max())


@pytest.mark.parametrize("kernel", [3, 4, 5])
def test_resizing_before_a_convolution_leaves_no_checkerboard(kernel):
    """Odena+ 2016: where a kernel's side is no multiple of the stride, transposed convolutions overlap unevenly."""
    torch.manual_seed(0)
    assert checkerboard(resize_conv(8, 4, kernel, 2)) <= 1e-6
    if kernel % 2:
        assert checkerboard(up_conv(8, 4, kernel, 2)) > 1e-3


# Spectral norms ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("preset", "changes"), [
    ("sngan-tiny", {}), ("sngan-tiny", {"D_small": 8, "kinds": 2, "group": 2}), ("cgan-tiny", {}),
    ("cgan-tiny", {"label": "concat"}),
])  # fmt: skip
def test_every_layer_of_D_stays_at_a_singular_value_of_one_while_it_learns(preset, changes):
    """Miyato+ 2018: the iterated norm follows the weights, in every layer and every D."""
    model = make(preset, **changes)
    if changes.get("kinds"):
        model.prepare(torch.randint(256, (64, 1, 24, 20), dtype=torch.uint8), torch.arange(64) % 3)
    before = [p.clone() for p in model.D.parameters()]
    for i in range(60):
        step(model, seen=4 * i, total=4 * 60)  # whose rates fall, as those of a run do
    moved = [not torch.equal(a, b) for a, b in zip(before, model.D.parameters(), strict=True) if a.ndim > 1]
    assert all(moved)
    layers = [m for m in model.D.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.Embedding)]
    assert len(layers) >= 3
    for layer in layers:
        top = torch.linalg.matrix_norm(layer.eval().weight.detach().flatten(1), 2).item()
        assert top == pytest.approx(1, abs=0.05), layer
    assert not [m for m in model.D.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]


# InfoGAN -----------------------------------------------------------------------------------------------------------


class Glance(nn.Module):
    """A classifier that learns in a moment: images (N, 1, 28, 28) -> (None, logits)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(28 * 28, classes)

    def forward(self, x: Tensor) -> tuple[None, Tensor]:
        return None, self.linear(x.flatten(1))


def test_a_fresh_reader_finds_the_code_where_there_is_one(monkeypatch):
    """I(c; x) of pictures that show their code, and of the same ones beside codes of others (evidence, `infogan`)."""
    monkeypatch.setattr(classifiers, "PlainClassifier", Glance)
    rng = np.random.default_rng(0)
    codes = rng.integers(10, size=4_000)
    images = rng.integers(60, size=(4_000, 28, 28, 1), dtype=np.uint8)
    for image, code in zip(images, codes, strict=True):
        row, column = divmod(code, 5)
        image[14 * row : 14 * (row + 1), 5 * column : 5 * (column + 1)] = 255
    torch.manual_seed(0)
    assert 2.2 <= fresh_information(images, codes) <= math.log(10)
    assert fresh_information(images, rng.permutation(codes)) < 0.1


# Soft labels -------------------------------------------------------------------------------------------------------


def targets_of(model: Any) -> dict[str, Tensor]:
    """What a step's D is told of real and of fake pictures."""
    game, told = model.objective, {}

    def listening(side: str, loss: Any) -> Any:
        def listen(logits: Tensor, target: Tensor) -> Tensor:
            told[side] = target.expand_as(logits).clone()
            return loss(logits, target)

        return listen

    model.objective = game._replace(D_real=listening("real", game.D_real), D_fake=listening("fake", game.D_fake))
    step(model)
    return told


@pytest.mark.parametrize("family", [gan, improved])
def test_smoothing_is_one_sided(family):
    """Salimans+ 2016: with smooth fakes D would reward G for what it draws already."""
    told = targets_of(make("tiny" if family is gan else "improved-tiny", label_smoothing=0.2))
    assert told["real"].tolist() == pytest.approx([0.8] * 4)
    assert told["fake"].tolist() == [0] * 4


@pytest.mark.parametrize("updates", ["joint", "separate", "shared"])
def test_flips_are_two_sided(updates):
    told = targets_of(make("tiny", batch=800, label_flip=0.3, updates=updates, spec=ImageSpec(1, 8, 8, 3)))
    assert set(told["real"].tolist()) == set(told["fake"].tolist()) == {0.0, 1.0}
    assert told["real"].mean().item() == pytest.approx(0.7, abs=0.05)
    assert told["fake"].mean().item() == pytest.approx(0.3, abs=0.05)


# Clipping ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("updates", "expected"), [("joint", 1), ("separate", 2), ("shared", 1)])
def test_weights_are_clipped_after_each_of_Ds_updates(updates, expected, monkeypatch):
    clipped = []
    monkeypatch.setattr(gan, "clip_weights", lambda *args: clipped.append(args))
    step(make("tiny", weight_clip=0.01, updates=updates))
    assert len(clipped) == expected


def test_a_critic_needs_something_that_bounds_it():
    with pytest.raises(ValueError, match="needs weight_clip"):
        gan.Config(objective="wasserstein")
    gan.Config(objective="wasserstein", weight_clip=0.01)


# R3GAN's penalties, one at a time -----------------------------------------------------------------------------------


def test_r3gan_punishes_the_slopes_that_were_asked_for():
    """Huang+ 2024 show that it takes both, which add up."""
    found = {}
    for name in ("R1", "R2", "R1+R2"):
        model = make("r3gan-tiny", penalties=name)
        with torch.no_grad():  # at first D's blocks are identities, and its slope the same everywhere
            for p in model.D.parameters():
                p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())), alpha=0.3)
        found[name] = step(model)["penalty"].item()
    assert min(found.values()) > 0
    assert found["R1"] != pytest.approx(found["R2"], rel=1e-3)
    assert found["R1"] + found["R2"] == pytest.approx(found["R1+R2"], rel=1e-5)


# Growing -----------------------------------------------------------------------------------------------------------


def test_a_run_that_ends_before_its_last_layers_says_so():
    model = make("progressive-tiny")
    assert model.unfinished(1000) == ""
    with pytest.raises(ValueError, match="less than 1"):
        make("progressive-tiny", grow_share=1.0)  # the last layer would never be there as a whole
    slow = make("progressive-tiny", phase_images=300)
    assert "ends at 1.3 of 2 doublings" in slow.unfinished(1000)
    assert slow.unfinished(1300) == ""


# Two rates ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["tiny", *TINY])
def test_each_player_has_its_own_rate(preset):
    """Heusel+ 2017 (TTUR), where a family has two rates to set."""
    fields = type(families.preset(preset)[1].config).model_fields
    if not {"G_lr", "D_lr"} <= fields.keys():
        assert "lr" in fields, "one rate for both"
        return
    model = make(preset, spec=ImageSpec(1, 28, 28, 3), G_lr=1e-4, D_lr=3e-4)
    step(model)
    rates = {name: adam.param_groups[0]["lr"] for name, adam in model.parts.optimizers.items()}
    assert rates["D"] == pytest.approx(3 * rates["G"])
    for name, net in (("G", model.G), ("D", model.D)):
        held = {id(p) for group in model.parts.optimizers[name].param_groups for p in group["params"]}
        assert held == {id(p) for p in net.parameters() if p.requires_grad}


def test_D_takes_as_many_steps_of_each_kind_as_asked(monkeypatch):
    """Miyato+ 2018 have five of D for each of G; every one on a batch of its own."""
    taken: list[str] = []
    for steps in (1, 3):
        model = make("sngan-tiny", D_steps=steps)
        for name in ("D_adam", "G_adam"):
            adam = getattr(model, name)
            monkeypatch.setattr(adam, "step", lambda *args, name=name, go=adam.step: (taken.append(name), go(*args)))
        judged: list[Tensor] = []
        hook = model.D.register_forward_pre_hook(lambda _, args, judged=judged: judged.append(args[0][:4].clone()))
        step(model)
        hook.remove()
        assert taken == ["D_adam"] * steps + ["G_adam"]
        assert len({tuple(x.flatten().tolist()) for x in judged}) == steps + 1
        taken.clear()


# Sizes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("preset", ["tiny", *TINY])
def test_every_family_learns_pictures_of_64_pixels(preset, channels):
    model = make(preset, spec=ImageSpec(channels, 64, 64, 3))
    assert all(torch.isfinite(value) for value in step(model, seen=900).values())
    images = model.sample(2, seed=0)
    assert images.shape == (2, channels, 64, 64)
    assert torch.isfinite(images).all()


# ADA ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["ada-tiny", "stylegan2-tiny"])
def test_ada_goes_on_with_its_probability(preset):
    """Karras+ 2020: p, which has moved by then, and what has been counted towards its next move."""
    settings = {"augment": "ada", "ada_interval": 2, "ada_images": 100}
    model, other = make(preset, **settings), make(preset, seed=1, **settings)
    model.parts.values["p"].fill_(0.3)
    for i in range(5):
        step(model, seen=4 * i)
    tensors, how = checkpoint.flatten(model.parts)
    assert 0 < model.parts.values["p"].item() != pytest.approx(0.3)
    checkpoint.restore(other.parts, {name: value.detach().clone() for name, value in tensors.items()}, how)
    for i in range(5, 10):
        step(model, seen=4 * i)
        step(other, seen=4 * i)
    again = checkpoint.flatten(other.parts)[0]
    for name, value in checkpoint.flatten(model.parts)[0].items():
        assert torch.equal(value, again[name]), name
