"""Features: images -> the matrices that every metric is computed from.

A *feature set* is one of

- `fashion`, `digits`: small classifiers trained by this project (`scripts/train_features.py`) and shipped in
  `weights/`, each with a card. Features are the penultimate activations (after the global average),
  probabilities come from the last layer. They take 28x28 grey images and nothing else;
- `fashion-tuning`: a classifier of another design for Fashion-MNIST, to choose settings by (`elegan tune`), so that
  `fashion` reports what it had no part in;
- a path to another `.safetensors` file written by that script;
- `inception`, `inception-clean`, `inception-pytorch`: the network of published FIDs, in the input conventions of the
  original code, clean-fid and pytorch-fid (`inception.py`); its weights are the user's to bring or to let be
  downloaded (`inception_weights.py`);
- a TorchScript, `.pt2` or `.onnx` file, or a `torch.nn.Module` (`external.py`);
- `pixels`: the image itself, divided by 255;
- `descriptors`: weight free, for images of any size (see `descriptors.py`).

Distances in one feature set never compare with distances in another. Everything is evaluated in float32 in a fixed
internal batch, the last one padded: the features of an image do not depend on how many others are asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from elegan.data.progress import bar
from elegan.errors import UserError, nearest
from elegan.metrics import store

if TYPE_CHECKING:
    import torch

SHIPPED = ("fashion", "digits", "fashion-tuning")
WEIGHT_FREE = ("pixels", "descriptors")
INCEPTION = ("inception", "inception-clean", "inception-pytorch")
NAMES = SHIPPED + INCEPTION + WEIGHT_FREE
BATCH = 250  # fits the caches; any fixed number would do
PIXELS = 2_000_000  # of a batch of larger images: 22 of 299x299
WEIGHTS = Path(__file__).parent / "weights"
FORMAT = 1  # of cached features; raise when any feature set changes


class Extracted(NamedTuple):
    """What a feature set says about N images."""

    features: np.ndarray  # (N, D) float32
    probabilities: np.ndarray | None  # (N, K) float32, of the data's classes, rows sum to 1; None: no such classifier
    foreign: np.ndarray | None = None  # (N, K) float32, of other classes (ImageNet's): for the classifier score only


@dataclass(frozen=True)
class Features:
    """A feature set: call it on uint8 images (N, H, W, C). Made by `load_features`."""

    name: str
    checksum: str = ""  # SHA-256 of the weights, first 16 hex digits; "" for weight-free ones
    card: dict[str, Any] = field(default_factory=dict)
    net: Any = None  # None for weight-free ones
    preprocessing: str = ""  # what happens to the images before
    extract: Callable[[np.ndarray], Extracted] | None = None
    token: str = ""  # tells apart what lives in this process only; such features are not kept on disk

    @property
    def classes(self) -> int:
        """How many of the data's classes the classifier knows; 0 where there is none."""
        return int(self.card.get("classes", 0))

    @property
    def key(self) -> str:
        """Equal for feature sets that give equal features."""
        return store.digest(FORMAT, self.name, self.checksum, self.preprocessing, self.token)

    def __call__(self, images: np.ndarray) -> Extracted:
        """uint8 (N, H, W, C) -> features and class probabilities. `UserError` for other shapes."""
        if self.extract is not None:
            return self.extract(images)
        if self.name == "pixels":
            return Extracted(images.reshape(len(images), -1).astype(np.float32) / 255, None)
        from elegan.metrics.descriptors import descriptors

        return Extracted(descriptors(images), None)

    def kept(self, images: np.ndarray) -> Extracted:
        """The same as calling, kept on disk by the content of `images`: for the real side, which comes again.

        Features of a module of this process are computed every time. A disk that is full or read only is no error.
        """
        if self.token or self.name == "pixels" or not store.limit():
            return self(images)
        import torch

        def extract() -> dict[str, np.ndarray]:
            return {name: array for name, array in self(images)._asdict().items() if array is not None}

        arrays = store.kept(store.digest(self.key, torch.__version__, images), {"features"}, extract)
        return Extracted(arrays["features"], arrays.get("probabilities"), arrays.get("foreign"))

    def __str__(self) -> str:
        if self.net is None:
            return f"{self.name} (weight free)"
        accuracy = self.card.get("test_accuracy")
        said = f", test accuracy {100 * accuracy:.2f} %" if accuracy else ""
        before = f"; {self.preprocessing}" if self.preprocessing else ""
        return f"{self.name} (sha256 {self.checksum}{said}{before})"


