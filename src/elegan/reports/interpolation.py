"""From one sample to another in small steps, for any family, through its own `draw`.

A family draws its noise with `torch.randn` and `torch.rand`, a row an image. While a strip is drawn, each such matrix
is replaced by a path from its first row to its last: Gaussian noise along the sphere (White 2016: a straight line
cuts through the empty inside, where no noise ever lies), uniform noise along a line. Whole numbers, such as the
categories of InfoGAN, stay those of the first row: between two categories there is nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from elegan.images import to_uint8
from elegan.training.trained import Run


class _Path(TorchFunctionMode):
    """Within the block, the noise of a batch of `n` is a path."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if func not in (torch.randn, torch.rand, torch.randint) or made.ndim == 0 or len(made) != self.n:
            return made
        if func is torch.randint:
            return made[:1].expand_as(made).clone()
        return along(made, sphere=func is torch.randn)


def along(noise: Tensor, sphere: bool) -> Tensor:
    """(N, ...) noise -> a path of N steps from its first row to its last, of the noise's usual length throughout."""
    flat = noise.flatten(1)
    a, b = flat[0], flat[-1]
    t = torch.linspace(0, 1, len(flat), dtype=flat.dtype)[:, None]
    angle = torch.acos(torch.nn.functional.cosine_similarity(a, b, dim=0).clamp(-1, 1))
    if sphere and torch.sin(angle) > 1e-4:
        path = (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)
    else:
        path = (1 - t) * a + t * b
    return path.reshape(noise.shape)


def strips(run: Run, steps: int = 12, rows: int = 3, seed: int = 0) -> np.ndarray:
    """Paths of `steps` samples, one a row: uint8 (rows, steps, H, W, C). Conditional models keep one class a row."""
    model = run.model
    made = []
    for row in range(rows):
        labels = None
        if model.categories:
            label = row * model.categories // rows
            labels = torch.full((steps,), label).to(model.device)
        generator = torch.Generator().manual_seed(seed + row)
        with torch.inference_mode(), run.engine.context(), _Path(steps):
            images = model.draw(steps, labels, generator)
        made.append(to_uint8(images.float().cpu()).permute(0, 2, 3, 1).numpy())
    return np.stack(made)


def classes(run: Run, rows: int = 3) -> list[int]:
    """The class of each row of `strips`; empty where classes have no meaning."""
    count = run.model.categories
    return [row * count // rows for row in range(rows)] if count else []
