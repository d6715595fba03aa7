# actmine: `make help` lists the targets. Every target is also `actmine COMMAND --flag`, and every flag a word: --topk 5 is TOPK=5.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
COMMAND = ACTMINE_BY_MAKE='$(SAID)' $(BIN)/python -m actmine $@ $(ARGS)

EXTRA ?=
ARGS ?=
# every other word that is said behind make is an option of the command, and make hands its value on by the environment
SAID = $(strip $(foreach word,$(filter-out PYTHON VENV EXTRA ARGS SHELL MAKEFLAGS,$(.VARIABLES)),$(if $(filter command,$(origin $(word))),$(word))))

# what is asked for may need extras of pyproject.toml: they are installed when first asked for
PLACES := $(DATASET) $(SOURCE) $(RUN) $(OTHER) $(OUT) $(TO)
NEEDS := $(if $(findstring s3://,$(PLACES)),s3) $(if $(findstring http://,$(PLACES))$(findstring https://,$(PLACES)),http) \
  $(if $(filter ray,$(ENGINE)),ray) $(if $(filter timm/%,$(MODEL)),timm) $(if $(filter hf/%,$(MODEL))$(findstring hf://,$(PLACES)),hf) \
  $(if $(filter open_clip/%,$(MODEL)),open-clip) $(if $(findstring gs://,$(PLACES)),gcs) $(if $(findstring az://,$(PLACES)),azure) $(if $(filter pdf svg,$(FORMAT)),paper) \
  $(if $(filter mean-image,$(PRESET))$(filter 1,$(FACETS))$(filter --facets,$(ARGS)),facets) \
  $(if $(filter 1,$(UNIT_MAP))$(filter --unit-map,$(ARGS)),map) $(if $(filter %.pdf %.svg,$(OUT)),paper) \
  $(if $(filter faiss,$(SEARCH))$(filter faiss --search=faiss,$(ARGS)),index)
NEEDED := $(READY) $(patsubst %,$(VENV)/.with-%,$(NEEDS))
INSTALL := PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --config-settings editable_mode=compat --editable

.DEFAULT_GOAL := help
.PHONY: help setup mine visualize views focus check score facets map dictionary activation-atlas compare layers inspect sheets atlas notes atlas-export publish shards demo-model test test-slow docs library lint format bench bench-gpu test-gpu clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo; echo "  Say words like DATASET=imagenet-val MODEL=resnet50 LAYERS='layer4.*' RUN=runs/mine: any option of a command, as 'make mine HELP=1' lists them."

setup: $(READY) $(patsubst %,$(VENV)/.with-%,$(EXTRA)) ## create .venv and install (pinned, tested versions), with EXTRA=… of pyproject.toml

$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "actmine needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Installing into $(VENV) (a few minutes, once) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip setuptools
	@$(INSTALL) '.[atlas]'
	@touch $(READY)

$(VENV)/.with-%: $(READY)
	@echo "Installing what '$*' needs into $(VENV) (once) …"
	@$(INSTALL) '.[$*]'
	@touch $@

mine: $(NEEDED) ## mine DATASET with MODEL: tables, visualizations, sheets (the embedded demo if nothing is said)
	@$(COMMAND)

visualize: $(NEEDED) ## draw units of RUN by PRESET: LAYERS=… UNITS=3,7,10-20; other units and presets stay
	@$(COMMAND)

focus: $(NEEDED) ## measure which part of its field matters to each exemplar of RUN: LAYERS=… UNITS=3,7,10-20
	@$(COMMAND)

check: $(NEEDED) ## show the network the crops of exemplars of RUN, each alone: LAYERS=… UNITS=…
	@$(COMMAND)

views: $(NEEDED) ## project exemplars of RUN back to pixels by METHOD (deconvnet or guided): LAYERS=…
	@$(COMMAND)

compare: $(NEEDED) ## find for each unit of RUN the units of OTHER, another network's run, that mean the same: LAYERS=…
	@$(COMMAND)

score: $(NEEDED) ## score how well units of RUN can be understood, by SIMILARITY: LAYERS=… UNITS=… (mined with BANDS=5)
	@$(COMMAND)

facets: $(NEEDED) $(VENV)/.with-facets ## sort exemplars of RUN into the facets of their units: LAYERS=… UNITS=…
	@$(COMMAND)

map: $(NEEDED) $(VENV)/.with-map ## lay out all units of RUN so that those alike lie together: LAYERS=… BY=images OUT=map.pdf
	@$(COMMAND)

inspect: $(NEEDED) ## what the layers of MODEL (or RUN's network) make of IMAGE, or of IMAGE and OTHER
	@$(COMMAND)

dictionary: $(NEEDED) ## train a sparse dictionary on LAYER of RUN: LATENTS=… K=16; its latents are units for mine
	@$(COMMAND)

activation-atlas: $(NEEDED) $(VENV)/.with-map ## map what LAYER of RUN sees: one position of each image laid out, each cell drawn (GRIDS=10,20,40)
	@$(COMMAND)

layers: $(NEEDED) ## list the layers of MODEL, their units, map sizes and receptive fields
	@$(COMMAND)

sheets: $(NEEDED) ## contact sheets of RUN: LAYERS=… UNITS=3,7,10-20 FORMAT=png, pdf or svg
	@$(COMMAND)

atlas: $(NEEDED) ## browse RUN on this machine: PORT=…, HOST=0.0.0.0 for others too, ALLOW_HOST=names that a proxy gives it, ALLOW_ORIGIN=sites whose pages may read it, ALLOW_UPLOAD=1 for pictures of your own
	@$(COMMAND)

notes: $(NEEDED) ## show what is noted of RUN in the atlas: TO=notes.csv, TAKE=notes.jsonl of somebody else
	@$(COMMAND)

atlas-export: $(NEEDED) ## write the atlas of RUN as plain files into the folder OUT: LAYERS=…
	@$(COMMAND)

publish: $(NEEDED) ## publish RUN with a dataset card: TO=folder, s3://bucket/prefix or hf://datasets/OWNER/NAME, PLAN=1 only says what
	@$(COMMAND)

shards: $(NEEDED) ## write SOURCE as WebDataset shards into OUT (a folder or s3://bucket/folder)
	@$(COMMAND)

demo-model: $(READY) ## train the demo's network again (about 15 minutes on 2 cores)
	@$(COMMAND)

test: $(VENV)/.with-dev ## run the tests
	$(BIN)/python -m pytest -m 'not slow' -n 2 --dist loadfile $(ARGS)

test-slow: $(VENV)/.with-dev ## run the slow tests
	$(BIN)/python -m pytest -m slow $(ARGS)

docs: $(VENV)/.with-docs ## build the documents as a site into site/, or show them: ARGS=serve
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs $(or $(ARGS),build --strict --quiet)

library: $(VENV)/.with-dev ## write actmine/library.py, the functions of Python, of the options of commands
	$(BIN)/python -m actmine.options.as_functions

lint: $(VENV)/.with-dev ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.with-dev ## fix style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.with-dev $(VENV)/.with-bench ## measure: mining against the bare forward pass, from files, against its peers; memory; many units
	$(BIN)/python -m benchmarks.mining $(ARGS)
	$(BIN)/python -m benchmarks.end_to_end
	$(BIN)/python -m benchmarks.cost
	$(BIN)/python -m benchmarks.focus
	$(BIN)/python -m benchmarks.peers
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.scale
	$(BIN)/python -m benchmarks.atlas
	$(BIN)/python -m benchmarks.map
	$(BIN)/python -m benchmarks.parts
	$(BIN)/python -m benchmarks.units
	$(BIN)/python -m benchmarks.neighbors
	$(BIN)/python -m benchmarks.ascent
	$(BIN)/python -m benchmarks.drawing
	$(BIN)/python -m benchmarks.activation_atlas

test-gpu: ## the tests that need an NVIDIA GPU; needs no .venv (docs/gpu.md)
	PYTHONPATH=. $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m pytest -q tests/test_gpu.py tests/test_gpu_stages.py $(ARGS)

bench-gpu: ## measure on a GPU, in parts (ARGS='taps mining'); needs no .venv (docs/gpu.md)
	PYTHONPATH=. $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m benchmarks.gpu $(ARGS)

clean: ## remove caches (runs, data and .venv stay)
	rm -rf .pytest_cache .mypy_cache .ruff_cache build *.egg-info; find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
