"""The space of a search: which settings vary, and over what. `KEY=RANGE` -> `Dimension`, checked before anything runs.

- `G_lr=1e-4..1e-3`: any number between, both ends included; `:log` spreads them evenly over the orders of magnitude;
- `batch=32..128:32`: steps from the lower end;
- `upsampling=deconv,bilinear`: these values; `upsampling=all`: all that the setting allows.

Whole numbers stay whole: that, and the limits of the ends, come from the setting's own type.
"""

from __future__ import annotations

import math
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from elegan.config import MAY_CHANGE, DataConfig, RunConfig, TrainConfig, choices, find_key, read_value
from elegan.errors import UserError, nearest

FORMS = "a range is KEY=1e-4..1e-3, KEY=1e-4..1e-3:log or KEY=32..128:32, choices are KEY=a,b,c"

#: Settings that cannot differ between trials, and why.
_PICTURES = "it changes the pictures that trials are scored on, so that scores would not compare"
FIXED = {
    "train.seed": "every trial has the same seeds; --seeds 3 gives each more of them",
    "train.images": "trials are equally long; --budget or --images says how long",
    "train.budget": "trials are equally long; --budget or --images says how long",
} | {f"data.{key}": _PICTURES for key in DataConfig.model_fields if key != "mirror"}  # fmt: skip


@dataclass(frozen=True)
class Dimension:
    """One setting that varies: a range `low` to `high`, or `choices`."""

    key: str
    """With its part: `model.G_lr`."""
    whole: bool = False
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    choices: tuple[Any, ...] = ()

    @property
    def name(self) -> str:
        """Without its part: what tables and the database call it."""
        return self.key.rpartition(".")[2]

    def suggest(self, trial: Any) -> Any:
        """The value that an optuna trial takes; the same one whenever it is asked."""
        if self.choices:
            texts = [text(c) for c in self.choices]
            return self.choices[texts.index(trial.suggest_categorical(self.name, texts))]
        if self.whole:
            return trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return trial.suggest_float(self.name, self.low, self.high, log=self.log, step=self.step)

    def stored(self, value: Any) -> Any | None:
        """A value as an optuna trial stores it; None when it lies outside."""
        if self.choices:
            return text(value) if text(value) in map(text, self.choices) else None
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return None
        steps = (value - self.low) / (self.step or 1)
        return None if self.step and abs(steps - round(steps)) > 1e-9 else value

    def __str__(self) -> str:
        if self.choices:
            return f"{self.name}={','.join(map(text, self.choices))}"
        how = ":log" if self.log else f":{text(self.step)}" if self.step else ""
        return f"{self.name}={text(self.low)}..{text(self.high)}{how}"


