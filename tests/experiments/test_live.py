"""Models that steps share: a value is the same whatever was measured before, and nothing is traced twice for masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import keras_lth as lth
from keras_lth.experiments import live
from keras_lth.experiments.lab import network

NET = {**network("digits", "lenet_300_100"), "loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]}


def test_masks_that_come_and_go_trace_nothing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = live.Live(NET, lambda: "sgd", None, trains=False)
    state, rng = lth.snapshot(measured.model), np.random.default_rng(0)
    masks = lth.Masks({p: rng.random(tuple(v.shape)) < 0.1 for p, v in lth.prunable(measured.model).items()})
    measured.rewind(state, None)
    dense = measured.numbers("test")
    measured.rewind(state, masks)
    sparse = measured.numbers("test")
    ends = state.weights, {path: 1.1 * value for path, value in state.weights.items()}

    def path() -> list[float]:
        measured.keep_all()
        with measured.evaluator("test") as evaluate:
            return evaluate.along(*ends, [0.0, 0.5, 1.0])

    errors = path()
    traced: list[Any] = []
    last = measured.model.layers[-1]
    plain = last.call
    monkeypatch.setattr(last, "call", lambda x, **how: traced.append(x) or plain(x, **how))
    for _ in range(2):
        measured.rewind(state, None)
        assert measured.numbers("test") == dense != sparse
        measured.rewind(state, masks)
        assert measured.numbers("test") == sparse and path() == errors
    assert not traced
