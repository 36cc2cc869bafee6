"""`elegan.tune`: search a recipe's settings, many equal trials, by a score on held-out training images.

Trials are told apart by optuna's TPE sampler (Bergstra+ 2011, Algorithms for Hyper-Parameter Optimization) and cut
short by its pruners. The first trial is the recipe as it is. What a trial tries follows from the search's seed, the
trial's number and the trials before it, so that a search that was interrupted goes on as it would have.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from elegan.config import RunConfig
from elegan.errors import UserError
from elegan.tuning.folder import SearchFolder, Terms, need_optuna
from elegan.tuning.results import Search, outcome
from elegan.tuning.space import Dimension, default_space, parse_space, text, with_values

KEPT = 3  # best trials that keep their checkpoints
ATTEMPTS = 3  # times that a trial may take its process down with it

Say = Callable[[str], None]


def tune(
    preset: str | None = None,
    data: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    *,
    search: Sequence[str] | Mapping[str, Any] | None = None,
    trials: int | None = None,
    budget: str | None = None,
    images: int | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    equal: str | None = None,
    score: str | None = None,
    features: str | os.PathLike[str] | None = None,
    samples: int | None = None,
    prune: str | None = None,
    seeds: int | None = None,
    count: str | None = None,
    workers: int = 1,
    seed: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    show: bool = True,
    **settings: Any,
) -> Search:
    """Search the settings of a recipe and return what was found; the same call again goes on. `elegan tune` does this.

    `search` holds ranges, `["G_lr=1e-4..1e-3:log", "batch=32,64"]` or `{"G_lr": "1e-4..1e-3:log", "batch": [32,
    64]}`; without it learning rates, batch and weight average are searched around the recipe's own. Each of `trials`
    (20) trains for `budget` ("3m"), timed by itself, or for as many `images`, `epochs` or `steps`; `equal="images"`
    turns the budget into one number of images for all. `score` (frechet) is computed on held-out training images
    with `features`, from `samples` (5000). `prune`: median, hyperband or none. `seeds` runs a trial, whose `count`
    (mean or worst) is its score. `workers` processes share the machine. Raises UserError for a mistake; an interrupt
    leaves everything saved and then raises KeyboardInterrupt.
    """
    given = {"search": search, "trials": trials, "equal": equal, "score": score, "samples": samples, "prune": prune}
    given |= {"features": None if features is None else str(features), "seeds": seeds, "count": count}
    length = {"budget": budget, "images": images, "epochs": epochs, "steps": steps}
    options = {"seed": seed, "device": device, "precision": precision, "config": config, "settings": settings}
    return run_search(preset, data, out, given, length, options, workers, show)


def run_search(
    preset: str | None,
    data: str | os.PathLike[str] | None,
    out: str | os.PathLike[str] | None,
    given: Mapping[str, Any],
    length: Mapping[str, Any],
    options: Mapping[str, Any],
    workers: int = 1,
    show: bool = True,
) -> Search:
    """`tune` with its arguments in groups: the search's terms, the trials' length, and what `configure` takes."""
    from elegan.training.run import Interrupted, stop_on_signals

    need_optuna()
    if workers < 1:
        raise UserError(f"--workers {workers}: at least one process is needed")
    say = _print if show else _silent
    with stop_on_signals() as stop:
        folder, scorer = begin(out, preset, data, given, length, options, say)
        if workers == 1:
            work(folder, stop, say, scorer)
        else:
            _workers(folder, workers, stop, show)
        found = Search(folder.path)
        found.write()
    if show:
        print(found)
    if stop.signal:
        raise Interrupted(stop.signal)
    return found


def begin(
    out: str | os.PathLike[str] | None,
    preset: str | None,
    data: str | os.PathLike[str] | None,
    given: Mapping[str, Any],
    length: Mapping[str, Any],
    options: Mapping[str, Any],
    say: Say = lambda _: None,
) -> tuple[SearchFolder, Any]:
    """The search of this folder, as it is there or new: `(SearchFolder, Scorer)`. Everything is checked before."""
    from elegan.training.run import check_length, configure
    from elegan.tuning.scoring import Scorer, hold_out

    folder = SearchFolder(out) if out is not None else None
    was = folder.config() if folder is not None and folder.exists else None
    asked = configure(preset, data, **options, base=was[1] if was else None)
    train = {"images": 0, "budget": None, "score_every": 0, "grids": 1, "keep": 1, "check_share": 0.0}
    set_images = None if asked.derived else asked.train.images or None  # what follows from the data is a whole run's
    lengths = check_length(length) or check_length({"images": set_images, "budget": asked.train.budget})
    base = asked.model_copy(update={"train": asked.train.model_copy(update=train)})
    if folder is None:
        folder = SearchFolder(Path("tunes") / f"{base.preset}-{Path(base.data.source).stem}")
        was = folder.config() if folder.exists else None
    if was:
        held = {"validation": base.data.validation or was[1].data.validation}
        base = base.model_copy(update={"data": base.data.model_copy(update=held)})
    terms = _terms(given, lengths, base, was[0] if was else None, options["seed"])
    scorer = Scorer(base := hold_out(base), terms.score, terms.features, terms.samples)
    if was:
        terms = folder.agree(terms, base)
    elif terms.equal == "images":
        terms = terms.model_copy(update={"length": {"images": _images_of(base, terms.length)}})
    if not was or terms.trials != was[0].trials:
        folder.create(terms, base)
    dimensions = folder.config()[2]
    with folder.lock(), folder.study() as study:
        if not study.trials:
            study.enqueue_trial(own_values(base, dimensions))
            study.set_user_attr("floor", scorer.floor)
            study.set_user_attr("protocol", scorer.protocol)
    how = f"{_length_text(terms)} each" + (f" for each of {terms.seeds} seeds" if terms.seeds > 1 else "")
    say(f"{folder.path}: {base.preset} ({base.family}) on {base.data.source}, {terms.trials} trials, {how}")
    say("  search  " + "\n          ".join(map(str, dimensions)))
    say(f"  score   {terms.score}: {scorer.protocol}; real images {scorer.floor:.4g}")
    if scorer.note:
        say(f"  note: {scorer.note}")
    return folder, scorer


def _terms(
    given: Mapping[str, Any], length: dict[str, Any], base: RunConfig, was: Terms | None, seed: int | None
) -> Terms:
    """What is asked for, over what an existing search has, over the defaults. UserError for what cannot be."""
    start: dict[str, Any] = {
        "trials": 20, "equal": "time", "score": "frechet", "features": "auto", "samples": 5_000, "prune": "median",
        "seeds": 1, "count": "mean", "seed": base.train.seed,
    }  # fmt: skip
    if was:
        start |= was.model_dump()
    start |= {key: value for key, value in given.items() if value is not None and key != "search"}
    if seed is not None:
        start["seed"] = seed
    if given["search"] is not None or was is None:
        space = parse_space(given["search"], base) if given["search"] else default_space(base)
        if not space:
            raise UserError(f"preset {base.preset!r} has no learning rate or batch to search; name settings: --search")
        start["search"] = tuple(map(str, space))
    if length or was is None:
        start["length"] = length or {"budget": "3m"}
    for key, least in (("trials", 1), ("seeds", 1), ("samples", 100)):
        if start[key] < least:
            raise UserError(f"--{key} {start[key]}: at least {least}")
    for key in ("equal", "prune", "count"):
        allowed = Terms.model_fields[key].annotation.__args__  # type: ignore[union-attr]
        if start[key] not in allowed:
            raise UserError(f"--{key} {start[key]}: is one of {', '.join(allowed)}")
    if start["equal"] == "images" and was is not None and "budget" in start["length"]:
        start["length"] = was.length  # what the budget came to when the search was planned
    return Terms(**start)


def own_values(base: RunConfig, dimensions: Sequence[Dimension]) -> dict[str, Any]:
    """The recipe's own values of the settings searched, as optuna stores them; those outside the space left out."""
    found = {}
    for d in dimensions:
        section, _, name = d.key.partition(".")
        value = d.stored(getattr(getattr(base, section), name))
        if value is not None:
            found[d.name] = value
    return found


