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
    assert orthogonal([w], 1.0).item() == pytest.approx(0, abs=1e-5), "lengths of rows are free"
    tall = torch.randn(50, 3)
    assert orthogonal([tall], 1.0).item() == pytest.approx(
        (tall @ tall.t()).fill_diagonal_(0).square().sum().item(), rel=1e-4
    )
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
    assert torch.allclose(4 * blur(zeros, 2)[..., 1:11, 1:11], double(x)[..., 1:11, 1:11], atol=1e-6), "one filter"


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
    with torch.no_grad():
        for p in (*model.G.parameters(), *model.D.parameters()):
            p.mul_(3 if p.ndim > 1 else 1)  # stored weights begin with norm 1: so that it is not that
    for i in range(80):
        step(model, 4 * i)
    for net in (model.G.eval(), model.D.eval()):
        for name, weight in weights_of(net).items():
            free = (name == "embed" and net is model.G) or (changes and ("scale" in name or "shift" in name))
            if not free:  # embeddings of classes, which no layer comes after directly
                assert torch.linalg.svdvals(weight.flatten(1))[0].item() == pytest.approx(1, abs=0.05), name


def test_attention_is_in_both_networks_and_never_at_the_smallest_map():
    model = make(biggan, ImageSpec(3, 64, 64), attention=32)
    for net, width in ((model.G, 16), (model.D, 8)):
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
    assert [name for name, p in G.named_parameters() if p.ndim > 1 and p.shape[0] == 3] == ["embed.weight"]
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
        model = make(biggan, orthogonal=strength, G_lr=2e-3)
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


# StyleGAN2 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [0.0, 0.3, 2.0])
def test_demodulation_gives_unit_variance_for_any_style(spread):
    """Input of unit variance: output of unit variance, whatever the style's size and spread (eq. 3)."""
    torch.manual_seed(0)
    conv = stylegan2.StyledConv(64, 256, 3, 8)
    conv.affine.weight.data.mul_(spread)
    conv.affine.bias.data.fill_(17.0 if spread == 0 else 1.0)
    x, w = torch.randn(8, 64, 16, 16), torch.randn(8, 8)
    out = conv(x, w)[:, :, 1:-1, 1:-1]  # the border sees zeros
    assert out.flatten(1).std(1).sub(1).abs().max() < 0.05
    plain = stylegan2.StyledConv(64, 256, 3, 8, demodulate=False)
    plain.load_state_dict(conv.state_dict())
    assert plain(x, w).std() > 2 or spread < 1, "without it the style's size would show"


