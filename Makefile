# Variables, as in make figures PROFILE=recorded ONLY="01 02":
#   PROFILE=quick       how much is measured: one of the profiles below
#   MODELS="name …"     names, folders, hub ids or .gguf files in place of the profile's
#   ONLY="01 02"        these notebooks only
#   LIMIT=n  STEPS=n    cut every count to n; heal for at most n steps
#   RANKS=few           of PROFILE=paper: ranks (figure 9) at three of eight depths
#   DTYPE=float32       of the weights
#   EXPORT=file.json    of figure-4: the map as a file that the explorer opens
#   TEXTS=file.jsonl    of figure-4: your own texts in place of C4 (.csv, .parquet:column, .txt)
#   ENGINE=ray          spread the jobs
#   CARD=t4             of plan: the card that it is for
#   OFFLINE=1           of fetch: only looks
#   TINY=1              of gpu: a small model to try it with
# Of row: MODEL, and PLAN=1 (CARD=t4) only says what it would take
# Of prune: MODEL, OUT, LAYERS=6 or a budget:
#   GB=3  LOSS=+0.3  SPEED=1.3   at most GB of weights, nats more; at least times the speed
#   SIZES=table         only measures all sizes: block, GB, speed and loss of each
# and if you like
#   START=22            the first layer to drop; or what chooses it:
#   BY=similarity       or loss; or map: the loss after REPAIR=map
#   REPAIR=map  HEAL=n  repairs of the cut; HEAL: on n times 1,024 tokens, or STEPS=n, with
#                       LR, RANK, BATCH (sequences a step), SEQUENCE (their tokens, to 4,096), SEED
#   TEACHER=1           the healing learns what the whole model predicts, not the text alone
#   NF4=1               heal on packed weights, as on a small card
#   TASKS="arc_easy"    what is asked besides the loss, in place of 100 MMLU questions; lm_eval:winogrande is a task of
#                       lm-eval, lm_eval:my/task.yaml a file of one (pip install 'lm-eval[hf]')
#   TEXTS=file.jsonl    texts of your own, or chats in a column `messages`; SOURCE=hub
#   PLAN=1              only says what it would take (CARD=t4)
# Of the installation, when .venv is made:
#   PYTHON=python3      the one that .venv is made with
#   CONSTRAINTS=file    constraints.txt installs the exact versions of the recorded run
#   WHEELS=wheels       from that folder alone, which `pip download -d wheels '.[dev]' hatchling editables` fills where there is a network
#   TORCH=cpu           PyTorch's build: cpu (.venv: 2.2 GB), cu126 or another CUDA's, auto (of your driver), or pip (what
#                       pip takes, on Linux with CUDA: 6.7 GB). Default: cpu on a Linux machine without an NVIDIA driver,
#                       where nothing is said of sources and cards (PROFILE=a100, paper); else pip
#   TORCH_INDEX=address PyTorch from that index
#   SYSTEM=1            uses the packages that PYTHON has, and adds what is missing

PYTHON ?= python3
PROFILE ?= quick
GIVEN := $(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name)))# when make was called
$(foreach switch,OFFLINE PLAN SYSTEM TINY,$(if $(filter 0,$($(switch))),$(eval override $(switch) :=)))
# an active conda environment that has the packages is used; else .venv is made
CONDA := $(if $(CONDA_PREFIX),$(wildcard $(CONDA_PREFIX)/bin/papermill))
BIN := $(if $(CONDA),$(CONDA_PREFIX)/bin,.venv/bin)
INSTALLED := $(if $(CONDA),,.venv/installed$(if $(filter ray,$(ENGINE)),-all))
INSTALLED_ALL := $(if $(CONDA),,.venv/installed-all)
# what PyTorch's build is for; `make gpu` and these two profiles prepare for a card, maybe on a machine without one
BUILD := $(or $(TORCH),$(if $(TORCH_INDEX)$(WHEELS)$(SYSTEM)$(filter gpu,$(MAKECMDGOALS))$(filter a100 paper paper-few-ranks,$(PROFILE)),pip,default))
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	$(if $(WHEELS),--no-index --find-links $(WHEELS)) $(if $(CONSTRAINTS),-c $(CONSTRAINTS))
OF_RUN := --profile $(PROFILE)$(if $(RANKS),-$(RANKS)-ranks) $(if $(MODELS),--models $(MODELS)) $(if $(TEXTS),--texts "$(TEXTS)")
RUN := $(BIN)/python -m replication $(OF_RUN) $(if $(ONLY),--only $(ONLY)) $(if $(LIMIT),--limit $(LIMIT)) \
	$(if $(STEPS),--steps $(STEPS)) $(if $(DTYPE),--dtype $(DTYPE)) $(if $(ENGINE),--engine $(ENGINE))
