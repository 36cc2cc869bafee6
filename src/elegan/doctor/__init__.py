"""The run doctor: what is wrong with a run, in plain words, with the evidence and one concrete change.

`evidence.py` gathers numbers from a model without touching it (no training randomness, no statistics, no weights),
`checks.py` judges them, each check a small pure function of the evidence, and `pictures.py` draws what was seen.
The doctor knows neither the training loop nor the run folder: `training/checkup.py` calls it during a run and on
demand. Its thresholds come from healthy and from broken runs: `benchmarks/results/doctor.md`.
"""
