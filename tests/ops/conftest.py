"""Fixtures of the tests of the ops."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """As if the extension of TensorFlow ops had not been built."""
    from keras_lth.ops import tensorflow as tf_ops

    find = tf_ops.library.find
    monkeypatch.setattr(tf_ops.library, "find", lambda: find(tmp_path))
    tf_ops.library.load.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tf_ops.library.load()
    yield
    tf_ops.library.load.cache_clear()
