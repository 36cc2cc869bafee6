"""Start a run, or continue the one that is there: from what the user asked to a stream of events."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import torch

from elegan import families
from elegan.config import (
    MAY_CHANGE,
    RunConfig,
    build,
    data_options,
    differences,
    duration,
    flatten,
    read_file,
    seconds,
)
from elegan.data import Dataset, open_data
from elegan.doctor.evidence import RealSide, real_side
from elegan.errors import UserError
from elegan.families.base import Family, ImageSpec
from elegan.judge import check_independent
from elegan.training import checkpoint, remedy
from elegan.training.checkup import Checkup
from elegan.training.derive import derive_from_data
from elegan.training.engine import Engine, check_precision, describe_device, peak_memory, pick_device
from elegan.training.events import Event, Finished, OffPace, Planned, Stopped, Warned
from elegan.training.feed import Feed
from elegan.training.folder import RunFolder
from elegan.training.loop import Progress
from elegan.training.loop import run as run_loop
from elegan.training.pace import MOST_PLANS, Pace, alike
from elegan.training.plan import (
    build_model,
    enough_memory,
    images_per_step,
    plan,
    resolve_length,
    with_length,
)
from elegan.training.plot import plot_losses
from elegan.training.signals import Interrupted, stop_on_signals
from elegan.training.sitting import sitting
from elegan.training.tensorboard import tensorboard
from elegan.training.trained import Run, draw
from elegan.training.transfer import open_source

FEWEST = 16  # training pictures: the doctor has nothing to compare with fewer
LENGTHS = ("budget", "images", "epochs", "steps")


def configure(
    preset: str | None = None,
    data: str | os.PathLike[str] | None = None,
    *,
    seed: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    init: str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    base: RunConfig | None = None,
) -> RunConfig:
    """The configuration that these arguments ask for, before it is planned.

    Later sources win: the preset, the file (or dict) `config`, `settings`, then the named arguments. `base` is
    an existing run's: where no preset is named, all that is not asked for stays as it is there. Raises UserError
    for anything unknown or of the wrong type.
    """
    content = dict(config) if isinstance(config, Mapping) else read_file(Path(config)) if config else {}
    preset = preset or content.pop("preset", None)
    for key in ("preset", "version", "derived"):
        content.pop(key, None)
    own = preset is None and base is None and "family" not in content
    if preset is None and base is not None:
        preset, family, model = base.preset, base.family, base.model
        start = {"data": base.data.model_dump(), "train": base.train.model_dump(exclude={"images", "budget"})}
    else:
        preset = families.DEFAULT_PRESET if preset is None else preset
        if not isinstance(preset, str):
            raise UserError(f"a preset is named by a text, not {preset!r} (`elegan presets` lists them)")
        family, recipe = families.preset(preset)
        model, start = recipe.config, {"data": {"source": recipe.data} | recipe.data_settings}
    if content.pop("family", family) != family:
        raise UserError(f"preset {preset!r} is of family {family!r}; drop `family` from the configuration")
    named = {"data.source": data, "train.seed": seed, "train.device": device, "train.precision": precision}
    named["train.init"] = init
    texts = {key: str(value) for key, value in named.items() if value is not None}
    overrides = [flatten(content), settings or {}, texts]
    asked = build(preset, family, model, **start, overrides=overrides)
    return derive_from_data(asked, overrides) if own else asked


def prepare(out: str | os.PathLike[str] | None, *args: Any, **options: Any) -> tuple[RunFolder, RunConfig]:
    """The folder of a run and the configuration asked for; the other arguments are those of `configure`."""
    if out is None:
        config = configure(*args, **options)
        return RunFolder(default_folder(config)), config
    folder = RunFolder(out)
    return folder, configure(*args, **options, base=folder.config() if folder.exists else None)


def default_folder(config: RunConfig) -> Path:
    """`runs/PRESET-DATA-seedN`: the same command finds the same run."""
    return Path("runs") / f"{config.preset}-{Path(config.data.source).stem}-seed{config.train.seed}"


def open_split(config: RunConfig, split: str) -> Dataset:
    """The training or test split that a configuration names."""
    return open_data(config.data.source, split, **data_options(config.data))


def events(
    config: RunConfig,
    folder: RunFolder,
    length: Mapping[str, Any],
    *,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    """Start a run in `folder`, or continue the one that is there, and yield what happens.

    `length` has at most one of budget, images, epochs, steps. `stop` is first asked when nothing but training
    is left to do, then after every step. Raises UserError when the folder holds a run of another configuration
    or data.
    """
    length = check_length(length)
    if not length:  # --set images=... and --set budget=... mean the same as the flags
        length = check_length({"images": config.train.images or None})
    if not length:
        length = check_length({"budget": config.train.budget})
    with folder.lock():
        yield from _start(config, folder, length, stop)


def check_length(length: Mapping[str, Any]) -> dict[str, Any]:
    """The one length that is given, or none; UserError for several, or one that is not a number above zero."""
    given = {key: value for key, value in length.items() if value is not None}
    if len(given) > 1:
        raise UserError(f"give one of --{', --'.join(LENGTHS)}, not several")
    for key, value in given.items():
        if key == "budget":
            seconds(str(value))
        elif not isinstance(value, Real) or not 0 < float(value) < 1e15:
            raise UserError(f"{key}={value!r} is not a length; give a number above 0")
    return given


def _start(config: RunConfig, folder: RunFolder, length: dict, stop: Callable[[], bool]) -> Iterator[Event]:
    going_on = folder.exists
    if going_on:
        config = merge(folder.config(), config, folder)
    else:
        folder.check_free()
    if config.train.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise UserError("TensorBoard is missing: pip install 'elegan[track]', or --set tensorboard=false")
    dataset = open_split(config, "train")
    yield from (Warned(note) for note in [*dataset.notes, *(f"left out: {s}" for s in dataset.skipped)])
    if config.train.score_every:
        check_independent(config, "auto", dataset.name)
    spec = ImageSpec(dataset.channels, dataset.height, dataset.width, dataset.classes)

    def feed_for(device: torch.device) -> Feed:
        labels = dataset.labels if dataset.classes else None
        return Feed(dataset.images, labels, config.train.seed, device, config.data.mirror)

    if going_on:
        model, engine, at, planned = yield from _continue(config, folder, dataset, spec, length)
        stop()
        yield from _train(model, engine, folder.config(), folder, at, planned, dataset, feed_for, stop)
        return
    yield from _begin(config, folder, length, dataset, spec, feed_for, stop)


def _begin(
    asked: RunConfig,
    folder: RunFolder,
    length: dict[str, Any],
    dataset: Dataset,
    spec: ImageSpec,
    feed_for: Callable[[torch.device], Feed],
    stop: Callable[[], bool],
) -> Iterator[Event]:
    """Plan and train a new run; once or twice more when the plan of its time budget proves wrong early."""
    source = open_source(asked.train.init) if asked.train.init else None
    remaining = length
    for plans in range(1, MOST_PLANS + 1):
        config, engine, planned = plan(asked, spec, feed_for, remaining)
        config = with_length(config, budget=length.get("budget"))
        model = build_model(config, spec, engine)
        yield from map(Warned, source.into(model) if source else [])
        stop()
        folder.create(config, describe_data(dataset), dataset.sheet(n=80))
        pace = None
        if remaining.get("budget") and len(model.typical(config.train.images)) == 1:
            wait = engine.synchronize if engine.device.type == "cuda" else None
            budget, last = seconds(remaining["budget"]), plans == MOST_PLANS
            pace = Pace(budget, planned.step_seconds, wait=wait, last_plan=last)
        for event in _train(model, engine, config, folder, Progress(), planned, dataset, feed_for, stop, pace):
            if not isinstance(event, OffPace):
                yield event
        if pace is None or not pace.off:
            return
        left = pace.left
        yield Warned(
            f"a step takes {pace.seconds:.2g} s, not {pace.step_seconds:.2g} s as planned (was the machine busy just "
            f"then?): planned and begun anew, for the {duration(left)} that are left"
        )
        folder.forget()
        remaining = {"budget": f"{left:.1f}s"}


def _train(
    model: Family,
    engine: Engine,
    config: RunConfig,
    folder: RunFolder,
    at: Progress,
    planned: Planned,
    dataset: Dataset,
    feed_for: Callable[[torch.device], Feed],
    stop: Callable[[], bool],
    pace: Pace | None = None,
) -> Iterator[Event]:
    """Train what is planned to its end, with everything that watches it."""
    if at.images < config.train.images:
        folder.append(sitting(at.images, engine.device), "sittings.jsonl")
        yield Planned(**(vars(planned) | {"data": str(dataset), "derived": config.derived}))
        if doubt := model.unfinished(config.train.images):
            yield Warned(doubt)

    options: dict[str, Any] = {"stop": stop}
    if pace:
        steady, per_step = model.steady, images_per_step(model)
        options["off_pace"] = pace

        def length(seen: int, total: int) -> int:
            return alike(model.regime, total, pace.images(seen, total, per_step, steady), per_step)

        options["length"] = length
        pace.begin()
    if config.train.check_every and config.train.check_share and len(dataset) >= FEWEST:
        options["doctor"] = Checkup(config, folder, engine, lambda: doctors_data(config, dataset))
    if config.train.score_every:
        from elegan.metrics.evaluate import Judge

        judge = Judge(dataset, open_split(config, "test"), n=config.train.score_samples)
        options["score"] = lambda m: judge(*draw(m, engine, config.train.score_samples, seed=1))
    writer = tensorboard(folder) if config.train.tensorboard else None
    try:
        with enough_memory(config):
            for event in run_loop(model, feed_for(engine.device), engine, config, folder, at, **options):
                if writer:
                    writer(event)
                if isinstance(event, Stopped | Finished):
                    folder.make_gif()
                    plot_losses(folder.stats(), folder / "losses.png", title(config))
                yield event
    except OSError as error:
        raise UserError(
            f"{folder.path}: cannot be written ({error.strerror}); the checkpoints there are intact: mend it and run "
            "the same command again"
        ) from None


def doctors_data(config: RunConfig, dataset: Dataset) -> RealSide:
    """The data's side for the doctor; unseen pictures are of the validation split, else of the test split."""
    if config.data.validation:
        held = open_split(config, "validation")
        return real_side(dataset, held, held, config.train.check_samples)
    return real_side(dataset, dataset, open_split(config, "test"), config.train.check_samples)


