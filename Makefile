# What a user runs. `make run` and `make test` set everything up by themselves, in .venv/.
PYTHON ?= python3
BIN := .venv/bin
PLUGINS := $(sort $(wildcard plugins/*))
INSTALLED := .venv/installed

.PHONY: run test bench lint wheels clean help

help:
	@echo "make run     set up .venv, train on a simulated log in both directions, print recommendations"
	@echo "make test    set up .venv, run all tests, the linters and the type checker"
	@echo "make bench   set up .venv, measure time and memory beside a textbook SASRec (needs RECORE_DATA for most of it)"
	@echo "make lint    only ruff and mypy"
	@echo "make wheels  build the wheels of the core and of every distribution into wheels/"
	@echo "make clean   remove .venv, wheels and caches (not runs/)"

$(INSTALLED): constraints.txt pyproject.toml $(wildcard plugins/*/pyproject.toml)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "setuptools>=77" wheel
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation \
		--requirement requirements-dev.txt --editable ".[testing]" $(foreach plugin,$(PLUGINS),--editable $(plugin))
	touch $@

run: $(INSTALLED)
	$(BIN)/recore run recipes/duality.yaml
	$(BIN)/recore recommend runs/duality/latest --users =u1,u2 -k 5
	$(BIN)/recore recommend runs/duality/latest --item i12 --audience -k 5

test: $(INSTALLED)
	bash tests/all.sh $(BIN)

bench: $(INSTALLED)
	$(BIN)/python benchmarks/all.py --json docs/results/bench.json
	$(BIN)/python docs/results/render.py

lint: $(INSTALLED)
	bash tests/lint.sh $(BIN)

wheels: $(INSTALLED)
	rm -rf wheels
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir wheels . $(PLUGINS)
	ls wheels

clean:
	rm -rf .venv wheels build .pytest_cache .mypy_cache .ruff_cache .hypothesis
