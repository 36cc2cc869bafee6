"""A trained run as its user holds it: open it, sample from it, have it judged."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from elegan import families
from elegan.errors import UserError, nearest
from elegan.families.base import Family, ImageSpec
from elegan.files import write_bytes
from elegan.images import grid, png_bytes, save_png, to_uint8
from elegan.training import checkpoint
from elegan.training.engine import Engine, available_memory, has_bf16, pick_device
from elegan.training.folder import RunFolder

CHECKPOINTS = ("last", "best")


class Run:
    """A trained (or half-trained) GAN on the disk. Nothing is loaded until it is needed.

    `checkpoint` is `last`, or `best`: the one with the best `best_by` that the doctor measured.
    """

    def __init__(self, path: str | os.PathLike[str], device: str = "auto", checkpoint: str = "last") -> None:
        if checkpoint not in CHECKPOINTS:
            raise UserError(f"unknown checkpoint {checkpoint!r}{nearest(checkpoint, CHECKPOINTS)}: last or best")
        self.checkpoint = checkpoint
        self.folder = RunFolder(path)
        self.path = self.folder.path
        self.config = self.folder.config()
        self.data = self.folder.data()
        self.faults: list[str] = []
        self._device = device
        self._model: Family | None = None
        self._engine = Engine(torch.device("cpu"), "fp32")  # until the model is loaded
        self._counters: dict[str, Any] = {}

    @property
    def spec(self) -> ImageSpec:
        """What its images look like."""
        return ImageSpec(*(int(self.data[key]) for key in ("channels", "height", "width", "classes")))

    @property
    def class_names(self) -> list[str]:
        """The names of its labels; empty when the data had none."""
        return list(self.data["class_names"])

    @property
    def model(self) -> Family:
        """The family's model with the sampler of the checkpoint asked for. UserError when there is none."""
        if self._model is None:
            try:
                tensors, meta, self.faults = checkpoint.newest(self._checkpoints)
            except FileNotFoundError:
                if self.checkpoint == "best":
                    raise UserError(
                        f"{self.path}: has no best checkpoint: the doctor never looked (a short run, or best_by=none)"
                        "; leave --checkpoint out, or train with --set check_every=IMAGES"
                    ) from None
                raise UserError(f"{self.path}: has no checkpoint yet; run its `elegan train` command again") from None
            model = families.get(self.config.family).Model(self.config.model, self.spec)
            checkpoint.load_net(model.parts.nets[model.sampler], model.sampler, tensors)
            checkpoint.load_values(model.parts, tensors)
            self._engine = sampling_engine(pick_device(self._device), self.config.train.precision)
            self._engine.place(model)
            self._model, self._counters = model, meta["counters"]
        return self._model

    @property
    def engine(self) -> Engine:
        """The device and the precision that its model computes with."""
        _ = self.model  # loading it decides
        return self._engine

    @property
    def _checkpoints(self) -> Path:
        return self.folder / "best" if self.checkpoint == "best" else self.folder.checkpoints

    @property
    def conditional(self) -> bool:
        """Whether samples can be asked for by label."""
        return self.model.conditional

    @property
    def images_seen(self) -> int:
        """Real images that its checkpoint has seen."""
        newest = checkpoint.listing(self._checkpoints)
        return int(newest[0].stem) if newest else 0

    @property
    def stats(self) -> list[dict[str, Any]]:
        """The rows of stats.jsonl."""
        return self.folder.stats()

    def labels(self, wanted: str | Sequence[int | str] | int, n: int) -> np.ndarray:
        """Labels (n,) int64 from `"balanced"`, `"0,3"`, `"sneaker"`, or a list or array of either, in turn."""
        if not self.model.categories:
            raise UserError(f"{self.path}: is not conditional, it cannot be asked for labels; leave them out")
        if isinstance(wanted, str):
            if wanted == "balanced":
                return np.arange(n) % self.model.categories
            wanted = [wanted] if wanted.lower() in map(str.lower, self._label_names) else wanted.split(",")
        found = [self._label(item) for item in np.asarray(wanted).ravel().tolist()]
        if not found:
            raise UserError("no labels given; use numbers, names or 'balanced'")
        return np.resize(np.array(found, np.int64), n)

    @property
    def _label_names(self) -> list[str]:
        """What labels may be called: class names, but not for categories that a model has found by itself."""
        return self.class_names if self.conditional else []

    def _label(self, item: int | str) -> int:
        text = str(item).strip()
        lower = {name.lower(): i for i, name in enumerate(self._label_names)}
        if isinstance(item, str) and text.lower() in lower:
            return lower[text.lower()]  # also where classes are called 1, 2, 3: a name comes before a number
        if text.isdecimal() and len(text) < 10 and int(text) < self.model.categories:
            return int(text)
        names = ", ".join(f"{i} {name}" for i, name in enumerate(self._label_names[:20]))
        names = names or f"0 to {self.model.categories - 1}"
        hint = nearest(text, self._label_names)
        raise UserError(f"unknown label {text!r}{hint if hint.startswith('; did') else f'; known: {names}'}")

    def sample(
        self,
        n: int = 64,
        labels: str | Sequence[int | str] | int | None = None,
        seed: int = 0,
        truncation: float = 1.0,
    ) -> Samples:
        """`n` images; for conditional models of the given labels, else of every class in turn.

        Sample i depends on (seed, i) and its label alone. `truncation` in (0, 1] trades variety for typicality.
        """
        if n < 1:
            raise UserError(f"{n} samples asked for; at least 1")
        if not 0 < truncation <= 1:
            raise UserError(f"truncation {truncation} is not in (0, 1]")
        chosen = None
        if labels is not None or self.conditional:
            chosen = self.labels("balanced" if labels is None else labels, n)
        check_memory_for(n, self.spec)
        images, _ = draw(self.model, self._engine, n, chosen, seed, truncation)
        return Samples(images, chosen, self._label_names)

    def evaluate(
        self, data: str | os.PathLike[str] | None = None, n: int = 10_000, seed: int = 0, **options: Any
    ) -> Any:
        """Score its samples against the test split of its data, or of `data`; see `elegan.evaluate`."""
        from elegan.judge import evaluate

        return evaluate(self, data, n=n, seed=seed, **options)

    def __repr__(self) -> str:
        share = self.images_seen / max(self.config.train.images, 1)
        return (
            f"Run({str(self.path)!r}: {self.config.preset} ({self.config.family}) on {self.data['name']} {self.spec}, "
            f"{self.images_seen:,} images seen, {share:.0%} of the plan)"
        )

    def _repr_png_(self) -> bytes | None:
        """The latest sample grid, which a notebook shows inline."""
        path = self.folder / "samples.png"
        return path.read_bytes() if path.is_file() else None