def _images_of(base: RunConfig, length: dict[str, Any]) -> int:
    """The images that a length comes to for the recipe as it is, timed once."""
    from elegan.families.base import ImageSpec
    from elegan.training.feed import Feed
    from elegan.training.plan import plan
    from elegan.training.run import open_split

    train = open_split(base, "train")
    spec = ImageSpec(train.channels, train.height, train.width, train.classes)
    labels = train.labels if train.classes else None
    config, _, _ = plan(base, spec, lambda device: Feed(train.images, labels, 0, device), length)
    return int(config.train.images)


def _length_text(terms: Terms) -> str:
    ((key, value),) = terms.length.items()
    return f"{value} of training" if key == "budget" else f"{value:,} {key}"


def work(folder: SearchFolder, stop: Callable[[], bool], say: Say, scorer: Any = None) -> None:
    """Take trials and run them until the search has as many as it should, or `stop` says so."""
    from elegan.tuning.scoring import Scorer

    terms, base, dimensions = folder.config()
    scorer = scorer or Scorer(base, terms.score, terms.features, terms.samples)
    with folder.study() as study:
        study.pruner = _pruner(terms)
        while not stop():
            with folder.lock():
                taken = _take(folder, study, terms, base, dimensions)
            if taken is None:
                return
            handle, claim = taken
            with claim:
                _run(folder, study, handle, scorer, stop, say)


