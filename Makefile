# One word per chore. `make demo` and `make test` start from nothing but Python 3.11 and make.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python -m monai.bundle run --config_file

# PyTorch's threads must not spin while they wait: two trainings on two cores, each with two spinning
# threads, were 17 times slower than with this, and one alone is as fast.
export OMP_WAIT_POLICY ?= PASSIVE

# Two workers, each of which takes a file's tests at a time; tests/conftest.py says in which order.
# One file alone: `python -m pytest tests/test_layering.py`.
TWO_WORKERS := $(BIN)/python -m pytest -n 2

.PHONY: demo federation jobs test test-long check label metadata package clean

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# A stamp per set of extras: an environment is reused until the pins or the extras change.
$(VENV)/.core: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Setting up $(VENV): some minutes, about 6 GB (8.5 with MONAI Label)."
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.fl: $(VENV)/.core Makefile
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[fl]'
	touch $@

$(VENV)/.dev: $(VENV)/.core Makefile
	@echo "Adding what the tests need: some minutes, about 2.5 GB."
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,clip,export,fl,label]'
	touch $@

$(VENV)/.label: $(VENV)/.core
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[label]'
	touch $@

demo: $(VENV)/.core  ## pre-train, train, evaluate on all 15 modality subsets and segment, on phantom data
	$(RUN) "['configs/train.json','configs/pretrain.yaml','configs/demo.yaml']" --max_epochs 15
	$(RUN) "['configs/train.json','configs/demo.yaml']" --pretrained_file demo/models/pretrained.ckpt
	$(RUN) "['configs/train.json','configs/demo.yaml','configs/evaluate.json']"
	$(RUN) "['configs/inference.json','configs/demo.yaml','configs/demo_inference.yaml']"
	@echo
	@cat demo/table.md
	@echo
	@echo "Look at demo/heatmap.png, demo/contact_sheet.png and demo/segmentations/."

federation: $(VENV)/.fl  ## four made-up sites with different modalities, in NVFlare's simulator
	OMP_NUM_THREADS=1 $(BIN)/python -m federation.simulate --output_dir federation_demo

jobs: $(VENV)/.fl  ## write the submit-ready job folders, which a test compares
	$(BIN)/python jobs/define.py

test: $(VENV)/.dev  ## everything but the longest proofs, slow tests included
	@echo "Lint, and all tests but the longest: about 15 minutes on two free cores."
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(TWO_WORKERS) -m "not long"

test-long: $(VENV)/.dev  ## the longest proofs alone
	@echo "The longest proofs: about 6 minutes on two free cores."
	$(TWO_WORKERS) -m long

check: $(VENV)/.dev  ## format, lint and the quick tests: before each commit
	@echo "Format, lint and the quick tests: about 90 seconds on two free cores."
	$(BIN)/ruff format .
	$(BIN)/ruff check .
	$(TWO_WORKERS) -m "not slow and not long" --ignore tests/slow

label: $(VENV)/.label  ## serve the trained weights with MONAI Label, on this machine only, with made-up scans
	$(BIN)/python -m bundle label runs/label

metadata:  ## write the root copy of the metadata, which a test compares
	cp configs/metadata.json metadata.json

package: $(VENV)/.core  ## one zip with weights inside (models/model.pt, else the demo's), in runs/
	$(BIN)/python -m bundle package runs

clean:  ## remove what the demonstrations wrote; the environment stays
	rm -rf demo federation_demo