def test_a_styled_convolution_is_the_papers_with_weights_for_each_picture():
    torch.manual_seed(0)
    conv = stylegan2.StyledConv(5, 7, 3, 4)
    conv.bias.data.normal_()
    x, w = torch.randn(3, 5, 6, 6), torch.randn(3, 4)
    for i in range(3):
        modulated = conv.weight * conv.scale * conv.affine(w)[i][None, :, None, None]  # w' = s_i w (eq. 1)
        demodulated = modulated / (modulated.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()  # (eq. 3)
        expected = F.conv2d(x[i : i + 1], demodulated, conv.bias, padding=1)
        assert torch.allclose(conv(x, w)[i], expected[0], atol=1e-5)


@pytest.mark.parametrize("doubles", [False, True])
def test_adain_leaves_of_a_map_what_the_style_says(doubles):
    """Mean and deviation of every map are the style's, whatever they were before (Karras+ 2019, eq. 1)."""
    conv = stylegan2.NormedConv(3, 5, 4, doubles)
    x, w = torch.randn(2, 3, 8, 6), torch.randn(2, 4)
    with torch.no_grad():
        conv.strength.fill_(0.5)
        out = conv(x, w, torch.ones)
        scale, shift = conv.affine(w).chunk(2, 1)
        h = F.conv2d(stylegan2.double(x) if doubles else x, conv.conv.weight / 27**0.5, conv.conv.bias, padding=1)
        h = F.leaky_relu(h + 0.5, 0.2)
        h = (h - h.mean((2, 3), keepdim=True)) / (h.var((2, 3), keepdim=True, unbiased=False) + 5e-6).sqrt()
        assert torch.allclose(out, (1 + scale)[:, :, None, None] * h + shift[:, :, None, None], atol=1e-4)
    assert torch.allclose(out.mean((2, 3)), shift, atol=1e-5)
    assert torch.allclose(out.std((2, 3), unbiased=False), (1 + scale).abs(), rtol=1e-3, atol=1e-4)
    assert torch.allclose(conv(x, w), conv(x, w, torch.zeros))


@pytest.mark.parametrize(("skips", "pictures"), [(True, 3), (False, 1)])
def test_pictures_are_not_demodulated_and_skips_are_summed(skips, pictures):
    G = make(stylegan2, skips=skips).G
    assert len(G.pictures) == pictures
    assert not any(layer.demodulate for layer in G.pictures)
    assert all(layer.demodulate for layer in [*G.ups, *G.convs])
    ws = torch.randn(2, G.layers, 16)
    with torch.no_grad():
        for layer in G.pictures:
            layer.weight.zero_()
            layer.bias.fill_(0.25)
        G.train()
        assert torch.allclose(G(ws), torch.full((2, 1, 24, 20), 0.25 * len(G.pictures)))


@pytest.mark.parametrize("skips", [True, False])
@pytest.mark.parametrize("styling", ["demodulation", "adain"])
def test_styles_reach_the_layers_in_order(skips, styling):
    """A layer's style moves no map before it; the first half-cut is coarse, the rest fine."""
    G = make(stylegan2, skips=skips, styling=styling).G.eval()
    ws = torch.randn(1, G.layers, 16)
    maps: dict[str, Tensor] = {}
    for name, module in G.named_modules():
        if isinstance(module, (stylegan2.StyledConv, stylegan2.NormedConv)):
            module.register_forward_hook(lambda _, args, out, name=name: maps.update({name: out.detach()}))
    order = ["convs.0", "pictures.0", "ups.0", "convs.1", "pictures.1", "ups.1", "convs.2", "pictures.2"]
    layer_of = {"convs.0": 0, "pictures.0": 1, "ups.0": 1, "convs.1": 2, "pictures.1": 3, "ups.1": 3, "convs.2": 4}
    if not skips:  # the one picture is the last size's
        order, layer_of = [name for name in order if name[0] != "p"] + ["pictures.0"], layer_of | {"pictures.0": 5}
        del layer_of["pictures.1"]
    assert G.layers == 6
    G(ws)
    first = dict(maps)
    for i in range(G.layers):
        changed = ws.clone()
        changed[:, i] += 1
        G(changed)
        moved = {name for name in order if not torch.equal(maps[name], first[name])}
        assert not any(name in moved for name, layer in layer_of.items() if layer < i)
        assert {name for name, layer in ({"pictures.2": 5} | layer_of).items() if layer == i and name in order} <= moved


def test_noise_begins_at_zero_and_is_new_for_each_picture_and_layer():
    model = make(stylegan2)
    G, ws = model.G, torch.randn(4, model.G.layers, 16)
    drawn: list[Tensor] = []

    def noise(shape: tuple[int, ...]) -> Tensor:
        drawn.append(torch.randn(shape))
        return drawn[-1]

    assert torch.equal(G(ws, noise), G(ws)), "strength 0 at first"
    assert [tuple(d.shape) for d in drawn] == [(4, 1, s * 6, s * 5) for s in (1, 2, 2, 4, 4)]
    with torch.no_grad():
        for layer in [*G.ups, *G.convs]:
            layer.strength.fill_(0.5)
    same = ws[:1].expand(4, -1, -1)
    out = G(same, noise)
    assert all(not torch.equal(out[0], out[i]) for i in (1, 2, 3))
    assert torch.allclose(G(same)[0], G(same)[1], atol=1e-6), "without noise a picture follows from its styles"


def test_a_truncation_of_zero_gives_one_picture_a_class():
    model = make(stylegan2)
    for i in range(3):
        step(model, 4 * i)
    for layer in model.G_ema.modules():
        if isinstance(layer, stylegan2.NoisyConv):
            layer.strength.data.zero_()
    images = model.sample(6, seed=0, truncation=0.0)  # labels 0 1 2 0 1 2
    assert torch.allclose(images[:3], images[3:], atol=1e-6)
    assert not torch.allclose(images[0], images[1], atol=1e-6)
    varied = model.sample(6, seed=0)
    assert not torch.allclose(varied[:3], varied[3:], atol=1e-6)
    half = model.sample(6, seed=0, truncation=0.5)
    assert (half[:3] - half[3:]).norm() < (varied[:3] - varied[3:]).norm()


def test_the_mean_style_is_followed_class_by_class():
    model = make(stylegan2, w_decay=0.9)
    w, y = torch.randn(6, 16), torch.tensor([0, 0, 0, 2, 2, 0])
    model.parts.values["w_mean"] = torch.ones(3, 16)
    model.follow_styles(w, y)
    mean = model.parts.values["w_mean"]
    assert torch.allclose(mean[0], 0.9 + 0.1 * w[y == 0].mean(0), atol=1e-6)
    assert torch.allclose(mean[2], 0.9 + 0.1 * w[y == 2].mean(0), atol=1e-6)
    assert torch.equal(mean[1], torch.ones(16)), "a class that is not in the batch stays"
    plain = make(stylegan2, ImageSpec(1, 24, 20), w_decay=0.9)
    plain.follow_styles(w, None)
    assert torch.allclose(plain.parts.values["w_mean"], 0.1 * w.mean(0, keepdim=True), atol=1e-6)


def test_styles_are_mixed_as_often_as_asked_and_at_any_layer():
    model = make(stylegan2)
    cuts = []
    for share in (0.9, 0.0, 1.0):
        object.__setattr__(model.config, "mixing", share)  # frozen for users
        torch.manual_seed(0)
        ws = model.styles(2000, torch.zeros(2000, dtype=torch.int64))  # (2000, 6, 16)
        first = (ws == ws[:, :1]).all(2)  # the layers with the coarse style
        cuts.append(first.sum(1))
        assert torch.equal(first.int().cummin(1).values, first.int()), "coarse layers first"
    assert (cuts[0] < 6).float().mean().item() == pytest.approx(0.9, abs=0.03)
    assert (cuts[1] == 6).all()
    assert torch.bincount(cuts[2], minlength=7)[1:6].min() > 330  # 400 expected at each of five places


def test_path_length_of_a_linear_generator_in_closed_form():
    """g(w) = A w: J^T y = A^T y, E ||J^T y||^2 = ||A||^2 / (H W), averaged over the layers of a style."""
    torch.manual_seed(0)
    A = torch.randn(2 * 4 * 5, 7)
    ws = torch.randn(20_000, 3, 7, requires_grad=True)
    images = (ws.sum(1) @ A.t()).view(-1, 2, 4, 5)
    lengths = path_lengths(images, ws)
    assert lengths.shape == (20_000,)
    assert lengths.square().mean().item() == pytest.approx(A.square().sum().item() / 20, rel=0.02)
    images = (ws[:, 0] @ A.t()).view(-1, 2, 4, 5)  # one layer of three
    assert path_lengths(images, ws).square().mean().item() == pytest.approx(A.square().sum().item() / 60, rel=0.02)


def test_the_path_penalty_reaches_G_and_its_mean_follows():
    model = make(stylegan2, path_decay=0.25)
    model.parts.values["path_length"] = torch.tensor(2.0)
    lengths: list[Tensor] = []
    original = stylegan2.path_lengths
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stylegan2, "path_lengths", lambda *args: lengths.append(original(*args)) or lengths[-1])
        penalty = model.path_penalty(4, torch.zeros(4, dtype=torch.int64))
    mean = 0.75 * 2 + 0.25 * lengths[0].mean().item()
    assert model.parts.values["path_length"].item() == pytest.approx(mean)
    assert penalty.item() == pytest.approx((lengths[0] - mean).square().mean().item(), rel=1e-5)
    penalty.backward()
    assert all(layer.weight.grad.abs().sum() > 0 for layer in [*model.G.convs, *model.G.mapping.layers])