OPTIONS := LAYERS GB LOSS SPEED SIZES START BY REPAIR HEAL STEPS TEACHER LR RANK BATCH SEQUENCE SEED NF4 TASKS TEXTS SOURCE LIMIT
PRUNE := $(BIN)/python -m lib $(if $(PLAN),plan $(if $(CARD),--card $(CARD)),prune) "$(MODEL)" "$(OUT)" \
	$(foreach name,$(OPTIONS),$(if $($(name)),--$(shell echo $(name) | tr A-Z a-z) "$($(name))"))
LINKED := CONTRIBUTING.md LOG.md PREREGISTERED.md REPORT.md data figures lib replication# what notebooks link to
LINT := $(BIN)/ruff check . && $(BIN)/ruff format --check .
# a worker takes whole files; no worker's threads are in the other's way
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

TARGETS := help figures fetch plan report record lab explorer questions row prune test test-all nightly gpu clean clean-all
.PHONY: $(TARGETS)
.DEFAULT_GOAL := help

# ---- which variables a target takes: a mistyped one, or another target's, would change nothing ----
GOALS := $(or $(MAKECMDGOALS),help)
RUN_VARIABLES := PROFILE MODELS ONLY LIMIT STEPS RANKS DTYPE TEXTS ENGINE
VARIABLES.figures := $(RUN_VARIABLES)
VARIABLES.figure := $(filter-out ONLY,$(RUN_VARIABLES)) EXPORT# of figure-4, say
VARIABLES.fetch := $(RUN_VARIABLES) OFFLINE
VARIABLES.plan := $(RUN_VARIABLES) CARD
VARIABLES.report := PROFILE MODELS RANKS TEXTS
VARIABLES.row := MODEL DTYPE LIMIT PLAN $(if $(PLAN),CARD)
VARIABLES.prune := MODEL OUT PLAN $(if $(PLAN),CARD) $(OPTIONS)
VARIABLES.gpu := TINY
INSTALLATION := PYTHON TORCH TORCH_INDEX CONSTRAINTS WHEELS SYSTEM
ENVIRONMENT := DEEPER_LAYERS_% HF_% CUDA_% OMP_% PIP_% PYTORCH_% RAY_% UV_%# make hands them on
KNOWN := $(strip $(foreach goal,$(GOALS),$(VARIABLES.$(if $(filter figure-%,$(goal)),figure,$(goal)))) \
	$(if $(filter-out help clean clean-all,$(GOALS)),$(INSTALLATION)))
UNKNOWN := $(filter-out $(KNOWN) $(ENVIRONMENT),$(GIVEN))
ALIKE := $(sort $(foreach name,$(UNKNOWN),$(filter $(name)%,$(KNOWN)) $(foreach known,$(KNOWN),$(if $(filter $(known)%,$(name)),$(known)))))
$(if $(filter-out $(TARGETS) figure-% .venv/%,$(GOALS)),$(error `make $(GOALS)`: there is no such target, `make help` lists them))
$(if $(UNKNOWN),$(error `make $(GOALS)` has no variable $(UNKNOWN)$(if $(ALIKE), (did you mean $(ALIKE)?)); it has $(or $(KNOWN),none)))
ifneq ($(filter prune row,$(GOALS)),)
$(if $(MODEL),,$(error MODEL is missing: give a hub id (owner/name), a folder, a .gguf file or a name))
endif
ifneq ($(filter prune,$(GOALS)),)
$(if $(OUT)$(PLAN),,$(error OUT is missing: give the folder of the smaller checkpoint))
endif

help:  ## this list
	@grep -hE '^[a-z%-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([^:]+):.*## /\1\t/' \
		| awk -F '\t' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo; sed -n -e '/^#/!q' -e 's/^# \{0,1\}//p' $(firstword $(MAKEFILE_LIST))
	@echo; echo "Profiles, and how long all notebooks of each take:"
	@sed -E -e 1d -e 's/^([^,]*),("([^"]*)"|([^,]*)),.*/\1\t\3\4/' replication/profiles/times.csv \
		| awk -F '\t' '{printf "  %-19s %s\n", $$1, $$2}'

.venv/installed: pyproject.toml
	@echo "Installing into .venv, in 3 to 5 minutes with a good connection."
	$(PYTHON) -m venv $(if $(SYSTEM),--system-site-packages) .venv
	@sh scripts/torch.sh .venv/bin/python $(BUILD) $(if $(CONSTRAINTS),-c $(CONSTRAINTS))
	$(if $(TORCH_INDEX),$(PIP) $(if $(CONSTRAINTS),--extra-index-url,--index-url) $(TORCH_INDEX) torch)
	$(PIP) -e '.[dev]'
	@touch $@

.venv/installed-all: .venv/installed
	$(PIP) -e '.[dev,parity,cluster]'
	@touch $@

