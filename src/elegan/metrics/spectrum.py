"""Are the images as sharp as real ones, at every scale? Edges, and power by frequency: weight free.

Convention. Values in [0, 1]; colour channels are treated apart and averaged, RGBA as colour over black with
its opacity as a fourth channel.

- gradient energy: mean of dx^2 + dy^2 with differences of neighbours, inside the picture only. Reported over
  that of real images: below 1 blurred, above 1 grainy;
- power spectrum (Durall+ 2020; Dzanic+ 2020): |FFT|^2 of each channel less its mean, under a Hann window (the
  ends of a row do not fit together), averaged over rings of equal radial frequency: one ring for each whole
  number of waves over the shorter side, the last holding everything beyond its Nyquist limit (the corners, where
  checkerboards are);
- top octave: power above a quarter of a wave a pixel, summed, over that of real images. Upsampling without
  detail loses it, transposed convolutions add to it;
- spectrum distance: mean over rings of |10 log10(power / real power)|, in decibels. 0 for equal laws, about
  0.05 from noise at thousands of images: compare with the floor.

Errors are for other draws of the images scored; those of ratios of means in closed form, that of the distance by
jackknife. Works from 4 pixels a side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from elegan.errors import UserError
from elegan.metrics import matrix
from elegan.metrics.matrix import Estimate, Matrix

BATCH = 500
FAINTEST = 1e-12  # power below this is rounding: no image of 256 grey levels has so little


@dataclass(frozen=True)
class Detail:
    """What `detail` measures of N images, one row an image. Rings run from the coarsest to the finest."""

    gradient: Matrix  # (N,) gradient energy
    power: Matrix  # (N, R) mean power in each ring
    fine: Matrix  # (N,) power in the top octave


@dataclass(frozen=True)
class Sharpness:
    """How images compare with real ones."""

    gradient: Estimate  # ratio of gradient energies
    fine: Estimate  # ratio of powers in the top octave
    distance: Estimate  # decibels
    curve: tuple[float, ...]  # decibels, one a ring: above 0 where there is more than in real images


def detail(images: np.ndarray) -> Detail:
    """Gradient energy and power spectrum of each of uint8 (N, H, W, C). `UserError` below 4 pixels a side."""
    import torch

    if min(images.shape[1:3]) < 4:
        raise UserError(f"images of {images.shape[1]}x{images.shape[2]} have no spectrum; give 4 pixels a side or more")
    rings, count, fine = _rings(*images.shape[1:3])
    window = torch.hann_window(images.shape[1])[:, None] * torch.hann_window(images.shape[2])
    index = torch.from_numpy(rings.ravel())
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            part = np.ascontiguousarray(images[start : start + BATCH].transpose(0, 3, 1, 2))
            x = torch.from_numpy(part).float().div_(255)  # (B, C, H, W)
            if x.shape[1] == 4:
                x = torch.cat([x[:, :3] * x[:, 3:], x[:, 3:]], 1)
            dy, dx = x.diff(dim=2), x.diff(dim=3)
            energy = dy.square().mean((1, 2, 3)) + dx.square().mean((1, 2, 3))
            waves = torch.fft.fft2((x - x.mean((2, 3), keepdim=True)) * window)
            squares = (waves.real.square() + waves.imag.square()).mean(1).flatten(1).double()  # (B, H * W)
            in_rings = torch.zeros(len(x), count, dtype=torch.float64).index_add_(1, index, squares)
            parts.append((energy.double(), in_rings, squares @ torch.from_numpy(fine.ravel())))
    columns = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
    gradient, power, top = columns
    return Detail(gradient, power / np.bincount(rings.ravel(), minlength=count), top)


def sharpness(fake: Detail, real: Detail) -> Sharpness:
    """Compare two sets of images, `real` being the reference that stays as it is. `UserError` for other sizes."""
    if fake.power.shape[1] != real.power.shape[1]:
        raise UserError(f"{fake.power.shape[1]} rings and {real.power.shape[1]}: give images of one size")
    reference = np.maximum(real.power.mean(0), FAINTEST)  # (R,)

    def curve(power: Matrix) -> Matrix:
        return 10 * np.log10(np.maximum(power, FAINTEST) / reference)

    return Sharpness(
        gradient=_ratio(fake.gradient, real.gradient),
        fine=_ratio(fake.fine, real.fine),
        distance=matrix.jackknife(fake.power, lambda power: float(np.abs(curve(power)).mean())),
        curve=tuple(float(level) for level in curve(fake.power.mean(0))),
    )


def _ratio(fake: Matrix, real: Matrix) -> Estimate:
    """Ratio of means, the lower one being given."""
    ours, theirs = matrix.mean(fake), max(float(real.mean()), FAINTEST)
    return Estimate(ours.value / theirs, ours.error / theirs)


def _rings(height: int, width: int) -> tuple[np.ndarray, int, np.ndarray]:
    """Ring number (H, W) of each coefficient of an FFT, how many rings, and whether it is in the top octave."""
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]
    radius = np.hypot(fy, fx)  # waves a pixel
    rings = np.minimum(np.rint(radius * min(height, width)).astype(np.int64), min(height, width) // 2)
    return rings, int(rings.max()) + 1, (radius > 0.25).astype(np.float64)
