"""The command line: parsing only. Every verb is also a Python function, imported when it runs."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from elegan import __version__
from elegan.errors import UserError
from elegan.usage import OneLine, OptionsOnly

app = typer.Typer(
    cls=OneLine,
    help="Train, judge, explore and ship generative adversarial networks, fashion images first.",
    epilog="Start with:  elegan train --budget 4m   then   elegan evaluate RUN",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Look at data sets.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")


class Device(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Format(StrEnum):
    text = "text"
    json = "json"
    markdown = "markdown"
    latex = "latex"


class Precision(StrEnum):
    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


class OnCollapse(StrEnum):
    warn = "warn"
    stop = "stop"
    rollback = "rollback"


class Checkpoint(StrEnum):
    last = "last"
    best = "best"


RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, as `elegan train` makes.")]
CheckpointOption = Annotated[Checkpoint, typer.Option(help="Of a run: the last one, or the best that it kept.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DataOption = Annotated[
    str | None,
    typer.Option("--data", help="fashion-mnist, mnist, stacked-mnist, garments, or a folder, zip or npz of images."),
]


FEATURES = typer.Option(
    help="auto, fashion, digits, inception, inception-clean, inception-pytorch, descriptors, pixels, "
    "or a network's file (.pt, .pt2, .onnx) as in net.onnx:size=224:channels=3:range=-1,1; see docs/metrics.md."
)
WeightsOption = Annotated[
    Path | None,
    typer.Option("--inception-weights", help="The published FID network, pt_inception-2015-12-05-6726825d.pth."),
]


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command(
    cls=OptionsOnly,
    epilog="Example:  elegan train --preset fashion --data fashion-mnist --budget 10m --set batch=64",
)
def train(
    preset: Annotated[
        str | None, typer.Option(help="Recipe to start from (see `elegan presets`); default: fashion.")
    ] = None,
    data: DataOption = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; the same one again goes on.")] = None,
    budget: Annotated[str | None, typer.Option(help="How long: 90s, 10m, 1h30m.")] = None,
    images: Annotated[int | None, typer.Option(min=1, help="How long, in real images seen.")] = None,
    epochs: Annotated[float | None, typer.Option(min=0.0, help="How long, in passes over the data.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="How long, in training steps.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of everything; default: 0.")] = None,
    device: Annotated[Device | None, typer.Option(help="Where to train; default: auto.")] = None,
    precision: Annotated[Precision | None, typer.Option(help="auto takes bf16 where it is faster.")] = None,
    init: Annotated[Path | None, typer.Option(metavar="RUN", help="Begin with the weights of another run.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting; `elegan presets NAME` lists them. Repeatable."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings from a YAML, TOML or JSON file.")] = None,
    on_collapse: Annotated[
        OnCollapse | None,
        typer.Option(help="When the doctor finds a collapse: warn (default), stop, or go back with half the rates."),
    ] = None,
) -> None:
    """Train a GAN. The same command again goes on where it stopped."""
    from elegan.config import parse_set
    from elegan.progress import show
    from elegan.training.run import events, prepare
    from elegan.training.signals import stop_on_signals

    values = {"device": device.value if device else None, "precision": precision.value if precision else None}
    values["init"] = str(init) if init else None
    chosen = parse_set(settings or []) | ({"train.on_collapse": on_collapse.value} if on_collapse else {})
    folder, asked = prepare(out, preset, data, seed=seed, config=config, settings=chosen, **values)
    length = {"budget": budget, "images": images, "epochs": epochs, "steps": steps}
    with _interrupts(), stop_on_signals() as stop:
        show(events(asked, folder, length, stop=stop), folder.path)
    if stop.signal:
        raise typer.Exit(128 + stop.signal)


@app.command(epilog="Example:  elegan sample runs/demo -n 100 --labels sneaker,bag --out shoes.png")
def sample(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="FILE.npz (images, labels), FILE.png (a grid) or a new FOLDER of PNGs.")],
    n: Annotated[int, typer.Option("-n", "--number", min=1, help="How many images.")] = 64,
    labels: Annotated[
        str | None, typer.Option(help="Classes by number or name, in turn: 0,3 or sneaker; or balanced.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same images.")] = 0,
    truncation: Annotated[float, typer.Option(help="In (0, 1]: less variety, more typical images.")] = 1.0,
    columns: Annotated[int | None, typer.Option(min=1, help="Columns of the grid.")] = None,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.auto,
    checkpoint: CheckpointOption = Checkpoint.last,
) -> None:
    """Draw samples from a trained run."""
    from elegan.training.trained import check_target, load

    check_target(out)
    opened = load(run, device.value, checkpoint.value)
    path = opened.sample(n, labels, seed, truncation).save(out, columns)
    _warn(opened.faults)
    print(f"{n} samples in {path}")


@app.command(
    epilog="Example:  elegan evaluate runs/demo --per-class   or   elegan evaluate samples.npz --data mnist --json"
)
def evaluate(
    target: Annotated[Path, typer.Argument(metavar="RUN|FILE.npz|FOLDER", help="What to judge.")],
    data: DataOption = None,
    n: Annotated[int, typer.Option("-n", "--number", min=1, help="How many samples.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the samples and of what is drawn.")] = 0,
    features: Annotated[str, FEATURES] = "auto",
    inception_weights: WeightsOption = None,
    truncation: Annotated[float, typer.Option(help="Of a run's samples, in (0, 1].")] = 1.0,
    checkpoint: CheckpointOption = Checkpoint.last,
    per_class: Annotated[bool, typer.Option("--per-class", help="Also a table of the numbers of each class.")] = False,
    cas: Annotated[
        bool, typer.Option("--cas", help="Also train a classifier on the labelled samples and test it on real images.")
    ] = False,
    cas_seeds: Annotated[int, typer.Option(min=1, help="How many such trainings, for its error bar.")] = 1,
    form: Annotated[
        Format, typer.Option("--format", help="text, json, or rows of a table: markdown, latex.")
    ] = Format.text,
    as_json: JsonOption = False,
) -> None:
    """Score a run or a set of images against real ones: distances, coverage, copies, with floor and protocol."""
    from elegan.judge import evaluate as judge

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    trainings = cas_seeds if cas or cas_seeds > 1 else 0
    options: dict[str, Any] = {"features": features, "inception_weights": inception_weights, "say": say}
    options |= {"truncation": truncation, "checkpoint": checkpoint.value}
    scores = judge(target, data, n=n, seed=seed, cas=trainings, **options)
    if as_json or form is Format.json:
        print(json.dumps(scores.to_dict(), indent=1))
    elif form is Format.text:
        print(scores.to_text(per_class))
    else:
        print((scores.to_markdown if form is Format.markdown else scores.to_latex)(target.stem, per_class))


SamplesOption = Annotated[
    int | None,
    typer.Option("--samples", min=20, help="Samples to judge; default: those of the kept scores, or 10000."),
]
EvaluateOption = Annotated[
    bool, typer.Option("--evaluate/--no-evaluate", help="Score a run whose newest checkpoint has no scores yet.")
]


@app.command(epilog="Example:  elegan report runs/first --out first.html")
def report(
    run: RunArgument,
    out: Annotated[Path | None, typer.Option(help="The HTML file; default: report.html in the run folder.")] = None,
    samples: SamplesOption = None,
    features: Annotated[str | None, FEATURES] = None,
    inception_weights: WeightsOption = None,
    evaluate: EvaluateOption = True,
    data: DataOption = None,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.auto,
    checkpoint: CheckpointOption = Checkpoint.last,
) -> None:
    """One HTML file about a run: samples over time, scores in words, curves, copies, settings. Needs no network."""
    from elegan.reports.page import report as make

    print(
        make(
            run,
            out,
            samples=samples,
            features=features,
            inception_weights=inception_weights,
            evaluate=evaluate,
            data=data,
            device=device.value,
            checkpoint=checkpoint.value,
            say=_tell,
        )
    )


@app.command(epilog="Example:  elegan compare runs/a runs/b --out comparison.html")
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN ...", help="Run folders; seeds are grouped.")],
    out: Annotated[Path | None, typer.Option(help="Also write an HTML file, with samples and curves.")] = None,
    samples: SamplesOption = None,
    features: Annotated[str | None, FEATURES] = None,
    inception_weights: WeightsOption = None,
    evaluate: EvaluateOption = True,
    data: DataOption = None,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.auto,
    checkpoint: CheckpointOption = Checkpoint.last,
    as_json: JsonOption = False,
) -> None:
    """Runs side by side: settings, scores, curves, and whether a difference is more than chance."""
    from elegan.reports.comparison import compare as make

    made = make(
        runs,
        out,
        samples=samples,
        features=features,
        inception_weights=inception_weights,
        evaluate=evaluate,
        data=data,
        device=device.value,
        checkpoint=checkpoint.value,
        say=_tell,
    )
    _print(made, as_json)
    if out is not None and not as_json:
        print(f"\n{made.page} written to {out}")


@app.command(
    cls=OptionsOnly,
    epilog="Example:  elegan tune --preset fashion --budget 3m --trials 20 --search G_lr=1e-4..1e-3:log "
    "--search batch=32,64,128 --search upsampling=all --out tunes/first",
)
def tune(
    preset: Annotated[str | None, typer.Option(help="Recipe to start from; default: fashion.")] = None,
    data: DataOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the search; the same one again goes on.")] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=RANGE",
            help="What to vary: G_lr=1e-4..1e-3:log, batch=32..128:32, upsampling=deconv,bilinear or =all. Repeatable. "
            "Default: learning rates, batch and weight average, around the recipe's own.",
        ),
    ] = None,
    trials: Annotated[int | None, typer.Option(help="How many trials in all; default: 20.")] = None,
    budget: Annotated[str | None, typer.Option(help="Time of each trial: 90s, 3m; default: 3m.")] = None,
    images: Annotated[int | None, typer.Option(min=1, help="Instead: real images that each trial sees.")] = None,
    epochs: Annotated[float | None, typer.Option(min=0.0, help="Instead: passes over the data.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Instead: training steps.")] = None,
    equal: Annotated[
        str | None,
        typer.Option(
            help="time (default): each trial is timed by itself; images: the budget is turned into images once."
        ),
    ] = None,
    score: Annotated[str | None, typer.Option(help="What to search by; default: frechet.")] = None,
    features: Annotated[str | None, typer.Option(help="Features of the score, a name or a .safetensors.")] = None,
    samples: Annotated[int | None, typer.Option(help="Samples a score is made of; default: 5000.")] = None,
    prune: Annotated[str | None, typer.Option(help="Give up early: median (default), hyperband or none.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Runs of each trial, with different seeds; default: 1.")] = None,
    count: Annotated[str | None, typer.Option(help="Of several seeds the mean (default) or the worst counts.")] = None,
    workers: Annotated[int, typer.Option(help="Processes that share the work and the machine.")] = 1,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the search and of the first run of each trial.")] = None,
    device: Annotated[Device | None, typer.Option(help="Where to train; default: auto.")] = None,
    precision: Annotated[Precision | None, typer.Option(help="auto takes bf16 where it is faster.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting that stays fixed. Repeatable.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings from a YAML, TOML or JSON file.")] = None,
    show: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Only print the state of the search in this folder.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Search for better settings: many equal trials, scored on training images held out of them."""
    from elegan.config import parse_set
    from elegan.tuning.results import show as show_search

    if show is not None:
        _print(show_search(show), as_json)
        return
    from elegan.tuning.search import run_search

    length = {"budget": budget, "images": images, "epochs": epochs, "steps": steps}
    given = {"search": search, "trials": trials, "equal": equal, "score": score, "features": features}
    given |= {"samples": samples, "prune": prune, "seeds": seeds, "count": count}
    options: dict[str, Any] = {"seed": seed, "config": config, "settings": parse_set(settings or [])}
    options |= {"device": device.value if device else None, "precision": precision.value if precision else None}
    with _interrupts():
        found = run_search(preset, data, out, given, length, options, workers, show=not as_json)
    if as_json:
        _print(found, True)


