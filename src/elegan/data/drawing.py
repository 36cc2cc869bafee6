"""What the garments are drawn with: keyed random numbers, curves, and layers of antialiased coverage.

A drawing is a batch of images of one category, each with its own parameters, in garment coordinates: x and y
from about -1 to 1, y down. Shapes are signed distances (negative inside); coverage is how much of a pixel lies
inside. Only additions, products, quotients, square roots and comparisons are used: IEEE arithmetic rounds these the
same everywhere, so a drawing is the same bytes in any batch and on any machine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Array = np.ndarray
MASK = np.uint64(0xFFFFFFFFFFFFFFFF)


def _mix(z: Array) -> Array:
    """The finaliser of splitmix64: every input bit reaches every output bit."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def keyed_uniform(seed: int, stream: int, index: Array, name: str) -> Array:
    """float32 (n,) in [0, 1): a function of (seed, stream, index, name) alone, whatever else is drawn."""
    key = 0xCBF29CE484222325  # FNV-1a of the parameter's name
    for byte in name.encode():
        key = ((key ^ byte) * 0x100000001B3) & int(MASK)
    start = np.array([seed & int(MASK)], np.uint64)
    with np.errstate(over="ignore"):  # wrapping around is what a hash does
        state = _mix(start + np.uint64(0x9E3779B97F4A7C15))
        state = _mix(state ^ np.uint64(key) ^ (np.uint64(stream) << np.uint64(56)))
        state = _mix(state + index.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    return ((state >> np.uint64(40)).astype(np.float32)) * np.float32(2**-24)


def smoothstep(t: Array) -> Array:
    """0 below 0, 1 above 1, 3t^2 - 2t^3 between."""
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def wave(t: Array) -> Array:
    """A smooth periodic wave of period 1 between -1 and 1, near a sine, from exact operations only."""
    f = t - np.floor(t)
    s = np.where(f < 0.5, f, f - 0.5)
    arc = 16 * s * (0.5 - s)
    return np.where(f < 0.5, arc, -arc)


def spline(t: Array, knots: Sequence[float | Array], values: Sequence[float | Array]) -> Array:
    """The smooth curve (cubic Hermite, Catmull-Rom tangents) through (knot, value); constant outside the knots."""
    n = len(knots)
    chord = [(values[i + 1] - values[i]) / (knots[i + 1] - knots[i]) for i in range(n - 1)]
    tangent = [
        chord[0],
        *((values[i + 1] - values[i - 1]) / (knots[i + 1] - knots[i - 1]) for i in range(1, n - 1)),
        chord[-1],
    ]
    total = values[0]
    for i in range(n - 1):
        h = knots[i + 1] - knots[i]
        u = np.clip((t - knots[i]) / h, 0, 1)
        uu = u * u
        uuu = uu * u
        total = (
            total
            + (3 * uu - 2 * uuu) * (values[i + 1] - values[i])
            + (uuu - 2 * uu + u) * (h * tangent[i])
            + (uuu - uu) * (h * tangent[i + 1])
        )
    return np.asarray(total, np.float32)


def along(t: Array, knots: Sequence[float | Array], values: Sequence[float | Array]) -> Array:
    """The straight-line curve through (knot, value); constant outside the knots."""
    total = values[0]
    for i in range(len(knots) - 1):
        u = np.clip((t - knots[i]) / (knots[i + 1] - knots[i]), 0, 1)
        total = total + u * (values[i + 1] - values[i])
    return np.asarray(total, np.float32)


def steep(curve: Array, axis: int, step: Array) -> Array:
    """1 / sqrt(1 + slope^2) of a curve sampled along `axis` every `step`: turns a gap along x or y into a distance."""
    difference = np.empty_like(curve)
    inner = [slice(None)] * 3
    ahead, behind = list(inner), list(inner)
    inner[axis], ahead[axis], behind[axis] = slice(1, -1), slice(2, None), slice(None, -2)
    difference[tuple(inner)] = (curve[tuple(ahead)] - curve[tuple(behind)]) * 0.5
    first, last = list(inner), list(inner)
    for edge, beside in ((slice(0, 1), slice(1, 2)), (slice(-1, None), slice(-2, -1))):
        first[axis], last[axis] = edge, beside
        difference[tuple(first)] = difference[tuple(last)]
    slope = difference / step
    return 1 / np.sqrt(1 + slope * slope)


def limb(
    x: Array, y: Array, start: tuple[Array, Array], end: tuple[Array, Array], r0: Array, r1: Array
) -> tuple[Array, Array, Array]:
    """A tapered limb with square ends: signed distance, and the coordinates along (0..length) and across."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = np.sqrt(dx * dx + dy * dy)
    dx, dy = dx / length, dy / length
    px, py = x - start[0], y - start[1]
    t = px * dx + py * dy
    across = py * dx - px * dy
    radius = r0 + np.clip(t / length, 0, 1) * (r1 - r0)
    distance = np.maximum(np.abs(across) - radius, np.maximum(t - length, -t))
    return distance, t, across


def ellipse(x: Array, y: Array, cx: Array | float, cy: Array | float, rx: Array | float, ry: Array | float) -> Array:
    """Signed distance to an ellipse, first order: exact on the edge, which is where it is used."""
    u, v = (x - cx) / rx, (y - cy) / ry
    r = np.sqrt(u * u + v * v)
    gx, gy = u / rx, v / ry
    gradient = np.sqrt(gx * gx + gy * gy) + 1e-4
    return (r - 1) * r / gradient


def box(
    x: Array,
    y: Array,
    cx: Array | float,
    cy: Array | float,
    hx: Array | float,
    hy: Array | float,
    r: Array | float = 0.0,
) -> Array:
    """Signed distance to a box of half-sizes hx, hy with corners rounded by r."""
    qx, qy = np.abs(x - cx) - hx + r, np.abs(y - cy) - hy + r
    ox, oy = np.maximum(qx, 0), np.maximum(qy, 0)
    return np.sqrt(ox * ox + oy * oy) + np.minimum(np.maximum(qx, qy), 0) - r


def union(a: Array, b: Array, soft: float | Array = 0.0) -> Array:
    """The union of two shapes; `soft` fills the corner between them (polynomial smooth minimum)."""
    low = np.minimum(a, b)
    if np.isscalar(soft) and soft == 0.0:
        return low
    h = np.maximum(soft - np.abs(a - b), 0)
    return low - h * h / (4 * soft)


class Layers:
    """A batch of drawings in progress: coverage, shade and accent, each float32 (n, H, W).

    The picture is background where coverage is 0; elsewhere the garment's colour, mixed with the accent colour by
    `accent` and multiplied by `shade`. Geometry so never has colour channels; they come last, in `paint`.
    """

    def __init__(self, x: Array, y: Array, pixel: Array) -> None:
        self.x, self.y, self.pixel = x, y, pixel
        self.dx = self.dy = pixel  # one pixel, in garment coordinates: how densely curves are sampled
        shape = np.broadcast_shapes(x.shape, y.shape)
        self.cover: Array = np.zeros(shape, np.float32)
        self.shade: Array = np.ones(shape, np.float32)
        self.accent: Array = np.zeros(shape, np.float32)

    def inside(self, distance: Array) -> Array:
        """Coverage of a shape: 1 inside, 0 outside, a ramp one pixel wide on the edge."""
        return np.clip(0.5 - distance / self.pixel, 0, 1)

    def stroke(self, distance: Array, width: float | Array) -> Array:
        """Coverage of the line along distance 0. Thinner than a pixel it gets fainter, not wider."""
        wide = np.maximum(width, self.pixel)
        return np.clip(0.5 + (0.5 * wide - np.abs(distance)) / self.pixel, 0, 1) * (width / wide)

    def put(self, distance: Array, shade: float | Array = 1.0, accent: float | Array = 0.0) -> Array:
        """Lay a piece of cloth on top; returns its coverage, to mask what is drawn on it."""
        mask = self.inside(distance)
        rest = 1 - mask
        self.cover = self.cover * rest + mask
        self.shade = self.shade * rest + mask * shade
        self.accent = self.accent * rest + mask * accent
        return mask

    def darken(self, mask: Array, amount: float | Array) -> None:
        """Multiply the shade by 1 - amount where mask is 1 (a negative amount brightens)."""
        self.shade = self.shade * (1 - mask * amount)

    def tint(self, mask: Array, amount: float | Array = 1.0) -> None:
        """Towards the accent colour where mask is 1."""
        self.accent = self.accent + (amount - self.accent) * mask

    def cut(self, distance: Array) -> None:
        """Remove everything inside a shape."""
        self.cover = self.cover * (1 - self.inside(distance))
