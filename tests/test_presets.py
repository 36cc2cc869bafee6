"""The tutorials' programs as presets: layer by layer what Keras makes of them, and every setting of their training.

`benchmarks/reference/parameter_counts.json` was written by Keras itself. The tables below are the recipes' words.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from elegan import families
from elegan.families.base import Batch, Clock, Family, ImageSpec
from elegan.networks.resize import ResizeConv2d

KERAS = json.loads((Path(__file__).parents[1] / "benchmarks/reference/parameter_counts.json").read_text())
SPECS = {"faces-dcgan": ImageSpec(3, 64, 64)}
LEAKY = {"fashion-dcgan": 0.3}


def model_of(name: str) -> Family:
    family, recipe = families.preset(name)
    torch.manual_seed(0)
    spec = SPECS.get(name, ImageSpec(1, 28, 28, 10))
    model: Family = families.get(family).Model(recipe.config, spec)
    return model


def trace(net: nn.Module, *inputs: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[nn.Module, tuple[int, ...]]]:
    """Every leaf layer with the shape (without the batch) that it puts out, in order."""
    monkeypatch.setattr(ResizeConv2d, "forward", nn.Sequential.forward)  # its two layers, one after the other
    found: list[tuple[nn.Module, tuple[int, ...]]] = []
    hooks = [
        m.register_forward_hook(lambda m, _, out: found.append((m, tuple(out.shape[1:]))))
        for m in net.modules()
        if not list(m.children())
    ]
    net.eval()
    with torch.no_grad():
        net(*inputs)
    for hook in hooks:
        hook.remove()
    return found


def keras_name(layer: nn.Module) -> str | None:
    """What Keras calls a layer; None for what has no counterpart there (padding, cropping, activations)."""
    names = {
        nn.Linear: "Dense",
        nn.Conv2d: "Conv2D",
        nn.ConvTranspose2d: "Conv2DTranspose",
        nn.BatchNorm1d: "BatchNormalization",
        nn.BatchNorm2d: "BatchNormalization",
        nn.LeakyReLU: "LeakyReLU",
        nn.Dropout: "Dropout",
        nn.Upsample: "UpSampling2D",
    }
    return next((name for kind, name in names.items() if isinstance(layer, kind)), None)


def trainable(layer: nn.Module) -> int:
    return sum(p.numel() for p in layer.parameters() if p.requires_grad)


@pytest.mark.parametrize("side", ["generator", "discriminator"])
@pytest.mark.parametrize("name", KERAS)
def test_layers_shapes_and_parameters_are_those_of_keras(name, side, monkeypatch):
    model, spec = model_of(name), SPECS.get(name, ImageSpec(1, 28, 28, 10))
    net = model.parts.nets["G" if side == "generator" else "D"]
    given = (
        torch.zeros(2, model.config.z_dim)
        if side == "generator"
        else torch.zeros(2, *(spec.channels, spec.height, spec.width))
    )
    labels = [torch.tensor([0, 1])] if name == "digits-cgan" else []
    assert trainable(net) == KERAS[name][side]["trainable"]

    ours = []
    for layer, shape in trace(net, given, *labels, monkeypatch=monkeypatch):
        kind = keras_name(layer)
        if kind is not None:
            height_last = (*shape[1:], shape[0]) if len(shape) == 3 else shape
            ours.append((kind, list(height_last), trainable(layer)))
    theirs = [(layer["layer"], layer["output"], layer["trainable"]) for layer in KERAS[name][side]["layers"]]
    ours = shared_terms(ours)
    theirs = shared_terms(theirs)
    assert ours == theirs


def shared_terms(layers: list[tuple[str, list[int], int]]) -> list[tuple[str, list[int], int]]:
    """A network in the terms that both libraries share: a transposed convolution of stride 1 is a convolution,
    flattening and labels are not layers here."""
    found = []
    for kind, shape, count in layers:
        if kind in ("Reshape", "Flatten", "Concatenate") or (kind == "UpSampling2D" and shape == [28, 28, 10]):
            continue
        found.append((kind.replace("Conv2DTranspose", "Conv2D"), shape, count))
    return found


# name: (z, pixels in 0..1, slope, G's kernels, G's strides, G's BN momentum, D's kernels, D's strides, D's dropouts)
LAYERS = {
    "fashion-upsample": (128, True, 0.2, [5, 5, 4, 4, 4], [1] * 5, None, [5] * 4, [1] * 4, [0.4] * 5),
    "fashion-mlp": (100, False, 0.2, [], [], 0.8, [], [], []),
    "fashion-dcgan": (100, False, 0.3, [5, 5, 5], [1, 2, 2], 0.99, [5, 5], [2, 2], [0.3, 0.3]),
    "digits-mlp": (100, False, 0.2, [], [], 0.7, [], [], []),
    "digits-dcgan": (100, True, 0.2, [5, 5, 5], [2, 2, 1], 0.99, [5, 5], [2, 2], [0.3, 0.3]),
    "digits-cgan": (100, True, 0.2, [5, 5, 5], [2, 2, 1], 0.99, [5, 5], [2, 2], [0.3, 0.3]),
    "faces-dcgan": (128, False, 0.2, [5, 5, 5], [2, 2, 2], 0.99, [5, 5], [2, 2], [0.3, 0.3]),
}


def convolutions(net: nn.Module) -> list[Any]:
    return [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]


@pytest.mark.parametrize("name", LAYERS)
def test_layer_settings(name):
    z_dim, unit, slope, G_kernels, G_strides, momentum, D_kernels, D_strides, dropouts = LAYERS[name]
    model = model_of(name)
    G, D = model.parts.nets["G"], model.parts.nets["D"]
    assert model.config.z_dim == z_dim
    assert {m.negative_slope for net in (G, D) for m in net.modules() if isinstance(m, nn.LeakyReLU)} == {slope}
    assert [m.kernel_size for m in convolutions(G)] == [(k, k) for k in G_kernels]
    assert [m.stride for m in convolutions(G)] == [(s, s) for s in G_strides]
    assert [m.kernel_size for m in convolutions(D)] == [(k, k) for k in D_kernels]
    assert [m.stride for m in convolutions(D)] == [(s, s) for s in D_strides]
    assert [m.p for m in D.modules() if isinstance(m, nn.Dropout)] == dropouts
    assert not [m for m in G.modules() if isinstance(m, nn.Dropout)]
    norms = [m for m in G.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert [1 - m.momentum for m in norms] == pytest.approx([momentum] * len(norms))
    assert bool(norms) == (momentum is not None)
    assert all(m.eps == 1e-3 for m in norms)  # Keras' default
    assert not [m for m in D.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert any(type(m).__name__ == "Sigmoid01" for m in G.modules()) == unit
    assert any(type(m).__name__ == "To01" for m in D.modules()) == unit
    assert any(isinstance(m, nn.Tanh) for m in G.modules()) != unit


@pytest.mark.parametrize("name", LAYERS)
def test_initial_weights_are_glorot_uniform(name):
    for net in model_of(name).parts.nets.values():
        for m in net.modules():
            if isinstance(m, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                area = math.prod(m.weight.shape[2:])
                edge = math.sqrt(6 / ((m.weight.shape[0] + m.weight.shape[1]) * area))
                assert m.weight.abs().max() <= edge
                if m.weight.numel() > 2000:
                    assert m.weight.std().item() == pytest.approx(edge / math.sqrt(3), rel=0.05)
                assert m.bias is None or not m.bias.any()


# name: (batch, images, G_lr, D_lr, beta1, updates, D updates, G updates, fakes for D in inference mode, D so for G)
TRAINING = {
    "fashion-upsample": (128, 20 * 60_000, 1e-4, 1e-5, 0.9, "joint", 1, 1, True, True),
    "fashion-mlp": (32, 5_000 * 32, 2e-4, 2e-4, 0.5, "separate", 1, 1, True, False),
    "fashion-dcgan": (128, 30 * 60_000, 1e-4, 1e-4, 0.9, "shared", 1, 1, False, False),
    "digits-mlp": (32, 12_000 * 32, 2e-4, 2e-4, 0.5, "joint", 1, 2, True, False),
    "digits-dcgan": (128, 10_000 * 128, 2e-4, 2e-4, 0.5, "joint", 1, 1, True, False),
    "digits-cgan": (128, 10_000 * 128, 2e-4, 2e-4, 0.5, "joint", 1, 1, True, False),
    "faces-dcgan": (128, 20 * 60_000, 2e-4, 2e-4, 0.5, "joint", 1, 1, True, False),
}


@pytest.mark.parametrize("name", TRAINING)
def test_training_settings(name):
    batch, images, G_lr, D_lr, beta1, updates, D_steps, G_steps, G_eval, D_eval = TRAINING[name]
    recipe, model = families.preset(name)[1], model_of(name)
    cfg: Any = recipe.config
    assert (cfg.batch, recipe.images) == (batch, images)
    assert (cfg.updates, cfg.D_steps, cfg.G_steps) == (updates, D_steps, G_steps)
    assert (cfg.G_eval_for_D, cfg.D_eval_for_G) == (G_eval, D_eval)
    assert cfg.objective == "nonsaturating"
    assert cfg.lr_schedule == "constant"
    assert cfg.conditional == (name == "digits-cgan")
    assert cfg.label_noise == (0.15 if name == "fashion-upsample" else 0)
    assert (cfg.label_smoothing, cfg.label_flip, cfg.weight_clip) == (0, 0, 0)
    # of what draws samples, not of the training
    assert cfg.ema_half_life == (10_000 if name.startswith("digits") or name == "fashion-dcgan" else 0)
    for key, lr in (("G", G_lr), ("D", D_lr)):
        (group,) = model.parts.optimizers[key].param_groups
        assert group["lr"] == lr
        assert group["betas"] == (beta1, 0.999)
        assert group["eps"] == 1e-7  # Keras' default
        assert group["weight_decay"] == 0
        assert len(group["params"]) == len(list(model.parts.nets[key].parameters()))
    if name != "faces-dcgan":
        assert recipe.data == {"f": "fashion-mnist", "d": "mnist"}[name[0]]


@pytest.mark.parametrize("name", ["fashion-dcgan", "digits-mlp", "digits-dcgan", "digits-cgan"])
def test_averaging_for_the_samples_leaves_the_training_as_it_is(name):
    """They sample from an average, which their originals do not; their players learn what they did without."""
    weights = []
    for half_life in (0, 10_000):
        config = families.preset(name)[1].config.model_copy(update={"batch": 4, "ema_half_life": half_life})
        torch.manual_seed(0)
        model = families.get("gan").Model(config, ImageSpec(1, 28, 28, 10))
        assert model.sampler == ("G_ema" if half_life else "G")
        for seen in (0, 4):
            torch.manual_seed(seen)
            model.step([Batch(torch.zeros(4, 1, 28, 28), torch.arange(4))], Clock(seen, 1000))
        weights.append([p.detach() for name in ("G", "D") for p in model.parts.nets[name].parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


class Recorder:
    """How often, in which mode and on how many images each network is run, and how often each optimiser steps."""

    def __init__(self, model: Family) -> None:
        self.calls: list[tuple[str, bool, int]] = []
        self.steps: list[str] = []
        for name in ("G", "D"):
            net, optimizer = model.parts.nets[name], model.parts.optimizers[name]
            net.register_forward_hook(lambda net, _, out, name=name: self.calls.append((name, net.training, len(out))))
            optimizer.register_step_post_hook(lambda *_, name=name: self.steps.append(name))


@pytest.mark.parametrize(
    ("name", "calls", "steps"),
    [
        ("fashion-upsample", [("G", False, 4), ("D", True, 8), ("G", True, 4), ("D", False, 4)], "DG"),
        ("fashion-mlp", [("G", False, 4), ("D", True, 4), ("D", True, 4), ("G", True, 4), ("D", True, 4)], "DDG"),
        ("fashion-dcgan", [("G", True, 4), ("D", True, 8)], "DG"),
        (
            "digits-mlp",
            [("G", False, 4), ("D", True, 8), ("G", True, 4), ("D", True, 4), ("G", True, 4), ("D", True, 4)],
            "DGG",
        ),
        ("digits-dcgan", [("G", False, 4), ("D", True, 8), ("G", True, 4), ("D", True, 4)], "DG"),
    ],
)
def test_who_learns_when_and_in_which_mode(name, calls, steps):
    model = model_of(name)
    seen = Recorder(model)
    model.step([Batch(torch.zeros(4, 1, 28, 28), torch.zeros(4, dtype=torch.int64))], Clock(0, 100))
    assert seen.calls == calls
    assert "".join(seen.steps) == steps
    assert model.parts.nets["G"].training
    assert model.parts.nets["D"].training


def test_pixels_of_the_unit_range_are_those_of_a_sigmoid():
    """A recipe for [0, 1]: D sees (x + 1) / 2, and G's last layer is a sigmoid, handed on in [-1, 1]."""
    model = model_of("digits-dcgan")
    G, D = model.parts.nets["G"].eval(), model.parts.nets["D"].eval()
    first = next(m for m in D.modules() if isinstance(m, nn.Conv2d))
    seen = []
    first.register_forward_hook(lambda m, inputs, _: seen.append(inputs[0]))
    D(torch.tensor([-1.0, 0.0, 1.0]).view(3, 1, 1, 1).expand(3, 1, 28, 28))
    assert seen[0][:, 0, 0, 0].tolist() == [0, 0.5, 1]

    before = []
    [*G.layers][-1].register_forward_hook(lambda m, inputs, _: before.append(inputs[0]))
    images = G(torch.randn(5, 100))
    torch.testing.assert_close(images, 2 * torch.sigmoid(before[0]) - 1, atol=1e-6, rtol=0)


