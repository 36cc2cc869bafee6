"""Augmentation: what each does to a picture, that nothing is done at p = 0, and that gradients pass, twice."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from elegan.adversarial import augment
from elegan.adversarial.augment import (
    ADA_TOLD,
    AUGMENTATIONS,
    Resample,
    ada_blit,
    ada_colour,
    ada_geometry,
    ada_told,
    adapted,
    diffaugment,
)
from elegan.adversarial.penalties import r1

SHAPES = [(6, 1, 12, 12), (5, 3, 16, 12), (4, 4, 11, 14)]
BOTH = pytest.mark.parametrize("name", ["diffaugment", "ada"])


def pictures(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    x = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return x.contiguous(memory_format=torch.channels_last)


def seeded(function, *args, seed: int = 0, **options) -> Tensor:
    torch.manual_seed(seed)
    return function(*args, **options)


@BOTH
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_nothing_happens_at_p_0(name, shape):
    x = pictures(shape)
    assert AUGMENTATIONS[name](x, 0.0) is x
    torch.testing.assert_close(AUGMENTATIONS[name](x, torch.tensor(0.0)), x, atol=2e-5, rtol=0)
    assert AUGMENTATIONS["none"](x, 1.0) is x


@BOTH
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_pictures_change_in_value_and_nothing_else(name, shape):
    x = pictures(shape)
    y = seeded(AUGMENTATIONS[name], x, 1.0)
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert torch.isfinite(y).all()
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(x, y, strict=True))
    assert torch.equal(y, seeded(AUGMENTATIONS[name], x, 1.0)), "the same seed repeats the draw"
    assert not torch.equal(y, seeded(AUGMENTATIONS[name], x, 1.0, seed=1))


@BOTH
def test_every_picture_gets_a_draw_of_its_own(name):
    x = pictures((1, 3, 16, 16)).expand(20, -1, -1, -1).contiguous(memory_format=torch.channels_last)
    assert len(torch.unique(seeded(AUGMENTATIONS[name], x, 1.0).flatten(1), dim=0)) == 20


@BOTH
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_reach_the_picture_in_its_layout(name, shape):
    x = pictures(shape).requires_grad_()
    y = seeded(AUGMENTATIONS[name], x, 1.0)
    weights = pictures(shape, seed=3)
    (gradient,) = torch.autograd.grad((y * weights).sum(), x)
    assert gradient.is_contiguous(memory_format=torch.channels_last)
    for i in range(len(x)):
        assert gradient[i].abs().max() > 1e-3
        change = torch.zeros_like(x)  # a finite difference along one picture's gradient
        change[i] = 1e-2 * gradient[i].detach() / gradient[i].norm()
        moved = [(seeded(AUGMENTATIONS[name], x.detach() + s * change, 1.0) * weights).sum() for s in (1, -1)]
        assert ((moved[0] - moved[1]) / 2e-2).item() == pytest.approx(gradient[i].norm().item(), rel=2e-2)


def test_a_generator_is_taught_through_it():
    """G's weights get a gradient through augmentation and D, for both kinds: the same pictures, not detached."""
    G, D = nn.Linear(3, 16 * 16), nn.Sequential(nn.Flatten(), nn.Linear(16 * 16, 1))
    for name in ("diffaugment", "ada"):
        G.zero_grad()
        fake = G(torch.randn(4, 3)).view(4, 1, 16, 16)
        D(AUGMENTATIONS[name](fake, 0.8)).sum().backward()
        assert G.weight.grad is not None
        assert G.weight.grad.abs().sum() > 1e-3


def test_the_resampling_is_differentiable_twice():
    torch.manual_seed(0)
    x = torch.randn(2, 2, 6, 5, dtype=torch.float64, requires_grad=True)
    grid = torch.rand(2, 6, 5, 2, dtype=torch.float64) * 3 - 1.5
    resample = lambda images: Resample.apply(images, grid)
    assert torch.autograd.gradcheck(resample, x)
    assert torch.autograd.gradgradcheck(resample, x)
    plain = nn.functional.grid_sample(x, grid, padding_mode="reflection", align_corners=True)
    torch.testing.assert_close(resample(x), plain)


