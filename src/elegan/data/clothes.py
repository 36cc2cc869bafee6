"""The drawn clothes: t-shirt, trouser, pullover, dress, coat and shirt, each a function of its parameters.

Each takes the layers to draw on and the parameters, and returns the area that stripes may cover with its
stripe coordinates. x is mirrored (`ax` = |x|): clothes are drawn by halves.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from elegan.data.drawing import Array, Layers, along, box, ellipse, limb, smoothstep, spline, steep, union, wave
from elegan.data.params import Params


class Fabric(NamedTuple):
    """Where stripes go: coverage of the cloth, and the coordinates across and down it."""

    mask: Array
    across: Array
    down: Array


class Cut(NamedTuple):
    """The cut of a top in garment coordinates. All arrays (n, 1, 1)."""

    neck: Array  # half-width of the neck
    top: Array  # y of the neck point
    shoulder: Array  # x of the shoulder tip
    slope: Array  # fall of the shoulder line
    hem: Array  # y of the hem


def _body(at: Layers, cut: Cut, width: Array, curve: Array | float = 0.0) -> tuple[Array, Array]:
    """Signed distance of a torso with half-width `width` (n, H, 1), and of its sides alone. `curve` rounds the hem."""
    ax = np.abs(at.x)
    sides = (ax - width) * steep(width, 1, at.dy)
    shoulders = (cut.top + (ax - cut.neck) * cut.slope - at.y) / np.sqrt(1 + cut.slope * cut.slope)
    hem = at.y - cut.hem + curve * ax * ax
    return np.maximum(np.maximum(sides, shoulders), hem), sides


def _sleeves(at: Layers, p: Params, cut: Cut, lean: Array, r0: Array, r1: Array) -> tuple[Array, Array, Array]:
    """Both sleeves: distance, coordinate along, and length. `lean`: sideways run per unit of fall."""
    norm = 1 / np.sqrt(1 + lean * lean)
    dx, dy = lean * norm, norm
    tip_y = cut.top + (cut.shoulder - cut.neck) * cut.slope
    start = (cut.shoulder - r0 * dy, tip_y + r0 * dx + 0.02)  # so that the upper edge meets the shoulder tip
    length = np.maximum(p.sleeve * 1.35, 0.05)
    end = (start[0] + dx * length, start[1] + dy * length)
    distance, t, _ = limb(np.abs(at.x), at.y, start, end, r0, r1)
    return np.where(p.sleeve > 0, distance, np.float32(9.0)), t, length


def _drape(at: Layers, p: Params, width: Array, strength: float = 1.0) -> None:
    """Roundness towards the sides and soft, slanted folds."""
    across = np.clip(np.abs(at.x) / np.maximum(width, 0.1), 0, 1.3)
    tilt = p("fold tilt", -0.7, 0.7)
    folds = wave(at.x * p("fold rate", 1.2, 2.4) + at.y * tilt + p("fold phase", 0, 1))
    deep = strength * p("fold depth", 0.03, 0.1) * smoothstep((at.y + 0.5) * 1.2)
    at.shade = at.shade * (1 - 0.2 * strength * across * across) * (1 - deep * (1 - folds))


def _round_neck(at: Layers, cut: Cut, depth: Array, trim: Array) -> None:
    """A round opening: the inside of the back shows in it, above it there is nothing, around it a rib."""
    front = ellipse(at.x, at.y, 0.0, cut.top, cut.neck, depth)
    at.darken(at.stroke(front - 0.075, 0.035), 0.3)
    at.tint(at.inside(np.abs(front - 0.035) - 0.035), trim)
    at.darken(at.inside(front), 0.55)
    at.cut(ellipse(at.x, at.y, 0.0, cut.top - 0.02, cut.neck, 0.45 * depth))


def _armholes(at: Layers, sides: Array, sleeves: Array, y0: Array) -> None:
    """The seam and the shadow where a sleeve meets the body."""
    on_sleeve = at.inside(sleeves) * smoothstep((at.y - y0) * 8)
    at.darken(at.stroke(sides - 0.01, 0.05) * on_sleeve, 0.42)


def t_shirt(at: Layers, p: Params) -> Fabric:
    neck, wide = p("neck", 0.2, 0.29), p("width", 0.44, 0.52)
    cut = Cut(neck, p("top", -0.86, -0.8), wide + 0.07, p("slope", 0.28, 0.42), p("hem", 0.76, 0.9))
    waist = wide - p("waist", 0.0, 0.08)
    width = spline(at.y, [-0.7, -0.3, 0.25, 0.9], [wide + 0.05, wide, waist, wide + 0.02])
    body, sides = _body(at, cut, width, 0.06)
    sleeves, t, length = _sleeves(at, p, cut, p("lean", 0.5, 1.0), p("arm", 0.2, 0.25), p("cuff", 0.15, 0.19))
    mask = at.put(union(body, sleeves, 0.05))
    _armholes(at, sides, sleeves, cut.top + 0.25)
    _drape(at, p, width + 0.25)
    on_sleeve = at.inside(sleeves) * (1 - at.inside(body))
    at.darken(at.stroke(t - length + 0.07, 0.03) * on_sleeve, 0.25)
    at.darken(at.stroke(at.y - cut.hem + 0.07, 0.03) * at.inside(body), 0.22)
    _round_neck(at, cut, p("depth", 0.16, 0.34), p.flag("trim", 0.35))
    return Fabric(mask, 0.5 + 0.5 * at.x / wide, (at.y - cut.top) / (cut.hem - cut.top))


def pullover(at: Layers, p: Params) -> Fabric:
    wide = p("width", 0.4, 0.47)
    cut = Cut(p("neck", 0.17, 0.23), p("top", -0.85, -0.78), wide + 0.06, p("slope", 0.3, 0.45), p("hem", 0.72, 0.88))
    width = spline(at.y, [-0.7, -0.2, 0.5, 0.7, 0.88], [wide + 0.04, wide, wide + 0.02, wide + 0.01, wide - 0.05])
    body, sides = _body(at, cut, width)
    sleeves, t, length = _sleeves(at, p, cut, p("lean", 0.22, 0.42), p("arm", 0.18, 0.22), p("cuff", 0.09, 0.12))
    mask = at.put(union(body, sleeves, 0.04))
    _armholes(at, sides, sleeves, cut.top + 0.2)
    _drape(at, p, width + 0.2, 1.3)
    on_body, on_sleeve = at.inside(body), at.inside(sleeves)
    trim = p.flag("trim", 0.3)
    hem, cuff = on_body * at.inside(cut.hem - 0.12 - at.y), on_sleeve * at.inside(length - 0.13 - t)
    cuff = cuff * (1 - on_body)
    lines = at.stroke(at.y - cut.hem + 0.13, 0.035), at.stroke(t - length + 0.14, 0.035)
    for rib, line, cloth in ((hem, lines[0], on_body), (cuff, lines[1], on_sleeve * (1 - on_body))):
        at.tint(rib, trim)
        at.darken(rib, 0.12)
        at.darken(line * cloth, 0.28)
    # a turtleneck stands above the shoulders; a crew neck is an opening with a thick rib
    turtle = p.flag("turtleneck", 0.3)
    collar = box(at.x, at.y, 0.0, cut.top - 0.02, cut.neck * 0.92, 0.1, 0.04)
    standing = at.put(np.where(turtle > 0, collar, np.float32(9.0)), 0.92, trim)
    at.darken(standing * at.stroke(at.y - cut.top - 0.07, 0.04), 0.35)
    kept = at.cover.copy(), at.shade.copy(), at.accent.copy()
    _round_neck(at, cut, p("depth", 0.13, 0.2), np.maximum(trim, 0))
    at.cover, at.shade, at.accent = (
        np.where(turtle > 0, before, after) for before, after in zip(kept, (at.cover, at.shade, at.accent), strict=True)
    )
    return Fabric(
        mask * (1 - hem) * (1 - cuff) * (1 - standing), 0.5 + 0.5 * at.x / wide, (at.y - cut.top) / (cut.hem - cut.top)
    )


def trouser(at: Layers, p: Params) -> Fabric:
    ax = np.abs(at.x)
    waist, hip = p("waist", 0.3, 0.36), p("hip", 0.4, 0.47)
    hem, crotch = p("hem", 0.8, 0.95), p("crotch", -0.36, -0.2)
    gap, ankle = p("gap", 0.06, 0.14), p("ankle", 0.19, 0.34)
    outer = spline(at.y, [-0.95, -0.5, 0.0, 0.95], [waist, hip, (hip + gap + ankle) * 0.52 + 0.02, gap + ankle])
    inner = along(at.y, [crotch, 0.95], [0.012, gap])
    sides = (ax - outer) * steep(outer, 1, at.dy)
    between = np.minimum(inner - ax, at.y - crotch)  # the gap, taken out
    shape = np.maximum(np.maximum(sides, np.float32(-0.92) - at.y), at.y - hem)
    mask = at.put(np.maximum(shape, between))
    middle = 0.5 * (inner + outer)
    from_middle = np.clip((ax - middle) / np.maximum(outer - inner, 0.05) * 2, -1.2, 1.2)
    at.shade = at.shade * (1 - 0.22 * from_middle * from_middle * smoothstep((at.y - crotch) * 3 + 0.6))
    at.darken(at.stroke(ax - middle, 0.03) * smoothstep((at.y - crotch) * 4), p("crease", -0.25, 0.1))
    at.darken(at.stroke(at.y + 0.79, 0.04), 0.35)
    belt = p.flag("belt", 0.3)
    at.tint(at.inside(at.y + 0.8) * mask, belt)
    fly = np.maximum(np.abs(at.x) - 0.01, at.y - crotch)
    at.darken(at.inside(fly - 0.02) * at.inside(-0.78 - at.y), 0.35)
    pocket = (ax - hip + 0.02) * 0.8 + (at.y + 0.72) * 0.6
    at.darken(at.stroke(pocket + 0.12, 0.035) * at.inside(at.y + 0.5) * at.inside(-0.77 - at.y), 0.3)
    knees = wave(at.y * p("knee rate", 2.0, 3.5) + ax * 1.5 + p("knee phase", 0, 1))
    at.darken(smoothstep(1.2 - np.abs(at.y - 0.2) * 3) * (knees * 0.5 + 0.5), p("knees", 0.0, 0.14))
    at.darken(at.stroke(at.y - hem + 0.06, 0.03), 0.25)
    return Fabric(mask * at.inside(-0.78 - at.y), 0.5 + 0.5 * at.x / outer, (at.y + 0.78) / (hem + 0.78))


def dress(at: Layers, p: Params) -> Fabric:
    bust, waist, flare = p("bust", 0.27, 0.34), p("waist", 0.19, 0.26), p("flare", 0.3, 0.66)
    waist_y, hem = p("waist y", -0.28, -0.02), p("hem", 0.7, 0.95)
    bare = p.sleeve <= 0
    tip = np.where(bare, bust - 0.06, bust + 0.05)
    cut = Cut(p("neck", 0.13, 0.2), p("top", -0.94, -0.88), tip, p("slope", 0.25, 0.4), hem)
    width = spline(
        at.y, [-0.95, -0.55, waist_y, waist_y + 0.35, hem], [tip, bust, waist, 0.55 * waist + 0.5 * flare, flare]
    )
    body, sides = _body(at, cut, width, 0.12)
    holes = ellipse(np.abs(at.x), at.y, bust + 0.13, -0.72, 0.17, 0.22)
    body = np.where(bare, np.maximum(body, -holes), body)
    lean = p("lean", 0.4, 0.6) - 0.25 * smoothstep((p.sleeve - 0.4) * 5)
    sleeves, _, _ = _sleeves(at, p, cut, lean, p("arm", 0.13, 0.16), p("cuff", 0.09, 0.15))
    mask = at.put(union(body, sleeves, 0.03))
    _armholes(at, sides, sleeves, cut.top + 0.2)
    _drape(at, p, width + 0.12, 0.8)
    # pleats fan out from the waist
    skirt = smoothstep((at.y - waist_y) * 2.5) * at.inside(body)
    pleats = wave(at.x / np.maximum(width, 0.1) * p("pleats", 1.6, 3.2) + p("pleat phase", 0, 1))
    at.darken(skirt * (0.5 + 0.5 * pleats), p("pleat depth", 0.08, 0.3))
    belted = p.flag("belt", 0.5)
    belt = at.inside(np.abs(at.y - waist_y) - 0.045) * at.inside(body)
    at.tint(belt, belted)
    at.darken(at.stroke(at.y - waist_y - 0.05, 0.04) * at.inside(body), 0.3)
    v = p.flag("v neck", 0.5)
    depth = p("depth", 0.16, 0.4)
    v_neck = (np.abs(at.x) * depth + (at.y - cut.top - depth) * cut.neck) / np.sqrt(depth * depth + cut.neck * cut.neck)
    front = np.where(v > 0, v_neck, ellipse(at.x, at.y, 0.0, cut.top, cut.neck, depth * 0.8))
    at.darken(at.stroke(front - 0.02, 0.04), 0.25)
    at.darken(at.inside(front), 0.5)
    at.cut(ellipse(at.x, at.y, 0.0, cut.top - 0.02, cut.neck, 0.4 * depth))
    return Fabric(mask * (1 - belt * belted), 0.5 + 0.5 * at.x / width, (at.y - cut.top) / (hem - cut.top))


def coat(at: Layers, p: Params) -> Fabric:
    wide = p("width", 0.4, 0.46)
    cut = Cut(p("neck", 0.15, 0.2), p("top", -0.9, -0.84), wide + 0.08, p("slope", 0.26, 0.38), p("hem", 0.8, 0.91))
    waist, flare = wide - p("waist", 0.0, 0.08), p("flare", 0.0, 0.1)
    width = spline(at.y, [-0.75, -0.3, 0.1, 0.95], [wide + 0.06, wide, waist, wide + flare])
    body, sides = _body(at, cut, width)
    sleeves, t, length = _sleeves(at, p, cut, p("lean", 0.16, 0.3), p("arm", 0.19, 0.23), p("cuff", 0.12, 0.15))
    # the fronts part below the lowest button
    button_y = p("lowest", 0.2, 0.5)
    parting = np.maximum(at.y - button_y, 0) * p("parting", 0.0, 0.12)
    body = np.maximum(
        body, parting - np.abs(at.x) - 0.001 - np.where(at.y < button_y, np.float32(9.0), np.float32(0.0))
    )
    mask = at.put(union(body, sleeves, 0.03))
    on_body, ax = at.inside(body), np.abs(at.x)
    _armholes(at, sides, sleeves, cut.top + 0.2)
    _drape(at, p, width + 0.22, 0.9)
    # lapels: a V of lining between two lighter, outlined flaps
    low = p("lapel", -0.3, 0.1)
    run = (at.y - cut.top) / (low - cut.top)
    edge = (ax - cut.neck * (1 - run)) * 0.9
    flap = ax - along(run, [0.0, 0.45, 1.0], [cut.neck + 0.1, cut.neck + p("flap", 0.12, 0.18), 0.03])
    lapel = np.maximum(np.maximum(flap, -edge), at.y - low)
    at.darken(at.inside(lapel) * on_body, -0.16)
    at.darken(at.stroke(lapel, 0.045) * on_body * at.inside(at.y - low - 0.03), 0.5)
    lining = np.maximum(edge, at.y - low)
    at.darken(at.inside(lining), 0.62)
    at.cut(ellipse(at.x, at.y, 0.0, cut.top - 0.02, cut.neck, 0.09))
    closing = at.x - 0.02
    at.darken(at.stroke(closing, 0.04) * on_body * at.inside(low - at.y), 0.55)
    double = p.flag("double", 0.4)
    for k in range(3):
        y = low + 0.1 + (button_y - low) * (k * 0.4)
        button = ellipse(np.where(double > 0, ax, at.x), at.y, 0.16 * double - 0.05, y, 0.035, 0.035)
        at.darken(at.inside(button) * on_body, -0.55)
    pocket = box(ax, at.y, waist * 0.66, p("pocket", 0.28, 0.42), 0.12, 0.035)
    at.darken(at.stroke(pocket, 0.035) * on_body, 0.4)
    belt = p.flag("belt", 0.3) * on_body * at.inside(np.abs(at.y - 0.12) - 0.05)
    at.darken(belt, 0.3)
    at.darken(at.stroke(t - length + 0.16, 0.03) * at.inside(sleeves) * (1 - on_body), 0.3)
    return Fabric(mask * (1 - at.inside(lining)), 0.5 + 0.5 * at.x / wide, (at.y - cut.top) / (cut.hem - cut.top))


def shirt(at: Layers, p: Params) -> Fabric:
    wide = p("width", 0.4, 0.47)
    cut = Cut(p("neck", 0.15, 0.19), p("top", -0.84, -0.78), wide + 0.06, p("slope", 0.3, 0.42), p("hem", 0.84, 0.95))
    waist = wide - p("waist", 0.0, 0.07)
    width = spline(at.y, [-0.7, -0.3, 0.2, 0.9], [wide + 0.04, wide, waist, wide + 0.01])
    body, sides = _body(at, cut, width, p("tail", 0.5, 0.95))
    long = smoothstep((p.sleeve - 0.5) * 5)
    lean = long * p("lean long", 0.16, 0.3) + (1 - long) * p("lean short", 0.4, 0.75)
    sleeves, t, length = _sleeves(at, p, cut, lean, p("arm", 0.18, 0.21), 0.17 - 0.065 * long)
    mask = at.put(union(body, sleeves, 0.03))
    on_body, ax = at.inside(body), np.abs(at.x)
    _armholes(at, sides, sleeves, cut.top + 0.2)
    _drape(at, p, width + 0.22)
    at.darken(at.stroke(t - length + 0.12, 0.03) * at.inside(sleeves) * (1 - on_body), 0.35)
    # placket and buttons down the front
    at.darken(at.inside(ax - 0.055) * on_body, -0.07)
    at.darken(at.stroke(ax - 0.06, 0.03) * on_body, 0.35)
    spacing = p("buttons", 0.24, 0.3)
    nearest = (at.y + 0.5) - spacing * np.floor((at.y + 0.5) / spacing + 0.5)
    buttons = at.inside(ellipse(at.x, nearest, 0.0, 0.0, 0.032, 0.032)) * on_body
    at.darken(buttons, 0.55)
    pocket = np.where(p.flag("pocket", 0.5) > 0, box(at.x, at.y, 0.22, -0.3, 0.1, 0.1, 0.02), np.float32(9.0))
    at.darken(at.stroke(pocket, 0.03) * on_body, 0.35)
    # the collar: the inside of the back, then two pointed leaves on top
    opening = np.maximum(ax * 1.1 - (cut.top + 0.2 - at.y) * 0.9, -0.06 - at.y + cut.top)
    at.put(np.maximum(opening, ax - cut.neck), 0.42)
    point = p("point", 0.16, 0.26)
    inner, outer = (at.y - cut.top - 0.2) + ax * 1.05, ax - cut.neck - 0.06 - (at.y - cut.top) * 0.15
    leaf = np.maximum(np.maximum(-inner * 0.7, outer), (at.y - cut.top - point) - (ax - 0.06) * 0.4)
    leaf = np.maximum(leaf, (cut.top - 0.08 - at.y) + (ax - cut.neck) * 0.6)
    collar = at.put(leaf, 1.06, p.flag("trim", 0.15))
    at.darken(at.stroke(leaf, 0.035) * collar, 0.45)
    return Fabric(mask * (1 - collar), 0.5 + 0.5 * at.x / wide, (at.y - cut.top) / (cut.hem - cut.top))
