"""What there is: a run and this machine, each as a plain table and as a dict; presets stand in `catalogue`.

`run_info` reads the files of a run folder and nothing else, without torch: it answers at once.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from elegan import __version__
from elegan.config import duration, read_file
from elegan.errors import UserError

NARROWEST, PAPER = 60, 100  # columns: of any terminal, and where there is none
GAP = "  "
BUFFERS = ("running_mean", "running_var", "num_batches_tracked", ".u")  # state that is not learnt
DOWNLOADED = {"fashion-mnist": "30 MB", "mnist": "11 MB"}


@dataclass(frozen=True)
class Report:
    """Facts: `to_dict()` for programs, `str` for people, as wide as the terminal."""

    content: Any
    text: Callable[[int], str]

    def to_dict(self) -> Any:
        """Plain values only."""
        return self.content

    def __str__(self) -> str:
        columns = shutil.get_terminal_size((PAPER, 24)).columns
        return self.text(max(NARROWEST, columns if sys.stdout.isatty() else max(columns, PAPER)))

    __repr__ = __str__


def table(rows: Sequence[Sequence[str]], width: int, header: Sequence[str] = ()) -> str:
    """Aligned columns; the last one is wrapped at `width`, its further lines hanging below it."""
    rows = [header, *rows] if header else rows
    sizes = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    hang = " " * (sum(sizes) + len(GAP) * len(sizes))
    lines = []
    for row in rows:
        start = GAP.join([*(cell.ljust(size) for cell, size in zip(row, sizes, strict=False)), ""])
        room = max(width, len(hang) + 20)
        text = textwrap.fill(row[-1], room, initial_indent=start, subsequent_indent=hang, break_on_hyphens=False)
        lines.append(text.rstrip() or start.rstrip())
    if header:
        lines.insert(1, "-" * min(width, max(map(len, "\n".join(lines).splitlines()))))
    return "\n".join(lines)


# A run --------------------------------------------------------------------------------------------------------


def run_info(path: str | os.PathLike[str]) -> Report:
    """What a run folder holds. Raises UserError when it is not one."""
    from elegan.training.folder import RunFolder, best_counters

    folder = RunFolder(path)
    if not folder.exists:
        folder.config()  # raises, with the nearest name
    config = read_file(folder / "config.yaml")
    parts = {name: config.get(name) for name in ("data", "train", "model")}
    if not all(isinstance(part, dict) for part in parts.values()):
        raise UserError(f"{folder / 'config.yaml'}: damaged (data, train or model is missing); restore it from a copy")
    rows = [row for row in folder.stats() if isinstance(row, dict)]
    last = rows[-1] if rows else {}
    checkpoints = [_checkpoint(file) for file in sorted(folder.checkpoints.glob("*.json")) if file.stem.isdigit()]
    measures = ("images", "steps", "seconds", "images_per_second", "memory")
    grids = folder.grids()
    content = {
        "path": str(folder.path),
        "preset": config.get("preset"),
        "family": config.get("family"),
        "data": {"source": parts["data"].get("source")} | _data(folder / "data.json"),  # type: ignore[union-attr]
        "train": {key: parts["train"].get(key) for key in ("seed", "device", "precision", "budget")},  # type: ignore[union-attr]
        "networks": _networks(folder.checkpoints, [c["file"] for c in reversed(checkpoints) if not c["fault"]]),
        "images": max([last.get("images", 0), *(c["images"] for c in checkpoints)]),
        "planned": parts["train"].get("images", 0),  # type: ignore[union-attr]
        **{key: last.get(key) for key in measures[1:]},
        "values": {key: value for key, value in last.items() if key not in measures},
        "checkpoints": checkpoints,
        "scores": _scores(folder),
        "best": best_counters(folder),
        "findings": folder.stats("findings.jsonl"),
        "last_grid": str(grids[-1]) if grids else None,
    }
    return Report(content, partial(_run_text, content))


def _data(path: Path) -> dict[str, Any]:
    """What data.json says, as far as it can be read."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return {key: data[key] for key in ("name", "count", "height", "width", "channels", "classes")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return {"fault": f"data.json is damaged ({type(error).__name__}: {error})"}


