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

from tests.proof import Found

settings.register_profile("keras_lth", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("keras_lth")


def pytest_configure(config: pytest.Config) -> None:
    """Keep what `make proof` finds; workers leave it to the process above them."""
    if config.option.markexpr == "proof" and "PYTEST_XDIST_WORKER" not in os.environ:
        config.pluginmanager.register(Found())
