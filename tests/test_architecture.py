"""The shape of the package: imports point one way, nothing is pickled, nothing heavy is loaded early."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "elegan"
FILES = sorted(SOURCE.rglob("*.py"))

#: Layer by layer from the bottom: a part may import the parts named after it, and no other of ours.
MAY_IMPORT = {
    "errors": set(),
    "config": {"errors"},
    "files": set(),
    "images": {"files", "errors"},
    "data": {"files", "images", "errors", "config"},
    "adversarial": {"errors", "images"},
    "networks": {"errors", "images", "adversarial"},
    "families": {"networks", "adversarial", "images", "errors"},
    "metrics": {"data", "files", "images", "errors", "networks", "config"},
    "doctor": {"families", "adversarial", "metrics", "files", "images", "errors", "config"},
    "training": {
        "doctor",
        "families",
        "networks",
        "adversarial",
        "metrics",
        "data",
        "files",
        "images",
        "errors",
        "config",
        "progress",
        "judge",
    },
}
NEVER = {"cli", "studio", "__main__"}


def modules_of(tree: ast.AST, here: str) -> set[str]:
    """Every module that a file imports, wherever in it (also within functions), as absolute names."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*here.split(".")[: -node.level], base]).rstrip(".")
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found


def part_of(path: Path) -> str:
    relative = path.relative_to(SOURCE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def our_parts(path: Path) -> set[str]:
    here = ".".join(["elegan", *path.relative_to(SOURCE).with_suffix("").parts])
    names = modules_of(ast.parse(path.read_text()), here)
    parts = {name.split(".")[1] for name in names if name.startswith("elegan.")}
    return {p for p in parts if (SOURCE / p).is_dir() or (SOURCE / f"{p}.py").is_file()}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_one_way(path):
    part, imported = part_of(path), our_parts(path)
    if part in MAY_IMPORT:
        assert imported - {part} <= MAY_IMPORT[part]
    if part != "__main__":
        assert not imported & NEVER - {part}


def test_the_check_sees_imports():
    tree = ast.parse(
        "def f():\n    from elegan.training import loop\n    import elegan.cli\n    from ..data import idx"
    )
    found = modules_of(tree, "elegan.families.gan")
    assert {"elegan.training.loop", "elegan.cli", "elegan.data.idx"} <= found


def test_the_training_loop_knows_no_family():
    for name in ("loop", "engine", "checkpoint", "feed"):
        text = (SOURCE / "training" / f"{name}.py").read_text()
        assert not {"elegan.families.gan", "elegan.adversarial", "elegan.networks"} & modules_of(
            ast.parse(text), f"elegan.training.{name}"
        )


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_nothing_is_pickled(path):
    tree = ast.parse(path.read_text())
    assert not modules_of(tree, "elegan") & {"pickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
        ):
            call = f"{node.func.value.id}.{node.func.attr}"
            assert call != "torch.save", f"line {node.lineno}"
            if call == "torch.load":  # of other people's weights, as plain data
                assert any(k.arg == "weights_only" and getattr(k.value, "value", None) is True for k in node.keywords)
            if call == "np.load":
                assert not any(k.arg == "allow_pickle" and getattr(k.value, "value", True) for k in node.keywords)
            if call.startswith("yaml."):
                assert call in ("yaml.safe_load", "yaml.safe_dump"), f"line {node.lineno}"


def loaded(code: str) -> set[str]:
    """The top-level modules in memory after `code` has run in a fresh process."""
    code += "\nimport sys; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code", ["import elegan", "import elegan.cli", "import elegan; elegan.UserError; dir(elegan); elegan.__version__"]
)
def test_nothing_heavy_is_loaded_early(code):
    heavy = {"torch", "numpy", "PIL", "matplotlib", "scipy", "pandas"}
    assert not loaded(code) & heavy


def test_help_loads_nothing_heavy():
    code = "import sys, elegan.cli\nsys.argv = ['elegan', '--help']\ntry: elegan.cli.main()\nexcept SystemExit: pass"
    assert not loaded(code) & {"torch", "numpy", "PIL", "matplotlib"}


def test_everything_public_is_there():
    import elegan

    for name in elegan.__all__:
        assert getattr(elegan, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'tarin'"):
        elegan.tarin