def _take(
    folder: SearchFolder, study: Any, terms: Terms, base: RunConfig, dimensions: Sequence[Dimension]
) -> tuple[Any, TextIO] | None:
    """A trial that a dead process left, else a new one, with its lock; None when there are enough."""
    import optuna

    known = study.get_trials(deepcopy=False)
    for frozen in known:
        if frozen.state == optuna.trial.TrialState.RUNNING:
            claim = folder.claim(frozen.number)
            if claim is None:
                continue
            study.sampler = _sampler(terms, frozen.number)
            handle = optuna.trial.Trial(study, frozen._trial_id)
            tries = frozen.user_attrs.get("attempts", 0)
            if tries >= ATTEMPTS:
                _end(study, handle, "failed", f"ended its process {tries} times (out of memory?)")
                claim.close()
                continue
            break
    else:
        number = sum(t.state != optuna.trial.TrialState.WAITING for t in known)
        if number >= terms.trials:
            return None
        study.sampler = _sampler(terms, number)
        handle = study.ask()
        claim = folder.claim(handle.number)
        assert claim is not None, "a new trial is nobody's"
        tries = 0
        if handle.number == 0:
            handle.set_user_attr("recipe", len(own_values(base, dimensions)) == len(dimensions))
    for dimension in dimensions:
        dimension.suggest(handle)
    handle.set_user_attr("attempts", tries + 1)
    return handle, claim


