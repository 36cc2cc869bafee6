"""Training: a loop that knows nothing about GANs, its engine, its checkpoints and its run folder."""
