"""Runs from a time budget that were planned in a busy moment: they are planned and begun anew, early, at most twice."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import elegan
from elegan import progress
from elegan.adversarial.stabilizers import shortness
from elegan.training import events, pace, plan
from elegan.training import run as run_module
from elegan.training.folder import RunFolder
from elegan.training.pace import Pace, alike

QUICK = {"batch": 8, "precision": "fp32", "device": "cpu", "checkpoint_every": 500, "grids": 3, "grid_side": 2}


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def first_alarm(steps: list[float], budget: float = 100.0, planned: float = 0.1) -> int | None:
    """After how many of these steps the plan is called wrong."""
    clock = Clock()
    asked = Pace(budget, planned, clock)
    for count, seconds in enumerate(steps, 1):
        clock.seconds += seconds
        if asked():
            return count
    return None


@pytest.mark.parametrize(
    ("step", "found"),
    [(0.1, None), (0.09, None), (0.12, None), (0.07, 43), (2**-6, 192), (0.14, 22), (0.5, 10), (2.0, 10), (6.0, None)],
)
def test_a_plan_is_wrong_by_a_third_or_more(step, found):
    """Three hundredths of the budget and ten steps are enough to see it; with half of it gone it is too late."""
    assert first_alarm([step] * 2000) == found


@pytest.mark.parametrize(("step", "alarm"), [(0.1, False), (0.12, False), (0.02, True), (0.5, True)])
def test_on_a_gpu_steps_take_as_long_as_one_waits_for_them(step, alarm):
    """Launched in no time, the first of them slowly, they are timed where they are waited for: a few at each look."""
    clock, waited, behind = Clock(), [], 0.0

    def wait():
        nonlocal behind
        waited.append(behind)
        clock.seconds += behind
        behind = 0.0

    asked, found = Pace(100.0, 0.1, clock, wait), []
    for count in range(8000):
        clock.seconds += 1.0 if count == 3 else 0.005  # the fourth is recorded
        behind += step
        clock.seconds += max(0.0, behind - 10 * step)  # so many may be on their way
        behind = min(behind, 10 * step)
        found.append(asked())
        if found[-1]:
            break
    assert any(found) == alarm
    assert len(waited) == 11 * (1 if alarm else 3)  # ten steps and the wait before them
    assert asked.seconds == pytest.approx(step + 0.005)


def test_what_lies_between_steps_is_no_slow_step():
    """A look of the doctor, a checkpoint, a grid."""
    steps = [0.1] * 2000
    steps[5::20] = [1.5] * 100
    assert first_alarm(steps) is None


def test_a_busy_beginning_is_seen_later_too():
    """The machine is let go after the first look: only the steps since then tell."""
    assert first_alarm([0.125] * 24 + [0.0625] * 1000, planned=0.125) == 24 + 48


def test_late_changes_are_let_pass():
    """What a new beginning throws away must be little."""
    assert first_alarm([0.1] * 150 + [0.02] * 4000) is None


def test_a_short_run_is_not_looked_at():
    assert first_alarm([0.01] * 1000, budget=59) is None
    assert first_alarm([0.01] * 1000, budget=60) is not None


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The seconds of a step that each plan is told, in turn; the last for all that come."""
    told: list[float] = []
    monkeypatch.setattr(plan, "time_features", lambda *_: 0.01)

    def typical(model: Any, step: Any, *_: Any) -> float:
        step(0)
        return told.pop(0) if len(told) > 1 else told[0]

    monkeypatch.setattr(plan, "typical_seconds", typical)
    monkeypatch.setattr(plan, "time_step", lambda step, *_, **__: 0.01)
    yield told


def watch(
    out: Path,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: float,
    length: dict[str, Any],
    preset: str = "tiny",
    more: dict[str, Any] | None = None,
) -> list[Any]:
    """The events of a run whose steps take `step` seconds by the clock that the pace reads."""
    clock = Clock()

    def stop() -> bool:
        clock.seconds += step
        return False

    monkeypatch.setattr(run_module, "Pace", partial(Pace, now=clock))
    settings = {k: str(v) for k, v in (QUICK | (more or {})).items()}
    folder, asked = run_module.prepare(out, preset, data, settings=settings)
    return list(run_module.events(asked, folder, length, stop=stop))


