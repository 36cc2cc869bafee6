"""Labels: asked for by concatenation or projection, named by D (ACGAN), found without any (InfoGAN)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from benchmarks.evidence import lab as lab_module
from benchmarks.evidence.gates.plain import FASHION
from benchmarks.evidence.lab import Lab, rank_correlation, reader
from elegan.images import to_uint8


def shuffled(model: Any) -> None:
    """D is told labels that belong to other pictures of the batch."""

    def shuffle(_: Any, args: Any) -> Any:
        return (args[0], args[1][torch.rand(args[1].shape, device=args[1].device).argsort()])

    model.D.register_forward_pre_hook(shuffle)


def _told(lab: Lab, run: Any, data: str) -> dict[str, Any]:
    read = lab.read(run, data)
    return {
        "accuracy": read.accuracy,
        "worst_class": read.worst_class,
        "diversity": read.diversity,
        "of_real": reader(data).right,
        "worst_of_real": reader(data).worst_right,
        "s": read.s,
        "FCD": read.frechet,
    }


NARROW = {"G_width": 16, "G_widest": 64, "D_width": 16, "D_widest": 64, "G_lr": 1.6e-3, "D_lr": 3.2e-3}
WIDER = NARROW | {"G_width": 32, "G_widest": 128, "D_width": 32, "D_widest": 128}


def concat(lab: Lab) -> dict[str, Any]:
    return _by_label(lab, "concat", "mnist", 200_000, NARROW)


def projection(lab: Lab) -> dict[str, Any]:
    return _by_label(lab, "projection", "mnist", 150_000, NARROW)


def concat_garments(lab: Lab) -> dict[str, Any]:
    return _by_label(lab, "concat", FASHION, 1_500_000, WIDER)


def projection_garments(lab: Lab) -> dict[str, Any]:
    return _by_label(lab, "projection", FASHION, 450_000, WIDER)


def _by_label(lab: Lab, label: str, data: str, images: int, widths: dict[str, Any]) -> dict[str, Any]:
    """Pictures that were asked for by label, which enters D in one of two ways."""
    sabotage, name = shuffled if lab.broken else None, label if data == "mnist" else f"{label}-garments"
    return _told(lab, lab.train(name, f"fashion-{label}", images, data=data, sabotage=sabotage, **widths), data)


def acgan(lab: Lab) -> dict[str, Any]:
    return _named_by_D(lab, "acgan", "digits-acgan", "mnist", 180_000, (64, 32, 16), (16, 32, 64, 64))


def acgan_garments(lab: Lab) -> dict[str, Any]:
    return _named_by_D(lab, "acgan-garments", "fashion-acgan", FASHION, 240_000, (128, 64, 32), (32, 64, 64, 128))


def _named_by_D(
    lab: Lab, name: str, preset: str, data: str, images: int, G: tuple[int, ...], D: tuple[int, ...]
) -> dict[str, Any]:
    """Pictures of a class that only D's second head names. Broken: it never learns, and G is asked to please it."""
    fault = {"D_class_weight": 0.0} if lab.broken else {}
    run = lab.train(
        name, preset, images, batch=50, G_widths=G, D_widths=D, G_lr=1e-3, D_lr=1e-3, lr_schedule="linear", **fault
    )
    return _told(lab, run, data)


def infogan(lab: Lab) -> dict[str, Any]:
    """Which digit a category is, what a fresh reader finds of it, and what the best number changes."""
    run = lab.train(
        "infogan", "digits-infogan", 600_000, G_widths=(64, 32), D_widths=(32, 64), trunk_width=256,
        info_weight=0.0 if lab.broken else 1.0,
    )  # fmt: skip
    model: Any = lab.model(run)
    features = reader("mnist").features
    codes = np.arange(lab_module.SAMPLES) % 10
    images = run.sample(lab_module.SAMPLES, labels=codes.tolist(), seed=1).images
    seen = features(images)
    assert seen.probabilities is not None
    table = np.zeros((10, 10))
    np.add.at(table, (codes, seen.probabilities.argmax(1)), 1)
    rows, columns = linear_sum_assignment(-table)
    return {
        "matching": table[rows, columns].sum() / len(codes),
        "information": fresh_information(images, codes),
        **_handles(model),
    }


def fresh_information(images: np.ndarray, codes: np.ndarray) -> float:
    """I(c; x) >= log K - cross entropy, in nats, by a reader Q' trained on half of the samples, on the rest."""
    from elegan.metrics.classifiers import PlainClassifier

    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    y, half = torch.from_numpy(codes), len(images) // 2
    net = PlainClassifier(10)
    adam = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(3):
        for rows in torch.randperm(half).split(100):
            loss = torch.nn.functional.cross_entropy(net(x[rows])[1], y[rows])
            adam.zero_grad()
            loss.backward()
            adam.step()
    with torch.inference_mode():
        entropy = torch.nn.functional.cross_entropy(net.eval()(x[half:])[1], y[half:])
    return float(np.log(10) - entropy)


def _handles(model: Any) -> dict[str, float]:
    """The largest |Spearman| of slant and of width with either number, over the categories, all else fixed."""
    steps, best = torch.linspace(-1, 1, 9), {"slant": 0.0, "width": 0.0}
    generator = torch.Generator().manual_seed(0)
    z = torch.rand(20, 62, generator=generator) * 2 - 1
    for number in range(2):
        values: dict[str, list[float]] = {"slant": [], "width": []}
        told = []
        for category in range(10):
            for step in steps:
                numbers = torch.zeros(20, 2)
                numbers[:, number] = step
                with torch.inference_mode():
                    images = model.G_ema.eval()(model.latent(z, torch.full((20,), category), numbers))
                moments = [shape_of(im) for im in to_uint8(images)[:, 0].numpy()]
                told.append((category, float(step)))
                values["slant"].append(float(np.mean([m[0] for m in moments])))
                values["width"].append(float(np.mean([m[1] for m in moments])))
        for name, series in values.items():
            per = []
            for k in range(10):
                asked, found = zip(*((s, v) for (c, s), v in zip(told, series, strict=True) if c == k), strict=True)
                per.append(abs(rank_correlation(asked, found)))
            best[name] = max(best[name], float(np.median(per)))
    return {f"spearman_{name}": value for name, value in best.items()}


def shape_of(image: np.ndarray) -> tuple[float, float]:
    """Slant (how x leans with y) and width (deviation in x) of a picture's ink, in pixels."""
    ink = image.astype(np.float64) + 1e-9
    ink /= ink.sum()
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    x, y = x - (ink * x).sum(), y - (ink * y).sum()
    return float((ink * x * y).sum() / (ink * y * y).sum()), float(np.sqrt((ink * x * x).sum()))
