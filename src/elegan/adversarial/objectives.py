"""Adversarial objectives as functions of discriminator logits (N,).

Each returns a 0-d float32 loss to *minimise*, the mean over the batch. D's loss is the sum of its loss on real
and its loss on fake pictures. Targets are 1 for real and 0 for fake unless a stabiliser (smoothing, noise,
flipping) changed them. `OBJECTIVES` is the one place where a name from a configuration becomes functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


def cross_entropy_D(logits: Tensor, target: Tensor) -> Tensor:
    """-E[t log D + (1-t) log(1-D)], D = sigmoid(logit), on real (t=1) or fake (t=0) (Goodfellow+ 2014, eq. 1)."""
    return F.binary_cross_entropy_with_logits(logits.float(), target.expand_as(logits))


def minimax_G(fake_logits: Tensor) -> Tensor:
    """E log(1 - D(G(z))): its gradient vanishes where D is sure (Goodfellow+ 2014, eq. 1)."""
    return -F.softplus(fake_logits.float()).mean()


def nonsaturating_G(fake_logits: Tensor) -> Tensor:
    """-E log D(G(z)): strong gradient where D is sure (Goodfellow+ 2014, section 3)."""
    return F.softplus(-fake_logits.float()).mean()


def least_squares_D(logits: Tensor, target: Tensor) -> Tensor:
    """1/2 E(D-t)^2 in the coding b = 1 for real, a = 0 for fake (Mao+ 2017, eq. 9). No sigmoid."""
    return 0.5 * (logits.float() - target).square().mean()


def least_squares_G(fake_logits: Tensor) -> Tensor:
    """1/2 E(D(G)-c)^2 with c = 1 (Mao+ 2017, eq. 9)."""
    return 0.5 * (fake_logits.float() - 1).square().mean()


def chi_square_D(logits: Tensor, target: Tensor) -> Tensor:
    """`least_squares_D` in the coding b = 1 for real, a = -1 for fake: targets 0..1 become -1..1 (Mao+ 2017, eq. 8).

    With b - c = 1 and b - a = 2 the game minimises Pearson's chi^2 between p + q and 2 q.
    """
    return least_squares_D(logits, 2 * target - 1)


def chi_square_G(fake_logits: Tensor) -> Tensor:
    """1/2 E D(G)^2: c = 0 belongs to the coding of `chi_square_D`; the two codings do not mix."""
    return 0.5 * fake_logits.float().square().mean()


def hinge_D_real(logits: Tensor, target: Tensor) -> Tensor:
    """E relu(1 - D(x)) (Lim & Ye 2017; Miyato+ 2018, eq. 16). The target does not enter."""
    return F.relu(1 - logits.float()).mean()


def hinge_D_fake(logits: Tensor, target: Tensor) -> Tensor:
    """E relu(1 + D(G(z))). The target does not enter."""
    return F.relu(1 + logits.float()).mean()


def wasserstein_D_real(logits: Tensor, target: Tensor) -> Tensor:
    """-E D(x), for a critic kept Lipschitz elsewhere (Arjovsky+ 2017, eq. 2). The target does not enter."""
    return -logits.float().mean()


def wasserstein_D_fake(logits: Tensor, target: Tensor) -> Tensor:
    """E D(G(z)). The target does not enter."""
    return logits.float().mean()


def linear_G(fake_logits: Tensor) -> Tensor:
    """-E D(G(z)): the generator's side of the hinge and the Wasserstein objective."""
    return -fake_logits.float().mean()


