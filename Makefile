# Each target does its own set-up; a second set-up takes no time. Arguments: make run ARGS="--port-base 9200"

.PHONY: run page test bench setup lint lint-style lint-types lint-c lint-generated clean model fuzz asan coverage lock

VENV := .venv/bin
ARGS ?=

run:  ## start a complete exchange in ./data, with bots that trade play money
	@scripts/run $(ARGS)

test: setup  ## run the whole suite
	@$(VENV)/python -m pytest -n auto --maxprocesses 4 --dist loadscope --no-loadscope-reorder $(ARGS)

page: setup  ## the trading page, webapp/ui/dist
	@scripts/build-page

setup:  ## system packages, .venv, C extension
	@scripts/setup

lint: lint-style lint-types lint-c lint-generated  ## everything that is checked without running it

lint-style: setup
	$(VENV)/ruff check .

lint-types: setup
	$(VENV)/mypy

lint-c: setup
	$(or $(CC),cc) -std=c11 -Wall -Wextra -Wconversion -Wshadow -Wno-unused-parameter -Werror -fsyntax-only -Icsrc -Iperf/csrc $(wildcard csrc/*.c perf/csrc/*.c)

lint-generated: setup
	$(VENV)/python protocol/generate.py --check

bench: setup  ## measure everything that has a budget, in under five minutes; ARGS="--long" takes longer
	@$(VENV)/python -m perf bench $(ARGS)

model: setup  ## drive both engines with generated commands, for as long as ARGS says
	@$(VENV)/python -m tests.model $(ARGS)

fuzz:  ## feed the engine with what a coverage-guided fuzzer makes up; ARGS is how many seconds
	@scripts/fuzz $(ARGS)

asan: setup  ## the tests with the C engine under sanitizers
	@scripts/asan $(ARGS)

coverage: setup  ## branch coverage of csrc/
	@scripts/coverage $(ARGS)

lock: setup  ## write requirements.lock anew from requirements.in
	@scripts/lock $(ARGS)

clean:  ## remove everything that was built; ./data stays
	rm -rf .venv build dist *.egg-info webapp/ui/dist webapp/ui/node_modules webapp/ui/.node webapp/ui/build.log .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find csrc gateway perf protocol tests zexchange -name __pycache__ -type d -prune -exec rm -rf {} +
	find zexchange -name '*.so' -type f -delete
