"""Reports: what a run is, has done and is worth, as one HTML file; and runs side by side.

`elegan.report(run)` and `elegan.compare(runs)` are in `page.py` and `comparison.py`. Everything that is shown is
gathered into plain values first (`facts`, `evaluation`, `charts`, `readings`, `significance`); the templates only lay
it out. The pages hold their pictures, styles and script: nothing is fetched when one is opened.
"""
