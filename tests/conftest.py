"""Settings that every test shares."""

from __future__ import annotations

import os

# Two test processes share two cores; set before TensorFlow is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import pytest
from hypothesis import settings

settings.register_profile("keras_lth", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("keras_lth")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep what `make proof` found of a model, as soon as it is found; workers leave it to the process above them."""
    if report.when != "call" or "PYTEST_XDIST_WORKER" in os.environ:
        return
    for name, value in report.user_properties:
        if name == "zoo":
            from tests.zoo.table import keep

            keep(*value)