def relativistic_D(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """E softplus(-(D(x) - D(G(z)))) over pairs (Jolicoeur-Martineau 2019, RpGAN; Huang+ 2024, eq. 2).

    Each real picture is compared with one fake, not with the mean of a batch.
    """
    return F.softplus(fake_logits.float() - real_logits.float()).mean()


def relativistic_G(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """E softplus(-(D(G(z)) - D(x))) over pairs, non-saturating, as R3GAN's authors' program has it."""
    return F.softplus(real_logits.float() - fake_logits.float()).mean()


def average_D(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """D's loss of the relativistic average GAN (Jolicoeur-Martineau 2019, RaGAN): each side against the other's mean.

    E softplus(-(D(x) - E D(G))) + E softplus(D(G) - E D(x)). Not what R3GAN plays: pairs keep more modes.
    """
    real, fake = real_logits.float(), fake_logits.float()
    return F.softplus(fake.mean() - real).mean() + F.softplus(fake - real.mean()).mean()


def average_G(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """G's side of RaGAN: `average_D` with the sides exchanged."""
    return average_D(fake_logits, real_logits)


class PairedObjective(NamedTuple):
    """Losses of a game that are functions of real and fake logits (N,) together.

    `threshold` is the logit above which D calls a picture real; None where it compares pictures and calls none so.
    """

    D: Callable[[Tensor, Tensor], Tensor]
    G: Callable[[Tensor, Tensor], Tensor]
    threshold: float | None = None

    def right(self, real_logits: Tensor, fake_logits: Tensor) -> dict[str, Tensor]:
        """How often D is right, from 0 to 1: of either side, or, where it compares them, of pairs."""
        if self.threshold is None:
            return {"pairs": share_above(real_logits - fake_logits, 0.0)}
        return sides_right(real_logits, fake_logits, self.threshold)


PAIRED_OBJECTIVES = {
    "relativistic": PairedObjective(relativistic_D, relativistic_G),
    "relativistic-average": PairedObjective(average_D, average_G),
}


def feature_matching(real_features: Tensor, fake_features: Tensor) -> Tensor:
    """||E f(x) - E f(G(z))||^2 of features (N, F), for G in place of D's verdict (Salimans+ 2016, section 3.1).

    The norm is a sum over features, squared as in the paper; the authors' program takes the mean absolute difference.
    """
    return (real_features.detach().float().mean(0) - fake_features.float().mean(0)).square().sum()


def class_loss(class_logits: Tensor, labels: Tensor | None) -> Tensor:
    """-E log P(c | x) of the asked or true classes, from (N, K) (Odena+ 2017, eq. 3). 0 without classes (K = 0)."""
    if not class_logits.shape[1]:
        return class_logits.new_zeros((), dtype=torch.float32)
    assert labels is not None
    return F.cross_entropy(class_logits.float(), labels)


def category_information(code_logits: Tensor, category: Tensor) -> Tensor:
    """L_I = E log Q(c | x) + H(c) in nats, of a uniform code of K values from Q's (N, K) (Chen+ 2016, eq. 5).

    A lower bound of the mutual information I(c; x), and so at most log K.
    """
    return math.log(code_logits.shape[1]) - F.cross_entropy(code_logits.float(), category)


def codes_information(means: Tensor, codes: Tensor, std: float = 1.0) -> Tensor:
    """L_I in nats, summed over codes ~ U(-1, 1) (N, J) whose Q(c | x) is N(mean, std^2) (Chen+ 2016, eq. 5)."""
    errors = (codes - means.float()).square().sum(1).mean() / (2 * std**2)
    return codes.shape[1] * (math.log(2) - 0.5 * math.log(2 * math.pi * std**2)) - errors


class Objective(NamedTuple):
    """The losses of a game.

    `threshold` is the logit above which D calls a picture real; `has_targets`: the targets enter; `steep`: D's loss
    on a fake with target 0 is flat nowhere.
    """

    D_real: Callable[[Tensor, Tensor], Tensor]
    D_fake: Callable[[Tensor, Tensor], Tensor]
    G: Callable[[Tensor], Tensor]
    threshold: float
    has_targets: bool
    steep: bool

    def right(self, real_logits: Tensor, fake_logits: Tensor) -> dict[str, Tensor]:
        """How often D is right about either side, from 0 to 1."""
        return sides_right(real_logits, fake_logits, self.threshold)


OBJECTIVES = {
    "minimax": Objective(cross_entropy_D, cross_entropy_D, minimax_G, 0.0, True, True),
    "nonsaturating": Objective(cross_entropy_D, cross_entropy_D, nonsaturating_G, 0.0, True, True),
    "least-squares": Objective(least_squares_D, least_squares_D, least_squares_G, 0.5, True, False),
    "least-squares-chi2": Objective(chi_square_D, chi_square_D, chi_square_G, 0.0, True, False),
    "hinge": Objective(hinge_D_real, hinge_D_fake, linear_G, 0.0, False, False),
    "wasserstein": Objective(wasserstein_D_real, wasserstein_D_fake, linear_G, 0.0, False, True),
}


def paired(name: str) -> PairedObjective:
    """Any objective by its name in the form of a paired one. A plain one's targets are 1 and 0."""
    if name not in OBJECTIVES:
        return PAIRED_OBJECTIVES[name]
    plain = OBJECTIVES[name]

    def D(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        ones, zeros = torch.ones_like(real_logits), torch.zeros_like(fake_logits)
        return plain.D_real(real_logits, ones) + plain.D_fake(fake_logits, zeros)

    return PairedObjective(D, lambda _, fake_logits: plain.G(fake_logits), plain.threshold)


def slope_ratio(objective: Objective, fake_logits: Tensor) -> Tensor:
    """dG_loss/dlogit over dD_loss/dlogit at fakes with target 0: (N,) float32, for `steep` objectives.

    Logits below -30, where D's slope is less than 1e-13, count as -30.
    """
    logits = fake_logits.detach().float().clamp(min=-30).requires_grad_()
    (of_G,) = torch.autograd.grad(objective.G(logits), logits)
    (of_D,) = torch.autograd.grad(objective.D_fake(logits, torch.zeros_like(logits)), logits)
    return of_G / of_D


def sides_right(real_logits: Tensor, fake_logits: Tensor, threshold: float) -> dict[str, Tensor]:
    """The shares of real and of fake pictures, from 0 to 1, that D judges rightly: above `threshold` it says real."""
    return {"D_real": share_above(real_logits, threshold), "D_fake": 1 - share_above(fake_logits, threshold)}


def share_above(logits: Tensor, threshold: float) -> Tensor:
    """The share of logits above `threshold`, a 0-d float tensor: D's accuracy on real pictures."""
    return (logits.detach() > threshold).float().mean()
