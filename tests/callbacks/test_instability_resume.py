"""Instability analysis inside the training loop, killed at any place, finds what an undisturbed one finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import pytest

import keras_lth as lth
from keras_lth import training
from tests.training.networks import Strike, Struck, X, Y, examples, network


def run(folder: Path | None, strike: int | None) -> dict[str, Any]:
    stability = lth.InstabilityCallback(fork_at="5 steps", runs=2, data={"test": (X, Y)}, verbose=0)
    model = network(keras.optimizers.SGD(0.05, momentum=0.9))
    training.fit(
        model, examples(), epochs=4, callbacks=[stability, Strike(strike)], steps_per_call=4, jit_compile=False,
        checkpoints=folder, checkpoint_every=0,
    )  # fmt: skip
    return stability.as_dict()


def test_struck_in_both_trainings(tmp_path: Path) -> None:
    whole = run(None, None)
    assert len(whole["results"]) == 1
    for strike in (3, 6, 4):
        with pytest.raises(Struck):
            run(tmp_path, strike)
    assert run(tmp_path, None) == whole
    # The same program on the finished run trains nothing and finds the same.
    assert run(tmp_path, 1) == whole


def test_equal_orders_are_refused_after_a_strike(tmp_path: Path) -> None:
    model = network(keras.optimizers.SGD(0.05))

    def repeated(strike: int | None) -> None:
        stability = lth.InstabilityCallback(runs=2, data={"test": (X, Y)}, verbose=0)
        data = lth.datasets.ordered(X, Y, batch_size=16, seed=5, shuffle=False)
        training.fit(
            model, data, epochs=2, callbacks=[stability, Strike(strike)], steps_per_call=4, jit_compile=False,
            checkpoints=tmp_path, checkpoint_every=0,
        )  # fmt: skip

    with pytest.raises(Struck):
        repeated(7)
    with pytest.raises(ValueError, match="saw the same 16 batches in the same order"):
        repeated(None)
