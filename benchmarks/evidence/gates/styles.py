"""BigGAN's truncation; StyleGAN2's mixing and path length."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from benchmarks.evidence import lab as lab_module
from benchmarks.evidence.gates.plain import FASHION
from benchmarks.evidence.lab import Lab, rank_correlation, reader
from elegan.adversarial.penalties import path_lengths
from elegan.data import open_data
from elegan.families import biggan
from elegan.images import to_uint8
from elegan.metrics.manifold import balls, prdc

NARROW = {"G_width": 16, "G_widest": 64, "D_width": 16, "D_widest": 64}
STYLED = {"use_labels": False, "G_width": 8, "G_widest": 32, "D_width": 8, "D_widest": 32, "lr": 5e-3}
TRUNCATIONS = (1.0, 0.8, 0.6, 0.45, 0.3)


def truncation(lab: Lab) -> dict[str, Any]:
    return _truncated(lab, "biggan", "mnist", 60_000, lab_module.SAMPLES)


def truncation_garments(lab: Lab) -> dict[str, Any]:
    return _truncated(lab, "biggan-garments", FASHION, 480_000, 2_000)


def _truncated(lab: Lab, name: str, data: str, images: int, count: int) -> dict[str, Any]:
    """Precision and recall of C's features at five truncations. Broken: z is not truncated at all."""
    run = lab.train(
        name, "fashion-biggan", images, data=data, shared=True, attention=16, G_lr=8e-4, D_lr=8e-4,
        lr_schedule="linear", **NARROW,
    )  # fmt: skip
    model, C = lab.model(run), reader(data)
    real = balls(C.features(open_data(data, "test").images[:count].transpose(0, 2, 3, 1)).features)
    labels = torch.arange(count) % 10
    precision, recall = [], []

    def whole(shape: tuple[int, ...], truncation: float, generator: torch.Generator) -> Tensor:
        return torch.randn(shape, generator=generator)

    with mock.patch.object(biggan, "truncated_normal", whole if lab.broken else biggan.truncated_normal):
        for i, psi in enumerate(TRUNCATIONS):
            images = to_uint8(model.sample(count, labels, seed=1 + i, truncation=psi))
            found = prdc(C.features(images.permute(0, 2, 3, 1).numpy()).features, real)
            precision.append(found.precision)
            recall.append(found.recall)
    read = lab.read(run, data)
    return {
        "precision_spearman": rank_correlation(TRUNCATIONS, precision),
        "recall_spearman": rank_correlation(TRUNCATIONS, recall),
        "precision": " ".join(f"{value:.3f}" for value in precision),
        "recall": " ".join(f"{value:.3f}" for value in recall),
        "accuracy": read.accuracy,
        "of_real": C.right,
        "s": read.s,
    }


def mixtures(lab: Lab, run: Any) -> list[Tensor]:
    """Pictures of 2,000 coarse styles, of as many fine ones, and of both mixed, which `broken` exchanges."""
    model: Any = lab.model(run)
    generator, n = torch.Generator().manual_seed(1), 2_000
    with torch.inference_mode():
        G = model.G_ema.eval()
        w = G.mapping(torch.randn(2 * n, model.config.z_dim, generator=generator))
        coarse, fine = (half[:, None].expand(-1, G.layers, -1) for half in w.chunk(2))
        cut = torch.arange(G.layers)[:, None] < G.layers - 2  # the last size is fine, those before are coarse
        mixed = torch.where(cut, fine, coarse) if lab.broken else torch.where(cut, coarse, fine)
        return [torch.cat([G(part, model.noise) for part in ws.split(100)]) for ws in (coarse, fine, mixed)]


def mixing(lab: Lab) -> dict[str, Any]:
    """Coarse styles of one picture with fine styles of another, without labels: whose class comes out?

    Broken: the two are exchanged.
    """
    run = lab.train("stylegan2", "fashion-stylegan2", 90_000, shared=True, **STYLED)
    drawn = mixtures(lab, run)
    C = reader(FASHION)
    seen = [C.features(to_uint8(images).permute(0, 2, 3, 1).numpy()).probabilities for images in drawn]
    classes = [p.argmax(1) for p in seen if p is not None]
    gray = [images.mean((1, 2, 3)).numpy() for images in drawn]
    return {
        "class_of_coarse": float(np.mean(classes[2] == classes[0])),
        "class_of_fine": float(np.mean(classes[2] == classes[1])),
        "brightness_of_coarse": float(np.corrcoef(gray[2], gray[0])[0, 1]),
        "brightness_of_fine": float(np.corrcoef(gray[2], gray[1])[0, 1]),
        "s": lab.read(run, FASHION).s,
    }


def path_length(lab: Lab) -> dict[str, Any]:
    """The spread of path lengths between styles, with the penalty and without: paired seeds.

    The penalty weighs four times what the preset has, so that minutes show what it does.
    """
    found: dict[str, Any] = {}
    both = {"preset": "fashion-stylegan2", "images": 75_000, "shared": True, **STYLED}
    runs = lab.together(
        both | {"name": "stylegan2-path", "path_weight": 8.0}, both | {"name": "stylegan2-free", "path_weight": 0.0}
    )
    for name, run in zip(("on", "off"), runs, strict=True):
        model: Any = lab.model(run)
        G, lengths = model.G_ema.train(), []  # not cut to [-1, 1], where the slope would be zero
        torch.manual_seed(2)
        for _ in range(10):
            w = G.mapping(torch.randn(100, model.config.z_dim)).detach()[:, None]
            ws = w.repeat(1, G.layers, 1).requires_grad_()
            lengths.append(path_lengths(G(ws, model.noise), ws).detach())
        spread = torch.cat(lengths)
        found |= {f"variance_{name}": (spread.var() / spread.mean().square()).item(), f"mean_{name}": spread.mean()}
        found[f"s_{name}"] = lab.read(run, FASHION).s
    return found
