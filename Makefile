# make demo   from nothing to a corpus, a trained toy and a spoken WAV
# make test   all checks, the short test files, and of the long ones the half that the seed draws; the end lists the others
# make test-all   all checks and all tests
# make result [RESULT=result] [MINUTES=90]   from raw recordings to sentences that were never heard (docs/result.md)
# make quick  lint and the test files that take a few seconds: for the edit loop
# make mutants [SEED=1] [MODULES="voxcpm/model/flow.py ..."]   small faults planted in copies of the tree: do the tests notice? (25 minutes on 2 cores)
# make gate MODEL=DIR [VOICES=DIR] [GATE=gate]   is speech as good as before? The first run makes the baseline, later runs are held
#             against it: 60 sentences in 30 languages, under 8 minutes on 2 cores with a small model
# make signing-venv    the package model-signing in an environment of its own: the tests hold our signatures against it
# make upstream-venv   the official package in an environment of its own, for comparisons (its import name is ours)
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
DEMO   ?= demo
RESULT ?= result
MINUTES ?= 90
TURN   ?= --turn

.PHONY: install demo result test test-all suite quick lint format mutants gate clean upstream-venv signing-venv lock

install: $(VENV)/.installed

# The stamp is made again whenever what is to be installed changes. torch comes first and by version only: its wheel differs by
# machine, and a range would pull several GB of CUDA packages onto a machine without a GPU. All other packages are checked by hash.
# pip compiles on one core; compileall takes all of them.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
$(VENV)/.installed: pyproject.toml constraints.txt requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "voxmill needs Python 3.11 or newer: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { test "$$(id -u)" = 0 && apt-get install -y -q python3-venv; } || { echo "Python's venv module is missing: apt-get install python3-venv"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -c constraints.txt torch
	$(PIP) --no-deps --require-hashes -r requirements.lock
	$(PIP) --no-deps --no-build-isolation -e .
	-@$(BIN)/python -m compileall -qq -j 0 -x '/tests/' $(VENV)/lib
	$(BIN)/voxmill doctor --fix --quiet
	@touch $@

demo: install
	$(BIN)/voxmill demo $(DEMO)

result: install
	$(BIN)/voxmill models pull small
	$(BIN)/python -m benchmarks.result run $(RESULT) --budget-minutes $(MINUTES)

# Lint and the suite at the same time: mypy uses one core for two minutes.
test: install
	@$(MAKE) --no-print-directory -j2 lint suite

test-all: install
	@$(MAKE) --no-print-directory -j2 lint suite TURN=

suite: install
	$(BIN)/voxmill models pull small
	-$(BIN)/voxmill models pull evaluation
	$(BIN)/python -m pytest -n 4 $(TURN)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

quick: lint
	$(BIN)/python -m pytest -n 3 -q --quick

SEED ?= 1
mutants: install
	OMP_NUM_THREADS=1 $(BIN)/python dev/mutants.py --seed $(SEED) $(if $(MODULES),--modules $(MODULES))

MODEL  ?= $(DEMO)/model/latest
VOICES ?=
GATE   ?= gate
gate: install
	@test -e $(MODEL)/config.json || { echo "no checkpoint at $(MODEL): make gate MODEL=DIR, or make demo first"; exit 1; }
	@rm -rf $(GATE)/now
	$(BIN)/voxmill evaluate run $(MODEL) --on panel$(if $(VOICES),:$(VOICES)) --recipe $(if $(VOICES),reference,plain) \
		--set retry=false --metrics quick --name now -o $(GATE)/now
	@test -e $(GATE)/baseline/run.json || { rm -rf $(GATE)/baseline; mv $(GATE)/now $(GATE)/baseline; echo "$(GATE)/baseline is now what later runs are held against"; }
	@test ! -e $(GATE)/now/run.json || $(BIN)/voxmill evaluate gate $(GATE)/now --baseline $(GATE)/baseline

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The versions that figures were measured against. torchaudio's libraries look for CUDA, which a CPU build of torch has not.
# Tests find it by VOXMILL_UPSTREAM_PYTHON, or at this place.
UPSTREAM := .upstream-venv
upstream-venv: $(UPSTREAM)/.installed
$(UPSTREAM)/.installed:
	test -x $(UPSTREAM)/bin/python || $(PYTHON) -m venv $(UPSTREAM)
	$(UPSTREAM)/bin/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(UPSTREAM)/bin/pip install --quiet --disable-pip-version-check --no-deps voxcpm==2.0.3 torchaudio==2.11.0
	$(UPSTREAM)/bin/python -c 'import sys, torch; sys.exit(torch.version.cuda is None)' || rm -f $(UPSTREAM)/lib/python3*/site-packages/torchaudio/lib/*.so
	$(UPSTREAM)/bin/pip install --quiet --disable-pip-version-check transformers einops pydantic librosa soundfile safetensors tqdm huggingface_hub 'datasets<4' argbind tensorboardX
	@touch $@

# pyOpenSSL: model-signing imports it, and no package brings it any more. Tests find it by VOXMILL_MODEL_SIGNING_PYTHON, or here.
SIGNING := .signing-venv
signing-venv: $(SIGNING)/.installed
$(SIGNING)/.installed:
	test -x $(SIGNING)/bin/python || $(PYTHON) -m venv $(SIGNING)
	$(SIGNING)/bin/pip install --quiet --disable-pip-version-check model-signing==1.1.1 pyOpenSSL
	@touch $@

# Write requirements.lock (versions and hashes) and constraints.txt (the same versions) after a change of the dependencies in
# pyproject.toml. What is pinned today stays pinned; `make lock UPGRADE=1` takes the newest releases.
LOCK := .lock-venv
lock:
	@test -x $(LOCK)/bin/uv || { $(PYTHON) -m venv $(LOCK) && $(LOCK)/bin/pip install --quiet --disable-pip-version-check uv==0.13.9; }
	$(LOCK)/bin/uv pip compile pyproject.toml --quiet --extra all --extra dev $(if $(UPGRADE),-c dev/lock-torch.txt --upgrade,-c constraints.txt) \
		--config-file dev/lock.toml --python-version 3.11 --python-platform linux --generate-hashes --no-emit-package torch \
		--no-annotate --no-header -o requirements.lock
	@{ sed -n '/^#/p' constraints.txt; { grep -oE '^[A-Za-z0-9._-]+==[^ ;]+' requirements.lock; cat dev/lock-torch.txt; } | LC_ALL=C sort -f; } > constraints.new && mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) $(UPSTREAM) $(SIGNING) $(LOCK) $(DEMO) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
