"""The weights of the FID network: found on this machine or downloaded, checked, converted once. They are not shipped.

The file in common use, `pt_inception-2015-12-05-6726825d.pth`, holds TensorFlow's release of 2015-12-05 under
torchvision's names: 472 tensors in a torch pickle. pytorch-fid publishes it, torch-fidelity (and with it torchmetrics)
the same bytes under another name. Its SHA-256 must be the published one, and it is read without running pickled code
(`torch.load(weights_only=True)`); what is kept in the cache folder is a safetensors file.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from elegan.data.download import TIMEOUT, MirrorError, fetch_file
from elegan.data.idx import cache_folder
from elegan.errors import UserError
from elegan.metrics import store

if TYPE_CHECKING:
    from elegan.metrics.inception import Inception

FILE = "pt_inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
BYTES = 95_628_359
SAME = "weights-inception-2015-12-05-6726825d.pth"  # torch-fidelity's name for the same bytes
MIRRORS = (
    f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FILE}",
    f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{SAME}",
)


def load_inception(
    given: str | os.PathLike[str] | None = None,
    *,
    mirrors: Sequence[str] | None = None,
    download: bool = True,
    timeout: float = TIMEOUT,
) -> Inception:
    """The network with the published weights, in evaluation mode, its normalisations folded into the convolutions.

    The file is, in this order: `given`; `ELEGAN_INCEPTION`; the conversion in the cache folder; the published file
    there or where pytorch-fid and torch-fidelity keep it; a download. `given` and `ELEGAN_INCEPTION` may name the file
    or its folder. Raises `UserError` when it is nowhere, damaged or another one.
    """
    import torch

    from elegan.metrics.inception import Inception, fold

    with torch.device("meta"):
        net = Inception()
    tensors = {name: torch.from_numpy(array) for name, array in _arrays(given, mirrors, download, timeout).items()}
    net.load_state_dict(tensors, assign=True)
    return fold(net.eval().requires_grad_(False)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def weights_folder() -> Path:
    """Where a user may put the file, and where the conversion is kept."""
    return cache_folder() / "weights"


def _arrays(given: object, mirrors: Sequence[str] | None, download: bool, timeout: float) -> dict[str, np.ndarray]:
    converted = weights_folder() / f"inception-{SHA256[:16]}.safetensors"
    named, fetched = given or os.environ.get("ELEGAN_INCEPTION"), None
    if named:
        path = _named(Path(str(named)).expanduser(), "--inception-weights" if given else "ELEGAN_INCEPTION")
    elif (kept := store.read(converted)) is not None:
        return kept
    else:
        path = next(_places(), None) or (fetched := _fetch(mirrors, download, timeout))
    arrays = read_published(path)
    with contextlib.suppress(OSError):  # no cache folder: the file is read again next time
        if not converted.exists():
            store.write(converted, arrays)
        if fetched is not None:
            fetched.unlink()
    return arrays


def _named(path: Path, by: str) -> Path:
    if path.is_dir():
        inside = [path / name for name in (FILE, SAME) if (path / name).is_file()]
        if not inside:
            raise UserError(f"{by} names {path}, a folder without {FILE}")
        return inside[0]
    if not path.is_file():
        raise UserError(f"{by} names {path}, where there is no file; {FILE} is meant")
    return path


def _places() -> Iterator[Path]:
    """The published file where somebody put it or another package left it."""
    torch_home = os.environ.get("TORCH_HOME")
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    hub = (Path(torch_home).expanduser() if torch_home else caches / "torch") / "hub" / "checkpoints"
    for folder in (weights_folder(), hub):
        for name in (FILE, SAME):
            if (folder / name).is_file():
                yield folder / name


def read_published(path: Path) -> dict[str, np.ndarray]:
    """The published file -> its tensors as numpy arrays by name. `UserError` for any other file."""
    import torch

    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if (fault := _fault(data)) is not None:
        raise UserError(f"{path}: {fault}; {FILE} is wanted")
    state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return {k: v.detach().numpy() for k, v in state.items() if not k.endswith("num_batches_tracked")}


def _fault(data: bytes) -> str | None:
    """What is wrong with the bytes of a weights file."""
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 == SHA256:
        return None
    if len(data) < BYTES:
        return f"{len(data):,} bytes instead of {BYTES:,}: incomplete, or another file"
    return f"not the published weights (SHA-256 {sha256[:16]}..., not {SHA256[:16]}...)"


def _fetch(mirrors: Sequence[str] | None, download: bool, timeout: float) -> Path:
    """Download into the cache folder; `UserError` says where to put the file by hand."""
    folder, why = weights_folder(), "downloads are off"
    if download:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: cannot be made ({error.strerror}); set ELEGAN_CACHE to a folder") from None
        for url in MIRRORS if mirrors is None else mirrors:
            try:
                title = f"FID network, {BYTES >> 20} MiB"
                fetch_file(url, folder / FILE, lambda path: _fault(path.read_bytes()), title, timeout)
            except MirrorError as error:
                why = f"no mirror sent it ({url}: {error})"
            else:
                return folder / FILE
    raise UserError(
        f"--features inception needs {FILE}, which is not on this machine, and {why}: "
        f"put it into {folder}, or name it with --inception-weights FILE or ELEGAN_INCEPTION=FILE"
    )
