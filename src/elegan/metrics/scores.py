"""What `evaluate` returns: every number, the same numbers for real images, and how they were made."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict

#: said in every protocol
ERRORS = (
    "+- is one standard error over other draws of the scored images, the real ones fixed (shares in closed form, "
    "the rest by jackknife; kernel, classifier score and sliced Wasserstein by disjoint parts)"
)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Numbers(_Record):
    """The numbers of one set of images. None: this feature set or these images cannot give it.

    `NAME_error` is the standard error of `NAME`: how far it would move with other images from the same model.
    """

    frechet: float
    """Frechet distance of the features (FID's formula); lower is better, biased upwards at small counts."""
    frechet_error: float | None = None
    kernel: float
    """Kernel distance (KID's formula), unbiased; lower is better, about 0 for equal laws."""
    kernel_error: float
    wasserstein: float
    """Sliced Wasserstein distance on a Laplacian pyramid, mean of its levels, weight free; lower is better."""
    wasserstein_error: float | None = None
    classifier_score: float | None = None
    """The inception score's formula with this classifier, 1 to the number of classes; higher is better."""
    classifier_score_error: float | None = None
    precision: float
    """Share of images that look real (k-nearest-neighbour balls)."""
    precision_error: float | None = None
    recall: float
    """Share of real images that the model could have made."""
    recall_error: float | None = None
    density: float
    """How densely images lie where real ones do; about 1 for equal laws."""
    density_error: float | None = None
    coverage: float
    """Share of real images with an image of this set nearby."""
    coverage_error: float | None = None
    diversity: float
    """Root mean square feature distance of two images of one predicted class, over the real test images'."""
    diversity_error: float | None = None
    ms_ssim: float | None = None
    """Mean structural similarity (MS-SSIM) of two images of one predicted class; well above real ones': too alike."""
    ms_ssim_error: float | None = None
    sharpness: float | None = None
    """Gradient energy over that of real images; below 1 blurred, above 1 grainy."""
    sharpness_error: float | None = None
    top_octave: float | None = None
    """Power of the finest octave of frequencies over that of real images; far from 1: no detail, or a pattern."""
    top_octave_error: float | None = None
    spectrum: float | None = None
    """Mean difference of the radial power spectrum from that of real images, in decibels; lower is better."""
    spectrum_error: float | None = None
    spectrum_curve: list[float] | None = None
    """Power in each ring of frequencies over real, in decibels, from whole-image waves to single pixels."""
    class_shares: list[float] | None = None
    """Share of each class, by the classifier."""
    class_shares_error: list[float] | None = None
    class_entropy: float | None = None
    """Entropy of the shares in bits; log2(classes) when all are equally frequent."""
    class_entropy_error: float | None = None
    label_accuracy: float | None = None
    """Share of images that the classifier sees as the class that was asked for."""
    label_accuracy_error: float | None = None
    cas: float | None = None
    """Classification accuracy score: accuracy on real images of a classifier trained on these images only."""
    cas_error: float | None = None
    modes: float | None = None
    """Modes of Stacked MNIST, of 1,000, that some image has."""
    modes_error: float | None = None
    modes_kl: float | None = None
    """KL divergence in nats of the modes' shares from equal shares; 0.023 for 26,000 real images."""
    modes_kl_error: float | None = None
    modes_kl_real: float | None = None
    """KL divergence in nats of the modes' shares from the real test images'."""
    modes_kl_real_error: float | None = None
    copy_ratio: float | None = None
    """Median distance to the nearest training image, over that of test images; well below 1: copies, or blur."""
    copy_ratio_error: float | None = None
    nearer: float | None = None
    """Share of images nearer to a training image than the median test image is; 0.5 for unseen real images."""
    nearer_error: float | None = None
    copies: float | None = None
    """Share of images that single out one training image as only one test image in a thousand does."""
    copies_error: float | None = None
    authenticity: float | None = None
    """Share of images farther from their training image than that is from its own nearest one (Alaa+ 2022)."""
    authenticity_error: float | None = None


class ClassNumbers(_Record):
    """The numbers of the images of one class. None: too few images, or nothing to compare with."""

    images: int
    """How many images of this class there are."""
    share: float
    """Their share."""
    share_error: float
    frechet: float | None = None
    """Frechet distance from the real images of the class: biased upwards, and more so than over all classes."""
    frechet_error: float | None = None
    precision: float | None = None
    precision_error: float | None = None
    recall: float | None = None
    recall_error: float | None = None
    coverage: float | None = None
    coverage_error: float | None = None
    label_accuracy: float | None = None
    """Share of the images that were asked for this class which the classifier sees as it."""
    label_accuracy_error: float | None = None
    diversity: float | None = None
    """Root mean square feature distance of two images of the class, over the real test images'."""
    diversity_error: float | None = None
    cas: float | None = None
    """Accuracy on the real images of this class of the classifier trained on generated images."""


class ClassScores(_Record):
    """One class: its numbers for the samples and for real images."""

    name: str
    value: ClassNumbers
    floor: ClassNumbers


class Suspect(_Record):
    """A sample that singles out one training image."""

    sample: int
    """Row of the samples that were scored."""
    original: int
    """Row of the training split."""
    ratio: float
    """Distance to this training image over that to the second nearest; near 0 for a copy."""


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
    classes: str | None = None
    """How images came into their classes, for the numbers of each class."""
    cas: str | None = None
    """How the classifier of the classification accuracy score was trained."""
    errors: str = ERRORS
    """What the numbers behind +- are."""
    k_precision_recall: int
    k_density_coverage: int
    seed: int
    """Of every random choice: subsets, blocks, patches and directions."""
    notes: list[str] = []
    """What limits these numbers, in plain words."""

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """The protocol in plain words, one thing a line."""
        searched = f"; copies sought among {self.training:,} training images" if self.training else ""
        more = [text for text in (self.classes, self.cas, self.errors) if text]
        return [
            f"{self.samples:,} samples against {self.real:,} real {self.split} images of {self.data}",
            f"features {self.features}; k = {self.k_precision_recall} and {self.k_density_coverage}; "
            f"seed {self.seed}; protocol {self.version}",
            f"floor: {self.floor}{searched}",
            *more,
            *(f"note: {note}" for note in self.notes),
        ]


class Scores(_Record):
    """The result of `evaluate`. `print(scores)` shows a table; `scores.value.frechet` is a number."""

    value: Numbers
    """The samples' numbers."""
    floor: Numbers
    """The same for real images that the reference does not hold: no model needs to be better."""
    protocol: Protocol
    class_names: list[str] = []
    """Names of the classes in `class_shares`, where they are known."""
    per_class: list[ClassScores] = []
    """The numbers of each class, where the data has classes and the features or the samples tell them."""
    suspects: list[Suspect] = []
    """The ten samples most like one training image, the most suspicious first."""

    def __str__(self) -> str:
        return self.to_text()

    def to_text(self, per_class: bool = False) -> str:
        """A table of all numbers, with the protocol; `per_class` adds a row a class."""
        from elegan.metrics.tables import text

        return text(self, per_class)

    def to_markdown(self, name: str = "samples", per_class: bool = False) -> str:
        """A Markdown table with a row `name` and one of real images, with the protocol."""
        from elegan.metrics.tables import markdown

        return markdown(self, name, per_class)

    def to_latex(self, name: str = "samples", per_class: bool = False) -> str:
        """A LaTeX `tabular` (with booktabs) with a row `name` and one of real images, with the protocol."""
        from elegan.metrics.tables import latex

        return latex(self, name, per_class)

    def to_dict(self) -> dict[str, Any]:
        """Plain values only: what `--json` prints and what a run folder keeps."""
        return self.model_dump(mode="json")

    def to_json(self) -> str:
        """`to_dict` as indented JSON."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)