def of(kind: type, found: list[Any]) -> list[Any]:
    return [event for event in found if isinstance(event, kind)]


def test_a_run_planned_in_a_busy_moment_begins_anew(tmp_path, data, timed, monkeypatch):
    timed += [2.0, 0.4]
    found = watch(tmp_path / "a", data, monkeypatch, 0.4, {"budget": "60s"})
    first, second = of(events.Planned, found)
    assert (first.images, first.step_seconds) == (28 * 8, 2.0)
    assert (second.images, second.step_seconds) == (int(0.94 * 56 / 0.4) * 8, 0.4)
    (*_, warned) = of(events.Warned, found)
    assert "0.4 s, not 2 s as planned" in warned.text
    assert "56 s" in warned.text
    assert not of(events.OffPace, found)
    assert found[-1].images == second.images

    run = elegan.Run(tmp_path / "a")
    assert (run.config.train.budget, run.config.train.images) == ("60s", second.images)
    assert len(run.folder.stats("sittings.jsonl")) == 1
    seen = [row["images"] for row in run.stats]
    assert seen == sorted(set(seen)), "no row of the run that was given up"


def test_what_began_anew_is_the_run_of_its_images(tmp_path, data, timed, monkeypatch):
    """Nothing of the first beginning is left in it: config.yaml gives the same run again."""
    timed += [2.0, 0.4]
    watch(tmp_path / "a", data, monkeypatch, 0.4, {"budget": "60s"})
    a = elegan.Run(tmp_path / "a")
    b = elegan.train("tiny", data, tmp_path / "b", images=a.config.train.images, show=False, **QUICK)
    assert np.array_equal(a.sample(8, seed=3).images, b.sample(8, seed=3).images)
    names = [sorted(str(p.relative_to(r.path)) for p in r.path.rglob("*") if p.is_file()) for r in (a, b)]
    assert names[0] == names[1]


def test_a_slow_machine_keeps_its_time(tmp_path, data, timed, monkeypatch):
    timed += [0.1, 0.5]
    found = watch(tmp_path / "a", data, monkeypatch, 0.5, {"budget": "60s"})
    assert [event.images for event in of(events.Planned, found)] == [564 * 8, int(0.94 * 55 / 0.5) * 8]


def test_no_more_than_three_plans(tmp_path, data, timed, monkeypatch):
    """A machine that is never as it was timed: the last plan stands."""
    timed += [2.0]
    found = watch(tmp_path / "a", data, monkeypatch, 0.4, {"budget": "120s"})
    assert len(of(events.Planned, found)) == pace.MOST_PLANS
    assert isinstance(found[-1], events.Finished)


def test_the_last_plan_follows_the_speed_too(tmp_path, data, timed, monkeypatch):
    """A machine that is let go after the last plan was made: what is left of the time is used."""
    timed += [2.0]
    settings = {"lr_schedule": "linear", "lr_hold": 0.5, "log_every": 10}
    found = watch(tmp_path / "a", data, monkeypatch, 0.4, {"budget": "120s"}, "cgan-tiny", settings)
    *_, last = of(events.Planned, found)
    assert len(of(events.Planned, found)) == pace.MOST_PLANS
    assert last.images == pytest.approx(0.94 * 112 / 2.0 * 8, rel=0.05)
    assert of(events.Lengthened, found)
    assert found[-1].images == pytest.approx(0.97 * 112 / 0.4 * 8, rel=0.05)


def test_a_length_in_images_is_kept(tmp_path, data, timed, monkeypatch):
    timed += [1.0]
    found = watch(tmp_path / "a", data, monkeypatch, 0.1, {"images": 800})
    assert len(of(events.Planned, found)) == 1
    assert found[-1].images == 800


def test_networks_that_grow_are_planned_once(tmp_path, data, timed, monkeypatch):
    """Their first steps are cheaper than the typical one that the plan counts."""
    timed += [1.0]
    found = watch(tmp_path / "a", data, monkeypatch, 0.1, {"budget": "60s"}, "progressive-tiny")
    assert len(of(events.Planned, found)) == 1


