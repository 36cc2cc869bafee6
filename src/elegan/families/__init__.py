"""The GAN families, one file each; a file in this folder is found by its name and nothing is registered."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from elegan.errors import UserError, nearest

DEFAULT_PRESET = "fashion"


def names() -> list[str]:
    """The families, by file name. Imports none of them."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "base" and m.name[0] != "_")


def get(name: str) -> Any:
    """The module of a family, with its `Config`, `PRESETS` and `Model`. Raises UserError for an unknown one."""
    if name not in names():
        raise UserError(f"unknown family {name!r}{nearest(name, names())}")
    return importlib.import_module(f"{__name__}.{name}")


def presets() -> dict[str, tuple[str, Any]]:
    """All presets: `{name: (family, Preset)}`. A family's own `tiny` is called `FAMILY-tiny`, gan's also `tiny`."""
    found = {}
    for family in names():
        for name, preset in get(family).PRESETS.items():
            full = f"{family}-{name}" if name == "tiny" and family != "gan" else name
            assert full not in found, f"preset {full!r} stands in two families"
            found[full] = (family, preset)
    return found


def preset(name: str) -> tuple[str, Any]:
    """`(family, Preset)` of a preset. Raises UserError for an unknown one, with the nearest spelling."""
    known = presets()
    if name not in known:
        raise UserError(f"unknown preset {name!r}{nearest(name, known)} (`elegan presets` lists them)")
    return known[name]
