"""The drawn shoes and bags: sandal, sneaker and ankle boot from the side (toe to the left), and bag.

For shoes the outlines are curves over x, so x is one row and y the sheared one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from elegan.data.clothes import Fabric
from elegan.data.drawing import Array, Layers, along, box, ellipse, limb, smoothstep, spline, steep, union, wave
from elegan.data.params import Params

NOWHERE: Any = np.float32(9.0)  # the distance of a shape that is not there


def _above(at: Layers, curve: Array) -> Array:
    """Signed distance of everything below the line y = curve(x) (n, 1, W): the shape hangs under the line."""
    return (curve - at.y) * steep(curve, 2, at.dx)


def _round_off(at: Layers, top: Array) -> None:
    """Light falls from above: the upper edge is bright, the side darkens downwards."""
    at.shade = at.shade * (1.04 - 0.22 * smoothstep((at.y - top) * 1.6))


def sandal(at: Layers, p: Params) -> Fabric:
    x, y = at.x, at.y
    rise = p("rise", 0.0, 0.62) * p.flag("heeled", 0.65)
    floor = 0.42 + rise * 0.35
    levels = [floor - 0.06, floor, floor - 0.32 * rise, floor - 0.86 * rise, floor - rise]

    def bed_at(x: Array) -> Array:
        return spline(x, [-0.9, -0.5, 0.0, 0.5, 0.88], levels)

    bed, thick = bed_at(x), p("thickness", 0.09, 0.16)
    ends = np.abs(x + 0.02) - 0.9
    sole = np.maximum(np.maximum(_above(at, bed), -_above(at, bed + thick)), ends)
    filled = np.maximum(np.maximum(_above(at, bed), y - floor - thick), ends)
    wedge = np.maximum(filled, -0.1 - rise * 0.2 - x)
    lean = (y - floor) * p("heel lean", -0.12, 0.12)
    heel = np.maximum(filled, np.abs(x - 0.76 - lean) - p("heel", 0.05, 0.12))
    raised = union(sole, np.where(p.flag("wedge", 0.4) > 0, wedge, heel), 0.05)
    base = np.where(rise > 0.12, raised, sole)
    # either a slide (one wide band), or toe band, slanted strap, ankle ring and heel strap
    slide = p.flag("slide", 0.28) > 0
    under = y - bed - 0.02
    middle = np.where(slide, p("slide x", -0.4, -0.25), p("toe x", -0.6, -0.46))
    reach = np.where(slide, p("slide reach", 0.24, 0.36), p("toe reach", 0.16, 0.25))
    band = ellipse(
        x, y, middle, bed_at(middle), reach, np.where(slide, p("slide high", 0.28, 0.36), p("toe high", 0.2, 0.28))
    )
    band = np.maximum(band, under)
    open_band = np.maximum(band, 0.11 - p("slot", 0.0, 0.16) - np.abs(x - middle + 0.3 * (y - floor)))
    low = p("low", -0.2, 0.12)
    front = (0.22 + 0 * low, bed_at(0.22 + 0 * low) - p("ankle", 0.4, 0.56) - 0.2 * rise)
    behind = (0.84 + 0 * low, bed_at(0.84 + 0 * low) - p("back", 0.26, 0.5))
    width = p("width", 0.045, 0.075)
    slanted = np.maximum(limb(x, y, (low, bed_at(low) + 0.04), front, width * 1.2, width)[0], under)
    ring = limb(x, y + 0.12 * (1 - np.abs(x - 0.53) * 3), front, behind, width, width)[0]
    counter = np.maximum(
        limb(x, y, behind, (0.82 + 0 * low, bed_at(0.82 + 0 * low) + 0.04), width, width * 1.6)[0], under
    )
    knots = np.minimum(ellipse(x, y, *front, width, width), ellipse(x, y, *behind, width, width))
    laced = np.minimum(np.minimum(slanted, ring), np.minimum(counter, knots))
    straps = np.minimum(np.where(slide, open_band, band), np.where(slide, NOWHERE, laced))
    at.put(base, 0.8, p.flag("sole trim", 0.5))
    at.darken(at.inside(np.abs(y - bed - thick * 0.3) - 0.012), 0.25)
    mask = at.put(straps, 1.05)
    at.darken(at.stroke(straps, 0.03) * mask, 0.3)
    buckle = np.where(slide, NOWHERE, ellipse(x, y, 0.5 * (front[0] + 0.4), front[1] + 0.02, 0.04, 0.05))
    at.darken(at.inside(buckle) * mask, -0.45)
    return Fabric(mask * 0, x, y)


def sneaker(at: Layers, p: Params) -> Fabric:
    x, y = at.x, at.y
    ground = p("ground", 0.36, 0.44)
    thick = p("sole", 0.12, 0.2)
    ankle = p("ankle", -0.5, -0.3)
    high = p.flag("high top", 0.2) * p("high", 0.15, 0.3)
    toe = p("toe", 0.05, 0.13)
    dip = ankle + p("dip", 0.08, 0.18) - high * 0.8
    top = spline(
        x,
        [-0.93, -0.84, -0.6, -0.3, 0.0, 0.22, 0.5, 0.78, 0.92],
        [
            ground - 0.12,
            toe + 0.06,
            toe - 0.06,
            toe - 0.15,
            ankle + 0.16,
            ankle - high,
            dip,
            ankle - 0.04 - high,
            ankle + 0.1,
        ],
    )
    bottom = spline(x, [-0.95, -0.7, -0.3, 0.8, 0.95], [ground - 0.09, ground - 0.01, ground, ground, ground - 0.05])
    ends = np.abs(x + 0.01 - np.maximum(y, 0) * 0.02) - 0.92
    upper = np.maximum(np.maximum(_above(at, top), y - bottom + 0.03), ends + 0.02)
    mask = at.put(upper)
    _round_off(at, top)
    creases = wave(x * 2.4 + y * 1.2 + p("crease", 0, 1))
    at.darken(smoothstep(1 - np.abs(x + 0.4) * 3) * (0.5 + 0.5 * creases), 0.1)
    # toe cap, eyestay with laces, collar, heel counter
    cap = ellipse(x, y, -0.95, ground - 0.05, p("cap", 0.28, 0.4), 0.42)
    capped = p.flag("cap", 0.45)
    at.tint(at.inside(cap) * mask, capped * 0.9)
    at.darken(at.stroke(cap, 0.04) * mask, 0.35)
    stay = y - top - 0.17 - smoothstep((x - 0.1) * 3) * 0.2
    on_stay = mask * at.inside(np.abs(x + 0.13) - 0.3)
    at.darken(at.stroke(stay, 0.035) * on_stay, 0.35)
    rate = p("laces", 6.5, 8.5)
    along_stay = x * rate + (y - top) * 2.2
    lace = np.abs(along_stay - np.floor(along_stay) - 0.5) / rate - 0.026
    at.darken(at.inside(lace) * on_stay * at.inside(stay + 0.02), p("lace shade", -0.6, 0.55))
    lining = np.maximum(np.maximum(_above(at, top), -_above(at, top + 0.08)), np.abs(x - 0.53) - 0.28)
    at.darken(at.inside(lining) * mask, 0.45)
    counter = ellipse(x, y, 0.98, ground - 0.2, 0.3, 0.34)
    at.tint(at.inside(counter) * mask, p.flag("counter", 0.4))
    at.darken(at.stroke(counter, 0.035) * mask, 0.3)
    # the sole, usually in the accent colour, with a line
    sole = np.maximum(np.maximum(bottom - thick - y, y - bottom), ends)
    under = at.put(sole, 0.97, p.flag("white sole", 0.8))
    at.darken(at.stroke(y - bottom + thick, 0.045) * mask, 0.45)
    at.darken(at.stroke(y - bottom + 0.35 * thick, 0.025) * under, 0.3)
    area = mask * (1 - under) * at.inside(np.maximum(-(y - top - 0.16), np.abs(x - 0.2) - 0.3))
    return Fabric(area, (x + (y - ground) * -0.5 - 0.05) / 0.55, (y - top) / 0.5)


def ankle_boot(at: Layers, p: Params) -> Fabric:
    x, y = at.x, at.y
    ground, heel_high = p("ground", 0.74, 0.82), p("heel", 0.08, 0.3)
    shaft_top, arch = p("shaft", -0.86, -0.6), ground - heel_high
    toe = p("toe", 0.02, 0.12) - heel_high * 0.35
    bottom = spline(
        x,
        [-0.92, -0.55, -0.1, 0.35, 0.85],
        [ground - 0.12, ground - 0.05, ground - 0.06 - heel_high * 0.35, arch, arch],
    )
    front = toe + 0.36
    top = spline(
        x,
        [-0.94, -0.84, -0.6, -0.3, 0.0, 0.3],
        [front + 0.12, front - 0.04, front - 0.16, toe + 0.08, toe - 0.14, toe - 0.12],
    )
    wide = p("wide", 0.3, 0.36)
    ends = np.maximum(-0.92 - x, x - 0.48 - wide)
    foot = np.maximum(np.maximum(_above(at, top), -_above(at, bottom)), ends)
    back = p("back", -0.03, 0.05) * wave(y * 0.5 + 0.1)
    tilt = (y - shaft_top) * p("tilt", -0.03, 0.08)
    flare = p("flare", -0.02, 0.08) * smoothstep(0.6 - (y - shaft_top))
    shaft = np.abs(x - 0.46 - back + tilt * 0.5) - wide - flare
    shaft = np.maximum(np.maximum(shaft, shaft_top - y + (x - 0.4) * p("slant", -0.15, 0.2)), y - arch)
    mask = at.put(union(foot, shaft, p("instep", 0.16, 0.34)) + 0 * y)
    at.shade = at.shade * (1.05 - 0.3 * smoothstep((x - 0.45) * 1.8) - 0.16 * smoothstep((y - toe) * 1.2))
    wrinkles = wave(y * 3.0 + x * 1.4 + p("wrinkle", 0, 1))
    at.darken(
        smoothstep(1 - np.abs(x - 0.05) * 2.2) * smoothstep(1 - np.abs(y - toe) * 2) * (0.5 + 0.5 * wrinkles), 0.2
    )
    # one of: elastic gusset, laces up the front, zip at the side
    kind = p("closing", 0, 3)
    gusset = box(x + (y - shaft_top) * 0.05, y, 0.46, shaft_top + 0.3, 0.13, 0.32, 0.06)
    ribs = wave(x * 9)
    elastic = at.inside(np.where(kind < 1, gusset, NOWHERE)) * mask
    at.darken(elastic, 0.4 + 0.12 * ribs)
    front_edge = 0.46 - wide
    laced = np.where((kind >= 1) & (kind < 2), np.maximum(np.abs(x - front_edge - 0.12) - 0.11, y - toe), NOWHERE)
    rows = (y * 5 + x * 1.5) - np.floor(y * 5 + x * 1.5) - 0.5
    at.darken(at.inside(laced) * at.inside(np.abs(rows) * 0.2 - 0.035) * mask, -0.5)
    at.darken(at.stroke(x - front_edge - 0.26 - (y - toe) * 0.1, 0.035) * at.inside(laced - 0.06) * mask, 0.45)
    zip_line = np.where(kind >= 2, np.abs(x - 0.5 + (y - toe) * 0.08), NOWHERE)
    at.darken(at.stroke(zip_line, 0.04) * at.inside(y - arch + 0.15) * mask, 0.5)
    cuff = y - shaft_top - 0.09
    at.darken(at.stroke(cuff, 0.035) * mask * at.inside(shaft), 0.35)
    at.tint(at.inside(cuff) * mask, p.flag("cuff", 0.2))
    # sole and heel
    dark = p("sole shade", 0.35, 0.8)
    trim = p.flag("sole trim", 0.3)
    welt = np.maximum(np.maximum(_above(at, bottom - 0.02), -_above(at, bottom + 0.06)), ends - 0.02)
    block_width = p("block", 0.12, 0.24)
    block = np.maximum(
        np.maximum(arch - 0.02 - y, y - ground), np.abs(x - 0.48 - wide + block_width + (y - arch) * 0.12) - block_width
    )
    at.put(np.minimum(welt, block), dark, trim)
    return Fabric(mask * 0, x, y)


def bag(at: Layers, p: Params) -> Fabric:
    x, y, ax = at.x, at.y, np.abs(at.x)
    kind = p("kind", 0, 3)  # tote, satchel, handbag
    tote, satchel = kind < 1, (kind >= 1) & (kind < 2)
    flapped, open_top = satchel.astype(np.float32), tote.astype(np.float32)
    top, bottom = p("top", -0.28, 0.0), p("bottom", 0.66, 0.88)
    mouth, base = p("mouth", 0.52, 0.74), p("base", 0.64, 0.84)
    mouth = np.where(tote, mouth + 0.08, mouth)
    half = along(y, [top, bottom], [mouth, base])
    tall = 0.5 * (bottom - top)
    corner = np.where(tote, np.float32(0.03), p("corner", 0.08, 0.26))
    shape = box(x * (base / half), y, 0.0, 0.5 * (top + bottom), base, tall, corner)
    sag = at.y - top + p("sag", 0.0, 0.08) * (1 - (x / mouth) * (x / mouth))
    # handles: an arch over the mouth; satchels have a long strap from side to side
    reach = np.where(satchel, mouth * 0.96, mouth * p("grip", 0.42, 0.62))
    rise = np.where(satchel, p("strap", 0.5, 0.72), p("arch", 0.34, 0.6))
    rise = np.minimum(rise, top + 0.93)
    thick = np.where(satchel, p("thin", 0.05, 0.08), p("grip width", 0.07, 0.12))
    bow = ellipse(x, y, 0.0, top + 0.04, reach, rise)
    handle = np.maximum(np.abs(bow) - 0.5 * thick, y - top - 0.1)
    behind = np.maximum(np.abs(ellipse(x, y, 0.06, top + 0.02, reach, rise * 0.9)) - 0.4 * thick, y - top)
    at.put(np.where(tote, behind, NOWHERE), 0.6, p.flag("trim", 0.35))
    at.put(handle, 0.85, p.flag("trim", 0.35))
    mask = at.put(np.maximum(shape, -sag))
    inside = at.inside(shape)
    at.shade = at.shade * (1 - inside * (0.2 * (x / half) * (x / half) + 0.16 * smoothstep((y - top) * 0.9)))
    slump = wave(x * p("slump", 0.7, 1.3) + y * 0.4 + p("slump phase", 0, 1))
    at.darken(inside * smoothstep((y - top) * 1.5) * (0.5 + 0.5 * slump), p("soft", 0.0, 0.14))
    at.darken(at.stroke(shape + 0.06, 0.028) * inside, 0.25)
    # satchel: a flap with a clasp; handbag: a zip and a charm; tote: a hem and the ends of the handles
    flap_y = top + (bottom - top) * p("flap", 0.45, 0.62)
    flap = y - flap_y + 0.22 * (x / half) * (x / half)
    on_flap = inside * flapped
    at.darken(at.inside(flap) * on_flap, -0.08)
    at.darken(at.stroke(flap, 0.05) * on_flap, 0.5)
    clasp = box(x, y, 0.0, flap_y - 0.02, 0.08, 0.07, 0.02)
    at.tint(at.inside(clasp) * on_flap)
    at.darken(at.stroke(clasp, 0.03) * on_flap, 0.4)
    zipped = inside * (kind >= 2)
    at.darken(at.stroke(sag - 0.1, 0.04) * zipped, 0.45)
    at.darken(at.stroke(box(x, y, 0.0, 0.6 * bottom + 0.4 * top, 0.55 * mouth, 0.3 * tall, 0.05), 0.035) * zipped, 0.25)
    tabs = box(ax, y, reach, top + 0.1, 0.06, 0.1, 0.02)
    on_tabs = at.inside(tabs) * inside * (1 - flapped)
    at.darken(on_tabs, 0.25)
    at.darken(at.stroke(sag - 0.07, 0.03) * inside * open_top, 0.3)
    free = mask * inside * (1 - at.inside(clasp) * flapped) * (1 - on_tabs)
    return Fabric(free, 0.5 + 0.5 * x / half, (y - top) / (bottom - top))
