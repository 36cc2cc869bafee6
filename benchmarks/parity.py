"""The presets beside the original programs, step by step, from the same weights, images and noise.

    python -m benchmarks.reference.keras_trace fashion-mlp --steps 10 --out traces/fashion-mlp.npz    (with TensorFlow)
    python -m benchmarks.parity --traces traces

Two programs that learn the same thing from other random numbers end at other scores, and a GAN's scores scatter
widely. So this takes the randomness out: the preset starts from the original's weights and is fed its images and
noise; losses and pictures must then differ by no more than rounding explains. Dropout, which no two libraries draw
alike, is switched off on both sides. Writes `benchmarks/results/parity.md` and `.json`; the
exit code is 1 when a preset disagrees.

A stride-2 layer of this package pads (2, 1) where Keras pads (1, 2): networks with such layers are the originals'
mirror image (networks/layers.py). Here their kernels, their feature maps and the images are turned by 180 degrees,
which makes the two the same.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

import elegan
from elegan import families
from elegan.data import open_data
from elegan.families.base import Batch, Clock, Family, ImageSpec
from elegan.networks.layers import FromMap, ToMap

RESULTS = Path(__file__).parent / "results"
#: Originals whose D is updated on the mean of its losses on real and fake.
MEANS = ("fashion-upsample", "digits-mlp", "digits-dcgan", "digits-cgan")
#: Of a weight: about what float32 sums and functions of two libraries differ by.
EPSILON, NUDGES = 1e-6, 4
#: How far apart the first step's losses may be, and how many times rounding's own effect later ones.
FIRST_LIMIT, TIMES = 1e-4, 5


def steps_of(net: nn.Module) -> list[nn.Module]:
    """The layers of a network that hold weights or say where maps become vectors, in the order of computation."""
    wanted = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm1d, nn.BatchNorm2d, ToMap, FromMap)
    return [m for m in net.modules() if isinstance(m, wanted)]


def turn_vector(width: int, shape: tuple[int, int, int]) -> np.ndarray:
    """The places of an (H, W, C) map in its vector, after the map is turned by 180 degrees."""
    assert width == shape[0] * shape[1] * shape[2], (width, shape)
    return np.arange(width).reshape(shape)[::-1, ::-1].ravel()


def map_shapes(layers: list[nn.Module], shape: tuple[int, int, int]) -> dict[int, tuple[str, tuple[int, int, int]]]:
    """For each dense layer beside a map, by its place in `layers`: whether the map is its input or output, and its
    (H, W, C). `shape` is the shape of the map that a `FromMap` turns into a vector."""
    found: dict[int, tuple[str, tuple[int, int, int]]] = {}
    for i, layer in enumerate(layers):
        if isinstance(layer, ToMap):
            dense = next(j for j in reversed(range(i)) if isinstance(layers[j], nn.Linear))
            found[dense] = ("out", layer.shape)
        elif isinstance(layer, FromMap):
            dense = next((j for j in range(i, len(layers)) if isinstance(layers[j], nn.Linear)), None)
            if dense is not None:
                found[dense] = ("in", shape)
    return found


def load_keras(net: nn.Module, weights: list[np.ndarray], turned: bool, shape: tuple[int, int, int]) -> None:
    """Copy Keras' weights (kernels (kh, kw, in, out), transposed ones (kh, kw, out, in)) into a network of ours."""
    layers, queue = steps_of(net), list(weights)
    maps = map_shapes(layers, shape) if turned else {}
    rows: np.ndarray | None = None  # how the vector that a batch norm sees is turned
    with torch.no_grad():
        for i, layer in enumerate(layers):
            if isinstance(layer, ToMap | FromMap):
                rows = None
                continue
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                for target in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                    value = queue.pop(0)
                    put(target, value if rows is None else value[rows])
                continue
            kernel = queue.pop(0)
            bias = queue.pop(0) if layer.bias is not None else None
            if isinstance(layer, nn.Linear):
                side, size = maps.get(i, ("", (0, 0, 0)))
                rows = turn_vector(kernel.shape[1], size) if side == "out" else None
                if side == "in":
                    kernel = kernel[turn_vector(kernel.shape[0], size)]
                if rows is not None:
                    kernel, bias = kernel[:, rows], bias if bias is None else bias[rows]
                kernel = kernel.T
            else:
                kernel = as_ours(kernel, layer, turned)
            put(layer.weight, kernel)
            if layer.bias is not None:
                put(layer.bias, bias)
    assert not queue, f"{len(queue)} arrays of Keras' weights are left over"


