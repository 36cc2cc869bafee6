"""Write the pages of docs/ that follow from the code and from results: presets.md, families.md and evidence.md.

    python scripts/make_docs.py [--check]

With `--check` nothing is written, and the exit code is 1 when a page is out of date (`tests/test_docs.py` checks the
same).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from elegan import families
from elegan.catalogue import family_table, preset_table, shown
from elegan.config import DataConfig, TrainConfig, choices

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # benchmarks is not part of the package

from benchmarks.evidence.page import page as evidence_page  # noqa: E402
from benchmarks.evidence.table import GATES  # noqa: E402

DOCS = ROOT / "docs"
NOTICE = "<!-- Written by scripts/make_docs.py from the code: change the code, then run `make docs`. -->"


def pages() -> dict[str, str]:
    """File name in docs/ -> its text."""
    return {"presets.md": presets_page(), "families.md": families_page(), "evidence.md": evidence_page(GATES, NOTICE)}


def presets_page() -> str:
    """One table of all presets, then what each sets, then the settings that all share."""
    entries = preset_table().to_dict()
    rows = [
        (
            f"[`{e['name']}`](#{e['name']})" + (" (default)" if e["default"] else ""),
            f"[{e['family']}](families.md#{e['family']})",
            e["data"],
            f"{e['images']:,}",
            str(e["batch"]),
            e["about"],
        )
        for e in entries
    ]
    lines = [
        "# Presets",
        NOTICE,
        "A preset is a named recipe: a family's settings, the data it is meant for, and how long it trains. Any part "
        "of it can be changed on the command line (`--data`, `--budget`, `--set KEY=VALUE`); "
        "`elegan presets NAME` lists all settings of one.",
        markdown_table(("preset", "family", "data", "images", "batch", "about"), rows),
        "## What each preset sets",
        "Settings that are not listed have the family's default, see [families](families.md).",
    ]
    for e in entries:
        family, preset = families.preset(e["name"])
        defaults = families.get(family).Config()
        changed = {k: v for k, v in preset.config.model_dump().items() if v != getattr(defaults, k)}
        changed |= preset.data_settings
        lines.append(f"### {e['name']}")
        said = ", ".join(f"`{key}={shown(value)}`" for key, value in changed.items())
        lines.append(f"{e['about']} {'Sets ' + said if said else 'All settings are the defaults of its family'}.")
    lines += [
        "## Settings of every run",
        "These belong to the run, not to the family. The `data` ones decide what is learnt from:",
        settings_table(DataConfig),
        "and the `train` ones how:",
        settings_table(TrainConfig),
    ]
    return "\n\n".join(lines) + "\n"


def families_page() -> str:
    """All families in a table; then each: the head of its file, its presets, its settings."""
    entries, measured = family_table().to_dict(), costs()
    rows = [(f"[{e['name']}](#{e['name']})", e["idea"], e["use"], *cost_cells(measured, e["name"])) for e in entries]
    header = ("family", "idea", "choose it for", "preset timed", "ms a step", "images/s", "memory")
    lines = [
        "# Families",
        NOTICE,
        "A family is one kind of GAN: one file in `src/elegan/families/` that holds its settings, its presets and its "
        "whole training step. `elegan families` prints this table, with `--time 2` measured on your own machine.",
        markdown_table(header, rows),
        f"Cost: `python -m benchmarks.cost`; {measured['machine']}." if measured else "Cost: not measured.",
        "The papers, and the text below, stand at the head of each file.",
    ]
    for name in families.names():
        module = families.get(name)
        found = [preset for preset, (family, _) in families.presets().items() if family == name]
        links = ", ".join(f"[`{preset}`](presets.md#{preset})" for preset in found)
        lines += [f"## {name}", (module.__doc__ or "").strip(), f"Presets: {links}.", settings_table(module.Config)]
    return "\n\n".join(lines) + "\n"


def costs() -> dict[str, Any]:
    """What `python -m benchmarks.cost` measured, or nothing."""
    path = ROOT / "benchmarks" / "results" / "cost.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def cost_cells(measured: dict[str, Any], family: str) -> tuple[str, ...]:
    """Preset, milliseconds a step, images a second and memory of a family."""
    cost = measured.get("families", {}).get(family)
    if cost is None:
        return ("", "", "", "")
    preset = f"[`{cost['preset']}`](presets.md#{cost['preset']})"
    numbers = (f"{cost['ms_per_step']:,.0f}", f"{cost['images_per_second']:,.0f}", f"{cost['peak_memory_mb']:,.0f} MB")
    return (preset, *numbers)


def settings_table(config: Any) -> str:
    """Name, default, choices and help of each setting of a configuration class."""
    defaults = config()
    rows = []
    for key, field in config.model_fields.items():
        listed = choices(field.annotation)
        told = " ".join((field.description or "").split())
        told += f" One of {', '.join(f'`{choice}`' for choice in listed)}." if listed else ""
        rows.append((f"`{key}`", f"`{shown(getattr(defaults, key))}`", told))
    return markdown_table(("setting", "default", "meaning"), rows)


def markdown_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table in Markdown; bars inside cells are escaped."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def main() -> int:
    stale = []
    for name, text in pages().items():
        path = DOCS / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if "--check" not in sys.argv[1:]:
            DOCS.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(DOCS.parent)}")
    if "--check" in sys.argv[1:] and stale:
        print(f"out of date: {', '.join(stale)}; run `make docs`")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
