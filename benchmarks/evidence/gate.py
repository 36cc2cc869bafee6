"""One gate: what is claimed of a family, how it is measured, and when it holds. No torch here: the page reads it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Gate:
    """A row of the table."""

    name: str
    family: str  # the topic: what `python -m benchmarks.evidence TOPIC` selects
    claim: str  # what is tested, in words
    threshold: str  # when it holds, in words
    holds: Callable[[dict[str, Any]], bool]  # ... and as a function of what was measured
    measure: str  # module in gates/ and function: "critics.wgan_gp"
    broken: str = ""  # the planted fault, in words; "" where there is none
    earlier: str = ""  # the settings or the measure that missed before, and what came out: of seed 0
    pictured: str = ""  # what the sample picture shows, where that is not what is tested
    control: bool = False  # against the technique's own off-switch: a miss means "neutral", not "wrong"

    def passed(self, measured: dict[str, Any]) -> bool:
        """Whether what was measured holds. Derived anew each time, so that a result never outlives its threshold."""
        return None not in measured.values() and bool(self.holds(measured))

    def function(self) -> Callable[[Any], dict[str, Any]]:
        """What measures it, imported late."""
        module, name = self.measure.split(".")
        found: Callable[[Any], dict[str, Any]] = getattr(
            importlib.import_module(f"benchmarks.evidence.gates.{module}"), name
        )
        return found
