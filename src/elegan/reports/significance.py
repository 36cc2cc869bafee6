"""Whether two groups of numbers differ by more than chance, honest about few numbers.

With a handful of seeds a group, two questions are answered: how large the difference of the means plausibly is
(Welch's t interval, Welch 1947: unequal variances, normal errors assumed), and how surprising it would be if both
groups were alike (the exact permutation test, Fisher 1935: nothing assumed, and with n and m numbers never below
the smallest p that so few allow). No scipy at run time: Student's t comes from the incomplete beta function by its
continued fraction (Press+, Numerical Recipes, 6.4).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

SPLITS = 200_000  # above this many ways to split, the permutation test is left out


class Welch(NamedTuple):
    """The difference of means, b - a, with its 95 % interval."""

    difference: float
    low: float
    high: float
    freedom: float  # degrees of, Welch-Satterthwaite


class Permutation(NamedTuple):
    """p of the exact test of the difference of means, two-sided, and the smallest that so few numbers can give."""

    p: float
    smallest: float


def welch(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> Welch | None:
    """Welch's interval for mean(b) - mean(a); None where a group has fewer than two numbers or both do not vary."""
    if min(len(a), len(b)) < 2:
        return None
    va, vb = np.var(a, ddof=1) / len(a), np.var(b, ddof=1) / len(b)
    error = math.sqrt(va + vb)
    if error == 0:
        return None
    freedom = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    reach = t_quantile((1 + level) / 2, float(freedom)) * error
    difference = float(np.mean(b) - np.mean(a))
    return Welch(difference, difference - reach, difference + reach, float(freedom))


def permutation(a: Sequence[float], b: Sequence[float]) -> Permutation | None:
    """The exact permutation test of mean(a) = mean(b): every way to split the numbers into groups of these sizes.

    p is the share of splits whose means differ at least as much as they do. None where there are too many splits.
    """
    every = np.asarray([*a, *b], float)
    n, ways = len(a), math.comb(len(every), len(a))
    if min(n, len(b)) < 1 or ways > SPLITS:
        return None
    total, seen = every.sum(), abs(np.mean(b) - np.mean(a))
    slack = 1e-9 * max(np.abs(every).max(), 1e-300)
    sums = np.array([sum(every[i] for i in chosen) for chosen in combinations(range(len(every)), n)])
    differences = np.abs((total - sums) / len(b) - sums / n)
    p = float(np.mean(differences >= seen - slack))
    mirrored = 2 if n == len(b) else 1  # with equal sizes each split and its mirror image differ as much
    return Permutation(p, mirrored / ways)


def t_quantile(p: float, freedom: float) -> float:
    """x with P(T <= x) = p, for Student's t with these degrees of freedom, by bisection; p in [0.5, 1)."""
    low, high = 0.0, 1.0
    while t_cdf(high, freedom) < p:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, freedom) < p else (low, middle)
    return (low + high) / 2


def t_cdf(x: float, freedom: float) -> float:
    """P(T <= x) for x >= 0: 1 - I(v / (v + x^2); v/2, 1/2) / 2."""
    return 1 - incomplete_beta(freedom / (freedom + x * x), freedom / 2, 0.5) / 2


def incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I(x; a, b), 0 <= x <= 1."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly, its mirror image does not
        return 1 - incomplete_beta(1 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) * _fraction(x, a, b) / a


def _fraction(x: float, a: float, b: float) -> float:
    """The continued fraction of the incomplete beta function, by Lentz's method."""
    tiny = 1e-300
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1) or tiny)
    value = d
    for m in range(1, 300):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / (1 + term * d or tiny)
            c = 1 + term / c or tiny
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value


class Verdict(NamedTuple):
    """What two groups tell: how many there were, a judgement in words, and the numbers behind it."""

    counted: str
    judgement: str
    interval: Welch | None
    exact: Permutation | None

    @property
    def apart(self) -> bool:
        """Whether the interval of the difference leaves out zero."""
        return self.interval is not None and (self.interval.low > 0 or self.interval.high < 0)

    def __str__(self) -> str:
        return f"{self.counted}: {self.judgement}"


def verdict(a: Sequence[float], b: Sequence[float]) -> Verdict:
    """Whether b differs from a by more than seeds explain, in words that claim no more than so few numbers can."""
    n, m = len(a), len(b)
    counted = f"{n} {'seed' if n == 1 else 'seeds'} against {m}"
    if min(n, m) < 2:
        lonely = "one run does not show how much seeds matter; train at least 3 seeds of each to tell"
        return Verdict(counted, lonely, None, None)
    interval, exact = welch(a, b), permutation(a, b)
    if interval is None:
        same = math.isclose(float(np.mean(a)), float(np.mean(b)), rel_tol=1e-12, abs_tol=1e-300)
        none = "all values are equal" if same else "the seeds do not differ at all, so nothing can be said of chance"
        return Verdict(counted, none, None, exact)
    found = Verdict(counted, "", interval, exact)
    judgement = (
        "the difference is larger than seeds explain" if found.apart else "seeds alone can explain the difference"
    )
    if exact is not None:
        least = exact.p <= exact.smallest * 1.001
        if found.apart and not least and exact.p > 0.05:
            judgement = "unclear: the interval leaves out zero, the permutation test does not agree; train more seeds"
        judgement += f", p = {exact.p:.2g}" + (" is the smallest possible here" if least else "")
    if found.apart and min(n, m) == 2:
        judgement += "; it rests on the spread of two seeds, so train a third"
    return found._replace(judgement=judgement)