def text(value: Any) -> str:
    """A value as it is written in a search: `0.0003`, `bilinear`, `48x32`, `true`."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if isinstance(value, tuple | list):
        return "x".join(map(text, value)) if len(value) == 2 else f"[{' '.join(map(text, value))}]"
    return str(value)


def parse_space(search: Sequence[str] | Mapping[str, Any], base: RunConfig) -> list[Dimension]:
    """The dimensions of a search, in the order given. UserError for one that is no range or does not fit its setting.

    `search`: `["G_lr=1e-4..1e-3:log", ...]`, or a dict of key to such a range, or to a list of choices.
    """
    items: Iterable[tuple[str, Any]]
    if isinstance(search, Mapping):
        items = search.items()
    else:
        parted = [item.partition("=") for item in search]
        wrong = next((item for item, part in zip(search, parted, strict=True) if not all(part)), None)
        if wrong is not None:
            raise UserError(f"--search {wrong}: {FORMS}")
        items = [(key, value) for key, _, value in parted]
    found: list[Dimension] = []
    for key, value in items:
        dimension = _parse(str(key).strip(), value, base)
        if any(d.key == dimension.key for d in found):
            raise UserError(f"--search {key}: given twice; one range or list of choices holds all values")
        if any(d.name == dimension.name for d in found):
            raise UserError(f"--search {key}: two settings of this name cannot be searched together")
        found.append(dimension)
    return found


def _parse(key: str, value: Any, base: RunConfig) -> Dimension:
    classes: dict[str, type[BaseModel]] = {"data": DataConfig, "train": TrainConfig, "model": type(base.model)}
    section, name = find_key(key, classes)
    full = f"{section}.{name}"
    why = FIXED.get(full)
    if why is None and full in MAY_CHANGE and full != "train.precision":
        why = "it changes how a run is watched, not what it learns"
    if why:
        raise UserError(f"--search {key}: cannot be searched: {why}")
    cls = classes[section]
    annotation = cls.model_fields[name].annotation
    if not isinstance(value, str):
        return _choices(full, [*value] if isinstance(value, list | tuple) else [value], cls)
    value = value.strip()
    if value == "all" and "all" not in choices(annotation):
        allowed = choices(annotation) or ([True, False] if annotation is bool else [])
        if not allowed:
            raise UserError(f"--search {key}=all: {key} is not one of a few values; {FORMS}")
        return _choices(full, allowed, cls)
    if ".." in value:
        return _range(full, value, cls)
    return _choices(full, _split(value), cls)


def _split(value: str) -> list[str]:
    """At commas, but not within brackets: `[1,2],[3,4]` has two parts."""
    parts, depth = [""], 0
    for c in value:
        depth += (c == "[") - (c == "]")
        if c == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += c
    return [part.strip() for part in parts]


def _choices(key: str, values: Sequence[Any], cls: type[BaseModel]) -> Dimension:
    section, _, name = key.partition(".")
    read = tuple(_checked(cls, section, name, value) for value in values)
    said = f"--search {name}={','.join(str(v) for v in values)}"
    if len(read) < 2:
        allowed = choices(cls.model_fields[name].annotation)
        more = f"; it may be {', '.join(map(text, allowed))}" if allowed else ""
        raise UserError(f"{said}: is one value and leaves nothing to search (--set fixes a setting); {FORMS}{more}")
    if len(set(map(text, read))) < len(read):
        raise UserError(f"{said}: names a value twice")
    return Dimension(key, choices=read)


def _range(key: str, value: str, cls: type[BaseModel]) -> Dimension:
    section, _, name = key.partition(".")
    said = f"--search {name}={value}"
    kind = _number(cls.model_fields[name].annotation)
    if kind is None:
        allowed = choices(cls.model_fields[name].annotation)
        listed = f"; it may be {', '.join(map(text, allowed))}" if allowed else ""
        raise UserError(f"{said}: {name} is not a number; name its values, {name}=a,b,c{listed}")
    ends, colon, how = value.partition(":")
    log, step = how.strip() == "log", None
    if colon and not log:
        try:
            step = float(how)
        except ValueError:
            raise UserError(f"{said}: {how!r} is neither a step nor log{_meant(how)}") from None
    low, high = (_checked(cls, section, name, end.strip()) for end in ends.split("..", 1))
    if any(isinstance(end, bool) or not isinstance(end, int | float) for end in (low, high)):
        raise UserError(f"{said}: the ends of a range are numbers; {FORMS}")
    if not low < high:
        raise UserError(f"{said}: the lower end comes first, and the ends differ")
    if log and low <= 0:
        raise UserError(f"{said}: a logarithmic range begins above 0")
    if step is not None and not (math.isfinite(step) and 0 < step <= high - low):
        raise UserError(f"{said}: a step of {how} does not fit into the range")
    if step is not None and kind is int and step != int(step):
        raise UserError(f"{said}: {name} is a whole number, and so must be its step")
    if step is not None and kind is int:
        high = low + (high - low) // int(step) * int(step)
    elif step is not None:
        high = float(f"{low + math.floor((high - low) / step + 1e-9) * step:.12g}")
    return Dimension(key, kind is int, low, high, log, int(step) if step and kind is int else step)


def _meant(how: str) -> str:
    hint = nearest(how.strip(), ["log"])
    return hint if hint.startswith("; did") else ""


def _checked(cls: type[BaseModel], section: str, name: str, value: Any) -> Any:
    try:
        return read_value(cls, section, name, value)
    except UserError as error:
        allowed = choices(cls.model_fields[name].annotation)
        hint = nearest(str(value), map(text, allowed)) if allowed else ""
        raise UserError(f"--search {error}{hint if hint.startswith('; did') else ''}") from None


def _number(annotation: Any) -> type | None:
    """int or float where that is a setting's type, also beside None; else None."""
    if annotation in (int, float):
        return annotation
    if get_origin(annotation) is Annotated:
        return _number(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = {_number(a) for a in get_args(annotation) if a is not type(None)}
        return kinds.pop() if len(kinds) == 1 else None
    return None


def default_space(base: RunConfig) -> list[Dimension]:
    """What is searched when nothing is named: learning rates, batch and the weight average, around the recipe's own.

    The rule goes by the names that all families share: `*lr` within a factor of 4 each way, `batch` halved and
    doubled, `ema_*` within a factor of 4.
    """
    found = []
    for name, field in type(base.model).model_fields.items():
        value, kind = getattr(base.model, name), _number(field.annotation)
        rate = kind is float and (name == "lr" or name.endswith("_lr"))
        if name == "batch":
            sizes = dict.fromkeys((max(1, value // 2), value, 2 * value))
            found.append(Dimension(f"model.{name}", choices=tuple(sizes)))
        elif value and (rate or (kind and name.startswith("ema_"))):
            found.append(_around(name, value, type(base.model)))
    return found


def _around(name: str, value: float, cls: type[BaseModel]) -> Dimension:
    """A logarithmic range from a quarter to four times `value`, or as far up as the setting goes."""
    for factor in (4, 2, 1.25, 1):
        whole = isinstance(value, int)
        high = int(value * factor) if whole else float(f"{value * factor:.4g}")
        try:
            read_value(cls, "model", name, high)
        except UserError:
            continue
        low = max(1, value // 4) if whole else float(f"{value / 4:.4g}")
        return Dimension(f"model.{name}", whole, low, high, log=True)
    raise AssertionError(f"{name}={value} is the recipe's own value")


def with_values(base: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """`base` with other values of the settings searched, `{"model.G_lr": 3e-4}`, checked together.

    Raises UserError when the settings do not agree.
    """
    from elegan.config import build

    parts = {"data": base.data.model_dump(), "train": base.train.model_dump()}
    config = build(base.preset, base.family, base.model, **parts, overrides=values)
    return config.model_copy(update={"derived": base.derived})
