"""What `evaluate` returns: every number, the same numbers for real images, and how they were made."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Numbers(_Record):
    """The numbers of one set of images. None: this feature set or these images cannot give it."""

    frechet: float
    """Frechet distance of the features (FID's formula); lower is better, biased upwards at small counts."""
    kernel: float
    """Kernel distance (KID's formula), unbiased; lower is better, about 0 for equal laws."""
    kernel_error: float
    """Standard error of `kernel`."""
    wasserstein: float
    """Sliced Wasserstein distance on a Laplacian pyramid, mean of its levels, weight free; lower is better."""
    classifier_score: float | None = None
    """The inception score's formula with this classifier, 1 to the number of classes; higher is better."""
    classifier_score_error: float | None = None
    """Standard error of `classifier_score`."""
    precision: float
    """Share of images that look real (k-nearest-neighbour balls)."""
    recall: float
    """Share of real images that the model could have made."""
    density: float
    """How densely images lie where real ones do; about 1 for equal laws."""
    coverage: float
    """Share of real images with an image of this set nearby."""
    diversity: float
    """Root mean square feature distance of two images of one predicted class, over the real test images'."""
    class_shares: list[float] | None = None
    """Share of each class, by the classifier."""
    class_entropy: float | None = None
    """Entropy of the shares in bits; log2(classes) when all are equally frequent."""
    label_accuracy: float | None = None
    """Share of images that the classifier sees as the class that was asked for."""
    copy_ratio: float | None = None
    """Median distance to the nearest training image, over that of test images; well below 1: copies, or blur."""
    nearer: float | None = None
    """Share of images nearer to a training image than the median test image is; 0.5 for unseen real images."""
    copies: float | None = None
    """Share of images that single out one training image as only one test image in a thousand does."""
    authenticity: float | None = None
    """Share of images farther from their training image than that is from its own nearest one."""


class Protocol(_Record):
    """How the numbers were made: only results that agree in all of this compare."""

    version: int = 1
    """Changes whenever a definition does."""
    data: str
    """Name and fingerprint of the real data."""
    features: str
    """The feature set, with the checksum and accuracy of its weights."""
    samples: int
    """Generated images scored."""
    real: int
    """Real images on the reference side."""
    split: str = "test"
    """The split that the reference side comes from; labels, radii and normalisation are the reference's."""
    floor: str
    """What the floor's images are."""
    training: int | None = None
    """Training images searched for copies."""
    k_precision_recall: int
    k_density_coverage: int
    seed: int
    """Of every random choice: subsets, blocks, patches and directions."""
    notes: list[str] = []
    """What limits these numbers, in plain words."""

    def __str__(self) -> str:
        searched = f"; copies sought among {self.training:,} training images" if self.training else ""
        lines = [
            f"{self.samples:,} samples against {self.real:,} real {self.split} images of {self.data}",
            f"features {self.features}; k = {self.k_precision_recall} and {self.k_density_coverage}; "
            f"seed {self.seed}; protocol {self.version}",
            f"floor: {self.floor}{searched}",
            *(f"note: {note}" for note in self.notes),
        ]
        return "\n".join(lines)


#: field, title, digits after the point, what is good
ROWS = (
    ("frechet", "Frechet distance", 3, "lower"),
    ("kernel", "kernel distance", 4, "lower"),
    ("wasserstein", "sliced Wasserstein", 4, "lower"),
    ("classifier_score", "classifier score", 2, "higher"),
    ("precision", "precision", 3, "higher"),
    ("recall", "recall", 3, "higher"),
    ("density", "density", 3, "near 1"),
    ("coverage", "coverage", 3, "higher"),
    ("diversity", "diversity in a class", 3, "near 1"),
    ("class_entropy", "class entropy, bits", 3, "as floor"),
    ("label_accuracy", "label accuracy", 3, "higher"),
    ("copy_ratio", "copy distance ratio", 3, "near 1"),
    ("nearer", "nearer than test", 3, "near 0.5"),
    ("copies", "copies", 4, "as floor"),
    ("authenticity", "authenticity", 3, "as floor"),
)


class Scores(_Record):
    """The result of `evaluate`. `print(scores)` shows a table; `scores.value.frechet` is a number."""

    value: Numbers
    """The samples' numbers."""
    floor: Numbers
    """The same for real images that the reference does not hold: no model needs to be better."""
    protocol: Protocol
    class_names: list[str] = []
    """Names of the classes in `class_shares`, where they are known."""

    def __str__(self) -> str:
        lines = [f"{'':22}{'value':>18}{'floor':>18}  better"]
        for field, title, digits, good in ROWS:
            if getattr(self.value, field) is None:
                continue
            value, floor = (_cell(numbers, field, digits) for numbers in (self.value, self.floor))
            lines.append(f"{title:22}{value:>18}{floor:>18}  {good}")
        if self.value.class_shares is not None:
            lines.append("")
            lines += self._class_lines()
        return "\n".join([*lines, "", str(self.protocol)])

    def _class_lines(self) -> list[str]:
        """One line a class: its share in samples and in real images, and a bar."""
        assert self.value.class_shares is not None and self.floor.class_shares is not None
        lines = []
        for i, (value, floor) in enumerate(zip(self.value.class_shares, self.floor.class_shares, strict=True)):
            name = self.class_names[i] if i < len(self.class_names) else f"class {i}"
            bar = "#" * round(100 * value)
            lines.append(f"{name[:20]:22}{100 * value:>16.1f} %{100 * floor:>16.1f} %  {bar}")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Plain values only: what `--json` prints and what a run folder keeps."""
        return self.model_dump(mode="json")

    def to_json(self) -> str:
        """`to_dict` as indented JSON."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)


def _cell(numbers: Numbers, field: str, digits: int) -> str:
    value = getattr(numbers, field)
    if value is None:
        return "-"
    error = getattr(numbers, f"{field}_error", None)
    return f"{value:.{digits}f}" + (f" +- {error:.{digits}f}" if error is not None else "")
