"""Critics with a bounded slope: clipped, penalised, normalised, paired."""

from __future__ import annotations

import itertools
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.evidence.gates.plain import FASHION, slope_of
from benchmarks.evidence.lab import Lab, one_thread, rank_correlation
from elegan.adversarial.objectives import PAIRED_OBJECTIVES
from elegan.adversarial.penalties import slope, zero_centred
from elegan.adversarial.stabilizers import clip_weights, frozen, set_learning_rate
from elegan.data import open_data
from elegan.families.base import minimize
from elegan.images import to_float
from elegan.metrics.features import load_features
from elegan.metrics.stacked import PUBLISHED, ChannelFeatures, modes

STEPS, HOLD = 38_000, 0.8  # on points: gamma falls over this share of the steps, the rates after it
WIDTHS = (96, 96, 96)  # of both networks there
NARROW = {"G_widths": (64, 32, 16), "D_widths": (16, 32, 64)}


def wgan(lab: Lab) -> dict[str, Any]:
    return _clipped(lab, "wgan", "mnist", 400_000, 1e-4, (16, 32, 64))


def wgan_garments(lab: Lab) -> dict[str, Any]:
    return _clipped(lab, "wgan-garments", FASHION, 1_000_000, 2e-4, (32, 64, 128))


def _clipped(lab: Lab, name: str, data: str, images: int, rate: float, D_widths: tuple[int, ...]) -> dict[str, Any]:
    """Does the critic's gap tell how good the samples are? Broken: weights are clipped once, at the start."""

    def once(model: Any) -> None:
        clip_weights(model.D.parameters(), 0.01)

    fault: dict[str, Any] = {"weight_clip": 1e6} if lab.broken else {}
    run = lab.train(
        name, "fashion-wgan-clip", images, data=data, checkpoints=8, sabotage=once if lab.broken else None,
        batch=32, G_lr=rate, D_lr=rate, G_widths=(64, 32, 16), D_widths=D_widths, **fault,
    )  # fmt: skip
    rows, at, gaps, distances = run.stats, 0, [], []
    for seen, model in itertools.islice(lab.models(run), 8):  # and the end, few steps after the eighth
        gaps.append(np.mean([row["gap"] for row in rows if at < row["images"] <= seen]))
        distances.append(lab.read_model(model, data).frechet)
        at = seen
    largest = max(p.abs().max().item() for p in lab.model(run).parts.nets["D"].parameters())
    return {
        "spearman": rank_correlation(gaps, distances),
        "largest_weight": largest,
        "FCD": distances[-1],
        "first_FCD": distances[0],
    }


def wgan_gp(lab: Lab) -> dict[str, Any]:
    """The critic's slope between real and fake, over the last fifth of the run. Broken: the penalty has no gradient."""

    def no_graph(model: Any) -> None:
        penalty = model.penalty
        model.penalty = lambda *args: penalty(*args).detach()

    run = lab.train(
        "wgan-gp", "fashion-wgan-gp", 500_000, checkpoints=10, sabotage=no_graph if lab.broken else None, **NARROW
    )
    real_images = torch.from_numpy(open_data(FASHION, "train").images[:2_000])
    norms, gaps = [], []
    for _, model in list(lab.models(run))[-2:]:
        real = to_float(real_images)
        fake = model.sample(2_000, seed=2)  # by the average, near enough to what the critic judges
        eps = torch.rand(2_000, 1, 1, 1, generator=torch.Generator().manual_seed(0))
        critic = model.parts.nets["D"].eval()
        norms.append(slope_of(critic, fake.lerp(real, eps)))
        with torch.inference_mode():
            gaps.append((critic(real).mean() - critic(fake).mean()).item())
    norm, gap = torch.cat(norms), float(np.mean(gaps))
    read = lab.read(run, FASHION)
    return {
        "mean_norm": norm.mean(),
        "most": 1 + gap / 20 + 0.05,
        "sd": norm.std(),
        "gap": gap,
        "s": read.s,
        "FCD": read.frechet,
    }


def sngan(lab: Lab) -> dict[str, Any]:
    """Largest singular values after training. Broken: the power iteration starts anew at each call."""

    def forgetful(model: Any) -> None:
        def reset(_: Any, __: Any) -> None:
            for name, buffer in model.D.named_buffers():
                if name.endswith(".u"):
                    buffer.copy_(nn.functional.normalize(torch.randn_like(buffer), dim=0))

        model.D.register_forward_pre_hook(reset)

    run = lab.train(
        "sngan", "fashion", 300_000, data=None, sabotage=forgetful if lab.broken else None,
        G_width=32, G_widest=128, D_width=32, D_widest=128, short_run=0, **{"data.labels": "ignore"},
    )  # fmt: skip
    D = lab.model(run).parts.nets["D"].eval()
    tops = [
        torch.linalg.svdvals(m.weight.detach().flatten(1))[0].item()
        for m in D.modules()
        if hasattr(m, "parametrizations")
    ]
    read = lab.read(run, FASHION)
    return {"smallest_top": min(tops), "largest_top": max(tops), "s": read.s, "FCD": read.frechet}


