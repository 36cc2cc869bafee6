"""What is demanded of each metric, as functions of the module that holds it.

`tests/test_metrics_proofs.py` runs every check on the package, and on copies of its modules with a bug planted in
each, which the check has to notice. A check therefore takes the functions that it judges from its argument.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch

from elegan.errors import UserError

Check = Callable[[Any], None]


def draws(seed: int = 5) -> np.random.Generator:
    return np.random.default_rng(seed)


def correlated(rng: np.random.Generator, n: int, d: int, shift: float = 0.0) -> np.ndarray:
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + shift


def honest(draw: Callable[[], Any], low: float = 0.8, high: float = 1.35, count: int = 80) -> None:
    """The root mean squared error that estimates claim is, within limits, the deviation that repeated draws have."""
    found = [draw() for _ in range(count)]
    claimed = np.sqrt(np.mean([one.error**2 for one in found]))
    actual = np.std([one.value for one in found], ddof=1)
    assert low < claimed / actual < high, f"claims {claimed:.3g}, has {actual:.3g}"


def features_as_given(count: int) -> torch.nn.Module:
    """For torchmetrics: a network whose features are what it is given."""
    network = torch.nn.Identity()
    network.num_features = count  # type: ignore[assignment]
    return network


def bars(
    n: int, seed: int, lost: tuple[int, ...] = (), shape: tuple[int, int, int] = (16, 12, 3)
) -> tuple[np.ndarray, np.ndarray]:
    """A bright bar at one of four heights of a dark picture; the height is the class. `lost` classes do not occur."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (n, *shape), dtype=np.uint8)
    labels = rng.choice([c for c in range(4) if c not in lost], n)
    for image, label in zip(images, labels, strict=True):
        image[4 * label : 4 * label + 3] += rng.integers(60, 190, dtype=np.uint8)
    return images, labels


# --- matrix -----------------------------------------------------------------------------------------------------


def matrix_means_and_errors(m: Any) -> None:
    x = draws().normal(3, 2, 400)
    assert m.mean(x).value == pytest.approx(x.mean(), rel=1e-12)
    assert m.mean(x).error == pytest.approx(scipy.stats.sem(x), rel=1e-12)
    assert m.mean([4.0]) == (4.0, 0.0)
    found = x > 4
    assert m.share(found).value == found.mean()
    posterior = scipy.stats.beta(found.sum() + 1, (~found).sum() + 1)
    assert m.share(found).error == pytest.approx(posterior.std(), rel=1e-9)
    assert m.share(np.zeros(1000, bool)).error == pytest.approx(1e-3, rel=0.01)  # none is not never


def matrix_median_error(m: Any) -> None:
    rng = draws()
    honest(lambda: m.median(rng.normal(size=400)), count=200)
    assert m.median([1.0, 5.0, 2.0]).value == 2


def matrix_jackknife(m: Any) -> None:
    """Of a mean it is the usual error, when every group is one row; of a function of it, what repeated draws show."""
    rng = draws()
    x = rng.normal(2, 1, size=(30, 1))
    alone = m.jackknife(x, lambda mean: float(mean[0]), groups=30)
    assert alone.value == pytest.approx(x.mean(), rel=1e-12)
    assert alone.error == pytest.approx(scipy.stats.sem(x[:, 0]), rel=1e-9)
    honest(lambda: m.jackknife(rng.normal(2, 1, size=(300, 2)), lambda mean: float(mean[0] * mean[1])), count=150)
    assert m.jackknife(x[:1], lambda mean: float(mean[0])).error == 0


def matrix_is_exact(m: Any) -> None:
    """float64 throughout: a value that float32 rounds away comes through, and a constant does no harm."""
    assert m.as_matrix([[1 + 1e-12]])[0, 0] - 1 == pytest.approx(1e-12, rel=1e-3, abs=0)
    with pytest.raises(UserError, match="NaN"):
        m.as_matrix([[np.nan]])


# --- Frechet distance -------------------------------------------------------------------------------------------


