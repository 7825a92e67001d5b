# Two commands: `make demo` (install, build, find tickets on real data) and `make test` (install, build, every test; the
# long form of some of them is `make proof`).
# Each works right after cloning, on a machine with Python ≥ 3.10 and a C++ compiler.

PYTHON ?= python3
DATA ?= digits
BIN := .venv/bin
# Modules are compiled when they are first imported; most never are.
PIP := $(BIN)/python -m pip install --quiet --no-compile
export KERAS_LTH_WERROR := 1
export TF_CPP_MIN_LOG_LEVEL ?= 3

DEMO_digits :=
DEMO_fashion_mnist := --config.steps=3000 --config.replicates=1

# Only tests use it: what it requires (tensorflow-text, kagglehub, sentencepiece) is for tokenizers and downloads, which
# they do not use, so its imports alone are installed. keras-hub 0.32 needs Python 3.11, as the newest Keras does.
KERAS_HUB := "keras-hub==0.32.0; python_version >= '3.11'" "keras-hub==0.25.1; python_version < '3.11'" regex tokenizers

.PHONY: demo test proof bazel fuzz lint clean results bench site wheels

# Reinstalled when its sources change.
.venv/installed: pyproject.toml setup.py $(wildcard cc/*/*)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --upgrade pip setuptools wheel pybind11
	$(PIP) --no-build-isolation --editable ".[test]"
	$(PIP) --no-deps $(KERAS_HUB)
	touch $@

demo: .venv/installed data-$(DATA)
	$(BIN)/python -m keras_lth.bin.run --config=demo --config.data=$(DATA) $(DEMO_$(DATA)) \
	  --workers=2 --workdir=runs/demo_$(DATA)
	$(BIN)/python -m keras_lth.bin.report --workdir=runs/demo_$(DATA)

test: .venv/installed data-fashion_mnist
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	git ls-files -z 2>/dev/null | xargs -0 -r $(BIN)/codespell
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=30 --durations-min=5

# The long tests, including all third-party models. Writes docs/results/proof.
PROOF := g++-aarch64-linux-gnu qemu-user chromium chromium-driver
proof: .venv/installed .venv/docs
	@{ command -v qemu-aarch64 && command -v chromedriver; } >/dev/null || apt-get install -y -qq $(PROOF) >/dev/null 2>&1 || \
	  { apt-get update -qq && apt-get install -y -qq $(PROOF) >/dev/null; }
	$(PIP) selenium axe-core-python
	$(BIN)/pytest -n 2 --dist load -m proof

# The Bazel build, from a clean copy and without a network; also one of the tests.
bazel: .venv/installed
	bazel/prove.sh

# Runs for TIME seconds and continues from the corpus of the last run.
TIME ?= 60
fuzz: .venv/installed
	$(BIN)/python -m cc.fuzz.run --seconds=$(TIME)

# An sdist, and a wheel for each CPython from 3.10 to 3.13 that is found, into build/wheels; a minute and a half each.
wheels:
	$(PYTHON) scripts/wheels.py

# Builds the documentation without a network into build/site; every link and reference must lead somewhere.
site: .venv/docs
	$(BIN)/mkdocs build --quiet

.venv/docs: .venv/installed
	$(PIP) "keras_lth[docs]"
	touch $@

# Compares with PyTorch, which includes MKL, and with sparseprop if installed (pip install sparseprop).
.venv/bench: .venv/installed
	$(PIP) "keras_lth[bench]"
	touch $@

# Takes about three quarters of an hour; BENCH="--quick --out=FOLDER" checks in a few minutes that everything runs.
BENCH ?= --out=docs/results/benchmarks
bench: .venv/bench
	$(BIN)/python benchmarks/bench.py $(BENCH)
	$(BIN)/python benchmarks/sparse_layers.py --torch=$(BIN)/python $(BENCH)

# Fashion-MNIST comes from Debian's package if available, otherwise from TFDS at run time.
data-fashion_mnist:
	@test -e /usr/share/datasets/fashion-mnist || { command -v apt-get >/dev/null && \
	  { apt-get install -y -qq dataset-fashion-mnist || { apt-get update -qq && apt-get install -y -qq dataset-fashion-mnist; }; } \
	  >/dev/null 2>&1; } || echo "Fashion-MNIST is not installed (Debian: apt-get install dataset-fashion-mnist): it will be downloaded by TFDS."
data-%: ;

clean:
	rm -rf .venv build *.egg-info keras_lth/*.so runs
