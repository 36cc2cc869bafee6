"""What can be trained: the presets and the families, each as a plain table and as a dict."""

from __future__ import annotations

import textwrap
from typing import Any

from elegan.about import Report, table
from elegan.config import DataConfig, TrainConfig, choices


def preset_table() -> Report:
    """All presets: name, family, data, how long they train, and one line about each."""
    from elegan import families

    first = families.preset(families.DEFAULT_PRESET)[0]
    content: list[dict[str, Any]] = [
        {"name": name, "family": family, "default": name == families.DEFAULT_PRESET}
        | {"data": p.data, "images": p.images, "batch": p.config.batch, "about": p.about}
        for name, (family, p) in families.presets().items()
    ]
    content.sort(key=lambda e: (not e["default"], e["family"] != first, e["family"]))

    def text(width: int) -> str:
        header = ("preset", "family", "data", "images", "")
        rows = [(e["name"], e["family"], e["data"], f"{e['images']:>9,}", e["about"]) for e in content]
        return f"{table(rows, width, header)}\n\nelegan presets NAME lists its settings; elegan train --preset NAME"

    return Report(content, text)


def preset_settings(name: str) -> Report:
    """Every setting of a preset, section by section. Raises UserError for an unknown preset."""
    from elegan import families

    family, preset = families.preset(name)
    train = TrainConfig(images=preset.images)
    sections = {"data": DataConfig(source=preset.data, **preset.data_settings), "train": train, "model": preset.config}
    content: dict[str, Any] = {"preset": name, "family": family, "about": preset.about}
    for section, config in sections.items():
        defaults = type(config)()
        content[section] = {
            key: {
                "value": config.model_dump(mode="json")[key],
                "default": getattr(config, key) == getattr(defaults, key),
                "choices": choices(field.annotation),
                "help": " ".join((field.description or "").split()),
            }
            for key, field in type(config).model_fields.items()
        }

    def text(width: int) -> str:
        blocks = [textwrap.fill(f"{name} (family {family}): {preset.about}", width)]
        for section in sections:
            rows = []
            for key, entry in content[section].items():
                listed = f" [{' | '.join(map(str, entry['choices']))}]" if entry["choices"] else ""
                mark = " " if entry["default"] else "*"
                rows.append((mark, key, shown(entry["value"]), entry["help"] + listed))
            blocks.append(f"{section}\n{table(rows, width)}")
        note = "* set by this preset; the others are the family's defaults. Change any: --set KEY=VALUE"
        blocks.append(textwrap.fill(note, width))
        return "\n\n".join(blocks)

    return Report(content, text)


def shown(value: Any) -> str:
    """A setting's value as `--set` takes it."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def family_table(seconds: float = 0) -> Report:
    """The families: what each is (from the head of its file), its idea, what it is for, its presets.

    With `seconds` each family's leading preset is timed on this machine for about so long.
    """
    content = [_family(name, members, seconds) for name, members in _by_family().items()]

    def text(width: int) -> str:
        rows: list[tuple[str, str]] = []
        for e in content:
            cost = [f"Here: {_cost(e['cost'])}."] if e["cost"] else []
            told = [e["about"], e["idea"], f"For: {e['use']}.", *cost, f"Presets: {', '.join(e['presets'])}."]
            rows += [(e["name"] if i == 0 else "", line) for i, line in enumerate(told)]
            rows.append(("", ""))
        more = "" if seconds else "; --time 2 measures what each costs here"
        return f"{table(rows, width)}\nelegan families NAME tells more of one{more}"

    return Report(content, text)


def family_details(name: str, seconds: float = 0) -> Report:
    """One family: the whole head of its file, what it is for, its presets. Raises UserError for an unknown one."""
    from elegan import families

    doc = (families.get(name).__doc__ or "").strip()
    members = _by_family()[name]
    content = _family(name, members, seconds) | {
        "text": doc, "presets": {preset: families.preset(preset)[1].about for preset in members},
    }  # fmt: skip

    def text(width: int) -> str:
        blocks = [textwrap.fill(" ".join(part.split()), width) for part in doc.split("\n\n")]
        blocks.insert(1, table([("idea", content["idea"]), ("for", content["use"])], width))
        if content["cost"]:
            blocks.append(f"here: {_cost(content['cost'])}")
        blocks.append(table(list(content["presets"].items()), width))
        blocks.append("elegan presets NAME lists the settings of a preset")
        return "\n\n".join(blocks)

    return Report(content, text)


def _family(name: str, members: list[str], seconds: float) -> dict[str, Any]:
    from elegan import families

    module = families.get(name)
    about = " ".join((module.__doc__ or "").strip().split("\n\n")[0].split())
    card = module.Model.card
    cost = measured_cost(members[1], seconds) if seconds else None  # the first after `tiny`
    return {"name": name, "about": about, "idea": card.idea, "use": card.use, "cost": cost, "presets": members}


def measured_cost(preset: str, seconds: float) -> dict[str, Any]:
    """What a training step of a preset costs on this machine, timed for about `seconds`."""
    from elegan.bench import bench

    found = bench(preset, seconds=seconds).to_dict()
    keys = ("preset", "batch", "ms_per_step", "images_per_second", "peak_memory_mb", "device", "precision")
    return {key: found[key] for key in keys}


def _cost(cost: dict[str, Any]) -> str:
    speed = f"{cost['ms_per_step']:,.0f} ms a step of {cost['batch']}, {cost['images_per_second']:,.0f} images/s"
    return f"{cost['preset']}, {cost['precision']}: {speed}"


def _by_family() -> dict[str, list[str]]:
    from elegan import families

    found: dict[str, list[str]] = {family: [] for family in families.names()}
    for name, (family, _) in families.presets().items():
        found[family].append(name)
    return found
