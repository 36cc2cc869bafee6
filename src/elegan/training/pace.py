"""Whether a run keeps the pace that its time budget was planned for.

A plan is made from a few timed steps. Where the machine was busy in just that moment, or becomes so, the run would end
long before its time or long after it. So a run from a budget is looked at early, and planned and begun anew when
that brings more than it costs. Later the speed still drifts; as long as no step depends on how long the run will be
(rates have not begun to fall), its length follows the speed, and the run becomes the one that had this length from
its start.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable

SHORTEST = 60.0  # seconds: shorter budgets are over before a look says anything
SHORTEST_TO_FOLLOW = 15.0  # seconds: before that a machine is still warming up
LOOKS = (0.03, 0.06, 0.12)  # of the budget: what is thrown away when the run begins anew
FEWEST_STEPS = 10  # between two looks
WORTH_IT = 1.25  # times as many images as the plan that stands
TOO_SLOW = 0.75  # of the planned pace: the run would take a third longer than its budget
LEAST_LEFT = 0.5  # of the budget must be left for a new beginning
MOST_PLANS = 3
SETTLED = 0.08  # of the budget before the length follows the speed, and then between two changes of it
BETWEEN = 5.0  # seconds between two changes at least: a short run is not to speak of nothing else
TOLERANCE = 0.04  # of the length: no more exact than the speed of the next minutes is known
FILLED = 0.97  # of the budget for training: pictures and plots of the end take the rest
LATEST = 0.9  # of the run, where the length plays no part at all


class Pace:
    """Asked after every step whether the run should be planned and begun anew.

    `step_seconds` is what the plan of `budget` seconds was made from. The median step since the last look is compared
    with it: sample grids, checkpoints and the doctor's looks between two steps have a share of the budget of their own.
    The `last_plan` stands, whatever the looks would say; its length follows the speed as that of any other does.

    A GPU's steps are over when `wait` is, not when they have been launched. So none is timed but a few at each look.
    """

    def __init__(
        self,
        budget: float,
        step_seconds: float,
        now: Callable[[], float] = time.perf_counter,
        wait: Callable[[], None] | None = None,
        last_plan: bool = False,
    ) -> None:
        self.budget, self.step_seconds, self.now, self.wait = budget, step_seconds, now, wait
        self.places = list(LOOKS) if budget >= SHORTEST and not last_plan else []
        self.steps: list[float] = []
        self.seconds, self.off = step_seconds, False
        self.begin()

    def begin(self) -> None:
        """The first step is about to be made."""
        self.start = self.now()
        self.last: float | None = self.start if self.wait is None else None  # when the step before was over
        self.marks = [(0, 0.0)]  # images seen, seconds since the start
        self.settled = SETTLED * self.budget  # seconds since the start: when the length may change

    @property
    def left(self) -> float:
        """Seconds of the budget that are left."""
        return self.budget - (self.now() - self.start)

    def images(self, seen: int, total: int, per_step: int, steady: float) -> int:
        """How many images the run should have, `seen` of the planned `total` being done. Call now and then.

        `steady` is the share of the run in which no step depends on its length. The speed is that of the newer half of
        the run so far, with all that lies between steps.
        """
        elapsed = self.now() - self.start
        images, seconds = next(mark for mark in reversed(self.marks) if mark[0] <= seen / 2)
        self.marks.append((seen, elapsed))
        steady = min(steady, LATEST)
        if self.budget < SHORTEST_TO_FOLLOW or elapsed <= seconds or seen > steady * total:
            return total
        fits = seen + (FILLED * self.budget - elapsed) * (seen - images) / (elapsed - seconds)
        fits = max(fits, seen / steady)  # any shorter, and its rates would be falling by now
        far_off = seen >= steady * total / 2 and not 1 / WORTH_IT < fits / total < WORTH_IT  # and soon it is too late
        if abs(fits - total) <= TOLERANCE * total or not (elapsed >= self.settled or far_off):
            return total
        self.settled = elapsed + max(SETTLED * self.budget, BETWEEN)
        return math.ceil(fits / per_step) * per_step

    def __call__(self) -> bool:
        """Whether the plan has proved wrong. Call once after every step."""
        if not self.places:
            return False
        due = self.now() - self.start >= self.places[0] * self.budget
        if self.wait is not None:
            if not due:
                return False
            self.wait()
        now = self.now()
        if self.last is not None:
            self.steps.append(now - self.last)
        self.last = now
        if not due or len(self.steps) < FEWEST_STEPS:
            return False
        self.seconds = statistics.median(self.steps)
        self.steps.clear()
        self.places.pop(0)
        if self.wait is not None:
            self.last = None
        times_as_fast, share = self.step_seconds / max(self.seconds, 1e-9), self.left / self.budget
        self.off = share > LEAST_LEFT and (times_as_fast * share >= WORTH_IT or times_as_fast <= TOO_SLOW)
        return self.off


def alike(regime: Callable[[int], object], total: int, wanted: int, per_step: int) -> int:
    """The length nearest to `wanted` that begins as one of `total` images does: of its `regime`, in whole steps."""
    begins, near, far = regime(total), total, wanted
    if regime(wanted) == begins:
        return wanted
    while abs(far - near) > 1:  # begins alike, begins otherwise
        middle = (near + far) // 2
        near, far = (middle, far) if regime(middle) == begins else (near, middle)
    if wanted > total:
        return max(total, near // per_step * per_step)
    return min(total, math.ceil(near / per_step) * per_step)
