"""Frechet and kernel distance and the classifier score against closed forms and independent computations."""

import numpy as np
import pytest
import scipy.linalg

from elegan.errors import UserError
from elegan.metrics import classifier_score, frechet, kernel, moments


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def correlated(rng, n, d, shift=0.0):
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + shift


def test_moments_are_the_unbiased_ones(rng):
    x = correlated(rng, 50, 4)
    mean, covariance = moments(x)
    np.testing.assert_allclose(mean, x.mean(0))
    np.testing.assert_allclose(covariance, np.cov(x, rowvar=False))


def test_frechet_of_a_shift_is_its_squared_length(rng):
    x, shift = correlated(rng, 300, 6), rng.normal(size=6)
    assert frechet(x + shift, x) == pytest.approx(shift @ shift, abs=1e-7)


def test_frechet_of_a_scaling_is_the_change_of_deviation(rng):
    x = correlated(rng, 300, 6)
    x -= x.mean(0)
    assert frechet(3 * x, x) == pytest.approx(4 * np.trace(np.cov(x, rowvar=False)))


def test_frechet_of_a_set_with_itself_is_zero(rng):
    x = correlated(rng, 300, 20)
    assert abs(frechet(x, x)) < 1e-6 * np.trace(np.cov(x, rowvar=False))


def test_frechet_agrees_with_scipys_matrix_root(rng):
    x, y = correlated(rng, 400, 8), correlated(rng, 500, 8, 0.3)
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(a @ b).real
    expected = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(a + b - 2 * root)
    assert frechet(x, y) == pytest.approx(expected, rel=1e-9)
    assert frechet(moments(x), y) == pytest.approx(expected, rel=1e-9)


def test_frechet_is_symmetric_even_for_singular_covariances(rng):
    x, y = rng.normal(size=(10, 30)), rng.normal(size=(12, 30))
    assert frechet(x, y) == pytest.approx(frechet(y, x), rel=1e-6)
    flat = np.zeros((10, 30))
    assert frechet(flat, x) == pytest.approx(np.sum(x.mean(0) ** 2) + np.trace(np.cov(x, rowvar=False)), rel=1e-6)


def test_frechet_of_equal_laws_falls_with_the_number_of_images(rng):
    """The bias that the protocol warns of: about proportional to 1/N."""
    few, many = (np.mean([frechet(*rng.normal(size=(2, n, 10))) for _ in range(10)]) for n in (100, 1000))
    assert few / many == pytest.approx(10, rel=0.3)


def test_kernel_has_its_closed_form_in_one_dimension(rng):
    """With (xy / D + 1)^3 the distance is a weighted sum of squared differences of the first three moments."""
    m = 0.5
    x, y = rng.normal(size=(20_000, 1)), rng.normal(m, 1, size=(20_000, 1))
    gaps = np.array([m, m**2, m**3 + 3 * m]) ** 2
    value, error = kernel(y, x)
    assert abs(value - gaps @ [3, 3, 1]) < 4 * error < 0.5
    # A second feature that is always zero changes D and nothing else: this is what notices a lost division by D.
    value, error = kernel(*(np.hstack([a, 0 * a]) for a in (y, x)))
    assert abs(value - gaps @ [3 / 2, 3 / 4, 1 / 8]) < 4 * error < 0.1


def test_kernel_is_unbiased_and_its_error_is_honest(rng):
    draws = [kernel(*rng.normal(size=(2, 60, 5)), seed=i) for i in range(200)]
    values = np.array([d.value for d in draws])
    spread = values.std(ddof=1)
    assert abs(values.mean()) < 3 * spread / np.sqrt(len(values))
    assert np.sqrt(np.mean([d.error**2 for d in draws])) == pytest.approx(spread, rel=0.25)


def test_kernel_sees_a_small_difference(rng):
    value, error = kernel(rng.normal(0.2, 1, size=(2000, 5)), rng.normal(size=(2000, 5)))
    assert value > 5 * error


def test_classifier_score_of_constant_and_perfect_predictions():
    constant = np.full((100, 10), 0.1)
    perfect = np.eye(10)[np.arange(1000) % 10]
    assert classifier_score(constant).value == pytest.approx(1)
    assert classifier_score(perfect).value == pytest.approx(10)
    assert classifier_score(perfect).error < 0.1
    assert classifier_score(perfect[np.arange(1000) % 10 < 5]).value == pytest.approx(5)  # half of the classes
    assert classifier_score(np.eye(10)[[3] * 50]).value == pytest.approx(1)  # collapse to one class


def test_order_of_the_rows_does_not_matter(rng):
    x, y = correlated(rng, 500, 6), correlated(rng, 500, 6)
    p = rng.dirichlet(np.ones(10), 500)
    order = rng.permutation(500)
    assert frechet(x[order], y) == pytest.approx(frechet(x, y), rel=1e-9)
    assert classifier_score(p[order]).value == pytest.approx(classifier_score(p).value, rel=1e-12)
    a, b = kernel(x[order], y), kernel(x, y)
    assert abs(a.value - b.value) < 3 * np.hypot(a.error, b.error)  # other parts, the same expectation


@pytest.mark.parametrize("metric", [frechet, kernel])
def test_what_is_no_feature_matrix_is_refused(metric, rng):
    x = rng.normal(size=(30, 4))
    broken = x.copy()
    broken[3, 1] = np.nan
    for bad, why in ((x[:, :3], "features"), (broken, "NaN"), (x[:1], "too few"), (x[0], "matrix")):
        with pytest.raises(UserError, match=why) as error:
            metric(bad, x)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="sum"):
        classifier_score(x)
