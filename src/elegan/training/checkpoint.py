"""Checkpoints: a model's `Parts` and the loop's counters in safetensors and JSON, never pickle.

A checkpoint `00012800` (images seen) is two files. `.safetensors` holds every tensor under a path such as
`nets/G/layers.0.weight` or `optimizers/D/0/exp_avg`. `.json`, written last, holds the format version, the
counters, the optimisers' settings, the size and SHA-256 of the tensors, and its own SHA-256: without it the
checkpoint does not exist, and one that does not match is damaged. Each file is written beside its place, flushed
to the disk, then renamed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from elegan.errors import UserError
from elegan.families.base import Parts
from elegan.files import write_bytes

FORMAT = 1


class Damaged(Exception):
    """A checkpoint whose files are missing, cut short or altered; the message names the file and the fault."""


def save(folder: Path, parts: Parts, counters: Mapping[str, Any]) -> Path:
    """Write a checkpoint named after `counters["images"]` into `folder`; returns its JSON file.

    Raises UserError when the disk is full, leaving earlier checkpoints as they were.
    """
    tensors, settings = flatten(parts)
    data = save_tensors({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
    stem = folder / f"{counters['images']:09}"
    meta = {
        "format": FORMAT,
        "counters": dict(counters),
        "optimizers": settings,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    meta["self"] = digest_of(meta)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(stem.with_suffix(".safetensors"), data)
        write_bytes(stem.with_suffix(".json"), json.dumps(meta, indent=1).encode())
        sync_folder(folder)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        reason = f"the disk is full ({len(data) / 1e6:.0f} MB needed)" if full else str(error.strerror or error)
        raise UserError(
            f"{folder}: checkpoint not written: {reason}; earlier checkpoints are intact: make room and run the "
            "same command again"
        ) from None
    return stem.with_suffix(".json")


def digest_of(meta: Mapping[str, Any]) -> str:
    """The SHA-256 of a checkpoint's JSON but for its own entry."""
    rest = {key: value for key, value in meta.items() if key != "self"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def listing(folder: Path) -> list[Path]:
    """The checkpoints' JSON files, newest first."""
    found = (p for p in folder.glob("*.json") if p.stem.isdecimal())
    return sorted(found, key=lambda p: int(p.stem), reverse=True)


def prune(folder: Path, keep: int, latest: Path) -> None:
    """Delete all but `keep` checkpoints up to `latest`, the one just written, and what a killed process left.

    Those after it are damaged, or the run would have gone on from them.
    """
    past = [path for path in listing(folder) if int(path.stem) <= int(latest.stem)]
    kept = {path.stem for path in past[:keep]}
    for old in listing(folder):
        if old.stem not in kept:
            old.unlink(missing_ok=True)
    for file in [*folder.glob("*.safetensors"), *folder.glob(".*.tmp")]:
        if file.stem not in kept:
            file.unlink(missing_ok=True)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors (on the CPU) and the JSON of one checkpoint. Raises Damaged unless it is whole."""
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        version, size, digest, images = meta["format"], meta["bytes"], meta["sha256"], meta["counters"]["images"]
        own = digest_of(meta)
        if version == FORMAT and (meta.get("self") != own or images != int(path.stem)):
            raise ValueError("its content does not match its checksum")
        if not isinstance(meta["optimizers"], dict):
            raise TypeError("optimizers is not a table")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise Damaged(f"{path.name}: not a checkpoint ({reason})") from None
    if version != FORMAT:
        raise Damaged(f"{path.name}: format {version!r}, this version of elegan reads {FORMAT}")
    tensors_path = path.with_suffix(".safetensors")
    try:
        data = tensors_path.read_bytes()
    except OSError as error:
        raise Damaged(f"{tensors_path.name}: {error.strerror}") from None
    if len(data) != size:
        raise Damaged(f"{tensors_path.name}: {len(data)} bytes of {size}")
    if hashlib.sha256(data).hexdigest() != digest:
        raise Damaged(f"{tensors_path.name}: its content does not match its checksum")
    try:
        return load_tensors(data), meta
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{tensors_path.name}: {error}") from None


def newest(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any], list[str]]:
    """The newest whole checkpoint of a folder, and what was wrong with newer ones.

    Raises FileNotFoundError when there is none at all, UserError when all are damaged.
    """
    faults: list[str] = []
    for path in listing(folder):
        try:
            tensors, meta = read(path)
        except Damaged as fault:
            faults.append(str(fault))
            continue
        return tensors, meta, faults
    if faults:
        raise UserError(
            f"{folder}: no checkpoint can be read ({'; '.join(faults)}); restore one from a copy, or delete the "
            "run folder and train again"
        )
    raise FileNotFoundError(folder)


def flatten(parts: Parts) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All tensors of a bag by path, and the optimisers' plain settings."""
    tensors: dict[str, Tensor] = {f"values/{name}": value for name, value in parts.values.items()}
    settings: dict[str, Any] = {}
    for name, net in parts.nets.items():
        tensors |= {f"nets/{name}/{key}": value for key, value in net.state_dict().items()}
    for name, optimizer in parts.optimizers.items():
        state = optimizer.state_dict()
        for index, entries in state["state"].items():
            for key, value in entries.items():
                tensors[f"optimizers/{name}/{index}/{key}"] = torch.as_tensor(value)
        settings[name] = [
            {k: v.item() if isinstance(v, Tensor) else v for k, v in group.items()} for group in state["param_groups"]
        ]
    return tensors, settings


def restore(parts: Parts, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> None:
    """Put a checkpoint back into a bag of the same shape. Raises UserError when the shapes or names differ."""
    load_values(parts, tensors)
    for name, net in parts.nets.items():
        load_net(net, name, tensors)
    for name, optimizer in parts.optimizers.items():
        if name not in settings:
            raise UserError(f"the checkpoint has no optimiser {name!r}: it was made by another version or family")
        try:
            optimizer.load_state_dict(_optimizer_state(name, tensors, settings[name]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"the checkpoint does not fit optimiser {name!r}: {error}") from None
        _lay_out_like_weights(optimizer)


def _optimizer_state(name: str, tensors: Mapping[str, Tensor], groups: list[dict[str, Any]]) -> dict[str, Any]:
    """What `Optimizer.load_state_dict` takes, from a checkpoint's tensors and settings."""
    prefix = f"optimizers/{name}/"
    state: dict[int, dict[str, Tensor]] = {}
    for path, value in tensors.items():
        if path.startswith(prefix):
            index, _, key = path.removeprefix(prefix).partition("/")
            state.setdefault(int(index), {})[key] = value
    return {
        "state": state,
        "param_groups": [{k: tuple(v) if k == "betas" else v for k, v in g.items()} for g in groups],
    }


def _lay_out_like_weights(optimizer: torch.optim.Optimizer) -> None:
    """Store an optimiser's tensors in the memory order of their weights: fused Adam walks both without asking."""
    for weight, entries in optimizer.state.items():
        for key, value in entries.items():
            if isinstance(value, Tensor) and value.shape == weight.shape and value.stride() != weight.stride():
                entries[key] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


def load_values(parts: Parts, tensors: Mapping[str, Tensor]) -> None:
    """Load the small tensors of a bag, which sampling may need too (a mean style, how far a network has grown)."""
    for name, value in parts.values.items():
        parts.values[name] = _part(tensors, f"values/{name}").to(value.device)


def load_net(net: torch.nn.Module, name: str, tensors: Mapping[str, Tensor]) -> None:
    """Load one network of a checkpoint. Raises UserError when it is another network's."""
    prefix = f"nets/{name}/"
    state = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"the checkpoint does not fit network {name!r}: {reason}") from None


def _part(tensors: Mapping[str, Tensor], path: str) -> Tensor:
    if path not in tensors:
        raise UserError(f"the checkpoint lacks {path!r}: it was made by another version or family")
    return tensors[path]


def sync_folder(folder: Path) -> None:
    """Make renames in a folder last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
