"""Judging generated images: pure functions of feature matrices, one file per metric, and `evaluate` over all.

from elegan.metrics import evaluate
print(evaluate(samples, train, test))  # every number beside its floor, and the protocol
"""

from elegan.metrics.cas import classification_accuracy
from elegan.metrics.class_score import classifier_score
from elegan.metrics.evaluate import Judge, evaluate
from elegan.metrics.features import Features, load_features
from elegan.metrics.frechet_distance import frechet, frechet_estimate, moments
from elegan.metrics.kernel_distance import kernel
from elegan.metrics.labels import diversity, entropy, histogram, label_accuracy
from elegan.metrics.manifold import balls, density_coverage, prdc, prdc_estimates, precision_recall
from elegan.metrics.matrix import Estimate
from elegan.metrics.memorisation import CopyTest
from elegan.metrics.scores import ClassNumbers, ClassScores, Numbers, Protocol, Scores
from elegan.metrics.similarity import ms_ssim, pair_similarity
from elegan.metrics.spectrum import detail, sharpness
from elegan.metrics.stacked import modes
from elegan.metrics.wasserstein import sliced_wasserstein

__all__ = [
    "ClassNumbers",
    "ClassScores",
    "CopyTest",
    "Estimate",
    "Features",
    "Judge",
    "Numbers",
    "Protocol",
    "Scores",
    "balls",
    "classification_accuracy",
    "classifier_score",
    "density_coverage",
    "detail",
    "diversity",
    "entropy",
    "evaluate",
    "frechet",
    "frechet_estimate",
    "histogram",
    "kernel",
    "label_accuracy",
    "load_features",
    "modes",
    "moments",
    "ms_ssim",
    "pair_similarity",
    "prdc",
    "prdc_estimates",
    "precision_recall",
    "sharpness",
    "sliced_wasserstein",
]
