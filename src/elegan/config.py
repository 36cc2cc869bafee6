"""A run's whole configuration: typed, strict, readable from a file, and printable into one.

A configuration has four parts: which family, `data`, `train`, and `model` (the family's own settings). On the
command line and in Python every setting has one name; `--set D_lr=1e-4` finds the part that it belongs to, and
`--set model.D_lr=1e-4` says it. This module imports nothing of the package but its errors: the family's
settings class is handed in.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, TypeAdapter, ValidationError, model_validator

from elegan.errors import UserError, nearest

M = TypeVar("M", bound=BaseModel)

SECTIONS = ("data", "train", "model")


class Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )


class DataConfig(Section):
    source: str = "fashion-mnist"
    """A named data set (fashion-mnist, mnist, garments) or the path of a folder, zip or npz of images."""
    size: int | tuple[int, int] | None = None
    """Side of the training images, or (height, width); the data's own if it has one, else 64."""
    channels: Literal[1, 3, 4] | None = None
    """1 grey, 3 RGB, 4 RGBA; the data's own by default."""
    crop: Literal["center", "pad", "stretch"] = "center"
    """How pictures of another shape are fitted: cut the centre, pad, or stretch."""
    background: Literal["white", "black"] = "white"
    """What stands behind transparency and in padding."""
    labels: str | None = None
    """A CSV or JSON file of labels for a folder or zip; `ignore` trains without the labels that the data has."""
    skip_broken: bool = False
    """Leave out files that cannot be read (they are named) instead of stopping."""
    mirror: bool = False
    """Flip each picture left to right with probability 1/2."""
    validation: float = Field(0.0, ge=0, le=0.5)
    """Share of the training images left out of training, to choose by; `elegan tune` scores on them."""


def data_options(config: DataConfig) -> dict[str, Any]:
    """The keyword arguments of `open_data` that these settings are."""
    options = config.model_dump(include={"size", "channels", "crop", "background", "skip_broken", "validation"})
    labels = None if config.labels is None else "none" if config.labels == "ignore" else config.labels
    return options | {"labels": labels}


class TrainConfig(Section):
    images: int = Field(0, ge=0)
    """Real images to see by the end; 0: what the preset says."""
    budget: str | None = None
    """A time such as 10m or 1h30m, turned into `images` once, when the run is planned."""
    seed: int = Field(0, ge=0)
    """Seed of everything: the start, the order of the data, the noise."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16 computes in bfloat16 and keeps weights in float32; auto takes it where it is faster."""
    record: bool = True
    """On a GPU, record a step once and replay it, which takes a fraction of the time for small networks."""
    checkpoint_every: int = Field(0, ge=0)
    """Steps between checkpoints; 0: about every two minutes and at most twenty in the run."""
    keep: int = Field(2, gt=0)
    """How many checkpoints to keep."""
    log_every: int = Field(0, ge=0)
    """Steps between rows of stats.jsonl; 0: about two hundred rows in the run."""
    grids: int = Field(40, ge=0)
    """How many sample grids to save over the run."""
    grid_side: int = Field(8, gt=0, le=32)
    """A grid has this many rows and columns."""
    init: str | None = None
    """Begin with the weights of this run folder, as far as they fit."""
    freeze_D: int = Field(0, ge=0)
    """FreezeD, with init: this many of D's lowest layers stay as they were."""
    score_every: int = Field(0, ge=0)
    """Images between scores during the run; 0: none."""
    score_samples: int = Field(2_000, ge=100)
    """Samples for the scores during the run."""
    check_every: int = Field(0, ge=0)
    """Images between the doctor's looks; 0: planned so that they take a small part of the time, none in a short run."""
    check_samples: int = Field(0, ge=0)
    """Samples that the doctor draws at each look; 0: 500, or 250 in a short run."""
    check_share: float = Field(0.05, ge=0, le=1)
    """The part of the run's time that looks may take: one too many is left out; 1 leaves none out, 0 is no doctor."""
    on_collapse: Literal["warn", "stop", "rollback"] = "warn"
    """When a look finds a collapse: warn, save and stop, or go back to a good state with half the learning rates."""
    best_by: Literal["none", "frechet", "precision", "recall", "density", "coverage", "diversity", "label_accuracy"] = (
        "frechet"
    )
    """The number by which the best checkpoint is kept; the doctor measures it against training pictures."""
    patience: int = Field(0, ge=0)
    """End the run when `best_by` has not improved for so many looks; 0: never."""
    tensorboard: bool = False
    """Also write TensorBoard events (needs the extra `track`)."""

    @model_validator(mode="after")
    def _agrees(self) -> TrainConfig:
        if self.freeze_D and self.init is None:
            raise ValueError("freeze_D keeps what D has learnt elsewhere: name that run with --init RUN")
        return self


