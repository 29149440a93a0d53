# What a developer types. `make run` needs nothing but python3 with venv; the first run installs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input --quiet
ROUNDS ?= 20
ADDRESS ?= 127.0.0.1:9527

.DEFAULT_GOAL := help
.PHONY: help run test style types check crash powercut killpoints faults fulldisk damage drill migrations bench settings deb lock clean

help:  ## Say what there is to make
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

run: $(VENV)/.run  ## Run the server on 127.0.0.1:9527, with its data in ./data
	@printf '%s\n' \
	  'To try it from another terminal: nc 127.0.0.1 9527, then these lines, one by one:' \
	  '  {"cmd":"ping"}' \
	  '  {"cmd":"register","phone":"13800138000","password":"secret66"}' \
	  '  {"status":1,"pushId":"","message":"start"}' \
	  'Or in one go:' \
	  "  printf '%s\\n' '{\"cmd\":\"ping\"}' | nc -N 127.0.0.1 9527" \
	  ''
	@exec $(BIN)/pushd --listen $(ADDRESS) --data ./data

test: $(VENV)/.dev  ## Run the tests, about 8 minutes
	$(BIN)/python -m pytest -n 2

style: $(VENV)/.dev  ## Format the code and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(VENV)/.dev  ## Check the types
	$(BIN)/mypy --strict pushd

check: $(VENV)/.dev  ## What must hold before a commit: format, lint, types, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict pushd
	$(BIN)/python -m pytest -n 2

crash: $(VENV)/.dev  ## Kill the server ROUNDS times under load and count what is lost
	$(BIN)/python -m tests.disk.crash --rounds $(ROUNDS)

powercut: $(VENV)/.dev  ## Cut the power at 5,000 instants of 20 runs, needs strace, about 20 minutes
	$(BIN)/python -m tests.disk.powercut

killpoints: $(VENV)/.dev  ## Kill the server at each write and sync of a script, needs strace
	$(BIN)/python -m tests.disk.killpoints

faults: $(VENV)/.dev  ## Let each write, sync and opening of a file fail; needs strace
	$(BIN)/python -m tests.disk.errors

fulldisk: $(VENV)/.dev  ## Fill a disk 20 times, needs the right to mount
	$(BIN)/python -m tests.disk.fulldisk

damage: $(VENV)/.dev  ## Damage a stopped store in 200 ways and count what is told
	$(BIN)/python -m tests.disk.damage

drill: $(VENV)/.dev  ## Back up a server at work and restore it, 50 times
	$(BIN)/python -m tests.disk.drill

migrations: $(VENV)/.dev  ## Break off each migration at each of its writes; needs strace
	$(BIN)/python -m tests.disk.migrations

deb:  ## Build a Debian package in build/, for Debian's own Python
	packaging/build-deb /usr/bin/python3

bench: $(VENV)/.dev  ## Measure, and print a table
	$(BIN)/python -m bench

settings: $(VENV)/.run  ## Write packaging/pushd.toml anew, after a change of the settings
	$(BIN)/pushctl config --default > packaging/pushd.toml

lock:  ## Resolve the newest versions anew into requirements.lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip --disable-pip-version-check --quiet install pip-tools
	{ head -n 1 requirements.lock; \
	  build/lock/bin/pip-compile --quiet --upgrade --extra dev --build-deps-for editable \
	    --generate-hashes --allow-unsafe --strip-extras --no-header --annotation-style line \
	    --no-emit-options --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
	    --output-file - pyproject.toml; } > build/requirements.lock
	mv build/requirements.lock requirements.lock

clean:  ## Remove what was installed and built, but no data
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .coverage

# Stamps: an installation is repeated only when what it depends on has changed.

$(VENV)/.pip:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.run: pyproject.toml | $(VENV)/.pip
	$(PIP) install -e .
	touch $@

# Exactly the locked versions, checked by their hashes; then pushd itself, which has none.
# The build tools come from the lock too, so nothing that is not in it is installed.
$(VENV)/.dev: pyproject.toml requirements.lock | $(VENV)/.pip
	$(PIP) install --require-hashes -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation -e .
	touch $(VENV)/.run $@