def test_lazy_penalties_have_their_intervals_weights_and_optimisers():
    model, order, weights = make(stylegan2, r1_interval=4, path_interval=2, gamma=3.0, path_weight=5.0), [], []
    cfg = model.config
    for name, interval in (("G", 2), ("D", 4)):
        (group,), c = model.parts.optimizers[name].param_groups, interval / (interval + 1)
        assert group["lr"] == pytest.approx(cfg.lr * c)
        assert group["betas"] == pytest.approx((cfg.beta1**c, cfg.beta2**c))
        model.parts.optimizers[name].register_step_post_hook(lambda *_, name=name: order.append(name))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            stylegan2, "zero_centred", lambda slopes, gamma: weights.append(("r1", gamma)) or slopes.sum() * 0
        )
        for i in range(8):
            step(model, 4 * i)
            order.append("|")
    assert "".join(order) == "DDGG|DG|DGG|DG|DDGG|DG|DGG|DG|"
    assert weights == [("r1", 3.0)] * 2
    places = model.typical(10_000)
    assert places == {0: 0.25, 4: 0.5, 8: 0.25}
    plain = make(stylegan2, gamma=0.0, path_weight=0.0).parts.optimizers
    assert all(o.param_groups[0]["lr"] == cfg.lr and o.param_groups[0]["betas"][1] == cfg.beta2 for o in plain.values())


