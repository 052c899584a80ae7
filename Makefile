# Variables, as in make figures PROFILE=recorded ONLY="01 02":
#   PROFILE=quick       recorded (draws the recorded run), smoke, quick, overnight, a100, paper
#   MODELS="name …"     names, folders, hub ids or .gguf files in place of the profile's
#   ONLY="01 02"        these notebooks only
#   LIMIT=n  STEPS=n    cut every count to n; heal for at most n steps
#   DTYPE=float32       of the weights
#   EXPORT=file.json    of figure-4: the map as a file that the explorer opens
#   TEXTS=file.jsonl    of figure-4: your own texts in place of C4 (.csv, .parquet:column, .txt)
#   ENGINE=ray          spread the jobs (CARD=t4: the card of a plan)
#   OFFLINE=1           of fetch: only looks
#   TINY=1              of gpu: a small model to try it with
# Of prune: MODEL, OUT, LAYERS=6, and if you like
#   START=22            the first layer to drop; or what chooses it:
#   BY=similarity       or loss; or map: the loss after REPAIR=map
#   REPAIR=map  HEAL=n  repairs of the cut; HEAL: on n times 1,024 tokens, with LR, SEED
#   NF4=1               heal on packed weights, as on a small card
#   TASKS="arc_easy"    what is asked besides the loss, in place of 100 MMLU questions
#   TEXTS=file.jsonl    texts of your own, or file.parquet:column; SOURCE=hub
#   PLAN=1              only says what it would take (CARD=t4)
# Of the installation, when .venv is made:
#   PYTHON=python3      the one that .venv is made with
#   CONSTRAINTS=file    constraints.txt installs the exact versions of the recorded run
#   WHEELS=wheels       from that folder alone, which `pip download -d wheels '.[dev]' 'setuptools>=77'` fills where there is a network
#   TORCH_INDEX=address PyTorch from that index: its build for an older CUDA, say
#   SYSTEM=1            uses the packages that PYTHON has, and adds what is missing

PYTHON ?= python3
PROFILE ?= quick
# an active conda environment that has the packages is used; else .venv is made
CONDA := $(if $(CONDA_PREFIX),$(wildcard $(CONDA_PREFIX)/bin/papermill))
BIN := $(if $(CONDA),$(CONDA_PREFIX)/bin,.venv/bin)
INSTALLED := $(if $(CONDA),,.venv/installed$(if $(filter ray,$(ENGINE)),-all))
INSTALLED_ALL := $(if $(CONDA),,.venv/installed-all)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	$(if $(WHEELS),--no-index --find-links $(WHEELS)) $(if $(CONSTRAINTS),-c $(CONSTRAINTS))
RUN := $(BIN)/python -m replication --profile $(PROFILE) \
	$(if $(ONLY),--only $(ONLY)) $(if $(MODELS),--models $(MODELS)) $(if $(LIMIT),--limit $(LIMIT)) $(if $(STEPS),--steps $(STEPS)) \
	$(if $(DTYPE),--dtype $(DTYPE)) $(if $(TEXTS),--texts "$(TEXTS)") $(if $(ENGINE),--engine $(ENGINE))
OPTIONS := LAYERS START BY REPAIR HEAL LR SEED NF4 TASKS TEXTS SOURCE LIMIT
PRUNE := $(BIN)/python -m $(if $(PLAN),replication.plan $(if $(CARD),--card $(CARD)),lib.prune) "$(MODEL)" "$(OUT)" \
	$(foreach name,$(OPTIONS),$(if $($(name)),--$(shell echo $(name) | tr A-Z a-z) "$($(name))"))
ifneq ($(filter prune,$(MAKECMDGOALS)),)# a name that is mistyped would change nothing
GIVEN := $(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name)))
UNKNOWN := $(filter-out MODEL OUT PLAN CARD $(OPTIONS) PYTHON CONSTRAINTS WHEELS TORCH_INDEX SYSTEM,$(GIVEN))
$(if $(UNKNOWN),$(error `make prune` has no variable $(UNKNOWN); it has MODEL OUT PLAN CARD $(OPTIONS)))
$(if $(MODEL),,$(error MODEL is missing: give a hub id (owner/name), a folder, a .gguf file or a name))
$(if $(OUT)$(PLAN),,$(error OUT is missing: give the folder of the smaller checkpoint))
endif
LINKED := CONTRIBUTING.md LOG.md PREREGISTERED.md data figures lib replication# what notebooks link to
LINT := $(BIN)/ruff check . && $(BIN)/ruff format --check .
# a worker takes whole files; no worker's threads are in the other's way
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: help figures figure-% fetch plan report record lab explorer prune test test-all gpu clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z%-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([^:]+):.*## /\1\t/' \
		| awk -F '\t' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo; sed -n -e '/^#/!q' -e 's/^# \{0,1\}//p' $(firstword $(MAKEFILE_LIST))

