"""The settings a model was compiled with, as plain values: what must match to resume a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_lth import surgery
from keras_lth.surgery.optimizers import leaves, optimizers_of


def settings_of(model: keras.Model) -> dict[str, Any]:
    """Return the optimizers with their settings, loss, metrics and the shapes of all variables, for JSON."""
    return {
        **{name: {"class": type(one).__name__, **_config(one)} for name, one in _optimizers(model).items()},
        "loss": _named(getattr(model, "loss", None)),
        "metrics": _named(_compiled(model, "_user_metrics")),
        "weighted_metrics": _named(_compiled(model, "_user_weighted_metrics")),
        "shapes": {path: list(shape) for path, shape in surgery.shapes(model).items()},
    }


def moved_rates(model: keras.Model) -> list[str]:
    """Return those settings of `settings_of` that callbacks may have changed: the rates of optimizers that have made
    steps.

    A resumed run restores its own.
    """
    return [f"{name}.learning_rate" for name, one in _optimizers(model).items() if int(one._iterations.numpy()) > 0]


def _optimizers(model: keras.Model) -> dict[str, keras.optimizers.Optimizer]:
    found = [one for outer in optimizers_of(model) for one in leaves(outer)]
    return {f"optimizer{f'_{number}' if number else ''}": one for number, one in enumerate(found)}


def _compiled(model: keras.Model, name: str) -> Any:
    return getattr(getattr(model, "_compile_metrics", None), name, None)


def _config(value: Any) -> dict[str, Any]:
    """The settings of an object except its name, which Keras numbers; a wrapped optimizer has its own settings."""
    if isinstance(value, keras.optimizers.Optimizer) and len(leaves(value)) > 1:
        return {}
    try:
        config = value.get_config()
    except Exception:  # a user's object without a config
        return {}
    return {key: _named(item) for key, item in config.items() if key != "name"}


def _named(value: Any) -> Any:
    """Plain values unchanged, single-precision numbers as they were written, objects by class and settings."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return float(str(np.float32(value)))
    if isinstance(value, Mapping):
        return {str(key): _named(item) for key, item in value.items() if key != "name"}
    if isinstance(value, (list, tuple)):
        return [_named(item) for item in value]
    if isinstance(value, (keras.losses.Loss, keras.metrics.Metric)):
        return {"class": type(value).__name__, **_config(value)}
    return getattr(value, "__name__", type(value).__name__)
