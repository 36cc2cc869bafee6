"""Few pictures: ADA, DiffAugment, projected discriminators, transfer from another run."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch

from benchmarks.evidence.gates.plain import FASHION
from benchmarks.evidence.lab import Lab, few, reader
from elegan.adversarial.augment import ada as ada_transform
from elegan.data import open_data
from elegan.families.projected import NARROW as PROJECTED
from elegan.images import to_float
from elegan.metrics.features import load_features
from elegan.metrics.frechet_distance import frechet, moments
from elegan.training.trained import Run

DETECTOR = 15_000  # pictures that the detector of leaks learns from
NARROW = {
    "batch": 32, "G_width": 32, "G_widest": 128, "D_width": 32, "D_widest": 128, "r1": 0.01, "G_lr": 6e-4, "D_lr": 6e-4,
}  # fmt: skip
NARROWER = NARROW | {"G_width": 16, "G_widest": 64, "D_width": 16, "D_widest": 64}


def reals_only(model: Any) -> None:
    """The fault that leaks: the fakes are judged as they are."""
    judge, n = model.judge, model.config.batch

    def half(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if len(images) == n:  # R1's and G's
            return model.D(images, labels)
        return torch.cat([judge(images[:n], labels[:n]), model.D(images[n:], labels[n:])])

    model.judge = half


def _few(lab: Lab, count: int, augment: str, images: int, **settings: Any) -> list[Run]:
    """A run on `count` pictures of Fashion-MNIST with an augmentation and one without. Broken: of the reals alone."""
    both = {
        "preset": "small-ada", "images": images, "data": few(FASHION, count, lab.runs, lab.seed), "size": 28,
        "channels": 1, **NARROW, **settings,
    }  # fmt: skip
    fault = {"sabotage": reals_only} if lab.broken else {"shared": True}
    name = f"few{count}-{images}"
    return lab.together(
        both | fault | {"name": f"{name}-{augment}", "augment": augment},
        both | {"name": f"{name}-off", "augment": "none", "shared": True},
    )


def ada(lab: Lab) -> dict[str, Any]:
    """100 pictures. Broken: the fakes are not augmented."""
    return _ada(lab, 100, 110_000, **NARROWER)


def ada_500(lab: Lab) -> dict[str, Any]:
    """500 pictures. Broken: the fakes are not augmented."""
    return _ada(lab, 500, 150_000)


def _ada(lab: Lab, count: int, images: int, **settings: Any) -> dict[str, Any]:
    on, off = _few(lab, count, "ada", images, ada_images=50_000, **settings)
    rows = second_half(on)
    (drawn, _), (drawn_off, _) = lab.samples(on), lab.samples(off)
    found, plain = reader(FASHION)(drawn), reader(FASHION)(drawn_off)
    return {
        "r_t": np.mean([row["sign"] for row in rows]),
        "p": rows[-1]["p"],
        "near_own": near_own(drawn, count, lab),
        "near_own_off": near_own(drawn_off, count, lab),
        "FCD": found.frechet,
        "FCD_off": plain.frechet,
        "r_t_off": np.mean([row["sign"] for row in second_half(off)]),
        "leaked": leaked(drawn),
        "leaked_off": leaked(drawn_off),
        "detector_power": detector().power,
    }


def near_own(samples: np.ndarray, count: int, lab: Lab) -> float:
    """The share of samples whose nearest picture, for C, is one of the `count` that D saw and not one of as many
    strangers.

    One half says nothing is known by heart, 1 that all is. The strangers are training images, too, as many of each
    class; C has seen both.
    """
    own, others = (np.load(few(FASHION, count, lab.runs, seed))["images"] for seed in (lab.seed, lab.seed + 1000))
    strangers = others[~(others[:, None] == own[None]).all((2, 3, 4)).any(1)]
    drawn, near, far = (torch.from_numpy(reader(FASHION).features(x).features) for x in (samples, own, strangers))
    return float((torch.cdist(drawn, near).min(1)[0] < torch.cdist(drawn, far).min(1)[0]).float().mean())


def second_half(run: Any) -> list[dict[str, Any]]:
    """The rows of stats.jsonl after the warm-up."""
    rows: list[dict[str, Any]] = run.stats
    return rows[len(rows) // 2 :]


def leaked(samples: np.ndarray) -> float:
    """The share of samples that look augmented to a detector which says so of 1 % of plain test images."""
    return float((detector().score(to_float(torch.from_numpy(samples).permute(0, 3, 1, 2))) > detector().limit).mean())


class Detector:
    """Learns to tell augmented training pictures from plain ones."""

    def __init__(self) -> None:
        from elegan.metrics.classifiers import PlainClassifier

        train, test = open_data(FASHION, "train"), open_data(FASHION, "test")
        torch.manual_seed(0)
        self.net = PlainClassifier(2)
        adam = torch.optim.Adam(self.net.parameters(), 2e-3)
        plain = torch.from_numpy(train.images[:DETECTOR])
        y = torch.cat([torch.zeros(64), torch.ones(64)]).long()
        for rows in torch.randperm(len(plain)).split(64)[:-1]:
            x = to_float(plain[rows])
            disturbed = ada_transform(x, 0.5).clamp(-1, 1)
            loss = torch.nn.functional.cross_entropy(self.net(torch.cat([x, disturbed]) / 2 + 0.5)[1], y)
            adam.zero_grad()
            loss.backward()
            adam.step()
        self.net.eval()
        held = to_float(torch.from_numpy(test.images))
        self.limit = np.quantile(self.score(held), 0.99)
        self.power = float((self.score(ada_transform(held, 0.5).clamp(-1, 1)) > self.limit).mean())

    @torch.inference_mode()
    def score(self, images: torch.Tensor) -> np.ndarray:
        """(N,), larger for what looks augmented, of images (N, 1, 28, 28) in [-1, 1]."""
        return torch.cat([self.net(part / 2 + 0.5)[1].diff(dim=1)[:, 0] for part in images.split(500)]).numpy()


@lru_cache(maxsize=1)
def detector() -> Detector:
    """The one detector of leaks."""
    return Detector()


def diffaugment(lab: Lab) -> dict[str, Any]:
    """100 pictures. Broken: the fakes are not augmented; a twelfth of the images show what becomes of it."""
    on, off = _few(lab, 100, "diffaugment", 30_000 if lab.broken else 360_000, **NARROWER)
    return {"FCD": lab.read(on, FASHION).frechet, "FCD_off": lab.read(off, FASHION).frechet}


def diffaugment_tenth(lab: Lab) -> dict[str, Any]:
    """A tenth of the data. Broken: the fakes are not augmented; a fifteenth of the images show what becomes of it."""
    on, off = _few(lab, 6_000, "diffaugment", 120_000 if lab.broken else 1_800_000)
    return {"FCD": lab.read(on, FASHION).frechet, "FCD_off": lab.read(off, FASHION).frechet}


def projected(lab: Lab) -> dict[str, Any]:
    """A projected D that looks through one classifier of garments, judged by another; the plain game it must outrun.

    The plain game is the family `ada` without augmentation: the same G. Both classifiers have learnt the same labels,
    so the distance for one that has never seen a garment is told too. Broken: the frozen network has learnt nothing.
    """
    fault = {"features": "random"} if lab.broken else {}
    ours, plain = lab.together(
        {"name": "projected", "preset": "fashion-projected", "images": 36_000, "checkpoints": 9, **fault},
        {
            "name": "projected-plain", "preset": "small-ada", "images": 72_000, "data": FASHION, "checkpoints": 9,
            "shared": True, "augment": "none", "size": 28, "channels": 1, "D_widest": 128, **PROJECTED,
        },
    )  # fmt: skip
    curves = {
        name: [(images, lab.read_model(model, FASHION).frechet) for images, model in lab.models(run)]
        for name, run in (("plain", plain), ("projected", ours))
    }
    best_at, best = min(curves["plain"], key=lambda point: point[1])
    reached = next((images for images, distance in curves["projected"] if distance <= best), None)
    return {
        "images_of_plain": reached / best_at if reached else float(9),  # 9: not reached
        "best_FCD_plain": best,
        "best_FCD": min(distance for _, distance in curves["projected"]),
        "FCD": curves["projected"][-1][1],
        "digits_FD": for_digits(lab.samples(ours)[0]),
        "digits_FD_plain": for_digits(lab.samples(plain)[0]),
    }


def for_digits(samples: np.ndarray) -> float:
    """Frechet distance to the test images in the features of the digits' classifier, which has never seen a garment."""
    features = load_features("digits")
    real = open_data(FASHION, "test").images.transpose(0, 2, 3, 1)
    return frechet(moments(features(samples).features), moments(features(real).features))


def transfer(lab: Lab) -> dict[str, Any]:
    """100 pictures of Fashion-MNIST, beginning with what was learnt from drawn garments, with and without FreezeD."""
    shared = {
        "preset": "small-diffaugment", "shared": True, "augment": "none", "size": 28, "channels": 1, **NARROWER
    }  # fmt: skip
    hundred = shared | {"images": 40_000, "data": few(FASHION, 100, lab.runs, lab.seed)}
    source, scratch = lab.together(
        shared | {"name": "garments", "images": 90_000, "data": "garments"}, hundred | {"name": "hundred-scratch"}
    )
    tuned = hundred | {"init": str(source.path)}
    fine, freeze = lab.together(
        tuned | {"name": "hundred-fine-tuned"}, tuned | {"name": "hundred-freeze", "freeze_D": 1}
    )
    return {
        "FCD_scratch": lab.read(scratch, FASHION).frechet,
        "FCD_fine_tuned": lab.read(fine, FASHION).frechet,
        "FCD_freeze_D": lab.read(freeze, FASHION).frechet,
    }