def frechet_closed_forms(m: Any) -> None:
    rng = draws()
    x, shift = correlated(rng, 300, 6), rng.normal(size=6)
    variance = np.trace(np.cov(x, rowvar=False))
    assert m.frechet(x + shift, x) == pytest.approx(shift @ shift, abs=1e-7)
    centred = x - x.mean(0)
    assert m.frechet(3 * centred, centred) == pytest.approx(4 * variance, rel=1e-9)
    assert abs(m.frechet(x, x)) < 1e-7 * variance
    one = x[:, :1]  # in one dimension: the squared difference of means and of deviations
    assert m.frechet(5 * one + 2, one) == pytest.approx(
        (4 * one.mean() + 2) ** 2 + (4 * one.std(ddof=1)) ** 2, rel=1e-9
    )


def frechet_agrees_with_scipy(m: Any) -> None:
    rng = draws()
    x, y = correlated(rng, 90, 8), correlated(rng, 120, 8, 0.3)
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(a @ b).real
    expected = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(a + b - 2 * root)
    assert m.frechet(x, y) == pytest.approx(expected, rel=1e-9)
    assert m.frechet(m.moments(x), y) == pytest.approx(expected, rel=1e-9)
    assert m.frechet_estimate(x, m.moments(y)).value == pytest.approx(expected, rel=1e-9)


def frechet_agrees_with_torchmetrics(m: Any) -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    rng = draws()
    x, y = correlated(rng, 90, 8), correlated(rng, 120, 8, 0.3)
    reference = FrechetInceptionDistance(feature=features_as_given(8))
    for rows, real in ((x, False), (y, True)):
        for part in np.array_split(rows, 3):  # in batches: the sums are the same
            reference.update(torch.from_numpy(part), real=real)
    assert m.frechet(x, y) == pytest.approx(float(reference.compute()), rel=1e-6)  # its last step is float32


def frechet_is_exact(m: Any) -> None:
    """float64: far from the origin, where float32 would keep three digits."""
    rng = draws()
    x, y = rng.normal(size=(200, 4)), rng.normal(0.2, 1, size=(200, 4))
    assert m.frechet(x + 1e5, y + 1e5) == pytest.approx(m.frechet(x, y), rel=1e-8)


def frechet_bias_falls_as_one_over_n(m: Any) -> None:
    """Equal laws N(0, I_d): to first order (1/n + 1/m) (d + d (d + 1) / 4), at n = m = 100, 400 and 1600."""
    rng, d = draws(), 6
    for n in (100, 400, 1600):
        mean = np.mean([m.frechet(*rng.normal(size=(2, n, d))) for _ in range(40)])
        assert mean == pytest.approx(2 / n * (d + d * (d + 1) / 4), rel=0.12), n


def frechet_error_is_honest(m: Any) -> None:
    rng = draws()
    real = m.moments(rng.normal(size=(500, 5)))
    honest(lambda: m.frechet_estimate(rng.normal(0.5, 1, size=(300, 5)), real), 0.85, 1.2)  # the means differ
    honest(lambda: m.frechet_estimate(rng.normal(0, 0.6, size=(300, 5)), real), 0.85, 1.2)  # the spreads differ
    honest(lambda: m.frechet_estimate(rng.normal(0, 1, size=(300, 5)), real), 0.85, 1.5)  # nothing differs


# --- kernel distance --------------------------------------------------------------------------------------------


def kernel_closed_form(m: Any) -> None:
    """In one dimension (xy / D + 1)^3 is a sum over powers, so that its means over pairs are products of moments."""
    rng = draws()
    x, y = rng.normal(0.5, 1, 70), rng.normal(0, 1.3, 50)
    for features, weights in ((1, (3, 3, 1)), (2, (3 / 2, 3 / 4, 1 / 8))):
        expected = 0.0
        for power, weight in zip((1, 2, 3), weights, strict=True):
            a, b = x**power, y**power
            within = [(v.sum() ** 2 - (v * v).sum()) / (len(v) * (len(v) - 1)) for v in (a, b)]
            expected += weight * (sum(within) - 2 * a.mean() * b.mean())
        # A second feature that is always zero changes D and nothing else.
        wide = (np.column_stack([v] + [0 * v] * (features - 1)) for v in (x, y))
        assert m.kernel(*wide, blocks=1).value == pytest.approx(expected, rel=1e-9)


