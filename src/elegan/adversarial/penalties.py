"""Penalties on the slope of a critic, as functions of the critic and of the pictures where the slope is taken.

Each returns a 0-d float32 loss to *add* to the critic's; its gradient reaches the critic's weights through a second
backward pass. A slope is the gradient of one picture's logit with respect to all values of that picture, and its norm
is a sum over all of them: nothing is averaged over pixels. That a picture's logit depends on that picture alone is
assumed, so a critic here has no batch norm; with a minibatch layer (StyleGAN2, progressive growing) a picture's slope
holds what it does to the others' logits too, as in these papers' programs. All is computed in float32, under autocast
too: the second derivatives of half precision are mostly noise. `PENALTIES` is where a name from a configuration becomes
a function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from elegan.adversarial.curvature import WithoutZeros

Critic = Callable[[Tensor], Tensor]  # images (N, ...) -> logits (N,); bind labels with a lambda


def slope(critic: Critic, images: Tensor) -> tuple[Tensor, Tensor]:
    """The critic's logits (N,) and their slopes dD(x_i)/dx_i (N, ...), float32, with the graph of both.

    One backward pass serves the batch: dD(x_i)/dx_j = 0 for i != j, so the slope of the sum is every picture's own.
    """
    with torch.autocast(images.device.type, enabled=False):
        x = images.detach().float().requires_grad_()
        with WithoutZeros():
            logits = critic(x).float()
        (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return logits, gradient


def one_centred(gradient: Tensor, weight: float) -> Tensor:
    """weight * E(||gradient|| - 1)^2 of slopes (N, ...): two-sided, flat slopes are punished like steep ones."""
    norms = torch.linalg.vector_norm(gradient.flatten(1), dim=1)  # (N,); its derivative at a zero slope is zero
    return weight * (norms - 1).square().mean()


def zero_centred(gradient: Tensor, gamma: float) -> Tensor:
    """gamma / 2 * E||gradient||^2 of slopes (N, ...)."""
    return gamma / 2 * gradient.flatten(1).square().sum(1).mean()


def gradient_penalty(critic: Critic, real: Tensor, fake: Tensor, weight: float = 10.0) -> Tensor:
    """weight * E(||grad D(xhat)|| - 1)^2 between pairs of real and fake (Gulrajani+ 2017, eq. 3).

    xhat = eps x + (1 - eps) fake with an eps ~ U(0, 1) for each pair. At the best critic of two points d apart the
    slope is 1 + d / (2 weight), not 1: the penalty holds against the gap.
    """
    eps = torch.rand(len(real), *[1] * (real.ndim - 1), device=real.device)  # (N, 1, 1, 1)
    between = fake.detach().float().lerp(real.detach().float(), eps)
    return one_centred(slope(critic, between)[1], weight)


def dragan(critic: Critic, real: Tensor, fake: Tensor, weight: float = 10.0) -> Tensor:
    """weight * E(||grad D(x + delta)|| - 1)^2 near real pictures (Kodali+ 2017, section 2.3). `fake` does not enter.

    The paper draws delta ~ N(0, c I), and programs disagree on what they draw. Here, as in most of them,
    delta = 0.5 s alpha u: s is the standard deviation of all values of the batch, u ~ U(0, 1) for each value and
    alpha ~ U(0, 1) for each picture, so that points lie on the way from a picture to its disturbed copy.
    """
    x = real.detach().float()
    alpha = torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device)  # (N, 1, 1, 1)
    delta = 0.5 * x.std() * alpha * torch.rand_like(x)
    return one_centred(slope(critic, x + delta)[1], weight)


def r1(critic: Critic, real: Tensor, fake: Tensor, weight: float = 1.0) -> Tensor:
    """weight / 2 * E||grad D(x)||^2 on real pictures (Mescheder+ 2018, eq. 9). `fake` does not enter."""
    return zero_centred(slope(critic, real)[1], weight)


def r2(critic: Critic, real: Tensor, fake: Tensor, weight: float = 1.0) -> Tensor:
    """weight / 2 * E||grad D(G(z))||^2 on fakes (Mescheder+ 2018, eq. 10). `real` does not enter."""
    return zero_centred(slope(critic, fake)[1], weight)


def path_lengths(images: Tensor, styles: Tensor) -> Tensor:
    """||J^T y|| (N,) of images (N, C, H, W) = g(styles (N, L, F)), with its graph (Karras+ 2020, eq. 4).

    How far a picture moves when its style does, in a random direction y ~ N(0, 1) of pictures, by 1 / sqrt(H W) so that
    the size of a picture does not enter. One style feeds L layers: the squares are averaged over them.
    """
    y = torch.randn_like(images) / math.sqrt(images.shape[2] * images.shape[3])
    (gradient,) = torch.autograd.grad((images * y).sum(), styles, create_graph=True)  # J^T y
    return gradient.square().sum(2).mean(1).sqrt()


def orthogonal(weights: Iterable[Tensor], strength: float) -> Tensor:
    """strength * sum over layers of ||W W^T (1 - I)||^2, W a weight as a matrix (C_out, rest) (Brock+ 2019, eq. 3).

    Rows are asked to be orthogonal to each other; their lengths stay free, unlike in orthogonal regularisation.
    """
    total: Tensor | float = 0.0
    for weight in weights:
        with torch.autocast(weight.device.type, enabled=False):
            W = weight.flatten(1)  # (C_out, rest)
            product = W @ W.t() if W.shape[0] <= W.shape[1] else W.t() @ W  # both have the same sum of squares
            diagonal = W.square().sum(1)  # of W W^T
            total = total + product.square().sum() - diagonal.square().sum()
    return torch.as_tensor(strength * total)


def no_penalty(critic: Critic, real: Tensor, fake: Tensor, weight: float = 0.0) -> Tensor:
    """Zero: for critics that are kept tame elsewhere, by clipped weights for example."""
    return torch.zeros((), device=real.device)


PENALTIES: dict[str, Callable[[Critic, Tensor, Tensor, float], Tensor]] = {
    "gradient": gradient_penalty,
    "dragan": dragan,
    "r1": r1,
    "r2": r2,
    "none": no_penalty,
}
