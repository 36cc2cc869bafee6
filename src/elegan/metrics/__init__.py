"""Judging generated images: pure functions of feature matrices, one file per metric, and `evaluate` over all.

from elegan.metrics import evaluate
print(evaluate(samples, train, test))  # every number beside its floor, and the protocol
"""

from elegan.metrics.distances import Estimate, classifier_score, frechet, kernel, moments
from elegan.metrics.features import Features, load_features
from elegan.metrics.manifold import balls, density_coverage, manifold, precision_recall

__all__ = [
    "Estimate",
    "Features",
    "balls",
    "classifier_score",
    "density_coverage",
    "frechet",
    "kernel",
    "load_features",
    "manifold",
    "moments",
    "precision_recall",
]
