"""Compiled steps of a model on data that stays on the device: many steps in one call, no host call in between."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_lth.datasets.order import Ordered

__all__ = ["TestSteps", "TrainSteps", "uses_jit"]


class _Steps:
    """Runs ``step`` of a model on batches ``first … first + count - 1`` of an order, in one compiled call.

    A batch is gathered inside the call. The batches of an epoch have one size, but for the last, which has a function
    of its own: shapes are static. Under a strategy each replica takes an equal part of the batch.
    """

    def __init__(self, model: keras.Model, data: Ordered, jit_compile: bool) -> None:
        self.model = model
        self.data = data
        self.jit_compile = jit_compile
        self.examples = int(tf.nest.flatten(data.arrays)[0].shape[0])
        self.replicas = int(model.distribute_strategy.num_replicas_in_sync)
        for size in {min(data.batch_size, self.examples), self.examples % data.batch_size or data.batch_size}:
            if size % self.replicas:
                raise ValueError(
                    f"{self.replicas} replicas cannot share a batch of {size} examples equally: choose a batch_size "
                    f"that they divide, and examples ({self.examples}) that leave no such rest."
                )
        self._compiled: dict[int, Any] = {}

    def step(self, batch: Any) -> None:
        """One step of the model on one replica."""
        raise TypeError(f"{type(self).__name__} has no step.")

    def run(self, order: Any, first: int, count: int) -> None:
        """Steps ``first … first + count - 1`` of an epoch whose examples come in ``order`` (int64, all of them)."""
        whole = self.examples // self.data.batch_size
        full = min(first + count, whole) - first
        if full > 0:
            self._function(self.data.batch_size)(order, tf.constant(first), tf.constant(first + full))
        if first + count > whole:
            rest = self.examples - whole * self.data.batch_size
            self._function(rest)(order, tf.constant(whole), tf.constant(whole + 1))

    def _function(self, size: int) -> Any:
        if size not in self._compiled:
            self._compiled[size] = tf.function(self._many(size), jit_compile=self.jit_compile)
        return self._compiled[size]

    def _many(self, size: int) -> Any:
        strategy, arrays, batch_size = self.model.distribute_strategy, self.data.arrays, self.data.batch_size
        share = size // self.replicas

        def part(order: Any, i: Any) -> None:
            begin = i * batch_size
            if self.replicas > 1:
                begin += share * tf.distribute.get_replica_context().replica_id_in_sync_group
            rows = tf.slice(order, [begin], [share])
            self.step(tf.nest.map_structure(lambda array: tf.gather(array, rows), arrays))

        def one(i: Any, order: Any, end: Any) -> tuple[Any, Any, Any]:
            if self.replicas > 1:
                strategy.run(part, (order, i))
            else:
                part(order, i)
            return i + 1, order, end

        def many(order: Any, first: Any, end: Any) -> None:
            with strategy.scope():
                tf.while_loop(lambda i, _, stop: i < stop, one, [first, order, end], parallel_iterations=1)

        return many


class TrainSteps(_Steps):
    """Training steps: the model's own ``train_step``, also a custom one."""

    def step(self, batch: Any) -> None:
        """Forward, backward, update."""
        self.model.train_step(batch)

    def order(self, epoch: int, seed: int) -> Any:
        """The order of an epoch, as ``Ordered.order`` gives it, on the device."""
        return tf.constant(self.data.order(epoch, seed))


class TestSteps(_Steps):
    """Evaluation steps: the model's own ``test_step``, over all examples in the order they have."""

    def step(self, batch: Any) -> None:
        """Forward and metrics."""
        self.model.test_step(batch)

    def order(self) -> Any:
        """0 … n - 1."""
        return tf.range(self.examples, dtype=tf.int64)


def uses_jit(model: keras.Model, asked: bool | None) -> bool:
    """Whether the steps are compiled by XLA: as asked; else where the model, its layers and its devices allow it."""
    if asked is not None:
        return asked
    many = model.distribute_strategy.num_replicas_in_sync > 1
    layers = model._flatten_layers()
    return not many and not model.run_eagerly and all(getattr(layer, "supports_jit", True) for layer in layers)