class RunConfig(Section):
    """Everything that a run is made from. `config.yaml` in the run folder is this."""

    version: Literal[1] = 1
    """Of this format."""
    preset: str
    """The recipe that the settings started from."""
    family: str
    """The file in `families/` whose model is trained."""
    derived: tuple[str, ...] = ()
    """What was decided from the data where no preset was named, and why: sentences, not settings."""
    data: DataConfig
    train: TrainConfig
    model: SerializeAsAny[BaseModel]

    def to_yaml(self) -> str:
        """The configuration as YAML; `parse` reads it back unchanged."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


LEARNT = ("seed", "init", "freeze_D")  # of `train`: what decides what is learnt

#: Settings that may differ between a run and its continuation: they decide how long and how it is watched,
#: not what is learnt from the images seen so far. (That the data is the same is seen by its content.)
MAY_CHANGE = frozenset(f"train.{key}" for key in TrainConfig.model_fields if key not in LEARNT) | {"data.source"}


def build(
    preset: str,
    family: str,
    model: BaseModel,
    *,
    data: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | Sequence[Mapping[str, Any]] = (),
) -> RunConfig:
    """A run's configuration from a preset's model settings and what the user changed.

    `overrides` maps keys, bare or with their part (`D_lr`, `train.keep`), to values or their text; of several
    mappings later ones win. Raises UserError for an unknown key, with the nearest spelling, or for a value of the
    wrong type.
    """
    parts: dict[str, dict[str, Any]] = {
        "data": dict(data or {}),
        "train": dict(train or {}),
        "model": model.model_dump(),
    }
    classes: dict[str, type[BaseModel]] = {"data": DataConfig, "train": TrainConfig, "model": type(model)}
    layers = [overrides] if isinstance(overrides, Mapping) else overrides
    for key, value in (item for layer in layers for item in layer.items()):
        section, name = find_key(str(key), classes)
        parts[section][name] = value
    return RunConfig(
        preset=preset,
        family=family,
        data=_validated(DataConfig, "data", parts["data"]),
        train=_validated(TrainConfig, "train", parts["train"]),
        model=_validated(type(model), "model", parts["model"]),
    )


def parse(content: Mapping[str, Any], model_class: type[BaseModel], where: str) -> RunConfig:
    """Read back a whole configuration, as `to_yaml` wrote it. `where` names the file in errors."""
    unknown = set(content) - set(RunConfig.model_fields)
    if unknown:
        key = sorted(unknown)[0]
        raise UserError(f"{where}: unknown key {key!r}{nearest(key, RunConfig.model_fields)}")
    sections = {}
    for name, cls in (("data", DataConfig), ("train", TrainConfig), ("model", model_class)):
        section = content.get(name)
        if not isinstance(section, Mapping):
            raise UserError(f"{where}: {name!r} must be a table of settings, not {type(section).__name__}")
        sections[name] = _validated(cls, name, section, where)
    rest = {k: v for k, v in content.items() if k not in SECTIONS}
    try:
        return RunConfig(**rest, **sections)
    except ValidationError as error:
        raise UserError(f"{where}: {one_line(error)}") from None


def find_key(key: str, classes: Mapping[str, type[BaseModel]]) -> tuple[str, str]:
    """`(part, name)` of a setting named bare or with its part; UserError with the nearest spelling otherwise."""
    if "." in key:
        section, _, name = key.partition(".")
        if section in classes and name in classes[section].model_fields:
            return section, name
    else:
        for section, cls in classes.items():
            if key in cls.model_fields:
                return section, key
    known = [name for cls in classes.values() for name in cls.model_fields]
    if "." in key:
        known = [f"{section}.{name}" for section, cls in classes.items() for name in cls.model_fields]
    hint = nearest(key, known)
    if not hint.startswith("; did"):
        hint = " (`elegan presets NAME` lists the settings)"
    raise UserError(f"unknown setting {key!r}{hint}")


def parse_set(items: Iterable[str]) -> dict[str, str]:
    """`["a=1", "b.c=x"]` -> `{"a": "1", "b.c": "x"}`."""
    found = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set takes key=value, not {item!r}; for example --set batch=32")
        found[key.strip()] = value.strip()
    return found


def read_file(path: Path) -> dict[str, Any]:
    """A configuration file, YAML, TOML or JSON by its ending, as a dict. UserError if it is not readable as one."""
    readers: dict[str, Callable[[str], Any]] = {
        ".yaml": yaml.safe_load,
        ".yml": yaml.safe_load,
        ".json": json.loads,
        ".toml": tomllib.loads,
    }
    if path.suffix.lower() not in readers:
        raise UserError(f"{path}: a configuration ends in .yaml, .toml or .json")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such configuration file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a configuration ({error})") from None
    try:
        content = readers[path.suffix.lower()](text)
    except (yaml.YAMLError, json.JSONDecodeError, tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{path}: not valid {path.suffix[1:].upper()}: {reason}") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(k, str) for k in content):
        raise UserError(f"{path}: a configuration is a table of settings; found {type(content).__name__}")
    return content


def flatten(content: Mapping[str, Any]) -> dict[str, Any]:
    """`{"train": {"keep": 3}, "D_lr": 1}` -> `{"train.keep": 3, "D_lr": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if key in SECTIONS and (value is None or isinstance(value, Mapping)):
            flat |= {f"{key}.{name}": v for name, v in (value or {}).items()}
        else:
            flat[key] = value
    return flat


def differences(old: RunConfig, new: RunConfig) -> dict[str, tuple[Any, Any]]:
    """The settings in which two configurations differ: `{"train.seed": (0, 1)}`."""
    a, b = old.model_dump(mode="json"), new.model_dump(mode="json")
    found = {k: (a[k], b[k]) for k in ("family",) if a[k] != b[k]}
    for section in SECTIONS:
        for key in sorted(set(a[section]) | set(b[section])):
            before, after = a[section].get(key), b[section].get(key)
            if before != after:
                found[f"{section}.{key}"] = (before, after)
    return found


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> float:
    """`"90s"`, `"10m"`, `"1h30m"`, `"2.5h"` -> seconds; a bare number is minutes. UserError otherwise."""
    text = text.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        total = 60 * float(text)
    elif re.fullmatch(r"(\d+(\.\d+)?[smhd])+", text):
        total = sum(float(n) * _UNITS[u] for n, _, u in re.findall(r"(\d+(\.\d+)?)([smhd])", text))
    else:
        raise UserError(f"{text!r} is not a time; write 90s, 10m or 1h30m")
    if not 0 < total <= 365 * 86400:
        raise UserError(f"a budget of {text!r} is not between a second and a year")
    return total


def duration(secs: float) -> str:
    """Seconds in words: `45 s`, `4 min 10 s`, `1 h 05 min`."""
    secs = round(secs)
    if secs < 60:
        return f"{secs} s"
    if secs < 3600:
        return f"{secs // 60} min {secs % 60:02} s" if secs % 60 else f"{secs // 60} min"
    return f"{secs // 3600} h {secs % 3600 // 60:02} min"


def _validated(cls: type[M], section: str, values: Mapping[str, Any], where: str = "") -> M:
    """Build one part, reading text values (from a command line) as YAML where the type is not text."""
    prefix = f"{where}: " if where else ""
    read = {}
    for key, value in values.items():
        if key not in cls.model_fields:
            raise UserError(f"{prefix}unknown setting {f'{section}.{key}'!r}{nearest(str(key), cls.model_fields)}")
        read[key] = _read_text(cls, key, value)
    try:
        return cls.model_validate(read)
    except ValidationError as error:
        raise UserError(f"{prefix}{section}.{one_line(error)}") from None


def read_value(cls: type[BaseModel], section: str, key: str, value: Any) -> Any:
    """One setting's value, or its text, checked against its own type and limits. UserError when it does not fit."""
    annotation: Any = cls.model_fields[key].rebuild_annotation()
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation, config=ConfigDict(allow_inf_nan=False))
        return adapter.validate_python(_read_text(cls, key, value))
    except ValidationError as error:
        raise UserError(f"{section}.{key} = {value!r}: {one_line(error).removeprefix('settings: ')}") from None


def _read_text(cls: type[BaseModel], key: str, value: Any) -> Any:
    annotation = cls.model_fields[key].annotation
    return value if annotation is str or not isinstance(value, str) else _from_text(value, choices(annotation))


def choices(annotation: Any) -> list[Any]:
    """The values that a Literal allows, also inside a union; nothing for other types."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [choice for argument in get_args(annotation) for choice in choices(argument)]


def _from_text(value: str, allowed: list[Any]) -> Any:
    """`"[1, 2]"`, `"1,2"`, `"28x32"` and `"none"` from a command line become lists and None, a choice itself."""
    for choice in allowed:
        if str(choice) == value:
            return choice
    if re.fullmatch(r"\d+x\d+", value):
        return value.split("x")
    if re.fullmatch(r"\[.*\]|\d+(,\d+)+", value):
        try:
            return yaml.safe_load(value if value.startswith("[") else f"[{value}]")
        except yaml.YAMLError:
            return value
    return None if value.lower() in ("none", "null") else value


def one_line(error: ValidationError) -> str:
    """A pydantic error as `key = value: what is wrong`, the first one of several."""
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    place = ".".join(str(p) for p in first["loc"] if not str(p).startswith(("tuple", "function", "int", "literal")))
    if not place:
        return f"settings: {message}"
    given = repr(first["input"])
    given = given if len(given) <= 60 else f"{given[:57]}..."
    return f"{place} = {given}: {message[0].lower()}{message[1:]}"
