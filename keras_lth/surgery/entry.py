"""Check every model argument: a built Keras 3 model on TensorFlow, or one sentence on what it is instead."""

from __future__ import annotations

import os
from typing import Any

import keras

from keras_lth.names import few
from keras_lth.surgery.kinds import has_kind
from keras_lth.surgery.paths import entries, layers

__all__ = ["check_built", "check_model", "unbuilt"]


def check_model(model: Any) -> None:
    """Raise unless ``model`` is a Keras 3 model on TensorFlow.

    Raises:
        TypeError: another object; says what it is and what to pass.
    """
    if keras.config.backend() != "tensorflow":
        raise TypeError(
            f"Keras runs on {keras.config.backend()!r}, but keras_lth needs TensorFlow: set the environment "
            'variable KERAS_BACKEND="tensorflow" before Keras is imported'
        )
    if not isinstance(model, keras.Model):
        raise TypeError(f"pass a built Keras 3 model, not {_what_it_is(model)}")


def check_built(model: keras.Model) -> None:
    """Raise if no layer of ``model`` has weights yet.

    Raises:
        ValueError: names the layers without weights, and how to build them.
    """
    if any(not entry.seed for entry in entries(model)):
        return
    left = unbuilt(model)
    if not left and model.built:
        return
    no_call = type(model).call is keras.Model.call
    how = "call each on a batch, because the model has no call()" if no_call else "call the model on a batch: model(x)"
    if isinstance(model, keras.Sequential):
        how = "call model.build((None, …)) with the shape of a batch, add a keras.Input first, or call it on a batch"
    which = f"its layers {few(map(repr, left))} have no weights yet" if left else "it has no weights yet"
    raise ValueError(f"model {model.name!r} is not built, {which}: {how}")


def unbuilt(model: keras.layers.Layer) -> list[str]:
    """Return the paths of layers that will have weights but have none yet."""
    found: list[str] = []
    for path, layer in layers(model):
        inner = isinstance(layer, keras.Model) or layer._layers
        own = not type(layer).__module__.startswith("keras.") and type(layer).build is not keras.layers.Layer.build
        if path and not layer.built and not inner and (own or has_kind(layer)):
            found.append(path)
    return found


def _what_it_is(model: Any) -> str:
    kind = type(model)
    packages = {cls.__module__.split(".")[0] for cls in kind.__mro__}
    name = f"{kind.__module__}.{kind.__name__}"
    if model is None:
        return "None: pass the model itself (did the function that creates it forget to return it?)"
    if isinstance(model, (str, os.PathLike)):
        return f"the path {os.fspath(model)!r}: load it first, with keras.saving.load_model"
    if isinstance(model, type):
        return f"the class {model.__name__}: create an instance, {model.__name__}(…)"
    if isinstance(model, keras.layers.Layer):
        return f"the layer {model.name!r} ({kind.__name__}): pass its model, or keras.Sequential([layer])"
    if "tf_keras" in packages or any(cls.__module__.startswith("tensorflow.python.keras") for cls in kind.__mro__):
        return f"a model of Keras 2 ({name}): create it with Keras 3 (import keras, without TF_USE_LEGACY_KERAS)"
    if "torch" in packages:
        return f"a model of PyTorch ({name}): create it with Keras 3 on TensorFlow"
    if isinstance(model, (list, tuple, dict, set)):
        return f"a {kind.__name__}: pass one model at a time"
    if callable(model):
        return f"{name}: if it creates a model, call it first"
    return f"an object of type {name}"