@BOTH
def test_r1_through_it_has_the_right_second_derivative(name):
    """d R1 / d(a weight of D) by autograd equals the finite difference."""
    torch.manual_seed(0)
    D = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 12 * 12, 1)).double()
    x = pictures((3, 3, 14, 14))

    def penalty() -> Tensor:
        torch.manual_seed(1)
        return r1(lambda images: D(AUGMENTATIONS[name](images, 0.9).double()).squeeze(1), x, x, 1.0)

    weight = D[0].weight
    (gradient,) = torch.autograd.grad(penalty(), weight)
    direction = gradient / gradient.norm()
    with torch.no_grad():
        weight += 1e-3 * direction
    above = penalty().item()
    with torch.no_grad():
        weight -= 2e-3 * direction
    assert (above - penalty().item()) / 2e-3 == pytest.approx(gradient.norm().item(), rel=1e-2)


@pytest.mark.parametrize("colours", [augment.jitter_colour, lambda x: ada_colour(x, 1.0)[0]])
def test_colour_leaves_alpha_alone(colours):
    x = pictures((5, 4, 8, 8))
    y = seeded(colours, x)
    assert torch.equal(y[:, 3], x[:, 3])
    assert not torch.equal(y[:, :3], x[:, :3])


def test_diffaugments_colour_has_the_papers_ranges():
    """Of a picture half -1, half 1: brightness is the shift of the mean, contrast the stretch; grey stays grey."""
    x = torch.ones(4000, 1, 2, 2)
    x[:, :, 0] = -1
    y = seeded(augment.jitter_colour, x)
    brightness, contrast = y.mean((1, 2, 3)), (y[:, 0, 1, 0] - y[:, 0, 0, 0]) / 2
    assert -0.5 <= brightness.min() < -0.48
    assert 0.48 < brightness.max() <= 0.5
    assert 0.5 <= contrast.min() < 0.52
    assert 1.48 < contrast.max() <= 1.5
    red = torch.zeros(4000, 3, 1, 1)
    red[:, 0] = 0.9
    y = seeded(augment.jitter_colour, red)
    spread = (y[:, 0] - y[:, 1]).flatten() / 0.9  # saturation times contrast
    assert spread.min() < 0.02
    assert 2.5 < spread.max() <= 3
    assert torch.equal(seeded(augment.jitter_colour, red.repeat(1, 1, 2, 2), 1.0, 0.0), red.repeat(1, 1, 2, 2))


def test_translation_shifts_by_at_most_an_eighth_and_fills():
    x = torch.zeros(500, 1, 16, 24)
    x[:, :, 8, 12] = 5.0
    y = seeded(augment.translate, x, 1.0, 1 / 8, -1.0)
    at = torch.nonzero(y[:, 0] == 5)
    assert len(at) == 500
    rows, columns = at[:, 1] - 8, at[:, 2] - 12
    assert sorted(set(rows.tolist())) == list(range(-2, 3))
    assert sorted(set(columns.tolist())) == list(range(-3, 4))
    for i in range(500):
        empty = (y[i, 0] == -1).sum().item()
        r, c = abs(int(rows[i])), abs(int(columns[i]))
        assert empty == 16 * 24 - (16 - r) * (24 - c)


def test_cutout_is_a_rectangle_of_half_the_side_anywhere():
    x = torch.ones(3000, 3, 8, 12)
    y = seeded(augment.cut_out, x, 1.0, 0.5, 0.0)
    hole = (y == 0).all(1)
    assert torch.equal(hole, (y == 0).any(1)), "all channels together"
    for mask in hole[:50]:
        rows, columns = mask.any(1), mask.any(0)
        assert mask.sum() == rows.sum() * columns.sum(), "a rectangle"
        assert rows.sum() <= 4
        assert columns.sum() <= 6
    assert hole.sum((1, 2)).max() == 24
    assert hole.float().mean(0).min() > 0.05, "every pixel is hit now and then"