figures: $(INSTALLED)  ## every notebook, headless, into figures/<profile>/
	$(RUN)

figure-%: $(INSTALLED)  ## what one figure needs, as in make figure-4 or make figure-1c
	$(RUN) --figure $*
	$(if $(EXPORT),$(BIN)/python -m replication.show.explorer $(OF_RUN) --export "$(EXPORT)")

fetch: $(INSTALLED)  ## before paid hours: download and check all that a run needs, without a GPU (OFFLINE=1 only looks)
	$(if $(OFFLINE),HF_HUB_OFFLINE=1 PIP_NO_INDEX=1) $(RUN) --fetch

plan: $(INSTALLED)  ## what a run would take, and how it fits (PROFILE=paper, CARD=a100-40)
	$(RUN) --plan $(if $(CARD),--card $(CARD))

report: $(INSTALLED)  ## figures, notebooks and numbers as web pages: papermill_runs/report/<profile>/index.html
	$(BIN)/python -m replication.show.site $(OF_RUN)

record: $(INSTALLED)  ## measure `overnight` and export it to data/recorded/ and figures/overnight/ (resumes)
	$(BIN)/python -m scripts.record

lab: $(INSTALLED)  ## open copies of the notebooks and exercises in JupyterLab: lab/, which git ignores
	@mkdir -p lab/notebooks lab/exercises
	@for file in notebooks/*.* exercises/*.*; do test -e lab/$$file || cp $$file lab/$$file; done
	@for name in $(LINKED); do test -L lab/$$name || ln -s ../$$name lab/$$name; done
	@echo "Your copies are in lab/: what is there stays as you left it. Delete a file to get it anew."
	$(BIN)/jupyter lab --ip=127.0.0.1 --LabApp.default_url=/lab/tree/lab/notebooks

explorer: $(INSTALLED)  ## every distance map at hand, in your browser: figures/explorer.html, one file
	$(BIN)/python -m replication.show.explorer

questions: $(INSTALLED)  ## what a cut model answers, and a slider that brings hidden answers back: figures/questions.html (fetches 86 MB of questions once)
	$(BIN)/python -m replication.show.questions

row: $(INSTALLED)  ## what a model answers by letter and by content, as a row to send in (MODEL=owner/name; resumes)
	$(BIN)/python -m replication.row "$(MODEL)" $(if $(DTYPE),--dtype $(DTYPE)) $(if $(LIMIT),--limit $(LIMIT)) \
		$(if $(PLAN),--plan $(if $(CARD),--card $(CARD)))

prune: $(INSTALLED)  ## a smaller checkpoint, healed and with a card (MODEL=owner/name LAYERS=6 OUT=folder HEAL=20)
	$(PRUNE)

test: $(INSTALLED)  ## ruff, and the tests on tiny models, every notebook included (4 to 11 minutes)
	$(LINT)
	$(TEST) -m "not real"

test-all: $(INSTALLED_ALL)  ## these, and those on the embedded model and against lm-eval
	$(LINT)
	$(TEST) -m "not real"
	$(TEST) -m real --ignore=tests/test_cluster.py
	$(BIN)/python -m pytest -q -m real tests/test_cluster.py

LOWEST := .venv/lowest/bin
nightly: $(INSTALLED)  ## the tests with the lowest versions that pyproject.toml allows (20 minutes; 6.5 GB below .venv), then every family of decoders (lib/models/families.csv, 10 minutes)
	$(PIP) uv
	$(BIN)/python -m uv venv --quiet --clear --seed --python $(BIN)/python .venv/lowest
	$(BIN)/python -m uv pip install --quiet --python $(LOWEST)/python --resolution lowest-direct -e '.[dev]'
	$(subst $(BIN),$(LOWEST),$(TEST)) -m "not real"
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m scripts.families

gpu: $(INSTALLED)  ## the first thing to run on a GPU: all of it, measured next to the plan (10 minutes)
	HF_HUB_OFFLINE=1 TQDM_DISABLE=1 $(BIN)/python -m benchmarks.gpu $(if $(TINY),--tiny)

SMALL := smoke quick recorded# their runs, also of other models: quick-name
clean:  ## delete tables, figures and executed notebooks of smoke, quick and recorded; results and downloads stay
	rm -rf $(foreach place,data/tables figures papermill_runs papermill_runs/report,$(foreach run,$(SMALL),$(place)/$(run) $(place)/$(run)-*))

COMMITTED := figures/overnight/ papermill_runs/executed/
MADE = $(filter-out $(COMMITTED),$(wildcard data/results/ data/tables/ papermill_runs/*/ figures/*/))
clean-all:  ## delete what every profile has measured and made, also nights and rented cards; the record and downloads stay
	@echo "Deletes for ever: $(or $(MADE),nothing)"
	rm -rf $(MADE)
