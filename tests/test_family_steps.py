"""What makes each family the thing it is called: who learns what, in which order, from which loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from elegan import families
from elegan.errors import UserError
from elegan.families import wgan
from elegan.families.base import Batch, Clock, Family, ImageSpec

SPEC = ImageSpec(1, 16, 12, 3)


def make(family: Any, spec: ImageSpec = SPEC, preset: str = "tiny", **changes: Any) -> Any:
    torch.manual_seed(0)
    config = family.PRESETS[preset].config
    return family.Model(family.Config(**(config.model_dump() | {"batch": 4} | changes)), spec)


def batches(model: Family, seed: int = 0, labels: bool = True) -> list[Batch]:
    generator, spec, n = torch.Generator().manual_seed(seed), model.spec, model.config.batch
    shape = (n, spec.channels, spec.height, spec.width)
    y = torch.arange(n) % spec.classes if labels and spec.classes else None
    return [Batch(torch.rand(shape, generator=generator) * 2 - 1, y) for _ in range(model.batches_per_step)]


def step(model: Family, at: int = 0, total: int = 1000) -> dict[str, Tensor]:
    torch.manual_seed(at)
    return model.step(batches(model, at), Clock(at, total))


def order(model: Family) -> list[str]:
    """Which optimiser steps, in order, during one step."""
    steps: list[str] = []
    hooks = [
        optimizer.register_step_post_hook(lambda *_, name=name: steps.append(name))
        for name, optimizer in model.parts.optimizers.items()
    ]
    step(model)
    for hook in hooks:
        hook.remove()
    return steps


def inputs_of(net: nn.Module, run: Callable[[], Any]) -> list[Tensor]:
    """The first argument of every call of a network while `run` runs."""
    seen: list[Tensor] = []
    hook = net.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
    run()
    hook.remove()
    return seen


def no_batch_norm(net: nn.Module) -> bool:
    return not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules())


def cross_slope(model: Any, labels: Tensor | None = None) -> float:
    """The largest |dD(x_i) / dx_j|, i != j."""
    x = torch.rand(3, model.spec.channels, model.spec.height, model.spec.width).requires_grad_()
    (gradient,) = torch.autograd.grad(model.D(x, labels)[0], x)
    assert gradient[0].abs().max() > 0
    return gradient[1:].abs().max().item()


# wgan


@pytest.mark.parametrize("preset", ["fashion-wgan-gp", "fashion-wgan-clip"])
def test_the_critic_learns_five_times_each_on_new_pictures(preset):
    model = make(wgan, preset=preset)
    assert order(model) == ["D"] * 5 + ["G"]
    judged = [x for x in inputs_of(model.D, lambda: step(model)) if len(x) == 8]  # real and fake in one pass
    assert len(judged) == 5
    real, fake = (torch.stack([half.chunk(2)[i] for half in judged]).flatten(1) for i in (0, 1))
    for pictures in (real, fake):
        assert len(torch.unique(pictures, dim=0)) == 5


def test_canonical_settings_of_wgan_gp_and_wgan():
    gp, clip = (wgan.PRESETS[f"fashion-wgan-{name}"].config for name in ("gp", "clip"))
    assert (gp.penalty, gp.penalty_weight, gp.D_steps, gp.G_lr, gp.D_lr) == ("gradient", 10, 5, 1e-4, 1e-4)
    assert (gp.optimizer, gp.beta1, gp.beta2, gp.batch) == ("adam", 0.5, 0.9, 50)
    assert (clip.penalty, clip.weight_clip, clip.D_steps) == ("none", 0.01, 5)
    assert (clip.optimizer, clip.D_lr, clip.batch) == ("rmsprop", 5e-5, 64)


@pytest.mark.parametrize("preset", wgan.PRESETS)
def test_no_penalised_critic_mixes_the_pictures_of_a_batch(preset):
    model = make(wgan, preset=preset)
    assert no_batch_norm(model.D)
    assert cross_slope(model) == 0


def test_the_penalty_joins_the_critics_loss_and_no_other():
    """With a zero objective for D the critic moves by the penalty alone; with weight 0 too it stays."""
    for weight, moves in ((10.0, True), (0.0, False)):
        model = make(wgan, penalty_weight=weight, ema_share=0.5)
        model.objective = model.objective._replace(D_real=lambda x, _: 0 * x.sum(), D_fake=lambda x, _: 0 * x.sum())
        before = [p.detach().clone() for p in model.D.parameters()]
        values = step(model)
        moved = any(not torch.equal(a, b) for a, b in zip(before, model.D.parameters(), strict=True))
        assert moved == moves
        assert (values["penalty"] > 0) == moves


def test_gap_is_real_minus_fake_and_the_loss_its_negative():
    values = step(make(wgan))
    assert values["gap"].item() == pytest.approx(-values["D_loss"].item(), abs=1e-6)
    assert "D_real" not in values, "a critic's logits have no zero to be right about"
    assert "D_real" in step(make(wgan, preset="fashion-dragan"))


def test_clipped_after_every_update():
    model = make(wgan, preset="fashion-wgan-clip", D_lr=0.05)
    limits: list[float] = []
    model.D.register_forward_pre_hook(lambda *_: limits.append(max(p.abs().max().item() for p in model.D.parameters())))
    step(model)
    assert limits[0] > 0.01, "initial weights are wider"
    assert max(limits[1:]) <= 0.01 + 1e-9
    assert max(p.abs().max() for p in model.D.parameters()) <= 0.01 + 1e-9


def test_an_untamed_critic_is_refused():
    with pytest.raises(ValidationError, match="needs a penalty or weight_clip"):
        wgan.Config(penalty="none")
    wgan.Config(penalty="none", weight_clip=0.01)
    wgan.Config(penalty="none", objective="hinge")


@pytest.mark.parametrize("name", ["wgan"])
def test_asking_for_labels_that_are_not_there_is_refused(name):
    with pytest.raises(UserError, match="conditional=false"):
        make(families.get(name), ImageSpec(1, 16, 16), conditional=True)
    assert make(families.get(name), conditional=True).conditional
