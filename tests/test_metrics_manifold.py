"""Precision, recall, density and coverage: a brute-force reference, expectations, and the published numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elegan.errors import UserError
from elegan.metrics import balls, density_coverage, prdc, precision_recall


def brute(fake, real, k):
    """The definitions, one pair of images after the other."""

    def radius(x, i):
        return sorted(np.linalg.norm(x[i] - x[j]) for j in range(len(x)) if j != i)[k - 1]

    real_radius = [radius(real, i) for i in range(len(real))]
    fake_radius = [radius(fake, i) for i in range(len(fake))]
    d = np.array([[np.linalg.norm(a - b) for b in real] for a in fake])
    in_real, in_fake = d <= np.array(real_radius), d <= np.array(fake_radius)[:, None]
    return in_real.any(1).mean(), in_fake.any(0).mean(), in_real.sum() / (k * len(fake)), in_real.any(0).mean()


@given(st.integers(0, 1000), st.integers(1, 4), st.floats(0.3, 2.0))
@settings(max_examples=25, deadline=None)
def test_equals_the_definition(seed, k, scale):
    rng = np.random.default_rng(seed)
    fake, real = scale * rng.normal(size=(17, 3)), rng.normal(size=(23, 3))
    np.testing.assert_allclose(prdc(fake, real, k_pr=k, k_dc=k), brute(fake, real, k), atol=1e-12)


def test_each_pair_uses_its_own_k():
    rng = np.random.default_rng(0)
    fake, real = rng.normal(0.5, 1, size=(60, 3)), rng.normal(size=(50, 3))
    both = prdc(fake, real, k_pr=2, k_dc=4)
    np.testing.assert_allclose(both, [*brute(fake, real, 2)[:2], *brute(fake, real, 4)[2:]])
    assert precision_recall(fake, real, k=2) == (both.precision, both.recall)
    assert density_coverage(fake, real, k=4) == (both.density, both.coverage)


def test_precision_and_recall_are_not_swapped():
    rng = np.random.default_rng(1)
    real = np.concatenate([rng.normal(c, 1, size=(150, 4)) for c in (0, 50)])
    one_mode = rng.normal(0, 0.7, size=(300, 4))  # good images, half of the variety
    precision, recall = precision_recall(one_mode, real)
    assert precision > 0.95 and 0.3 < recall < 0.55
    assert density_coverage(one_mode, real)[1] < 0.55
    also_rubbish = np.concatenate([real + 0.01, rng.normal(-80, 1, size=(300, 4))])
    precision, recall = precision_recall(also_rubbish, real)
    assert precision == pytest.approx(0.5, abs=0.01) and recall > 0.98


@pytest.mark.parametrize("k", [1, 3, 5])
def test_coverage_of_equal_laws_is_its_expectation(k):
    rng = np.random.default_rng(k)
    found = [density_coverage(*rng.normal(size=(2, 800, 8)), k=k) for _ in range(6)]
    density, coverage = np.mean(found, 0)
    assert coverage == pytest.approx(1 - 2.0**-k, abs=0.02)
    assert density == pytest.approx(1, abs=0.08)


def test_a_set_against_itself():
    x = np.random.default_rng(2).normal(size=(200, 5))
    result = prdc(x, x)
    assert result.precision == result.recall == result.coverage == 1
    assert result.density == pytest.approx((5 + 1) / 5, abs=1e-9)  # the image itself and its k neighbours, mutually


def test_twins_are_each_others_neighbours():
    x = np.random.default_rng(3).normal(size=(40, 5))
    assert balls(np.concatenate([x, x]), (1,)).radii[1].max() < 1e-9
    assert balls(x, (1,)).radii[1].min() > 1e-3


def test_neither_block_size_nor_order_nor_offset_matters(monkeypatch):
    rng = np.random.default_rng(4)
    fake, real = rng.normal(size=(230, 6)), rng.normal(0.3, 1, size=(310, 6))
    whole = prdc(fake, real)
    assert prdc(fake[::-1], real[rng.permutation(310)]) == pytest.approx(whole)
    assert prdc(fake + 1e7, real + 1e7) == pytest.approx(whole)  # no cancellation
    monkeypatch.setattr("elegan.metrics.manifold.BLOCK", 7)
    assert prdc(fake, real) == pytest.approx(whole)
    assert prdc(fake, balls(real)) == pytest.approx(whole)


def test_too_few_images_and_missing_radii_are_said():
    x = np.random.default_rng(5).normal(size=(10, 3))
    with pytest.raises(UserError, match="at least 6"):
        prdc(x[:5], x)
    with pytest.raises(UserError, match="k=3 or k=5"):
        prdc(x, balls(x, (3,)))
    with pytest.raises(UserError, match="one feature set"):
        prdc(x, x[:, :2])


@pytest.mark.slow
def test_published_numbers_for_two_equal_gaussians():
    """The README of the reference implementation of density and coverage: 10k against 10k of N(0, I_1000), k = 5.

    Its density, 1.056, is one draw: from draw to draw the density of such data has a deviation of 0.10 about its
    expectation of 1 (measured at 500, 1,000 and 2,000 images), because a few hubs are everybody's neighbours.
    """
    rng = np.random.default_rng(6)
    found = prdc(*rng.normal(size=(2, 10_000, 1000)), k_pr=5, k_dc=5)
    assert (found.precision, found.recall, found.coverage) == pytest.approx((0.477, 0.471, 0.974), abs=0.02)
    assert found.density == pytest.approx(1, abs=0.3)