def load_features(
    source: str | os.PathLike[str] | torch.nn.Module | Features,
    *,
    weights: str | os.PathLike[str] | None = None,
    transform: Callable[[torch.Tensor], torch.Tensor] | None = None,
    name: str | None = None,
    **options: Any,
) -> Features:
    """A feature set by name, of a file, or of a `torch.nn.Module` that gives features (N, D) or (features, logits).

    weights: the file of the FID network, for `inception` and its variants.
    For a file or a module of the user's: size (number, or height and width), channels (1 or 3), range (low, high), mean
    and std (numbers), classes (True if the logits are of the data's own classes); or transform, a function of uint8
    (N, C, H, W) that returns the network's input; and name, for the protocol. See `external.py`, `convention.py`.
    Raises `UserError` when there is no such feature set or an option does not fit it.
    """
    options = {key: value for key, value in options.items() if value is not None}
    if isinstance(source, Features):
        return source
    if not isinstance(source, str | os.PathLike):
        return _external(source, None, transform, name, options)
    text = os.fspath(source)
    if weights is not None and text not in INCEPTION:
        raise UserError(f"--inception-weights belongs to --features inception and its variants, not to {text}")
    if text not in NAMES and (path := _network_file(text, options)) is not None:
        return _external(None, path, transform, name, options)
    if options or transform or name:
        given = ", ".join([*options, *(["transform"] if transform else []), *(["name"] if name else [])])
        raise UserError(f"{given}: for a network file or module of yours, not for features {text!r}")
    if text in INCEPTION:
        return _inception(text, None if weights is None else os.fspath(weights))
    return _load(text)


def _load(name: str) -> Features:
    if name in WEIGHT_FREE:
        return Features(name)
    path = WEIGHTS / f"{name}.safetensors" if name in SHIPPED else Path(name)
    if not path.is_file():
        if path.suffix == ".safetensors":
            raise UserError(f"no feature weights at {path}; make them with scripts/train_features.py")
        known = nearest(name, NAMES)
        raise UserError(f"unknown features {name!r}{known}, or a .safetensors, .pt, .pt2 or .onnx path")
    facts = path.stat()
    return _read(path, facts.st_mtime_ns, facts.st_size)


@lru_cache(maxsize=8)
def _read(path: Path, *_version: int) -> Features:
    from safetensors import SafetensorError, safe_open

    from elegan.metrics.classifiers import fold

    try:
        with safe_open(path, framework="pt") as f:
            card = json.loads((f.metadata() or {}).get("card", "{}"))
            tensors = {key: f.get_tensor(key) for key in f.keys()}  # noqa: SIM118 (not a dict)
        net = build(card["architecture"], card["classes"])
        net.load_state_dict(tensors)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        why = str(error).splitlines()[0]
        raise UserError(f"{path} is not a feature classifier of scripts/train_features.py: {why}") from error
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    name, net = path.stem if path.parent == WEIGHTS else str(path), fold(net.eval())
    return Features(name, checksum, card, net, extract=partial(_classify, name, tuple(card["image"]), net))


