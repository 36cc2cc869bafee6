"""Events as a person reads them: a live bar on a terminal, plain lines elsewhere (CI, logs, notebooks)."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

from elegan.config import duration
from elegan.doctor.finding import Finding
from elegan.training.events import (
    Checked,
    Event,
    Finished,
    Grid,
    Lengthened,
    Planned,
    Saved,
    Scores,
    Step,
    Stopped,
    Warned,
)

PLAIN_SECONDS = 10.0  # between plain lines at the start; the pause grows with the run


def show(events: Iterable[Event], folder: Path, console: Console | None = None) -> Event | None:
    """Print events as they come; returns the last one."""
    console = console or Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    last: Event | None = None
    planned = False
    view = _Bar(console, folder) if console.is_terminal else _Lines(console, folder)
    try:
        for event in events:
            planned = planned or isinstance(event, Planned)
            if isinstance(event, Finished) and not planned:
                view.line(f"{folder}: has seen its {event.images:,} images; --images N makes it train longer")
            else:
                view(event)
            last = event
    finally:
        view.close()
    return last


def plan_text(p: Planned, folder: Path) -> str:
    """The plan of a run, a few aligned lines."""
    parameters = ", ".join(f"{name} {number(n)}" for name, n in p.parameters.items())
    going = f" (going on from {p.seen:,})" if p.seen else ""
    return "\n".join(
        [
            f"  recipe     {p.preset} (family {p.family})",
            f"  data       {p.data}",
            *(f"  {'' if i else 'derived':<10} {reason}" for i, reason in enumerate(p.derived)),
            f"  device     {p.device}, {p.precision}",
            f"  networks   {parameters} parameters, batch {p.batch}",
            f"  length     {p.images:,} images{going}, {1000 * p.step_seconds:.0f} ms a step",
            f"  predicted  {duration(p.seconds)}, {p.memory / 1e6:,.0f} MB",
            f"  run        {folder}",
        ]
    )


def number(n: float) -> str:
    """`2.3 M`, `12.4 k`, `870`."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if n >= size:
            return f"{n / size:.1f} {unit}"
    return f"{n:.0f}"


def values_text(step: Step) -> str:
    """`D 1.21  G 0.88  real 71 %  fake 69 %` and whatever else the family reports."""
    v = dict(step.values)
    texts = [f"{name} {v.pop(key):.3f}" for name, key in (("D", "D_loss"), ("G", "G_loss")) if key in v]
    texts += [f"{name} {v.pop(key):.0%}" for name, key in (("real", "D_real"), ("fake", "D_fake")) if key in v]
    return "  ".join(texts + [f"{key} {value:.3g}" for key, value in v.items()])


def scores_text(event: Scores) -> str:
    """The main numbers of one scoring, in one line."""
    v = event.scores.value
    names = ("frechet", "precision", "recall", "coverage", "label_accuracy")
    found = [(name.replace("_", " "), getattr(v, name, None)) for name in names]
    return "  ".join(f"{name} {value:.3f}" for name, value in found if value is not None)


def checked_text(event: Checked) -> str:
    """The main numbers of a look at the run, in one line."""
    names = ("frechet", "precision", "recall", "diversity", "label_accuracy")
    found = [f"{name.replace('_', ' ')} {event.numbers[name]:.3g}" for name in names if name in event.numbers]
    return "  ".join(found + ["(best so far)"] * event.best)


def finding_text(finding: Finding) -> str:
    """A finding and what to do, in one line."""
    return f"  {finding.severity.upper()}: {finding.text} Try {finding.change}"


class _Lines:
    """Plain lines, at most one of progress every ten seconds, and ever fewer in a long run."""

    def __init__(self, console: Console, folder: Path) -> None:
        self.console, self.folder = console, folder
        self.start = self.printed = time.monotonic()

    def __call__(self, event: Event) -> None:
        match event:
            case Planned():
                self.line(plan_text(event, self.folder))
            case Step():
                now = time.monotonic()
                if now - self.printed >= max(PLAIN_SECONDS, 0.03 * (now - self.start)) or event.images >= event.total:
                    self.printed = now
                    self.line(step_text(event))
            case Scores():
                self.line(f"  scores at {event.images:,}: {scores_text(event)}")
            case Checked():
                self.line(f"  look at {event.images:,}: {checked_text(event)}")
            case Finding():
                self.line(finding_text(event))
            case Warned():
                self.line(f"  note: {event.text}")
            case Lengthened():
                self.line(lengthened_text(event))
            case Stopped():
                self.line(stopped_text(event))
            case Finished():
                self.line(finished_text(event, self.folder))
            case _:
                pass

    def line(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)

    def close(self) -> None:
        pass


def lengthened_text(event: Lengthened) -> str:
    """Why a run has another length now."""
    pace = "faster" if event.total > event.before else "slower"
    return f"  note: the machine is {pace} now: {event.total:,} images fit the time, not {event.before:,}"


def step_text(event: Step) -> str:
    """One line of progress."""
    left = (event.total - event.images) / max(event.images_per_second, 1e-9)
    return (
        f"  {event.images:>10,}/{event.total:,} images  {event.images_per_second:,.0f}/s  {duration(left)} left  "
        f"{values_text(event)}  {event.memory / 1e6:,.0f} MB"
    )


def stopped_text(event: Stopped) -> str:
    """What to do after an interrupt."""
    return f"stopped and saved at {event.images:,} of {event.total:,} images; run the same command again to go on"


def finished_text(event: Finished, folder: Path) -> str:
    """Where the results are."""
    looks = ""
    if event.checks:
        share = event.check_seconds / max(event.seconds, 1e-9)
        looks = f"; {event.checks} looks by the doctor took {duration(event.check_seconds)} of it ({share:.1%})"
    return (
        f"done: {event.images:,} images in {duration(event.seconds)}{looks}\n"
        f"  look    {folder / 'samples.png'}, {folder / 'training.gif'}, {folder / 'losses.png'}\n"
        f"  next    elegan report {folder}    elegan sample {folder} -n 64 --out samples.png"
    )


class _Left(ProgressColumn):
    """Time left, from the speed that the loop reports."""

    def render(self, task: Task) -> Text:
        speed = task.fields.get("speed") or 0
        left = f"{duration((task.total - task.completed) / speed)} left" if speed and task.total else ""
        return Text(left, style="cyan")


class _Bar(_Lines):
    """A live bar below the same lines."""

    def __init__(self, console: Console, folder: Path) -> None:
        super().__init__(console, folder)
        self.bar: Progress | None = None

    def __call__(self, event: Event) -> None:
        match event:
            case Planned():
                self.close()  # of a plan that is made anew
                super().__call__(event)
                self.bar = Progress(
                    SpinnerColumn(),
                    BarColumn(bar_width=None),
                    TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
                    TextColumn("{task.fields[text]}"),
                    _Left(),
                    console=self.console,
                )
                self.task = self.bar.add_task("", total=event.images, completed=event.seen, text="", speed=0)
                self.bar.start()
            case Step() if self.bar:
                text = f"{event.images_per_second:,.0f}/s  {values_text(event)}  {event.memory / 1e6:,.0f} MB"
                speed = event.images_per_second
                self.bar.update(self.task, completed=event.images, total=event.total, text=text, speed=speed)
            case Step() | Grid() | Saved():
                pass
            case Stopped() | Finished():
                self.close()
                super().__call__(event)
            case _:
                super().__call__(event)

    def close(self) -> None:
        if self.bar:
            self.bar.stop()