def kernel_agrees_with_torchmetrics(m: Any) -> None:
    from torchmetrics.image.kid import KernelInceptionDistance

    rng = draws()
    x, y = rng.normal(size=(80, 6)), rng.normal(0.3, 1.2, size=(80, 6))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it says that it keeps all features
        reference = KernelInceptionDistance(feature=features_as_given(6), subsets=1, subset_size=80)
        reference.update(torch.from_numpy(x), real=False)
        reference.update(torch.from_numpy(y), real=True)
        expected = float(reference.compute()[0])
    assert m.kernel(x, y, blocks=1).value == pytest.approx(expected, rel=1e-6)


def kernel_is_unbiased(m: Any) -> None:
    """Equal laws, 12 images: the mean of many is zero within its error, and the claimed error is the actual one."""
    rng = draws()
    found = [m.kernel(*rng.normal(size=(2, 60, 5)), blocks=5, seed=i) for i in range(250)]
    values = np.array([one.value for one in found])
    assert abs(values.mean()) < 3.5 * values.std(ddof=1) / np.sqrt(len(values))
    claimed = np.sqrt(np.mean([one.error**2 for one in found]))
    assert claimed == pytest.approx(values.std(ddof=1), rel=0.2)


# --- classifier score -------------------------------------------------------------------------------------------


def score_closed_forms(m: Any) -> None:
    constant, perfect = np.full((100, 10), 0.1), np.eye(10)[np.arange(1000) % 10]
    assert m.classifier_score(constant).value == pytest.approx(1, abs=1e-12)
    assert m.classifier_score(perfect).value == pytest.approx(10, rel=1e-12)
    assert m.classifier_score(perfect[np.arange(1000) % 10 < 5]).value == pytest.approx(5, rel=1e-12)
    p = draws().dirichlet(np.ones(4), 500)
    kl = [scipy.stats.entropy(row, p.mean(0)) for row in p]
    assert m.classifier_score(p).value == pytest.approx(np.exp(np.mean(kl)), rel=1e-10)