.venv/installed: pyproject.toml
	@echo "Installing into .venv: 2.2 GB, 3 to 5 minutes with a good connection."
	$(PYTHON) -m venv $(if $(SYSTEM),--system-site-packages) .venv
	$(if $(TORCH_INDEX),$(PIP) $(if $(CONSTRAINTS),--extra-index-url,--index-url) $(TORCH_INDEX) torch)
	$(PIP) -e '.[dev]'
	@touch $@

.venv/installed-all: .venv/installed
	$(PIP) -e '.[dev,parity,cluster]'
	@touch $@

figures: $(INSTALLED)  ## every notebook, headless, into figures/<profile>/ (PROFILE=recorded, quick, overnight, a100, paper)
	$(RUN)

figure-%: $(INSTALLED)  ## what one figure needs, as in make figure-4 or make figure-1c
	$(RUN) --figure $*
	$(if $(EXPORT),$(BIN)/python -m replication.show.explorer --profile $(PROFILE) $(if $(MODELS),--models $(MODELS)) $(if $(TEXTS),--texts "$(TEXTS)") --export "$(EXPORT)")

fetch: $(INSTALLED)  ## before paid hours: download and check all that a run needs, without a GPU (OFFLINE=1 only looks)
	$(if $(OFFLINE),HF_HUB_OFFLINE=1 PIP_NO_INDEX=1) $(RUN) --fetch

plan: $(INSTALLED)  ## what a run would take, and how it fits (PROFILE=paper, CARD=a100-40)
	$(RUN) --plan $(if $(CARD),--card $(CARD))

report: $(INSTALLED)  ## figures, notebooks and numbers as web pages: papermill_runs/report/<profile>/index.html
	$(BIN)/python -m replication.show.site --profile $(PROFILE)

record: $(INSTALLED)  ## measure `overnight` and export it to data/recorded/ and figures/overnight/ (13 hours by the plan; resumes)
	$(BIN)/python -m scripts.record

lab: $(INSTALLED)  ## open copies of the notebooks and exercises in JupyterLab: lab/, which git ignores
	@mkdir -p lab/notebooks lab/exercises
	@for file in notebooks/*.* exercises/*.*; do test -e lab/$$file || cp $$file lab/$$file; done
	@for name in $(LINKED); do test -L lab/$$name || ln -s ../$$name lab/$$name; done
	@echo "Your copies are in lab/: what is there stays as you left it. Delete a file to get it anew."
	$(BIN)/jupyter lab --ip=127.0.0.1 --LabApp.default_url=/lab/tree/lab/notebooks

explorer: $(INSTALLED)  ## every distance map at hand, in your browser: figures/explorer.html, one file
	$(BIN)/python -m replication.show.explorer

prune: $(INSTALLED)  ## a smaller checkpoint, healed and with a card (MODEL=owner/name LAYERS=6 OUT=folder HEAL=20)
	$(PRUNE)

test: $(INSTALLED)  ## ruff, and the tests on tiny models, every notebook included (minutes)
	$(LINT)
	$(TEST) -m "not real"

test-all: $(INSTALLED_ALL)  ## these, and those on the embedded model and against lm-eval
	$(LINT)
	$(TEST) -m "not real"
	$(TEST) -m real --ignore=tests/test_cluster.py
	$(BIN)/python -m pytest -q -m real tests/test_cluster.py

gpu: $(INSTALLED)  ## the first thing to run on a GPU: all of it, measured next to the plan (10 minutes)
	HF_HUB_OFFLINE=1 TQDM_DISABLE=1 $(BIN)/python -m benchmarks.gpu $(if $(TINY),--tiny)

clean:  ## delete results, tables, figures and executed notebooks of smoke, quick and recorded; keep downloads
	rm -rf data/results data/tables papermill_runs/*/ figures/smoke* figures/quick* figures/recorded*