def test_noisy_targets_of_fashion_upsample():
    """Inverted labels with +0.15 U on real and -0.15 U on fake are, turned over, real 1 - 0.15 U and fake 0.15 U."""
    model: Any = model_of("fashion-upsample")
    seen = {}
    model.objective = model.objective._replace(
        D_real=lambda logits, target: seen.update(real=target), D_fake=lambda logits, target: seen.update(fake=target)
    )
    model.loss_on_real(torch.zeros(4000))
    model.loss_on_fake(torch.zeros(4000))
    assert seen["real"].min() == pytest.approx(0.85, abs=1e-3)
    assert seen["real"].max() == pytest.approx(1, abs=1e-3)
    assert seen["real"].mean() == pytest.approx(0.925, abs=5e-3)
    assert seen["fake"].min() == pytest.approx(0, abs=1e-3)
    assert seen["fake"].max() == pytest.approx(0.15, abs=1e-3)


# The paper's DCGAN, which no tutorial program is --------------------------------------------------------------------


def kinds(net: nn.Module) -> list[str]:
    """Its leaf layers in order, by what torch calls the kind of layer that they are."""
    base = {nn.Conv2d: "conv", nn.ConvTranspose2d: "up", nn.Linear: "dense", nn.LeakyReLU: "relu", nn.Tanh: "tanh"}
    base |= {nn.BatchNorm1d: "norm", nn.BatchNorm2d: "norm"}
    leaves = [m for m in net.modules() if not list(m.children())]
    return [name for m in leaves for kind, name in base.items() if isinstance(m, kind)]


