"""Do what ``model.evaluate`` does, in compiled calls of many steps, also on several replicas and hosts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_lth import datasets
from keras_lth.datasets.files import Streamed
from keras_lth.datasets.order import Ordered
from keras_lth.training.steps import TestSteps, uses_jit

__all__ = ["Evaluation", "evaluate", "numbers_of"]


def evaluate(
    model: keras.Model, data: Any, *, batch_size: int | None = None, jit_compile: bool | None = None
) -> dict[str, float]:
    """Return loss and metrics over all of ``data``: `ordered` data, or arrays (x, y) or (x, y, sample_weight).

    ``batch_size`` applies to arrays: by default the one that the model's inputs fix, else 1000.
    """
    return Evaluation(model, data, batch_size or _fixed_batch(model) or 1000, jit_compile).run()


class Evaluation:
    """Tests a model on one dataset; compiled once."""

    def __init__(self, model: keras.Model, data: Any, batch_size: int, jit_compile: bool | None) -> None:
        if not isinstance(data, Ordered | Streamed):
            x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
            data = datasets.ordered(x, y, weight, batch_size=batch_size, seed=0, shuffle=False)
        self.model = model
        self.steps = TestSteps(model, data, uses_jit(model, jit_compile))

    def run(self, callbacks: keras.callbacks.CallbackList | None = None) -> dict[str, float]:
        """Return loss and metrics of the model in its current state."""
        if callbacks is not None:
            callbacks.on_test_begin()
        self.model.make_test_function()  # heals a masked model
        self.model.reset_metrics()
        count = self.steps.data.steps_per_epoch
        if callbacks is not None:
            callbacks.on_test_batch_begin(0)
        self.steps.run()
        logs = numbers_of(self.model.get_metrics_result())
        if callbacks is not None:
            callbacks.on_test_batch_end(count - 1, logs)
            callbacks.on_test_end(logs)
        return logs


def _fixed_batch(model: keras.Model) -> int | None:
    """The batch size that the model's inputs fix, if they do."""
    inputs = keras.tree.flatten(getattr(model, "inputs", None) or [])
    return next((int(one.shape[0]) for one in inputs if one.shape and one.shape[0] is not None), None)


def numbers_of(logs: Mapping[str, Any]) -> dict[str, float]:
    """Return the values of metrics as Python numbers."""
    return {name: float(np.asarray(value)) for name, value in logs.items()}
