"""Gradients of pruned weights are 0 for every optimizer, wherever it is held.

An optimizer may belong to the model, to a model around it, to a wrapper, or to a hand-written loop. Its `apply` masks
the gradients of masked variables before anything else: clipping by norm would see weights that are not there, and
averages and moments would collect their gradients.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import keras

from keras_lth.surgery.optimizers import refuse_coupling, reset_pruned
from keras_lth.surgery.stored import is_stored
from keras_lth.surgery.teaching import Wrap, teach
from keras_lth.surgery.variable_mask import heal, mask_of

__all__ = ["masked_gradients", "teach_optimizers"]


def masked_gradients(gradients: Iterable[Any], variables: Iterable[Any]) -> list[Any]:
    """Set the gradients of pruned weights to 0; for clipping or norms of your own before ``optimizer.apply``.

    ``gradients`` are those of ``variables``, in the same order, as ``tape.gradient(loss, variables)`` gives them:
    tensors, ``IndexedSlices`` or None. A variable without a mask keeps its gradient as it is. Optimizers do the same
    by themselves, so a loop needs this only where it looks at gradients first (clipping by hand, SAM).

    Raises:
        ValueError: as many gradients as variables are needed.
    """
    gradients, variables = list(gradients), list(variables)
    if len(gradients) != len(variables):
        raise ValueError(
            f"masked_gradients got {len(gradients)} gradients for {len(variables)} variables: pass the list that "
            "tape.gradient(loss, variables) returns, and the same variables"
        )
    return [_masked(gradient, variable) for gradient, variable in zip(gradients, variables, strict=True)]


def teach_optimizers() -> None:
    """Let every Keras optimizer mask gradients and averages."""
    teach(keras.optimizers.Optimizer, _WRAPS)


def _apply(before: Any) -> Any:
    def apply(self: Any, grads: Sequence[Any], trainable_variables: Iterable[Any] | None = None) -> Any:
        given = None if trainable_variables is None else list(trainable_variables)
        weights = list(self._trainable_variables) if given is None else given
        if stored := [weight for weight in weights if is_stored(weight)]:
            refuse_coupling(self, stored)
        masked = [(weight, mask) for weight in weights if (mask := mask_of(weight)) is not None]
        if not masked:
            return before(self, grads, given)
        if not self.built:
            self.build(weights)
        refuse_coupling(self, [weight for weight, _ in masked])
        if len(grads) == len(weights):
            grads = masked_gradients(grads, weights)
        result = before(self, grads, given)
        for weight, mask in masked:
            # Keras asks its own variables for a constraint; a raw one has none that could be set.
            if not isinstance(weight, keras.Variable):
                weight.assign(mask.keep(weight))
        return result

    return apply


def _finalize(before: Any) -> Any:
    def finalize_variable_values(self: Any, var_list: Sequence[Any]) -> Any:
        # Averages are written past the variables' own `assign`.
        result = before(self, var_list)
        for variable in var_list:
            heal(variable)
        return result

    return finalize_variable_values


def _load(before: Any) -> Any:
    def load_own_variables(self: Any, store: Any) -> Any:
        # The slots may come from a dense model's file.
        result = before(self, store)
        reset_pruned(self, self._trainable_variables)
        return result

    return load_own_variables


_WRAPS: dict[str, Wrap] = {"apply": _apply, "finalize_variable_values": _finalize, "load_own_variables": _load}


def _masked(gradient: Any, variable: Any) -> Any:
    mask = mask_of(variable)
    return gradient if mask is None or gradient is None else mask.gradient(gradient)