def _classify(name: str, shape: tuple[int, ...], net: torch.nn.Module, images: np.ndarray) -> Extracted:
    if images.shape[1:] != shape:
        got, made = "x".join(map(str, images.shape[1:])), "x".join(map(str, shape))
        raise UserError(f"features {name!r} take {made} images, not {got}; use 'descriptors'")
    import torch

    def run(part: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.from_numpy(part).permute(0, 3, 1, 2).float().div_(255)  # channels_last by construction
        hidden, logits = net(x)
        return hidden, logits.softmax(1)

    hidden, probabilities = in_batches(run, images, BATCH)
    assert probabilities is not None
    return Extracted(hidden, probabilities)


def _inception(name: str, weights: str | None) -> Features:
    import torch

    from elegan.metrics.inception import SIDE, WAYS, prepare
    from elegan.metrics.inception_weights import SHA256, weights_folder

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net = _inception_net(weights or os.environ.get("ELEGAN_INCEPTION"), weights_folder(), device)

    def run(part: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        hidden, logits = net(prepare(part, name).to(device))
        return hidden.cpu(), logits.softmax(1).cpu()

    def extract(images: np.ndarray) -> Extracted:
        hidden, probabilities = in_batches(run, images, PIXELS // SIDE**2, f"{name} features")
        return Extracted(hidden, None, probabilities)

    return Features(name, SHA256[:16], {}, net, f"FID network of 2015-12-05, {WAYS[name].said}", extract)


@lru_cache(maxsize=1)
def _inception_net(weights: str | None, _folder: Path, device: torch.device) -> torch.nn.Module:
    from elegan.metrics.inception_weights import load_inception

    return load_inception(weights).to(device)


def _network_file(text: str, options: dict[str, Any]) -> Path | None:
    """The path in `net.onnx:size=224`, with its options added to `options`; None if this is no network's file."""
    if "." not in text:
        return None
    from elegan.metrics.convention import split_options
    from elegan.metrics.external import SUFFIXES

    path, said = split_options(text)
    if Path(path).suffix not in SUFFIXES:
        return None
    if twice := said.keys() & options.keys():
        raise UserError(f"{', '.join(sorted(twice))} is given twice to {path}")
    options.update(said)
    return Path(path).expanduser()


def _external(
    module: Any,
    path: Path | None,
    transform: Callable[[torch.Tensor], torch.Tensor] | None,
    name: str | None,
    options: dict[str, Any],
) -> Features:
    import torch

    from elegan.metrics import external
    from elegan.metrics.convention import convention, with_transform

    takes = convention(**options)
    if path is not None:
        opened, checksum = external.open_file(path)
    elif isinstance(module, torch.nn.Module):
        opened, checksum = external.open_module(module)
    else:
        raise UserError(f"features must be a name, a file or a torch.nn.Module, not {type(module).__name__}")
    name = name or (str(path) if path is not None else type(module).__name__)
    token = "" if path is not None and transform is None else f"{id(module)} {id(transform)} {takes.classes}"
    prepare, about = with_transform(takes, transform), str(takes) if transform is None else "own transform"

    def run(part: np.ndarray) -> tuple[torch.Tensor, torch.Tensor | None]:
        x = prepare(part).to(opened.device)
        try:
            result = opened.run(x)
        except UserError:
            raise
        except Exception as error:  # whatever somebody else's network does
            shape, why = "x".join(map(str, x.shape)), external.first_line(error)
            raise UserError(f"features {name} failed on an input of {shape} (N x C x H x W): {why}") from error
        hidden, logits = external.outputs(result, len(part), name)
        return hidden, None if logits is None else logits.softmax(1)

    def extract(images: np.ndarray) -> Extracted:
        height, width = takes.size or images.shape[1:3]
        batch = opened.batch or max(1, min(BATCH, PIXELS // (height * width)))
        hidden, probabilities = in_batches(run, images, batch, f"{name} features")
        return Extracted(hidden, probabilities, None) if takes.classes else Extracted(hidden, None, probabilities)

    return Features(name, checksum[:16], {}, opened.run, about, extract, token)


def in_batches(
    run: Callable[[np.ndarray], tuple[torch.Tensor, torch.Tensor | None]],
    images: np.ndarray,
    batch: int,
    title: str | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """`run` over uint8 (N, H, W, C), always `batch` at a time (the last filled up with black): its outputs, (N, ...).

    `title`: of a progress bar, for what takes long.
    """
    import torch

    hidden, second = [], []
    progress = bar(title, len(images)) if title else contextlib.nullcontext(lambda _: None)
    with torch.inference_mode(), _full_precision(), progress as advance:
        for start in range(0, len(images), batch):
            part = np.ascontiguousarray(images[start : start + batch])
            count = len(part)
            if count < batch:
                part = np.concatenate([part, np.zeros((batch - count, *part.shape[1:]), np.uint8)])
            one, two = run(part)
            hidden.append(one[:count])
            if two is not None:
                second.append(two[:count])
            advance(count)
        return torch.cat(hidden).numpy(), torch.cat(second).numpy() if second else None


def _full_precision() -> contextlib.AbstractContextManager[None]:
    """On a GPU convolutions would be rounded to TF32: not here, numbers are compared with other people's."""
    import torch

    if not torch.cuda.is_available():
        return contextlib.nullcontext()
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


def build(architecture: str, classes: int) -> torch.nn.Module:
    """The classifier called `residual` (shipped) or `plain` (model search): (N, 1, H, W) in [0, 1] -> hidden,
    logits.

    The two differ on purpose (depth, pooling, kernel, activation, width): a model chosen with one and judged
    with the other cannot profit from the chooser's blind spots.
    """
    from elegan.metrics.classifiers import PlainClassifier, ResidualClassifier

    known = {"residual": ResidualClassifier, "plain": PlainClassifier}
    if architecture not in known:
        raise UserError(f"unknown classifier architecture {architecture!r}{nearest(architecture, known)}")
    return known[architecture](classes).to(memory_format=_channels_last())  # type: ignore[call-overload]


def _channels_last() -> torch.memory_format:
    import torch

    return torch.channels_last
