"""The mathematics of training against values worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from elegan.adversarial.objectives import OBJECTIVES, PAIRED_OBJECTIVES, paired, share_above
from elegan.adversarial.stabilizers import (
    clip_weights,
    cosine_ramp,
    ema_decay,
    frozen,
    learning_rate,
    set_learning_rate,
    shortness,
    soft_targets,
    truncated_normal,
    update_ema,
)

ONE, ZERO = torch.tensor(1.0), torch.tensor(0.0)


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def gradient(loss: Any, *values: float) -> list[float]:
    logits = torch.tensor(values, requires_grad=True)
    loss(logits).backward()
    assert logits.grad is not None
    return logits.grad.tolist()


def test_saturating_and_not_at_a_sure_discriminator():
    """At D(G(z)) = 1e-3 the minimax gradient has all but vanished; the non-saturating one is whole."""
    where = logit(1e-3)
    (minimax,) = gradient(OBJECTIVES["minimax"].G, where)
    (nonsaturating,) = gradient(OBJECTIVES["nonsaturating"].G, where)
    assert minimax == pytest.approx(-1e-3, rel=1e-4)
    assert nonsaturating == pytest.approx(-0.999, rel=1e-4)


@pytest.mark.parametrize("name", [*OBJECTIVES, "relativistic"])
def test_every_objective_has_the_form_of_a_paired_one(name: str) -> None:
    real, fake = torch.tensor([2.0, -0.3, 0.4]), torch.tensor([1.0, 0.7, -3.0])
    game = paired(name)
    if name in OBJECTIVES:
        plain = OBJECTIVES[name]
        expected = plain.D_real(real, torch.ones(3)) + plain.D_fake(fake, torch.zeros(3)), plain.G(fake)
    else:
        expected = PAIRED_OBJECTIVES[name].D(real, fake), PAIRED_OBJECTIVES[name].G(real, fake)
    torch.testing.assert_close((game.D(real, fake), game.G(real, fake)), expected)


def test_right_is_of_both_sides_or_of_pairs() -> None:
    real, fake = torch.tensor([2.0, 0.3, 0.4, 0.6]), torch.tensor([1.0, 0.7, -3.0, 0.2])
    sides = {"hinge": (1.0, 0.25), "least-squares": (0.5, 0.5)}
    for name, (on_real, on_fake) in sides.items():
        for game in (OBJECTIVES[name], paired(name)):
            found = {key: value.item() for key, value in game.right(real, fake).items()}
            assert found == {"D_real": on_real, "D_fake": on_fake}
    assert {k: v.item() for k, v in paired("relativistic").right(real, fake).items()} == {"pairs": 0.75}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_generators_always_push_the_logit_up(name):
    aim = 0.0 if name == "least-squares-chi2" else 1.0  # c of least squares; the others have no end
    for grad in gradient(OBJECTIVES[name].G, aim - 4, aim - 1.5, aim - 1, aim - 0.3):
        assert grad < 0


def test_cross_entropy_values():
    """D = 0.8 on real and 0.3 on fake: -log 0.8 - log 0.7."""
    for name in ("minimax", "nonsaturating"):
        game = OBJECTIVES[name]
        assert game.D_real(torch.tensor([logit(0.8)]), ONE).item() == pytest.approx(-math.log(0.8))
        assert game.D_fake(torch.tensor([logit(0.3)]), ZERO).item() == pytest.approx(-math.log(0.7))
    assert OBJECTIVES["minimax"].G(torch.tensor([logit(0.3)])).item() == pytest.approx(math.log(0.7))
    assert OBJECTIVES["nonsaturating"].G(torch.tensor([logit(0.3)])).item() == pytest.approx(-math.log(0.3))


def test_the_minimax_game_is_zero_sum():
    """G's loss is minus D's loss on fakes."""
    logits = torch.randn(50)
    game = OBJECTIVES["minimax"]
    torch.testing.assert_close(game.G(logits), -game.D_fake(logits, ZERO))


def test_cross_entropy_survives_extreme_logits():
    logits = torch.tensor([-500.0, 500.0])
    for name in ("minimax", "nonsaturating"):
        game = OBJECTIVES[name]
        for loss in (game.D_real(logits, ONE), game.D_fake(logits, ZERO), game.G(logits)):
            assert torch.isfinite(loss)


def test_the_best_discriminator_of_two_gaussians_is_the_log_ratio():
    """Where D's logit is log p/q its loss has no slope: N(0, 1) against N(1, 1), p/q = exp(1/2 - x)."""
    game = OBJECTIVES["nonsaturating"]
    for value in (-1.0, 0.0, 0.5, 2.0):
        z = torch.tensor([0.5 - value], requires_grad=True)
        ratio = math.exp(0.5 - value)  # p / q
        (grad,) = torch.autograd.grad(ratio * game.D_real(z, ONE) + game.D_fake(z, ZERO), z)
        assert grad.item() == pytest.approx(0, abs=1e-6)


