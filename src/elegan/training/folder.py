"""The run folder: configuration, statistics, pictures and checkpoints of one run.

config.yaml      the whole resolved configuration: training it again gives the same run
data.json        what the data was: shape, classes, fingerprint
stats.jsonl      one row of means per logging interval
scores.jsonl     the judge's numbers during the run, if any
sittings.jsonl   when, where and with what it was trained: one row for each start
checks.jsonl     the doctor's numbers, one row for each of its looks
findings.jsonl   what it found wrong; doctor/*.png the pictures to it
rollbacks.jsonl  when the run went back to an earlier state, and with which settings
real.png         real images, for comparison
grids/*.png      samples from fixed noise, named by the images seen
samples.png      the latest of them
training.gif     all of them in motion
losses.png       the curves
checkpoints/     see `checkpoint.py`; best/ has the sampler with the best number so far
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elegan.config import RunConfig, parse, read_file
from elegan.errors import UserError, nearest
from elegan.files import write_bytes

if TYPE_CHECKING:
    import numpy as np

GIF_FRAMES, GIF_SIDE = 60, 400


class RunFolder:
    """The paths of a run and how they are written: whole, or not at all."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def exists(self) -> bool:
        """Whether a run was started here."""
        return (self / "config.yaml").is_file()

    def forget(self) -> None:
        """Take back what a run has written since it was started here: what remains is what `check_free` accepts."""
        records = ("stats", "scores", "checks", "findings", "rollbacks", "sittings")
        for name in (*(f"{record}.jsonl" for record in records), "samples.png", "training.gif", "losses.png"):
            (self / name).unlink(missing_ok=True)
        for name in ("checkpoints", "good", "best", "grids", "doctor", "tensorboard"):
            shutil.rmtree(self / name, ignore_errors=True)
        (self / "config.yaml").unlink(missing_ok=True)

    def check_free(self) -> None:
        """Raise UserError when the folder holds something that is not a run."""
        started = {".lock", "data.json", "real.png"}  # what a process killed while it started a run leaves behind
        if any(p.name not in started and p.suffix != ".tmp" for p in self.path.iterdir()):
            raise UserError(f"{self.path}: is not empty and not a run folder (no config.yaml); choose another --out")

    def create(self, config: RunConfig, data: dict[str, Any], sheet: np.ndarray) -> None:
        """Start a run here, with a picture of real images: config.yaml, written last, makes it a run folder.

        Raises UserError when the folder cannot be written.
        """
        from elegan.images import save_png  # here and below: what only reads a run need not load numpy and Pillow

        try:
            self.write("data.json", json.dumps(data, indent=1))
            save_png(self / "real.png", sheet)
            self.write_config(config)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror}); choose another --out") from None

    def write(self, name: str, text: str) -> None:
        """Write one file of the run, atomically."""
        write_bytes(self / name, text.encode())

    def write_config(self, config: RunConfig) -> None:
        """Write or renew config.yaml."""
        self.write("config.yaml", config.to_yaml())

    def config(self) -> RunConfig:
        """The run's configuration. Raises UserError when this is not a run folder."""
        from elegan import families

        if not self.path.exists():
            raise UserError(f"{self.path}: no such run folder{self._siblings()}")
        if not self.exists:
            raise UserError(f"{self.path}: not a run folder (it has no config.yaml); `elegan train --out` makes one")
        content = read_file(self / "config.yaml")
        family = content.get("family")
        if not isinstance(family, str):
            raise UserError(f"{self / 'config.yaml'}: names no family; restore it from a copy")
        return parse(content, families.get(family).Config, str(self / "config.yaml"))

    def data(self) -> dict[str, Any]:
        """What the run's data was. Raises UserError when the file is missing or damaged."""
        try:
            data = json.loads((self / "data.json").read_text(encoding="utf-8"))
            sizes = [data[key] for key in ("channels", "height", "width", "classes", "count")]
            if not all(type(n) is int and 0 <= n < 2**40 for n in sizes) or min(sizes[1:3]) < 1:
                raise ValueError(f"sizes {sizes}")
            if sizes[0] not in (1, 3, 4) or len(data["class_names"]) != sizes[3]:
                raise ValueError(f"{sizes[0]} channels, {sizes[3]} classes, {len(data['class_names'])} class names")
            texts = [data["name"], data["fingerprint"], *data["class_names"]]
            if not all(isinstance(text, str) for text in texts):
                raise ValueError("a name is not a text")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise UserError(f"{self / 'data.json'}: damaged ({reason}); restore it from a copy") from None
        return data

    def _siblings(self) -> str:
        parent = self.path.parent
        runs = [p.parent.name for p in parent.glob("*/config.yaml")] if parent.is_dir() else []
        return nearest(self.path.name, runs) if runs else "; train one with `elegan train`"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder: a second training process is turned away. The system lets go when the process dies."""
        fresh = not self.path.exists()
        if not fresh and not self.path.is_dir():
            raise UserError(f"{self.path}: is a file; --out needs a folder")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = (self / ".lock").open("w")
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror}); choose another --out") from None
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(handle.fileno()).st_ino != (self / ".lock").stat().st_ino:
                    raise FileExistsError  # its owner deleted it between our opening and locking it
            except OSError:
                raise UserError(
                    f"{self.path}: another process is training here; wait, or choose another --out"
                ) from None
            try:
                yield
            finally:
                (self / ".lock").unlink(missing_ok=True)
                if fresh and self.path.is_dir() and not any(self.path.iterdir()):
                    self.path.rmdir()

    def stats(self, name: str = "stats.jsonl") -> list[dict[str, Any]]:
        """The rows of a statistics file; a torn last line (after a power cut) is left out."""
        rows = []
        with contextlib.suppress(FileNotFoundError):
            for line in (self / name).read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    row = json.loads(line)
                    rows.append(row | {"images": int(row["images"])})
        return rows

    def append(self, row: dict[str, Any], name: str = "stats.jsonl") -> None:
        """Add a row to a statistics file."""
        with (self / name).open("a", encoding="utf-8") as f:
            f.write(json.dumps(row) + "\n")

    def rewind(self, images: int, keep: Sequence[str] = ()) -> None:
        """Drop what was recorded after `images`: a run that goes on from a checkpoint records it anew.

        `keep` names records that stay.
        """
        for name in ("stats.jsonl", "scores.jsonl", "checks.jsonl", "findings.jsonl"):
            if name not in keep and (self / name).is_file():
                rows = [row for row in self.stats(name) if row["images"] <= images]
                self.write(name, "".join(json.dumps(row) + "\n" for row in rows))
        for path in self.grids():
            if int(path.stem) > images:
                path.unlink()
        for path in (self / "doctor").glob("*.png") if "findings.jsonl" not in keep else ():
            number = path.stem.partition("-")[0]
            if number.isdecimal() and int(number) > images:
                path.unlink()

    def grids(self) -> list[Path]:
        """The sample grids, oldest first."""
        found = (p for p in (self / "grids").glob("*.png") if p.stem.isdecimal())
        return sorted(found, key=lambda p: int(p.stem))

    def save_grid(self, images: int, picture: np.ndarray) -> Path:
        """Save a sample grid uint8 (H, W, C) and make it the latest."""
        from elegan.images import save_png

        path = self / "grids" / f"{images:09}.png"
        path.parent.mkdir(exist_ok=True)
        save_png(path, picture)
        save_png(self / "samples.png", picture)
        return path

    def make_gif(self) -> None:
        """Join the grids (at most 60 of them, evenly) into training.gif."""
        paths = self.grids()
        if len(paths) < 2:
            return
        import numpy as np
        from PIL import Image

        from elegan.images import save_gif

        picked = np.unique(np.linspace(0, len(paths) - 1, GIF_FRAMES).astype(int))
        frames = []
        for i in picked:
            with Image.open(paths[i]) as picture:
                side = max(picture.size)
                frames.append(np.asarray(picture.reduce(2) if side > GIF_SIDE else picture))
        if len({f.shape for f in frames}) == 1:
            save_gif(self / "training.gif", frames)


def best_counters(folder: RunFolder) -> dict[str, Any] | None:
    """What the best checkpoint says of itself: images, by, score; None without one that can be read."""
    found = [path for path in (folder / "best").glob("*.json") if path.stem.isdecimal()]
    for path in sorted(found, key=lambda p: int(p.stem), reverse=True):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            counters = json.loads(path.read_text(encoding="utf-8"))["counters"]
            return {"images": int(counters["images"]), "by": str(counters["by"]), "score": float(counters["score"])}
    return None
