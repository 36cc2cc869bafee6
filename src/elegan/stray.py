"""Words that stand alone on the command line, such as `fashion` in `elegan train fashion`: what they were meant for."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from elegan.errors import UserError


class OptionsOnly(TyperCommand):
    """A command of options alone, which says of any other word where it belongs."""

    allow_extra_args = True

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Run the command. UserError for a word without an option before it."""
        if ctx.args:
            options = {option.name for option in self.params}
            raise UserError(f"{ctx.args[0]!r} stands alone; {meant(ctx.args[0], options, ctx.command_path)}")
        return super().invoke(ctx)


def meant(word: str, options: Collection[str | None], command: str) -> str:
    """How the `word` would be given to this `command` with these `options`."""
    from elegan import families
    from elegan.data.sources import NAMES

    if "preset" in options and word in families.presets():
        return f"a preset is given as --preset {word}"
    if "data" in options and (word in NAMES or Path(word).exists()):
        return f"data are given as --data {word}"
    return f"every value follows an option, which `{command} --help` lists"
