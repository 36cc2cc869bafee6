"""How trials are scored: fresh samples against training images that no trial learns from, never the test split."""

from __future__ import annotations

from typing import Any

import numpy as np

from elegan.config import RunConfig
from elegan.errors import UserError, nearest

HELD_OUT = 0.1  # of the training images
FEW = 200  # held-out images that small data should have
MOST = 0.3  # of small data
#: Features to choose by, where they can be others than those that `elegan evaluate` reports.
CHOOSING = {"fashion-mnist": "fashion-tuning"}


def lower_is_better(score: str) -> bool:
    """Whether a score is a distance. UserError for what is no score, or has no better side."""
    from elegan.metrics.tables import ROWS

    sides = {row[0]: row[3] for row in ROWS if row and row[3] in ("lower", "higher")}
    if score not in sides:
        raise UserError(f"--score {score}: is not a number to search by{nearest(score, sides)}")
    return sides[score] == "lower"


def hold_out(base: RunConfig) -> RunConfig:
    """The configuration with part of its training images held out to choose by: a tenth, or more where they are few."""
    from elegan.training.run import open_split

    if base.data.validation:
        return base
    count = len(open_split(base, "train"))
    share = round(max(HELD_OUT, min(MOST, FEW / count)), 3)
    return base.model_copy(update={"data": base.data.model_copy(update={"validation": share})})


class Scorer:
    """The judge of all trials of one process. Raises UserError when this data or these features have no such score."""

    def __init__(self, base: RunConfig, score: str, features: str, samples: int) -> None:
        from elegan.metrics.evaluate import Judge
        from elegan.metrics.inputs import SMALLEST
        from elegan.training.run import open_split

        lower_is_better(score)
        train, held_out = open_split(base, "train"), open_split(base, "validation")
        if len(held_out) < SMALLEST:
            raise UserError(
                f"{base.data.source}: only {len(held_out)} images can be held out to score by; a search needs "
                f"{SMALLEST}, better {FEW}"
            )
        if features == "auto":
            features = CHOOSING.get(train.name, "auto") if (train.channels, train.height) == (1, 28) else "auto"
        self.features, self.data = features, train.name
        self.check(base)
        self.judge = Judge(train, held_out, features=features, n=samples, copies=False)
        self.score, self.samples = score, samples
        self.protocol = (
            f"{samples:,} samples against {min(samples, len(held_out)):,} held-out training images, "
            f"features {self.judge.features}"
        )
        self.note = ""
        if self.judge.features.classes and features == "auto":
            self.note = (
                "`elegan evaluate` reports with the same features that choose here; --features FILE keeps the two apart"
            )
        value = getattr(self.judge.floor(samples), score)
        if value is None:
            raise UserError(f"--score {score}: this data with features {self.judge.features} does not give it")
        self.floor = float(value)

    def check(self, config: RunConfig) -> None:
        """UserError for settings by which D looks through the very features that judge here."""
        from elegan.judge import check_independent

        check_independent(config, self.features, self.data)

    def __call__(self, run: Any) -> dict[str, Any]:
        """All numbers of a run's newest checkpoint."""
        samples = run.sample(self.samples, seed=1)
        return self.judge(samples.images, samples.labels).value.model_dump()

    def failure(self, numbers: dict[str, Any]) -> str | None:
        """Why these numbers are those of a failed run, or None."""
        value = numbers[self.score]
        if value is None or not np.isfinite(value):
            return f"{self.score} is {value}"
        return None
