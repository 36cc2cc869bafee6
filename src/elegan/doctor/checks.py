"""The checks: each a pure function of the evidence that returns a finding or nothing.

Thresholds are calibrated on healthy and on broken runs; the numbers are in `benchmarks/results/doctor.md`. An early run
is not a failing run: what only tells late is not asked of a young run (`Evidence.young`) or only late
(`Evidence.late`), and each such check says so.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from elegan.doctor.evidence import Evidence, discriminators, learner_of
from elegan.doctor.finding import (
    FASTER_D,
    SLOWER_D,
    SLOWER_G,
    Finding,
    Proposal,
    Severity,
    at_least,
    becomes,
    propose,
    scaled,
)
from elegan.doctor.leakage import told_by_label


def found(
    e: Evidence, check: str, severity: Severity, text: str, evidence: dict[str, float], proposals: list[Proposal]
) -> Finding:
    """A finding with its numbers rounded and a change that this run can take."""
    rounded = {name: float(f"{value:.4g}") for name, value in evidence.items()}
    return Finding(e.images, check, severity, text, rounded, propose(e.config, proposals))


def not_finite(e: Evidence) -> Finding | None:
    """NaN or infinity in a weight, a gradient or the samples."""
    if not e.broken:
        return None
    more = f" and {len(e.broken) - 1} more tensors" if len(e.broken) > 1 else ""
    text = f"The training broke down: {e.broken[0]}{more} no longer holds numbers (NaN or infinity)."
    proposals: list[Proposal] = [*SLOWER_G, *SLOWER_D, ("precision", becomes("fp32"))]
    return found(e, "not finite", "problem", text, {"tensors": float(len(e.broken))}, proposals)


def collapse(e: Evidence) -> Finding | None:
    """Samples far more alike than real pictures are: by the distance of pairs, or by twins.

    Before it is late, asked only of a run whose samples have differed before: DCGAN takes a thousand batches to that.
    """
    spread, within, twins = (e.numbers.get(k) for k in ("diversity", "diversity_within", "twins"))
    if spread is None or within is None or twins is None:
        return None
    if not (spread < 0.25 or within < 0.2 or twins > 0.5):
        return None
    if not e.late and max(e.before("diversity"), default=0.0) < 0.4:
        return None  # a new generator's pictures are all alike too
    text = (
        f"The generator has collapsed: its pictures are nearly all alike "
        f"({twins:.0%} have a twin, and two of them differ {spread:.0%} as much as two real ones)."
    )
    evidence = {"diversity": spread, "diversity_within": within, "twins": twins, "recall": e.numbers["recall"]}
    proposals: list[Proposal] = [
        ("minibatch", becomes("stddev")), *SLOWER_G, ("penalty_weight", scaled(2.0)), ("D_steps", lambda n: n + 1),
    ]  # fmt: skip
    return found(e, "collapse", "problem", text, evidence, proposals)


def lost_classes(e: Evidence) -> Finding | None:
    """Classes that are common in the data and (almost) never come in the samples.

    Asked late of a run that no longer improves, of classes that were missing at the look before as well; and at any
    time of classes that have come (`came`).
    """
    if e.real is None or not e.shares:
        return None
    reader = e.real.reader
    trusted = reader.accuracy is None or reader.accuracy > 0.6
    least = 0.1 if e.asked is None else 0.3  # asked for each class evenly, a model has no excuse
    gone = missing(e.shares, reader.shares, least)
    before = [row["shares"] for row in e.history if len(row.get("shares") or ()) == len(e.shares)]
    still = missing(before[-1], reader.shares, least) if before and e.late and not e.improving else set()
    lost = sorted(c for c in gone & (still | came(before, reader.shares)) if reader.shares[c] * e.real.n >= 10)
    if not lost or not trusted:
        return None
    names = ", ".join(reader.names[c] for c in lost[:4]) + (f" and {len(lost) - 4} more" if len(lost) > 4 else "")
    what = "class" if len(lost) == 1 else "classes"
    text = f"The generator leaves out {len(lost)} {what} of {len(reader.names)} that the data has: {names}."
    evidence = {"lost": float(len(lost)), "share": sum(e.shares[c] for c in lost)}
    evidence |= {"real_share": float(sum(reader.shares[c] for c in lost)), "class_entropy": e.numbers["class_entropy"]}
    proposals: list[Proposal] = [("minibatch", becomes("stddev")), ("conditional", becomes(True)), *SLOWER_G]
    severity: Severity = "problem" if len(lost) > 1 else "warning"
    return found(e, "lost classes", severity, text, evidence, proposals)


def came(before: Sequence[Sequence[float]], real: Sequence[float] | np.ndarray) -> set[int]:
    """The classes of which the samples had a fair share at three of the last five looks, one after the other.

    Looks count at which half of the samples or more were spread as the data is: a reader sees some class in pictures
    that are none yet, and what it saw there is not lost when it sees another.
    """
    looks, shares = before[-5:], np.asarray(real)
    return {
        c
        for three in zip(looks, looks[1:], looks[2:], strict=False)
        if min(np.minimum(look, shares).sum() for look in three) >= SPREAD
        for c in range(len(real))
        if min(look[c] for look in three) >= 0.6 * real[c]
    }


def missing(shares: Sequence[float], real: Sequence[float] | np.ndarray, least: float) -> set[int]:
    """The classes that have less than `least` of their real share."""
    return {c for c, (share, full) in enumerate(zip(shares, real, strict=True)) if share < least * full}


def ignored_labels(e: Evidence) -> Finding | None:
    """A conditional generator whose pictures do not show the class asked for, though real ones do.

    Asked late of a run that no longer improves; before that only if most pictures showed it at both looks before.
    """
    right = e.numbers.get("label_accuracy")
    if right is None or e.real is None or not e.real.reader.accuracy:
        return None
    chance, earlier = 1 / len(e.real.reader.names), e.before("label_accuracy")[-2:]
    did = len(earlier) == 2 and min(earlier) > 0.5 * (chance + e.real.reader.accuracy)
    if not did and (not e.late or e.improving):
        return None
    if e.real.reader.accuracy < chance + 0.3 or right > chance + 0.3 * (e.real.reader.accuracy - chance):
        return None
    text = (
        f"The generator ignores its labels: {right:.0%} of its pictures show the class that was asked for, where a "
        f"simple reader finds the class of {e.real.reader.accuracy:.0%} of the real ones."
    )
    evidence = {"label_accuracy": right, "real_accuracy": e.real.reader.accuracy}
    proposals: list[Proposal] = [("G_class_weight", scaled(2.0)), ("embedding", lambda n: 2 * n), *SLOWER_D]
    return found(e, "ignored labels", "problem", text, evidence, proposals)


def meaningless_labels(e: Evidence) -> Finding | None:
    """Labels that nothing in the real pictures tells: shuffled, or of something invisible."""
    if e.real is None or e.real.reader.accuracy is None or not e.shares:
        return None
    chance, right = float(max(e.real.label_shares)), e.real.reader.accuracy
    if right > chance + max(0.05, 0.1 * (1 - chance)):
        return None
    text = (
        f"The labels say nothing about the pictures: of real pictures that it has not seen, a reader trained on this "
        f"data gets {right:.0%} right, and always guessing the commonest class would give {chance:.0%}; they may be "
        "shuffled."
    )
    proposals: list[Proposal] = [("labels", becomes("ignore"))]
    return found(e, "meaningless labels", "problem", text, {"real_accuracy": right, "chance": chance}, proposals)


def leaking_labels(e: Evidence) -> Finding | None:
    """A model that uses labels, whose data or whose way of asking for fakes gives the label away."""
    if e.real is None or e.asked is None:
        return None
    names = e.real.reader.names
    random = getattr(e.config.model, "fake_labels", "real") == "random"
    told = told_by_label(e.real.label_shares, np.full(len(names), 1 / len(names))) if random else 0.5
    if told >= TOLD:
        text = (
            f"The labels leak to the discriminator: fakes are asked for every class equally often and the data is not "
            f"even, so that the label alone tells real from generated pictures {told:.0%} of the time."
        )
        evidence = {"label_tells": told, "commonest": max(e.real.label_shares), "rarest": min(e.real.label_shares)}
        return found(e, "label leakage", "warning", text, evidence, [("fake_labels", becomes("real"))])
    if not e.real.spots:
        return None
    plainest = e.real.spots[0]
    more = len(e.real.spots) - 1
    which = names[plainest.label] + (f" (and {more} more {'class' if more == 1 else 'classes'})" if more else "")
    text = (
        f"The labels leak into the pictures: one pixel gives {which} away, in row {plainest.row} and column "
        f"{plainest.column}; if a mark, a frame or a backdrop is there, remove it from the pictures, or the generator "
        "learns it in place of the class."
    )
    evidence = {"classes": more + 1.0, "advantage": plainest.advantage}
    evidence |= {"row": float(plainest.row), "column": float(plainest.column)}
    return found(e, "label leakage", "warning", text, evidence, [("labels", becomes("ignore"))])


def overfitting(e: Evidence) -> Finding | None:
    """D scores training pictures above unseen ones: it knows them by heart (the r_v of Karras+ 2020, by ranks)."""
    memory, tells = e.numbers.get("D_memory"), e.numbers.get("D_tells")
    if memory is None or tells is None or e.real is None or e.real.held is None or memory < 0.75:
        return None
    if len(e.real.held.images) < FEW:
        return None
    text = (
        f"The discriminator knows its training pictures by heart: it takes one for more real than an unseen real "
        f"picture {memory:.0%} of the time, and 50% would be fair."
    )
    gap = e.numbers["real"] - e.numbers["fake"]
    part = (e.numbers["real"] - e.numbers["held"]) / gap if gap > 0 else 1.0
    evidence = {"D_memory": memory, "part_of_gap": part, "training_images": float(e.real.count)}
    proposals: list[Proposal] = [
        ("augment", becomes("ada")), ("D_dropout", at_least(0.3)), ("mirror", becomes(True)), *SLOWER_D,
    ]  # fmt: skip
    return found(e, "D overfits", "warning", text, evidence, proposals)


def strong_D(e: Evidence) -> Finding | None:
    """D tells every fake from every real picture, and the samples do not get better. Not asked of a young run."""
    tells, distance = e.numbers.get("D_tells"), e.numbers.get("frechet")
    before = e.before("frechet")
    if tells is None or distance is None or e.young or len(before) < 2:
        return None
    earlier = e.before("D_tells")[-2:]
    if min([tells, *earlier]) < 0.995 or distance < 0.9 * min(before[-2:]):
        return None
    text = (
        f"The discriminator is too strong: it tells real from generated pictures without a mistake "
        f"({tells:.1%}), and the pictures have stopped getting better."
    )
    evidence = {"D_tells": tells, "frechet": distance, "frechet_before": min(before[-2:])}
    proposals: list[Proposal] = [*SLOWER_D, ("label_smoothing", at_least(0.1)), ("D_dropout", at_least(0.3))]
    return found(e, "D too strong", "warning", text, evidence, proposals)


def weak_D(e: Evidence) -> Finding | None:
    """D does not learn, or at two looks cannot tell pictures apart that plainly differ.

    The second is not asked of a young run, nor of one that improves.
    """
    tells, distance = e.numbers.get("D_tells"), e.numbers.get("frechet")
    moved, lately = discriminators(e.moved), discriminators(e.lately)
    stopped = bool(lately) and max(lately.values()) == 0
    if (stopped or (moved and max(moved.values()) < STILL)) and e.progress < 0.95:
        how = "have stopped moving" if stopped else f"moved by {max(moved.values()):.1g} of their size since last time"
        text = f"The discriminator does not learn: its weights {how}, so the generator has nothing to learn from."
        evidence = {"moved": 0.0 if stopped else max(moved.values())}
        return found(e, "D does not learn", "problem", text, evidence, FASTER_D)
    if tells is None or distance is None or e.real is None or e.young or e.improving:
        return None
    far = distance / (e.real.spread**2)  # 1/2: as far as a generator of one average picture
    limit = 0.6 if far > 0.3 else 0.4
    if far < 0.1 or max(tells, *e.before("D_tells")[-1:], 0.0) > limit or not e.history:  # a single look may be chance
        return None
    text = (
        f"The discriminator is too weak: it takes a real picture for more real than a generated one only {tells:.0%} "
        "of the time, though the generated ones plainly differ from the data."
    )
    evidence = {"D_tells": tells, "frechet": distance, "frechet_of_real": e.real.frechet}
    return found(e, "D too weak", "warning", text, evidence, FASTER_D)


def vanishing(e: Evidence) -> Finding | None:
    """G's gradient has shrunk to nothing, so that it no longer learns."""
    now, before = e.numbers.get("G_grad"), e.before("G_grad")
    if now is None or not before:
        return None
    usual = float(np.median(before))
    if now > 1e-7 and now > 1e-3 * usual:
        return None
    text = f"The generator's gradient has vanished: it is {now:.1g}, where {usual:.1g} was usual, so it stops learning."
    proposals: list[Proposal] = [("objective", becomes("nonsaturating")), *SLOWER_D]
    return found(e, "vanishing gradient", "problem", text, {"G_grad": now, "usual": usual}, proposals)