@pytest.mark.parametrize("interval", [1, 5])
def test_a_lazy_penalty_weighs_as_much_as_one_at_every_step(interval):
    """Over an interval the gradients of the penalties' updates sum to interval * gradient, to G and to D."""
    model = make(stylegan2, r1_interval=interval, path_interval=interval, gamma=2.0)
    losses: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stylegan2, "zero_centred", lambda slopes, gamma: torch.tensor(gamma, requires_grad=True))
        patch.setattr(model, "path_penalty", lambda n, labels: torch.tensor(1.0, requires_grad=True))
        patch.setattr(stylegan2, "minimize", lambda loss, optimizer: losses.append(loss.item()))
        for i in range(5):
            step(model, 4 * i)
    lazily = [loss for loss in losses if loss in (2.0 * interval, model.config.path_weight * interval)]
    assert sum(lazily) == pytest.approx(5 * 2.0 + 5 * model.config.path_weight)


def test_stylegan2_goes_on_with_its_means():
    """Resume to the bit between two lazy penalties, where mean style and mean path length are at work."""
    model, other = make(stylegan2), make(stylegan2, seed=9)
    for i in range(3):
        step(model, 4 * i)
    copied(model, other)
    assert model.parts.values["path_length"] > 0
    assert model.parts.values["w_mean"].abs().sum() > 0
    for i in range(3, 9):
        step(model, 4 * i)
        step(other, 4 * i)
    assert differ(model, other) == []
    assert torch.equal(model.sample(5, seed=0, truncation=0.5), other.sample(5, seed=0, truncation=0.5))


# Progressive growing ------------------------------------------------------------------------------------------------


def test_the_growth_follows_the_images_seen():
    model = make(progressive, grow_share=0.6)
    assert model.doublings == 2
    level = lambda seen, total=1000: model.level(Clock(seen, total))
    assert [level(s) for s in (0, 149, 150, 225, 300, 449, 450, 525, 600, 1000)] == pytest.approx(
        [0, 0, 0, 0.5, 1, 1, 1, 1.5, 2, 2]
    )
    assert level(225) == level(2250, 10_000)
    fixed = make(progressive, phase_images=100)
    assert [fixed.level(Clock(s, 10**6)) for s in (0, 100, 150, 200, 299, 350, 400)] == [0, 0, 0.5, 1, 1, 1.5, 2]
    assert [progressive.stage(v) for v in (0.0, 0.25, 1.0, 1.5, 2.0)] == [(0, 1), (1, 0.25), (1, 1), (2, 0.5), (2, 1)]
    places = model.typical(1000)
    assert [math.ceil(level(place)) for place in places] == [0, 1, 2]
    assert list(places.values()) == pytest.approx([0.15, 0.3, 0.55], abs=0.02)