def _penalised(lab: Lab, name: str, **settings: Any) -> dict[str, Any]:
    """A plain GAN with a penalty and without, all else equal."""
    shared = {"preset": "fashion-r1", "images": 150_000, "batch": 64, "beta1": 0.5, "beta2": 0.99, **NARROW}
    shared |= {"G_lr": 5e-4, "D_lr": 5e-4}
    runs = lab.together(
        shared | settings | {"name": f"penalty-{name}"}, shared | {"name": "penalty-none", "penalty": "none"}
    )
    found = {}
    for which, run in zip((name, "none"), runs, strict=True):
        read = lab.read(run, FASHION)
        found |= {f"FCD_{which}": read.frechet, f"s_{which}": read.s}
    return found


def dragan(lab: Lab) -> dict[str, Any]:
    return _penalised(lab, "dragan", penalty="dragan", penalty_weight=10.0)


def first_r1(lab: Lab) -> dict[str, Any]:
    return _penalised(lab, "r1", penalty="r1", penalty_weight=0.1)


def second_r2(lab: Lab) -> dict[str, Any]:
    return _penalised(lab, "r2", penalty="r2", penalty_weight=0.1)


def points(n: int, generator: torch.Generator | None = None) -> Tensor:
    """(n, 2) from 25 Gaussians of deviation 0.05 on a grid of step 1."""
    centres = torch.cartesian_prod(torch.arange(5.0) - 2, torch.arange(5.0) - 2)
    return centres[torch.randint(25, (n,), generator=generator)] + 0.05 * torch.randn(n, 2, generator=generator)


def mlp(*sizes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1])


@one_thread()
def r3gan_points(lab: Lab) -> dict[str, Any]:
    """25 Gaussians with R3GAN's losses and both penalties, whose weight falls. Broken: pairs, but no penalty.

    A large gamma finds all modes and blurs them, a small one draws sharp and loses modes: 0.01 falling to 0.0002 had
    78 % within four deviations after 20,000 steps but 19 of 25 modes. So it falls slowly, by the same factor in every
    step, while the rates stay; then these fall.
    """
    G, D, game = mlp(64, *WIDTHS, 2), mlp(2, *WIDTHS, 1), PAIRED_OBJECTIVES["relativistic"]
    G_adam, D_adam = (torch.optim.Adam(net.parameters(), 1e-3, (0.0, 0.99), fused=True) for net in (G, D))
    critic = lambda x: D(x).squeeze(1)  # noqa: E731
    steps, start = min(STEPS, 20 * lab.cut or STEPS), time.monotonic()  # so short that only many can be timed
    for i in range(steps):
        progress = i / STEPS
        gamma = 0.0 if lab.broken else 0.05 * (0.002 / 0.05) ** min(1.0, progress / HOLD)
        for adam in (G_adam, D_adam):
            set_learning_rate(adam, 1e-3 * 0.02 ** max(0.0, (progress - HOLD) / (1 - HOLD)))
        with torch.no_grad():
            fake = G(torch.randn(256, 64))
        logits, slopes = slope(critic, torch.cat([points(256), fake]))  # one pass, as in the family
        R1, R2 = (zero_centred(part, gamma) for part in slopes.chunk(2))
        minimize(game.D(*logits.chunk(2)) + R1 + R2, D_adam)
        with frozen(D):
            logits = critic(torch.cat([points(256), G(torch.randn(256, 64))]))
            minimize(game.G(*logits.chunk(2)), G_adam)
    if steps < STEPS:
        lab.left["points"] = (STEPS - steps) * (time.monotonic() - start) / steps
    with torch.inference_mode():
        made = G(torch.randn(10_000, 64))
    nearest = made.round().clamp(-2, 2)
    near = (made - nearest).norm(dim=1) <= 4 * 0.05
    counts = torch.unique(nearest[near], dim=0, return_counts=True)[1]
    lab.trained.append(f"MLPs of {len(WIDTHS)} x {WIDTHS[0]} on 25 Gaussians, {STEPS:,} steps of 256")
    return {"modes": int((counts >= 20).sum()), "near": near.float().mean()}


def r3gan_stacked(lab: Lab) -> dict[str, Any]:
    """How many of the 1,000 modes of stacked MNIST: with pairs, and in the plain game with the same penalties.

    Broken: neither R1 nor R2; a third of the images show what becomes of it, and the plain game is not asked.
    """
    found: dict[str, Any] = {}
    C = ChannelFeatures(load_features("digits"))
    games = {"": "relativistic", "_plain": "nonsaturating"}
    images, fault = 480_000, {}
    if lab.broken:
        games, images, fault = {"": "relativistic"}, 160_000, {"gamma": (0.0, 0.0)}
    shared = {
        "preset": "fashion-r3gan", "images": images, "data": "stacked-mnist", "labels": "ignore", "G_width": 12,
        "G_widest": 48, "D_width": 12, "D_widest": 48, "lr": (1e-3, 2e-4), **fault,
    }  # fmt: skip
    runs = lab.together(
        *(shared | {"name": f"stacked{name}", "objective": objective} for name, objective in games.items())
    )
    for name, run in zip(games, runs, strict=True):
        there = modes(C.with_codes(run.sample(PUBLISHED, seed=1).images)[1])
        found |= {f"modes{name}": there.found.value, f"KL{name}": there.kl_uniform.value}
    return found
