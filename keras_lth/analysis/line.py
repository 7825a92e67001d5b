"""A model's logs at points of a line between two networks: one traced function, with data kept on the device.

`model.evaluate` passes each batch from Python to the step, and its weights come from Python too. Here one call measures
one point: it mixes the weights, assigns them, and runs ``test_step`` over all batches, with batch normalisation in one
operation. The function is traced once for all points and all pairs of networks. Several points in one batched product
were measured and are slower on a CPU, where one point already fills the cores; so the memory is that of one network and
one batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lth.analysis.distances import is_floating
from keras_lth.layers.fused import fusing
from keras_lth.surgery.metrics import undisturbed

Weights = Mapping[str, np.ndarray]


class Line:
    """``line(first, second, alphas)`` returns the logs at each alpha, as ``model.evaluate`` returns them.

    Args:
        model: built and compiled.
        variables: its variables by path.
        data: ``(x, y)`` or ``(x, y, sample_weight)``, nests of tensors with a common first axis.
        batch_size: examples a step.
    """

    def __init__(self, model: keras.Model, variables: Mapping[str, keras.Variable], data: Any, batch_size: int) -> None:
        self.model, self._variables, self._data = model, dict(variables), data
        self._count = int(tf.nest.flatten(data)[0].shape[0])
        self._size = min(batch_size, self._count)
        # Variables of metrics cannot be created inside a loop.
        if not all(getattr(metric, "built", True) for metric in model.metrics):
            with undisturbed(model):
                model.test_step(self._batch(0, self._size))
        self._point = tf.function(self._logs, autograph=False)

    def __call__(self, first: Weights, second: Weights, alphas: Sequence[float]) -> list[dict[str, float]]:
        """Return the logs at ``alpha · first + (1 − alpha) · second``, mixed as `interpolate` mixes them."""
        paths = [path for path in self._variables if path in first]
        pair = [[tf.convert_to_tensor(end[path]) for path in paths] for end in (first, second)]
        with fusing(self.model):  # where it is traced
            found = [self._point(tf.constant(alpha, tf.float64), *pair, paths=tuple(paths)) for alpha in alphas]
        return [{name: float(np.asarray(value)) for name, value in logs.items()} for logs in found]

    def _logs(self, alpha: Any, first: Sequence[Any], second: Sequence[Any], *, paths: Sequence[str]) -> Any:
        for path, x, y in zip(paths, first, second, strict=True):
            self._variables[path].assign(_mixed(alpha, x, y))
        self.model.reset_metrics()
        # The last batch may be smaller; it also has the logs of a model with a step of its own.
        last = (self._count - 1) // self._size

        def step(number: Any) -> Any:
            self.model.test_step(self._batch(number * self._size, self._size))
            return number + 1

        if last:
            tf.while_loop(lambda number: number < last, step, [tf.constant(0)])
        return self.model.test_step(self._batch(last * self._size, self._count - last * self._size))

    def _batch(self, start: Any, size: int) -> Any:
        def cut(array: Any) -> Any:
            rest = array.shape[1:]
            return tf.slice(array, [start, *[0] * len(rest)], [size, *rest])

        return tf.nest.map_structure(cut, self._data)


def _mixed(alpha: Any, x: Any, y: Any) -> Any:
    """As `connectivity.interpolate`: in double precision, rounded once; the ends and equal values bit for bit."""
    if not is_floating(x.dtype.as_numpy_dtype):
        return tf.where(alpha == 0, y, x)
    line = tf.cast(alpha * tf.cast(x, tf.float64) + (1 - alpha) * tf.cast(y, tf.float64), x.dtype)
    return tf.where((x == y) | (alpha == 1), x, tf.where(alpha == 0, y, line))
