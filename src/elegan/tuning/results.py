"""What a search has found: its trials, the best of them as a configuration, a table, and two pictures."""

from __future__ import annotations

import contextlib
import os
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from elegan.config import RunConfig, TrainConfig, duration
from elegan.errors import UserError
from elegan.files import write_bytes
from elegan.tuning.folder import SearchFolder
from elegan.tuning.scoring import lower_is_better
from elegan.tuning.space import text, with_values

SHOWN = 10  # trials in the table
OUTCOMES = ("done", "pruned", "failed", "running")


@dataclass(frozen=True)
class TrialResult:
    """One trial as the database has it."""

    number: int
    outcome: str
    """done, pruned, failed or running (also: interrupted, and to be gone on with)."""
    values: dict[str, Any]
    """Of the settings searched, by name."""
    score: float | None = None
    """The final score; None unless it is done."""
    reached: dict[int, float] = field(default_factory=dict)
    """Scores on the way, by rung: 1 is an eighth of the first seed's run, and so on."""
    why: str = ""
    """Why it was given up or failed."""
    recipe: bool = False
    """Whether it is the recipe as it is."""
    seconds: float | None = None
    """Training time of all its seeds, once it is done."""


class Search:
    """A search on the disk; `print(search)` shows its state. Raises UserError when there is none at `path`.

    `study`: its database, where this process has it open already.
    """

    def __init__(self, path: str | os.PathLike[str], study: Any = None) -> None:
        self.folder = SearchFolder(path)
        self.path = self.folder.path
        self.terms, self.base, self.dimensions = self.folder.config()
        self.floor: float | None = None
        self.protocol = ""
        self.trials: list[TrialResult] = []
        if (self.path / "search.db").is_file():
            with contextlib.nullcontext(study) if study else self.folder.study() as opened:
                self.floor = opened.user_attrs.get("floor")
                self.protocol = opened.user_attrs.get("protocol", "")
                found = [(t, outcome(t)) for t in opened.get_trials(deepcopy=False)]
                self.trials = [self._result(t, how) for t, how in found if how != "waiting"]

    def _result(self, frozen: Any, how: str) -> TrialResult:
        attributes = frozen.user_attrs
        by_text = {d.name: {text(c): c for c in d.choices} for d in self.dimensions}
        values = {name: by_text.get(name, {}).get(value, value) for name, value in frozen.params.items()}
        return TrialResult(
            number=frozen.number,
            outcome=how,
            values=values,
            score=frozen.value if how == "done" else None,
            reached=dict(sorted(frozen.intermediate_values.items())),
            why=attributes.get("why", ""),
            recipe=bool(attributes.get("recipe")),
            seconds=attributes.get("seconds"),
        )

    def ranked(self) -> list[TrialResult]:
        """The trials that are done, the best first."""
        done = [t for t in self.trials if t.score is not None]
        sign = 1 if lower_is_better(self.terms.score) else -1
        return sorted(done, key=lambda t: (sign * (t.score or 0.0), t.number))

    @property
    def best(self) -> TrialResult:
        """The best trial. UserError while none is done."""
        ranked = self.ranked()
        if not ranked:
            raise UserError(f"{self.path}: no trial is done yet; the same command goes on")
        return ranked[0]

    def config(self, trial: TrialResult | None = None) -> RunConfig:
        """The whole configuration of a trial (the best by default), to train on all training images."""
        chosen = trial or self.best
        values = {d.key: chosen.values[d.name] for d in self.dimensions}
        train = TrainConfig(**self.base.train.model_dump(include={"seed", "device", "precision"}))
        return with_values(self.base.model_copy(update={"train": train}), values | {"data.validation": 0.0})

    def run(self, trial: TrialResult | None = None) -> Any:
        """The run of a trial (the best by default) with its first seed. The three best keep their checkpoints."""
        from elegan.training.trained import Run

        number = (trial or self.best).number
        return Run(self.folder.trial(number) / f"seed{self.base.train.seed}")

    def write(self, pictures: bool = True) -> None:
        """Write best.yaml, and the two pictures, as far as there is something to show."""
        if self.ranked():
            write_bytes(self.folder / "best.yaml", self.best_yaml().encode())
        if pictures:
            from elegan.tuning.plots import plot_history, plot_what_mattered

            plot_history(self, self.folder / "history.png")
            plot_what_mattered(self, self.folder / "what-mattered.png")

    def best_yaml(self) -> str:
        """The best settings as a file for `elegan train --config`, complete and with a heading that says whence."""
        best = self.best
        content = self.config().model_dump(mode="json", exclude={"version"})
        ((length, value),) = self.terms.length.items()
        known = {"seed", *(d.name for d in self.dimensions)} | (
            {length} if length in TrainConfig.model_fields else set()
        )
        content["train"][length] = value
        content["train"] = {key: v for key, v in content["train"].items() if key in known}
        flag = "" if length in known else f" --{length} {value}"
        heading = [
            f"trial {best.number} of {self.path}: {self.terms.score} {best.score:.4g}, the best of {len(self.trials)}",
            f"{self.protocol}; {self._lengths()}",
            f"searched: {', '.join(f'{name}={text(value)}' for name, value in best.values.items())}",
            f"train it: elegan train --config {self.path / 'best.yaml'}{flag}",
        ]
        body = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        return "".join(f"# {line}\n" for line in heading) + body

    def _lengths(self) -> str:
        ((key, value),) = self.terms.length.items()
        each = f"{value} of training each" if key == "budget" else f"{value:,} {key} each"
        if self.terms.seeds > 1:
            each += f", {self.terms.count} of {self.terms.seeds} seeds"
        return each

    def __str__(self) -> str:
        counts = {how: sum(t.outcome == how for t in self.trials) for how in OUTCOMES}
        said = ", ".join(f"{n} {how}" for how, n in counts.items() if n)
        good = "lower" if lower_is_better(self.terms.score) else "higher"
        floor = "" if self.floor is None else f"; real images: {self.floor:.4g}"
        lines = [
            f"{self.path}: {self.base.preset} ({self.base.family}) on {self.base.data.source}",
            f"  {len(self.trials)} of {self.terms.trials} trials ({said or 'none begun'}), {self._lengths()}",
            f"  {self.terms.score} ({good} is better){floor}; {self.protocol}",
            "",
            *self._table(),
        ]
        for how, word in (("failed", "failed"), ("running", "not finished")):
            for t in [t for t in self.trials if t.outcome == how][:SHOWN]:
                lines.append(f"  trial {t.number} {word}: {t.why or self._progress(t)}")
        if self.ranked():
            lines += ["", *self._remarks(), *self._files()]
        return "\n".join(lines)

    def _progress(self, trial: TrialResult) -> str:
        if not trial.reached:
            return "no score yet"
        return f"{self.terms.score} {list(trial.reached.values())[-1]:.4g} at score {len(trial.reached)}"

    def _table(self) -> list[str]:
        ranked = self.ranked()
        if not ranked:
            return ["  no trial is done yet"]
        rows = ranked[:SHOWN]
        recipe = next((t for t in ranked if t.recipe), None)
        if recipe is not None and recipe not in rows:
            rows.append(recipe)
        names = [d.name for d in self.dimensions]
        table = [["trial", self.terms.score, "time", *names, ""]]
        for t in rows:
            time = "" if t.seconds is None else duration(t.seconds)
            note = "the recipe as it is" if t.recipe else ""
            values = [_short(t.values[name]) for name in names]
            table.append([str(t.number), f"{t.score:.4g}", time, *values, note])
        widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
        return ["  " + "  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in table]

    def _remarks(self) -> list[str]:
        """What the reader should know before trusting the first row."""
        lines = []
        done = self.ranked()
        if self.terms.seeds == 1 and len(done) > 1:
            lines.append("  one seed a trial: neighbours in this table may differ by luck alone (--seeds 3 tells)")
        timed = [t.seconds for t in done if t.seconds]
        if "budget" in self.terms.length and len(timed) > 1 and max(timed) > 1.4 * statistics.median(timed):
            lines.append("  trials took unequal times: the machine was busy with something else meanwhile")
        return lines

    def _files(self) -> list[str]:
        pictures = [str(self.path / n) for n in ("what-mattered.png", "history.png") if (self.path / n).is_file()]
        lines = [f"  look   {', '.join(pictures)}"] if pictures else []
        return [*lines, f"  train  elegan train --config {self.path / 'best.yaml'}"]

    def to_dict(self) -> dict[str, Any]:
        """Plain values only: what `--json` prints."""
        ranked = self.ranked()
        return {
            "path": str(self.path),
            "preset": self.base.preset,
            "data": self.base.data.source,
            **self.terms.model_dump(mode="json"),
            "floor": self.floor,
            "protocol": self.protocol,
            "best": ranked[0].number if ranked else None,
            "results": [asdict(t) for t in self.trials],
        }

    def __repr__(self) -> str:
        return f"Search({str(self.path)!r}: {len(self.trials)} of {self.terms.trials} trials)"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else text(value)


def outcome(frozen: Any) -> str:
    """How an optuna trial stands: done, pruned, failed, running or waiting."""
    state = frozen.state.name
    if state == "COMPLETE":
        return "done"
    if state in ("PRUNED", "FAIL"):
        return str(frozen.user_attrs.get("outcome", "pruned" if state == "PRUNED" else "failed"))
    return "running" if state == "RUNNING" else "waiting"


def show(path: str | os.PathLike[str]) -> Search:
    """The state of a search, without touching it. UserError when there is none."""
    if not Path(path).is_dir():
        raise UserError(f"{path}: no such folder; start a search with `elegan tune --out {path}`")
    return Search(path)