def test_an_interrupt_at_that_moment_is_an_interrupt(tmp_path, data, timed, monkeypatch):
    timed += [1.0]
    clock = Clock()

    def stop() -> bool:
        clock.seconds += 0.2
        return clock.seconds > 1.9

    monkeypatch.setattr(run_module, "Pace", partial(Pace, now=clock))
    folder, asked = run_module.prepare(tmp_path / "a", "tiny", data, settings={k: str(v) for k, v in QUICK.items()})
    found = list(run_module.events(asked, folder, {"budget": "60s"}, stop=stop))
    assert isinstance(found[-1], events.Stopped)
    assert len(of(events.Planned, found)) == 1


def test_a_folder_that_forgot_its_run_is_free(tmp_path, data):
    run = elegan.train("tiny", data, tmp_path / "a", steps=3, show=False, **QUICK)
    RunFolder(run.path).forget()
    RunFolder(run.path).check_free()
    assert {path.name for path in run.path.iterdir()} == {"data.json", "real.png"}


@pytest.mark.parametrize(
    ("turns", "chosen", "seconds"),  # of a step in bf16 and in fp32
    [
        ([(0.1, 0.3)], "bf16", 0.1),  # seen at a glance
        ([(1.5, 0.3), (0.1, 0.3), (0.1, 0.3)], "bf16", 0.1),
        ([(1.5, 0.3), (0.4, 0.3), (0.4, 0.3)], "fp32", 0.3),
        ([(0.5, 0.4), (0.3, 0.4), (0.6, 0.9)], "bf16", 0.5),  # slower from turn to turn
        ([(0.4, 0.4), (0.6, 0.6), (0.3, 0.5)], "fp32", 0.5),
    ],
)
def test_bf16_is_given_up_only_when_it_loses_turn_by_turn(tmp_path, data, timed, monkeypatch, turns, chosen, seconds):
    """One busy moment must not choose the slow precision for the whole run."""
    timed += [step for turn in turns for step in turn]
    monkeypatch.setattr(plan, "has_bf16", lambda device: True)
    monkeypatch.setattr(plan, "check_precision", lambda engine: None)
    folder, asked = run_module.prepare(tmp_path / "a", "tiny", data, settings={"batch": "8", "device": "cpu"})
    (planned,) = of(events.Planned, list(run_module.events(asked, folder, {"images": 16})))
    assert (planned.precision, planned.step_seconds) == (chosen, seconds)


def lengths(steps: list[float], total: int = 1000, steady: float = 0.5, budget: float = 100.0) -> list[int]:
    """What the length becomes, asked after every ten of these steps of one image each."""
    clock = Clock()
    asked, found = Pace(budget, 0.1, clock), []
    for count, seconds in enumerate(steps, 1):
        clock.seconds += seconds
        if count % 10 == 0 and count <= total:
            total = asked.images(count, total, 1, steady)
            found.append(total)
    return found


def test_a_length_follows_the_speed():
    """Twice as fast as planned, then at the planned pace: 97 s hold as many images as there are."""
    assert lengths([0.1] * 1000)[-1] == 1000
    assert lengths([0.05] * 2000)[-1] == pytest.approx(97 / 0.05, rel=0.02)
    assert lengths([0.14] * 1000)[-1] == pytest.approx(97 / 0.14, rel=0.02)
    assert sum([0.1] * 200 + [0.06] * 1280) == pytest.approx(97, rel=0.01)
    assert lengths([0.1] * 200 + [0.06] * 1400)[-1] == pytest.approx(1480, rel=0.04)


def test_a_length_stands_where_steps_depend_on_it():
    """Once rates fall, and with rates that fall from the start, the machine's speed changes nothing."""
    assert set(lengths([0.05] * 1000, steady=0.0)) == {1000}
    late = lengths([0.1] * 500 + [0.05] * 500)
    assert set(late) == {1000}
    slow = [1000, *lengths([0.1] * 300 + [0.5] * 500)]
    changes = [(10 * at, total) for at, total in enumerate(slow) if at and total != slow[at - 1]]
    assert changes
    assert all(total >= 2 * seen for seen, total in changes)


