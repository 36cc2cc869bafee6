"""The classifiers behind the shipped features; they live in `networks`, where families can use them too."""

from __future__ import annotations

from elegan.networks.classifiers import PlainClassifier, ResidualClassifier, fold

__all__ = ["PlainClassifier", "ResidualClassifier", "fold"]
