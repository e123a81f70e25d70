# Every target does its own set-up: a virtual environment in .venv from the first Python found (3.11 or newer) and the
# pinned requirements. A second run finds a stamp and starts at once. Needs make and a Python, nothing else.

.PHONY: help demo test test-others test-elsewhere pairs crashes models lint types sync floors format drill bench bench-peers simulate chaos check lock \
	clean

help:      ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile

demo:      ## a workflow, killed in the middle, finishing
	@tools/setup.sh run
	@.venv/bin/perdure demo

test:      ## all tests, a part of the crash points; on the first Python found (make test T="tests/runtime -k replay": only those)
	@tools/test.sh $(T)

test-others:  ## the quick tests, on every other Python of the machine
	@tools/test.sh --others

test-elsewhere:  ## the tests on a Linux that is made poorer, as on macOS (make test-elsewhere T="tests/runtime")
	@tools/test.sh --elsewhere $(T)

pairs:     ## two crashes at every pair of writes of every canonical workflow of up to 8 steps: half an hour
	@tools/setup.sh test
	@PERDURE_TEST_CRASHES=pairs .venv/bin/python -m pytest -q -s tests/crash/test_every_pair.py

crashes:   ## all tests, with every crash point, every kind of session and every statement: an hour
	@PERDURE_TEST_CRASHES=all tools/test.sh

models:    ## the models of models/, checked with spin
	@tools/models.sh

lint:      ## format, ruff, floors, perdure.sync up to date, house checks
	@tools/setup.sh dev
	@status=0; \
	.venv/bin/ruff format --check --quiet . || { echo "format: run make format"; status=1; }; \
	.venv/bin/ruff check --quiet --output-format concise . || status=1; \
	.venv/bin/python tools/floors.py || status=1; \
	.venv/bin/python tools/async_to_sync.py --check || status=1; \
	.venv/bin/python -m pytest -q tests/house || status=1; \
	exit $$status

types:     ## mypy and pyright, strict: the package, the agreed face, the programs
	@tools/types.sh

sync:      ## produce perdure.sync from perdure.api
	@tools/setup.sh dev
	@.venv/bin/python tools/async_to_sync.py

floors:    ## who may import whom
	@tools/setup.sh dev
	@.venv/bin/python tools/floors.py

format:    ## ruff format and the fixes that are safe
	@tools/setup.sh dev
	@.venv/bin/ruff format --quiet .
	@.venv/bin/ruff check --quiet --fix .

drill:     ## a bad rollout and the way out of it, 2,000 workflows (make drill D=postgres, D=postgresql://…, W=10000)
	@tools/setup.sh test
	@drill='.venv/bin/python -m examples.bad_rollout.drill --workflows $(or $(W),2000)'; \
	case '$(D)' in \
	"") exec $$drill;; \
	postgres) exec .venv/bin/python -m tests.postgres -- sh -c "exec $$drill --database \$$PERDURE_TEST_POSTGRES";; \
	*) exec $$drill --database '$(D)';; \
	esac

bench:     ## the benchmarks beside the peers; results in bench/results (make bench B='--quick --only burst')
	@tools/setup.sh test
	@.venv/bin/python -m bench $(B)

bench-peers:  ## the peers that `make bench` compares with, each in an environment of its own
	@tools/setup.sh test
	@tools/peers.sh

simulate:  ## 2,000 seeds of the simulator; each point must be hit (make simulate S='--seed 42 --trace', S='--at-least 100')
	@tools/setup.sh test
	@.venv/bin/python -m perdure.testing.simulation $(S)

chaos:     ## everything fails, nothing may be lost: the long run (make chaos C='--workflows 3000 --seed 42')
	@tools/setup.sh test
	@.venv/bin/python -m chaos $(or $(C),--workflows 100000 --kills 1000 --pauses 500 --restarts 300 --cuts 2000 --heal 120)

check: lint types test test-others  ## all of the above that can fail

lock:      ## resolve requirements/*.lock anew from pyproject.toml (U=--upgrade for the newest)
	@tools/setup.sh dev || true
	@.venv/bin/python tools/lock.py $(U)

clean:     ## remove environments and caches
	@rm -rf .venv .venv-* .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist build
