"""elegan: train, judge, explore and ship generative adversarial networks, fashion images first.

    import elegan
    run = elegan.train(preset="fashion", data="fashion-mnist", budget="10m")
    run.sample(64)                       # a picture in a notebook; .images is uint8 (N, H, W, C)
    elegan.evaluate(run)                 # scores with their floor and protocol
    elegan.load("runs/x").sample(16, labels="sneaker").save("sneakers.png")

Importing this package loads nothing heavy; torch is imported at first use.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from elegan.data import Dataset, inspect_data, open_data
    from elegan.errors import UserError
    from elegan.judge import evaluate
    from elegan.reports.comparison import Comparison, compare
    from elegan.reports.page import report
    from elegan.reports.render import Page
    from elegan.training.run import train
    from elegan.training.trained import Run, Samples, load
    from elegan.training.visit import diagnose
    from elegan.tuning.search import tune

__version__ = "0.1.0"
__all__ = [
    "Comparison", "Dataset", "Page", "Run", "Samples", "UserError", "compare", "diagnose", "evaluate", "inspect_data",
    "load", "open_data", "report", "train", "tune",
]  # fmt: skip

# torch's threads (libgomp's, on Linux) wait for one another many times a step, and spin 300,000 turns before sleeping:
# on a core that another program uses too, that keeps from work the very thread which is waited for. With fewer turns
# the default recipe's step takes a quarter of the time there, and 4 % more on a quiet machine (docs/speed.md). Read
# once, when torch is loaded; what the user has set stays.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

_HOMES = {
    "Comparison": "elegan.reports.comparison",
    "Page": "elegan.reports.render",
    "compare": "elegan.reports.comparison",
    "report": "elegan.reports.page",
    "Dataset": "elegan.data",
    "Run": "elegan.training.trained",
    "Samples": "elegan.training.trained",
    "UserError": "elegan.errors",
    "diagnose": "elegan.training.visit",
    "evaluate": "elegan.judge",
    "inspect_data": "elegan.data",
    "load": "elegan.training.trained",
    "open_data": "elegan.data",
    "train": "elegan.training.run",
    "tune": "elegan.tuning.search",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'elegan' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
