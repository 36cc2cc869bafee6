"""Fidelity and variety apart: improved precision and recall, density and coverage.

Convention. `real` is the reference. The ball of an image has the distance to its k-th nearest other image of
the same set as radius (an image is not its own neighbour), closed: a distance equal to the radius counts, with a slack
far below any real difference, so that rounding does not decide about images that are on the sphere by definition.

- precision (Kynkaanniemi+ 2019, k=3): share of generated images inside the ball of some real image;
- recall: share of real images inside the ball of some generated image. Swapping the arguments swaps the two;
- density (Naeem+ 2020, k=5): in how many real balls a generated image lies, on average, over k; above 1 when
  samples crowd where real images are dense;
- coverage: share of real images whose ball holds some generated image. 1 - 2^-k in expectation for equal laws
  and equal N.

All four depend on both N. Errors are for other draws of the generated images: those of precision and density, which
are means over generated images, in closed form; those of recall and coverage by leaving out one group of generated
images after the other, the radii staying as they are.

Squared distances are float64, |a|^2 + |b|^2 - 2ab of centred features, in blocks
of rows: the whole 10,000 x 10,000 matrix never exists. Rounding is about 1e-15 of the squared norms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from elegan.errors import UserError
from elegan.metrics import matrix
from elegan.metrics.matrix import Estimate, Matrix, as_matrix, as_pair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

SLACK = 1e-12  # of the squared norm, a thousand roundings
BLOCK = 250  # rows of the distance matrix at a time: 20 MB against 10,000, which malloc keeps and reuses
GROUPS = 20  # at least so many groups are left out in turn, where there are as many images


class PRDC(NamedTuple):
    """The four numbers."""

    precision: float
    recall: float
    density: float
    coverage: float


class PRDCEstimates(NamedTuple):
    """The four numbers with their standard errors."""

    precision: Estimate
    recall: Estimate
    density: Estimate
    coverage: Estimate


@dataclass(frozen=True)
class Balls:
    """A feature matrix (N, D) with the squared radii of its images' balls, for each k asked for."""

    features: Matrix
    radii: dict[int, Matrix]  # k -> (N,)


def balls(features: ArrayLike, ks: tuple[int, ...] = (3, 5), what: str = "features") -> Balls:
    """The k-nearest-neighbour balls of a feature matrix: reusable wherever it is the reference again.

    `UserError` when there are fewer than k + 1 rows.
    """
    x = as_matrix(features, what, rows=max(ks) + 1)
    nearest = []
    for start, squared in _blocks(x, x, BLOCK):
        rows = np.arange(len(squared))
        squared[rows, start + rows] = float("inf")  # not its own neighbour, even where it has a twin
        nearest.append(squared.topk(max(ks), dim=1, largest=False, sorted=True).values)
    sorted_ = np.concatenate([block.numpy() for block in nearest])  # (N, max k), ascending
    slack = SLACK * np.sum((x - x.mean(0)) ** 2, 1)
    return Balls(x, {k: sorted_[:, k - 1] + slack for k in ks})


def prdc(fake: ArrayLike | Balls, real: ArrayLike | Balls, *, k_pr: int = 3, k_dc: int = 5) -> PRDC:
    """All four numbers from one pass over the distances between generated (N, D) and real (M, D) features."""
    return PRDC(*(number.value for number in prdc_estimates(fake, real, k_pr=k_pr, k_dc=k_dc)))


def prdc_estimates(
    fake: ArrayLike | Balls, real: ArrayLike | Balls, *, k_pr: int = 3, k_dc: int = 5, seed: int = 0
) -> PRDCEstimates:
    """All four numbers with their errors. `seed` puts generated images into the groups that are left out in turn."""
    f = fake if isinstance(fake, Balls) else balls(fake, (k_pr, k_dc), "generated")
    r = real if isinstance(real, Balls) else balls(real, (k_pr, k_dc), "real")
    as_pair(f.features[:1], r.features[:1])  # equal widths
    if k_pr not in f.radii or not {k_pr, k_dc} <= r.radii.keys():
        raise UserError(f"balls lack k={k_pr} or k={k_dc}; make them with balls(features, ({k_pr}, {k_dc}))")
    import torch

    n = len(f.features)
    order = np.random.default_rng(seed).permutation(n)  # a block is a group: it must not be a class
    radius_pr, radius_dc = torch.from_numpy(r.radii[k_pr]), torch.from_numpy(r.radii[k_dc])  # (M,)
    fake_radius = torch.from_numpy(f.radii[k_pr][order])  # (N,)
    inside, crowd, made, near = [], [], [], []
    for start, squared in _blocks(f.features[order], r.features, min(BLOCK, -(-n // GROUPS))):
        inside.append((squared <= radius_pr).any(1))
        within = squared <= radius_dc  # (block, M)
        crowd.append(within.sum(1))
        near.append(within.any(0))
        own = fake_radius[start : start + len(squared), None]  # (block, 1)
        made.append((squared <= own).any(0))
    return PRDCEstimates(
        precision=matrix.share(torch.cat(inside).numpy()),
        recall=_share_found(torch.stack(made).numpy()),
        density=matrix.mean(torch.cat(crowd).numpy() / k_dc),
        coverage=_share_found(torch.stack(near).numpy()),
    )


def _share_found(found: np.ndarray) -> Estimate:
    """Share of real images that some group of generated images finds, bool (G, M); groups are left out in turn."""
    groups = found.sum(0)  # (M,) how many groups find it
    alone = (found & (groups == 1)).sum(1)  # (G,) found by this group only
    share = (groups > 0).mean()
    error = matrix.spread_left_out(share - alone / found.shape[1])
    return Estimate(float(share), max(error, 1 / found.shape[1]))  # at least that of one real image


def precision_recall(fake: ArrayLike, real: ArrayLike, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall, in this order."""
    both = prdc(fake, real, k_pr=k, k_dc=k)
    return both.precision, both.recall


def density_coverage(fake: ArrayLike, real: ArrayLike, k: int = 5) -> tuple[float, float]:
    """Density and coverage, in this order."""
    both = prdc(fake, real, k_pr=k, k_dc=k)
    return both.density, both.coverage


def _blocks(rows: Matrix, columns: Matrix, size: int) -> Iterator[tuple[int, Tensor]]:
    """Squared distances from `rows` (N, D) to `columns` (M, D), as (first row, (<= size, M))."""
    import torch

    # Distances do not change when both sets move; around their mean the squares cancel less.
    middle = columns.mean(0)
    a, b = torch.from_numpy(rows - middle), torch.from_numpy(columns - middle)
    a2, b2 = (a * a).sum(1), (b * b).sum(1)
    for start in range(0, len(a), size):
        part = slice(start, start + size)
        squared = torch.addmm(b2[None], a[part], b.T, alpha=-2).add_(a2[part, None])
        yield start, squared.clamp_(min=0)
