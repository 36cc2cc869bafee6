"""Plain GANs: the two generator losses, DCGAN, upsampling, least squares, weight averages, two learning rates."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.evidence.lab import Lab, reader
from elegan.data import open_data
from elegan.families.base import Family
from elegan.images import to_uint8

FASHION = "fashion-mnist"
MLP = {"batch": 64, "G_steps": 1, "G_widths": (256, 512), "D_widths": (512, 256), "ema_half_life": 5_000}
NARROW = {
    "batch": 64, "G_widths": (64, 32, 16), "D_widths": (16, 32), "updates": "joint", "slope": 0.2, "G_lr": 1.6e-3,
    "D_lr": 1.6e-3, "beta1": 0.5, "lr_schedule": "linear", "ema_half_life": 20_000,
}  # fmt: skip

PAPER = {
    "batch": 64, "G_widths": (64, 32, 16), "D_widths": (16, 32, 64), "G_lr": 1e-3, "D_lr": 1e-3,
    "lr_schedule": "linear", "ema_half_life": 20_000,
}  # fmt: skip


def wrong_sign(model: Any) -> None:
    """G learns to be found out."""
    game = model.objective
    model.objective = game._replace(G=lambda logits: -game.G(logits))


def mixed_codings(model: Any) -> None:
    """D has 1 for real and 0 for fake, as in one half of the literature; G aims at the other half's 0."""
    model.objective = model.objective._replace(G=lambda logits: 0.5 * logits.square().mean())


def _digits(lab: Lab, objective: str) -> dict[str, Any]:
    sabotage = wrong_sign if lab.broken else None
    run = lab.train(f"vanilla-{objective}", "digits-mlp", 600_000, objective=objective, sabotage=sabotage, **MLP)
    read = lab.read(run, "mnist")
    return {"smallest_share": read.smallest_share, "FCD": read.frechet, "s": read.s}


def minimax(lab: Lab) -> dict[str, Any]:
    return _digits(lab, "minimax")


def nonsaturating(lab: Lab) -> dict[str, Any]:
    return _digits(lab, "nonsaturating")


def dcgan_run(lab: Lab, shared: bool = False, sabotage: Any = None) -> Any:
    """The DCGAN of the paper, narrow."""
    return lab.train(
        "dcgan", "fashion-dcgan-paper", 180_000, checkpoints=5, shared=shared, sabotage=sabotage, **PAPER
    )  # fmt: skip


def dcgan(lab: Lab) -> dict[str, Any]:
    run = dcgan_run(lab, sabotage=wrong_sign if lab.broken else None)
    read = lab.read(run, FASHION)
    return {
        "s": read.s,
        "FCD": read.frechet,
        "smallest_share": read.smallest_share,
        **smooth_paths(lab.model(run)),
    }


def smooth_paths(model: Family, paths: int = 400, steps: int = 16) -> dict[str, float]:
    """The share of paths between two z along which no step is above 3 times the mean step: in pixels, in C's features.

    C's features leap where C changes its mind, though the pictures move evenly: most of the leaps in them are at a
    change of class (59 to 71 % of three DCGANs'). A G that knows both ends and nothing between has no smooth path.
    """
    cfg: Any = model.config
    size, generator = (2, paths, 1, cfg.z_dim), torch.Generator().manual_seed(0)
    even = cfg.z_law == "uniform"
    ends = torch.rand(size, generator=generator) * 2 - 1 if even else torch.randn(size, generator=generator)
    angle = torch.linspace(0, torch.pi / 2, steps)[None, :, None]
    z = angle.cos() * ends[0] + angle.sin() * ends[1]  # (paths, steps, z_dim), as long as z usually is
    with torch.inference_mode():
        drawn = to_uint8(model.parts.nets[model.sampler].eval()(z.flatten(0, 1))).permute(0, 2, 3, 1)
    images = np.ascontiguousarray(drawn.numpy())
    seen = {"smooth_paths": images.astype(np.float32), "smooth_for_C": reader(FASHION).features(images).features}
    found = {}
    for name, values in seen.items():
        sizes = np.linalg.norm(np.diff(values.reshape(paths, steps, -1), axis=1), axis=2)
        found[name] = float((sizes.max(1) <= 3 * sizes.mean(1)).mean())
    return found


