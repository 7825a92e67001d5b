"""Restart the bias correction of an optimizer.

After a rewind to step k the schedule continues from k, while the slots are those of a fresh optimizer. Adam and its
variants divide by 1 - beta^iterations to correct for young slots, so at iteration k the first updates would be several
times too large. Here the update rule, and only the update rule, sees iterations - offset; schedules, averages and
accumulation see the true count.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

__all__ = ["depends_on_iterations", "offset_of", "restart", "uninstall"]

_ATTRIBUTE = "_keras_lth_correction"
# Their update rules do not read `iterations`; any other optimizer is assumed to read it.
_INDEPENDENT = ("SGD", "RMSprop", "Adagrad", "Adadelta", "Lion", "Ftrl", "LossScaleOptimizer", "MultiOptimizer")


class _Correction:
    """The overrides of one optimizer and the offset, a plain ``tf.Variable``, so a new offset needs no new trace."""

    def __init__(self, optimizer: keras.optimizers.Optimizer) -> None:
        self.optimizer = optimizer
        strategy = optimizer._distribution_strategy
        with tf.init_scope(), strategy.scope():
            self.offset = tf.Variable(
                0, dtype=tf.int64, trainable=False, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
            )
        # With several replicas the update runs once a device inside a merge call, other replicas waiting; only
        # there is the optimizer not shared between threads.
        shifted = "_backend_update_step" if strategy.num_replicas_in_sync == 1 else "update_step"
        if shifted == "update_step" and type(optimizer).__name__ == "Nadam":
            raise ValueError(
                "Nadam cannot restart its bias correction on several replicas: use restore_optimizer=True, "
                "rewind to step 0, or use AdamW"
            )
        self.overridden = {shifted: self._shift, "load_own_variables": self._forget, "set_weights": self._forget}
        self.previous = {name: vars(optimizer).get(name) for name in self.overridden}
        for name, wrap in self.overridden.items():
            vars(optimizer)[name] = wrap(getattr(optimizer, name))

    def _shift(self, function: Any) -> Any:
        def shifted(*args: Any, **kwargs: Any) -> Any:
            held = vars(self.optimizer)
            true = held["_iterations"]
            count = tf.convert_to_tensor(true)
            # Other code assigned a count below the offset: use it unchanged.
            held["_iterations"] = tf.where(count >= self.offset, count - self.offset, count)
            try:
                return function(*args, **kwargs)
            finally:
                held["_iterations"] = true

        return shifted

    def _forget(self, function: Any) -> Any:
        def loaded(*args: Any, **kwargs: Any) -> Any:
            # Loaded slots are as old as the loaded count says.
            self.offset.assign(0)
            return function(*args, **kwargs)

        return loaded

    def remove(self) -> None:
        for name, previous in self.previous.items():
            del vars(self.optimizer)[name]
            if previous is not None:
                vars(self.optimizer)[name] = previous


def depends_on_iterations(optimizer: keras.optimizers.Optimizer) -> bool:
    """Return whether the update rule of ``optimizer`` reads the step count (bias correction)."""
    names = {cls.__name__ for cls in type(optimizer).__mro__ if cls.__module__.split(".")[0] == "keras"}
    return "Adam" in names or not names & set(_INDEPENDENT)


def offset_of(optimizer: keras.optimizers.Optimizer) -> int:
    """Return the iteration at which the slots of ``optimizer`` began; 0 if they were never reset."""
    held = vars(optimizer).get(_ATTRIBUTE)
    return 0 if held is None else int(held.offset.numpy())


def restart(optimizer: keras.optimizers.Optimizer, offset: int) -> bool:
    """Let the slots of ``optimizer`` begin at iteration ``offset``; return whether a step must be traced again."""
    held = vars(optimizer).get(_ATTRIBUTE)
    if held is None and (offset == 0 or not depends_on_iterations(optimizer)):
        return False
    new = held is None
    if new:
        held = vars(optimizer)[_ATTRIBUTE] = _Correction(optimizer)
    held.offset.assign(offset)
    return new


def uninstall(optimizer: keras.optimizers.Optimizer) -> None:
    """Remove the overrides; this also forgets the offset."""
    held = vars(optimizer).pop(_ATTRIBUTE, None)
    if held is not None:
        held.remove()
