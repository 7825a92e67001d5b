"""Find the holders of a variable: every live model, and every function that was traced with it.

A mask belongs to a variable, and several models may hold the variable: the model around a sub-model, a GAN beside its
generator, a second model with a shared layer. The variable knows none of them, so all live models are searched, once
for each newly masked or unmasked variable and not at every change of a mask.
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
    """Return every live Keras model that holds one of ``variables`` and was trained, or existed at the first call."""
    wanted = {id(variable) for variable in variables}
    return [model for model in TRAINED if any(id(variable) in wanted for variable in variables_in(model))]


def trace_again(variables: Iterable[keras.Variable | tf.Variable]) -> None:
    """Let every ``tf.function`` that was traced with one of ``variables`` be traced again at its next call.

    This includes a model's train function in the middle of a ``fit``. An existing trace cannot change, so a concrete
    function that is kept somewhere stays unmasked; the values it writes are detected when the variable is read.
    """
    handles = {id(handle) for variable in variables for handle in _handles(variable)}
    for function in _FUNCTIONS:
        configurations = (function._variable_creation_config, function._no_variable_creation_config)
        caches = [one.function_cache for one in configurations if one is not None]
        traces = [trace for cache in caches for trace in cache.values()]
        # Not `captured_inputs`, which calls the deferred ones: with several workers each call takes the number of a
        # collective operation, and workers that have not collected the same garbage would wait without end.
        if any(id(tensor) in handles for trace in traces for tensor in trace.graph.external_captures):
            for cache in caches:
                cache.clear()


def variables_in(model: keras.Model) -> list[keras.Variable]:
    """Return the variables of ``model``."""
    # A model whose __init__ has not yet called super().__init__() has no layers.
    return model.variables if "_layers" in vars(model) else []


def _handles(variable: keras.Variable | tf.Variable) -> list[Any]:
    raw: Any = variable._value if isinstance(variable, keras.Variable) else variable
    return [one.handle for one in (getattr(raw, "values", None) or (raw,)) if one is not None]