def upsampling(lab: Lab) -> dict[str, Any]:
    """A DCGAN with resizing and convolutions in G; broken: 3x3 transposed convolutions of stride 2, which overlap."""
    network = {"network": "deconv", "G_kernels": (3, 3, 3)} if lab.broken else {"network": "upsample"}
    both = {"preset": "fashion-dcgan", "images": 300_000, "objective": "nonsaturating", **NARROW}
    run, deconv = lab.together(
        both | network | {"name": "upsampling"}, both | {"name": "dcgan-tutorial", "shared": True}
    )
    base = lab.read(deconv, FASHION)
    images, _ = lab.samples(run)
    read = reader(FASHION)(images)
    real = open_data(FASHION, "test").images[:, 0]
    return {
        "nyquist_of_real": nyquist(images[..., 0]) / nyquist(real),
        "s": read.s,
        "s_of_dcgan": base.s,
        "FCD": read.frechet,
    }


def nyquist(images: np.ndarray) -> float:
    """Mean power of images (N, H, W) at the highest frequency of either axis: that of a checkerboard's period of 2."""
    power = (np.abs(np.fft.fft2(images / 127.5 - 1)) ** 2).mean(0)
    h, w = power.shape
    return float((power[h // 2].sum() + power[:, w // 2].sum()) / (h + w))


def least_squares(lab: Lab) -> dict[str, Any]:
    sabotage = mixed_codings if lab.broken else None
    run = lab.train(
        "lsgan", "fashion-dcgan-paper", 180_000, objective="least-squares", sabotage=sabotage, **PAPER
    )  # fmt: skip
    read = lab.read(run, FASHION)
    return {"s": read.s, "FCD": read.frechet, "smallest_share": read.smallest_share}


def average(lab: Lab) -> dict[str, Any]:
    """At five checkpoints of the DCGAN: the average against the raw weights; broken: the average is the raw weights."""
    better, told = 0, {}
    five = itertools.islice(lab.models(dcgan_run(lab, shared=True)), 5)  # and the end, two steps after the fifth
    for i, (_, model) in enumerate(five, 1):
        if lab.broken:
            model.parts.nets["G_ema"].load_state_dict(model.parts.nets["G"].state_dict())
        ema = lab.read_model(model, FASHION).frechet
        model.parts.nets["G_ema"].load_state_dict(model.parts.nets["G"].state_dict())
        raw = lab.read_model(model, FASHION).frechet
        better += ema < raw
        told |= {f"FCD_{i}": ema, f"FCD_{i}_raw": raw}
    return {"better_at": better} | told


def two_rates(lab: Lab) -> dict[str, Any]:
    """The spectrally normalised GAN with D's rate twice G's, and with both at their geometric mean."""
    wide = {"G_width": 32, "G_widest": 128, "D_width": 32, "D_widest": 128, "short_run": 0}
    rates = {"ttur": (2e-4, 8e-4), "equal": (4e-4, 4e-4)}
    shared = {"preset": "fashion", "images": 120_000, **wide}
    runs = lab.together(*(shared | {"name": f"rates-{name}", "G_lr": g, "D_lr": d} for name, (g, d) in rates.items()))
    return {f"FCD_{name}": lab.read(run, FASHION).frechet for name, run in zip(rates, runs, strict=True)}


def slope_of(critic: Any, images: Tensor) -> Tensor:
    """||dD/dx|| of each image (N,)."""
    x = images.detach().float().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(x).float().sum(), x)
    return gradient.flatten(1).norm(dim=1)
