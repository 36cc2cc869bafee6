"""From the pictures of a folder to the settings of a run: what `elegan train --data FOLDER` decides by itself, and why.

Only where no preset is named. What is derived gives way to what the user sets, and stands in config.yaml with its
reasons.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from elegan import families
from elegan.config import DataConfig, RunConfig, TrainConfig, build, find_key
from elegan.data.survey import Survey, can_survey, survey
from elegan.errors import UserError

SIDE = 64  # of square pictures; others have about as many pixels
GRID = 8  # sides are multiples of it
FEWEST = 50  # different pictures, below which there is nothing to learn but these
FEW, SMALL = 1_000, 5_000  # pictures, below which batches are small, and D sees disturbed ones
PASSES = 300  # over the data that a short run makes
SHORTEST, LONGEST = 100_000, 600_000  # images of a run
NOT_SQUARE = 1.15  # the longer side over the shorter
ALIKE = 0.7  # of the pictures must have about the same shape for it to be kept
IN_A_CLASS = 10  # pictures that most classes should have
MOSTLY = 0.5
LARGE, LARGE_PRESET = 48, "garments"  # sides from which on the default recipe's settings for 64x64 are taken


@dataclass
class Derived:
    """A preset, settings such as `{"data.size": (64, 64)}`, and a sentence for each decision."""

    preset: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)


def derive(found: Survey, asked: Mapping[str, Any], fields: Collection[str] = ()) -> Derived:
    """The settings for these pictures. `asked` has what the user set, `{"data.size": (32, 32)}`: it stays.

    `fields` are the settings that the recipe's model has. Raises UserError for pictures that no GAN learns anything
    from.
    """
    check_hopeless(found)
    out = Derived(reasons=[headline(found)])

    def decide(key: str, value: Any, reason: str) -> Any:
        if key in asked:
            return asked[key]
        out.settings[key] = value
        out.reasons.append(reason)
        return value

    if asked.get("data.labels") is None and found.classes and _thin(found.classes):
        decide("data.labels", "ignore", f"labels left out: most of the {len(found.classes)} classes have fewer than "
               f"{IN_A_CLASS} pictures (--set labels=... brings them back from a file)")  # fmt: skip
    size, why = choose_size(found)
    size = decide("data.size", size, why)
    channels, why = choose_channels(found)
    channels = decide("data.channels", channels, why)
    if channels == 4:
        decide("data.crop", "pad", "padded, not cropped: what stands on a transparent ground keeps its edges")
    mirror, why = choose_mirror(found)
    decide("data.mirror", mirror, why)

    sides = (size, size) if isinstance(size, int) else size
    if min(sides) >= LARGE:
        out.preset = LARGE_PRESET
        out.reasons.append(f"recipe {LARGE_PRESET}: the default one for 64x64")
        if "kinds" in fields:
            decide("model.kinds", 0, "no kinds of colours: measured on drawn garments only (--set kinds=32)")
    if found.count < FEW:
        decide("model.batch", 32, f"batch 32: so that {found.count:,} pictures make more steps")
    if found.count < SMALL and "augment" in fields:
        decide("model.augment", "diffaugment", f"D sees disturbed pictures (DiffAugment): {found.count:,} are few")
    elif found.count < SMALL:
        out.reasons.append(f"{found.count:,} are few: --preset small-ada, which disturbs what D sees, copies them less")
    length = min(max(SHORTEST, PASSES * found.count), LONGEST)
    times = f"{length / found.count:,.0f} times" if length >= 2 * found.count else "once or less"
    decide("train.images", length, f"{length:,} images if no length is given: each picture about {times}")
    return out


def derive_from_data(asked: RunConfig, overrides: Sequence[Mapping[str, Any]]) -> RunConfig:
    """A configuration with what follows from its data: pictures of the user's own, for which no preset was named.

    `asked` is the default recipe with what the user set, and `overrides` are those settings.
    """
    if not can_survey(asked.data.source):
        return asked
    classes: dict[str, Any] = {"data": DataConfig, "train": TrainConfig, "model": type(asked.model)}
    keys = [".".join(find_key(str(key), classes)) for layer in overrides for key in layer]
    set_by_user = {key: getattr(getattr(asked, key.split(".")[0]), key.split(".")[1]) for key in keys}
    found = derive(survey(asked.data.source), set_by_user, type(asked.model).model_fields)
    family, preset = families.preset(found.preset or asked.preset)
    assert family == asked.family, "one recipe, for small and for large pictures"
    start = {"source": asked.data.source} | preset.data_settings
    name, layers = found.preset or asked.preset, [found.settings, *overrides]
    config = build(name, family, preset.config, data=start, overrides=layers)
    return config.model_copy(update={"derived": tuple(found.reasons)})


def check_hopeless(found: Survey) -> None:
    """UserError for pictures that no GAN learns anything from."""
    if found.count < FEWEST:
        raise UserError(
            f"{found.name}: {found.count} pictures are too few to learn from; give at least {FEWEST}, better 1,000, or "
            "name a --preset to train all the same"
        )
    if found.different < min(FEWEST, found.seen):
        raise UserError(
            f"{found.name}: different pictures among {found.seen:,}: {found.different}, the rest are copies; give "
            f"at least {FEWEST} different ones, better 1,000"
        )


def headline(found: Survey) -> str:
    """`812 RGB pictures of 212 sizes, 3 classes from the subfolders (coat, dress, shoe)`."""
    kinds = {1: "grey", 3: "RGB", 4: "RGBA"}
    modes = sorted(set(found.channels), key=found.channels.count, reverse=True)
    sizes = len(set(found.sizes))
    sized = f"of {found.sizes[0][0]}x{found.sizes[0][1]}" if sizes == 1 else f"of {sizes:,} sizes"
    if found.seen < found.count:
        sized += f" among the {found.seen:,} looked at"
    names = list(found.classes)
    labelled = "no classes"
    if names:
        shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
        labelled = f"{len(names)} classes from {found.where_labels} ({shown})"
    return f"{found.count:,} {' and '.join(kinds[m] for m in modes)} pictures {sized}, {labelled}"


def _thin(classes: dict[str, int]) -> bool:
    return float(np.median(list(classes.values()))) < IN_A_CLASS


def choose_size(found: Survey) -> tuple[tuple[int, int], str]:
    """(height, width) and why: the common size of small pictures, else 64x64 or as many pixels in their shape."""
    distinct = set(found.sizes)
    first = found.sizes[0]
    if len(distinct) == 1 and max(first) <= SIDE:
        return first, f"{first[0]}x{first[1]}: the size that all have"
    sizes = np.array(found.sizes, np.float64)  # (N, 2)
    shapes = np.log(sizes[:, 0] / sizes[:, 1])
    middle = float(np.median(shapes))
    area = min(SIDE**2, float(np.median(sizes.prod(1))))
    alike = float((np.abs(shapes - middle) < math.log(NOT_SQUARE)).mean())
    kept = abs(middle) > math.log(NOT_SQUARE) and alike >= ALIKE
    size = _grid_size(math.exp(middle) if kept else 1.0, area)
    small = ", small as the pictures are" if area < SIDE**2 else ""
    if not kept:
        mixed = "most are about square" if abs(middle) <= math.log(NOT_SQUARE) else "they are of different shapes"
        return size, f"{size[0]}x{size[1]}{small}: {mixed}, the middle is cut out"
    longer, shorter = ("high", "wide") if middle > 0 else ("wide", "high")
    times = math.exp(abs(middle))
    return size, f"{size[0]}x{size[1]}{small}: most are about {times:.2f} times as {longer} as {shorter}"


def _grid_size(ratio: float, area: float) -> tuple[int, int]:
    """Multiples of 8 for (height, width): near the ratio, and near the area."""
    sides = range(2 * GRID, 3 * SIDE + 1, GRID)
    pairs = [(h, w) for h in sides for w in sides]
    return min(pairs, key=lambda p: abs(math.log(p[0] / p[1] / ratio)) + 0.5 * abs(math.log(p[0] * p[1] / area)))


def choose_channels(found: Survey) -> tuple[int, str]:
    """1, 3 or 4, by what the pictures show and not by how their files are written."""
    if found.see_through >= MOSTLY:
        return 4, f"RGBA: {found.see_through:.0%} have transparent parts"
    if found.coloured == 0:
        written = ", though the files are written in colour" if max(found.channels) > 1 else ""
        return 1, f"grey: none has colour{written}"
    laid = f"; what is transparent in {found.see_through:.0%} is laid on white" if found.see_through else ""
    if 4 in found.channels and not found.see_through:
        laid = "; the files' transparency is not used"
    grey = f"; {1 - found.coloured:.0%} are grey" if found.coloured < 1 else ""
    return 3, f"RGB: they have colour{grey}{laid}"


def choose_mirror(found: Survey) -> tuple[bool, str]:
    """Whether pictures may be flipped: colour photographs, but nothing that may be read."""
    if found.classes and all(re.fullmatch(r"[\W_]*(\d+|[^\W_])[\W_]*", name) for name in found.classes):
        return False, "not mirrored: classes that are called by figures or letters may show them"
    if found.coloured < MOSTLY:
        return False, "not mirrored: grey pictures may be text, figures or scans (--set mirror=true flips them)"
    if found.written > MOSTLY:
        return False, "not mirrored: two tones and many edges, as text and figures have (--set mirror=true flips them)"
    return True, "mirrored at random: photos look as natural the other way round (--set mirror=false if not)"
