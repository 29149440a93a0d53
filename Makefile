# What a developer types. `make run` needs nothing but python3 with venv; the first run installs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input --quiet
ROUNDS ?= 20
SEEDS ?= 500
# Tests wait for servers and disks half of their time: one worker more than there are cores. A
# worker begins with tests that stand together, for they share servers, and takes over others' last.
TESTS = $(BIN)/python -m pytest -n $$(($$(nproc) + 1)) --dist worksteal
# With COMPILED=1, `make bench` measures what `make compiled` builds.
COMPILED ?=
# What `make test-compiled` runs on it: all that starts servers and speaks the wire.
SUITE ?= tests/conformance
SECS ?= 120
HOURS ?= 1
STOPS ?= 200
EXAMPLES ?= 1000
MACHINES ?= 20
ADDRESS ?= 127.0.0.1:9527

.DEFAULT_GOAL := help
.PHONY: $(shell sed -n 's/^\([a-z-]*\):.*\#\# .*/\1/p' $(MAKEFILE_LIST))

help:  ## Say what there is to make
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

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

test: $(VENV)/.dev  ## Run the tests, about 4 minutes
	$(TESTS)

style: $(VENV)/.dev  ## Format the code and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(VENV)/.dev  ## Check the types
	$(BIN)/mypy --strict pushd

check: $(VENV)/.dev  ## What must hold before a commit: format, lint, types, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict pushd
	$(TESTS)

timing: $(VENV)/.dev  ## Measure whether the time of a login tells who is registered
	$(BIN)/python -m tests.security.timing

audit:  ## Look up known vulnerabilities of the locked versions; needs a database of them
	$(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip --disable-pip-version-check --quiet install pip-audit
	build/audit/bin/pip-audit --strict --disable-pip --require-hashes -r requirements.lock || { \
	  echo 'audit: something was found, or the database was not reached: see above' >&2; exit 1; }

crash: $(VENV)/.dev  ## Kill the server ROUNDS times under load and count what is lost
	$(BIN)/python -m tests.disk.crash --rounds $(ROUNDS)

soak: $(VENV)/.dev  ## Run a server for HOURS among phones that come and go; does it stay as it was
	$(BIN)/python -m tests.soak.soak --minutes $$(($(HOURS) * 60)) --controls

time: $(VENV)/.dev  ## Turn the clock under a running server (libfaketime)
	$(BIN)/python -m tests.soak.clock

stops: $(VENV)/.dev  ## Stop the server STOPS times under load, upgrade it, freeze it
	$(BIN)/python -m tests.soak.stops --stops $(STOPS)

sim: $(VENV)/.dev  ## Simulate the core under SEEDS seeds
	$(BIN)/python -m tests.sim --seeds $(SEEDS)

sim-bugs: $(VENV)/.dev  ## Put bugs into a copy of the code, and see that the simulation finds them
	$(BIN)/python -m tests.sim --bugs --seeds 1000

report: $(VENV)/.dev  ## Write docs/reliability.md anew, of what the long runs left
	$(BIN)/python -m tests.report

man: $(VENV)/.run  ## Write the manual pages into build/man
	$(BIN)/python packaging/manpages.py build/man

completions: $(VENV)/.run  ## Write the completion scripts of shells into build/completions
	$(BIN)/python packaging/completions.py build/completions

net: net-sessions net-library net-half-open net-slow net-floods net-descriptors net-cases  ## All that begins with net-, about 20 minutes

net-sessions: $(VENV)/.dev  ## Sessions through a network that fails
	$(BIN)/python -m tests.net.sessions --sessions 1000 --swallow 1000

net-library: $(VENV)/.dev  ## Our own client on such a network
	$(BIN)/python -m tests.net.library --rounds 100

net-half-open: $(VENV)/.dev  ## Clients that are gone without a word
	$(BIN)/python -m tests.net.half_open --clients 100 --cycles 1000

net-slow: $(VENV)/.dev  ## Clients that do not read, or hardly write
	$(BIN)/python -m tests.net.slow --clients 200

net-floods: $(VENV)/.dev  ## Floods of connects, restarts and logins
	$(BIN)/python -m tests.net.floods

net-descriptors: $(VENV)/.dev  ## A server without descriptors
	$(BIN)/python -m tests.net.descriptors

net-cases: $(VENV)/.dev  ## Breaks and retries at random points
	$(BIN)/python -m tests.net.cases --points 50

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

fuzz: $(VENV)/.dev  ## Send the server random lines for SECS seconds, guided by what they reach
	$(PIP) install "atheris>=3,<4"
	$(BIN)/python -m tests.fuzz.run --seconds $(SECS)

properties: $(VENV)/.dev  ## Try each property of the fuzzing tests with EXAMPLES examples
	$(BIN)/python -m tests.fuzz.examples --examples $(EXAMPLES)

heavy: $(VENV)/.dev  ## Find the line that holds the loop longest
	$(BIN)/python -m tests.fuzz.heavy

machines: $(VENV)/.dev  ## Run the state machine MACHINES times, 50 steps each
	$(BIN)/python -m tests.fuzz.wide --machines $(MACHINES) --steps 50

bugs: $(VENV)/.dev  ## Put bugs into copies of the server, and require that fuzzing finds them
	$(BIN)/python -m tests.fuzz.bugs --clean

compiled: build/compiled/.stamp  ## Build pushd with compiled modules into build/compiled

test-compiled: build/compiled/.stamp  ## Run SUITE, the conformance tests, on that
	$(ON_COMPILED) $(BIN)/python -c 'from pushd.build import compiled; assert compiled()'
	$(ON_COMPILED) $(TESTS) -o pythonpath= $(SUITE)

deb:  ## Build a Debian package in build/, for Debian's own Python
	packaging/build-deb /usr/bin/python3

bench: $(VENV)/.dev $(if $(COMPILED),build/compiled/.stamp)  ## Measure, and print a table
	$(BIN)/python -m bench $(if $(COMPILED),--build compiled)

peers: $(VENV)/.dev  ## Measure what a user would run instead, side by side (needs their packages)
	$(BIN)/python -m bench.peers

growth: $(VENV)/.dev  ## Measure what grows with the store: accounts, people online, messages
	$(BIN)/python -m bench.growth

pause: $(VENV)/.dev  ## Measure the pause that a backup of 1 GB makes, some minutes
	$(BIN)/python -m bench.pause

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

# The copy wins over the sources, also in whatever a program starts, by these: see python(1).
ON_COMPILED = PYTHONSAFEPATH=1 PYTHONPATH='$(CURDIR)/build/compiled:$(CURDIR)'

build/compiled/.stamp: $(shell find pushd packaging -type f ! -name '*.pyc') pyproject.toml | $(VENV)/.dev
	rm -rf build/compiled
	PUSHD_COMPILE=1 $(PIP) install --no-deps --no-build-isolation --target build/compiled .
	touch $@

# Exactly the locked versions, checked by their hashes; then pushd itself, which has none.
# The build tools come from the lock too, so nothing that is not in it is installed.
$(VENV)/.dev: pyproject.toml requirements.lock | $(VENV)/.pip
	$(PIP) install --require-hashes -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation -e .
	touch $(VENV)/.run $@
