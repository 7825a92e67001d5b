"""Settings that every test shares."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

# Two test processes share two cores; set before TensorFlow is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# Processes that tests start find the package and the tests, and begin quickly.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [f"{Path(__file__).parent / 'startup'}", f"{Path(__file__).parents[1]}", os.environ.get("PYTHONPATH", "")]
).strip(os.pathsep)

import pytest
from hypothesis import settings

from tests import forms
from tests.proof import Found

# They take a minute or more, or start several processes: begun first, both workers end together. The longest first.
FIRST = (
    "tests/cc/test_sanitizers.py",
    "tests/tpu/test_legality.py",
    "tests/zoo/test_zoo.py",
    "tests/training/test_workers.py",
    "tests/ops/test_tf_library.py",
    "tests/callbacks/test_imp_resume.py",
    "tests/training/test_replicated.py",
    "tests/callbacks/test_imp_strategy.py",
    "tests/surgery/test_mirrored.py",
    "tests/callbacks/test_imp_modes.py",
    "tests/surgery/test_holders.py",
    "tests/training/test_resume_state.py",
    "tests/plans/test_on_ray.py",
    "tests/experiments/",
    "tests/crash/",
    "tests/callbacks/",
    "tests/surgery/",
    "tests/training/",
    "tests/plans/",
    "tests/ops/",
)


def pytest_configure(config: pytest.Config) -> None:
    """Choose the form of the tests, and keep what `make proof` finds; workers leave that to the process above them."""
    forms.proving = config.option.markexpr == "proof"
    settings.register_profile("keras_lth", deadline=None, max_examples=forms.examples(60), derandomize=True)
    settings.load_profile("keras_lth")
    if forms.proving and "PYTEST_XDIST_WORKER" not in os.environ:
        config.pluginmanager.register(Found())


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest; in `make proof` the tests of Hypothesis run once more, with all examples."""
    place = {name: number for number, name in enumerate(FIRST)}

    def when(item: pytest.Item) -> int:
        file = item.nodeid.partition("::")[0]
        return min((place[name] for name in FIRST if file.startswith(name)), default=len(FIRST))

    items.sort(key=when)
    if forms.proving:
        for item in items:
            if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
                item.add_marker(pytest.mark.proof)


@pytest.fixture(scope="module", autouse=True)
def own_garbage() -> None:
    """Garbage is looked for among what a file made itself, not again among all that the files before it left.

    Keras collects whenever its session is cleared, and Python now and then: late in a run of all tests that took
    seconds each time. What is frozen the package does not find, so it looks for what it has to know before.
    """
    gc.collect()
    if "keras_lth.surgery" in sys.modules:
        from keras_lth.surgery import held, holders

        for living in (held._OPTIMIZERS, holders.TRAINED, holders._FUNCTIONS):
            list(living)
    gc.freeze()
