"""The mask of one variable.

It belongs to the variable: a boolean ``tf.Variable`` beside it, held by the variable's constraint. It is neither a
Keras nor an optimizer variable, so it changes no variable count and no checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

__all__ = ["VariableMask", "attach", "detach", "heal", "mask_of"]


class VariableMask(keras.constraints.Constraint):
    """Constraint of a masked variable: the user's own constraint, then 0 where the mask is False.

    Keras optimizers apply constraints last in a step, so pruned weights are 0 after it under any of them.
    """

    def __init__(self, variable: keras.Variable, strategy: tf.distribute.Strategy) -> None:
        self.user: Callable[[Any], Any] | None = variable.constraint
        self.touched = True
        with tf.init_scope(), strategy.scope(), strategy.extended.colocate_vars_with(variable._value):
            self.mask = tf.Variable(
                tf.ones(tuple(variable.shape), tf.bool),
                trainable=False,
                name="mask",
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )

    def __call__(self, value: Any) -> tf.Tensor:
        """What Keras assigns at the end of a step."""
        return self.keep(value if self.user is None else self.user(value))

    def keep(self, value: Any) -> tf.Tensor:
        """``value`` where the mask is True, else 0. Never a product: infinity times 0 is NaN."""
        value = tf.convert_to_tensor(value)
        # The mask's shape, not the value's: a gradient summed over positions of unknown number has no static shape.
        return tf.raw_ops.Select(condition=self.mask, x=value, y=tf.zeros(self.mask.shape, value.dtype))

    def gradient(self, gradient: Any) -> Any:
        """The gradient with its pruned entries 0; of an embedding, the rows that it has."""
        if isinstance(gradient, tf.IndexedSlices):
            rows = tf.gather(self.mask, gradient.indices)
            values = tf.where(rows, gradient.values, tf.zeros([], gradient.values.dtype))
            return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)
        return self.keep(gradient)

    def watch(self, variable: keras.Variable) -> None:
        """Notice values assigned from outside, so that a step need not look for them (`hooks`)."""
        assign = variable.assign

        def watched(value: Any) -> Any:
            self.touched = True
            return assign(value)

        vars(variable)["assign"] = watched

    def assign(self, mask: np.ndarray) -> None:
        """Set the mask to a boolean array of the variable's shape."""
        self.mask.assign(mask)

    def numpy(self) -> np.ndarray:
        """The mask as a boolean array."""
        return np.asarray(self.mask.numpy(), bool)


def mask_of(variable: keras.Variable) -> VariableMask | None:
    """The mask of ``variable``, or None. A plain ``tf.Variable`` has none."""
    constraint = getattr(variable, "constraint", None)
    return constraint if isinstance(constraint, VariableMask) else None


def attach(variable: keras.Variable, strategy: tf.distribute.Strategy) -> VariableMask:
    """Give ``variable`` a full mask."""
    mask = VariableMask(variable, strategy)
    variable.constraint = mask
    mask.watch(variable)
    return mask


def detach(variable: keras.Variable) -> None:
    """Give ``variable`` its own constraint back."""
    mask = mask_of(variable)
    if mask is not None:
        variable.constraint = mask.user
        del vars(variable)["assign"]


def heal(variable: keras.Variable) -> None:
    """Set the pruned entries of ``variable`` to 0."""
    mask = mask_of(variable)
    if mask is not None:
        variable.assign(mask.keep(variable._value))
        mask.touched = False