def _run(folder: SearchFolder, study: Any, handle: Any, scorer: Any, stop: Callable[[], bool], say: Say) -> None:
    """Run one trial and tell the database how it ended. A mistake that is not the trial's ends the search."""
    from elegan.tuning.trial import Failed, Paused, Pruned, Trial, forget_checkpoints

    terms, base, dimensions = folder.config()
    values = {d.key: d.suggest(handle) for d in dimensions}
    title = f"trial {handle.number}"
    shown = ", ".join(f"{d.name} {text(_short(values[d.key]))}" for d in dimensions)
    recipe = " (the recipe as it is)" if handle.user_attrs.get("recipe") else ""
    say(f"{title} of {terms.trials}: {shown}{recipe}")
    trial: Trial | None = None
    try:
        try:
            config = with_values(base, values)
            scorer.check(config)
        except UserError as error:
            raise Failed(str(error)) from None
        trial = Trial(handle, config, folder.trial(handle.number), terms, scorer, stop, lambda t: say(f"{title} {t}"))
        value = trial.run()
    except (Paused, KeyboardInterrupt, UserError) as stopped:  # the process lives: this was no attempt
        handle.set_user_attr("attempts", handle.user_attrs["attempts"] - 1)
        if not isinstance(stopped, Paused):
            raise
        say(f"{title} stopped and saved; the same command goes on")
        return
    except Pruned as why:
        _end(study, handle, "pruned", str(why))
        say(f"{title} given up {why}")
    except Failed as why:
        _end(study, handle, "failed", str(why))
        say(f"{title} failed: {why}")
    else:
        handle.set_user_attr("seconds", trial.seconds)
        study.tell(handle, value)
        best = study.best_trial
        mark = "the best so far" if best.number == handle.number else f"best {best.value:.4g}, trial {best.number}"
        say(f"{title} done: {terms.score} {value:.4g} ({mark})")
    with folder.lock():
        found = Search(folder.path, study)
        kept = {t.number for t in found.ranked()[:KEPT]}
        for t in found.trials:
            if t.outcome != "running" and t.number not in kept:
                forget_checkpoints(folder.trial(t.number))
        found.write(pictures=False)


def _end(study: Any, handle: Any, how: str, why: str) -> None:
    """Close a trial that has no score. For optuna a failed trial counts as pruned: its sampler then keeps away from
    there, while it would forget one that is told as failed."""
    import optuna

    handle.set_user_attr("outcome", how)
    handle.set_user_attr("why", why)
    study.tell(handle, state=optuna.trial.TrialState.PRUNED)


def _short(value: Any) -> Any:
    return float(f"{value:.3g}") if isinstance(value, float) else value


def _sampler(terms: Terms, number: int) -> Any:
    """TPE, seeded by the search and the trial's number; the first trials are drawn at random."""
    import optuna

    from elegan.families.base import mix

    first = max(4, min(10, terms.trials // 4))
    return optuna.samplers.TPESampler(seed=mix(terms.seed, number) % 2**32, n_startup_trials=first, constant_liar=True)


def _pruner(terms: Terms) -> Any:
    import optuna

    from elegan.tuning.trial import SHARES

    if terms.prune == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4)
    if terms.prune == "hyperband":
        return optuna.pruners.HyperbandPruner(1, len(SHARES) * terms.seeds, 2)
    return optuna.pruners.NopPruner()


def _workers(folder: SearchFolder, n: int, stop: Any, show: bool) -> None:
    """Run `n` processes on one search, with the machine's threads divided among them, and wait for them."""
    import torch

    threads = str(max(1, torch.get_num_threads() // n))
    environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    command = [sys.executable, "-m", "elegan.tuning.worker", str(folder.path)]
    output = None if show else subprocess.DEVNULL
    processes = [subprocess.Popen(command, env=environment, stdout=output) for _ in range(n)]
    sent = stop()
    try:
        while any(p.poll() is None for p in processes):
            for process in processes:
                try:
                    process.wait(0.2)
                except subprocess.TimeoutExpired:
                    continue
            if stop() and not sent:
                sent = True
                for process in processes:
                    process.terminate()
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
                process.wait()
    codes = Counter(p.returncode for p in processes)
    if not stop.signal and set(codes) != {0}:
        raise UserError(
            f"{folder.path}: {n - codes[0]} of {n} workers ended with an error (above); the same command goes on"
        )


def _print(line: str) -> None:
    print(line, flush=True)


def _silent(line: str) -> None:
    pass


__all__ = ["Search", "outcome", "tune"]