def up(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


@pytest.mark.parametrize("whole", [1, 2])
def test_at_alpha_0_the_old_path_is_drawn_and_at_1_the_new_one(whole):
    G = make(progressive).G
    for p in G.parameters():
        p.data.normal_()
    z = torch.randn(3, 16)
    old, new = G(z, whole - 1.0), G(z, float(whole))
    assert new.shape[2] == 2 * old.shape[2]
    assert (G(z, whole - 1 + 1e-9) - up(old)).abs().max() <= 1e-6
    assert (G(z, whole - 1e-9) - new).abs().max() <= 1e-6
    assert (up(old) - new).abs().max() > 0.1
    for alpha in (0.25, 0.7):
        assert torch.allclose(G(z, whole - 1 + alpha), (1 - alpha) * up(old) + alpha * new, atol=1e-5)


@pytest.mark.parametrize("whole", [1, 2])
def test_D_fades_as_G_does(whole):
    """At alpha = 0 D judges the halved picture as it did before; at 1 by the new layers alone."""
    D = make(progressive).D
    for p in D.parameters():
        p.data.normal_()
    x = pictures(4, ImageSpec(1, 6 * 2**whole, 5 * 2**whole))
    old, new = D(F.avg_pool2d(x, 2), whole - 1.0), D(x, float(whole))
    scale = new.abs().max()
    assert (D(x, whole - 1 + 1e-9) - old).abs().max() <= 1e-6 * scale
    assert (D(x, whole - 1e-9) - new).abs().max() <= 1e-6 * scale
    assert (old - new).abs().max() > 0.01 * scale
    unused = [p for name, p in D.named_parameters() if name.startswith(f"blocks.{whole - 1}")]
    logits = D(F.avg_pool2d(x, 2), whole - 1.0).sum()
    assert all(g is None for g in torch.autograd.grad(logits, unused, allow_unused=True)), (
        "the old path has no new layer"
    )


def test_real_pictures_fade_with_the_networks():
    model, x = make(progressive), pictures(2)
    grid = pad_to(x, 24, 20)
    for level, side in ((0.0, 6), (1.0, 12), (2.0, 24)):
        assert torch.allclose(model.shrink(x, level), F.avg_pool2d(grid, 24 // side), atol=1e-6)
    half, whole = F.avg_pool2d(x, 2), x
    assert torch.allclose(model.shrink(x, 1.25), 0.75 * up(half) + 0.25 * whole, atol=1e-6)
    seen: list[Tensor] = []
    model.D.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    step(model, 525)
    assert torch.equal(seen[0], model.shrink(pictures(4, seed=525), 1.5)), "G and D are at the same level"
    assert {s.shape[2:] for s in seen} == {torch.Size((24, 20))}


def test_raw_weights_are_standard_normal_and_new_layers_keep_the_old():
    model = progressive.Model(progressive.Config(), ImageSpec(3, 32, 32))
    for net in (model.G, model.D):
        weights = {name: p for name, p in net.named_parameters() if p.ndim > 1}
        assert all(p.std().item() == pytest.approx(1, abs=5 / math.sqrt(2 * p.numel())) for p in weights.values())
    model = make(progressive)
    step(model, 440)  # the first doubling is whole
    before = state(model)
    step(model, 456)  # the second begins to fade in
    old = [name for name in before if name.startswith("nets/G/blocks.0")]
    assert old
    for name in old:
        assert 0 < (state(model)[name] - before[name]).abs().max() < 0.02, "learnt on, not started anew"


def test_progressive_goes_on_in_the_middle_of_a_fade():
    model, other = make(progressive), make(progressive, seed=9)
    for i in range(3):
        step(model, 500 + 4 * i)
    assert 1 < model.parts.values["level"] < 2
    copied(model, other)
    assert torch.equal(model.sample(5, seed=0), other.sample(5, seed=0)), "at the same alpha"
    for i in range(3, 6):
        step(model, 500 + 4 * i)
        step(other, 500 + 4 * i)
    assert differ(model, other) == []


def test_the_loss_is_wgan_gp_with_drift():
    model = make(progressive, drift=0.5)
    losses: list[Tensor] = []
    logits: list[Tensor] = []
    model.D.register_forward_hook(lambda *args: logits.append(args[2].detach()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progressive, "minimize", lambda loss, optimizer: losses.append(loss.detach()))
        values = step(model)
    real, fake, again = logits[0], logits[1], logits[-1]
    expected = fake.mean() - real.mean() + values["penalty"] + 0.5 * real.square().mean()
    assert losses[0].item() == pytest.approx(expected.item(), rel=1e-5)
    assert losses[1].item() == pytest.approx(-again.mean().item(), rel=1e-5)
    assert progressive.Config().penalty_weight == 10
    assert progressive.Config().drift == 1e-3
    assert (progressive.Config().beta1, progressive.Config().beta2, progressive.Config().group) == (0, 0.99, 4)


# LAPGAN -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(28, 28), (64, 64), (29, 37), (20, 30)])
def test_the_pyramid_goes_there_and_back(size):
    x = torch.rand(2, 3, *size) * 2 - 1
    details, lows = lapgan.pyramid(x, 4)
    assert len(details) == 4
    assert len(lows) == 3
    assert (lapgan.collapse(details) - x).abs().max() <= 1e-6
    assert details[-1].shape[2:] == tuple(-(-s // 8) for s in size)
    for detail, low, level in zip(details, lows, [x, halve(x), halve(halve(x))], strict=False):
        assert torch.allclose(detail + low, level, atol=1e-6)
    assert (lapgan.collapse([torch.zeros_like(d) for d in details[:-1]] + [details[-1]]) - x).abs().max() > 0.1


def test_levels_share_neither_weights_nor_gradients():
    """Each level's losses reach that level alone, and it learns the same whatever the others are."""
    model = make(lapgan)
    _, lows = lapgan.pyramid(pictures(4), 3)
    assert len(model.sizes) == 3
    y = model.one_hot(torch.tensor([0, 1, 2, 0]))
    made = model.details(model.G, model.noise(4), lows, y)
    for i, logits in enumerate(model.judge(made, lows, y)):
        for nets in (model.G, model.D):
            for j, net in enumerate(nets):
                found = torch.autograd.grad(logits.sum(), list(net.parameters()), retain_graph=True, allow_unused=True)
                reached = any(g is not None and bool(g.any()) for g in found)
                assert reached == (i == j)
    model, twin = make(lapgan), make(lapgan)
    with torch.no_grad():
        for net in (*twin.G[1:], *twin.D[1:]):
            for p in net.parameters():
                p.mul_(1.5)
    step(model)
    step(twin)
    assert all(torch.equal(a, b) for a, b in zip(model.G[0].parameters(), twin.G[0].parameters(), strict=True))
    assert not torch.equal(model.G[1].layers[0].weight, twin.G[1].layers[0].weight)


def test_a_level_is_conditional_on_the_picture_below():
    model = make(lapgan)
    _, lows = lapgan.pyramid(pictures(4), 3)
    y, z = model.one_hot(torch.tensor([0, 1, 2, 0])), model.noise(4)
    model.G.eval()
    model.D.eval()
    made = model.details(model.G, z, lows, y)
    other = [low.roll(1, 0) for low in lows]
    swapped = model.details(model.G, z, other, y)
    assert all(not torch.allclose(a, b, atol=1e-5) for a, b in zip(made[:-1], swapped[:-1], strict=True))
    assert torch.equal(made[-1], swapped[-1])
    renewed = model.details(model.G, model.noise(4), lows, y)
    assert all(not torch.allclose(a, b, atol=1e-5) for a, b in zip(made, renewed, strict=True))
    judged, again = model.judge(made, lows, y), model.judge(made, other, y)
    assert all(not torch.allclose(a, b, atol=1e-5) for a, b in zip(judged[:-1], again[:-1], strict=True))


def test_training_conditions_on_real_low_passes_and_sampling_on_drawn_ones():
    model, given = make(lapgan), []
    model.G[0].register_forward_pre_hook(lambda _, args: given.append(args[1].detach()))
    step(model)
    low = lapgan.pyramid(pictures(4), 3)[1][0]
    assert all(torch.equal(x, low) for x in given)
    G = model.G_ema.eval()
    made: dict[int, tuple[Tensor, ...]] = {}
    for i, net in enumerate(G):
        net.register_forward_hook(lambda _, args, out, i=i: made.update({i: (*args[:-1], out)}))
    images = model.sample(100, seed=0)
    coarse = made[2][-1]
    middle = lapgan.expand(coarse, 12, 10)
    assert torch.equal(made[1][1], middle)
    assert torch.equal(made[0][1], lapgan.expand(middle + made[1][-1], 24, 20))
    assert torch.equal(images, (made[0][1] + made[0][-1]).clamp(-1, 1))


def test_the_logit_of_a_picture_is_the_sum_over_levels():
    model = make(lapgan)
    step(model)
    x, y = pictures(6), torch.arange(6) % 3
    model.D.eval()
    details, lows = lapgan.pyramid(x, 3)
    each = [D(h, low, model.one_hot(y)) for D, h, low in zip(model.D, details, [*lows, None], strict=True)]
    assert torch.allclose(model.logits(x, y), each[0] + each[1] + each[2], atol=1e-6)


# Larger pictures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [biggan, stylegan2], ids=["biggan", "stylegan2"])
def test_pictures_of_256_pixels_are_a_matter_of_configuration(family):
    """The papers' widths at 256x256, made without memory; and a narrow one that learns."""
    wide = {"G_width": 64, "D_width": 64, "G_widest": 512, "D_widest": 512}
    more = (
        {"z_dim": 512, "w_dim": 512, "mapping_layers": 8} if family is stylegan2 else {"z_dim": 140, "embedding": 128}
    )
    with torch.device("meta"):
        model = make(family, ImageSpec(3, 256, 256), **wide, **more)
    assert 10e6 < sum(p.numel() for p in model.G.parameters()) < 60e6
    model = make(family, ImageSpec(3, 256, 256), G_widest=8, D_widest=8, G_width=4, D_width=4, batch=1)
    assert all(torch.isfinite(value) for value in step(model).values())
    assert model.draw(1, None, torch.Generator().manual_seed(0)).shape == (1, 3, 256, 256)
