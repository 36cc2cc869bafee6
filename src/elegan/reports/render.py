"""From values to HTML: the templates with autoescape on, so that no name of a run, class or file becomes markup."""

from __future__ import annotations

import datetime
import html
import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from elegan import __version__
from elegan.errors import UserError
from elegan.files import write_bytes

TEMPLATES = Path(__file__).parent / "templates"


@cache
def environment() -> Any:
    """Jinja with everything escaped and unknown names an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip


def render(template: str, **values: Any) -> str:
    """One page. Its head says when and with what it was made."""
    import torch

    made = {
        "date": datetime.datetime.now().strftime("%Y-%m-%d %H:%M"),
        "elegan": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    return str(environment().get_template(template).render(made=made, **values))


def check_out(out: str | os.PathLike[str]) -> Path:
    """Where a page may go: a file that ends in .html. UserError otherwise, before any work."""
    path = Path(out)
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"{path}: a report is one HTML file; name it so: --out {path.with_suffix('.html')}")
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name a file")
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise UserError(
            f"{path}: cannot be written, {parent} is no folder that may be written to; choose another --out"
        )
    return path


@dataclass(frozen=True)
class Page:
    """A finished page: `html`, and `path` where it was written. A notebook shows it inline."""

    html: str
    path: Path | None = None

    def save(self, out: str | os.PathLike[str]) -> Page:
        """Write it, whole or not at all. UserError where it cannot be written."""
        path = check_out(out)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, self.html.encode())
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror}); choose another --out") from None
        return Page(self.html, path)

    def __str__(self) -> str:
        size = f"{len(self.html.encode()) / 1e6:.1f} MB"
        return f"report in {self.path} ({size}, opens without a network)" if self.path else f"report of {size}"

    def __repr__(self) -> str:
        return f"Page({str(self.path)!r})" if self.path else "Page()"

    def _repr_html_(self) -> str:
        """The page in a frame of its own: neither its style nor its script touches the notebook."""
        page = html.escape(self.html, quote=True)
        return f'<iframe srcdoc="{page}" style="width:100%;height:85vh;border:0" sandbox="allow-scripts"></iframe>'
