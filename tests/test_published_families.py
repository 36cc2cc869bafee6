"""SAGAN, BigGAN, StyleGAN2, progressive growing and LAPGAN: what the papers' equations say, to the last digit."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elegan.adversarial.penalties import orthogonal, path_lengths
from elegan.families import biggan, lapgan, progressive, stylegan2
from elegan.families.base import Batch, Clock, Family, ImageSpec
from elegan.networks.attention import SelfAttention
from elegan.networks.equalized import EqualConv2d, EqualLinear, pixel_norm
from elegan.networks.resample import blur, double, halve, halvings, pad_to
from elegan.training import checkpoint

SPEC = ImageSpec(1, 24, 20, 3)


def make(family: Any, spec: ImageSpec = SPEC, seed: int = 0, **changes: Any) -> Any:
    torch.manual_seed(seed)
    config = family.PRESETS["tiny"].config
    return family.Model(family.Config(**(config.model_dump() | {"batch": 4} | changes)), spec)


def pictures(n: int, spec: ImageSpec = SPEC, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((n, spec.channels, spec.height, spec.width), generator=generator) * 2 - 1


def step(model: Family, seen: int = 0, total: int = 1000) -> dict[str, Tensor]:
    torch.manual_seed(seen)
    n = model.config.batch
    labels = torch.arange(n) % model.spec.classes if model.spec.classes else None
    batches = [Batch(pictures(n, model.spec, seen + i), labels) for i in range(model.batches_per_step)]
    return model.step(batches, Clock(seen, total))


def state(model: Family) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in checkpoint.flatten(model.parts)[0].items()}


def copied(model: Family, into: Family) -> Family:
    """The model's state put into another one, as a run that goes on does it."""
    tensors, settings = checkpoint.flatten(model.parts)
    checkpoint.restore(into.parts, {name: value.detach().clone() for name, value in tensors.items()}, settings)
    return into


def differ(a: Family, b: Family) -> list[str]:
    old, new = state(a), state(b)
    return [name for name in old.keys() | new.keys() if not torch.equal(old[name], new[name])]


# The pieces --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(7, 7), (8, 6), (5, 9)])
def test_attention_is_the_papers_sum(size):
    torch.manual_seed(0)
    layer, x = SelfAttention(16, lambda inner: inner), torch.randn(2, 16, *size)
    assert torch.equal(layer(x), x), "gamma = 0 at first: the identity"
    layer.gamma.data.fill_(0.7)
    maps = {name: getattr(layer, name)(x) for name in "fgh"}
    looked = {name: F.max_pool2d(maps[name], 2, ceil_mode=True).flatten(2) for name in "fh"}
    y = x.clone()
    for n, (row, column) in itertools.product(range(2), itertools.product(*map(range, size))):
        scores = torch.stack([maps["g"][n, :, row, column] @ key for key in looked["f"][n].t()])
        beta = scores.exp() / scores.exp().sum()
        o = layer.v.weight[:, :, 0, 0] @ sum(b * h for b, h in zip(beta, looked["h"][n].t(), strict=True))
        y[n, :, row, column] += 0.7 * o
    assert (layer(x) - y).abs().max() < 1e-5


def test_the_orthogonal_penalty_is_that_of_products_of_different_rows():
    w = torch.tensor([[3.0, 0, 0], [0, 0.1, 0]])
    assert orthogonal([w], 1.0) == 0, "lengths of rows are free"
    w = torch.tensor([[1.0, 2, 3], [4, 5, 6]])
    assert orthogonal([w, 2 * w], 0.5).item() == pytest.approx(0.5 * 2 * 32**2 * (1 + 16))  # both halves of W W^T
    conv = torch.randn(4, 2, 3, 3, requires_grad=True)
    orthogonal([conv], 0.3).backward()
    W = conv.detach().flatten(1)
    expected = 4 * 0.3 * ((W @ W.t()) * (1 - torch.eye(4))) @ W
    assert torch.allclose(conv.grad.flatten(1), expected, rtol=1e-4, atol=1e-5)