@app.command()
def info(run: RunArgument, as_json: JsonOption = False) -> None:
    """What a run is, how far it got, and its latest numbers."""
    from elegan.about import run_info

    _print(run_info(run), as_json)


@app.command()
def presets(
    name: Annotated[str | None, typer.Argument(help="Show all settings of this one.")] = None,
    as_json: JsonOption = False,
) -> None:
    """The recipes, or all settings of one."""
    from elegan.catalogue import preset_settings, preset_table

    _print(preset_settings(name) if name else preset_table(), as_json)


@app.command(epilog="Example:  elegan families wgan --time 2")
def families(
    name: Annotated[str | None, typer.Argument(help="Tell all about this one.")] = None,
    time: Annotated[
        float, typer.Option(min=0, max=60, help="Seconds, and eight steps at least, to time each here; 0: not.")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """The GAN families: papers, ideas, what each is for, presets; or all about one."""
    from elegan.catalogue import family_details, family_table

    _print(family_details(name, time) if name else family_table(time), as_json)


@app.command(epilog="Example:  elegan doctor runs/first")
def doctor(
    run: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="A run folder to look at; without one, this machine.")
    ] = None,
    samples: Annotated[int, typer.Option("-n", "--number", min=20, help="Samples to look at, of a run.")] = 1000,
    device: Annotated[Device, typer.Option(help="Where to compute, for a run.")] = Device.auto,
    as_json: JsonOption = False,
) -> None:
    """What is wrong with a run, in plain words (exit code 1: it is failing); or what this machine has."""
    if run is None:
        from elegan.about import machine

        _print(machine(), as_json)
        return
    from elegan.training.visit import diagnose

    diagnosis = diagnose(run, device.value, samples)
    _print(diagnosis, as_json)
    if not diagnosis.healthy:
        raise typer.Exit(1)


