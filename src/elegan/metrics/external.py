"""Features by a network of the user's: a `torch.nn.Module`, or a TorchScript, exported (.pt2) or ONNX file.

The convention, unless something else is asked for: the network takes float32 (N, C, H, W) in [0, 1], the images as they
are, and returns features (N, D), or a pair of features and logits (N, K). What else it wants is said after the file's
name, `net.onnx:size=224:channels=3:mean=0.485,0.456,0.406:std=0.229,0.224,0.225`, or by keywords in Python, and is
printed with the scores (`convention.py`).

ONNX files are plain graphs. TorchScript and exported programs are programs of torch: use those you trust. (The pickles
inside an exported program are read as plain data only.)
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from elegan.errors import UserError

SCRIPT, EXPORTED, ONNX = (".pt", ".ts", ".pth", ".torchscript"), (".pt2",), (".onnx",)
SUFFIXES = (*SCRIPT, *EXPORTED, *ONNX)
Network = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Opened:
    """A network that is ready to run. `batch`: the only batch size it takes, if it was made for one."""

    run: Network
    batch: int | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


def open_file(path: Path) -> tuple[Opened, str]:
    """A TorchScript, `.pt2` or `.onnx` file -> its network and the SHA-256 of the file. `UserError` for any other."""
    try:
        checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); give the file of a network") from None
    if path.suffix in ONNX:
        return _onnx(path), checksum
    return (_exported(path) if path.suffix in EXPORTED else _script(path)), checksum


def _script(path: Path) -> Opened:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch would rather have .pt2 files; people have .pt files
            net = torch.jit.load(str(path), map_location=device)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"{path} is not a TorchScript file ({first_line(error)}): torch.jit.save, torch.export.save (.pt2) or ONNX "
            "make a file with the network in it; a checkpoint holds weights only"
        ) from None
    return Opened(net.eval(), device=device)


def _exported(path: Path) -> Opened:
    try:
        with _plain_pickles(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.load(path)
    except Exception as error:  # a damaged archive raises any of ten kinds
        raise UserError(
            f"{path} is not an exported program ({first_line(error)}); torch.export.save makes one"
        ) from None
    takes = [node.meta["val"] for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    if len(takes) != 1 or not isinstance(takes[0], Tensor):
        raise UserError(f"{path} takes {len(takes)} inputs; a features network takes one, images (N, C, H, W)")
    first = takes[0].shape[0]
    return Opened(program.module(), first if isinstance(first, int) else None)


@contextlib.contextmanager
def _plain_pickles() -> Iterator[None]:
    """Within, `torch.load` runs no code even where its caller would let it."""
    before = os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"]
        else:
            os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = before


def _onnx(path: Path) -> Opened:
    try:
        import onnxruntime
    except ImportError:
        raise UserError(f"--features {path} needs onnxruntime: pip install 'elegan[onnx]'") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own kinds
        raise UserError(f"{path} is not an ONNX file that onnxruntime runs ({first_line(error)})") from None
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type != "tensor(float)":
        kinds = ", ".join(f"{i.name}: {i.type}" for i in inputs)
        raise UserError(f"{path} takes {kinds}; a features network takes one tensor(float), images (N, C, H, W)")
    shape, name = inputs[0].shape, inputs[0].name

    def run(x: Tensor) -> list[Tensor]:
        for wanted, got in zip(shape, x.shape, strict=True):
            if isinstance(wanted, int) and wanted != got:
                took = "x".join(str(s) for s in shape[1:])
                has = "x".join(map(str, x.shape[1:]))
                raise UserError(
                    f"{path} takes images {took} (C x H x W), not {has}: add :channels={shape[1]}:size={shape[2]}"
                )
        return [torch.from_numpy(out) for out in session.run(None, {name: x.contiguous().numpy()})]

    return Opened(run, shape[0] if isinstance(shape[0], int) else None)


def open_module(module: nn.Module) -> tuple[Opened, str]:
    """A module of Python -> the same, always run in evaluation mode, and a SHA-256 over its weights."""
    sha256 = hashlib.sha256(type(module).__qualname__.encode())
    for name, tensor in sorted(module.state_dict().items()):
        if isinstance(tensor, Tensor):
            sha256.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
            sha256.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    device = next((p.device for p in module.parameters()), torch.device("cpu"))

    def run(x: Tensor) -> Any:
        was = {part: part.training for part in module.modules()}
        module.eval()
        try:
            return module(x)
        finally:
            for part, training in was.items():
                part.training = training

    return Opened(run, device=device), sha256.hexdigest()


def outputs(result: Any, count: int, name: str) -> tuple[Tensor, Tensor | None]:
    """What a network returned for `count` images -> features (N, D) and logits (N, K) or None, float32 on the CPU."""
    pair = list(result) if isinstance(result, tuple | list) else [result]
    if not 1 <= len(pair) <= 2 or not all(isinstance(part, Tensor) for part in pair):
        kinds = ", ".join(type(part).__name__ for part in pair)
        raise UserError(
            f"features {name} returned {kinds}; a tensor (N, D), or a pair of features and logits, is wanted"
        )
    flat = []
    for tensor, what in zip(pair, ("features", "logits"), strict=False):
        part = tensor.detach().float().cpu()
        if part.ndim < 2 or len(part) != count or part[0].numel() != part.shape[1]:
            wanted = f"({count}, D): pool or flatten them" if what == "features" else f"({count}, K)"
            raise UserError(f"features {name} returned {what} {tuple(part.shape)} for {count} images, not {wanted}")
        if not part.isfinite().all():
            raise UserError(
                f"features {name} returned {what} that are not finite: it wants another input range, perhaps"
            )
        flat.append(part.reshape(count, -1))
    return flat[0], flat[1] if len(flat) > 1 else None


def first_line(error: Exception) -> str:
    """The first line of an error, short."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return line if len(line) <= 160 else f"{line[:157]}..."