def diverging(e: Evidence) -> Finding | None:
    """Samples far from the data: much worse than they were, or no better than a single average picture.

    The second is not asked at the first look, nor of a run that comes nearer: it may only be slow.
    """
    distance = e.numbers.get("frechet")
    if distance is None or e.real is None or e.young:
        return None
    best = min(e.before("frechet"), default=float("inf"))
    worse = distance > 3 * best and distance - best > 0.1 * e.real.spread**2
    lost = distance > FAR * e.real.spread**2 and best < float("inf") and not e.improving
    if not (worse or lost):
        return None
    evidence = {"frechet": distance, "frechet_of_real": e.real.frechet}
    if worse:
        evidence["frechet_best"] = best
        text = (
            f"The pictures have become much worse than they were: their distance from the data is {distance:.3g} and "
            f"was {best:.3g}; learning rates that are too large do this."
        )
    else:
        text = (
            f"The generator does not learn: its pictures are at a distance of {distance:.3g} from the data, farther "
            "than one average picture repeated would be; learning rates that are too large do this."
        )
    slower: list[Proposal] = [("G_lr", scaled(0.1)), ("lr", scaled(0.1)), ("D_lr", scaled(0.1))]
    return found(e, "diverging", "problem", text, evidence, slower)


def oscillation(e: Evidence) -> Finding | None:
    """The samples jump from some classes to others between checks.

    Not asked of a young run, nor of one that improves.
    """
    shares = [*[row["shares"] for row in e.history if row.get("shares")][-2:], e.shares]
    if len(shares) < 3 or not e.shares or e.young or e.improving or len({len(s) for s in shares}) > 1:
        return None
    jumps = [0.5 * float(np.abs(np.array(a) - np.array(b)).sum()) for a, b in itertools.pairwise(shares)]
    if min(jumps) < 0.35:
        return None
    text = (
        f"The generator jumps from one kind of picture to another: between the last checks {min(jumps):.0%} of its "
        "pictures changed their class."
    )
    proposals: list[Proposal] = [*SLOWER_G, *SLOWER_D]
    return found(e, "oscillation", "warning", text, {"jump": min(jumps), "jump_now": jumps[-1]}, proposals)


