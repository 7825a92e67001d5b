# Two commands: `make demo` (install, build, find tickets on real data) and `make test` (install, build, every test; the
# long form of some of them is `make proof`).
# Each works first, on a machine with Python ≥ 3.10 and a C++ compiler.

PYTHON ?= python3
DATA ?= digits
BIN := .venv/bin
export KERAS_LTH_WERROR := 1
export TF_CPP_MIN_LOG_LEVEL ?= 3

DEMO_digits :=
DEMO_fashion_mnist := --config.steps=3000 --config.replicates=1

# Only tests use it: what it requires (tensorflow-text, kagglehub, sentencepiece) is for tokenizers and downloads, which
# they do not use, so its imports alone are installed. keras-hub 0.32 needs Python 3.11, as the newest Keras does.
KERAS_HUB := "keras-hub==0.32.0; python_version >= '3.11'" "keras-hub==0.25.1; python_version < '3.11'" regex tokenizers

.PHONY: demo test proof bazel fuzz lint clean results bench

# Reinstalled when what it is built from changes.
.venv/installed: pyproject.toml setup.py $(wildcard cc/*/*)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools wheel pybind11
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[test]"
	$(BIN)/python -m pip install --quiet --no-deps $(KERAS_HUB)
	touch $@

demo: .venv/installed data-$(DATA)
	$(BIN)/python -m keras_lth.bin.run --config=demo --config.data=$(DATA) $(DEMO_$(DATA)) \
	  --workers=2 --workdir=runs/demo_$(DATA)
	$(BIN)/python -m keras_lth.bin.report --workdir=runs/demo_$(DATA)

test: .venv/installed data-fashion_mnist
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=30 --durations-min=5

# The long form of the tests: all models of others. Writes docs/results/proof.
proof: .venv/installed
	$(BIN)/pytest -n 2 --dist load -m proof

# The other build, from a clean copy and without a network; one of the tests, too.
bazel: .venv/installed
	bazel/prove.sh

# For as many seconds as one likes; it goes on from what it learned the last time.
TIME ?= 60
fuzz: .venv/installed
	$(BIN)/python -m cc.fuzz.run --seconds=$(TIME)

# Beside PyTorch, which brings MKL, and beside sparseprop where it is installed (pip install sparseprop).
.venv/bench: .venv/installed
	$(BIN)/python -m pip install --quiet "keras_lth[bench]"
	touch $@

# Takes about ten minutes; BENCH="--quick --out=FOLDER" shows in one that everything runs.
BENCH ?= --out=docs/results/benchmarks
bench: .venv/bench
	$(BIN)/python benchmarks/bench.py $(BENCH)

# Fashion-MNIST comes from Debian's package where there is one; elsewhere from TFDS at run time.
data-fashion_mnist:
	@test -e /usr/share/datasets/fashion-mnist || { command -v apt-get >/dev/null && \
	  { apt-get install -y -qq dataset-fashion-mnist || { apt-get update -qq && apt-get install -y -qq dataset-fashion-mnist; }; } \
	  >/dev/null 2>&1; } || echo "Fashion-MNIST is not installed (Debian: apt-get install dataset-fashion-mnist): TFDS will be asked for it."
data-%: ;

clean:
	rm -rf .venv .venv-tpu build *.egg-info keras_lth/*.so runs
