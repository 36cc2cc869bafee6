"""The folder of a search: what is searched, the database of trials, and a run folder for every trial.

search.yaml          what is the same for all trials: the recipe, the space, the length, the score
search.db            an optuna study in SQLite: every trial's values, scores and state
trials/0007/seed0/   the run of trial 7 with seed 0, a run folder like any other
trials/0007/scores.jsonl   all numbers behind its scores
best.yaml            the best settings, for `elegan train --config`
what-mattered.png, history.png

Any number of processes may work on one search. A lock on the folder is held for moments, while one of them takes
a trial; a lock on the trial's folder is held as long as it works on it. The system lets go of both when a process
dies, however it dies, so a trial that stands as running and whose lock is free is taken up where its run stopped.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TextIO

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from elegan import families
from elegan.config import RunConfig, differences, one_line, parse, read_file
from elegan.errors import UserError
from elegan.files import write_bytes
from elegan.tuning.space import Dimension, parse_space

STUDY = "search"
DATABASE_SECONDS = 120  # to wait for another process's write


class Terms(BaseModel):
    """What all trials of a search share, beside the recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    search: tuple[str, ...]
    trials: int = Field(gt=0)
    length: dict[str, Any]
    equal: Literal["time", "images"]
    score: str
    features: str
    samples: int = Field(ge=100)
    prune: Literal["median", "hyperband", "none"]
    seeds: int = Field(gt=0)
    count: Literal["mean", "worst"]
    seed: int = Field(ge=0)


def need_optuna() -> None:
    """UserError when the extra is not installed."""
    if importlib.util.find_spec("optuna") is None:
        raise UserError("a search needs optuna: pip install 'elegan[tune]'")


class SearchFolder:
    """A search on the disk."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._config: tuple[Terms, RunConfig, list[Dimension]] | None = None

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def exists(self) -> bool:
        """Whether a search was started here."""
        return (self / "search.yaml").is_file()

    def trial(self, number: int) -> Path:
        """The folder of one trial."""
        return self / f"trials/{number:04}"

    def config(self) -> tuple[Terms, RunConfig, list[Dimension]]:
        """Terms, recipe and space. UserError when there is no search, or its file is damaged."""
        if self._config is None:
            where = self / "search.yaml"
            if not self.exists:
                raise UserError(f"{self.path}: is not the folder of a search (no search.yaml); start one there")
            content = read_file(where)
            content.pop("version", None)
            recipe = content.pop("recipe", None)
            if not isinstance(recipe, dict):
                raise UserError(f"{where}: damaged (no recipe); restore it from a copy")
            base = parse(recipe, families.get(str(recipe.get("family"))).Config, str(where))
            try:
                terms = Terms.model_validate(content)
            except ValidationError as error:
                raise UserError(f"{where}: damaged ({one_line(error)}); restore it from a copy") from None
            self._config = terms, base, parse_space(terms.search, base)
        return self._config

    def create(self, terms: Terms, base: RunConfig) -> None:
        """Start a search here, or change its terms: search.yaml, written whole."""
        content = {"version": 1} | terms.model_dump(mode="json") | {"recipe": base.model_dump(mode="json")}
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            others = [p.name for p in self.path.iterdir() if p.name != ".lock" and not p.name.startswith("search.")]
            if others and not self.exists:
                raise UserError(f"{self.path}: is not empty and holds no search; choose another --out")
            text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
            write_bytes(self / "search.yaml", text.encode())
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror}); choose another --out") from None
        self._config = None

    def agree(self, terms: Terms, base: RunConfig) -> Terms:
        """The terms under which an existing search goes on: more trials, or what it was. UserError otherwise."""
        was, old, _ = self.config()
        apart = {key: pair for key, pair in differences(old, base).items() if key != "train.device"}
        for key, before in was.model_dump(mode="json").items():
            if key != "trials" and before != terms.model_dump(mode="json")[key]:
                apart[key] = (before, terms.model_dump(mode="json")[key])
        if apart:
            listed = ", ".join(f"{key}: {a!r} there, {b!r} asked" for key, (a, b) in list(apart.items())[:4])
            raise UserError(f"{self.path}: holds a search on other terms ({listed}); choose another --out")
        return terms

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Alone among all processes of this search, for a moment."""
        with (self / ".lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def claim(self, number: int) -> TextIO | None:
        """The lock of one trial, held until it is closed; None when a living process has it."""
        folder = self.trial(number)
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / ".lock").open("w")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.close()
            return None
        return handle

    @contextlib.contextmanager
    def study(self) -> Iterator[Any]:
        """The optuna study, made if there is none. UserError when the database is damaged."""
        need_optuna()
        import optuna
        from sqlalchemy.engine import URL
        from sqlalchemy.exc import SQLAlchemyError

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        url = URL.create("sqlite", database=str((self / "search.db").resolve())).render_as_string()
        storage = None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what is experimental in optuna
                storage = optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": DATABASE_SECONDS}})
                study = optuna.create_study(
                    storage=storage, study_name=STUDY, load_if_exists=True, direction=self.direction()
                )
                yield study
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            reason = " ".join(str(error.__cause__ or error).split())[:120]
            raise UserError(f"{self / 'search.db'}: cannot be used ({reason}); restore it, or start anew") from None
        finally:
            if storage is not None:
                storage.remove_session()
                storage.engine.dispose()

    def direction(self) -> Literal["minimize", "maximize"]:
        """What optuna calls the better side of the score."""
        from elegan.tuning.scoring import lower_is_better

        return "minimize" if lower_is_better(self.config()[0].score) else "maximize"