def test_least_squares():
    """1/2 (D - 1)^2 on real, 1/2 D^2 on fake, 1/2 (D - 1)^2 for G: the mean of two by hand."""
    game = OBJECTIVES["least-squares"]
    logits = torch.tensor([3.0, 0.5])
    assert game.D_real(logits, ONE).item() == pytest.approx((4 + 0.25) / 4)
    assert game.D_fake(logits, ZERO).item() == pytest.approx((9 + 0.25) / 4)
    assert game.G(logits).item() == pytest.approx((4 + 0.25) / 4)
    assert game.threshold == 0.5
    assert gradient(game.G, 3.0, 0.5) == pytest.approx([1.0, -0.25])


@pytest.mark.parametrize(("name", "a", "b"), [("least-squares", 0.0, 1.0), ("least-squares-chi2", -1.0, 1.0)])
def test_the_best_least_squares_discriminator(name, a, b):
    """D* = (b p + a q) / (p + q) (Mao+ 2017, eq. 5), for both codings: where the loss weighed by p and q is flat."""
    game = OBJECTIVES[name]
    for p, q in [(1.0, 1.0), (3.0, 1.0), (0.2, 2.0)]:
        best = torch.tensor([(b * p + a * q) / (p + q)], requires_grad=True)
        (grad,) = torch.autograd.grad(p * game.D_real(best, ONE) + q * game.D_fake(best, ZERO), best)
        assert grad.item() == pytest.approx(0, abs=1e-6)
    assert game.threshold == (a + b) / 2


def test_the_two_codings_do_not_mix():
    """A fake at D = 5 has the slope |D - c|: c = 1 in the coding 0/1, c = 0 in -1/1. Smoothed targets move with it."""
    assert gradient(OBJECTIVES["least-squares"].G, 5.0) == [4.0]
    assert gradient(OBJECTIVES["least-squares-chi2"].G, 5.0) == [5.0]
    game = OBJECTIVES["least-squares-chi2"]
    assert game.D_real(torch.tensor([0.8]), torch.tensor(0.9)).item() == pytest.approx(0, abs=1e-7)
    assert game.D_fake(torch.tensor([0.0]), ZERO).item() == pytest.approx(0.5)


def test_the_chi_square_game_measures_pearsons_chi_square():
    """At D*, 2 C(G) = chi^2(p + q, 2 q) / 2 up to a constant: on three points, by numbers (Mao+ 2017, theorem 1)."""
    game = OBJECTIVES["least-squares-chi2"]
    p = torch.tensor([0.5, 0.3, 0.2])
    values, divergences = [], []
    for q in (p, torch.tensor([0.2, 0.3, 0.5]), torch.tensor([0.1, 0.1, 0.8])):
        best = (p - q) / (p + q)  # a = -1, b = 1
        values.append(sum((p[i] + q[i]) * game.G(best[i : i + 1]).item() for i in range(3)).item())
        divergences.append(((p + q - 2 * q) ** 2 / (p + q)).sum().item())
    assert values == pytest.approx([d / 2 for d in divergences])
    assert values[0] == 0


