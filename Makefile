# make demo    simulate ten exposures, group them, create their skyflat, draw it next to the truth,
#              write a report
# make test    lint, then all tests
# make fuzz    run steps and subcommands on FUZZ=2000 random faults of files and parameters
# make style   lint, and look for a fragment in changes/
# make coverage      all tests; fails if too few lines are reached
# make test-all      all tests with each Python of 3.11, 3.12 and 3.13, and the newest dependencies
# make test-oldest   all tests with the oldest dependencies that pyproject.toml allows
# make wheel   build the wheel and the source in dist/, and test what is in a wheel
# make docs    build the documentation in docs/_build/html
# make figures   draw all figures of the documentation (after make demo; half an hour)
# make bench-accuracy   compare skies of simulated visits with the peer's, and with the limit;
#                       BENCH=--ablation removes our ingredients, one by one
# make bench-subtract   subtract the sky of simulated time series with this package and jwst's step;
#                       BENCH="--skyflats DIR" keeps the skyflats, BENCH=--large uses 40 of them
# make bench-stare      measure the bias of transmission spectra without sky subtraction, with jwst's
#                       step, and with this package
# make bench-extraction   measure bias and scatter of spectra by this package, ATOCA and specreduce
# make bench-flicker    measure the scatter of light curves with 1/f noise, and after its subtraction
#                       by jwst's step and by this package; BENCH="--subarray SUBSTRIP96"
# make bench-f277w      find field stars of time series with and without an exposure with F277W
# make bench-reference  subtract libraries of skyflats, and one template, with jwst's own step
# make bench-speed      compare time and memory with the peer's (15 GB of disk); BENCH="--plot FILE.png"
#
# All create a virtual environment in .venv; PYTHON=... chooses its Python.

NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c "$(NEW_ENOUGH)" 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
DEMO := demo

.PHONY: demo test fuzz lint style coverage test-all test-oldest wheel docs figures bench-accuracy bench-subtract bench-stare bench-extraction bench-flicker bench-f277w bench-reference bench-speed clean

demo: .venv/installed
	rm -rf $(DEMO)
	$(BIN)/soss-background simulate $(DEMO)/exposures
	$(BIN)/soss-background asn $(DEMO)/exposures/*_rateints.fits --output-dir $(DEMO)
	$(BIN)/strun soss_background.SkyflatPipeline $(DEMO)/*_asn.json \
		--steps.flat_field.override_flat=$(DEMO)/exposures/flat.fits --output_dir=$(DEMO)
	$(BIN)/soss-background compare $(DEMO)/*_skyflat.fits $(DEMO)/exposures/truth.fits \
		--output $(DEMO)/skyflat.png
	$(BIN)/soss-background report $(DEMO)/*_skyflat.fits --output $(DEMO)/report.html

test: lint
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder

FUZZ ?= 2000

fuzz: .venv/installed
	FUZZ_EXAMPLES=$(FUZZ) $(BIN)/pytest tests/test_fuzz.py --show-capture=no

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell README.md CONTRIBUTING.md docs/*.rst docs/steps changes soss_background tests benchmarks
	$(BIN)/python scripts/check_style.py
	$(BIN)/lint-imports
	$(BIN)/numpydoc lint $$(find soss_background -name "*.py")

style: lint
	$(BIN)/towncrier check --compare-with origin/main

coverage: .venv/installed
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder --cov --cov-report=term

test-all:
	@missing=; failed=; for version in 3.11 3.12 3.13; do \
		python=python$$version; venv=.venv-$$version; \
		$$python -c "" 2>/dev/null || { missing="$$missing $$version"; continue; }; \
		$$python -m venv --clear $$venv && \
		$$venv/bin/python -m pip install --quiet --editable ".[test,dev]" && \
		$$venv/bin/pytest -n auto --dist loadfile || failed="$$failed $$version"; \
	done; \
	echo "Python not installed:$${missing:- none}; failed:$${failed:- none}"; test -z "$$failed"

test-oldest:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv --clear .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet uv
	.venv-oldest/bin/uv pip install --quiet --python .venv-oldest/bin/python \
		--resolution lowest-direct --editable ".[test]"
	.venv-oldest/bin/pytest -n auto --dist loadfile --no-loadscope-reorder

wheel: .venv/installed
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	WHEEL=$$(ls dist/*.whl) $(BIN)/pytest tests/test_packaging.py -k wheel

.venv/installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[test,dev]"
	touch $@

docs: .venv/installed-docs
	rm -rf docs/api
	$(BIN)/sphinx-build -W -b html docs docs/_build/html

figures: .venv/installed-bench
	cp $(DEMO)/skyflat.png docs/images/demo.png
	$(BIN)/python docs/quality_figures.py $(DEMO)/*_skyflat.fits
	$(BIN)/python docs/fluxcal_figure.py
	$(BIN)/python docs/data_flow.py
	$(BIN)/python docs/step_figures.py $(DEMO) $(REAL)
	$(BIN)/python benchmarks/accuracy_figure.py docs/images/accuracy.png
	$(BIN)/python benchmarks/subtract.py --skyflats $(DEMO)/library --plot docs/images/subtract.png
	$(BIN)/python benchmarks/stare.py --skyflats $(DEMO)/library --plot docs/images/stare.png
	$(BIN)/python benchmarks/speed.py --plot docs/images/speed.png

.venv/installed-docs: .venv/installed
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	touch $@

bench-accuracy: .venv/installed-bench
	$(BIN)/python benchmarks/accuracy.py $(BENCH)

bench-subtract: .venv/installed-bench
	$(BIN)/python benchmarks/subtract.py $(BENCH)

bench-stare: .venv/installed-bench
	$(BIN)/python benchmarks/stare.py $(BENCH)

bench-extraction: .venv/installed-bench
	$(BIN)/python benchmarks/extraction.py $(BENCH)

bench-flicker: .venv/installed-bench
	$(BIN)/python benchmarks/flicker.py $(BENCH)

bench-f277w: .venv/installed-bench
	$(BIN)/python benchmarks/f277w.py $(BENCH)

bench-reference: .venv/installed-bench
	$(BIN)/python benchmarks/reference.py $(BENCH)

bench-speed: .venv/installed-bench
	$(BIN)/python benchmarks/speed.py $(BENCH)

.venv/installed-bench: .venv/installed
	$(BIN)/python -m pip install --quiet --editable ".[bench]"
	touch $@

clean:
	rm -rf .venv .venv-* dist $(DEMO) build docs/_build docs/api *.egg-info
