"""`elegan bench`: the work of a step is counted rightly, for steps of every kind."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from elegan import families
from elegan.bench import Flops, bench

TINY = [name for name in families.presets() if name == "tiny" or name.endswith("-tiny")]


def test_the_work_of_products_convolutions_and_their_gradients_is_counted():
    x, w = torch.randn(2, 3, 8, 8), torch.randn(5, 3, 3, 3, requires_grad=True)
    m = torch.randn(4, 6, requires_grad=True)
    with Flops() as counter:
        y = F.conv2d(x, w, padding=1)
    assert counter.total == 2 * 2 * 8 * 8 * 5 * 3 * 9
    with Flops() as counter:
        y.sum().backward()
    assert counter.total == 2 * 2 * 8 * 8 * 5 * 3 * 9  # of the weights alone: x needs no gradient
    with Flops() as counter:
        (torch.ones(7, 4) @ m).sum().backward()
    assert counter.total == 2 * (2 * 7 * 4 * 6)


def test_gradients_of_gradients_are_counted():
    x, m = torch.ones(7, 4, requires_grad=True), torch.randn(4, 6, requires_grad=True)
    with Flops() as counter:
        (slope,) = torch.autograd.grad((x @ m).square().sum(), x, create_graph=True)
        slope.square().sum().backward()
    # forward; x's gradient; then through both products, to x and to m each
    assert counter.total >= 5 * (2 * 7 * 4 * 6)


@pytest.fixture
def known_ceiling(monkeypatch):
    """A machine of 100 GFLOP/s: to measure this one takes longer than all steps of a small preset."""
    monkeypatch.setattr("elegan.bench.ceiling", lambda engine: 1e11)


@pytest.mark.parametrize("preset", TINY)
def test_every_family_is_timed(preset, known_ceiling):
    found = bench(preset, seconds=0.01, device="cpu", precision="fp32")
    assert found.ms_per_step > 0 and found.gflop_per_step > 0
    assert found.floor_ms == pytest.approx(1e3 * found.gflop_per_step / 100)
    assert found.ratio_to_floor == pytest.approx(found.ms_per_step / found.floor_ms)


def test_the_ceiling_is_of_this_machine():
    """Whatever it is: that it was measured, and that the floor follows from it."""
    found = bench("sngan-tiny", seconds=0.01, device="cpu", precision="fp32")
    assert found.ceiling_gflops > 0
    assert found.floor_ms == pytest.approx(1e3 * found.gflop_per_step / found.ceiling_gflops)


def test_steps_of_every_kind_are_timed_where_they_differ(known_ceiling):
    """StyleGAN2 has penalties now and then: three kinds of step, at least five of each. SNGAN has one kind."""
    steps = [
        bench(name, seconds=0.001, device="cpu", precision="fp32").steps for name in ("stylegan2-tiny", "sngan-tiny")
    ]
    assert steps == [15, 5]
