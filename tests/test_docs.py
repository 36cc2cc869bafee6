"""The documents tell the truth: commands parse, names exist, links lead somewhere, generated pages are current."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import elegan
from elegan import families
from elegan.cli import app
from elegan.config import parse_set
from elegan.training.run import configure
from elegan.tuning.space import parse_space

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> Iterator[tuple[Path, str]]:
    for path in DOCUMENTS:
        for found in re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S):
            yield path, found


def shell_lines() -> set[str]:
    """Every command line in ```sh blocks."""
    lines = {line.split("#")[0] for _, block in blocks("sh") for line in block.replace("\\\n", " ").splitlines()}
    return {" ".join(line.split()) for line in lines if line.strip()}


def mentions() -> set[str]:
    """Every `elegan ...` with arguments in the text."""
    found = {m for path in DOCUMENTS for m in re.findall(r"`(elegan [^`]+)`", path.read_text(encoding="utf-8"))}
    return {" ".join(m.split()) for m in found if len(m.split()) > 2 and m != "elegan data inspect"}


ELEGAN = sorted({line for line in shell_lines() if line.startswith("elegan ")} | mentions())
PLACEHOLDERS = {"NAME-tiny": "tiny", "NAME": "tiny", "N": "8", "IMAGES": "8", "KEY=VALUE": "batch=8"}


def parse(line: str) -> tuple[str, dict[str, object]]:
    """The verb and parameters that the command line would run; raises for anything that it would refuse."""
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(line)[1:]]
    if words == ["--help"]:
        return "", {}
    command, verb = typer.main.get_command(app), []
    while hasattr(command, "commands"):
        verb.append(words.pop(0))
        command = command.commands[verb[-1]]
    return " ".join(verb), command.make_context(" ".join(verb), words).params


def test_there_are_commands() -> None:
    assert len(ELEGAN) > 15


@pytest.mark.parametrize("line", ELEGAN)
def test_commands_parse(line: str) -> None:
    verb, values = parse(line)
    if verb == "train":
        settings = parse_set(values.get("settings") or [])
        named = {key: values.get(key) for key in ("seed", "init")}
        configure(values.get("preset"), values.get("data"), settings=settings, **named)
    elif verb == "tune" and values.get("search"):
        parse_space(values["search"], configure(values.get("preset"), values.get("data")))
    elif verb == "presets" and values.get("name"):
        families.preset(values["name"])


def test_the_other_commands_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    for line in shell_lines():
        words = line.split()
        if words[0] == "make":
            assert words[1] in targets, line
        assert words[0] in {"elegan", "make", "python3", ".", "pip"}, f"{line}: this test does not know it"


def test_every_verb_is_documented() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    for verb in typer.main.get_command(app).commands:
        assert f"elegan {verb}" in text, verb


@pytest.mark.parametrize(
    ("path", "code"), [pytest.param(p, c, id=f"{p.name}-{i}") for i, (p, c) in enumerate(blocks("python"))]
)
def test_python_examples_name_what_exists(path: Path, code: str) -> None:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "elegan":
            assert hasattr(elegan, node.attr), f"{path.name}: elegan.{node.attr}"
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("elegan"):
            for name in node.names:
                assert hasattr(importlib.import_module(node.module), name.name), f"{path.name}: {name.name}"


def test_the_example_family_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = (c for p, c in blocks("python") if p.name == "CONTRIBUTING.md")
    (tmp_path / "example.py").write_text(code, encoding="utf-8")
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(tmp_path)])
    run = elegan.train(preset="example-tiny", out=tmp_path / "run", steps=3, grids=2, show=False)
    assert run.sample(5).images.shape == (5, 28, 28, 1)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.M)
            assert anchor in [t.lower().replace(" ", "-") for t in titles], target


def test_generated_pages_are_current() -> None:
    spec = importlib.util.spec_from_file_location("make_docs", ROOT / "scripts" / "make_docs.py")
    assert spec and spec.loader
    make_docs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_docs)
    for name, text in make_docs.pages().items():
        assert (ROOT / "docs" / name).read_text(encoding="utf-8") == text, f"{name} is out of date: run `make docs`"
