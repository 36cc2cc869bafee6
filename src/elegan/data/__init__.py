"""Data: a name or a path -> `Dataset` (uint8 images in memory), and the dataset doctor.

Importing this package loads nothing heavy: the functions are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from elegan.data.dataset import Dataset
    from elegan.data.inspect import DataReport, inspect_data
    from elegan.data.sources import open_data

__all__ = ["DataReport", "Dataset", "inspect_data", "open_data"]

_HOMES = {"Dataset": "dataset", "open_data": "sources", "inspect_data": "inspect", "DataReport": "inspect"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