def large_rates(e: Evidence) -> Finding | None:
    """Weights that move by a large part of their size from look to look, by the root of the batches between."""
    moved = {name: m for name, m in e.moved.items() if not name.endswith("_ema")}
    seen, batch = e.before("images"), getattr(e.config.model, "batch", 1)
    if not moved or not seen or e.images - seen[-1] < batch:
        return None
    name = max(moved, key=lambda k: moved[k])
    pace = moved[name] / ((e.images - seen[-1]) / batch) ** 0.5
    if pace < RESTLESS:
        return None
    text = (
        f"The learning rates are too large: {name}'s weights moved by {moved[name]:.0%} of their size since the last "
        "check, so nothing that it learns stays."
    )
    slower: list[Proposal] = [("G_lr", scaled(0.1)), ("lr", scaled(0.1)), ("D_lr", scaled(0.1))]
    if name.startswith("D"):
        slower = [("D_lr", scaled(0.1)), *slower]
    return found(e, "rates too large", "warning", text, {"moved": moved[name], "pace": pace}, slower)


def dead_average(e: Evidence) -> Finding | None:
    """The averaged generator, which draws the samples, does not follow the one that learns."""
    G = learner_of(e)
    average = e.numbers.get("average")
    if average is None or G is None:
        return None
    follows = e.moved.get(f"{G}_ema")
    stuck = follows is not None and e.moved.get(G, 0.0) > 1e-4 and follows < 0.01 * e.moved[G]
    stuck = stuck or (e.lately.get(f"{G}_ema") == 0 and e.lately.get(G, 0.0) > STILL)
    if not stuck and average < 1.0:
        return None
    text = (
        f"The averaged generator, which draws the samples, does not follow the one that learns: the two are "
        f"{average:.0%} of their size apart."
    )
    evidence = {"average": average} | ({} if follows is None else {"moved": follows, "G_moved": e.moved[G]})
    proposals: list[Proposal] = [("ema_share", becomes(0.02)), ("ema_half_life", scaled(0.1))]
    return found(e, "dead average", "problem", text, evidence, proposals)


