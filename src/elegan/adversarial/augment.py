"""Augmentations of all that D sees, real and fake, in D's step and in G's: for data of a few hundred pictures.

A D that sees few real pictures learns them by heart, and G gets nothing more from it. Disturb the real pictures, and
the fakes in the same way, and D cannot; since G's gradient passes through the disturbance, G still learns to make
undisturbed pictures, as long as each disturbance leaves some of them as they were (Karras+ 2020, section 2.2).

`diffaugment` is that of Zhao+ 2020, always on; `ada` has the stronger transformations of Karras+ 2020 (appendix B),
each with probability p, and `follow` is the controller that finds p. All map images (N, C, H, W) to images of the same
shape, dtype and memory layout; C is 1, 3 or 4, and colour leaves a fourth channel (alpha) alone. All are affine in the
picture and can be differentiated twice, which R1 needs. Randomness is torch's own generator of the picture's device:
seed it to repeat a draw. Nothing is clamped: values may leave [-1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

# ------------------------------------------------------------------ DiffAugment (Zhao+ 2020)


def diffaugment(
    images: Tensor,
    p: float | Tensor = 1.0,
    *,
    colour: float = 1.0,
    translation: float = 1 / 8,
    cutout: float = 1 / 2,
    fill: float = 0.0,
) -> Tensor:
    """Colour, translation and cutout (Zhao+ 2020, section 3.2), each of them on each picture with probability `p`.

    `colour` scales the paper's brightness (+-0.5), saturation (times 0 to 2) and contrast (times 0.5 to 1.5);
    `translation` is the largest shift and `cutout` the side of the hole, in shares of the picture's sides; 0 leaves a
    kind out. `fill` is what stands where nothing is: 0, mid-grey, as in the authors' program.
    """
    if isinstance(p, float | int) and p == 0:
        return images
    images = _hands_back_its_layout(images)
    if colour:
        images = jitter_colour(images, p, colour)
    if translation:
        images = translate(images, p, translation, fill)
    return cut_out(images, p, cutout, fill) if cutout else images


def jitter_colour(images: Tensor, p: float | Tensor = 1.0, strength: float = 1.0) -> Tensor:
    """Brightness, saturation and contrast, in this order, all or none of them on a picture."""
    n, channels = images.shape[:2]
    on = _gate(images, n, p)
    brightness = on * strength * (_uniform(images, n) - 0.5)
    saturation = 1 + on * strength * (2 * _uniform(images, n) - 1)
    contrast = 1 + on * strength * (_uniform(images, n) - 0.5)
    colours, alpha = (images[:, :3], images[:, 3:]) if channels == 4 else (images, None)
    x = colours + _each(brightness)
    if channels > 1:
        grey = x.mean(1, keepdim=True)
        x = grey + (x - grey) * _each(saturation)
    mean = x.mean((1, 2, 3), keepdim=True)
    x = mean + (x - mean) * _each(contrast)
    return x if alpha is None else torch.cat([x, alpha], 1)


def translate(images: Tensor, p: float | Tensor = 1.0, share: float = 1 / 8, fill: float = 0.0) -> Tensor:
    """Shift by whole pixels, up to `share` of each side in both directions; what comes in is `fill`."""
    n, _, height, width = images.shape
    on = _gate(images, n, p).long()[:, None]
    rows, inside_h = _shifted(on, height, share)  # (N, H)
    columns, inside_w = _shifted(on, width, share)  # (N, W)
    moved = _gather(images, rows[:, :, None] * width + columns[:, None])
    inside = (inside_h[:, :, None] & inside_w[:, None])[:, None]  # (N, 1, H, W)
    return torch.where(inside, moved, fill)


def cut_out(images: Tensor, p: float | Tensor = 1.0, share: float = 1 / 2, fill: float = 0.0) -> Tensor:
    """Fill a rectangle of `share` of each side, its centre anywhere in the picture (so it may lie half outside)."""
    n, _, height, width = images.shape
    hit = (_gate(images, n, p) > 0)[:, None, None, None]
    rows, columns = (_hole(images, side, share) for side in (height, width))  # (N, H), (N, W) bool
    hole = (rows[:, :, None] & columns[:, None])[:, None]  # (N, 1, H, W)
    return torch.where(hole & hit, fill, images)


def _shifted(on: Tensor, side: int, share: float) -> tuple[Tensor, Tensor]:
    """For every place along a side where its value comes from (N, side), clamped, and whether that is inside."""
    most = int(side * share + 0.5)
    shift = on * torch.randint(-most, most + 1, on.shape, device=on.device)
    source = torch.arange(side, device=on.device) - shift
    return source.clamp(0, side - 1), (source >= 0) & (source < side)


def _hole(images: Tensor, side: int, share: float) -> Tensor:
    """Which places along a side lie in the hole: (N, side) bool."""
    length = int(side * share + 0.5)
    start = torch.randint(0, side + 1 - length % 2, (len(images), 1), device=images.device) - length // 2
    place = torch.arange(side, device=images.device)
    return (place >= start) & (place < start + length)


# ------------------------------------------------------------------ ADA (Karras+ 2020)

ADA_TOLD = 2 * (5 + 6 + 6)  # numbers that say what `ada` did to a picture, see its three parts, and which are not 0


def ada(images: Tensor, p: float | Tensor) -> Tensor:
    """The paper's best set of transformations (appendix B, "bgc"), each on each picture with probability `p`.

    blit: mirroring, quarter turns, whole-pixel shifts. geometry: scaling, rotation, stretching, shifts by fractions.
    colour: brightness, contrast, inverted lightness, hue, saturation.
    """
    return ada_told(images, p)[0]


def ada_told(images: Tensor, p: float | Tensor) -> tuple[Tensor, Tensor]:
    """`ada`, and what it did to each picture: (N, ADA_TOLD) float32, 0 for what was not done.

    The first half are numbers of about one in size, the second half says 1 where those are not 0.
    """
    if isinstance(p, float | int) and p == 0:
        return images, torch.zeros(len(images), ADA_TOLD, device=images.device)
    images, moved = ada_blit(images, p)
    images, bent = ada_geometry(images, p)
    images, coloured = ada_colour(images, p)
    told = torch.cat([moved, bent, coloured], 1)
    return images, torch.cat([told, (told != 0).float()], 1)


def told_by(augment: str, asked: bool) -> int:
    """How many numbers D is told of what the augmentation of this name did to a picture: only ADA says so, if asked."""
    return ADA_TOLD if asked and augment == "ada" else 0


def ada_blit(images: Tensor, p: float | Tensor) -> tuple[Tensor, Tensor]:
    """Mirror, turn by quarters and shift by whole pixels up to an eighth; beyond its edges a picture is mirrored.

    Pixels are moved, none is computed. Pictures that are not square take half turns in place of quarter turns. Told,
    (N, 5): mirrored, the turn's cosine less one and its sine, the shifts in eighths of the sides.
    """
    n, _, height, width = images.shape
    quarter = 1 if height == width else 2
    mirror = 1 - 2 * (_gate(images, n, p) * (_uniform(images, n) < 0.5)).long()
    turns = _gate(images, n, p).long() * quarter * torch.randint(0, 4 // quarter, (n,), device=images.device)
    on = _gate(images, n, p).long()
    down, right = (on * torch.randint(-(s // 8), s // 8 + 1, (n,), device=images.device) for s in (height, width))
    # where each pixel comes from, in half pixels from the centre, which stay whole numbers under quarter turns
    y = (2 * (torch.arange(height, device=images.device) - down[:, None]) - height + 1)[:, :, None]  # (N, H, 1)
    x = (2 * (torch.arange(width, device=images.device) - right[:, None]) - width + 1)[:, None]  # (N, 1, W)
    cosine, sine = (turns - 2).abs() - 1, 1 - (turns - 1).abs()  # of 0 to 3 quarters
    told = torch.stack([(1 - mirror) / 2, cosine - 1, sine, down * (8 / height), right * (8 / width)], 1)
    cosine, sine, mirror = (value[:, None, None] for value in (cosine, sine, mirror))
    rows = _mirrored((cosine * y - sine * x + height - 1) // 2, height)
    columns = _mirrored((mirror * (sine * y + cosine * x) + width - 1) // 2, width)
    return _gather(images, rows * width + columns), told


def ada_geometry(images: Tensor, p: float | Tensor) -> tuple[Tensor, Tensor]:
    """Scale, rotate, stretch, rotate and shift by fractions of a pixel, in one resampling of twice as many pixels.

    The pixels between are those of an orthogonal wavelet (sym6, as in the paper), so that a picture which nothing
    happens to comes back as it was, but for rounding. Beyond its edges a picture is mirrored. Told, (N, 6): the map
    of places less the one that leaves all as it is, its shifts in eighths of the sides.
    """
    x = _hands_back_its_layout(images).float()
    height, width = x.shape[2:]
    places = _geometry(x, p)
    moved = (places - torch.eye(3, device=x.device))[:, :2]  # (N, 2, 3): the map of x, then that of y
    told = torch.cat([moved[:, :, :2].flatten(1), moved[:, :1, 2] * (8 / width), moved[:, 1:, 2] * (8 / height)], 1)
    with torch.autocast(x.device.type, enabled=False):
        tall, wide = _wavelet_matrices(height, x.device), _wavelet_matrices(width, x.device)
        fine = tall[0] @ x.contiguous() @ wide[0].T  # (N, C, P, Q), P = 2 H + 10
        fine = Resample.apply(fine, _grid(places, height, width))
        x = tall[1] @ fine @ wide[1].T  # (N, C, H, W)
    return _laid_out_like(x.to(images.dtype), images), told


def _geometry(x: Tensor, p: float | Tensor) -> Tensor:
    """(N, 3, 3): from places in the result, in pixels from the centre, to places in the picture."""
    n, _, height, width = x.shape
    scale, stretch = (2 ** (-0.2 * _gate(x, n, p) * _normal(x, n)) for _ in range(2))
    p_rotation = 1 - (1 - torch.as_tensor(p, device=x.device, dtype=torch.float32)).clamp(0, 1).sqrt()  # of each of two
    before, after = (_gate(x, n, p_rotation) * math.pi * (2 * _uniform(x, n) - 1) for _ in range(2))
    on = _gate(x, n, p)
    shift_x, shift_y = (on * side / 8 * _normal(x, n) for side in (width, height))
    scaled = _matrix(a=scale, d=scale) @ _rotation(before) @ _matrix(a=stretch, d=1 / stretch)
    return scaled @ _rotation(after) @ _matrix(x=-shift_x, y=-shift_y)


def ada_colour(images: Tensor, p: float | Tensor) -> tuple[Tensor, Tensor]:
    """Brightness, contrast, inverted lightness, hue and saturation, as one affine map of each picture's colours.

    Told, (N, 6): brightness and the logarithm of contrast in their standard deviations, inverted, the cosine of the
    turn of hue less one and its sine, the logarithm of saturation; the last three are 0 of grey pictures.
    """
    n, channels = images.shape[:2]
    x = images.float()
    offset = 0.2 * _gate(x, n, p) * _normal(x, n)
    contrast = 2 ** (0.5 * _gate(x, n, p) * _normal(x, n))
    lightness = 1 - 2 * (_gate(x, n, p) * (_uniform(x, n) < 0.5))
    told = [offset / 0.2, contrast.log2() / 0.5, (1 - lightness) / 2]
    if channels == 1:
        told += [torch.zeros_like(offset)] * 3
        return ((x + _each(offset)) * _each(contrast * lightness)).to(images.dtype), torch.stack(told, 1)
    hue = _gate(x, n, p) * math.pi * (2 * _uniform(x, n) - 1)
    saturation = 2 ** (_gate(x, n, p) * _normal(x, n))
    # along the grey axis v = (1, 1, 1) / sqrt 3 lightness acts, across it hue (a rotation about v) and saturation
    grey = torch.full((3, 3), 1 / 3, device=x.device)  # v v^T
    one = torch.eye(3, device=x.device)
    turn = (one.roll(1, 0) - one.roll(1, 1)) / math.sqrt(3)  # v x = [0 -1 1; 1 0 -1; -1 1 0] / sqrt 3
    across = one - grey
    told += [hue.cos() - 1, hue.sin(), saturation.log2()]
    cosine, sine, saturation = (value[:, None, None] for value in (hue.cos(), hue.sin(), saturation))
    matrix = lightness[:, None, None] * grey + saturation * (cosine * across + sine * turn)
    with torch.autocast(x.device.type, enabled=False):
        pixels = (x[:, :3] + _each(offset)).permute(0, 2, 3, 1)  # (N, H, W, 3)
        mapped = pixels.flatten(1, 2) @ (contrast[:, None, None] * matrix).mT
    colours = mapped.view(pixels.shape).permute(0, 3, 1, 2)
    result = torch.cat([colours, x[:, 3:]], 1) if channels == 4 else colours
    return _laid_out_like(result.to(images.dtype), images), torch.stack(told, 1)


def adapted(p: Tensor, signs: Tensor, images: int, *, target: float = 0.6, images_to_one: float = 500_000) -> Tensor:
    """The next p: p + sign(r_t - target) * images / images_to_one, kept in [0, 1] (Karras+ 2020, section 3).

    `signs` is r_t, the mean over the last `images` real pictures of sign(D(x)): near 1 D knows them by heart, at 0 it
    cannot tell. From 0 to 1 takes `images_to_one` pictures at least. Neither tensor is read: nothing waits for a GPU.
    """
    return (p + torch.sign(signs - target) * (images / images_to_one)).clamp(0, 1)


def beginning(name: str) -> dict[str, Tensor]:
    """The state of an augmentation, for `Parts.values`: p, and how many signs of D(real) there were since p last moved,
    with their sum. ADA's p begins at 0; that of the others is 1 and stays."""
    p = 0.0 if name == "ada" else 1.0
    return {"p": torch.tensor(p), "signs": torch.tensor(0.0), "signs_count": torch.tensor(0.0)}


