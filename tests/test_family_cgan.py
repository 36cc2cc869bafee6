"""Conditional GANs: where the label enters, and that the two ways are what they are called."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from elegan.errors import UserError
from elegan.families import cgan
from elegan.families.base import Batch, Clock, ImageSpec
from elegan.networks.layers import ConditionalBatchNorm

SPEC = ImageSpec(1, 16, 12, 3)


def make(spec: ImageSpec = SPEC, **changes: Any) -> Any:
    torch.manual_seed(0)
    config = cgan.PRESETS["tiny"].config
    return cgan.Model(cgan.Config(**(config.model_dump() | {"batch": 4} | changes)), spec)


def step(model: Any) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    spec = model.spec
    shape = (4, spec.channels, spec.height, spec.width)
    batches = [Batch(torch.rand(shape) * 2 - 1, torch.arange(4) % 3) for _ in range(model.batches_per_step)]
    return model.step(batches, Clock(0, 1000))


def test_projection_is_an_inner_product_with_the_features():
    """D(x, y) - D(x, y') = (V_y - V_y') . phi(x), and phi knows no label."""
    model = make(label="projection")
    D = model.D.eval()
    x = torch.rand(5, 1, 16, 12)
    a, b = torch.full((5,), 2), torch.full((5,), 1)
    phi = D.phi(x)
    expected = phi @ (D.V.weight[2] - D.V.weight[1])
    torch.testing.assert_close(D(x, a) - D(x, b), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(D(x, a) - phi @ D.V.weight[2], D.psi(phi).squeeze(1), atol=1e-5, rtol=1e-4)


def test_concatenation_has_planes_and_no_inner_product():
    model = make(label="concat")
    assert model.D.V is None
    first = next(m for m in model.D.modules() if isinstance(m, nn.Conv2d))
    assert first.in_channels == 1 + 3
    D, x = model.D.eval(), torch.rand(5, 1, 16, 12)
    assert not torch.equal(D(x, torch.zeros(5).long()), D(x, torch.ones(5).long()))


def test_labels_enter_gs_norms_and_nothing_else():
    """With G_label=norms z alone is the input, and each class has its own scales and shifts, equal at first."""
    model = make(G_label="norms")
    G, z = model.G.train(), torch.randn(4, model.config.z_dim)
    assert next(m for m in G.modules() if isinstance(m, nn.Linear)).in_features == model.config.z_dim
    norms = [m for m in G.modules() if isinstance(m, ConditionalBatchNorm)]
    maps = sum(isinstance(m, nn.Conv2d) for m in G.modules())
    assert len(norms) == maps, "one before each convolution, the first on the dense layer's map"
    assert all(not m.affine for m in G.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
    one, two = torch.full((4,), 1), torch.full((4,), 2)
    assert torch.equal(G(z, one), G(z, two))
    for norm in norms:
        norm.zero_grad()
    G(z, one).square().sum().backward()
    for norm in norms:
        touched = norm.scale.weight.grad.abs().sum(1) > 0
        assert touched.tolist() == [False, True, False], "a class learns from its own pictures"
    with torch.no_grad():
        norms[-1].shift.weight[2] += 1
    assert not torch.equal(G(z, one), G(z, two))


def test_labels_beside_z_leave_the_norms_alone():
    model = make(G_label="concat")
    assert next(m for m in model.G.modules() if isinstance(m, nn.Linear)).in_features == model.config.z_dim + 3
    assert not any(isinstance(m, ConditionalBatchNorm) for m in model.G.modules())


def test_without_labels_norms_are_plain():
    model = make(G_label="norms", conditional=False)
    assert not any(isinstance(m, ConditionalBatchNorm) for m in model.G.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.G.modules())


@pytest.mark.parametrize("label", ["projection", "concat"])
def test_every_layer_of_d_is_normalised_and_there_is_no_batch_norm(label):
    model = make(label=label)
    for module in model.D.modules():
        assert not isinstance(module, nn.modules.batchnorm._BatchNorm)
        if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
            assert hasattr(module, "parametrizations"), module


def test_d_hears_the_true_label_and_the_asked_one():
    """In its step real pictures come with their labels and fakes with the ones that G was asked for."""
    model = make()
    heard, asked = [], []
    model.D.register_forward_pre_hook(lambda _, args: heard.append((len(args[0]), args[1])))
    model.G.register_forward_pre_hook(lambda _, args: asked.append(args[1]))
    step(model)
    labels = torch.arange(4) % 3
    assert [n for n, _ in heard] == [8, 4]
    assert torch.equal(heard[0][1], torch.cat([labels, labels]))
    assert torch.equal(heard[1][1], labels)
    assert all(torch.equal(y, labels) for y in asked)


def test_d_may_learn_more_often():
    model = make(D_steps=3)
    steps: list[str] = []
    for name, optimizer in model.parts.optimizers.items():
        optimizer.register_step_post_hook(lambda *_, name=name: steps.append(name))
    step(model)
    assert steps == ["D", "D", "D", "G"]


def test_without_labels_a_plain_gan_remains():
    with pytest.raises(UserError, match="conditional=false"):
        make(ImageSpec(1, 16, 12))
    model = make(ImageSpec(1, 16, 12), conditional=False)
    assert not model.conditional
    assert model.D.V is None
    assert "D_loss" in model.step([Batch(torch.rand(4, 1, 16, 12), None)], Clock(0, 10))


def test_it_learns_which_class_is_which():
    """Bright pictures for class 1, dark ones for class 0: after some steps G's do as asked, told by projection."""
    model = make(ImageSpec(1, 12, 12, 2), batch=32, G_lr=2e-3, D_lr=2e-3, ema_share=0.5)
    torch.manual_seed(0)
    labels = torch.arange(32) % 2
    for at in range(60):
        images = (labels.float() * 1.2 - 0.6)[:, None, None, None] + 0.1 * torch.randn(32, 1, 12, 12)
        model.step([Batch(images.clamp(-1, 1), labels)], Clock(at * 32, 10_000))
    dark, bright = (model.sample(40, torch.full((40,), c), seed=0).mean() for c in (0, 1))
    assert bright - dark > 0.4