def small_data(e: Evidence) -> Finding | None:
    """So few pictures that D will know them by heart."""
    if e.real is None or e.real.count >= SMALL:
        return None
    text = (
        f"There are only {e.real.count} pictures to learn from: a discriminator soon knows so few by heart, and a "
        "thousand or more are needed for variety."
    )
    proposals: list[Proposal] = [("augment", becomes("ada")), ("mirror", becomes(True)), ("D_dropout", at_least(0.3))]
    return found(e, "small data", "warning", text, {"training_images": float(e.real.count)}, proposals)


STILL = 1e-6  # of a network's size: less is rounding
FAR = 0.6  # of the squared spread of real pictures; an average picture repeated is at one half
SMALL = 1000  # pictures in a data set
RESTLESS = 0.03  # of a network's size, times the root of the batches: healthy runs stay below 0.015
SPREAD = 0.5  # of the samples, spread over the classes as the data is: fewer are pictures of nothing yet
TOLD = 0.55  # of pictures that labels alone tell; 0.5 is chance
FEW = 20  # unseen pictures: fewer tell nothing

CHECKS: tuple[Callable[[Evidence], Finding | None], ...] = (
    not_finite, collapse, lost_classes, meaningless_labels, leaking_labels, ignored_labels, diverging, weak_D, strong_D,
    overfitting, vanishing, large_rates, oscillation, dead_average, small_data,
)  # fmt: skip

#: What follows from a collapse and needs no words of its own.
FOLLOWS = frozenset({"lost classes", "ignored labels", "diverging", "oscillation", "D too weak", "D too strong"})

#: What `--on-collapse` acts on.
FATAL = frozenset({"not finite", "collapse", "diverging"})


def examine(e: Evidence) -> list[Finding]:
    """All findings of one look, problems first."""
    findings = [finding for check in CHECKS if (finding := check(e)) is not None]
    if any(f.check == "collapse" for f in findings):
        findings = [f for f in findings if f.check not in FOLLOWS]
    return sorted(findings, key=lambda f: f.severity != "problem")
