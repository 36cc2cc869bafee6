"""`elegan compare`: runs side by side, as text, as JSON, and as one HTML file."""

from __future__ import annotations

import html
import os
import shutil
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from elegan.about import NARROWEST, PAPER, table
from elegan.config import duration
from elegan.errors import UserError
from elegan.reports import sections
from elegan.reports.charts import Chart, Line, chart, count_form
from elegan.reports.contestants import (
    Cell,
    Contestant,
    Entrant,
    Row,
    Table,
    Test,
    check_comparable,
    differing_settings,
    group,
)
from elegan.reports.evaluation import HINT, Evaluation, checkpoints, evaluation
from elegan.reports.facts import facts
from elegan.reports.pictures import Picture
from elegan.reports.render import Page, check_out, render
from elegan.training.checkpoint import listing
from elegan.training.trained import Run

SHEETS = 12  # of samples, at most
MOST_SETTINGS = 12  # in the text
MANY = "Of many numbers that are tested, one in twenty looks different by chance alone: trust what several agree on."


def compare(
    runs: Sequence[Any],
    out: str | os.PathLike[str] | None = None,
    *,
    samples: int | None = None,
    features: str | None = None,
    inception_weights: str | os.PathLike[str] | None = None,
    evaluate: bool = True,
    data: str | os.PathLike[str] | None = None,
    device: str = "auto",
    checkpoint: str = "last",
    say: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Put runs side by side. What `elegan compare` does.

    `runs` are `Run`s or their folders, at least two, trained on the same data. Runs that differ only in their seed are
    one contestant. Each is evaluated unless its scores are kept (see `elegan.report`); `evaluate=False` shows what is
    kept. With `out` a page is written. Raises UserError for runs that do not compare: other data, another protocol.
    """
    if out is not None:
        check_out(out)
    opened = [run if isinstance(run, Run) else Run(run, device, checkpoint) for run in runs]
    if len(opened) < 2:
        raise UserError("a comparison takes at least two runs: elegan compare RUN RUN")
    seen: dict[Path, Run] = {}
    for run in opened:
        if run.path.resolve() in seen:
            raise UserError(f"{run.path}: named twice; a run cannot be compared with itself")
        seen[run.path.resolve()] = run
    check_comparable([Entrant(run, facts(run.folder), Evaluation()) for run in opened])  # before any work
    options: dict[str, Any] = {"features": features, "inception_weights": inception_weights}
    options |= {"data": data, "fresh": evaluate, "suspects": False, "say": say, "hint": HINT}
    entrants = [Entrant(run, facts(run.folder), evaluation(run, samples, **options)) for run in opened]
    check_comparable(entrants)
    made = Comparison(group(entrants))
    if out is not None:
        made.page.save(out)
    return made


class Comparison:
    """Contestants and their numbers. `print` it, `to_dict()` it, or look at its `page`."""

    def __init__(self, contestants: list[Contestant]) -> None:
        self.contestants = contestants
        self.table = Table(contestants)

    @property
    def entrants(self) -> list[Entrant]:
        """All runs."""
        return [entrant for contestant in self.contestants for entrant in contestant.entrants]

    @cached_property
    def settings(self) -> dict[str, list[str]]:
        """Settings in which contestants differ."""
        return differing_settings([contestant.config for contestant in self.contestants])

    @cached_property
    def notes(self) -> list[str]:
        """What a reader must know before believing the table."""
        found = []
        for entrant in self.entrants:
            seen, planned = entrant.facts.images, entrant.facts.info["planned"]
            if planned and seen < planned:
                found.append(f"{entrant.run.path} is not finished: {seen:,} of {planned:,} images seen.")
            if not entrant.judged.scores:
                found.append(f"{entrant.run.path} has no scores: {entrant.judged.why}.")
        images = {contestant.name: contestant.entrants[0].facts.images for contestant in self.contestants}
        if len(set(images.values())) > 1:
            told = ", ".join(f"{name} {n:,}" for name, n in images.items())
            found.append(f"The contestants have seen different numbers of images ({told}).")
        if len(self.contestants) == 1:
            found.append("All runs differ only in their seed: one contestant, nothing to compare it with.")
        if len(self.contestants) > 2:
            found.append("Chance is judged between two contestants; compare two of these to see it.")
        return found

    @cached_property
    def page(self) -> Page:
        """The HTML page."""
        return Page(html_of(self))

    def save(self, out: str | os.PathLike[str]) -> Page:
        """Write the page. UserError where it cannot be written."""
        return self.page.save(out)

    def to_dict(self) -> dict[str, Any]:
        """Plain values only: what `--json` prints."""
        first = self.entrants[0]
        protocol = next((e.judged.protocol for e in self.entrants if e.judged.scores), None)
        return {
            "data": {key: first.facts.data[key] for key in ("name", "fingerprint", "count")},
            "contestants": [
                {
                    "name": contestant.name,
                    "runs": [_run(entrant) for entrant in contestant.entrants],
                    "scores": {
                        row.field: {"mean": cell.mean, "worst": cell.worst, "deviation": cell.spread}
                        for row in self.table.rows
                        if (cell := row.cells[i]).values
                    },
                }
                for i, contestant in enumerate(self.contestants)
            ],
            "settings": self.settings,
            "floor": {row.field: row.floor for row in self.table.rows},
            "tests": [test.to_dict() for test in self.table.tests],
            "protocol": protocol,
            "notes": self.notes,
        }

    def __str__(self) -> str:
        return text(self)

    def __repr__(self) -> str:
        return f"Comparison({', '.join(f'{c.name} ({len(c.entrants)})' for c in self.contestants)})"

    def _repr_html_(self) -> str:
        """The table of scores."""
        head = "".join(f"<th>{html.escape(name)}</th>" for name in ["", *(c.name for c in self.contestants), "floor"])
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(row)) + "</tr>"
            for row in self.table.rows
        )
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{notes}"


def _run(entrant: Entrant) -> dict[str, Any]:
    info = entrant.facts.info
    return {
        "path": str(entrant.run.path),
        "seed": entrant.seed,
        "images": entrant.facts.images,
        "seconds": info["seconds"],
        "scores": entrant.judged.scores["value"] if entrant.judged.scores else None,
    }


# Text ---------------------------------------------------------------------------------------------------------------


def text(made: Comparison) -> str:
    """The comparison for a terminal."""
    width = max(NARROWEST, shutil.get_terminal_size((PAPER, 24)).columns)
    data = made.entrants[0].facts.data
    blocks = [f"{len(made.entrants)} runs on {data['name']} ({data['count']:,} images, {data['fingerprint']})"]
    listed = [(c.name, f"{c.seeds}: {', '.join(str(e.run.path) for e in c.entrants)}") for c in made.contestants]
    blocks.append(table(listed, width))
    names = [contestant.name for contestant in made.contestants]
    if made.settings and len(names) > 1:
        rows = [(key, *values) for key, values in list(made.settings.items())[:MOST_SETTINGS]]
        left = len(made.settings) - len(rows)
        more = f"\nand {left} more; --out FILE.html and --json have all" if left > 0 else ""
        blocks.append("settings that differ\n" + table(rows, width, ("", *names)) + more)
    if made.table.rows:
        several = any(len(c.entrants) > 1 for c in made.contestants)
        title = "scores" + (": mean over seeds (worst seed)" if several else "")
        rows = [(*_cells(row), row.better) for row in made.table.rows]
        blocks.append(title + "\n" + table(rows, width, ("", *names, "floor", "better")))
    blocks += _chance(made, width)
    protocol = next((e.judged for e in made.entrants if e.judged.scores), None)
    if protocol:
        from elegan.reports.page import protocol_lines

        blocks.append("\n".join(protocol_lines(protocol)))
    blocks += [f"note: {note}" for note in made.notes]
    return "\n\n".join(blocks)


def _chance(made: Comparison, width: int) -> list[str]:
    """What the seeds of two contestants prove; one line where it is the same for all numbers."""
    tests = made.table.tests
    if not tests:
        return []
    told = list(dict.fromkeys(str(test.verdict) for test in tests))
    if len(told) == 1:
        return [f"chance or not\n{told[0]}"]
    first, second = (contestant.name for contestant in made.contestants)
    rows = [(test.title, *interval_text(test), test.verdict.judgement) for test in tests]
    counted = tests[0].verdict.counted
    header = ("", "difference", "95 % interval", counted)
    return [f"chance or not: {second} minus {first}\n{table(rows, width, header)}\n{MANY}"]


def interval_text(test: Test) -> tuple[str, str]:
    """The difference and its interval."""
    interval = test.verdict.interval
    span = f"{interval.low:+.3g} to {interval.high:+.3g}" if interval else "-"
    return f"{test.difference:+.3g}", span


def _cells(row: Row) -> list[str]:
    """Title, one text a contestant, floor."""
    floor = f"{row.floor:.{row.digits}f}" if row.floor is not None else "-"
    return [row.title, *(cell_text(cell, row.digits) for cell in row.cells), floor]


def cell_text(cell: Cell, digits: int) -> str:
    """`8.946 (9.310)`: the mean and the worst seed; the value alone of one run."""
    if cell.mean is None:
        return "-"
    worst = f" ({cell.worst:.{digits}f})" if len(cell.values) > 1 else ""
    return f"{cell.mean:.{digits}f}{worst}"


# HTML ---------------------------------------------------------------------------------------------------------------


def html_of(made: Comparison) -> str:
    """The page."""
    from elegan.reports.page import protocol_lines

    judged = next((e.judged for e in made.entrants if e.judged.scores), Evaluation())
    return render(
        "compare.html.j2",
        title=" against ".join(c.name for c in made.contestants[:3]) + (" …" if len(made.contestants) > 3 else ""),
        rgba=made.entrants[0].facts.data["channels"] == 4,
        contestants=made.contestants,
        entrants=made.entrants,
        comparison=made,
        data=made.entrants[0].facts.data,
        costs=[cost(entrant) for entrant in made.entrants],
        charts=curves(made.contestants),
        sheets=sheets(made.contestants),
        limits=protocol_lines(judged),
        many=MANY,
        bar=bar,
        interval_text=interval_text,
    )


def cost(entrant: Entrant) -> list[str]:
    """What a run took, as texts."""
    info = entrant.facts.info
    if info["seconds"] is None:
        return [f"{entrant.facts.images:,}", "-", "-", "-"]
    return [
        f"{entrant.facts.images:,}",
        duration(info["seconds"]),
        f"{info['images_per_second']:,.0f}",
        f"{info['memory'] / 1e6:,.0f}",
    ]


def bar(row: Row, value: float) -> float:
    """Per cent of a small scale from zero on, which all values of a row and its floor fit."""
    every = [abs(v) for cell in row.cells for v in cell.values] + [abs(row.floor or 0.0)]
    end = 1.0 if row.better == "higher" and max(every) <= 1 else (1.08 * max(every) or 1.0)
    return min(max(100 * value / end, 0.0), 100.0)


def sheets(contestants: Sequence[Contestant]) -> list[tuple[str, str, Picture]]:
    """A sheet of each run with the same noise and labels: contestant, seed, picture."""
    found: list[tuple[str, str, Picture]] = []
    for contestant in contestants:
        for entrant in contestant.entrants:
            whole = listing(checkpoints(entrant.run))
            if len(found) < SHEETS and whole and hasattr(entrant.run.model, "draw"):
                found.append((contestant.name, f"seed {entrant.seed}", sections.samples(entrant.run, 50, seed=1)))
    return found


def curves(contestants: Sequence[Contestant]) -> list[Chart]:
    """What all runs recorded, a colour for each contestant and a line for each seed."""
    legend = [(c.name, i, i // 6) for i, c in enumerate(contestants)]
    made = [
        *(
            chart(title, lines(contestants, "scores", field), note, y_range=span, legend=legend)
            for field, title, note, span in (
                ("frechet", "Frechet distance", "Of the scores during the runs; lower is better.", (0, None)),
                ("precision", "Precision", "Higher is better.", (0, 1)),
                ("recall", "Recall", "Higher is better.", (0, 1)),
                ("label_accuracy", "Label accuracy", "Higher is better.", (0, 1)),
            )
        ),
        *(
            chart(title, lines(contestants, "stats", field), note, y_range=span, form=form, smooth=True, legend=legend)
            for field, title, note, span, form in (
                ("G_loss", "G's loss", "Losses of different objectives do not compare.", (None, None), None),
                ("D_loss", "D's loss", "Losses of different objectives do not compare.", (None, None), None),
                ("D_real", "D is right on real", "One half is guessing.", (0, 1), lambda v: f"{v:.0%}"),
                ("D_fake", "D is right on fake", "One half is guessing.", (0, 1), lambda v: f"{v:.0%}"),
                ("images_per_second", "Images a second", "", (0, None), count_form),
            )
        ),
    ]
    return [one for one in made if one is not None]


def lines(contestants: Sequence[Contestant], where: str, field: str) -> list[Line]:
    """One number of all runs that recorded it."""
    found = []
    for i, contestant in enumerate(contestants):
        for entrant in contestant.entrants:
            rows = getattr(entrant.facts, where)
            name = f"{contestant.name}, seed {entrant.seed}"
            found.append(sections.line(entrant.facts, rows, field, name, i, dash=i // 6))
    return found
