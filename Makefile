# One virtual environment in .venv, made once and again whenever the pins change.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OUT ?= demo-out
SOAK ?= soak-out
WORKERS ?= auto

.PHONY: audit-pins demo fuzz sbom soak test lint format bench selection-report peers wheel clean

demo: $(STAMP)
	rm -rf $(OUT)
	$(BIN)/dicom-node demo --out $(OUT)

# Several processes, each with whole files of tests, in the order of their folders: those with real peers take longest.
# WORKERS=0 runs all in one.
test: $(STAMP) peers
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The long forms, hours in all, each with its report in SOAK; run again, the first goes on where it ended.
# DICOM_NODE_LONG=1 make test runs the first and the third as tests.
soak: $(STAMP)
	$(BIN)/python -m tests.soak crash --kills 200 --patients 50 --minutes 120 --folder $(SOAK)/crash
	rm -rf $(SOAK)/power-loss $(SOAK)/steady
	$(BIN)/python -m tests.soak power-loss --patients 6 --cuts 400 --restarts 4 --folder $(SOAK)/power-loss
	$(BIN)/python -m tests.soak steady --minutes 60 --folder $(SOAK)/steady

bench: $(STAMP)
	$(BIN)/python -m inference benchmark

# The long form of fuzzing, an hour or two; cases that fail are kept. CASES=1000000 for a night.
fuzz: $(STAMP)
	DICOM_NODE_LONG=1 $(BIN)/python -m tests.fuzz --cases $${CASES:-100000} --seed $${SEED:-1} --keep fuzz-out

# What is installed, with versions and licences, as CycloneDX JSON.
sbom: $(STAMP)
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --mc-type application --spec-version 1.6 \
	  --output-reproducible --output-format JSON --output-file sbom.cdx.json $(BIN)/python

# Without a network: what is installed is what is pinned, complete, without conflict, and under licences we can have.
audit-pins: $(STAMP)
	$(BIN)/python -m pip check
	$(BIN)/python -m pytest -p no:xdist -q tests/unit/test_pins.py

# Every shared real series: what a reader says it is, what the rules say. DICOM_NODE_REAL_DATA names the folder.
selection-report: $(STAMP)
	$(BIN)/python -m tests.selection.report

# Orthanc, DCMTK and dicom3tools for the tests; without root or apt the tests that need them say so and are skipped.
# With DICOM_NODE_OHIF=FOLDER the viewer too; DICOM_NODE_VALIDATE names a command that runs validators on its arguments.
peers:
	@deploy/install_test_peers

# The wheel, installed elsewhere: a flat layout can hide a file that is missing from it.
wheel: $(STAMP)
	deploy/check_wheel $(BIN)/python

# torch first and by its exact version, so that an index with a CPU build of it can serve that one.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) $(OUT) build dist *.egg-info