def test_a_length_far_off_is_corrected_while_it_can_be():
    """A machine let go just after a correction, or at the start, is done with its plan before the next is due."""
    for slow in (16, 2):
        assert lengths([0.51] * slow + [0.005] * 20_000, total=180)[-1] > 0.9 * (97 - 0.51 * slow) / 0.005


def test_a_length_is_not_corrected_by_little_or_at_once():
    assert set(lengths([0.098] * 900)) == {1000}
    assert lengths([0.05] * 2000)[:15] == [1000] * 15
    assert set(lengths([0.01] * 900, budget=14.0)) == {1000}
    assert lengths([0.01] * 900, budget=16.0)[-1] == pytest.approx(0.97 * 16 / 0.01, rel=0.04)
    uneasy = lengths([0.08, 0.12, 0.06, 0.13, 0.07] * 200)
    changes = sum(a != b for a, b in itertools.pairwise([1000, *uneasy]))
    assert changes <= 0.5 / pace.SETTLED, "no more than one in a twelfth of the time"


def test_a_run_whose_length_changed_is_the_run_of_its_images(tmp_path, data, timed, monkeypatch):
    """Its rates have not fallen before, so nothing it learnt depended on the length that was planned."""
    timed += [0.4]
    settings = {"lr_schedule": "linear", "lr_hold": 0.5, "log_every": 10}
    found = watch(tmp_path / "a", data, monkeypatch, 0.32, {"budget": "60s"}, "cgan-tiny", settings)
    changes = of(events.Lengthened, found)
    assert changes
    assert all(change.images <= 0.5 * change.total for change in changes)
    assert changes[0].before == int(0.94 * 60 / 0.4) * 8
    a = elegan.Run(tmp_path / "a")
    assert a.config.train.images == changes[-1].total == found[-1].images
    assert found[-1].images / 8 * 0.32 == pytest.approx(0.97 * 60, rel=0.05)
    images = a.config.train.images
    b = elegan.train("cgan-tiny", data, tmp_path / "b", images=images, show=False, **QUICK, **settings)
    assert np.array_equal(a.sample(8, seed=3).images, b.sample(8, seed=3).images)


@pytest.mark.parametrize(
    ("short", "least", "most"), [(750, 1_350, 1_500), (1_250, 1_248, 1_248), (1_128, 1_128, 1_128)]
)
def test_a_length_stays_among_those_that_begin_alike(tmp_path, data, timed, monkeypatch, short, least, most):
    """1,128 images are planned, 1,450 fit: with larger rates in short runs that may have been another run so far."""
    timed += [0.4]
    settings = {"lr_schedule": "linear", "lr_hold": 0.5, "log_every": 10, "short_run": short}
    found = watch(tmp_path / "a", data, monkeypatch, 0.32, {"budget": "60s"}, "sngan-tiny", settings)
    assert bool(of(events.Lengthened, found)) == (least > 1_128)
    a, images = elegan.Run(tmp_path / "a"), found[-1].images
    assert least <= images <= most
    b = elegan.train("sngan-tiny", data, tmp_path / "b", images=images, show=False, **QUICK, **settings)
    assert np.array_equal(a.sample(8, seed=3).images, b.sample(8, seed=3).images)


@pytest.mark.parametrize(
    ("total", "wanted", "found"),
    [
        (800, 950, 950),
        (800, 1_203, 1_000),
        (1_600, 900, 1_008),
        (1_600, 3_200, 2_000),
        (1_003, 500, 1_003),
        (2_400, 5_000, 4_000),
    ],
)
def test_the_nearest_length_that_begins_alike(total, wanted, found):
    """Lengths up to 1,000, 2,000 and 4,000 begin alike, and so do all above; steps are of eight images."""
    assert alike(lambda length: shortness(length, 1_000), total, wanted, 8) == found


def test_a_new_length_is_told():
    faster, slower = events.Lengthened(10, 100_000, 120_000), events.Lengthened(10, 100_000, 90_000)
    assert (
        progress.lengthened_text(faster)
        == "  note: the machine is faster now: 120,000 images fit the time, not 100,000"
    )
    assert "slower now: 90,000 images" in progress.lengthened_text(slower)