class Samples:
    """Generated images: `images` uint8 (N, H, W, C) and `labels` int64 (N,) or None."""

    def __init__(self, images: np.ndarray, labels: np.ndarray | None, class_names: Sequence[str] = ()) -> None:
        self.images, self.labels, self.class_names = images, labels, list(class_names)

    def __len__(self) -> int:
        return len(self.images)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.images, dtype)

    def grid(self, columns: int | None = None) -> np.ndarray:
        """One picture of all of them, uint8 (H', W', C); conditional ones have one class a column where it fits."""
        scale = max(1, round(56 / max(self.images.shape[1:3])))
        return grid(self.images, columns, scale=scale)

    def save(self, path: str | os.PathLike[str], columns: int | None = None) -> Path:
        """Write an `.npz`, a grid as `.png`, or a folder of PNGs, by the ending of `path`; whole or not at all.

        A folder gets `00000.png` or, labelled, `00000_CLASS.png`; it must be new or empty.
        """
        path = check_target(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".npz":
                arrays = {"images": self.images} | ({} if self.labels is None else {"labels": self.labels})
                write_bytes(path, npz_bytes(arrays))
            elif path.suffix == ".png":
                save_png(path, self.grid(columns))
            else:
                self._save_folder(path)
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror}); nothing was left there") from None
        return path

    def _save_folder(self, path: Path) -> None:
        """Write the PNGs beside the folder's place, then move them there together."""
        beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            for i, image in enumerate(self.images):
                name = f"{i:05}"
                if self.labels is not None:
                    label = int(self.labels[i])
                    text = self.class_names[label] if label < len(self.class_names) else str(label)
                    name += "_" + "".join(c if c.isalnum() else "-" for c in text)
                (beside / f"{name}.png").write_bytes(png_bytes(image))
            beside.chmod(0o755)
            if path.exists():
                path.rmdir()
            beside.rename(path)
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def __repr__(self) -> str:
        n, h, w, c = self.images.shape
        return f"Samples({n} images {h}x{w}x{c}{', labelled' if self.labels is not None else ''})"

    def _repr_png_(self) -> bytes:
        return png_bytes(self.grid())


def sampling_engine(device: torch.device, precision: str) -> Engine:
    """Samples are drawn in the precision that the run was trained in, where the machine has it."""
    return Engine(device, "bf16" if precision == "bf16" and has_bf16(device) else "fp32")


def draw(
    model: Family, engine: Engine, n: int, labels: np.ndarray | None = None, seed: int = 0, truncation: float = 1.0
) -> tuple[np.ndarray, np.ndarray | None]:
    """Samples as uint8 (n, H, W, C) and the labels (n,) they were asked for."""
    if model.conditional and labels is None:
        labels = np.arange(n) % model.spec.classes
    wanted = None if labels is None else torch.from_numpy(np.asarray(labels, np.int64))
    with engine.context():
        samples = model.sample(n, wanted, seed, truncation)
    return np.ascontiguousarray(to_uint8(samples).permute(0, 2, 3, 1).numpy()), labels


def npz_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    """What `np.savez_compressed` writes, by the quickest compression: half the time, 3 % more bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name, array in arrays.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
    return buffer.getvalue()


def check_memory_for(n: int, spec: ImageSpec) -> None:
    """Turn away more samples than memory holds: as float32, as uint8, and once more while they are reordered."""
    needed, free = 6 * n * spec.channels * spec.height * spec.width, available_memory(torch.device("cpu"))
    if free is not None and needed > 0.9 * free:
        raise UserError(
            f"{n:,} samples need {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; draw fewer at a time, with "
            "another --seed each"
        )


def load(path: str | os.PathLike[str], device: str = "auto", checkpoint: str = "last") -> Run:
    """Open a run folder, with its last or its best checkpoint. Raises UserError when it is not one."""
    return Run(path, device, checkpoint)


def check_target(path: str | os.PathLike[str]) -> Path:
    """Where samples may go: `.npz`, `.png`, or a new or empty folder. UserError otherwise, before any work."""
    path = Path(path)
    if path.suffix in (".npz", ".png"):
        if path.is_dir():
            raise UserError(f"{path}: is a folder; name a file")
    elif path.suffix:
        raise UserError(
            f"{path}: samples are written as .npz, as a .png grid, or into a folder (a name without ending)"
        )
    elif path.is_file():
        raise UserError(f"{path}: is a file; name a new folder, an .npz or a .png")
    elif path.is_dir() and any(path.iterdir()):
        raise UserError(f"{path}: is not empty; name a new folder")
    return path