def test_equalised_layers_store_unit_weights_and_use_them_scaled():
    torch.manual_seed(0)
    for layer, x in ((EqualLinear(256, 512), torch.randn(64, 256)), (EqualConv2d(32, 64, 3), torch.randn(8, 32, 9, 9))):
        assert layer.weight.std().item() == pytest.approx(1, abs=0.02)
        assert layer(x)[..., 1:8].std().item() == pytest.approx(1, abs=0.1), "1 / sqrt(inputs) keeps the variance"
    slow = EqualLinear(64, 64, lr=0.01, bias=1.0)
    assert slow.weight.std().item() == pytest.approx(100, rel=0.05)
    assert slow(torch.zeros(1, 64)).mean().item() == pytest.approx(1, abs=1e-5)
    moved = []
    for lr in (1.0, 0.01):  # Adam moves every stored number by its rate: an output moves `lr` times as far
        torch.manual_seed(1)
        layer, x = EqualLinear(64, 8, lr=lr), torch.randn(1, 64)
        adam, before = torch.optim.Adam(layer.parameters(), 1e-3), layer(x).detach()
        layer(x).sum().backward()
        adam.step()
        moved.append((layer(x) - before).norm().item())
    assert moved[1] / moved[0] == pytest.approx(0.01, rel=1e-2)


def test_pixel_norm_gives_unit_length_at_each_place():
    x = torch.randn(3, 5, 4, 2) * 7
    assert torch.allclose(pixel_norm(x).square().mean(1), torch.ones(3, 4, 2), atol=1e-5)
    assert torch.allclose(pixel_norm(x) * x.square().mean(1, keepdim=True).sqrt(), x, atol=1e-4)


def test_half_and_double_size_keep_what_is_smooth():
    flat = torch.full((1, 2, 9, 6), 0.3)
    assert halve(flat).shape == (1, 2, 5, 3)
    assert (halve(flat) - 0.3).abs().max() < 1e-6
    assert (double(flat) - 0.3).abs().max() < 1e-6
    ramp = torch.arange(12.0).expand(1, 1, 12, 12)
    assert torch.allclose(halve(ramp)[0, 0, 3, 1:-1], torch.arange(2.5, 10, 2)), "no shift: the mean of pairs"
    checks = (torch.arange(12)[:, None] + torch.arange(12)) % 2 * 2.0 - 1
    assert halve(checks[None, None])[..., 1:-1, 1:-1].abs().max() < 1e-6, "no aliasing of the finest pattern"
    x = torch.randn(1, 1, 6, 6)
    zeros = F.conv_transpose2d(x, torch.ones(1, 1, 1, 1), stride=2, output_padding=1)  # zeros between
    assert torch.allclose(4 * blur(zeros, 2)[..., 2:10, 2:10], double(x)[..., 1:9, 1:9], atol=1e-5) or torch.allclose(
        4 * blur(zeros, 2)[..., 3:10, 3:10], double(x)[..., 2:9, 2:9], atol=1e-5
    )


def test_the_grid_of_sizes():
    assert [halvings(side, side) for side in (20, 28, 32, 64, 128, 256)] == [2, 2, 3, 4, 5, 6]
    assert [28 / 2**2, 64 / 2**4, 256 / 2**6] == [7, 4, 4]
    x = pictures(2)
    grown = pad_to(x, 24, 24)
    assert grown.shape[2:] == (24, 24)
    assert torch.equal(grown[..., 2:22], x)
    assert torch.equal(grown[..., 0], x[..., 0])


# SAGAN and BigGAN ---------------------------------------------------------------------------------------------------


def weights_of(net: nn.Module) -> dict[str, Tensor]:
    """The weights as they are used: normalised ones without the spectral norm's mark."""
    return {
        name: module.weight
        for name, module in net.named_modules()
        if isinstance(getattr(module, "weight", None), Tensor) and module.weight.ndim > 1
    }


@pytest.mark.parametrize("changes", [{}, {"hierarchical": False, "embedding": 0}], ids=["biggan", "sagan"])
def test_every_weight_of_both_networks_is_spectrally_normal(changes):
    model = make(biggan, **changes)
    for i in range(30):
        step(model, 4 * i)
    for net in (model.G.eval(), model.D.eval()):
        for name, weight in weights_of(net).items():
            free = name == "embed" and net is model.G or (changes and ("scale" in name or "shift" in name))
            if not free:  # embeddings of classes, which no layer comes after directly
                assert torch.linalg.svdvals(weight.flatten(1))[0].item() == pytest.approx(1, abs=0.05), name


