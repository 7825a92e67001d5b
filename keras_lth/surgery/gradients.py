"""Set the gradients of pruned weights to 0 for every optimizer, wherever it is stored.

An optimizer may belong to the model, to an enclosing model, to a wrapper, or to a hand-written loop. Its `apply` masks
the gradients of masked variables first. Otherwise clipping by norm would include gradients of pruned weights, and
averages and moments would accumulate them.
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
    """Set the gradients of pruned weights to 0, for your own clipping or norms before ``optimizer.apply``.

    ``gradients`` are those of ``variables``, in the same order, as ``tape.gradient(loss, variables)`` returns them:
    tensors, ``IndexedSlices`` or None. The gradient of a variable without a mask does not change. Optimizers mask
    gradients themselves, so a loop needs this only if it uses gradients first (clipping by hand, SAM).

    Raises:
        ValueError: the numbers of gradients and variables differ.
    """
    gradients, variables = list(gradients), list(variables)
    if len(gradients) != len(variables):
        raise ValueError(
            f"masked_gradients got {len(gradients)} gradients for {len(variables)} variables: pass the list that "
            "tape.gradient(loss, variables) returns, and the same variables"
        )
    return [_masked(gradient, variable) for gradient, variable in zip(gradients, variables, strict=True)]


def teach_optimizers() -> None:
    """Make every Keras optimizer mask gradients and averages."""
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
            # Keras reads the constraint of its own variables; a raw variable has none that could be set.
            if not isinstance(weight, keras.Variable):
                weight.assign(mask.keep(weight))
        return result

    return apply


def _finalize(before: Any) -> Any:
    def finalize_variable_values(self: Any, var_list: Sequence[Any]) -> Any:
        # Averages are written without the variables' own `assign`.
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