def test_the_papers_DCGAN_layer_by_layer():
    """Radford+ 2016: strides and no pooling, no hidden dense layer, batch norm but at G's end and D's beginning."""
    model: Any = model_of("fashion-dcgan-paper")
    G, D = model.parts.nets["G"], model.parts.nets["D"]
    assert kinds(G) == ["dense", "norm", "relu", *["up", "norm", "relu"] * 2, "up", "tanh"]
    assert kinds(D) == ["conv", "relu", *["conv", "norm", "relu"] * 2, "dense"]
    assert {m.negative_slope for m in G.modules() if isinstance(m, nn.LeakyReLU)} == {0.0}
    assert {m.negative_slope for m in D.modules() if isinstance(m, nn.LeakyReLU)} == {0.2}
    assert {m.stride for net in (G, D) for m in convolutions(net)} == {(2, 2)}
    assert not [m for net in (G, D) for m in net.modules() if isinstance(m, nn.Dropout)]
    for net in (G, D):
        for m in net.modules():
            weight = getattr(m, "weight", None)
            if weight is None:
                continue
            norm = isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)
            near = 0.001 if weight.numel() > 1_000 else 0.006  # small ones are not that near by chance
            assert weight.std().item() == pytest.approx(0.02, abs=near), m
            assert weight.mean().item() == pytest.approx(float(norm), abs=near), m
            assert m.bias is None or not m.bias.any()
    for adam in model.parts.optimizers.values():
        assert (adam.param_groups[0]["lr"], adam.param_groups[0]["betas"]) == (2e-4, (0.5, 0.999))
    assert model.config.batch == 128


