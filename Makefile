# `make demo` and `make test` work on a fresh clone: both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test check format bench bench-quick coverage fuzz simulate clean

demo: $(STAMP)
	$(BIN)/ionn demo

# What many processes import is compiled once, also where the system's are told to leave no files.
test coverage: export PYTHONDONTWRITEBYTECODE =

# A file's tests share what they start, so they stay in one of three processes, which often wait for
# an edge. Those of few but long tests do not come last, as xdist would have them: one process would
# wait for the others. Several threads each would be in each other's way.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Every figure that the README claims. About two and a half hours, most of them the link's
# (benchmarks/link.py, which takes the kernel's link where it may: as root).
bench: $(STAMP)
	$(BIN)/python benchmarks/execute.py
	$(BIN)/python benchmarks/plan.py
	$(BIN)/python benchmarks/predict.py
	$(BIN)/python benchmarks/progressive.py
	$(BIN)/python benchmarks/grouped.py
	$(BIN)/python benchmarks/planning_time.py
	$(BIN)/python benchmarks/papers.py
	$(BIN)/python benchmarks/schedules.py
	$(BIN)/ionn bench latency --network alexnet --network resnet50
	$(BIN)/python benchmarks/kill.py
	$(BIN)/python benchmarks/failover.py
	$(BIN)/python benchmarks/weights.py
	$(BIN)/python benchmarks/whole_uploads.py
	$(BIN)/python benchmarks/activations.py
	$(BIN)/python benchmarks/accuracy.py
	$(BIN)/python benchmarks/security_cost.py
	$(BIN)/python benchmarks/link.py
	$(BIN)/python benchmarks/hostile.py

# The same scripts at toy size, so that they cannot rot.
bench-quick: $(STAMP)
	$(BIN)/python benchmarks/execute.py --quick
	$(BIN)/python benchmarks/plan.py --quick
	$(BIN)/python benchmarks/predict.py --quick
	$(BIN)/python benchmarks/progressive.py --quick
	$(BIN)/python benchmarks/grouped.py --quick
	$(BIN)/python benchmarks/planning_time.py --quick
	$(BIN)/python benchmarks/papers.py --quick
	$(BIN)/python benchmarks/schedules.py --quick
	$(BIN)/ionn bench latency --network lenet --rate 4mbit --rounds 1 --quick
	$(BIN)/python benchmarks/kill.py --quick
	$(BIN)/python benchmarks/failover.py --quick
	$(BIN)/python benchmarks/weights.py --quick
	$(BIN)/python benchmarks/whole_uploads.py --quick
	$(BIN)/python benchmarks/activations.py --quick
	$(BIN)/python benchmarks/accuracy.py --quick
	$(BIN)/python benchmarks/security_cost.py --quick
	$(BIN)/python benchmarks/link.py --quick
	$(BIN)/python benchmarks/hostile.py --quick

# Every branch of what pyproject.toml lists, by the tests that are about it: without those that
# draw what they try, so that each run reaches the same, and without long ones that add nothing.
CLIENT := audit* battery breaker calm catching_up context crossings distrust estimate flood forecast hedging inventory kept \
	lane lateness liveness pacer queries routing sender session session_corners trust upload
EDGE := answers quota session session_lanes turns
LAYERGRAPH := budget check graph hostile_graphs layer_edges validators
LONG := fills_the_link or hardly_wait or change_of_the_rate or drifts_costs or start_up_soon \
	or stands_still or however_they_cross or cannot_come or torch_counts

coverage: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m coverage run -m pytest -m "not hypothesis" -k "not ($(LONG))" \
		tests/wire tests/fuzz/test_targets.py tests/pairing $(EDGE:%=tests/ionn_edge/test_%.py) \
		$(LAYERGRAPH:%=tests/layergraph/test_%.py) $(CLIENT:%=tests/ionn_client/test_%.py)
	$(BIN)/python -m coverage report

# Both programs under a virtual clock, each seed with faults of its own: 10,000 seeds take about
# five minutes on two idle processors. One that fails prints how to run it again.
SEEDS ?= 10000
simulate: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.simulation --seeds $(SEEDS)

# Coverage guided, where atheris knows this Python: about five minutes. Then operators against
# guarded memory, 10,000 calls each: some hours.
fuzz: $(STAMP)
	$(BIN)/python -m tests.fuzz --inputs 2000000
	$(BIN)/python tests/fuzz_operators.py --calls 10000

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "IONN needs Python 3.11 or newer; this is " + sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "Installing torch and the rest into $(VENV) (a few minutes the first time) ..."
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) out build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
