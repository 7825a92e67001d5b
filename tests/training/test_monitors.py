"""Callbacks that watch a log go on as they were: Keras turns the sign of their min_delta when they first look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import pytest

from keras_lth import training
from tests.training.networks import Strike, Struck, examples, network


def run(folder: Path | None, at: int | None) -> tuple[list[float], list[Any]]:
    """The losses, and what the callbacks remember; the sixth call is inside the second epoch."""
    plateau = keras.callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=0.3, factor=0.5)
    stop = keras.callbacks.EarlyStopping("accuracy", mode="min", patience=3, min_delta=0.01)
    model = network(keras.optimizers.SGD(0.05))
    history = training.fit(
        model, examples(), epochs=6, steps_per_call=4, callbacks=[plateau, stop, Strike(at)], checkpoints=folder,
        checkpoint_every=0,
    )  # fmt: skip
    remembered = [(one.wait, one.best, one.min_delta) for one in (plateau, stop)]
    return history.history["loss"], [*remembered, float(model.optimizer.learning_rate.numpy())]


def test_what_they_look_for_does_not_turn(tmp_path: Path) -> None:
    whole = run(None, None)
    for at in (6, 5):
        with pytest.raises(Struck):
            run(tmp_path, at)
    assert run(tmp_path, None) == whole
    assert whole[1][0][2] == -0.3
    assert whole[1][2] < 0.05, "the plateau did nothing"
