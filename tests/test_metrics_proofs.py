"""Every check of `metric_checks` holds for the package, and notices the bugs planted here.

A planted bug is one replacement in the source of a metric's module; the copy with the bug is executed beside the real
module and handed to the check. A replacement whose text is no longer in the source fails: bugs move with the code.
"""

from __future__ import annotations

import importlib
import types
from pathlib import Path

import pytest

from metric_checks import CHECKS, run, where
from metric_checks import __dict__ as checks

BUGS: list[tuple[str, str, str]] = [
    # matrix
    ("matrix_means_and_errors", "x.std(ddof=1) / np.sqrt(len(x))", "x.std(ddof=0) / np.sqrt(len(x))"),
    ("matrix_means_and_errors", "x.std(ddof=1) / np.sqrt(len(x))", "x.std(ddof=1)"),
    ("matrix_means_and_errors", "likely = (k + 1) / (n + 2)", "likely = k / n"),
    ("matrix_median_error", "float(high - low) / 2", "float(high - low)"),
    ("matrix_median_error", "np.sqrt(len(x)) / 2", "np.sqrt(len(x)) / 4"),
    ("matrix_jackknife", "np.sqrt((len(x) - 1) * x.var())", "np.sqrt(x.var())"),
    ("matrix_jackknife", "/ (n - len(part))", "/ n"),
    ("matrix_is_exact", "np.asarray(features, np.float64)", "np.asarray(features, np.float32)"),
    ("matrix_is_exact", "if not np.isfinite(matrix).all()", "if False"),
    # Frechet distance
    (
        "frechet_closed_forms",
        "np.sum((a.mean - b.mean) ** 2) + trace",
        "np.sqrt(np.sum((a.mean - b.mean) ** 2)) + trace",
    ),
    ("frechet_closed_forms", "float(np.sum((a.mean - b.mean) ** 2) + trace)", "float(trace)"),
    ("frechet_closed_forms", "- 2 * np.sqrt(inner.clip(0)).sum()", "- np.sqrt(inner.clip(0)).sum()"),
    (
        "frechet_agrees_with_scipy",
        "np.sqrt(inner.clip(0)).sum()",
        "np.sqrt(np.trace(a.covariance) * np.trace(b.covariance))",
    ),
    ("frechet_agrees_with_scipy", "centred.T @ centred / (len(x) - 1)", "centred.T @ centred / len(x)"),
    ("frechet_agrees_with_scipy", "b.root @ a.covariance @ b.root", "b.root @ a.covariance"),
    ("frechet_agrees_with_scipy", "vectors * np.sqrt(values.clip(0))", "vectors * values.clip(0)"),
    ("frechet_is_exact", "x = as_matrix(features, rows=2)", "x = as_matrix(features, rows=2).astype(np.float32)"),
    ("frechet_is_exact", "centred = x - mean", "centred = (x.astype('f') - mean.astype('f')).astype('d')"),
    (
        "frechet_bias_falls_as_one_over_n",
        "centred.T @ centred / (len(x) - 1)",
        "np.diag((centred**2).sum(0)) / (len(x) - 1)",
    ),
    ("frechet_error_is_honest", "moved = 2 * centred", "moved = centred"),
    ("frechet_error_is_honest", "- ((centred @ half) ** 2).sum(1)", ""),
    ("frechet_error_is_honest", "moved.std(ddof=1) / np.sqrt(len(x))", "moved.std(ddof=1) / len(x)"),
    ("frechet_error_is_honest", "values[steep] ** -0.5", "values[steep] ** -1.0"),
    ("frechet_agrees_with_torchmetrics", "centred.T @ centred / (len(x) - 1)", "centred.T @ centred / len(x)"),
    # kernel distance
    ("kernel_agrees_with_torchmetrics", "_cube(a @ b.T / d + 1)", "_cube(a @ b.T / d + 2)"),
    ("kernel_closed_form", "_cube(a @ b.T / d + 1)", "_cube(a @ b.T + 1)"),
    ("kernel_closed_form", "_cube(a @ b.T / d + 1)", "_cube(a @ b.T / d)"),
    ("kernel_closed_form", "return a * a * a", "return a * a"),
    ("kernel_closed_form", "- 2 * xy.mean()", "- xy.mean()"),
    ("kernel_is_unbiased", "(xx.sum() - np.trace(xx)) / (m * (m - 1))", "xx.mean()"),
    ("kernel_is_unbiased", "np.std(values, ddof=1) / np.sqrt(blocks)", "np.std(values, ddof=1)"),
    ("kernel_is_unbiased", "np.std(values, ddof=1) / np.sqrt(blocks)", "np.std(values, ddof=1) / blocks"),
    # classifier score
    ("score_agrees_with_torchmetrics", "p * (np.log(p) - np.log(marginal))", "p * (np.log(p) - np.log(marginal)) / 2"),
    ("score_closed_forms", "p * (np.log(p) - np.log(marginal))", "p * (np.log2(p) - np.log2(marginal))"),
    ("score_closed_forms", "p.mean(0, keepdims=True)", "np.full((1, p.shape[1]), 1 / p.shape[1])"),
    ("score_closed_forms", "np.exp(terms.sum(1).mean())", "terms.sum(1).mean()"),
    ("score_closed_forms", "np.exp(terms.sum(1).mean())", "np.exp(terms.mean())"),
    # precision, recall, density, coverage
    ("prdc_is_its_definition", 'squared[rows, start + rows] = float("inf")', "pass"),
    ("prdc_is_its_definition", "sorted_[:, k - 1] + slack", "sorted_[:, 0] + slack"),
    ("prdc_is_its_definition", "(squared <= radius_pr).any(1)", "(squared <= radius_dc).any(1)"),
    ("prdc_is_its_definition", "made.append((squared <= own).any(0))", "made.append((squared <= radius_pr).any(0))"),
    (
        "prdc_is_its_definition",
        "precision=matrix.share(torch.cat(inside).numpy()),\n        recall=_share_found(torch.stack(made).numpy()),",
        "recall=matrix.share(torch.cat(inside).numpy()),\n        precision=_share_found(torch.stack(made).numpy()),",
    ),
    (
        "prdc_is_its_definition",
        "fake_radius = torch.from_numpy(f.radii[k_pr][order])",
        "fake_radius = torch.from_numpy(f.radii[k_pr])",
    ),
    ("prdc_of_equal_laws", "torch.cat(crowd).numpy() / k_dc", "torch.cat(crowd).numpy() / k_pr"),
    ("prdc_of_equal_laws", "near.append(within.any(0))", "near.append(within.all(0))"),
    (
        "prdc_of_equal_laws",
        "torch.addmm(b2[None], a[part], b.T, alpha=-2)",
        "torch.addmm(b2[None], a[part], b.T, alpha=-1)",
    ),
    ("prdc_errors_are_honest", "share - alone / found.shape[1]", "share - alone / len(found)"),
    ("prdc_errors_are_honest", "max(error, 1 / found.shape[1])", "error"),
    ("prdc_errors_are_honest", "alone = (found & (groups == 1)).sum(1)", "alone = found.sum(1)"),
    # labels
    ("labels_closed_forms", "np.log2(p)).sum()", "np.log(p)).sum()"),
    ("labels_closed_forms", "matrix.share(found == wanted)", "matrix.share(found != wanted)"),
    ("labels_closed_forms", ".argmax(1)", ".argmin(1)"),
    ("labels_errors_are_honest", "-np.log2(shares)[", "-np.log(shares)["),
    ("labels_errors_are_honest", "squared.error / (2 * root)", "squared.error / root"),
    ("diversity_is_the_distance_of_pairs", "2 * around * len(members) / (len(members) - 1)", "2 * around"),
    ("diversity_is_the_distance_of_pairs", "members - members.mean(0)", "members - x.mean(0)"),
    ("diversity_is_the_distance_of_pairs", "root = float(np.sqrt(squared.value))", "root = float(squared.value)"),
    # copies
    (
        "planted_copies_are_found",
        "out=np.zeros_like(first), where=second > 0",
        "out=np.ones_like(first), where=first > 0",
    ),
    ("planted_copies_are_found", 'np.argsort(ratio, kind="stable")', 'np.argsort(-ratio, kind="stable")'),
    ("planted_copies_are_found", "ratio < self.threshold", "nearest < typical"),
    (
        "planted_copies_are_found",
        "squared.topk(min(count, len(b)), dim=1, largest=False",
        "squared.topk(min(count, len(b)), dim=1, largest=True",
    ),
    ("planted_copies_are_found", "(nearest == typical) / 2", "(nearest == typical)"),
    ("authenticity_is_its_definition", "matrix.share(nearest > own)", "matrix.share(nearest < own)"),
    ("authenticity_is_its_definition", "2).distance[:, 1]", "2).distance[:, 0]"),
    ("authenticity_is_its_definition", "matrix.median(nearest)", "matrix.mean(nearest)"),
    (
        "authenticity_is_its_definition",
        "out=np.zeros_like(first), where=second > 0)",
        "out=np.zeros_like(first), where=second > 0) ** 2",
    ),
    # sliced Wasserstein
    ("wasserstein_of_a_shift", "np.abs(np.sort(x, 1) - np.sort(y, 1))", "np.square(np.sort(x, 1) - np.sort(y, 1))"),
    ("wasserstein_of_a_shift", "np.abs(np.sort(x, 1) - np.sort(y, 1))", "np.abs(x - y)"),
    ("wasserstein_of_a_shift", "axes = axes / axes.norm(dim=0, keepdim=True)", "axes = axes"),
    (
        "wasserstein_of_a_shift",
        "(p - mean) / deviation.clamp(min=FAINTEST) for p in (x, y)",
        "(p - p.mean()) / p.std().clamp(min=FAINTEST) for p in (x, y)",
    ),
    ("wasserstein_error_is_honest", "np.std(drawn, ddof=1) / np.sqrt(parts)", "np.std(drawn, ddof=1)"),
    ("wasserstein_error_is_honest", "np.std(drawn, ddof=1) / np.sqrt(parts)", "np.std(drawn, ddof=1) / parts"),
    # MS-SSIM
    ("ssim_closed_forms", "(K1 * 255) ** 2", "(K1 * 1) ** 2"),
    ("ssim_closed_forms", "if scale == scales - 1 else structure", "if scale == 0 else structure"),
    ("ssim_closed_forms", "EXPONENTS[scale] / total", "EXPONENTS[scale]"),
    ("ssim_agrees_with_torchmetrics", "(K2 * 255) ** 2", "(K1 * 255) ** 2"),
    ("ssim_agrees_with_torchmetrics", "WINDOW, DEVIATION = 11, 1.5", "WINDOW, DEVIATION = 11, 2.5"),
    ("ssim_agrees_with_torchmetrics", "F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)", "a[..., ::2, ::2], b[..., ::2, ::2]"),
    ("ssim_agrees_with_torchmetrics", "_blur(a * b) - mean_a * mean_b", "_blur(a * b)"),
    ("pairs_are_within_classes", "members = shuffled[groups[shuffled] == group]", "members = shuffled"),
    (
        "pairs_are_within_classes",
        "members[: 2 * half].reshape(half, 2)",
        "np.stack([members[:half], members[:half][::-1]], 1)",
    ),
    # sharpness and spectrum
    ("gradient_of_a_ramp", "+ dx.square().mean((1, 2, 3))", ""),
    ("gradient_of_a_ramp", "x.diff(dim=2), x.diff(dim=3)", "x.diff(dim=2).abs().sqrt(), x.diff(dim=3).abs().sqrt()"),
    ("waves_are_in_their_ring", "(x - x.mean((2, 3), keepdim=True)) * window", "x * window"),
    ("waves_are_in_their_ring", "(radius > 0.25)", "(radius > 0.125)"),
    ("waves_are_in_their_ring", "radius * min(height, width)", "radius * min(height, width) / 2"),
    ("waves_are_in_their_ring", "* window)", ")"),
    ("contrast_scales_power", "10 * np.log10", "20 * np.log10"),
    ("contrast_scales_power", "ours.value / theirs, ours.error", "theirs / ours.value, ours.error"),
    (
        "contrast_scales_power",
        "waves.real.square() + waves.imag.square()",
        "(waves.real.square() + waves.imag.square()).sqrt()",
    ),
    ("sharpness_errors_are_honest", "ours.error / theirs", "ours.error"),
    ("contrast_scales_power", "np.abs(curve(power)).mean()", "np.abs(curve(power)).max() / 2"),
    # classes
    ("classes_are_apart", "x[classes == c]", "x[classes <= c]"),
    ("classes_are_apart", "right[classes == c]", "right"),
    ("classes_are_apart", "self.features[self.classes == c]", "self.features"),
    ("classes_are_apart", "labels.diversity_estimate(x), real.diversity", "labels.diversity_estimate(x), 1.0"),
    ("classes_are_apart", "recall=near.recall", "recall=near.precision"),
    ("classes_are_apart", "np.arange(total) < len(x)", "np.arange(total) < len(x) - 1"),
    ("classes_are_apart", "LEAST = 6", "LEAST = 60"),
    ("classes_are_apart", "> x.shape[1]", "> 0"),
    # classification accuracy
    ("good_teachers_are_told_from_bad", "y[left[:batch]]", "y[:batch]"),
    ("good_teachers_are_told_from_bad", "(found == y)", "(found != y)"),
    ("good_teachers_are_told_from_bad", "_right(_train(x, y,", "_right(_train(real, wanted,"),
    ("good_teachers_are_told_from_bad", "right[:, truth == c]", "right[:, truth == 0]"),
    ("good_teachers_are_told_from_bad", "share(row).error for row", "row.std() for row"),
    # modes
    ("modes_closed_forms", "np.log(q[seen] / p[seen])", "np.log2(q[seen] / p[seen])"),
    ("modes_closed_forms", "q[seen] * np.log(q[seen] / p[seen])", "p[seen] * np.log(p[seen] / q[seen])"),
    ("modes_closed_forms", "(have > 0).sum()", "(have > 1).sum()"),
    ("modes_floor", "q = counts / counts.sum()", "q = (counts + 1) / (counts + 1).sum()"),
    (
        "modes_errors_are_upper_bounds",
        "matrix.spread_left_out([number(total - part) for part in counts])",
        "matrix.spread_left_out([number(part) for part in counts])",
    ),
]


