"""Re-estimate the batch-norm statistics of a network from data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lth.analysis.distances import is_statistic
from keras_lth.surgery.paths import Entry, entries


class Reestimation:
    """``reestimation(batches) -> {path: array}``: the moments of the input of every batch-norm layer in training mode.

    It makes one pass over the batches with the model in training mode: each layer normalises by the moments of the
    batch, as in training. The result is the mean and variance over all examples, combined exactly from the batches'
    first and second moments, weighted by their examples; it is not a moving average with momentum. Frozen layers
    (``trainable=False``) use their statistics and keep them. A training pass also changes other variables (dropout's
    seeds); the caller restores them.

    Raises ``ValueError`` for statistics in a layer that has no ``momentum``.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        layers: dict[int, tuple[keras.layers.Layer, dict[str, Entry]]] = {}
        for entry in entries(model):
            if is_statistic(entry.path) and entry.layer.trainable:
                layers.setdefault(id(entry.layer), (entry.layer, {}))[1][entry.path.rsplit("/", 1)[-1]] = entry
        for layer, found in layers.values():
            if not hasattr(layer, "momentum") or set(found) != {"moving_mean", "moving_variance"}:
                raise ValueError(
                    f"Cannot re-estimate the statistics of layer {layer.name!r} ({type(layer).__name__}): it needs a "
                    f"momentum, a moving_mean and a moving_variance. Use another treatment of statistics, such as "
                    "interpolate."
                )
        self._layers = list(layers.values())
        self._batch = tf.function(self._moments_of_batch, reduce_retracing=True)

    def __call__(self, batches: Iterable[Any]) -> dict[str, np.ndarray]:
        """Return the paths of the statistics and their new values."""
        if not self._layers:
            return {}
        for _, found in self._layers:
            for entry in found.values():
                # Momentum 0 multiplies the old value by 0: it must be finite.
                entry.variable.assign(np.zeros(tuple(entry.variable.shape), np.float32))
        momenta = [layer.momentum for layer, _ in self._layers]
        try:
            for layer, _ in self._layers:
                layer.momentum = 0.0  # a batch's own moments; traced once, as a constant
            return self._combine(batches)
        finally:
            for (layer, _), momentum in zip(self._layers, momenta, strict=True):
                layer.momentum = momentum

    def _combine(self, batches: Iterable[Any]) -> dict[str, np.ndarray]:
        count = 0
        first = [np.float64(0)] * len(self._layers)
        second = [np.float64(0)] * len(self._layers)
        for data in batches:
            x = keras.utils.unpack_x_y_sample_weight(data)[0]
            n = int(keras.tree.flatten(x)[0].shape[0])
            count += n
            for i, (mean, variance) in enumerate(self._batch(x)):
                m, v = np.asarray(mean, np.float64), np.asarray(variance, np.float64)
                first[i] = first[i] + n * m
                second[i] = second[i] + n * (v + np.square(m))
        if not count:
            raise ValueError("The training data for batch-norm statistics has no examples.")
        new = {}
        for (_, found), total, square in zip(self._layers, first, second, strict=True):
            mean = total / count
            for name, value in (("moving_mean", mean), ("moving_variance", np.maximum(square / count - mean**2, 0))):
                entry = found[name]
                new[entry.path] = np.asarray(value).astype(entry.variable.numpy().dtype)
        return new

    def _moments_of_batch(self, x: Any) -> list[tuple[Any, Any]]:
        self.model(x, training=True)
        return [
            (tf.identity(found["moving_mean"].variable._value), tf.identity(found["moving_variance"].variable._value))
            for _, found in self._layers
        ]
