"""Fingerprint the batches that a model is actually trained on, whatever their source."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lth.surgery import hosts_of

# Odd 64-bit constants; products wrap around.
_MIX = 0x2545F4914F6CDD1D
_ROLL = 0x5851F42D4C957F2D
_SALT = 0x14057B7EF767814F
# At most this many features of an example, evenly spaced, are read: a large image costs no more than a small one.
_FEATURES = 4096


class Fingerprint:
    """Folds every training batch of a model into 64 bits that depend on the examples, their order and their positions.

    The model's ``train_step`` is overridden on the instance; the override calls the previous one, which may be custom.
    Works in graphs, under XLA, with several steps per execution and eagerly; values are added over replicas.
    """

    def __init__(self, model: keras.Model) -> None:
        left = getattr(vars(model).get("train_step"), "fingerprint", None)
        if left is not None:
            left.remove()  # of a fit that was interrupted, which a traceback keeps alive
        self._model = model
        self._replicas = int(model.distribute_strategy.num_replicas_in_sync)
        with tf.init_scope(), model.distribute_strategy.scope():
            self._state = tf.Variable(
                np.zeros(2, np.int64),
                trainable=False,
                name="batches_seen",
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.SUM,
            )
        state, before = self._state, model.train_step

        def train_step(data: Any) -> Any:
            now = tf.convert_to_tensor(state)
            state.assign(tf.stack([now[0] + 1, now[1] * _constant(_ROLL) + digest(data)]))
            return before(data)

        vars(train_step)["fingerprint"] = self
        self._step = train_step
        self._previous = vars(model).get("train_step")
        # Through __dict__: a tracked attribute would be saved with the model.
        vars(model)["train_step"] = train_step
        model.make_train_function(force=True)

    def reset(self) -> None:
        """Restart the fingerprint, between two steps."""
        self._state.assign(np.zeros(2, np.int64))

    def value(self) -> tuple[int, int]:
        """Return (batches seen since the last reset, their hash)."""
        count, folded = (int(number) for number in self._state.numpy())
        return count // self._replicas, folded

    def restore(self, value: tuple[int, int]) -> None:
        """Continue from an earlier `value`."""
        self.reset()
        chief = hosts_of(self._model).chief
        first = (getattr(self._state, "values", None) or (self._state,))[0]
        # The sum over replicas is the value, so one of them holds all of it.
        first.assign(np.array([value[0] * self._replicas, value[1]], np.int64) * int(chief))

    def since(self, mark: tuple[int, int]) -> tuple[int, int]:
        """Return ``value`` for the batches after ``value()`` was ``mark``, as if ``reset`` had been called there."""
        count, folded = self.value()
        rest = folded - mark[1] * pow(_ROLL, count - mark[0], 1 << 64)
        return count - mark[0], (rest + (1 << 63)) % (1 << 64) - (1 << 63)

    def remove(self) -> None:
        """Restore the model's own ``train_step``; safe to call twice."""
        model = self._model
        if vars(model).get("train_step") is not self._step:
            return
        del vars(model)["train_step"]
        if self._previous is not None:
            vars(model)["train_step"] = self._previous
        model.make_train_function(force=True)


class Orders:
    """The fingerprints of each training's epochs since the fork; two trainings with a common one are refused."""

    def __init__(self) -> None:
        self._seen: dict[int, dict[int, set[tuple[int, int]]]] = {}

    def as_list(self) -> list[list[Any]]:
        """Return [training, step, fingerprints] of each epoch."""
        rows = ((training, step, seen) for training, epochs in self._seen.items() for step, seen in epochs.items())
        return [[training, step, sorted(map(list, seen))] for training, step, seen in rows]

    def take(self, rows: list[list[Any]]) -> None:
        """Continue from an earlier `as_list`."""
        self._seen = {}
        for training, step, seen in rows:
            self._seen.setdefault(training, {})[step] = {(count, folded) for count, folded in seen}

    def note(self, training: int, step: int, *seen: tuple[int, int]) -> None:
        """Record the fingerprints of the batches that ``training`` saw in the epoch that ends at ``step``.

        Raises ``ValueError`` if no batch was seen, or if another training saw the same batches in the same order.
        """
        if any(count == 0 for count, _ in seen):
            raise ValueError(
                f"No batch was seen before step {step}: the model's train function does not call model.train_step, so "
                f"the data orders cannot be compared. Call model.train_step in it."
            )
        for other, epochs in self._seen.items():
            same = epochs.get(step, set()).intersection(seen)
            if other != training and same:
                raise ValueError(
                    f"Trainings {other} and {training} saw the same {same.pop()[0]} batches in the same order in the "
                    f"epoch up to step {step}: without different noise they would look stable. Train on "
                    f"keras_lth.datasets.ordered(x, y, batch_size=…, seed=…), which uses another order in each "
                    f"training, or on data that is reshuffled in each epoch."
                )
        self._seen.setdefault(training, {}).setdefault(step, set()).update(seen)


def digest(data: Any) -> Any:
    """Return a scalar int64 tensor: a hash of a batch that depends on values, positions and the order of examples."""
    folded = _constant(_SALT)
    for leaf in keras.tree.flatten(data):
        if leaf is not None:
            folded = _mixed(folded) + _leaf(leaf)
    return folded


def _leaf(leaf: Any) -> Any:
    if isinstance(leaf, tf.RaggedTensor):
        parts = [_leaf(part) for part in (leaf.flat_values, *leaf.nested_row_splits)]
        return tf.add_n([part * _constant(_MIX + 2 * i) for i, part in enumerate(parts)])
    if isinstance(leaf, tf.SparseTensor):
        return _leaf(leaf.values) + _mixed(_leaf(leaf.indices))
    bits = _bits(tf.convert_to_tensor(leaf))
    rows = tf.reshape(bits, [tf.shape(bits)[0], -1] if bits.shape.rank else [1, 1])
    if rows.shape[1] is not None and rows.shape[1] > _FEATURES:
        rows = rows[:, :: -(-rows.shape[1] // _FEATURES)]
    hashes = tf.reduce_sum(rows * _weights(rows, 1), axis=1)
    return tf.reduce_sum(_mixed(hashes + _weights(rows, 0)))


def _bits(tensor: Any) -> Any:
    """The bits of each element as int64."""
    if tensor.dtype == tf.string:
        return tf.strings.to_hash_bucket_fast(tensor, 2**62)
    if tensor.dtype.is_floating or tensor.dtype.is_complex:
        whole = {1: tf.int8, 2: tf.int16, 4: tf.int32}.get(tensor.dtype.size, tf.int64)
        tensor = tf.bitcast(tensor, whole)
    return tf.cast(tensor, tf.int64)


def _weights(rows: Any, axis: int) -> Any:
    """Different odd numbers for the positions along an axis."""
    places = tf.range(tf.cast(tf.shape(rows)[axis], tf.int64), dtype=tf.int64)
    return tf.bitwise.bitwise_or(_mixed(_mixed(places + _constant(_SALT))), tf.constant(1, tf.int64))


def _mixed(value: Any) -> Any:
    value = value * _constant(_MIX)
    return tf.bitwise.bitwise_xor(value, tf.bitwise.right_shift(value, tf.constant(29, tf.int64)))


def _constant(value: int) -> Any:
    return tf.constant(value & 0x7FFFFFFFFFFFFFFF, tf.int64)
