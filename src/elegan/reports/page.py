"""`elegan report`: one run as one HTML file."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from elegan.errors import UserError
from elegan.reports import sections
from elegan.reports.evaluation import HINT, Evaluation, checkpoints, evaluation
from elegan.reports.facts import Facts, changes, facts, settings
from elegan.reports.pictures import Picture, file_picture
from elegan.reports.readings import Reading, readings
from elegan.reports.render import Page, check_out, render
from elegan.training.checkpoint import listing
from elegan.training.trained import Run

CARDS = ("frechet", "precision", "recall", "label_accuracy", "copies")


def report(
    run: Any,
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
) -> Page:
    """Write a run's report: one HTML file that needs no network. What `elegan report` does.

    `run` is a `Run` or its folder; `out` the file, by default `report.html` in the folder. The run's newest
    checkpoint is evaluated (`samples` samples, by default 10,000; `features` and `inception_weights` as in
    `elegan.evaluate`) unless its scores are kept already, in `scores.json` and `suspects.npz`; with `evaluate=False`
    only what is kept is shown. `data` is where the run's data is now, if it moved; `checkpoint` is "last" or "best";
    `say` is told what takes long. Raises UserError for a folder that is no run, data that cannot be found, or a file
    that cannot be written.
    """
    opened = run if isinstance(run, Run) else Run(run, device, checkpoint)
    path = check_out(opened.path / "report.html" if out is None else out)
    judged = evaluation(
        opened, samples, features=features, inception_weights=inception_weights, data=data, fresh=evaluate, say=say,
        hint=HINT,
    )  # fmt: skip
    page = Page(html_of(opened, judged))
    return page.save(path)


def html_of(run: Run, judged: Evaluation) -> str:
    """The page of a run and its evaluation."""
    found = facts(run.folder)
    rows = readings(judged.scores) if judged.scores else []
    cards = [card(row, judged) for name in CARDS for row in rows if row.field == name]
    return render(
        "report.html.j2",
        title=found.title,
        run=found,
        rgba=found.data["channels"] == 4,
        cells=found.cells(),
        cards=cards,
        judged=judged,
        rows=rows,
        limits=protocol_lines(judged),
        changed=changes(found.config),
        settings=settings(found.config),
        findings=findings(found),
        film=sections.film(found),
        real=sections.real_sheet(found),
        charts=sections.curves(found),
        class_rows=sections.class_table(judged.scores) if judged.scores else [],
        per_class=sections.per_class(judged.scores) if judged.scores else None,
        suspects=sections.suspects(judged.suspects) if judged.suspects else [],
        copy_verdict=sections.copy_verdict(judged.suspects) if judged.suspects else "",
        **drawn(run, found),
    )


def card(row: Reading, judged: Evaluation) -> Reading:
    """A reading as the head of the scores shows it: copies are counted."""
    if row.field != "copies" or not judged.scores:
        return row
    n = int(judged.protocol["samples"])
    value, floor = (round(n * judged.scores[side]["copies"]) for side in ("value", "floor"))
    return row._replace(title=f"Copies, of {n:,} samples", value=f"{value:,}", floor=f"{floor:,}")


def drawn(run: Run, found: Facts) -> dict[str, Any]:
    """What the model draws anew for a report: nothing where it has no checkpoint, or makes images from images."""
    nothing: dict[str, Any] = {"sheet": None, "classes": [], "paths": [], "conditional": False, "more_classes": 0}
    nothing["faults"] = []
    if not listing(checkpoints(run)):
        return nothing
    try:
        model = run.model
    except UserError as error:
        return nothing | {"faults": [str(error)]}
    if not hasattr(model, "draw"):
        return nothing
    classes = sections.class_sheets(run, found)
    return {
        "faults": [f"damaged checkpoint passed over: {fault}" for fault in run.faults],
        "sheet": sections.samples(run),
        "classes": classes,
        "more_classes": max(run.model.categories - len(classes), 0),
        "conditional": run.conditional,
        "paths": sections.paths(run),
    }


def findings(found: Facts) -> list[tuple[Any, Picture | None]] | None:
    """The doctor's findings with their pictures; None where the doctor has not looked."""
    if found.findings is None:
        return None
    return [
        (finding, file_picture(finding.picture, f"Evidence: {finding.text}") if finding.picture else None)
        for finding in found.findings
    ]


def protocol_lines(judged: Evaluation) -> list[str]:
    """How the scores were made, as `elegan evaluate` says it."""
    if not judged.scores:
        return []
    from elegan.metrics.scores import Protocol

    return Protocol.model_validate(judged.protocol).lines()
