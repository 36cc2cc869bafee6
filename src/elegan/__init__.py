"""elegan: train, judge, explore and ship generative adversarial networks, fashion images first."""

__version__ = "0.1.0"
