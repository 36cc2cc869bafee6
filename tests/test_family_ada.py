"""ADA and DiffAugment: what D is shown in both steps, and the controller of p."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from elegan.adversarial import augment
from elegan.adversarial.augment import AUGMENTATIONS
from elegan.errors import UserError
from elegan.families import ada, biggan, r3gan, sngan, stylegan2
from elegan.families.base import Batch, Clock, ImageSpec
from elegan.training.transfer import freeze_lower

SPEC = ImageSpec(3, 16, 12, 3)


def make(**changes: Any) -> Any:
    torch.manual_seed(0)
    config = ada.PRESETS["tiny"].config
    return ada.Model(ada.Config(**(config.model_dump() | {"batch": 4} | changes)), SPEC)


def batch(seed: int = 0) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    return [Batch(torch.rand((4, 3, 16, 12), generator=generator) * 2 - 1, torch.arange(4) % 3)]


def step(model: Any, at: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(at)
    return model.step(batch(at), Clock(at, 1000))


@pytest.mark.parametrize("r1", [0.0, 1.0])
def test_all_that_d_sees_is_augmented_in_both_steps(r1):
    """Whatever reaches D, in its own step, for R1 and in G's, has come out of the augmentation."""
    model = make(augment="diffaugment", r1=r1, r1_every=1)
    made: list[Tensor] = []
    seen: list[Tensor] = []
    plain = model.augment

    def augment(images: Tensor, p: Any) -> Tensor:
        made.append(plain(images, p))
        return made[-1]

    model.augment = augment
    model.D.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    step(model)
    assert len(seen) == len(made) == (3 if r1 else 2)
    assert all(a is b for a, b in zip(seen, made, strict=True))
    assert [len(x) for x in seen] == ([8, 4, 4] if r1 else [8, 4]), "real and fake together, [real for R1,] G's fakes"


@pytest.mark.parametrize(
    ("family", "augment", "passes"),
    [
        (stylegan2, "ada", [4, 4, 4, 4]),  # real, fake, R1's real ones, G's fakes: D compares those of one kind
        (stylegan2, "diffaugment", [4, 4, 4, 4]),
        (biggan, "diffaugment", [8, 4]),
        (r3gan, "diffaugment", [8, 8]),  # R1 and R2 in the pass of both; G's fakes beside real ones
    ],
)
def test_so_it_is_in_the_families_that_can(family, augment, passes):
    torch.manual_seed(0)
    config = family.PRESETS["tiny"].config.model_dump() | {"batch": 4, "augment": augment}
    model: Any = family.Model(family.Config(**config), SPEC)
    assert model.augment is AUGMENTATIONS[augment]
    made: list[Tensor] = []
    seen: list[Tensor] = []

    def augmented(images: Tensor, p: Any) -> Tensor:
        made.append(AUGMENTATIONS[augment](images, torch.tensor(0.5)))
        return made[-1]

    model.augment = augmented
    model.D.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    values = step(model)
    assert [len(x) for x in seen] == passes
    assert all(a is b for a, b in zip(seen, made, strict=True))
    assert all(torch.isfinite(value) for value in values.values())
    model.augment = lambda images, p: images * 0
    before = {name: weight.detach().clone() for name, weight in model.G.named_parameters()}
    model.config = model.config.model_copy(update={"path_weight": 0.0, "orthogonal": 0.0})
    model.G_adam.state.clear()  # else its momentum would go on
    step(model, 4)
    assert all(torch.equal(weight, before[name]) for name, weight in model.G.named_parameters()), "G's goes through it"


