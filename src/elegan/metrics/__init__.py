"""Judging generated images: pure functions of feature matrices, one file per metric, and `evaluate` over all.

from elegan.metrics import evaluate
print(evaluate(samples, train, test))  # every number beside its floor, and the protocol
"""

from elegan.metrics.distances import Estimate, classifier_score, frechet, kernel, moments
from elegan.metrics.evaluate import Judge, evaluate
from elegan.metrics.features import Features, load_features
from elegan.metrics.labels import diversity, entropy, histogram, label_accuracy
from elegan.metrics.manifold import balls, density_coverage, prdc, precision_recall
from elegan.metrics.memorisation import CopyTest
from elegan.metrics.scores import Numbers, Protocol, Scores
from elegan.metrics.wasserstein import sliced_wasserstein

__all__ = [
    "CopyTest",
    "Estimate",
    "Features",
    "Judge",
    "Numbers",
    "Protocol",
    "Scores",
    "balls",
    "classifier_score",
    "density_coverage",
    "diversity",
    "entropy",
    "evaluate",
    "frechet",
    "histogram",
    "kernel",
    "label_accuracy",
    "load_features",
    "moments",
    "prdc",
    "precision_recall",
    "sliced_wasserstein",
]