def _continue(config: RunConfig, folder: RunFolder, dataset: Dataset, spec: ImageSpec, length: dict) -> Any:
    """Load the newest good checkpoint of an existing run: `(model, engine, Progress, Planned)`."""
    was = folder.data()
    if was["fingerprint"] != dataset.fingerprint:
        raise UserError(
            f"{folder.path}: this run started on other data ({was['name']!r}, {was['count']:,} images, as they were "
            f"then) than {config.data.source!r} is now; name that data with --data, or choose another --out"
        )
    engine = Engine(pick_device(config.train.device), config.train.precision)
    check_precision(engine)
    with enough_memory(config):
        model = build_model(remedy.current(config, folder), spec, engine)
    at = Progress()
    try:
        tensors, meta, faults = checkpoint.newest(folder.checkpoints)
    except FileNotFoundError:
        faults = []
        if config.train.init:
            yield from map(Warned, open_source(config.train.init).into(model))
        if folder.stats():
            yield Warned("there is no checkpoint; starting again from the first image")
    else:
        checkpoint.restore(model.parts, tensors, meta["optimizers"])
        at = Progress.from_dict(meta["counters"], engine.device)
    for fault in faults:
        yield Warned(f"damaged checkpoint passed over: {fault}")

    per_step = images_per_step(model)
    step_seconds = at.seconds / max(at.steps, 1)
    budget = config.train.budget
    if length and not (budget and "budget" in length and seconds(length["budget"]) == seconds(budget)):
        if "budget" in length:
            raise UserError(
                f"{folder.path}: this run was planned for {config.train.images:,} images; give --images to train "
                "longer, or choose another --out"
            )
        images = resolve_length(length, 0, step_seconds, per_step, len(dataset))
        images = -(-images // per_step) * per_step
        if images < at.images:
            raise UserError(
                f"{folder.path}: has already seen {at.images:,} images; {images:,} is less. Choose another --out"
            )
        if images != config.train.images:
            yield Warned(f"the plan changes from {config.train.images:,} to {images:,} images")
            config = with_length(config, images=images, budget=None)
    folder.rewind(at.images)
    folder.write_config(config)
    left = config.train.images - at.images
    planned = Planned(
        preset=config.preset,
        family=config.family,
        data="",
        device=describe_device(engine.device),
        precision=config.train.precision,
        parameters={
            name: sum(p.numel() for p in net.parameters())
            for name, net in model.parts.nets.items()
            if not name.endswith("_ema")
        },
        batch=model.config.batch,
        images=config.train.images,
        seen=at.images,
        step_seconds=step_seconds,
        seconds=left / per_step * step_seconds,
        memory=peak_memory(engine.device),
    )
    return model, engine, at, planned


def merge(old: RunConfig, new: RunConfig, folder: RunFolder) -> RunConfig:
    """The configuration under which an existing run goes on. UserError when `new` asks for another run."""
    # what was `auto` or 0 was resolved when the run was planned
    asked = new.train.model_dump()
    resolved = {k: v for k, v in old.train.model_dump().items() if asked[k] in (None, 0, "auto") and k != "seed"}
    defaults = type(new.train)().model_dump()
    resolved |= {k: getattr(old.train, k) for k in ("images", "budget")}
    if asked["grids"] == defaults["grids"]:
        resolved["grids"] = old.train.grids
    new = new.model_copy(update={"train": new.train.model_copy(update=resolved)})
    fixed = {key: pair for key, pair in differences(old, new).items() if key not in MAY_CHANGE}
    if fixed:
        listed = ", ".join(f"{key}: {a!r} there, {b!r} asked" for key, (a, b) in list(fixed.items())[:4])
        more = f" and {len(fixed) - 4} more" if len(fixed) > 4 else ""
        raise UserError(f"{folder.path}: holds a run of another configuration ({listed}{more}); choose another --out")
    return new.model_copy(update={"preset": old.preset, "derived": old.derived})


def train(
    preset: str | None = None,
    data: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    *,
    budget: str | None = None,
    images: int | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    seed: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    init: str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    show: bool = True,
    **settings: Any,
) -> Run:
    """Train a GAN and return its run; the same call again continues it. What `elegan train` does.

    `preset` names a recipe (default `fashion`), `data` a data set or a path. One of `budget` ("10m"), `images`,
    `epochs`, `steps` says how long; else the recipe does. `settings` are the recipe's own settings, such as
    `batch=32`. `init` is a run folder whose weights it begins with. `show` prints progress. An interrupt saves and then
    raises KeyboardInterrupt.
    """
    folder, asked = prepare(
        out, preset, data, seed=seed, device=device, precision=precision, init=init, config=config, settings=settings
    )
    length = {"budget": budget, "images": images, "epochs": epochs, "steps": steps}
    with stop_on_signals() as stop:
        stream = events(asked, folder, length, stop=stop)
        if show:
            from elegan.progress import show as show_events

            show_events(stream, folder.path)
        else:
            for _ in stream:
                pass
    if stop.signal:
        raise Interrupted(stop.signal)
    return Run(folder.path)


def title(config: RunConfig) -> str:
    """What a picture of this run is headed with."""
    return f"{config.preset} on {Path(config.data.source).name}, seed {config.train.seed}"


def describe_data(dataset: Dataset) -> dict[str, Any]:
    """What `data.json` says."""
    keys = ("name", "channels", "height", "width", "classes", "class_names", "fingerprint")
    return {key: getattr(dataset, key) for key in keys} | {"count": len(dataset)}
