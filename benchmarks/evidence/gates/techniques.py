"""What is added to a plain GAN: minibatch discrimination, feature matching, instance noise."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from benchmarks.evidence.gates.critics import mlp
from benchmarks.evidence.gates.plain import FASHION
from benchmarks.evidence.lab import Lab, one_thread
from elegan.adversarial.objectives import OBJECTIVES
from elegan.adversarial.stabilizers import frozen
from elegan.families.base import minimize
from elegan.networks.minibatch import MinibatchDiscrimination

STEPS = 4_000  # on points
NARROW = {
    "batch": 64, "G_widths": (64, 32, 16), "D_widths": (16, 32, 64), "label_smoothing": 0.0, "G_lr": 5e-4, "D_lr": 5e-4,
}  # fmt: skip


def ring(n: int) -> torch.Tensor:
    """(n, 2) from 8 Gaussians of deviation 0.02 on a circle of radius 1."""
    angle = torch.randint(8, (n,)) * (torch.pi / 4)
    return torch.stack([angle.cos(), angle.sin()], 1) + 0.02 * torch.randn(n, 2)


@one_thread()
def minibatch_ring(lab: Lab) -> dict[str, Any]:
    """Modes of a ring that a small GAN keeps, with minibatch discrimination and without."""
    found: dict[str, Any] = {}
    for name, kernels in (("on", 16), ("off", 0)):
        torch.manual_seed(lab.seed)
        trunk, G = mlp(2, 64, 64, 64), mlp(8, 64, 64, 2)
        head = nn.Linear(64 + kernels, 1)
        look = MinibatchDiscrimination(64, kernels, 5) if kernels else nn.Identity()
        D = nn.Sequential(trunk, nn.LeakyReLU(0.2), look, head)
        game, one, zero = OBJECTIVES["nonsaturating"], torch.ones(128), torch.zeros(128)
        G_adam, D_adam = (torch.optim.Adam(net.parameters(), 1e-3, (0.5, 0.999)) for net in (G, D))
        for _ in range(STEPS):
            fake = G(torch.randn(128, 8)).detach()
            loss = game.D_real(D(ring(128)).squeeze(1), one) + game.D_fake(D(fake).squeeze(1), zero)
            minimize(loss, D_adam)
            with frozen(D):
                minimize(game.G(D(G(torch.randn(128, 8))).squeeze(1)), G_adam)
        with torch.inference_mode():
            made = G(torch.randn(4_000, 8))
        place = torch.atan2(made[:, 1], made[:, 0]) / (torch.pi / 4)
        centre = place.round()
        at = torch.stack([(centre * torch.pi / 4).cos(), (centre * torch.pi / 4).sin()], 1)
        near = (made - at).norm(dim=1) < 0.2
        counts = torch.bincount((centre[near] % 8).long(), minlength=8)
        found |= {f"modes_{name}": int((counts >= 40).sum()), f"near_{name}": near.float().mean()}
    lab.trained.append(f"MLPs of 64 units on a ring of 8 Gaussians, {STEPS:,} steps of 128")
    return found


def _with_and_without(lab: Lab, name: str, **settings: Any) -> dict[str, Any]:
    """The plain recipe of `improved`, with one technique and without any."""
    shared = {"preset": "fashion-minibatch", "images": 150_000, **NARROW}
    runs = lab.together(
        shared | settings | {"name": f"improved-{name}"}, shared | {"name": "improved-off", "minibatch": "none"}
    )
    found = {}
    for which, run in zip((name, "off"), runs, strict=True):
        read = lab.read(run, FASHION)
        found |= {f"FCD_{which}": read.frechet, f"s_{which}": read.s, f"smallest_share_{which}": read.smallest_share}
    return found


def minibatch(lab: Lab) -> dict[str, Any]:
    return _with_and_without(lab, "minibatch", minibatch="discrimination", kernels=50)


def matching(lab: Lab) -> dict[str, Any]:
    return _with_and_without(lab, "matching", minibatch="none", goal="features")


def noise(lab: Lab) -> dict[str, Any]:
    return _with_and_without(lab, "noise", minibatch="none", noise=0.3)