def test_stylegan2_moves_p_by_its_logits_of_real_pictures():
    torch.manual_seed(0)
    config = stylegan2.PRESETS["tiny"].config.model_dump()
    settings = {"batch": 4, "augment": "ada", "ada_interval": 2, "ada_images": 64}
    model: Any = stylegan2.Model(stylegan2.Config(**config | settings), SPEC)
    sure = torch.ones(4)
    told = [model.adapt(logits)["p"].item() for logits in (sure, sure, sure, -sure, -sure, -sure)]
    assert told == [0, 0.125, 0.125, 0, 0, 0], "8 pictures over 64 after each second batch"
    model.parts.values["p"].fill_(0.5)
    values = step(model)
    assert values["p"] == 0.5
    assert abs(values["sign"]) <= 1
    plain: Any = stylegan2.Model(stylegan2.Config(**config | {"batch": 4}), SPEC)
    assert "p" not in step(plain).keys() | plain.parts.values.keys()


@pytest.mark.parametrize(("family", "passes"), [(ada, [8, 4, 4]), (stylegan2, [4, 4, 4, 4])])
def test_d_is_told_what_was_done_in_all_its_steps(family, passes, monkeypatch):
    """In D's step, R1's and G's; a picture as it is comes with nothing told, whatever D has learnt of it."""
    model = telling(family)
    model.parts.values["p"].fill_(0.7)
    said: list[Tensor] = []
    heard: list[Tensor] = []

    def ada_told(images: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        shown, told = augment.ada_told(images, p)
        said.append(told)
        return shown, told

    monkeypatch.setattr(family, "ada_told", ada_told)
    hook = model.D.register_forward_pre_hook(lambda _, args: heard.append(args[2]))
    step(model)
    hook.remove()
    assert [len(told) for told in said] == passes
    assert all(a is b for a, b in zip(said, heard, strict=True))
    learnt = [weight for name, weight in model.D.named_parameters() if name.startswith("told.")]
    assert len(learnt) == 2
    assert all(weight.grad is not None and weight.grad.any() for weight in learnt)

    images, labels = batch()[0]
    nothing = torch.zeros(4, augment.ADA_TOLD)
    told = model.D(images, labels, nothing)
    assert torch.allclose(model.D(images, labels), told)
    assert not torch.allclose(model.D(images, labels, nothing + 1), told)


def telling(family: Any) -> Any:
    """A model of a family whose D is told what ADA did, with R1 in every step."""
    torch.manual_seed(0)
    often = {"r1_every": 1} if family is ada else {"r1_interval": 1}
    changes = {"batch": 4, "augment": "ada", "ada_told": True, **often}
    return family.Model(family.Config(**(family.PRESETS["tiny"].config.model_dump() | changes)), SPEC)


@pytest.mark.parametrize("family", [ada, stylegan2])
def test_only_ada_tells_d_anything(family):
    for how in ("none", "diffaugment"):
        config = telling(family).config.model_copy(update={"augment": how})
        model = family.Model(config, SPEC)
        assert not len(model.D.told)
        step(model)
    assert not family.Config().ada_told, "the paper's ADA does not"


@pytest.mark.parametrize(
    ("family", "first", "layers"),
    [(ada, ["told.0.weight", "layers.0.weight", "layers.0.bias"], 3),
     (stylegan2, ["start.weight", "start.bias", "told.0.weight"], 8)],
)  # fmt: skip
def test_what_d_is_told_stands_beside_its_layers_for_freeze_d(family, first, layers):
    model = telling(family)
    freeze_lower(model, 1)
    assert [name for name, weight in model.D.named_parameters() if not weight.requires_grad] == first
    with pytest.raises(UserError, match=f"D has {layers} layers"):
        freeze_lower(telling(family), layers)


def test_g_gets_its_gradient_through_the_augmentation():
    """An augmentation that hides everything leaves G without a gradient."""
    for hides in (False, True):
        model = make(augment="diffaugment", r1=0.0)
        scale = 0.0 if hides else 1.0
        model.augment = lambda images, p, scale=scale: images * scale
        before = model.G.layers[0].weight.detach().clone()
        step(model)
        assert torch.equal(before, model.G.layers[0].weight) == hides


def controlled(sure: float, steps: int, **changes: Any) -> list[float]:
    """p after each step of a model whose D says `sure` times one of every real picture."""
    model = make(ada_images=64, ada_interval=2, **changes)
    p = []
    for _ in range(steps):
        model.adapt(torch.tensor([sure, sure, sure, -sure]))
        p.append(round(model.parts.values["p"].item(), 6))
    return p


def test_p_follows_how_sure_d_is_every_interval():
    """Four pictures a step, two steps an interval: p moves by 8 / 64 after every second step."""
    assert controlled(1.0, 6) == [0] * 6, "r_t = (3 - 1) / 4 is below 0.6"
    assert controlled(1.0, 6, ada_target=0.4) == [0, 0.125, 0.125, 0.25, 0.25, 0.375]


def test_p_falls_when_d_is_unsure_and_forgets_old_signs():
    model = make(ada_images=64, ada_interval=1)
    model.parts.values["p"] = torch.tensor(0.5)
    model.adapt(torch.ones(4))
    assert model.parts.values["p"].item() == pytest.approx(0.5 + 4 / 64)
    model.adapt(-torch.ones(4))
    assert model.parts.values["p"].item() == pytest.approx(0.5), "the signs before do not count again"
    assert model.parts.values["signs_count"].item() == 0


@pytest.mark.parametrize(("augment", "start"), [("none", 1.0), ("diffaugment", 1.0), ("ada", 0.0)])
def test_only_adas_p_moves(augment, start):
    model = make(augment=augment, ada_target=-0.99, ada_images=8, ada_interval=1)
    assert model.parts.values["p"].item() == start
    torch.nn.init.constant_(model.D.layers[-1].bias, 5.0)  # sure of all that it sees
    values = [step(model, at)["p"].item() for at in range(3)]
    assert model.augment is AUGMENTATIONS[augment]
    assert (values[-1] != start) == (augment == "ada")


def test_r1_is_lazy_and_scaled_by_its_interval():
    """On one step in `r1_every`, with the weight times the interval."""
    model = make(augment="none", r1=2.0, r1_every=3)
    weights = []
    original = ada.r1
    ada.r1 = lambda critic, real, fake, weight: weights.append(weight) or original(critic, real, fake, weight)
    try:
        for i in range(7):
            torch.manual_seed(i)
            model.step(batch(i), Clock(4 * i, 1000))
    finally:
        ada.r1 = original
    assert weights == [6.0] * 3


def test_logits_are_of_the_pictures_as_they_are():
    model = make(augment="diffaugment")
    x, y = batch()[0]
    torch.manual_seed(0)
    a = model.logits(x, y)
    torch.manual_seed(1)
    assert torch.equal(a, model.logits(x, y))


def test_the_default_recipe_disturbs_all_that_its_discriminator_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    spec, seen = ImageSpec(1, 16, 16, 3), []
    settings = {"batch": 4, "z_dim": 8, "embedding": 4, "G_width": 8, "D_width": 8}

    def darken(images: Tensor, p: float | Tensor) -> Tensor:
        seen.append(len(images))
        return images * 0 - 1 + 0 * p

    torch.manual_seed(0)
    plain, disturbed = (sngan.Model(sngan.Config(**settings, augment=a), spec) for a in ("none", "diffaugment"))
    assert disturbed.augment is AUGMENTATIONS["diffaugment"]
    assert plain.augment is AUGMENTATIONS["none"]
    monkeypatch.setattr(disturbed, "augment", darken)
    before = {name: p.clone() for name, p in disturbed.G.named_parameters()}
    real = Batch(torch.rand(4, 1, 16, 16) * 2 - 1, torch.arange(4) % 3)
    values = disturbed.step([real], Clock(0, 100))
    assert seen == [8, 4], "real and fake together in D's step, then the fakes in G's"
    # D sees the same black picture everywhere, so it can tell nothing apart and G has nothing to go by
    assert values["D_real"] + values["D_fake"] == 1
    assert all(torch.equal(p, before[name]) for name, p in disturbed.G.named_parameters())
