"""The mask of one variable, and what enforces it: every holder of the variable meets the mask.

A masked variable gets a subclass of its own class. Assigned values become 0 where the mask is off, whatever assigns
them: a step, a file, an average, a callback. Its constraint, which Keras' optimizers apply last in a step, does the
same to values that an optimizer wrote without `assign`. The mask is a boolean ``tf.Variable``, neither a Keras nor an
optimizer variable, so it changes no variable count and no checkpoint.
"""

from __future__ import annotations

import functools
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

__all__ = ["VariableMask", "attach", "detach", "heal", "mask_of"]

_ATTRIBUTE = "_keras_lth_mask"


class VariableMask(keras.constraints.Constraint):
    """Constraint of a masked variable: the user's own constraint, then 0 where the mask is False."""

    def __init__(self, variable: keras.Variable, strategy: tf.distribute.Strategy) -> None:
        self.user: Callable[[Any], Any] | None = variable.constraint
        self._kept: Callable[[], Any] = lambda: None
        with tf.init_scope(), strategy.scope(), strategy.extended.colocate_vars_with(variable._value):
            self.mask = tf.Variable(
                tf.ones(tuple(variable.shape), tf.bool),
                trainable=False,
                name="mask",
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )

    def __call__(self, value: Any) -> tf.Tensor:
        """Return what Keras assigns at the end of a step."""
        return self.keep(value if self.user is None else self.user(value))

    def keep(self, value: Any) -> tf.Tensor:
        """Return ``value`` where the mask is True, else 0. Never a product, because infinity times 0 is NaN."""
        value = tf.convert_to_tensor(value)
        if self._kept() is value:
            return value
        # The mask's shape, not the value's: a gradient summed over positions of unknown number has no static shape.
        kept = tf.raw_ops.Select(condition=self.mask, x=value, y=tf.zeros(self.mask.shape, value.dtype))
        # The constraint's result returns to `assign`, and a wrapped optimizer's gradient to the inner one.
        self._kept = weakref.ref(kept)
        return kept

    def gradient(self, gradient: Any) -> Any:
        """Return the gradient with pruned entries at 0; for an embedding, the rows that it has."""
        if isinstance(gradient, tf.IndexedSlices):
            rows = tf.gather(self.mask, gradient.indices)
            values = tf.where(rows, gradient.values, tf.zeros([], gradient.values.dtype))
            return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)
        return self.keep(gradient)

    def assign(self, mask: np.ndarray) -> None:
        """Set the mask to a boolean array of the variable's shape."""
        self._kept = lambda: None
        self.mask.assign(mask)

    def numpy(self) -> np.ndarray:
        """Return the mask as a boolean array."""
        return np.asarray(self.mask.numpy(), bool)


class _Masked(keras.Variable):
    """How a masked variable differs from its class: mixed in by `attach`, removed by `detach`."""

    @property
    def constraint(self) -> Any:
        """Return the mask; a constraint that a user sets later acts inside it."""
        return vars(self)[_ATTRIBUTE]

    @constraint.setter
    def constraint(self, constraint: Any) -> None:
        _class_of(self).constraint.fset(self, constraint)
        vars(self)[_ATTRIBUTE].user = constraint

    def assign(self, value: Any) -> Any:
        """Assign ``value`` with pruned entries at 0."""
        tensor = self._convert_to_tensor(value, dtype=self._dtype)
        if tensor.shape.is_compatible_with(self.shape):
            tensor = vars(self)[_ATTRIBUTE].keep(tensor)
        return super().assign(tensor)

    def numpy(self) -> np.ndarray:
        """Return the value; pruned entries are 0, whatever wrote them."""
        _see(self)
        return super().numpy()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        _see(self)
        return np.array(super().__array__(dtype), copy=copy)

    def _export_to_saved_model_graph(self, *args: Any, **kwargs: Any) -> Any:
        _see(self)
        return super()._export_to_saved_model_graph(*args, **kwargs)

    def _serialize_to_tensors(self) -> Any:
        _see(self)
        return super()._serialize_to_tensors()


@functools.cache
def _masked_class(cls: Any) -> Any:
    return type(cls.__name__, (_Masked, cls), {"__module__": cls.__module__})


def _class_of(variable: Any) -> Any:
    """The class that a masked variable had before."""
    return type(variable).__bases__[1]


def _faces(variable: keras.Variable) -> list[Any]:
    """The Keras variable and the raw ``tf.Variable`` in it, once there is one."""
    return [variable] if variable._value is None else [variable, variable._value]


def mask_of(variable: Any) -> VariableMask | None:
    """Return the mask of a Keras variable, or of the raw ``tf.Variable`` in it; None if there is none."""
    held = getattr(variable, "__dict__", {}).get(_ATTRIBUTE)
    return held if isinstance(held, VariableMask) else None


def attach(variable: keras.Variable, strategy: tf.distribute.Strategy) -> VariableMask:
    """Give ``variable`` a mask that keeps everything."""
    mask = VariableMask(variable, strategy)
    for one in _faces(variable):
        vars(one)[_ATTRIBUTE] = mask
    cls: Any = type(variable)
    variable.__class__ = _masked_class(cls)
    return mask


def detach(variable: keras.Variable) -> None:
    """Restore the class and constraint of ``variable``."""
    mask = mask_of(variable)
    if mask is None:
        return
    # A step traced with this mask that cannot be found prunes nothing from now on.
    mask.assign(np.ones(tuple(variable.shape), bool))
    for one in _faces(variable):
        vars(one).pop(_ATTRIBUTE, None)
    variable.__class__ = _class_of(variable)


def heal(variable: keras.Variable) -> None:
    """Set the pruned entries of ``variable`` to 0."""
    if mask_of(variable) is not None:
        variable.assign(variable._value)


def settle(variable: keras.Variable, name: str = "") -> None:
    """Set pruned entries to 0, and warn if some were not, because a value was written without `assign`."""
    mask = mask_of(variable)
    if mask is None or variable._value is None:
        return
    revived = tf.logical_and(tf.not_equal(variable._value, 0), tf.logical_not(mask.mask))
    if tf.reduce_any(revived):
        count = int(tf.math.count_nonzero(revived))
        heal(variable)
        warnings.warn(
            f"{count} pruned weights of {(name or variable.path)!r} were written without Keras (by a concrete function "
            "traced before lth.mask, a raw tf.Variable or a tf.train.Checkpoint) and are 0 again: trace the function "
            "after lth.mask, or assign to the Keras variable",
            stacklevel=3,
        )


def _see(variable: Any) -> None:
    """`settle` before an eager read; inside a graph or a stateless scope values cannot be read."""
    inside = tf.distribute.has_strategy() and not tf.distribute.in_cross_replica_context()
    if tf.executing_eagerly() and not inside:
        settle(variable)
