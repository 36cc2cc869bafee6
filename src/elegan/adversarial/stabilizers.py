"""What keeps the game from falling apart: softened targets, averaged weights, schedules, clipped weights.

Schedules take numbers, or 0-d tensors in a step that a GPU records, and return the same kind.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def soft_targets(logits: Tensor, target: float, *, noise: float = 0.0, flip: float = 0.0) -> Tensor:
    """D's targets (n,) float32 for a batch of `logits` (n,).

    `target`: 1 for real, or 1 - smoothing (one-sided; Salimans+ 2016, section 3.4), 0 for fake.
    `noise`: added times U(0, 1), so negative for real. `flip`: the probability, per picture, of 1 - target.
    """
    t = torch.full_like(logits, target, dtype=torch.float32)
    if noise:
        t += noise * torch.rand_like(t)
    if flip:
        t = torch.where(torch.rand_like(t) < flip, 1 - t, t)
    return t


def instance_noise(images: Tensor, sigma: float | Tensor) -> Tensor:
    """images + N(0, sigma^2), for all that D sees, real and fake (Sonderby+ 2017, section 2.4); 0 changes nothing.

    The noise makes the two overlap, so that no D can tell them apart perfectly. Anneal sigma to 0 over the run.
    """
    return images + sigma * torch.randn_like(images) if isinstance(sigma, Tensor) or sigma else images


@torch.no_grad()
def update_ema(average: nn.Module, net: nn.Module, decay: float | Tensor) -> None:
    """average <- decay * average + (1 - decay) * net, in place.

    Batch norm's running statistics are averaged too: they must fit the averaged weights, not the latest ones.
    """
    pairs: list[tuple[Tensor, Tensor]] = list(zip(average.parameters(), net.parameters(), strict=True))
    for a, b in zip(average.buffers(), net.buffers(), strict=True):
        if a.is_floating_point():
            pairs.append((a, b))
        else:
            a.copy_(b)
    averages, values = [a.data for a, _ in pairs], [b.data for _, b in pairs]
    if isinstance(decay, Tensor):  # `_foreach_lerp_` would read it on the host
        changes = torch._foreach_sub(values, averages)
        torch._foreach_mul_(changes, (1 - decay).float())
        torch._foreach_add_(averages, changes)
    else:
        torch._foreach_lerp_(averages, values, 1 - decay)


def ema_decay(images: int, half_life: float, seen: int, ramp: float = 0.05) -> float:
    """The decay for a step of `images` pictures such that a weight's share halves every `half_life` pictures.

    Early on the half-life is at most `ramp` of the pictures seen, so that the average forgets the random
    start (the EMA ramp-up of Karras+ 2020).
    """
    half_life = at_most(ramp * at_least(seen, 1), half_life) if ramp else half_life
    return 0.5 ** (images / at_least(half_life, 1e-8))


def learning_rate(progress: float, schedule: str, hold: float = 0.0, end: float = 0.0) -> float:
    """The factor on the learning rate at `progress` in [0, 1]: `constant`, or `linear` or `cosine` to `end`.

    `hold` is the share of the run before the fall begins.
    """
    fall = at_least((progress - hold) / (1 - hold), 0.0)
    if schedule == "linear":
        return end + (1 - end) * (1 - fall)
    if schedule == "cosine":
        return end + (1 - end) * half_cosine(fall)
    assert schedule == "constant", schedule
    return 1.0


def shortness(total: int, short: int) -> float:
    """How short a run of `total` images is: 1 up to `short` images, 1/4 up to twice, 1/16 up to 4 times as many, or 0.

    In steps, so that a run may become a little longer or shorter on the way and stay the run that it was.
    """
    return 0.75 * (total <= short) + 0.1875 * (total <= 2 * short) + 0.0625 * (total <= 4 * short)


def steady_share(schedule: str, hold: float = 0.0) -> float:
    """The share of a run in which `learning_rate` is 1, however long the run is."""
    return 1.0 if schedule == "constant" else hold


def cosine_ramp(progress: float, start: float, end: float, share: float = 1.0) -> float:
    """From `start` to `end` along half a cosine over the first `share` of the run, and `end` from there on."""
    return end + (start - end) * half_cosine(at_most(progress / share, 1.0))


def half_cosine(passed: float) -> float:
    """From 1 at 0 to 0 at 1, flat at both ends."""
    return 0.5 * (1 + (torch.cos(math.pi * passed) if isinstance(passed, Tensor) else math.cos(math.pi * passed)))


def at_least(value: float, limit: float) -> float:
    """The larger of the two; of a 0-d tensor, without reading it."""
    return value.clamp(min=limit) if isinstance(value, Tensor) else max(value, limit)


def at_most(value: float, limit: float) -> float:
    """The smaller of the two; of a 0-d tensor, without reading it."""
    return value.clamp(max=limit) if isinstance(value, Tensor) else min(value, limit)


def set_beta2(optimizer: torch.optim.Optimizer, beta2: float) -> None:
    """Set Adam's second decay rate."""
    for group in optimizer.param_groups:
        group["betas"] = (group["betas"][0], beta2)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set one learning rate for all parameters of an optimiser."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


@contextmanager
def frozen(net: nn.Module) -> Iterator[None]:
    """Within the block no gradient is computed for the weights of `net`; gradients still flow through it."""
    learning = [p for p in net.parameters() if p.requires_grad]
    for p in learning:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in learning:
            p.requires_grad_(True)


@torch.no_grad()
def clip_weights(parameters: Iterable[Tensor], limit: float) -> None:
    """Clamp every weight that learns to [-limit, limit] (Arjovsky+ 2017, algorithm 1)."""
    for p in parameters:
        if p.requires_grad:
            p.clamp_(-limit, limit)


def truncated_normal(shape: tuple[int, ...], truncation: float, generator: torch.Generator) -> Tensor:
    """N(0, 1) noise on the CPU; with `truncation` < 1, restricted to |z| <= 2 * truncation.

    Drawn by the inverse distribution function, which is the law of redrawing what falls outside (the
    truncation trick of Brock+ 2019). 1 means no truncation.
    """
    if truncation >= 1:
        return torch.randn(shape, generator=generator)
    edge = math.erf(2 * truncation / math.sqrt(2))
    u = torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1
    return (math.sqrt(2) * torch.erfinv(u * edge)).float()
