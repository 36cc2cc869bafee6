"""Mistakes on the command line itself, each told in one line: unknown options and commands, words that stand alone."""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from elegan.errors import UserError, nearest

UsageError: Any = typer.BadParameter.__base__  # click's, wherever this version of typer has it


class OneLine(TyperGroup):
    """The commands. A wrong one, or a wrong option of one, is a UserError instead of typer's usage and its own line."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run what the command line asks for, and exit."""
        try:
            code = super().main(*args, **extra | {"standalone_mode": False})
        except UsageError as error:
            if "\n" in error.format_message():  # not a mistake: nothing was asked for, and help is the answer
                error.show()
                sys.exit(error.exit_code)
            raise UserError(mistake(error)) from None
        sys.exit(code if isinstance(code, int) else 0)


def mistake(error: Any) -> str:
    """What typer calls a wrong usage, in one line with where to read on."""
    text = error.format_message().rstrip(".").replace("Value error, ", "")  # pydantic's, for a choice that is none
    command = error.ctx.command_path if error.ctx else "elegan"
    if error.ctx and hasattr(error, "option_name") and hasattr(error, "possibilities"):
        known = [name for option in error.ctx.command.params for name in option.opts if name.startswith("--")]
        text = f"no such option {error.option_name!r}{nearest(error.option_name, known)}"
    return f"{text[0].lower()}{text[1:]} (`{command} --help` says more)"


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
