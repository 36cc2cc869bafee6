"""The parameters of a batch of drawn garments: each a keyed random number of its own name."""

from __future__ import annotations

import numpy as np

from elegan.data.drawing import Array, keyed_uniform


class Params:
    """Parameters of the garments `index` (n,) of one category. Every value is float32 (n, 1, 1).

    A parameter depends on (seed, stream, index, category, its name): adding one changes no other.
    """

    def __init__(self, seed: int, stream: int, index: Array, category: str, sleeve: Array) -> None:
        self.seed, self.stream, self.index, self.category = seed, stream, index, category
        self.sleeve = sleeve[:, None, None]

    def __call__(self, name: str, low: float, high: float) -> Array:
        """Uniform between low and high."""
        u = keyed_uniform(self.seed, self.stream, self.index, f"{self.category}/{name}")
        return (np.float32(low) + u * np.float32(high - low))[:, None, None]

    def flag(self, name: str, chance: float) -> Array:
        """1.0 with this chance, else 0.0."""
        u = keyed_uniform(self.seed, self.stream, self.index, f"{self.category}/{name}")
        return (u < chance).astype(np.float32)[:, None, None]
