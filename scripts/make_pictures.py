"""Draw the README's pictures from a trained run: a sheet with one class a column, and latent interpolations.

python scripts/make_pictures.py runs/demo [--out docs/images]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

import elegan
from elegan.images import grid, save_png, to_uint8


def interpolation(run: elegan.Run, classes: list[int], steps: int, seed: int) -> np.ndarray:
    """A strip for each class, from one noise vector to another along the sphere: uint8 (H, W, C).

    Vectors of N(0, 1) noise lie near a sphere; a straight line would cut through its empty inside.
    """
    model = run.model
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for label in classes:
        a, b = torch.randn(2, model.config.z_dim, generator=generator)
        angle = torch.acos(torch.nn.functional.cosine_similarity(a, b, dim=0))
        t = torch.linspace(0, 1, steps)[:, None]
        z = (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)
        labels = torch.full((steps,), label) if run.conditional else None
        with torch.inference_mode():
            rows.append(model.parts.nets[model.sampler].eval()(z, labels))
    images = to_uint8(torch.cat(rows)).permute(0, 2, 3, 1).numpy()
    return grid(images, columns=steps, scale=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    run = elegan.load(args.run)
    args.out.mkdir(parents=True, exist_ok=True)
    columns = min(run.spec.classes, 10) if run.conditional else 10
    samples = run.sample(10 * columns, list(range(columns)) if run.conditional else None, seed=args.seed)
    save_png(args.out / "sheet.png", grid(samples.images, columns=columns, scale=2))
    classes = [0, 3, 5, 8] if run.spec.classes >= 10 else [0]
    save_png(args.out / "interpolation.png", interpolation(run, classes, 12, args.seed))
    print(f"{args.out / 'sheet.png'}, {args.out / 'interpolation.png'}")


if __name__ == "__main__":
    main()