def _checkpoint(path: Path) -> dict[str, Any]:
    """One checkpoint, and what is wrong with it as far as sizes tell: nothing is hashed here."""
    tensors = path.with_suffix(".safetensors")
    found: dict[str, Any] = {"images": int(path.stem), "file": tensors.name, "bytes": 0, "fault": None}
    try:
        found["bytes"] = tensors.stat().st_size
        expected = int(json.loads(path.read_text(encoding="utf-8"))["bytes"])
        if found["bytes"] != expected:
            found["fault"] = f"{found['bytes']:,} bytes of {expected:,}"
    except OSError as error:
        found["fault"] = str(error.strerror).lower()
    except (ValueError, KeyError, TypeError):
        found["fault"] = f"{path.name} cannot be read"
    return found


def _networks(folder: Path, files: Sequence[str]) -> dict[str, int]:
    """Parameters of each network, from the header of the first of `files` that can be read: no tensor is loaded."""
    for file in files:
        try:
            with (folder / file).open("rb") as f:
                size = int.from_bytes(f.read(8), "little")
                header = json.loads(f.read(min(size, 1 << 26)))
            counts: dict[str, int] = {}
            for key, entry in header.items():
                part, net, name = (*key.split("/", 2), "", "")[:3]
                if part == "nets" and not net.endswith("_ema") and not name.endswith(BUFFERS):
                    counts[net] = counts.get(net, 0) + math.prod(entry["shape"])
            return counts
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            continue
    return {}


def _scores(folder: Any) -> dict[str, Any] | None:
    """The latest scores: those of `elegan demo`, or of the run itself."""
    try:
        kept = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
        value, images = kept["scores"]["value"], kept["images"]
    except (OSError, ValueError, KeyError, TypeError):
        rows = [row for row in folder.stats("scores.jsonl") if isinstance(row, dict)]
        if not rows:
            return None
        value, images = rows[-1], rows[-1].get("images")
    return {"images": images} | {k: v for k, v in value.items() if isinstance(v, float)}


def _run_text(info: dict[str, Any], width: int) -> str:
    from elegan.progress import number

    data = info["data"]
    shape = data.get("fault") or (
        f"{data['count']:,} images {data['height']}x{data['width']}x{data['channels']}"
        + (f", {data['classes']} classes" if data["classes"] else ", unlabelled")
    )
    share = info["images"] / max(info["planned"], 1)
    rows = [
        ("run", info["path"]),
        ("recipe", f"{info['preset']} (family {info['family']}), seed {info['train']['seed']}"),
        ("data", f"{data['source']}: {shape}"),
        ("device", f"{info['train']['device']}, {info['train']['precision']}"),
    ]
    if info["networks"]:
        rows.append(("networks", ", ".join(f"{name} {number(n)}" for name, n in info["networks"].items())))
    rows.append(("images", f"{info['images']:,} of {info['planned']:,} ({share:.0%})"))
    if info["seconds"] is not None:
        speed = f", {info['images_per_second']:,.0f} images/s, {info['memory'] / 1e6:,.0f} MB"
        rows.append(("time", f"{duration(info['seconds'])} in {info['steps']:,} steps{speed}"))
    if info["values"]:
        rows.append(("last", "  ".join(f"{key} {value:.3g}" for key, value in info["values"].items())))
    for i, c in enumerate(info["checkpoints"]):
        fault = f"  DAMAGED: {c['fault']}" if c["fault"] else ""
        rows.append(("" if i else "checkpoints", f"{c['images']:,} images, {c['bytes'] / 1e6:.1f} MB{fault}"))
    if not info["checkpoints"]:
        rows.append(("checkpoints", "none yet"))
    if info["best"]:
        best = info["best"]
        rows.append(("best", f"{best['by']} {best['score']:.3g} at {best['images']:,} images (--checkpoint best)"))
    for i, row in enumerate(info["findings"][-3:]):
        rows.append(("" if i else "doctor", f"at {row['images']:,}: {row.get('text')}"))
    if info["scores"]:
        main = ("frechet", "kernel", "precision", "recall", "coverage", "label_accuracy", "copies")
        found = [f"{key.replace('_', ' ')} {info['scores'][key]:.3g}" for key in main if key in info["scores"]]
        rows.append(("scores", f"{', '.join(found)} (at {info['scores']['images']:,} images)"))
    if info["last_grid"]:
        rows.append(("last grid", info["last_grid"]))
    return table(rows, width)


# This machine -----------------------------------------------------------------------------------------------------