def test_hinge():
    """Nothing beyond the margin on either side; G's loss is linear."""
    game = OBJECTIVES["hinge"]
    logits = torch.tensor([2.0, 0.0, -3.0])
    assert game.D_real(logits, ONE).item() == pytest.approx((0 + 1 + 4) / 3)
    assert game.D_fake(logits, ZERO).item() == pytest.approx((3 + 1 + 0) / 3)
    assert game.G(logits).item() == pytest.approx(1 / 3)
    assert gradient(lambda x: game.D_real(x, ONE), 2.0, 0.5) == [0, -0.5]
    assert gradient(lambda x: game.D_fake(x, ZERO), -2.0, -0.5) == [0, 0.5]


def test_wasserstein():
    game = OBJECTIVES["wasserstein"]
    logits = torch.tensor([2.0, -1.0])
    assert game.D_real(logits, ONE).item() == -0.5
    assert game.D_fake(logits, ZERO).item() == 0.5
    assert game.G(logits).item() == -0.5


@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses_of_half_precision_logits_are_float32(name):
    game, logits = OBJECTIVES[name], torch.tensor([1.5, -2.0], dtype=torch.bfloat16)
    for loss in (game.D_real(logits, ONE), game.D_fake(logits, ZERO), game.G(logits)):
        assert loss.dtype == torch.float32
        assert loss.ndim == 0


def test_share_above():
    logits = torch.tensor([0.4, 0.6, 0.5, 2.0], requires_grad=True)
    share = share_above(logits, 0.5)
    assert share.item() == 0.5
    assert not share.requires_grad


def test_soft_targets_are_exact_without_softening():
    logits = torch.zeros(5, dtype=torch.bfloat16)
    assert soft_targets(logits, 1.0).tolist() == [1] * 5
    assert soft_targets(logits, 0.9).tolist() == pytest.approx([0.9] * 5)  # one-sided smoothing
    assert soft_targets(logits, 0.0).dtype == torch.float32


def test_noise_and_flips_follow_their_laws():
    torch.manual_seed(0)
    logits = torch.zeros(20_000)
    noisy = soft_targets(logits, 1.0, noise=-0.3)
    assert stats.kstest(((1 - noisy) / 0.3).numpy(), "uniform").pvalue > 1e-3
    flipped = soft_targets(logits, 1.0, flip=0.2)
    assert set(flipped.tolist()) == {0, 1}
    assert 1 - flipped.mean().item() == pytest.approx(0.2, abs=0.015)  # five deviations
    assert soft_targets(logits, 0.0, flip=0.2).mean().item() == pytest.approx(0.2, abs=0.015)


def pair() -> tuple[nn.Module, nn.Module]:
    a, b = (nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)) for _ in range(2))
    for net, value in ((a, 1.0), (b, 0.0)):
        for tensor in [*net.parameters(), *(t for t in net.buffers() if t.is_floating_point())]:
            tensor.data.fill_(value)
    return a, b


def test_a_weights_share_halves_every_half_life():
    """Averaging towards zero for 1,000 images at a half-life of 500 leaves a quarter, whatever the batch."""
    for batch in (10, 50, 250):
        average, net = pair()
        for seen in range(100_000, 101_000, batch):
            update_ema(average, net, ema_decay(batch, 500, seen))
        values = [*average.parameters(), *(b for b in average.buffers() if b.is_floating_point())]
        for value in values:
            torch.testing.assert_close(value.data, torch.full_like(value, 0.25), atol=1e-4, rtol=0)


def test_the_average_forgets_the_random_start():
    """Early on the half-life is a share of the images seen; later it is what was asked for."""
    assert ema_decay(64, 10_000, 0) == pytest.approx(0)
    assert ema_decay(64, 10_000, 1_280) == pytest.approx(0.5)  # 5 % of 1,280 is one batch
    assert ema_decay(64, 10_000, 10**7) == pytest.approx(0.5 ** (64 / 10_000))
    assert ema_decay(64, math.inf, 1_000, ramp=0.064) == pytest.approx(0.5)


