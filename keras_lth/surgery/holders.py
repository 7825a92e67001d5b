"""Who holds a variable: every live model, and every function that was traced with it.

A mask belongs to a variable, and a variable to more than one model: the model around a sub-model, a GAN beside its
generator, a second model on a shared layer. None of them is known from the variable, so all live ones are asked; once
for each newly masked or unmasked variable, not at every change of a mask.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf

from keras_lth.surgery.teaching import Living

__all__ = ["TRAINED", "models_with", "trace_again", "variables_in"]

TRAINED = Living(keras.Model)
_FUNCTIONS = Living(type(tf.function(lambda: None)), "__init__")


def models_with(variables: Iterable[keras.Variable]) -> list[keras.Model]:
    """Every live Keras model that holds one of ``variables`` and has been trained, or was there at the first call."""
    wanted = {id(variable) for variable in variables}
    return [model for model in TRAINED if any(id(variable) in wanted for variable in variables_in(model))]


def trace_again(variables: Iterable[keras.Variable | tf.Variable]) -> None:
    """Let every ``tf.function`` that was traced with one of ``variables`` be traced again at its next call.

    Also a model's train function in the middle of a ``fit``. What a trace holds is fixed, so a concrete function that
    somebody keeps stays as it is: what it writes past a mask is noticed when the variable is read.
    """
    handles = {id(handle) for variable in variables for handle in _handles(variable)}
    for function in _FUNCTIONS:
        configurations = (function._variable_creation_config, function._no_variable_creation_config)
        caches = [one.function_cache for one in configurations if one is not None]
        traces = [trace for cache in caches for trace in cache.values()]
        if any(id(tensor) in handles for trace in traces for tensor in trace.captured_inputs):
            for cache in caches:
                cache.clear()


def variables_in(model: keras.Model) -> list[keras.Variable]:
    """The variables of ``model``."""
    # A model whose own __init__ has not come to super().__init__() has no layers yet.
    return model.variables if "_layers" in vars(model) else []


def _handles(variable: keras.Variable | tf.Variable) -> list[Any]:
    raw: Any = variable._value if isinstance(variable, keras.Variable) else variable
    return [one.handle for one in (getattr(raw, "values", None) or (raw,)) if one is not None]