def machine() -> Report:
    """What `elegan doctor` says: versions, devices, precision (measured), memory, data, extras."""
    import torch

    from elegan.data.idx import cache_folder
    from elegan.training.engine import available_memory, describe_device, has_bf16, pick_device

    cpu, device = torch.device("cpu"), pick_device("auto")
    devices = [torch.device("cuda", i) for i in range(torch.cuda.device_count())] + [cpu]
    here = Path.cwd()
    content: dict[str, Any] = {
        "elegan": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.platform(terse=True),
        "devices": [describe_device(d) for d in devices],
        "auto_device": device.type,
        "threads": torch.get_num_threads(),
        "bf16": {"in_hardware": has_bf16(device), "speed_over_fp32": round(bf16_ratio(device), 2)},
        "memory": {"total": _total_memory(), "free": available_memory(cpu)},
        "device_memory": torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None,
        "disk": {"folder": str(here), "free": shutil.disk_usage(here).free},
        "data": _named_data(),
        "extras": _extras(),
        "cache": str(cache_folder()),
    }
    return Report(content, partial(_machine_text, content))


def bf16_ratio(device: Any) -> float:
    """How many times faster than float32 a bfloat16 matrix product is, here and now."""
    import torch

    side = 2048 if device.type == "cuda" else 512
    best = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.ones((side, side), dtype=dtype, device=device)
        times: list[float] = []
        while len(times) < 3 or (len(times) < 20 and sum(times) < 0.1):
            start = time.perf_counter()
            a @ a
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - start)
        best[dtype] = min(times)
    return best[torch.float32] / best[torch.bfloat16]


def _total_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _named_data() -> dict[str, str]:
    """Where each named data set is, or how to come by it."""
    from elegan.data.idx import find_named, search_folders
    from elegan.data.sources import NAMES

    found = {}
    for name in NAMES:
        if name == "stacked-mnist":
            found[name] = "composed from mnist"
            continue
        if name not in DOWNLOADED:
            found[name] = "drawn when needed, no files"
            continue
        try:
            where = {find_named(name, split) for split in ("train", "test")}
        except UserError as error:
            found[name] = str(error)
            continue
        if None not in where:
            found[name] = ", ".join(sorted(str(w) for w in where))
        else:
            folder = search_folders()[0] / name
            text = f"not here; the first --data {name} downloads it ({DOWNLOADED[name]})"
            found[name] = f"{text}, or put the four IDX files into {folder}"
    return found


def _extras() -> dict[str, bool]:
    """The package's optional extras (the developer's apart), and whether what each needs is installed."""
    try:
        requirements = importlib.metadata.requires("elegan") or []
    except importlib.metadata.PackageNotFoundError:  # run from a source folder
        return {}
    extras: dict[str, bool] = {}
    for requirement in requirements:
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", requirement)
        if extra and extra[1] != "dev":
            package = re.match(r"[\w.-]+", requirement)
            assert package
            extras[extra[1]] = extras.get(extra[1], True) and _installed(package[0])
    return extras


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _machine_text(facts: dict[str, Any], width: int) -> str:
    bf16, memory = facts["bf16"], facts["memory"]
    hardware = "in hardware" if bf16["in_hardware"] else "in software only: fp32 is taken"
    sizes = [
        f"{memory[key] / 1e9:.1f} GB {word}" for key, word in (("free", "free"), ("total", "in all")) if memory[key]
    ]
    rows = [
        ("elegan", f"{facts['elegan']}, Python {facts['python']}, torch {facts['torch']}, {facts['system']}"),
        ("devices", "; ".join(facts["devices"]) + f"; auto takes {facts['auto_device']}"),
        ("bf16", f"{hardware}; a matrix product is {bf16['speed_over_fp32']:.1f} times as fast as in fp32"),
        ("memory", ", ".join(sizes) or "not known"),
    ]
    if facts["device_memory"]:
        rows.append(("on the GPU", f"{facts['device_memory'] / 1e9:.1f} GB"))
    rows += [("disk", f"{facts['disk']['free'] / 1e9:.1f} GB free in {facts['disk']['folder']}")]
    rows += [("data" if i == 0 else "", f"{name}: {where}") for i, (name, where) in enumerate(facts["data"].items())]
    for i, (extra, there) in enumerate(facts["extras"].items()):
        text = "installed" if there else f"not installed: pip install 'elegan[{extra}]'"
        rows.append(("extras" if i == 0 else "", f"{extra}: {text}"))
    rows.append(("cache", facts["cache"]))
    return table(rows, width)