@pytest.mark.parametrize("check", [check for found in CHECKS.values() for check in found], ids=lambda c: c.__name__)
def test_it_holds(check):
    run(check, importlib.import_module(f"elegan.metrics.{where(check)}"))


@pytest.mark.parametrize(("name", "right", "wrong"), BUGS, ids=[f"{i}-{bug[0]}" for i, bug in enumerate(BUGS)])
def test_a_planted_bug_is_noticed(name, right, wrong):
    check = checks[name]
    planted = with_bug(where(check), right, wrong)
    with pytest.raises((AssertionError, pytest.fail.Exception)):  # the latter: an error that should have been raised
        run(check, planted)


def with_bug(module: str, right: str, wrong: str) -> types.ModuleType:
    """A copy of a module of the metrics with one replacement in its source."""
    real = importlib.import_module(f"elegan.metrics.{module}")
    assert real.__file__ is not None
    source = Path(real.__file__).read_text(encoding="utf-8")
    if right not in source:
        pytest.fail(f"{module}.py no longer holds {right!r}: plant the bug where the code is now", pytrace=False)
    copy = types.ModuleType(real.__name__)
    copy.__file__ = real.__file__
    exec(compile(source.replace(right, wrong), real.__file__, "exec"), copy.__dict__)
    return copy


def test_every_check_has_a_planted_bug():
    assert {check.__name__ for found in CHECKS.values() for check in found} == {bug[0] for bug in BUGS}