@app.command(cls=OptionsOnly, epilog="Example:  elegan bench --preset fashion-dcgan --batch 128 --json")
def bench(
    preset: Annotated[str | None, typer.Option(help="The recipe to time; default: fashion.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Another batch size.")] = None,
    seconds: Annotated[float, typer.Option(help="How long to measure; eight steps at least.")] = 10.0,
    device: Annotated[Device, typer.Option(help="Where to measure.")] = Device.auto,
    precision: Annotated[Precision, typer.Option(help="auto: bf16 where the hardware has it.")] = Precision.auto,
    as_json: JsonOption = False,
) -> None:
    """Time a recipe's training step on this machine, beside the fastest it could be."""
    from elegan.bench import bench as run_bench

    _print(run_bench(preset, batch, seconds, device.value, precision.value), as_json)


@app.command(cls=OptionsOnly)
def demo(
    out: Annotated[Path, typer.Option(help="Run folder; the same one again goes on.")] = Path("runs/demo"),
    budget: Annotated[str, typer.Option(help="How long to train.")] = "4m",
) -> None:
    """Train the default recipe for four minutes, score it, and say where the pictures are."""
    from elegan.demo import demo as run_demo

    with _interrupts():
        raise typer.Exit(run_demo(out, budget))


@data_app.command("inspect", epilog="Example:  elegan data inspect photos/ --out sheet.png")
def data_inspect(
    path: Annotated[str, typer.Argument(metavar="PATH|NAME", help="A folder, zip or npz of images, or a named set.")],
    out: Annotated[Path | None, typer.Option(help="Write a contact sheet PNG here.")] = None,
    as_json: JsonOption = False,
) -> None:
    """The dataset doctor: counts, sizes, broken files, duplicates, a contact sheet."""
    from elegan.data import inspect_data

    report = inspect_data(path, out)
    print(json.dumps(report.to_dict(), indent=1) if as_json else str(report))


def _print(content: Any, as_json: bool) -> None:
    """Print a report as its own text or as JSON."""
    print(json.dumps(content.to_dict(), indent=1, default=str) if as_json else str(content))


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _warn(texts: list[str]) -> None:
    for text in texts:
        print(f"note: damaged checkpoint passed over: {text}", file=sys.stderr)


@contextlib.contextmanager
def _interrupts() -> Iterator[None]:
    """An interrupt that could not wait for the end of a step is one line and the shell's exit code for its signal."""
    from elegan.training.signals import Interrupted

    try:
        yield
    except Interrupted as stopped:
        told = "interrupted; the same command again goes on from the last checkpoint, or begins where there is none"
        print(f"elegan: {told}", file=sys.stderr)
        raise typer.Exit(128 + stopped.signal) from None


def main() -> None:
    """The `elegan` command: a user's mistake is one line and exit code 2, a collapse 3, an interrupt 130."""
    try:
        app(prog_name="elegan")
    except UserError as error:
        print(f"elegan: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `elegan presets | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


if __name__ == "__main__":
    main()
