# `make demo` shows what it does, `make test` runs every check. Both keep their environment in .venv.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTHON ?= python3
# Without a GPU, `make demo TORCH=cpu` installs the much smaller CPU build of torch (needs uv).
TORCH ?=
UV := $(shell command -v uv 2>/dev/null)

.PHONY: demo test lint types imports format clean

demo: $(READY)
	$(BIN)/ww demo

# Most tests wait for processes, so two files run at a time; what is measured runs alone.
test: lint types imports
	$(BIN)/pytest -n 2 --dist loadfile --ignore tests/performance
	$(BIN)/pytest tests/performance

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