def as_ours(kernel: np.ndarray, layer: nn.Module, turned: bool) -> np.ndarray:
    """A Keras kernel in the memory order of one of our (transposed) convolutions."""
    shape = tuple(layer.weight.shape)  # type: ignore[union-attr, arg-type]
    if turned:
        kernel = kernel[::-1, ::-1]
    if isinstance(layer, nn.ConvTranspose2d):
        return kernel.transpose(3, 2, 0, 1)  # (kh, kw, out, in) -> (in, out, kh, kw)
    plain = kernel.transpose(3, 2, 0, 1)  # (kh, kw, in, out) -> (out, in, kh, kw)
    if plain.shape == shape:
        return plain
    # a transposed convolution of stride 1, which here is a convolution with the kernel turned round
    return kernel[::-1, ::-1].transpose(2, 3, 0, 1)


def put(target: Tensor | None, value: np.ndarray | None) -> None:
    """Overwrite a parameter or buffer; the shapes must agree."""
    assert target is not None
    assert value is not None
    assert tuple(target.shape) == value.shape, (tuple(target.shape), value.shape)
    target.copy_(torch.from_numpy(np.ascontiguousarray(value)))


@contextmanager
def recorded_noise(noise: list[np.ndarray]) -> Iterator[None]:
    """Within the block `torch.randn` hands out the recorded noise, and label noise is its mean."""
    queue = [torch.from_numpy(z) for z in noise]

    def randn(*size: int, **_: object) -> Tensor:
        z = queue.pop(0)
        assert tuple(z.shape) == size, (tuple(z.shape), size)
        return z

    with (
        mock.patch.object(torch, "randn", randn),
        mock.patch.object(torch, "rand_like", lambda x, **_: torch.full_like(x, 0.5)),
    ):
        yield
    assert not queue, f"{len(queue)} draws of noise were not used"


def add_epsilon_first(optimizer: torch.optim.Optimizer) -> None:
    """Keras' Adam: m sqrt(1 - b2^t) / (sqrt(v) + eps), where torch's has eps / sqrt(1 - b2^t) in its place.

    (Kingma & Ba 2015, the efficient form at the end of section 2.) Both have the same limit; over the first
    thousand steps the originals' epsilon is up to 32 times larger.
    """
    taken, plain = 0, {id(g): g["eps"] for g in optimizer.param_groups}

    def before(*_: object) -> None:
        nonlocal taken
        taken += 1
        for group in optimizer.param_groups:
            group["eps"] = plain[id(group)] / math.sqrt(1 - group["betas"][1] ** taken)

    optimizer.register_step_pre_hook(before)


class BiasedNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm whose running variance is the batch's own, as in Keras: torch's is n / (n - 1) times that."""

    def _check_input_dim(self, input: Tensor) -> None: ...

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        with torch.no_grad():
            axes = [axis for axis in range(input.dim()) if axis != 1]
            self.running_mean.lerp_(input.mean(axes), self.momentum)
            self.running_var.lerp_(input.var(axes, correction=0), self.momentum)
        return nn.functional.batch_norm(input, None, None, self.weight, self.bias, True, 0.0, self.eps)


def as_keras_has_it(model: Family, mean: bool) -> None:
    """The details of layers and optimisers in which the libraries differ, the originals' way.

    `mean`: the original's D takes the mean of its losses on real and fake where this package adds them. Adam's steps
    do not depend on that factor of two but for its epsilon.
    """
    if mean:
        for group in model.parts.optimizers["D"].param_groups:
            group["eps"] *= 2
    for module in model.parts.nets["G"].modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.__class__ = BiasedNorm
    for optimizer in model.parts.optimizers.values():
        add_epsilon_first(optimizer)


def numbered(trace: dict[str, np.ndarray], name: str) -> list[np.ndarray]:
    """The arrays `name.0`, `name.1`, ... of a trace."""
    count = sum(key.startswith(f"{name}.") for key in trace)
    return [trace[f"{name}.{i}"] for i in range(count)]


def build(preset: str, trace: dict[str, np.ndarray]) -> tuple[Family, bool]:
    """The preset's model with the original's weights and no dropout, and whether it is turned by 180 degrees."""
    family, recipe = families.preset(preset)
    config = recipe.config.model_copy(update={"D_dropout": 0.0, "D_head_dropout": 0.0, "fake_labels": "real"})
    model = families.get(family).Model(config, ImageSpec(1, 28, 28, 10))
    modules = [*model.parts.nets["G"].modules(), *model.parts.nets["D"].modules()]
    turned = any(getattr(m, "stride", (1, 1)) == (2, 2) for m in modules)
    for name, net in model.parts.nets.items():
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        load_keras(net, numbered(trace, f"{name}0"), turned, last_map(net, model))
    if preset == "fashion-upsample":  # whose D says how likely a picture is fake
        head = steps_of(model.parts.nets["D"])[-1]
        for p in head.parameters():
            p.data.neg_()
    return model, turned


def last_map(net: nn.Module, model: Family) -> tuple[int, int, int]:
    """The (H, W, C) of the map that D turns into a vector."""
    shapes: list[tuple[int, int, int]] = []
    hooks = [
        m.register_forward_pre_hook(lambda _, x: shapes.append((*x[0].shape[2:], x[0].shape[1])))
        for m in net.modules()
        if isinstance(m, FromMap)
    ]
    if hooks:
        labels = torch.zeros(2, dtype=torch.int64) if model.conditional else None
        with torch.no_grad():
            net(torch.zeros(2, 1, 28, 28), labels)
    for hook in hooks:
        hook.remove()
    return shapes[0] if shapes else (0, 0, 0)


def repeat(preset: str, trace: dict[str, np.ndarray], nudge: float = 0.0, seed: int = 0) -> dict[str, np.ndarray]:
    """The original's steps in this package: `d_loss` and `g_loss`, one value a step, and `images` (20, 28, 28, 1).

    `nudge` changes every weight at the start by up to that relative amount, at random by `seed`.
    """
    data = open_data("mnist" if preset.startswith("digits") else "fashion-mnist", "train")
    model, turned = build(preset, trace)
    as_keras_has_it(model, mean=preset in MEANS)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for net in model.parts.nets.values():
            for p in net.parameters():
                p.mul_(1 + nudge * (2 * torch.rand(p.shape, generator=generator) - 1))
    losses: dict[str, list[float]] = {"D_loss": [], "G_loss": []}
    with recorded_noise(numbered(trace, "z")):
        for i, rows in enumerate(numbered(trace, "chosen")):
            images = torch.from_numpy(data.images[rows].astype(np.float32) / 127.5 - 1)
            images = images.flip(2, 3) if turned else images
            batch = Batch(images.contiguous(memory_format=torch.channels_last), torch.from_numpy(data.labels[rows]))
            values = model.step([batch], Clock(i * len(rows), 10**9))
            for name, found in losses.items():
                found.append(float(values[name]))
    with torch.no_grad():
        labels = torch.arange(20) % 10 if model.conditional else None
        drawn = model.parts.nets["G"].eval()(torch.from_numpy(trace["z"]), labels)
    drawn = drawn.flip(2, 3) if turned else drawn
    return {
        # all originals but one report the mean of D's losses on real and on fakes, and not their sum
        "d_loss": np.array(losses["D_loss"]) * (1.0 if preset == "fashion-dcgan" else 0.5),
        "g_loss": np.array(losses["G_loss"]),
        "images": drawn.permute(0, 2, 3, 1).numpy(),
    }


def compare(preset: str, trace: dict[str, np.ndarray]) -> dict[str, object]:
    """How far the preset is from the original after each step, beside how far rounding alone takes it from itself."""
    original = {"d_loss": trace["loss.d_loss"], "g_loss": trace["loss.g_loss"], "images": trace["images"]}
    ours, nudged = repeat(preset, trace), [repeat(preset, trace, EPSILON, seed) for seed in range(NUDGES)]
    row: dict[str, object] = {"preset": preset, "steps": len(original["d_loss"])}
    row |= {"first_D_loss": float(original["d_loss"][0]), "last_D_loss": float(original["d_loss"][-1])}
    row["first_step"] = max(float(abs(ours[key][0] - original[key][0])) for key in ("d_loss", "g_loss"))
    agrees = row["first_step"] <= FIRST_LIMIT  # type: ignore[operator]
    for key in ("d_loss", "g_loss", "images"):
        apart = float(np.abs(ours[key] - original[key]).max())
        rounding = max(float(np.abs(ours[key] - other[key]).max()) for other in nudged)
        row[key] = {"apart": apart, "rounding": rounding}
        agrees &= apart <= FIRST_LIMIT + TIMES * rounding
    return row | {"agrees": bool(agrees)}


def table(rows: list[dict], about: str) -> str:
    """The comparison as Markdown."""
    lines = [
        "# The presets beside the original programs, step by step",
        "",
        "The presets do not run exactly so as they ship: for this comparison Adam adds its epsilon before the bias",
        "correction, running variances are biased, and D's losses are averaged over real and fake, all as in Keras",
        "(`as_keras_has_it`); what these details do to a finished run's scores has not been measured.",
        "",
        "From equal weights, with the same images and noise, without dropout, in float32: the largest difference of a",
        "loss in the first step, of D's and G's loss in any step, and of a pixel in [-1, 1] of 20 pictures drawn",
        "afterwards. In brackets how far the preset comes from itself when its first weights are changed by",
        f"{EPSILON:.0e} of their size (the furthest of {NUDGES}): Adam amplifies rounding at first. Equal: the first",
        f"step is within {FIRST_LIMIT:g}, and nothing is further apart than that and {TIMES} times what rounding does.",
        "",
        "| preset | steps | D's loss, first to last | first step | D's loss | G's loss | pixels | verdict |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        cells = [f"{r[k]['apart']:.0e} ({r[k]['rounding']:.0e})" for k in ("d_loss", "g_loss", "images")]
        moved = f"{r['first_D_loss']:.3f} to {r['last_D_loss']:.3f} | {r['first_step']:.0e}"
        verdict = "equal" if r["agrees"] else "DIFFERS"
        lines.append(f"| `{r['preset']}` | {r['steps']} | {moved} | {' | '.join(cells)} | {verdict} |")
    return "\n".join([*lines, "", about, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=Path, required=True, help="folder of NAME.npz, as keras_trace writes them")
    args = parser.parse_args()
    rows = []
    for path in sorted(args.traces.glob("*.npz")):
        with np.load(path) as archive:
            rows.append(compare(path.stem, dict(archive)))
        print(rows[-1])
    versions = f"elegan {elegan.__version__}, torch {torch.__version__}, Python {platform.python_version()}"
    about = f"{datetime.date.today()}; {versions}; originals: TensorFlow/Keras, `benchmarks/reference`."
    (RESULTS / "parity.json").write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "parity.md").write_text(table(rows, about), encoding="utf-8")
    sys.exit(0 if rows and all(row["agrees"] for row in rows) else 1)


if __name__ == "__main__":
    main()