@pytest.mark.parametrize("kinds", [{"colour": 0}, {"translation": 0}, {"cutout": 0}])
def test_a_kind_can_be_left_out(kinds):
    x = pictures((50, 3, 16, 16))
    (kind,) = kinds
    only = {"colour": 0, "translation": 0, "cutout": 0}
    assert torch.equal(diffaugment(x, 1.0, **only), x)
    defaults = {"colour": 1.0, "translation": 1 / 8, "cutout": 1 / 2}
    alone = seeded(diffaugment, x, 1.0, **(only | {kind: defaults[kind]}))
    assert not torch.equal(alone, x)


def test_p_is_the_probability_of_each_picture():
    x = pictures((4000, 1, 4, 4))
    for function, changed in (
        (lambda: augment.jitter_colour(x, 0.3), 0.3),
        (lambda: ada_colour(x, torch.tensor(0.3))[0], 1 - 0.7 * 0.7 * 0.85),  # inverting is one of two draws
    ):
        share = ((seeded(function) - x).abs().amax((1, 2, 3)) > 1e-6).float().mean().item()
        assert share == pytest.approx(changed, abs=0.04)  # five deviations


def test_blitting_moves_whole_pixels():
    """Every result is one of eight turns and mirrorings, shifted by whole pixels, in its inner part."""
    x = pictures((12, 1, 16, 16))
    y, _ = seeded(ada_blit, x, 1.0)
    inner = (slice(None), slice(5, 11), slice(5, 11))
    ways = [(turn, mirror) for turn in range(4) for mirror in (False, True)]
    shifts = [(a, b) for a in range(-2, 3) for b in range(-2, 3)]
    seen = []
    for before, after in zip(x, y, strict=True):
        for turn, mirror in ways:
            turned = torch.rot90(before.flip(2) if mirror else before, turn, (1, 2))
            if any(torch.equal(torch.roll(turned, s, (1, 2))[inner], after[inner]) for s in shifts):
                seen.append((turn, mirror))
    assert len(seen) == len(x)
    assert len(set(seen)) >= 5


def test_oblong_pictures_are_not_turned_on_their_side():
    x = torch.zeros(200, 1, 12, 24)
    x[:, :, 5:7] = 1.0  # a bar along the width
    y, _ = seeded(ada_blit, x, 1.0)
    assert torch.equal(y[:, 0].amax(2), y[:, 0].amin(2)), "rows stay rows"


def test_a_smooth_picture_survives_a_rotation():
    """A wide Gaussian bump, rotated about the centre, is the same bump: the resampling adds nothing of its own."""
    y, x = torch.meshgrid(torch.arange(24.0) - 11.5, torch.arange(24.0) - 11.5, indexing="ij")
    bump = torch.exp(-(x**2 + y**2) / 40)[None, None].repeat(20, 1, 1, 1)
    angle = torch.linspace(0, 2 * math.pi, 20)
    tall, wide = (augment._wavelet_matrices(24, torch.device("cpu")) for _ in range(2))
    grid = augment._grid(augment._rotation(angle), 24, 24)
    turned = tall[1] @ Resample.apply(tall[0] @ bump @ wide[0].T, grid) @ wide[1].T
    assert (turned - bump)[..., 4:-4, 4:-4].abs().max() < 0.02


def test_hue_and_saturation_keep_the_lightness_and_inversion_turns_it():
    x = pictures((500, 3, 2, 2))
    torch.manual_seed(0)
    y, _ = ada_colour(x, 1.0)
    ratio = (y.mean(1) - y.mean((1, 2, 3), keepdim=True)[:, 0]) / (x.mean(1) - x.mean((1, 2, 3), keepdim=True)[:, 0])
    spread = ratio.flatten(1).amax(1) - ratio.flatten(1).amin(1)
    assert spread.median() < 1e-3, "lightness is mapped by one affine function a picture"
    assert 0.3 < (ratio.flatten(1).median(1).values < 0).float().mean() < 0.7


