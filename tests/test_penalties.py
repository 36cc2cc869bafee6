"""Penalties on the critic's slope against closed forms; checks that a planted bug fails each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from elegan.adversarial.objectives import OBJECTIVES
from elegan.adversarial.penalties import (
    PENALTIES,
    dragan,
    gradient_penalty,
    no_penalty,
    one_centred,
    r1,
    r2,
    slope,
    zero_centred,
)

SHAPE = (2, 3, 4)  # of a picture: 24 values
REAL, FAKE = (torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))


def linear(norm: float) -> tuple[nn.Parameter, Callable[[Tensor], Tensor]]:
    """The critic w.x with ||w|| = norm: its slope is w everywhere."""
    w = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    w = nn.Parameter(norm * w / w.norm())
    return w, lambda x: (x * w).sum((1, 2, 3))


def smooth_critic() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(48, 1), nn.Flatten(0))


def test_penalties_of_a_linear_critic_in_closed_form():
    """Slope w at every point: lambda (||w|| - 1)^2 and gamma / 2 ||w||^2, whatever the batch and the pixels."""
    for norm in (0.25, 1.0, 3.0):
        _, critic = linear(norm)
        for n in (1, 3, 6):
            real, fake = REAL[:n], FAKE[:n]
            assert gradient_penalty(critic, real, fake, 10.0).item() == pytest.approx(10 * (norm - 1) ** 2, abs=1e-5)
            assert dragan(critic, real, fake, 7.0).item() == pytest.approx(7 * (norm - 1) ** 2, abs=1e-5)
            assert r1(critic, real, fake, 3.0).item() == pytest.approx(1.5 * norm**2, rel=1e-5)
            assert r2(critic, real, fake, 3.0).item() == pytest.approx(1.5 * norm**2, rel=1e-5)


def test_their_gradient_reaches_the_critics_weights():
    """d/dw of the closed forms: 2 lambda (||w|| - 1) w / ||w|| and gamma w. The second backward pass is there."""
    for norm in (0.25, 3.0):
        one_centred_factor, zero_centred_factor = 20 * (norm - 1) / norm, 10.0
        for penalty, factor in (
            (gradient_penalty, one_centred_factor),
            (dragan, one_centred_factor),
            (r1, zero_centred_factor),
            (r2, zero_centred_factor),
        ):
            w, critic = linear(norm)
            penalty(critic, REAL, FAKE, 10.0).backward()
            assert w.grad is not None
            torch.testing.assert_close(w.grad, factor * w.detach(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["gradient", "dragan", "r1", "r2"])
def test_the_gradient_through_a_network_is_that_of_finite_differences(name):
    critic = smooth_critic().double()

    def value() -> Tensor:
        torch.manual_seed(3)
        return PENALTIES[name](lambda x: critic(x.double()), REAL, FAKE, 2.0)

    value().backward()
    for p in critic.parameters():
        if p.grad is None:  # the last bias: it moves no slope
            continue
        index = int(p.grad.abs().argmax())
        with torch.no_grad():
            ends = []
            for step in (1e-3, -1e-3):
                p.view(-1)[index] += step
                with torch.enable_grad():
                    ends.append(value().item())
                p.view(-1)[index] -= step
        assert p.grad.view(-1)[index].item() == pytest.approx((ends[0] - ends[1]) / 2e-3, rel=2e-2, abs=1e-3)


def test_r1_is_taken_at_real_and_r2_at_fake_pictures():
    """D = a/2 ||x||^2 has slope a x: gamma / 2 a^2 E||x||^2, summed over the pixels."""
    critic = lambda x: 1.5 * x.square().sum((1, 2, 3))
    for penalty, images in ((r1, REAL), (r2, FAKE)):
        expected = 0.5 * 9 * images.square().sum((1, 2, 3)).mean().item()
        assert penalty(critic, REAL, FAKE, 1.0).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("d", "weight"), [(1.0, 10.0), (3.0, 10.0), (0.5, 1.0), (4.0, 2.0)])
def test_the_best_slope_between_two_points_exceeds_one(d, weight):
    """Real at distance d from fake: a d - lambda (a - 1)^2 is largest at a = 1 + d / 2 lambda."""
    direction = torch.full((1, 1, 2, 2), 0.5)  # a unit vector of four pixels
    real, fake = d * direction, torch.zeros(1, 1, 2, 2)
    a = nn.Parameter(torch.tensor(0.1))
    critic = lambda x: a * (x * direction).sum((1, 2, 3))
    optimizer = torch.optim.SGD([a], 0.25 / weight)
    for _ in range(60):
        optimizer.zero_grad()
        (critic(fake).mean() - critic(real).mean() + gradient_penalty(critic, real, fake, weight)).backward()
        optimizer.step()
    assert a.item() == pytest.approx(1 + d / (2 * weight), rel=1e-3)


def points_of(penalty: Callable[..., Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """Where a penalty takes the slope."""
    seen: list[Tensor] = []

    def critic(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return x.flatten(1).sum(1)

    penalty(critic, real, fake, 1.0)
    (points,) = seen
    return points


def eps_of(penalty: Callable[..., Tensor], n: int = 1) -> Tensor:
    """The eps of every value (n, 24) between fake = -1 and real = 1."""
    real = torch.ones(n, *SHAPE)
    return ((points_of(penalty, real, -real) + 1) / 2).flatten(1)


def test_interpolates_have_one_uniform_eps_for_each_pair():
    torch.manual_seed(0)
    eps = eps_of(gradient_penalty, 3000)
    assert (eps.amax(1) - eps.amin(1)).max() < 1e-6, "one eps for a whole picture"
    assert stats.kstest(eps[:, 0].numpy(), "uniform").pvalue > 1e-3, "another for every picture"


def test_dragans_points_lie_near_real_pictures():
    """delta = s / 2 alpha u: at most half a deviation, its mean s / 8."""
    torch.manual_seed(0)
    real = torch.randn(4000, *SHAPE) * 3 + 5
    delta = (points_of(dragan, real, -real) - real) / (0.5 * real.std())
    assert delta.min() > -1e-5
    assert delta.max() < 1 + 1e-5
    assert delta.mean().item() == pytest.approx(0.25, abs=0.01)
    alpha = delta.flatten(1).mean(1) * 2
    assert stats.kstest(alpha.numpy(), "uniform").statistic < 0.06  # the mean of 24 values blurs it a little
    torch.testing.assert_close(points_of(r1, real, -real), real)
    torch.testing.assert_close(points_of(r2, real, -real), -real)


def cross_slope(critic: Callable[[Tensor], Tensor]) -> float:
    """The largest |dD(x_i) / dx_j| over i != j."""
    x = REAL.clone().requires_grad_()
    logits = critic(x)
    largest = 0.0
    for i in range(len(x)):
        (gradient,) = torch.autograd.grad(logits[i], x, retain_graph=True)
        gradient[i] = 0
        largest = max(largest, gradient.abs().max().item())
    return largest


def test_the_slope_of_the_sum_is_every_pictures_own():
    """dD(x_i)/dx_j = 0: each slope equals that of its picture alone. Batch norm would break it."""
    critic = smooth_critic()
    assert cross_slope(critic) == 0
    logits, gradient = slope(critic, REAL)
    for i in range(len(REAL)):
        one_logit, one_gradient = slope(critic, REAL[i : i + 1])
        torch.testing.assert_close(logits[i : i + 1], one_logit)
        torch.testing.assert_close(gradient[i : i + 1], one_gradient)
    mixed = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(8, 1), nn.Flatten(0))
    assert cross_slope(mixed) > 1e-4


@pytest.mark.parametrize("name", PENALTIES)
def test_penalties_are_float32_under_autocast(name):
    critic = smooth_critic()
    values = []
    for enabled in (False, True):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            values.append(PENALTIES[name](critic, REAL.bfloat16() if enabled else REAL.bfloat16().float(), FAKE, 2.0))
    assert values[0].dtype == values[1].dtype == torch.float32
    assert values[0].ndim == 0
    assert torch.equal(values[0], values[1]), "the same bits: nothing was computed in half precision"


def test_a_dead_critic_has_a_finite_gradient():
    """Where the slope is exactly zero the norm has no derivative; zero is taken, not a division by zero."""
    critic = nn.Sequential(nn.Flatten(), nn.Linear(24, 3), nn.ReLU(), nn.Linear(3, 1), nn.Flatten(0))
    with torch.no_grad():
        critic[1].bias.fill_(-1e3)
    penalty = gradient_penalty(critic, REAL, FAKE, 10.0)
    assert penalty.item() == pytest.approx(10)
    penalty.backward()
    assert all(torch.isfinite(p.grad).all() for p in critic.parameters() if p.grad is not None)


def test_fakes_are_detached():
    """The penalty trains the critic: no gradient may leak into G."""
    fake = FAKE.clone().requires_grad_()
    critic = smooth_critic()
    for name in PENALTIES:
        penalty = PENALTIES[name](critic, REAL, fake, 1.0)
        if penalty.requires_grad:
            penalty.backward()
    assert fake.grad is None


def test_no_penalty_is_zero():
    assert no_penalty(smooth_critic(), REAL, FAKE).item() == 0


# The Dirac-GAN (Mescheder+ 2018): data at 0, a fake at theta, D(x) = psi x; f'(0) = 1/2 for the GAN objective.


def dirac_field(state: Tensor, gamma: float, penalty: Callable[..., Tensor] = r1) -> Tensor:
    """The direction (-dG_loss/dtheta, -dD_loss/dpsi) in which both players move at once."""
    game = OBJECTIVES["nonsaturating"]
    theta, psi = state
    critic = lambda x: psi * x.flatten()
    real, fake = torch.zeros(1, 1), theta.view(1, 1)
    one, zero = torch.ones(1), torch.zeros(1)
    D_loss = game.D_real(critic(real), one) + game.D_fake(critic(fake), zero) + penalty(critic, real, fake, gamma)
    (of_theta,) = torch.autograd.grad(game.G(critic(fake)), theta, create_graph=True)
    (of_psi,) = torch.autograd.grad(D_loss, psi, create_graph=True)
    return -torch.stack([of_theta, of_psi])


@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.9, 1.1, 2.0])
@pytest.mark.parametrize("penalty", [r1, r2])
def test_eigenvalues_of_the_dirac_gan(gamma, penalty):
    """-gamma/2 +- sqrt(gamma^2/4 - f'(0)^2) at the equilibrium: purely imaginary without a penalty."""
    found = torch.autograd.functional.jacobian(lambda s: dirac_field(s, gamma, penalty), torch.zeros(2))
    expected = [-gamma / 2 + sign * complex(gamma**2 / 4 - 0.25) ** 0.5 for sign in (-1, 1)]
    found = sorted(torch.linalg.eigvals(found).tolist(), key=lambda e: (e.real, e.imag))
    for a, b in zip(found, sorted(expected, key=lambda e: (e.real, e.imag)), strict=True):
        assert abs(a - b) < 1e-5


def test_the_dirac_gan_circles_without_and_converges_with_r1():
    """The radius does not shrink by itself; with R1 it falls by exp(-gamma/2 t), within 5 %."""
    h, steps, gamma = 0.02, 600, 0.4
    radii = {}
    for strength in (0.0, gamma):
        state = torch.tensor([0.05, 0.0])
        for _ in range(steps):
            state = state + h * dirac_field(state.requires_grad_(), strength).detach()
            state = state.detach()
        radii[strength] = state.norm().item() / 0.05
    assert radii[0.0] >= 1
    # a quarter of a turn scales the radius; over whole turns only the decay remains: compare with the linear flow
    flow = torch.linalg.matrix_exp(h * steps * torch.tensor([[0.0, 0.5], [-0.5, -gamma]]))
    rate = -torch.tensor(radii[gamma]).log().item() / (h * steps)
    exact = -(flow @ torch.tensor([1.0, 0.0])).norm().log().item() / (h * steps)
    assert rate == pytest.approx(exact, rel=0.05)
    assert rate == pytest.approx(gamma / 2, rel=0.25)


# Planted bugs: each must be told apart by what the tests above look at.


def broken(*, batch_eps: bool = False, batch_norm: bool = False, graph: bool = True, mean: bool = False) -> Any:
    """A gradient penalty with one mistake in it."""

    def penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, weight: float) -> Tensor:
        eps = torch.rand(()) if batch_eps else torch.rand(len(real), 1, 1, 1)
        x = (eps * real + (1 - eps) * fake).requires_grad_()
        (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=graph)
        squares = gradient.square().flatten(1)
        norms = squares.mean(1) if mean else squares.sum() if batch_norm else squares.sum(1)
        return weight * (norms.sqrt() - 1).square().mean()

    return penalty


def test_planted_bugs_are_caught():
    torch.manual_seed(0)
    _, critic = linear(3.0)
    right = 10 * (3.0 - 1) ** 2
    assert broken()(critic, REAL, FAKE, 10.0).item() == pytest.approx(right, rel=1e-4), "without a mistake it agrees"
    assert eps_of(broken(batch_eps=True), 3000)[:, 0].std() < 1e-6
    assert eps_of(gradient_penalty, 3000)[:, 0].std() > 0.1
    assert broken(batch_norm=True)(critic, REAL, FAKE, 10.0).item() > 2 * right
    assert broken(mean=True)(critic, REAL, FAKE, 10.0).item() < right / 2
    flat = broken(graph=False)(critic, REAL, FAKE, 10.0)
    assert not flat.requires_grad, "no graph, no gradient"
    with pytest.raises(RuntimeError, match="does not require grad"):
        flat.backward()


def test_the_two_means_by_hand():
    gradient = torch.tensor([[3.0, 4.0], [0.0, 0.5]])  # norms 5 and 0.5
    assert one_centred(gradient, 10.0).item() == pytest.approx(10 * (16 + 0.25) / 2)
    assert zero_centred(gradient, 2.0).item() == pytest.approx((25 + 0.25) / 2)
