"""The fast formulations give the numbers of the plain ones."""

from __future__ import annotations

from typing import Literal
from unittest import mock

import pytest
import torch
from torch import nn

from elegan import families
from elegan.adversarial import objectives
from elegan.families.base import Batch, Clock, ImageSpec
from elegan.networks import convolutions, layers
from elegan.networks.resize import ResizeConv2d


def gradients(layer: nn.Module, x: torch.Tensor, weight: torch.Tensor) -> list[torch.Tensor]:
    """Output, and gradients at the input, weight and bias, of sum(layer(x) * weight)."""
    x = x.clone().requires_grad_()
    out = layer(x)
    found = torch.autograd.grad((out * weight).sum(), [x, *layer.parameters()])
    return [out.detach(), *found]


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("size", [(28, 28), (27, 30), (8, 13)])
def test_folded_convolution_is_the_strided_one(kernel: int, size: tuple[int, int]) -> None:
    fast = convolutions.conv(3, 8, kernel, 2)
    assert isinstance(fast, convolutions.FoldedConv2d)
    plain = nn.Conv2d(3, 8, kernel, 2, padding=kernel // 2)
    plain.load_state_dict(fast.state_dict())
    x = torch.randn(2, 3, *size)
    weight = torch.randn_like(plain(x))
    for ours, theirs in zip(gradients(fast, x, weight), gradients(plain, x, weight), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kernel", [3, 4, 5])
@pytest.mark.parametrize("size", [(14, 14), (5, 9)])
def test_folded_transposed_convolution_is_the_plain_one(kernel: int, size: tuple[int, int]) -> None:
    fast = convolutions.up_conv(8, 3, kernel, 2)
    assert isinstance(fast, convolutions.FoldedConvTranspose2d)
    plain = nn.ConvTranspose2d(8, 3, kernel, 2, fast.padding, output_padding=fast.output_padding)
    plain.load_state_dict(fast.state_dict())
    x = torch.randn(2, 8, *size)
    weight = torch.randn_like(plain(x))
    for ours, theirs in zip(gradients(fast, x, weight), gradients(plain, x, weight), strict=True):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("how", ["nearest", "bilinear"])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("size", [(7, 7), (5, 8)])
def test_resizing_after_the_convolution_is_resizing_before_it(
    how: Literal["nearest", "bilinear"], kernel: int, size: tuple[int, int]
) -> None:
    fast = ResizeConv2d(16, 4, kernel, how)
    plain = nn.Sequential(*fast)  # the same two layers, one after the other
    x = torch.randn(2, 16, *size)
    weight = torch.randn_like(plain(x))
    for ours, theirs in zip(gradients(fast, x, weight), gradients(plain, x, weight), strict=True):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert fast(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("how", ["nearest", "bilinear"])
@pytest.mark.parametrize("kernel", [3, 5])
def test_resizing_layers_have_second_gradients(how: Literal["nearest", "bilinear"], kernel: int) -> None:
    fast = ResizeConv2d(6, 2, kernel, how).double()
    assert torch.autograd.gradgradcheck(fast, torch.randn(1, 6, 2, 3, dtype=torch.double, requires_grad=True))
    with torch.inference_mode():
        fast(torch.randn(1, 6, 3, 3, dtype=torch.double))
    fast(torch.randn(1, 6, 3, 3, dtype=torch.double)).sum().backward()  # what was cached while drawing also learns


@pytest.mark.parametrize("kernel", [3, 4, 5])
@pytest.mark.parametrize("size", [(14, 14), (7, 10)])
def test_strided_convolution_has_the_plain_gradients(kernel: int, size: tuple[int, int]) -> None:
    x = torch.randn(3, 6, *size).contiguous(memory_format=torch.channels_last)
    for fast, plain in (
        (convolutions.StridedConv2d(6, 8, kernel, 2, kernel // 2), nn.Conv2d(6, 8, kernel, 2, kernel // 2)),
        (convolutions.up_conv(6, 8, kernel, 2), nn.ConvTranspose2d(6, 8, kernel, 2, (kernel - 1) // 2, kernel % 2)),
    ):
        assert isinstance(fast, convolutions.StridedConv2d | convolutions.StridedConvTranspose2d)
        plain.load_state_dict(fast.state_dict())
        weight = torch.randn_like(plain(x))
        for ours, theirs in zip(gradients(fast, x, weight), gradients(plain, x, weight), strict=True):
            assert ours.shape == theirs.shape
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            out = fast(x)
        assert out.dtype == torch.bfloat16
        for ours, theirs in zip(
            torch.autograd.grad(out.float().square().sum(), fast.parameters()),
            torch.autograd.grad(plain(x).square().sum(), plain.parameters()),
            strict=True,
        ):
            assert ours.dtype == torch.float32
            torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.02 * theirs.abs().max().item())
        slope = torch.randn(1, 6, 4, 4, dtype=torch.double, requires_grad=True)
        assert torch.autograd.gradgradcheck(fast.double(), slope)


@pytest.mark.parametrize("inputs", [6, 2 * convolutions.THIN])  # the library's form, and ours
@pytest.mark.parametrize("kernel", [3, 4, 5])
def test_thin_convolution_is_the_plain_one(kernel: int, inputs: int) -> None:
    fast = convolutions.conv(inputs, 2, kernel)
    assert isinstance(fast, convolutions.ThinConv2d)
    plain = nn.Conv2d(inputs, 2, kernel)
    plain.load_state_dict(fast.state_dict())
    before, after = (kernel - 1) // 2, kernel // 2
    padded = nn.Sequential(nn.ZeroPad2d((before, after, before, after)), plain)
    x = torch.randn(2, inputs, 7, 9)
    weight = torch.randn_like(padded(x))
    for ours, theirs in zip(gradients(fast, x, weight), gradients(padded, x, weight), strict=True):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_wide_layers_are_not_folded() -> None:
    assert type(convolutions.conv(64, 128, 5, 2)) is convolutions.StridedConv2d
    assert type(convolutions.up_conv(128, 64, 5, 2)) is convolutions.StridedConvTranspose2d


@pytest.mark.parametrize("p", [0.3, 0.4, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(p: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(64, 32, 14, 14).to(memory_format=torch.channels_last)
    y = layers.Dropout(p).train()(x)
    n = x.numel()
    assert abs((y == 0).float().mean().item() - p) < 5 * (p * (1 - p) / n) ** 0.5
    kept = y[y != 0]
    assert kept.unique().numel() == 1 and kept[0].item() == pytest.approx(1 / (1 - p), rel=1e-4)
    assert y.is_contiguous(memory_format=torch.channels_last)
    # neighbours are dropped independently: the mask is one draw of bits a value, not one for several
    zero = (y == 0).float().permute(0, 2, 3, 1).flatten() - p
    for lag in (1, 2, 3, 4, 32):
        assert abs((zero[lag:] * zero[:-lag]).mean().item()) < 5 * p * (1 - p) / n**0.5


@pytest.mark.parametrize("dropped", [1, 19661, 32768, 45875, 65535])
def test_dropouts_mask_in_bf16_is_that_of_a_comparison(dropped: int) -> None:
    bits = torch.arange(-32768, 32768, dtype=torch.int16)
    mask = layers.kept(bits.clone(), dropped, torch.bfloat16)
    assert torch.equal(mask, torch.where(torch.arange(65536) < dropped, 0, 65536 / (65536 - dropped)).bfloat16())
    assert torch.equal(mask, layers.kept(bits, dropped, torch.float32).bfloat16())


def test_dropout_is_nothing_at_inference_and_follows_the_seed() -> None:
    x = torch.randn(3, 5, 7, 7)
    layer = layers.Dropout(0.5)
    assert layer.eval()(x) is x
    layer.train()
    torch.manual_seed(1)
    first = layer(x)
    torch.manual_seed(1)
    assert torch.equal(first, layer(x)) and not torch.equal(first, layer(x))
    sliced = layer(x[:, 1:4])  # not dense in memory
    assert sliced.shape == (3, 3, 7, 7) and bool(torch.isfinite(sliced).all())


def test_shuffles_are_inverse_and_group_pixels() -> None:
    x = torch.randn(2, 3, 8, 6)
    assert torch.equal(convolutions.shuffle(convolutions.unshuffle(x)), x)
    block = convolutions.unshuffle(x)[0, :, 1, 2].view(2, 2, 3)  # (row, column, channel) in the block
    assert torch.equal(block, x[0, :, 2:4, 4:6].permute(1, 2, 0))
    assert convolutions.unshuffle(torch.randn(1, 1, 5, 7)).shape == (1, 4, 3, 4)


def test_spectral_norm_reaches_the_largest_singular_value() -> None:
    torch.manual_seed(0)
    layer = layers.spectral_norm(nn.Conv2d(6, 10, 3))
    for _ in range(60):
        layer.train()
        weight = layer.weight
    assert torch.linalg.matrix_norm(weight.detach().flatten(1), 2).item() == pytest.approx(1, rel=0.02)
    layer.eval()
    before = layer.parametrizations.weight[0].u.clone()
    layer.weight  # reading it at inference moves nothing
    assert torch.equal(before, layer.parametrizations.weight[0].u)


@pytest.mark.parametrize("objective", ["nonsaturating", "minimax", "wasserstein"])
def test_one_backward_pass_gives_the_gradients_of_two(objective: str, monkeypatch: pytest.MonkeyPatch) -> None:
    family = families.get("gan")
    shape = {"batch": 8, "G_widths": (16, 8, 8), "D_widths": (8, 16), "D_dropout": 0.3, "updates": "shared"}
    clip = {"weight_clip": 0.1} if objective == "wasserstein" else {}
    config = family.Config(**shape, objective=objective, **clip)
    assert objectives.OBJECTIVES[objective].steep

    def train(steep: bool) -> list[torch.Tensor]:
        game = objectives.OBJECTIVES[objective]._replace(steep=steep)
        monkeypatch.setitem(objectives.OBJECTIVES, objective, game)
        torch.manual_seed(0)
        model = family.Model(config, ImageSpec(1, 28, 28))
        model.step([Batch(torch.rand(8, 1, 28, 28) * 2 - 1, None)], Clock(0, 1))
        return [p.grad for net in model.parts.nets.values() for p in net.parameters() if p.grad is not None]

    one_pass, two_passes = train(True), train(False)
    assert max(g.abs().max().item() for g in one_pass) > 1e-3
    for one, two in zip(one_pass, two_passes, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


FAST = (
    convolutions.FoldedConv2d,
    convolutions.FoldedConvTranspose2d,
    convolutions.StridedConv2d,
    convolutions.StridedConvTranspose2d,
    convolutions.ThinConv2d,
    ResizeConv2d,
)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("preset", ["fashion", "fashion-dcgan"])
def test_fast_formulations_follow_plain_float32(preset: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same seeds as in plain float32 layers: losses, pictures and D's scores stay close over the first steps."""
    from elegan.training.engine import Engine

    name, recipe = families.preset(preset)
    narrow = {"G_widths": (32, 16, 16)} if name == "gan" else {"G_width": 8, "D_width": 8}
    if name == "sngan":  # larger steps magnify rounding
        narrow |= {"G_lr": 3e-4, "D_lr": 6e-4, "short_run": 0}
    config = recipe.config.model_copy(update={"batch": 16, **narrow})
    images = (torch.rand(16, 1, 28, 28) * 2 - 1).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(16) % 10

    def train(precision: str) -> tuple[list[float], torch.Tensor, torch.Tensor]:
        engine = Engine(torch.device("cpu"), precision)
        torch.manual_seed(0)
        model = families.get(name).Model(config, ImageSpec(1, 28, 28, 10))
        engine.place(model)
        losses = []
        for step in range(8):
            torch.manual_seed(step)
            with engine.context():
                losses.append(model.step([Batch(images, labels)], Clock(16 * step, 128))["D_loss"].item())
        drawn = model.sample(8, seed=0)
        return losses, drawn, model.logits(images, labels)

    losses, drawn, scores = train(precision)
    for kind in FAST:
        monkeypatch.setattr(kind, "forward", kind.__mro__[1].forward)  # torch's own
    plain_losses, plain_drawn, plain_scores = train("fp32")
    near = 2e-4 if precision == "fp32" else 0.02
    assert losses == pytest.approx(plain_losses, rel=near)
    assert (drawn - plain_drawn).abs().mean().item() < near
    assert (scores - plain_scores).abs().mean().item() < near * max(1.0, plain_scores.abs().max().item())


@pytest.mark.parametrize("size", [(14, 14), (7, 10), (9, 9)])
@pytest.mark.parametrize("inputs", [2, 6])
def test_even_kernels_see_the_picture_from_the_same_place(inputs: int, size: tuple[int, int]) -> None:
    """Padding of 1 before and 2 after, and of an even side what is never met left out: weights and names are kept."""
    fast = convolutions.conv(inputs, 8, 4, 2)
    plain = nn.Sequential(nn.ZeroPad2d((1, 2, 1, 2)), nn.Conv2d(inputs, 8, 4, 2))
    plain.load_state_dict(fast.state_dict())
    x = torch.randn(3, inputs, *size)
    weight = torch.randn_like(plain(x))
    assert weight.shape[2:] == tuple(-(-side // 2) for side in size)
    for ours, theirs in zip(gradients(fast, x, weight), gradients(plain, x, weight), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kernel", [3, 4, 5])
def test_folded_layers_are_the_plain_ones_on_both_ways(kernel: int) -> None:
    """Folded towards the picture and in bf16, plain where a float32 kernel is quicker: the same numbers."""
    down = convolutions.FoldedConv2d(2, 8, kernel, 2, (kernel - 1) // 2)
    up = convolutions.FoldedConvTranspose2d(8, 2, kernel, 2, (kernel - 1) // 2, output_padding=kernel % 2)
    x, y = torch.rand(2, 2, 12, 10), torch.rand(2, 8, 6, 5)
    for layer, at in ((down, x), (up, y)):
        plain = type(layer).__mro__[1].forward(layer, at)
        torch.testing.assert_close(layer(at), plain, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(layer(at.requires_grad_()), plain, rtol=1e-4, atol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(layer(at).float(), plain, rtol=0.05, atol=0.05)
            with torch.no_grad(), mock.patch.object(convolutions, "fold", wraps=convolutions.fold) as fold:
                layer(at.detach())
            fold.assert_called_once()  # bf16 kernels idle on few channels where nothing learns, too
