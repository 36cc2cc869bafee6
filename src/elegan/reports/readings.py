"""Numbers in plain words: what a score says about the pictures, beside the same score of real ones.

A reading never says more than the number does: distances are told as multiples of what real images get, shares as
"so many of 100". How good that is follows from the place between nothing and the floor, and is said as a word, a sign
and a colour.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from elegan.metrics.tables import pair
from elegan.reports.charts import dot_scale
from elegan.reports.evaluation import finite

GOOD, FAIR, POOR, PLAIN = "good", "fair", "poor", "plain"
HEADINGS = ("Distance from real pictures", "Quality and variety", "Within and across classes", "Detail", "Copying")
WORDS = {GOOD: "near real", FAIR: "some way off", POOR: "far off", PLAIN: ""}
COPY_WORDS = {GOOD: "no sign of it", FAIR: "look at them", POOR: "it copies", PLAIN: ""}
SIGNS = {GOOD: "✓", FAIR: "~", POOR: "!", PLAIN: ""}
#: A share of at least this much of the floor's counts as good, as fair. Judgement, not theory.
SHARE_GOOD, SHARE_FAIR = 0.9, 0.6


class Reading(NamedTuple):
    """One row of the score table. `at`, `floor_at`, `reach`: per cent of a small scale; None where it says nothing."""

    field: str
    heading: str  # of the group that it begins
    title: str
    value: str
    error: str
    floor: str
    better: str
    text: str
    grade: str
    at: float
    floor_at: float
    reach: tuple[float, float] | None

    @property
    def word(self) -> str:
        return (COPY_WORDS if self.field == "copies" else WORDS)[self.grade]

    @property
    def sign(self) -> str:
        return SIGNS[self.grade]


def readings(scores: dict[str, Any]) -> list[Reading]:
    """Every number of a `Scores.to_dict()` that the table of `elegan evaluate` has, in its order and groups."""
    from elegan.metrics.tables import ROWS

    headings, heading = iter(HEADINGS), HEADINGS[0]
    next(headings)
    found: list[Reading] = []
    for row in ROWS:
        if row is None:
            heading = next(headings, "")
        elif finite(scores["value"].get(row[0])) is not None:
            found.append(reading(*row, scores, heading))
            heading = ""
    return found


def reading(field: str, title: str, digits: int, better: str, scores: dict[str, Any], heading: str = "") -> Reading:
    """One number, read."""
    v, error = finite(scores["value"][field]), finite(scores["value"].get(f"{field}_error"))
    f, floor_error = finite(scores["floor"].get(field)), finite(scores["floor"].get(f"{field}_error"))
    assert v is not None
    words = TEXTS.get(field)
    end = dot_scale([v + (error or 0), f or 0], better)
    place = lambda x: min(max(100 * x / end, 0.0), 100.0)  # noqa: E731
    value, _, spread = pair(v, error, digits, " ± ").partition(" ± ")
    return Reading(
        field=field,
        heading=heading,
        title=title[0].upper() + title[1:],
        value=value,
        error=spread,
        floor=pair(f, floor_error, digits, " ± ").partition(" ± ")[0] if f is not None else "-",
        better=better,
        text=words(v, f, scores) if words and f is not None else "",
        grade=grade(field, better, v, f, error),
        at=place(v),
        floor_at=place(f) if f is not None else -1.0,
        reach=(place(v - error), place(v + error)) if error else None,
    )


def grade(field: str, better: str, v: float, f: float | None, error: float | None = None) -> str:
    """good, fair or poor, by the distance to the floor; plain where there is no such order."""
    if f is None:
        return PLAIN
    if field == "copies":
        return GOOD if v <= 3 * f else FAIR if v <= 10 * f else POOR
    if better == "lower":  # a distance has no scale of its own: only "no difference seen" can be said
        return GOOD if error is not None and v - f <= 2 * error else PLAIN
    if better == "higher":
        return _by_share(v / f if f > 0 else 1.0)
    if field == "copy_ratio":  # judged by the copies: above 1 it is no fault of its own, below mostly blur
        return PLAIN
    if better == "near 1":
        return _by_share(1 - max(abs(v - 1) - abs(f - 1), 0))
    if field == "class_entropy":
        return _by_share(v / f if f > 0 else 1.0)
    if field == "ms_ssim" and f < 1:
        return _by_share((1 - v) / (1 - f))
    return PLAIN


def _by_share(share: float) -> str:
    return GOOD if share >= SHARE_GOOD else FAIR if share >= SHARE_FAIR else POOR


def of_hundred(share: float) -> str:
    """`87 of 100`; small shares keep a digit, so that few are not none."""
    hundredth = 100 * share
    return f"{hundredth:.0f} of 100" if hundredth >= 1 or hundredth == 0 else f"{1000 * share:.2g} of 1,000"


def _times(v: float, f: float) -> str:
    ratio = v / f
    return f"{ratio:,.0f} times" if ratio >= 10 else f"{ratio:.1f} times"


# One sentence for each number. v: of the samples, f: of real images, s: everything ------------------------------------


def _frechet(v: float, f: float, s: dict[str, Any]) -> str:
    far = f", {_times(v, f)} as far as other real pictures are" if f > 1e-6 else ""
    return f"How far the samples as a whole are from real pictures{far}. It grows with anything that is wrong."


def _kernel(v: float, f: float, s: dict[str, Any]) -> str:
    error = finite(s["value"].get("kernel_error")) or 0.0
    if v - f <= 2 * error:
        return "Within its error of what real pictures get: this distance sees no difference."
    return "The same question as the Frechet distance, but fair to small sets: real pictures get about 0."


def _wasserstein(v: float, f: float, s: dict[str, Any]) -> str:
    return "How far small details (edges, texture) are from real ones, without any learned features."


def _classifier_score(v: float, f: float, s: dict[str, Any]) -> str:
    return f"Samples belong to classes less clearly or less evenly the lower it is; real pictures get {f:.2f}."


def _precision(v: float, f: float, s: dict[str, Any]) -> str:
    return f"{of_hundred(v)} samples look like real pictures; of real ones {of_hundred(f)} do."


def _recall(v: float, f: float, s: dict[str, Any]) -> str:
    missing = " Much of what there is, is never made: the sign of mode collapse." if v < 0.3 * f else ""
    return f"The model could have made {of_hundred(v)} real pictures; real ones reach {of_hundred(f)}.{missing}"


def _density(v: float, f: float, s: dict[str, Any]) -> str:
    if v > 1.15 * f:
        return "Samples crowd where real pictures are most typical."
    if v < 0.85 * f:
        return "Fewer samples than real pictures lie where real pictures are dense."
    return "Samples lie about as densely among real pictures as real ones do."


def _coverage(v: float, f: float, s: dict[str, Any]) -> str:
    return f"{of_hundred(v)} real pictures have a sample near them; with real pictures as samples {of_hundred(f)}."


def _diversity(v: float, f: float, s: dict[str, Any]) -> str:
    if v < 0.9:
        return f"Samples of one class differ {100 * (1 - v):.0f} % less from each other than real ones do."
    if v > 1.1:
        return f"Samples of one class differ {100 * (v - 1):.0f} % more from each other than real ones do."
    return "Samples of one class differ from each other about as much as real ones."


def _ms_ssim(v: float, f: float, s: dict[str, Any]) -> str:
    if v > f + 0.05:
        return "Samples of one class are more alike in structure than real pictures are."
    return "Samples of one class are no more alike in structure than real pictures are."


def _sharpness(v: float, f: float, s: dict[str, Any]) -> str:
    if v < 0.85:
        return f"Blurred: edges have {100 * v:.0f} % of the strength of real ones."
    if v > 1.15:
        return f"Grainy: edges have {100 * v:.0f} % of the strength of real ones."
    return "Edges are about as strong as in real pictures."


def _top_octave(v: float, f: float, s: dict[str, Any]) -> str:
    if v < 0.7:
        return "The finest detail is weaker than in real pictures."
    if v > 1.4:
        return "There is more finest detail than in real pictures: noise, or a pattern of the upsampling."
    return "About as much finest detail as in real pictures."


def _spectrum(v: float, f: float, s: dict[str, Any]) -> str:
    return "How far the strength of coarse to fine waves is from real pictures', on average."


def _cas(v: float, f: float, s: dict[str, Any]) -> str:
    real = f"taught by real ones {of_hundred(f)}"
    return f"A classifier taught by samples alone reads {of_hundred(v)} real pictures right; {real}."


def _modes(v: float, f: float, s: dict[str, Any]) -> str:
    return f"{v:,.0f} of the 1,000 possible pictures of three digits are made; {f:,.0f} occur among as many real ones."


def _modes_kl(v: float, f: float, s: dict[str, Any]) -> str:
    return "How unevenly the 1,000 kinds are made; real pictures get the floor."


def _class_entropy(v: float, f: float, s: dict[str, Any]) -> str:
    short = f - v
    return (
        "All classes are made about equally often."
        if short < 0.05
        else f"Some classes are made too seldom: {short:.2f} bits below real pictures."
    )


def _label_accuracy(v: float, f: float, s: dict[str, Any]) -> str:
    real = f"the classifier reads real ones right {of_hundred(f)} times"
    return f"{of_hundred(v)} samples show the class that was asked for; {real}."


def _copy_ratio(v: float, f: float, s: dict[str, Any]) -> str:
    copies, usual = finite(s["value"].get("copies")), finite(s["floor"].get("copies"))
    if v > 1.15:
        return "Samples are farther from every training picture than unseen real pictures are: they look different."
    if v >= 0.85:
        return "Samples are about as far from the training pictures as unseen real pictures are."
    if copies is not None and usual is not None and copies <= 3 * usual:
        return "Samples are nearer to training pictures than unseen real ones are, without singling any out: blur."
    return "Samples are nearer to training pictures than unseen real ones are: look at the copies."


def _nearer(v: float, f: float, s: dict[str, Any]) -> str:
    return f"{of_hundred(v)} samples are nearer to a training picture than the median unseen real picture is."


def _copies(v: float, f: float, s: dict[str, Any]) -> str:
    n = int(s["protocol"].get("samples", 0))
    counted = f"{round(v * n):,} of {n:,} samples single out one training picture"
    if v <= 3 * f:
        return f"{counted}, no more than unseen real pictures do by chance: no sign of copying."
    return f"{counted}; of unseen real pictures {round(f * n):,} would. Look at them below."


def _authenticity(v: float, f: float, s: dict[str, Any]) -> str:
    return f"{of_hundred(v)} samples are farther from their training picture than that is from its own neighbour."


TEXTS = {
    "frechet": _frechet,
    "kernel": _kernel,
    "wasserstein": _wasserstein,
    "classifier_score": _classifier_score,
    "precision": _precision,
    "recall": _recall,
    "density": _density,
    "coverage": _coverage,
    "diversity": _diversity,
    "ms_ssim": _ms_ssim,
    "sharpness": _sharpness,
    "top_octave": _top_octave,
    "spectrum": _spectrum,
    "cas": _cas,
    "modes": _modes,
    "modes_kl": _modes_kl,
    "modes_kl_real": _modes_kl,
    "class_entropy": _class_entropy,
    "label_accuracy": _label_accuracy,
    "copy_ratio": _copy_ratio,
    "nearer": _nearer,
    "copies": _copies,
    "authenticity": _authenticity,
}