def test_ada_tells_what_it_did():
    """Nothing done, zeros; else numbers of about one in size, and which of them are not 0."""
    x = pictures((300, 3, 16, 16))
    for p in (0.0, torch.tensor(0.0)):
        assert not ada_told(x, p)[1].any()
    y, told = seeded(ada_told, x, 1.0)
    assert told.shape == (300, ADA_TOLD)
    assert torch.equal(y, seeded(AUGMENTATIONS["ada"], x, 1.0))
    numbers, flags = told.chunk(2, 1)
    assert ((numbers.std(0) > 0.4) & (numbers.std(0) < 1.2)).all(), "about one in size"
    assert torch.equal(flags, (numbers != 0).float())
    assert 0.01 < (seeded(ada_told, x, 0.3)[1] == 0).all(1).float().mean() < 0.2


def test_what_blitting_tells():
    x = pictures((60, 1, 16, 16))
    y, told = seeded(ada_blit, x, 1.0)
    for before, after, (mirrored, cosine, sine, down, right) in zip(x, y, told, strict=True):
        quarters = {(0, 0): 0, (-1, -1): 1, (-2, 0): 2, (-1, 1): 3}[int(cosine), int(sine)]
        turned = torch.rot90(before.flip(2) if mirrored else before, quarters, (1, 2))
        shifted = torch.roll(turned, (int(2 * down), int(2 * right)), (1, 2))
        assert torch.equal(shifted[:, 2:-2, 2:-2], after[:, 2:-2, 2:-2])


def test_what_geometry_tells():
    """A bump in the middle lands where the told shift and map say."""
    y, x = torch.meshgrid(torch.arange(32.0) - 15.5, torch.arange(32.0) - 15.5, indexing="ij")
    bump = torch.exp(-((x - 2) ** 2 + (y + 1) ** 2) / 6)[None, None].repeat(200, 1, 1, 1)
    moved, told = seeded(ada_geometry, bump, 0.5)
    still = (told == 0).all(1)
    assert 0.02 < still.float().mean() < 0.3
    assert torch.allclose(moved[still], bump[still], atol=1e-5)
    back = told[:, :4].view(-1, 2, 2) + torch.eye(2)  # from the result's places to the picture's
    shift = told[:, 4:] * 4
    at = torch.linalg.solve(back, torch.tensor([2.0, -1.0]) - shift)
    inside = at.abs().amax(1) < 6
    mass = moved[:, 0] / moved.sum((1, 2, 3))[:, None, None]
    found = torch.stack([(mass * x).sum((1, 2)), (mass * y).sum((1, 2))], 1)
    assert inside.sum() > 100
    assert (found - at)[inside].abs().max() < 0.15


@pytest.mark.parametrize("channels", [1, 3])
def test_what_colour_tells(channels):
    x = pictures((100, channels, 4, 4))
    y, told = seeded(ada_colour, x, 1.0)
    brightness, contrast, inverted, cosine, sine, saturation = told.T
    lightness = (x.mean(1) + 0.2 * brightness[:, None, None]) * 2 ** (0.5 * contrast[:, None, None])
    assert torch.allclose(y.mean(1), lightness * (1 - 2 * inverted[:, None, None]), atol=1e-5)
    assert torch.allclose((cosine + 1) ** 2 + sine**2, torch.ones(100), atol=1e-5)
    spread = [(z - z.mean(1, keepdim=True)).flatten(1).norm(dim=1) for z in (x, y)]
    assert torch.allclose(spread[1], spread[0] * 2 ** (0.5 * contrast + saturation), rtol=1e-3, atol=1e-5)


def test_the_controller_moves_p_towards_its_target():
    """sign(r - target) * images / images_to_one, within [0, 1]."""
    p = torch.tensor(0.5)
    up, down = (adapted(p, torch.tensor(r), 256, images_to_one=1000) for r in (0.9, 0.2))
    assert up.item() == pytest.approx(0.756)
    assert down.item() == pytest.approx(0.244)
    assert adapted(p, torch.tensor(0.6), 256, target=0.6).item() == 0.5
    assert adapted(torch.tensor(0.1), torch.tensor(0.0), 256, images_to_one=1000).item() == 0
    assert adapted(torch.tensor(0.9), torch.tensor(1.0), 256, images_to_one=1000).item() == 1
