"""Settings that every test shares."""

from __future__ import annotations

import os
from typing import Any

# Two test processes share two cores; set before TensorFlow is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import pytest
from hypothesis import settings

settings.register_profile("keras_lth", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("keras_lth")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Show the models of others that were walked; `make proof` keeps the table."""
    reports = [r for kept in terminalreporter.stats.values() for r in kept if getattr(r, "when", None) == "call"]
    rows = [value for report in reports for name, value in report.user_properties if name == "zoo"]
    if rows and config.option.markexpr == "proof":
        from tests.zoo.table import keep

        terminalreporter.write_line(f"Models of others: {keep(rows)}")
