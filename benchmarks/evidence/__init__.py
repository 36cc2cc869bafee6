"""Is what this package calls a WGAN-GP one? Each family's acceptance gates, run on real data, and docs/evidence.md.

    python -m benchmarks.evidence --list
    python -m benchmarks.evidence wgan-gp --seeds 0,1,2
    python -m benchmarks.evidence wgan-gp --broken

The gates stand in `table.py`, one row each; what a row measures is a function in `gates/`. A result is written once,
to benchmarks/results/evidence/, and not measured again while it is there. `--broken` runs the same measurement on a
variant with a planted fault, which must miss the gate: a gate that passes everything proves nothing.
"""