def test_attention_is_in_both_networks_and_never_at_the_smallest_map():
    model = make(biggan, ImageSpec(3, 64, 64), attention=32)
    for net, width in ((model.G, 16), (model.D, 16)):
        seen: list[Tensor] = []
        net.attention.register_forward_hook(lambda _, args, out, seen=seen: seen.append(out))
        net(torch.randn(2, 16) if net is model.G else pictures(2, model.spec))
        assert seen[0].shape == (2, width, 32, 32)
    for asked in (1, 4, 1000):
        for side in (16, 24, 64):
            spec = ImageSpec(1, side, side)
            place = biggan.attention_at(spec, asked, halvings(side, side))
            assert place is None or 1 <= place < halvings(side, side)
    assert make(biggan, attention=0).G.attention is None


def test_each_block_has_its_part_of_z_and_the_shared_embedding():
    """A later part of z does not move the maps before its block; the label moves all blocks through one table."""
    model = make(biggan, ImageSpec(1, 32, 32, 3), z_dim=16)
    G = model.G.eval()
    assert G.parts == [4, 4, 4, 4]
    maps: list[Tensor] = []
    for block in G.blocks:
        block.register_forward_hook(lambda *args: maps.append(args[2].detach()))
    z, y = torch.randn(2, 16), torch.tensor([0, 1])
    G(z, y)
    first, maps[:] = list(maps), []
    for part in range(4):
        changed = z.clone()
        changed[:, 4 * part : 4 * part + 4] += 1
        G(changed, y)
        for i in range(3):
            assert torch.equal(maps[i], first[i]) == (i < part - 1), (part, i)
        maps.clear()
    assert [name for name, p in G.named_parameters() if p.shape[0] == 3] == ["embed.weight"]
    with torch.no_grad():
        G.embed.weight[0] += 1
    G(z, y)
    assert all(not torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(maps, first, strict=True))
    sagan = make(biggan, hierarchical=False, embedding=0)
    assert sagan.G.parts == [16, 0, 0]
    assert sagan.G.embed is None


def test_the_label_reaches_D_by_a_product_with_its_features():
    model = make(biggan)
    D, x = model.D.eval(), pictures(3)
    features: list[Tensor] = []
    D.linear.register_forward_pre_hook(lambda _, args: features.append(args[0].detach()))
    by_class = torch.stack([D(x, torch.full((3,), c)) for c in range(3)])
    phi = features[0]
    plain = D.linear(phi).squeeze(1)
    assert torch.allclose(by_class, plain + D.embed.weight @ phi.t(), atol=1e-5)


def test_biggan_updates_D_first_and_as_often_as_asked():
    model, order = make(biggan, D_steps=3), []
    for name, optimizer in model.parts.optimizers.items():
        optimizer.register_step_post_hook(lambda *_, name=name: order.append(name))
    step(model)
    assert order == ["D", "D", "D", "G"]


def test_the_orthogonal_penalty_moves_G_towards_orthogonal_rows():
    values = []
    for strength in (0.0, 1.0):
        model = make(biggan, orthogonal=strength, ema_share=0.5)
        torch.manual_seed(3)
        for weight in biggan.orthogonal_weights(model.G):
            weight.data.add_(0.1 * torch.randn_like(weight))
        for i in range(15):
            step(model, 4 * i)
        values.append(orthogonal(biggan.orthogonal_weights(model.G), 1.0).item())
    assert values[1] < 0.7 * values[0]
    assert not any(w is model.G.embed.weight for w in biggan.orthogonal_weights(model.G))


def test_truncated_noise_is_redrawn_not_clamped():
    model, drawn = make(biggan), []
    model.G_ema.register_forward_pre_hook(lambda _, args: drawn.append(args[0]))
    model.sample(100, seed=0, truncation=0.3)
    z = drawn[0].flatten()
    assert z.abs().max() <= 0.6
    assert (z.abs() > 0.999 * 0.6).float().mean() < 0.01, "clamped numbers would pile up at the edge"
    inside = torch.distributions.Normal(0.0, 1.0)
    low, high = inside.cdf(torch.tensor(-0.6)), inside.cdf(torch.tensor(0.6))
    uniform = ((inside.cdf(z) - low) / (high - low)).sort().values
    assert (uniform - torch.linspace(0, 1, len(z))).abs().max() < 1.63 / math.sqrt(len(z))  # Kolmogorov, 1 %