def score_agrees_with_torchmetrics(m: Any) -> None:
    from torchmetrics.image.inception import InceptionScore

    logits = torch.from_numpy(draws().normal(0, 2, size=(300, 10)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it keeps all features, and has no deviation of one part
        reference = InceptionScore(feature=features_as_given(10), splits=1)
        reference.update(logits)
        expected = float(reference.compute()[0])
    assert m.classifier_score(logits.softmax(1).numpy()).value == pytest.approx(expected, rel=1e-6)


# --- precision, recall, density, coverage -----------------------------------------------------------------------


def brute(fake: np.ndarray, real: np.ndarray, k: int) -> tuple[float, float, float, float]:
    """The definitions, one pair of images after the other."""

    def radius(x: np.ndarray, i: int) -> float:
        return sorted(float(np.linalg.norm(x[i] - x[j])) for j in range(len(x)) if j != i)[k - 1]

    real_radius = [radius(real, i) for i in range(len(real))]
    fake_radius = [radius(fake, i) for i in range(len(fake))]
    d = np.array([[np.linalg.norm(a - b) for b in real] for a in fake])
    in_real, in_fake = d <= np.array(real_radius), d <= np.array(fake_radius)[:, None]
    return in_real.any(1).mean(), in_fake.any(0).mean(), in_real.sum() / (k * len(fake)), in_real.any(0).mean()


def prdc_is_its_definition(m: Any) -> None:
    for seed in range(6):
        rng = draws(seed)
        fake, real = 0.8 * rng.normal(size=(17, 3)), rng.normal(size=(23, 3))
        np.testing.assert_allclose(m.prdc(fake, real, k_pr=2, k_dc=4)[:2], brute(fake, real, 2)[:2], atol=1e-12)
        np.testing.assert_allclose(m.prdc(fake, real, k_pr=2, k_dc=4)[2:], brute(fake, real, 4)[2:], atol=1e-12)


def prdc_of_equal_laws(m: Any) -> None:
    """E coverage = 1 - 2^-k and E density = 1 at equal counts; a set against itself has precision and recall 1."""
    rng = draws()
    found = np.mean([m.prdc(*rng.normal(size=(2, 600, 6)), k_dc=5) for _ in range(6)], 0)
    assert found[3] == pytest.approx(1 - 2.0**-5, abs=0.01)
    assert found[2] == pytest.approx(1, abs=0.08)
    x = rng.normal(size=(200, 5))
    assert m.prdc(x, x)[:2] == (1, 1)


def prdc_errors_are_honest(m: Any) -> None:
    """Recall's and coverage's are upper bounds (Efron and Stein), within a factor of two."""
    rng = draws()
    real = m.balls(rng.normal(size=(400, 4)))
    assert m.prdc_estimates(rng.normal(99, 1, size=(50, 4)), real).coverage == (0, 1 / 400)  # none is not never
    both = [m.prdc_estimates(rng.normal(0.2, 0.8, size=(300, 4)), real, seed=i) for i in range(60)]
    for name, high in (("precision", 1.4), ("density", 1.4), ("recall", 2), ("coverage", 2)):
        rest = iter([getattr(one, name) for one in both])
        honest(lambda rest=rest: next(rest), 0.75, high, count=60)


# --- labels -----------------------------------------------------------------------------------------------------


def labels_closed_forms(m: Any) -> None:
    assert m.histogram([0, 0, 2, 2], 4).tolist() == [0.5, 0, 0.5, 0]
    assert m.entropy([0.25] * 4) == pytest.approx(2) and m.entropy([1, 0, 0]) == 0
    assert m.entropy([0.7, 0.2, 0.1]) == pytest.approx(scipy.stats.entropy([0.7, 0.2, 0.1], base=2))
    assert m.label_accuracy(np.eye(3)[[0, 1, 2, 2]] * 0.7 + 0.1, [0, 1, 1, 2]) == 0.75


def labels_errors_are_honest(m: Any) -> None:
    rng = draws()
    honest(lambda: m.entropy_estimate(rng.choice(4, 300, p=[0.6, 0.2, 0.1, 0.1]), 4), count=200)
    honest(lambda: m.diversity_estimate(rng.normal(size=(200, 3)), np.arange(200) % 2), count=200)


def diversity_is_the_distance_of_pairs(m: Any) -> None:
    x = draws().normal(size=(30, 4))
    gaps = ((x[:, None] - x[None]) ** 2).sum(2)
    assert m.diversity(x) == pytest.approx(np.sqrt(gaps.sum() / (30 * 29)), rel=1e-12)
    apart = np.concatenate([x, x + 100])
    assert m.diversity(apart, np.repeat([0, 1], 30)) == pytest.approx(m.diversity(x), rel=1e-12)


# --- copies -----------------------------------------------------------------------------------------------------


def planted_copies_are_found(m: Any) -> None:
    """10 % copies among noise images, exact and grainy: at least 95 % of them are found, and named first."""
    rng = draws()
    train, test, unseen = (rng.integers(0, 256, (n, 8, 8, 1), dtype=np.uint8) for n in (600, 301, 300))
    judge = m.CopyTest(train, test)
    assert judge.floor.ratio == 1 and judge.floor.nearer == 0.5 and judge.floor.copies <= 0.005
    planted, rows = rng.choice(300, 30, replace=False), rng.choice(600, 30, replace=False)
    for noise in (0, 8):
        mixed = unseen.copy()
        mixed[planted] = (train[rows] + rng.normal(0, noise, (30, 8, 8, 1))).clip(0, 255).astype(np.uint8)
        found = judge(mixed)
        assert 0.095 <= found.copies <= 0.11
        assert np.isin(found.suspects[:30], planted).mean() >= 0.95
        assert (found.originals[planted] == rows).mean() >= 0.95
        honest_ones = judge(unseen)
        assert honest_ones.copies <= 0.01 and honest_ones.ratio == pytest.approx(1, abs=0.05)
        assert found.authenticity <= honest_ones.authenticity - 0.05
        assert found.errors["copies"] == pytest.approx(np.sqrt(0.1 * 0.9 / 300), rel=0.1)


def authenticity_is_its_definition(m: Any) -> None:
    """Alaa+ 2022: the sample is farther from its training image than that is from its own nearest other one."""
    rng = draws()
    train, test, samples = (rng.integers(0, 256, (n, 5, 5, 1), dtype=np.uint8) for n in (80, 40, 60))
    samples[:20] = (train[:20] * 0.9).astype(np.uint8)

    def far(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.sqrt(((a.reshape(len(a), 1, -1).astype(float) - b.reshape(1, len(b), -1)) ** 2).sum(2))

    d, among = far(samples, train), far(train, train) + np.diag(np.full(80, np.inf))
    expected = np.mean(d.min(1) > among.min(1)[d.argmin(1)])
    found = m.CopyTest(train, test)(samples)
    assert found.authenticity == pytest.approx(expected)
    assert found.ratio == pytest.approx(np.median(d.min(1)) / np.median(far(test, train).min(1)))
    nearest = np.sort(d, 1)
    np.testing.assert_allclose(found.ratios, nearest[:, 0] / nearest[:, 1], rtol=1e-9)


# --- sliced Wasserstein -----------------------------------------------------------------------------------------


def wasserstein_of_a_shift(m: Any) -> None:
    """Flat patches of 49 equal values, moved by s deviations: s times the mean of |sum of a unit vector|."""
    level = draws(0).normal(100, 20, (500, 1, 1, 1)).clip(0, 215)
    flat = np.broadcast_to(level, (500, 16, 16, 1)).astype(np.uint8)
    found = m.sliced_wasserstein(flat + np.uint8(40), flat, patches=4, directions=2000)
    assert found.levels[-1] == pytest.approx(40 / flat.std() * np.sqrt(2 / np.pi), rel=0.05)
    assert found.levels[0] == pytest.approx(0, abs=1e-3)  # no detail at all on either side
    wider = np.clip(100 + 2 * (flat.astype(float) - 100), 0, 255).astype(np.uint8)
    assert m.sliced_wasserstein(wider, flat, patches=4).levels[-1] > 0.5  # contrast is not normalised away
    same = m.sliced_wasserstein(flat[::-1], flat, patches=4)
    assert same.levels[-1] < 0.02


def wasserstein_error_is_honest(m: Any) -> None:
    rng = draws()
    real = rng.integers(0, 256, (200, 8, 8, 1), dtype=np.uint8)

    def draw() -> Any:
        level = rng.normal(100, 40, (200, 1, 1, 1))
        pictures = (level + rng.normal(0, 30, (200, 8, 8, 1))).clip(0, 255).astype(np.uint8)
        return m.sliced_wasserstein(pictures, real, patches=8, directions=64).estimate

    honest(draw, 0.7, 1.5, count=60)


# --- MS-SSIM ----------------------------------------------------------------------------------------------------


def ssim_closed_forms(m: Any) -> None:
    rng = draws()
    a = rng.integers(0, 256, (20, 28, 28, 1), dtype=np.uint8)
    np.testing.assert_allclose(m.ms_ssim(a, a), 1, rtol=1e-12)
    assert m.scales_of(28, 28) == 2 and m.scales_of(64, 80) == 3 and m.scales_of(10, 64) == 0
    # Flat pictures have luminance alone, at the last of two scales: (2 u v + c) / (u^2 + v^2 + c) to its exponent.
    u, v, c = 60, 180, (0.01 * 255) ** 2
    flat = [np.full((1, 28, 28, 1), level, np.uint8) for level in (u, v)]
    exponent = 0.2856 / (0.0448 + 0.2856)
    assert m.ms_ssim(*flat)[0] == pytest.approx(((2 * u * v + c) / (u * u + v * v + c)) ** exponent, rel=1e-9)


def ssim_agrees_with_torchmetrics(m: Any) -> None:
    """Scale by scale. Its own multi-scale function averages the last scale over a reflected border, too."""
    from torchmetrics.functional.image import structural_similarity_index_measure as ssim

    rng, options = draws(), {"data_range": 255.0, "reduction": "none"}
    for side, scales in ((28, 1), (28, 2), (64, 3)):
        a = rng.integers(0, 256, (6, side, side, 1), dtype=np.uint8)
        b = np.clip(0.7 * a + rng.normal(20, 25, a.shape), 0, 255).astype(np.uint8)
        x, y = (torch.from_numpy(images).permute(0, 3, 1, 2).double() for images in (a, b))
        exponents = np.array([0.0448, 0.2856, 0.3001])[:scales]
        expected = torch.ones(6, dtype=torch.float64)
        for exponent in exponents[:-1] / exponents.sum():
            expected *= ssim(x, y, return_contrast_sensitivity=True, **options)[1].clamp(min=0) ** exponent
            x, y = (torch.nn.functional.avg_pool2d(images, 2) for images in (x, y))
        whole = ssim(x, y, return_full_image=True, **options)[1]
        expected *= whole[..., 5:-5, 5:-5].mean((1, 2, 3)).clamp(min=0) ** (exponents[-1] / exponents.sum())
        np.testing.assert_allclose(m.ms_ssim(a, b, scales), expected.numpy(), rtol=1e-6)


def pairs_are_within_classes(m: Any) -> None:
    """Two classes of one picture each: 1 within them, less across; the pairs are disjoint, so the error is honest."""
    rng = draws()
    two = rng.integers(0, 256, (2, 16, 16, 1), dtype=np.uint8)
    kinds = np.arange(40) % 2
    assert m.pair_similarity(two[kinds], kinds).value == pytest.approx(1)
    assert m.pair_similarity(two[kinds]).value < 0.8
    assert m.pair_similarity(two[kinds], kinds).error == 0

    def draw() -> Any:
        mixture, noise = rng.uniform(0, 1, (80, 1, 1, 1)), rng.integers(0, 256, (80, 16, 16, 1))
        return m.pair_similarity((mixture * patterned + (1 - mixture) * noise).astype(np.uint8))

    patterned = draws(9).integers(0, 256, (1, 16, 16, 1))
    honest(draw, 0.85, 1.25, count=150)


# --- sharpness and spectrum -------------------------------------------------------------------------------------


def gradient_of_a_ramp(m: Any) -> None:
    ramp = np.broadcast_to((8 * np.arange(16))[None, None, :, None], (3, 12, 16, 1)).astype(np.uint8)
    np.testing.assert_allclose(m.detail(ramp).gradient, (8 / 255) ** 2, rtol=1e-5)
    turned = ramp.transpose(0, 2, 1, 3)
    np.testing.assert_allclose(m.detail(turned).gradient, (8 / 255) ** 2, rtol=1e-5)
    both = (ramp[:, :, :12] + turned[:, :12]).astype(np.uint8)
    np.testing.assert_allclose(m.detail(both).gradient, 2 * (8 / 255) ** 2, rtol=1e-5)


def ends_of_a_ramp_do_not_count(m: Any) -> bool:
    """A ramp jumps where its end meets its beginning; without a window that jump has power at every frequency."""
    ramp = np.broadcast_to((8 * np.arange(32))[None, None, :, None], (1, 32, 32, 1)).astype(np.uint8)
    found = m.detail(ramp)
    return bool(found.fine[0] < 1e-4 * found.power[0].sum())


def waves_are_in_their_ring(m: Any) -> None:
    """A wave of f periods has its power around ring f; a checkerboard is beyond the last; brightness does not count."""
    x = np.arange(32)
    fine = {}
    for f in (4, 6, 12):
        wave = np.broadcast_to(128 + 100 * np.sin(2 * np.pi * f * x / 32)[None, None, :, None], (2, 32, 32, 1))
        found = m.detail(wave.astype(np.uint8))
        assert found.power[0].argmax() == f
        fine[f] = found.fine[0]
    assert fine[12] > 20 * max(fine[4], fine[6])  # a quarter of a wave a pixel is 8 periods
    assert ends_of_a_ramp_do_not_count(m)
    checks = (255 * (np.add.outer(x, x) % 2)).astype(np.uint8)[None, :, :, None]
    found = m.detail(checks)
    assert found.power[0].argmax() == 16 and found.power.shape == (1, 17)
    dark, bright = (m.detail(np.full((1, 32, 32, 3), level, np.uint8)) for level in (20, 240))
    assert dark.power.max() < 1e-8 and bright.power.max() < 1e-8


def contrast_scales_power(m: Any) -> None:
    """Half the contrast: a quarter of the gradient energy and of every ring's power, 6.02 dB less."""
    rng = draws()
    real = (2 * rng.integers(0, 128, (60, 20, 24, 3))).astype(np.uint8)
    found = m.sharpness(m.detail(real // 2), m.detail(real))
    assert found.gradient.value == pytest.approx(0.25, rel=1e-4)
    assert found.fine.value == pytest.approx(0.25, rel=1e-4)
    assert found.distance.value == pytest.approx(20 * np.log10(2), rel=1e-3)
    np.testing.assert_allclose(found.curve, -20 * np.log10(2), rtol=1e-3)
    same = m.sharpness(m.detail(real), m.detail(real))
    assert (same.gradient.value, same.distance.value) == (pytest.approx(1), pytest.approx(0, abs=1e-9))


def sharpness_errors_are_honest(m: Any) -> None:
    rng = draws()

    def pictures(contrast: float) -> Any:
        loud = contrast * rng.uniform(0.2, 1, (100, 1, 1, 1))
        return m.detail((128 + loud * rng.normal(0, 40, (100, 12, 12, 1))).clip(0, 255).astype(np.uint8))

    real = pictures(1)
    both = [m.sharpness(pictures(0.7), real) for _ in range(60)]
    for name in ("gradient", "fine", "distance"):
        rest = iter([getattr(one, name) for one in both])
        honest(lambda rest=rest: next(rest), 0.75, 1.35, count=60)


# --- modes ------------------------------------------------------------------------------------------------------


def modes_closed_forms(m: Any) -> None:
    every = np.arange(1000)
    all_equal = m.modes(every)
    assert all_equal.found.value == 1000 and all_equal.kl_uniform.value == pytest.approx(0, abs=1e-12)
    one = m.modes(np.full(500, 7))
    assert one.found.value == 1 and one.kl_uniform.value == pytest.approx(np.log(1000), rel=1e-12)
    half = m.modes(every[every < 500])
    assert half.found.value == 500 and half.kl_uniform.value == pytest.approx(np.log(2), rel=1e-12)
    real = draws().dirichlet(np.ones(50))
    codes = draws().choice(50, 4000, p=real)
    shares = np.bincount(codes, minlength=50) / 4000
    assert m.modes(codes, 50, real).kl_real.value == pytest.approx(scipy.stats.entropy(shares, real), rel=1e-9)


def modes_floor(m: Any) -> None:
    """26,000 draws from equal modes: (modes - 1) / 2N = 0.0192, the published protocol's own bias."""
    rng = draws()
    found = [m.modes(rng.integers(0, 1000, 26_000)).kl_uniform.value for _ in range(10)]
    assert np.mean(found) == pytest.approx(999 / 52_000, rel=0.03)


def modes_errors_are_upper_bounds(m: Any) -> None:
    rng = draws()
    shares = draws(1).dirichlet(np.ones(40))
    both = [m.modes(rng.choice(40, 800, p=shares), 40) for _ in range(60)]
    rest = iter([one.kl_uniform for one in both])
    honest(lambda: next(rest), 0.75, 1.4, count=60)


# --- classes ----------------------------------------------------------------------------------------------------


def classes_are_apart(m: Any) -> None:
    """The numbers of a class are those that its images alone would get against the real images of that class."""
    from elegan.metrics import diversity, frechet, prdc

    rng = draws()
    kinds, real_kinds = rng.integers(0, 3, 150), rng.integers(0, 4, 200)
    ours, real = rng.normal(size=(150, 4)) + kinds[:, None], 2 * rng.normal(size=(200, 4)) + real_kinds[:, None]
    right = rng.random(150) < 0.7
    found = m.ByClass(real, real_kinds, 4)(ours, kinds, right)
    for c in range(3):
        mine, theirs = ours[kinds == c], real[real_kinds == c]
        assert (found[c].images, found[c].share) == (len(mine), pytest.approx(len(mine) / 150))
        assert found[c].frechet == pytest.approx(frechet(mine, theirs))
        near = prdc(mine, theirs)
        expected = (near.precision, near.recall, near.coverage)
        assert (found[c].precision, found[c].recall, found[c].coverage) == pytest.approx(expected)
        assert found[c].diversity == pytest.approx(diversity(mine) / diversity(theirs))
        assert found[c].label_accuracy == pytest.approx(right[kinds == c].mean())
    assert found[3].images == 0 and found[3].frechet is None and found[3].label_accuracy is None
    few = m.ByClass(real[:9], np.zeros(9, int), 1)(ours[:4], np.zeros(4, int))[0]
    assert few.images == 4 and few.precision is None
    thin = m.ByClass(real[:, [0] * 12], real_kinds, 4)(ours[:10, [0] * 12], np.zeros(10, int))[0]
    assert thin.frechet is None and thin.precision is not None  # 10 images of 12 features have no covariance


# --- classification accuracy ------------------------------------------------------------------------------------


def good_teachers_are_told_from_bad(m: Any) -> None:
    kept = m.LEAST_STEPS, m.EPOCHS
    m.LEAST_STEPS, m.EPOCHS = 60, 1
    try:
        _teach(m)
    finally:
        m.LEAST_STEPS, m.EPOCHS = kept


def _teach(m: Any) -> None:
    test = bars(300, 2)

    def taught(images: np.ndarray, labels: np.ndarray) -> Any:
        return m.classification_accuracy(images, labels, *test, classes=4)

    images, labels = bars(400, 1)
    good = taught(images, labels)
    assert good.accuracy > 0.97 and good.steps == 60 and good.seeds == 1
    shuffled = taught(images, draws().permutation(labels)).accuracy
    assert shuffled < 0.6
    off_by_one = taught(images, (labels + 1) % 4).accuracy
    assert off_by_one < 0.05
    lost = taught(*bars(400, 1, lost=(2,)))
    assert lost.accuracy == pytest.approx((test[1] != 2).mean(), abs=0.03)
    assert lost.error == pytest.approx(np.sqrt(lost.accuracy * (1 - lost.accuracy) / 300), rel=0.02)
    assert lost.per_class[2] < 0.05 and lost.per_class[1] > 0.9


CHECKS: dict[str, list[Check]] = {
    "matrix": [matrix_means_and_errors, matrix_median_error, matrix_jackknife, matrix_is_exact],
    "frechet_distance": [
        frechet_closed_forms,
        frechet_agrees_with_scipy,
        frechet_agrees_with_torchmetrics,
        frechet_is_exact,
        frechet_bias_falls_as_one_over_n,
        frechet_error_is_honest,
    ],
    "kernel_distance": [kernel_closed_form, kernel_agrees_with_torchmetrics, kernel_is_unbiased],
    "class_score": [score_closed_forms, score_agrees_with_torchmetrics],
    "manifold": [prdc_is_its_definition, prdc_of_equal_laws, prdc_errors_are_honest],
    "labels": [labels_closed_forms, labels_errors_are_honest, diversity_is_the_distance_of_pairs],
    "memorisation": [planted_copies_are_found, authenticity_is_its_definition],
    "wasserstein": [wasserstein_of_a_shift, wasserstein_error_is_honest],
    "similarity": [ssim_closed_forms, ssim_agrees_with_torchmetrics, pairs_are_within_classes],
    "spectrum": [gradient_of_a_ramp, waves_are_in_their_ring, contrast_scales_power, sharpness_errors_are_honest],
    "classes": [classes_are_apart],
    "cas": [good_teachers_are_told_from_bad],
    "stacked": [modes_closed_forms, modes_floor, modes_errors_are_upper_bounds],
}


def where(check: Check) -> str:
    """The module that a check judges."""
    (name,) = (name for name, checks in CHECKS.items() if check in checks)
    return name


def run(check: Check, module: ModuleType) -> None:
    """Run a check quietly: what a bug divides by is not of interest."""
    with np.errstate(all="ignore"):
        check(module)