def test_the_average_follows_counters_and_keeps_the_net():
    average, net = pair()
    net[1].num_batches_tracked.fill_(7)
    update_ema(average, net, 0.9)
    assert average[1].num_batches_tracked == 7
    assert not any(p.any() for p in net.parameters())


def test_learning_rate_schedules():
    assert [learning_rate(p, "constant") for p in (0, 0.5, 1)] == [1, 1, 1]
    assert [learning_rate(p, "linear") for p in (0, 0.25, 1)] == [1, 0.75, 0]
    assert [learning_rate(p, "cosine") for p in (0, 0.5, 1)] == pytest.approx([1, 0.5, 0])
    assert [learning_rate(p, "linear", hold=0.5) for p in (0, 0.5, 0.75, 1)] == [1, 1, 0.5, 0]
    assert [learning_rate(p, "linear", 0.5, 0.2) for p in (0.5, 0.75, 1)] == pytest.approx([1, 0.6, 0.2])
    assert learning_rate(1, "cosine", 0.5, 0.2) == pytest.approx(0.2)


def test_how_short_a_run_is():
    assert [shortness(total, 60) for total in (1, 60, 61, 120, 121, 240, 241)] == [1, 1, 0.25, 0.25, 0.0625, 0.0625, 0]
    assert shortness(1, 0) == 0


def test_cosine_ramp():
    ramp = lambda progress: cosine_ramp(progress, 4.0, 2.0, 0.5)
    assert [ramp(p) for p in (0, 0.25, 0.5, 0.9)] == pytest.approx([4, 3, 2, 2])
    assert cosine_ramp(0.5, 0.0, 1.0) == pytest.approx(0.5)


def test_set_learning_rate():
    p = nn.Parameter(torch.zeros(2))
    plain, on_device = torch.optim.SGD([p], 1.0), torch.optim.Adam([p], torch.tensor(1.0))
    for optimizer in (plain, on_device):
        set_learning_rate(optimizer, 0.25)
        assert float(optimizer.param_groups[0]["lr"]) == 0.25


def test_frozen_lets_gradients_through_and_gives_none_to_the_weights():
    net = nn.Linear(3, 1)
    net.bias.requires_grad_(False)
    x = torch.randn(2, 3, requires_grad=True)
    with frozen(net):
        net(x).sum().backward()
    assert x.grad is not None
    assert x.grad.any()
    assert net.weight.grad is None
    assert net.weight.requires_grad
    assert not net.bias.requires_grad, "what was frozen before stays frozen"
    with pytest.raises(ZeroDivisionError), frozen(net):
        1 / 0
    assert net.weight.requires_grad


def test_clipped_weights_lie_within():
    net = nn.Linear(30, 30)
    nn.init.normal_(net.weight)
    small = net.weight.detach().clone().abs() < 0.1
    kept = net.weight.detach()[small].clone()
    clip_weights(net.parameters(), 0.1)
    assert max(p.abs().max().item() for p in net.parameters()) == pytest.approx(0.1)
    assert torch.equal(net.weight.detach()[small], kept)


@pytest.mark.parametrize("truncation", [0.05, 0.3, 0.7, 0.999])
def test_truncated_noise_has_the_truncated_law(truncation):
    z = truncated_normal((200, 100), truncation, torch.Generator().manual_seed(0)).numpy().ravel()
    edge = 2 * truncation
    assert np.abs(z).max() <= edge * (1 + 1e-6)
    assert np.abs(z).max() > 0.99 * edge
    assert stats.kstest(z, stats.truncnorm(-edge, edge).cdf).pvalue > 1e-3


def test_noise_without_truncation_is_normal_and_keyed():
    a, b = (truncated_normal((100, 100), 1.0, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(a, b)
    assert stats.kstest(a.numpy().ravel(), "norm").pvalue > 1e-3
    assert a.abs().max() > 2