def test_noise_of_the_papers_DCGAN_is_even(monkeypatch):
    model: Any = model_of("fashion-dcgan-paper")
    seen: list[torch.Tensor] = []
    for net in (model.G, model.parts.nets["G_ema"]):
        monkeypatch.setattr(net, "forward", lambda z, *_: seen.append(z) or torch.zeros(len(z), 1, 28, 28))
    model.generate(1_000, None)
    for truncation in (1.0, 0.5):
        model.draw(1_000, None, torch.Generator().manual_seed(0), truncation=truncation)
    for z, edge in zip(seen, (1, 1, 0.5), strict=True):
        assert z.abs().max() <= edge
        assert z.var().item() == pytest.approx(edge**2 / 3, rel=0.02)


def test_D_with_batch_norm_sees_real_and_fake_apart():
    """In one batch the norms would tell D's layers of the other side, and judge a picture by its company."""
    model: Any = model_of("fashion-dcgan-paper")
    real, fake = torch.rand(2, 8, 1, 28, 28)
    model.D.train()
    on_real, on_fake = model.judge(real, fake, None, None)
    assert torch.equal(on_real, model.D(real))
    assert torch.equal(on_fake, model.D(fake))
    mixed = model.D(torch.cat([real, fake - 1])).chunk(2)[0]
    assert not torch.allclose(on_real, mixed, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": "mlp"}, "D_batch_norm is for convolutions"),
        ({"updates": "shared"}, "D_batch_norm does not apply to updates=shared"),
        ({"D_eval_for_G": True}, "D_eval_for_G does not go with D_batch_norm"),
        ({"batch": 1, "G_batch_norm": False}, "a batch of at least 2"),
    ],
)
def test_where_D_has_no_batch_norm(changes, message):
    with pytest.raises(ValueError, match=message):
        families.get("gan").Config(**({"D_batch_norm": True} | changes))
