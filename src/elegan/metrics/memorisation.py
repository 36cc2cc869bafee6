"""Does the model copy? Nearest training images of the samples, against those of the test split.

Convention. Everything is measured on pixels, Euclidean, each image first box-averaged by the smallest whole
factor that leaves at most 1,024 values (28x28x1 stays as it is): nothing learned stands between an image and
its copy. `d1` and `d2` are an image's distances to its nearest and second nearest *training* image.

- ratio: median d1 of samples over median d1 of test images. 1 for samples as near to the training set as
  unseen real images are; 0 for copies. Blurred samples are also nearer: below 1 is a reason to look at
  `copies`;
- nearer: share of samples whose d1 is below the test images' median; 0.5 for the test set itself;
- copies: share of samples with d1 / d2 below the level that one test image in a thousand falls below. A copy
  is far nearer to one training image than to any other; a blurred or typical image is about as near to
  several. 0.001 for the test set by construction; a planted copy, exact or noisy, has d1 / d2 near 0;
- authenticity (Alaa+ 2022): share of samples whose d1 exceeds the distance of that training image to its own
  nearest training image. Compare with the test set's value, not with 1.

Errors are for other draws of the samples: those of shares in closed form, that of the median from its ranks. The
test set's median and level stay as they are.

A training image that occurs twice would hide its copies (d1 = d2 = 0): distance zero always counts as a copy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from elegan.errors import UserError
from elegan.metrics import matrix, store

if TYPE_CHECKING:
    from torch import Tensor

VALUES = 1024
COPY_QUANTILE = 0.001
CANDIDATES = 16
KEPT = 1  # counts the forms of what is kept on disk
DIRECTIONS = 128
BLOCK = 100  # rows at a time: 24 MB against 60,000, which malloc keeps and reuses


class Copying(NamedTuple):
    """The numbers of one set of images; `suspects` are its row numbers, most copied first."""

    ratio: float
    nearer: float
    copies: float
    authenticity: float
    errors: dict[str, float]  # standard error of each of these, by name
    ratios: np.ndarray  # (N,) d1 / d2
    suspects: np.ndarray  # (N,) int64: all rows by d1 / d2, ascending
    originals: np.ndarray  # (N,) int64: the nearest training image of each row of the images


class Neighbours(NamedTuple):
    """Nearest training images: distances (N, k) float64 ascending, rows (N, k) int64."""

    distance: np.ndarray
    row: np.ndarray


def flatten(images: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, C) -> float32 (N, D), grey levels around 0, box-averaged as said above."""
    n, height, width, channels = images.shape
    factor = max(1, math.ceil(math.sqrt(height * width * channels / VALUES)))
    if factor > 1:
        height, width = max(height // factor, 1), max(width // factor, 1)
        rows, columns = min(factor, images.shape[1]), min(factor, images.shape[2])
        cut = images[:, : height * rows, : width * columns]  # an incomplete last box is left out
        out = np.empty((n, height, width, channels), np.float32)
        for start in range(0, n, 1000):  # the sums of a whole data set would not fit
            part = cut[start : start + 1000]
            boxes = part.reshape(len(part), height, rows, width, columns, channels)
            out[start : start + 1000] = boxes.mean((2, 4), dtype=np.float32)
    else:
        out = images.astype(np.float32)
    out -= np.float32(128)
    return out.reshape(n, -1)


@dataclass(frozen=True)
class TrainingIndex:
    """Finds nearest training images quickly: `TrainingIndex(images).nearest(queries)`.

    Candidates are the training images that are nearest in a sketch: the leading principal coordinates plus
    the length of the remainder. Distances between sketches never exceed the true ones and are zero for equal
    images, so an exact copy is always found. The candidates are then measured in full, in float64. For the
    test images of Fashion-MNIST the nearest image is missed for 1.4 % and the mean distance is 0.03 % too
    large; MNIST 0 %.
    """

    images: np.ndarray  # uint8 (M, H, W, C)

    @cached_property
    def flat(self) -> Tensor:
        """(M, D) float32."""
        import torch

        return torch.from_numpy(flatten(self.images))

    @cached_property
    def middle(self) -> Tensor:
        """(D,) mean training image: moving everything leaves distances alone and makes bounds tighter."""
        return self.flat.mean(0)

    @cached_property
    def basis(self) -> Tensor:
        """(D, P) float32 with orthonormal columns: the leading principal directions of about 5,000 images."""
        import torch

        some = (self.flat[:: max(1, len(self.flat) // 5000)] - self.middle).double()
        return torch.linalg.eigh(some.T @ some).eigenvectors[:, -DIRECTIONS:].float()

    @cached_property
    def sketch(self) -> Tensor:
        """(M, P + 1) float32: see `_sketch`."""
        return _cat([self._sketch(part) for part in self.flat.split(BLOCK)])

    @cached_property
    def squares(self) -> Tensor:
        """(M,) squared lengths of the sketches."""
        return _square(self.sketch)

    @cached_property
    def own(self) -> np.ndarray:
        """(M,) distance of each training image to its nearest other one, where it has been asked for, else NaN."""
        return np.full(len(self.images), np.nan)

    def _sketch(self, flat: Tensor) -> Tensor:
        """Coordinates along the basis, and the length of the rest: their distances are lower bounds."""
        centred = flat - self.middle
        along = centred @ self.basis
        rest = (_square(centred) - _square(along)).clamp(min=0).sqrt()
        return _cat([along, rest[:, None]], 1)

    def nearest(self, queries: np.ndarray, k: int = 2) -> Neighbours:
        """The k nearest training images of uint8 (N, H, W, C). `UserError` for other shapes or M < k."""
        if queries.shape[1:] != self.images.shape[1:]:
            raise UserError(f"images of shape {queries.shape[1:]} cannot be copies of {self.images.shape[1:]} ones")
        return self._search(flatten(queries), k)

    def own_nearest(self, rows: np.ndarray) -> np.ndarray:
        """Distance (N,) from each of these training images to its nearest *other* training image."""
        new = np.unique(rows[np.isnan(self.own[rows])])
        if len(new):  # the first neighbour is the image itself, at zero
            self.own[new] = self._search(self.flat[new].numpy(), 2).distance[:, 1]
        return self.own[rows]

    def _search(self, flat: np.ndarray, k: int) -> Neighbours:
        import torch

        if len(self.flat) < k:
            raise UserError(f"the training split has {len(self.flat)} images; the copy number needs at least {k}")
        parts = [self._search_block(part, k) for part in torch.from_numpy(flat).split(BLOCK)]
        distance, row = zip(*parts, strict=True)
        return Neighbours(_cat(distance).numpy(), _cat(row).numpy())

    def _search_block(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        least = _least(self._sketch(queries), self.sketch, self.squares, max(CANDIDATES, k))
        exact = (self.flat[least.indices] - queries[:, None]).double().square().sum(2).sqrt()  # (B, count)
        best = exact.topk(k, dim=1, largest=False, sorted=True)
        return best.values, least.indices.gather(1, best.indices)


def _least(a: Tensor, b: Tensor, squares: Tensor, count: int) -> Any:
    """Least squared distances of rows of a (B, D) to b (M, D), less the square of a's row: float32."""
    import torch

    squared = torch.addmm(squares[None], a, b.T, alpha=-2)
    return squared.topk(min(count, len(b)), dim=1, largest=False, sorted=True)


def _square(rows: Tensor) -> Tensor:
    """Squared length of each row."""
    import torch

    return torch.linalg.vector_norm(rows, dim=1).square()


def _cat(parts: Any, dim: int = 0) -> Tensor:
    """`torch.cat`, without importing torch before it is needed."""
    import torch

    return torch.cat(list(parts), dim)


@dataclass(frozen=True)
class CopyTest:
    """A training split and the test split that calibrates it. Reusable for any number of sample sets.

    `train` and `test` are uint8 (N, H, W, C). The test split's own numbers are `floor`. `keep`: what was found of the
    two splits is kept on disk, for the next time.
    """

    train: np.ndarray
    test: np.ndarray
    keep: bool = False

    @cached_property
    def index(self) -> TrainingIndex:
        """The searchable training split."""
        return TrainingIndex(self.train)

    @cached_property
    def reference(self) -> Neighbours:
        """Nearest training images of the test images."""
        if len(self.test) < 2:
            raise UserError("the copy number needs at least 2 test images to compare with")
        if not self.keep:
            return self.index.nearest(self.test)

        def find() -> dict[str, np.ndarray]:
            found = self.index.nearest(self.test)
            return {**found._asdict(), "own": self.index.own_nearest(found.row[:, 0])}

        key = store.digest("neighbours", KEPT, VALUES, CANDIDATES, DIRECTIONS, self.train, self.test)
        arrays = store.kept(key, {"distance", "row", "own"}, find)
        self.index.own[arrays["row"][:, 0]] = arrays["own"]
        return Neighbours(arrays["distance"], arrays["row"])

    @cached_property
    def threshold(self) -> float:
        """d1 / d2 below this counts as a copy."""
        return float(np.quantile(_lowe(self.reference), COPY_QUANTILE, method="lower"))

    @cached_property
    def floor(self) -> Copying:
        """The test images' own numbers: what a model that copies nothing gets."""
        return self._judge(self.reference)

    def __call__(self, images: np.ndarray) -> Copying:
        """Judge uint8 images (N, H, W, C)."""
        return self._judge(self.index.nearest(images))

    def _judge(self, found: Neighbours) -> Copying:
        ratio, nearest = _lowe(found), found.distance[:, 0]
        typical = float(np.median(self.reference.distance[:, 0]))
        # Half the ties on each side, so that the test split itself gets exactly 0.5.
        nearer = matrix.mean((nearest < typical) + (nearest == typical) / 2)
        own = self.index.own_nearest(found.row[:, 0])
        middle = matrix.median(nearest)
        copies, authentic = matrix.share((ratio < self.threshold) | (nearest == 0)), matrix.share(nearest > own)
        return Copying(
            ratio=middle.value / typical if typical > 0 else math.nan,
            nearer=nearer.value,
            copies=copies.value,
            authenticity=authentic.value,
            errors={
                "ratio": middle.error / typical if typical > 0 else math.nan,
                "nearer": nearer.error,
                "copies": copies.error,
                "authenticity": authentic.error,
            },
            ratios=ratio,
            suspects=np.argsort(ratio, kind="stable"),
            originals=found.row[:, 0],
        )


def _lowe(found: Neighbours) -> np.ndarray:
    """d1 / d2 (N,); 0 for an image at distance zero, even when it has a twin."""
    first, second = found.distance[:, 0], found.distance[:, 1]
    return np.divide(first, second, out=np.zeros_like(first), where=second > 0)
