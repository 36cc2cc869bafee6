# Every target makes what it needs: `make demo` and `make test` work in a fresh clone.

PYTHON ?=
BUDGET ?= 4m
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test check docs clean

help:
	@echo 'make demo   train the default recipe for about four minutes, score it, draw a sample sheet (BUDGET=10m: longer)'
	@echo 'make test   run the tests'
	@echo 'make check  lint, types, tests and a short run on real data: what CI runs'
	@echo 'make docs   write the generated pages of docs/ anew'
	@echo 'make clean  delete .venv and the tools'"'"' caches (runs/ and data/ stay)'

demo: $(READY)
	@.venv/bin/elegan demo --budget $(BUDGET)

test: $(READY)
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 --dist worksteal -m "not slow"

check:
	@scripts/check

docs: $(READY)
	@.venv/bin/python scripts/make_docs.py

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The pins may change without a new version of the package, so the environment follows both files.
$(READY): pyproject.toml constraints.txt scripts/make_venv
	@PYTHON='$(PYTHON)' scripts/make_venv
	@touch $@
