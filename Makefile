# `make demo` shows what it does, `make test` runs every check. Both keep their environment in .venv.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTHON ?= python3
# Without a GPU, `make demo TORCH=cpu` installs the much smaller CPU build of torch (needs uv).
TORCH ?=
UV := $(shell command -v uv 2>/dev/null)
# How many files of tests run at a time: with more than cores those with deadlines wait for the others.
FILES ?= 2
# Where the tests are that run alone.
ALONE := tests/performance tests/integration/test_paths_compared.py

# Without compiled modules every process of every test would compile all that it loads.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint types imports format clean

demo: $(READY)
	$(BIN)/ww demo

# Two files of tests run at a time, each with one thread for its arithmetic: more threads would only wait for each other.
# What is judged by the clock runs alone, and what waits for a process that gives way to all others.
test: lint types imports
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(FILES) --dist loadfile --no-loadscope-reorder -m 'not alone'
	$(BIN)/pytest -m alone $(ALONE)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

imports: $(READY)
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(READY): pyproject.toml constraints.txt
ifdef UV
	test -x $(BIN)/python || $(UV) venv --quiet --python '>=3.11,<3.14' $(VENV)
	$(UV) pip install --quiet --python $(BIN)/python -c constraints.txt $(if $(TORCH),--torch-backend=$(TORCH)) -e '.[dev]'
else
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
endif
	touch $@

clean:
	rm -rf .demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