def follow(
    values: dict[str, Tensor],
    real_logits: Tensor,
    interval: int,
    *,
    target: float = 0.6,
    images_to_one: float = 500_000,
) -> None:
    """Move p in `values`, see `beginning`, by the logits (N,) of a batch: once in `interval` batches, see `adapted`.

    Nothing is read from the device: whether the interval is over is worked out there too.
    """
    signs = values["signs"] + torch.sign(real_logits.detach().float()).sum()
    count, images = values["signs_count"] + len(real_logits), interval * len(real_logits)
    over = count >= images
    p = adapted(values["p"], signs / count, images, target=target, images_to_one=images_to_one)
    values["p"] = torch.where(over, p, values["p"])
    values["signs"], values["signs_count"] = signs * ~over, count * ~over


class Resample(torch.autograd.Function):
    """Bilinear values of images (N, C, P, Q) at a grid (N, P, Q, 2), differentiable any number of times.

    torch's own can be differentiated once. The map is linear in the picture, y = A x: its backward pass is A^T, and
    that one's is A again. No gradient reaches the grid.
    """

    @staticmethod
    def forward(ctx, x: Tensor, grid: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(grid)
        return F.grid_sample(x, grid, "bilinear", "reflection", align_corners=True)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        return ResampleBack.apply(gradient, *ctx.saved_tensors), None


class ResampleBack(torch.autograd.Function):
    """The transpose of `Resample`."""

    @staticmethod
    def forward(ctx, gradient: Tensor, grid: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(grid)
        with torch.enable_grad():
            x = torch.zeros_like(gradient, memory_format=torch.contiguous_format).requires_grad_()
            y = F.grid_sample(x, grid, "bilinear", "reflection", align_corners=True)
            (back,) = torch.autograd.grad(y, x, gradient.detach())
        return back

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        return Resample.apply(gradient, *ctx.saved_tensors), None


def _grid(back: Tensor, height: int, width: int) -> Tensor:
    """(N, P, Q, 2) in torch's coordinates: where each place of the fine picture comes from. `back` counts pixels."""
    sides = [2 * side + len(SYM6) - 2 for side in (height, width)]
    # a fine place is half a pixel; the wavelet's centre of mass stands over its pixel
    delay = sum(i * tap for i, tap in enumerate(SYM6)) / sum(SYM6)
    y, x = (
        (torch.arange(fine, device=back.device) - (side - 1) - delay) / 2
        for fine, side in zip(sides, (height, width), strict=True)
    )
    source = [row[:, 0] * x + row[:, 1] * y[:, None] + row[:, 2] for row in back[:, :2, :, None, None].unbind(1)]
    # pixels from the centre -> fine places -> -1 .. 1 from the first to the last of them
    scaled = [
        (2 * place + side - 1 + delay) * 2 / (fine - 1) - 1
        for place, side, fine in zip(source, (width, height), reversed(sides), strict=True)
    ]
    return torch.stack(scaled, -1)  # x comes first


#: The wavelet sym6 (Daubechies' least asymmetric one with six vanishing moments), 12 taps whose squares sum to 1.
SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633, 0.4910559419267466,
    0.787641141030194, 0.3379294217276218, -0.07263752278646252, -0.021060292512300564, 0.04472490177066578,
    0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip


@lru_cache(maxsize=16)
def _wavelet_matrices(side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(2 side + 10, side) and (side, 2 side + 10): to twice as many places and back; the second undoes the first."""
    taps = len(SYM6)
    up = torch.zeros(2 * side + taps - 2, side, dtype=torch.float64)
    down = torch.zeros(side, 2 * side + taps - 2, dtype=torch.float64)
    for k in range(1 - taps // 2, side + taps // 2 - 1):
        source = int(_mirrored(torch.tensor(k), side))
        for i, tap in enumerate(SYM6):
            if 0 <= 2 * k + i < len(up):
                up[2 * k + i, source] += math.sqrt(2) * tap
                if 0 <= k < side:
                    down[k, 2 * k + i] += tap / math.sqrt(2)
    return up.float().to(device), down.float().to(device)


# ------------------------------------------------------------------ draws and shapes


def _gather(images: Tensor, index: Tensor) -> Tensor:
    """Pixels of images (N, C, H, W) from the places `index` (N, H, W), counted row by row; channels_last if C > 1."""
    n, channels, height, width = images.shape
    pixels = images.permute(0, 2, 3, 1).reshape(n, height * width, channels)  # a view of channels_last memory
    moved = pixels.gather(1, index.view(n, -1, 1).expand(-1, -1, channels))
    return _laid_out_like(moved.view(n, height, width, channels).permute(0, 3, 1, 2), images)


def _mirrored(place: Tensor, side: int) -> Tensor:
    """Whole places beyond an edge, mirrored at it (as often as needed) into 0 .. side - 1."""
    period = max(2 * (side - 1), 1)
    place = place.remainder(period)
    return torch.minimum(place, period - place)


def _matrix(
    *, a: Tensor | float = 1.0, d: Tensor | float = 1.0, x: Tensor | float = 0.0, y: Tensor | float = 0.0
) -> Tensor:
    """(N, 3, 3) with a and d on the diagonal and the shift (x, y)."""
    like = next(value for value in (a, d, x, y) if isinstance(value, Tensor))
    zero, one = torch.zeros_like(like), torch.ones_like(like)
    a, d, x, y = (value if isinstance(value, Tensor) else value * one for value in (a, d, x, y))
    return torch.stack([a, zero, x, zero, d, y, zero, zero, one], -1).view(-1, 3, 3)


def _rotation(angle: Tensor) -> Tensor:
    """(N, 3, 3): by `angle` (N,) in radians."""
    c, s, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([c, -s, zero, s, c, zero, zero, zero, one], -1).view(-1, 3, 3)


def _gate(like: Tensor, n: int, p: float | Tensor) -> Tensor:
    """(n,) float32: 1 with probability p, else 0."""
    return (_uniform(like, n) < p).float()


def _uniform(like: Tensor, n: int) -> Tensor:
    return torch.rand(n, device=like.device)


def _normal(like: Tensor, n: int) -> Tensor:
    return torch.randn(n, device=like.device)


def _each(values: Tensor) -> Tensor:
    """(N,) -> (N, 1, 1, 1)."""
    return values[:, None, None, None]


def _laid_out_like(x: Tensor, model: Tensor) -> Tensor:
    """x, channels_last where `model` is."""
    last = model.is_contiguous(memory_format=torch.channels_last) and not model.is_contiguous()
    return x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def _hands_back_its_layout(x: Tensor) -> Tensor:
    """x; a gradient that comes back to a channels_last x is channels_last too, as the layers before it need it."""
    if not x.requires_grad or x.is_contiguous():
        return x
    x = x.view_as(x)

    def back(gradient: Tensor | None) -> Tensor | None:  # none where a slope does not bend (`curvature.py`)
        return None if gradient is None else gradient.contiguous(memory_format=torch.channels_last)

    x.register_hook(back)
    return x


#: By name: functions of images and the probability p.
AUGMENTATIONS: dict[str, Callable[[Tensor, float | Tensor], Tensor]] = {
    "none": lambda images, p: images,
    "diffaugment": diffaugment,
    "ada": ada,
}
