"""Find, call and describe criteria that are given by name or as functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from keras_lth.criteria.activation import Activation
from keras_lth.criteria.gradient import Gradient
from keras_lth.criteria.grasp import GraSP
from keras_lth.criteria.magnitude import Magnitude
from keras_lth.criteria.momentum import Momentum
from keras_lth.criteria.obs import OBD, OBS
from keras_lth.criteria.random import Random
from keras_lth.criteria.snip import FORCE, SNIP
from keras_lth.criteria.synflow import SynFlow
from keras_lth.criteria.threshold import Threshold
from keras_lth.names import hint
from keras_lth.surgery import whole

Criterion = Callable[..., Mapping[str, Any]]
NAMES: dict[str, Callable[..., Criterion]] = {
    "magnitude": Magnitude, "random": Random, "snip": SNIP, "grasp": GraSP, "synflow": SynFlow, "force": FORCE,
    "obd": OBD, "obs": OBS,
    "activation": Activation, "momentum": Momentum, "gradient": Gradient, "threshold": Threshold,
}  # fmt: skip


def named(criterion: Any, **options: Any) -> Criterion:
    """Return a criterion: one of this package by name, made with ``options``, or any callable itself.

    Raises ``ValueError`` for an unknown name, with similar ones, and ``TypeError`` for an object that is not callable.
    """
    if isinstance(criterion, str):
        if criterion not in NAMES:
            raise ValueError(
                f"criterion={criterion!r} is not a criterion: {hint(criterion, NAMES)} A function of (model) works too."
            )
        return NAMES[criterion](**options)
    if isinstance(criterion, type) or not callable(criterion):
        raise TypeError(
            f"criterion must be the name of a criterion, or a function of (model) or (model, x, y) that returns "
            f"{{weight path: array}}, not {criterion!r}."
        )
    return criterion


def needs_data(criterion: Criterion) -> bool:
    """Return whether a criterion takes ``(model, x, y)`` instead of the model alone."""
    taken = inspect.signature(criterion).parameters.values()
    places = [one for one in taken if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD, one.VAR_POSITIONAL)]
    return len(places) > 1


def scored(criterion: Criterion, model: Any, x: Any = None, y: Any = None, **options: Any) -> dict[str, np.ndarray]:
    """Return the scores of a model as NumPy arrays; pass ``x`` and ``y`` to a criterion that takes them.

    Raises ``TypeError`` if the criterion does not return a mapping.
    """
    with whole(model, run=needs_data(criterion)):
        found = criterion(model, *((x, y) if needs_data(criterion) else ()), **options)
    if not isinstance(found, Mapping):
        raise TypeError(f"the criterion {described(criterion)} returned {type(found).__name__}, not {{path: array}}.")
    return {path: np.asarray(array) for path, array in found.items()}


def described(criterion: Any) -> str:
    """Return a criterion's description for tickets and settings: name, class with options, or module:function."""
    if isinstance(criterion, str):
        return criterion
    kind = type(criterion)
    function = getattr(criterion, "function", criterion)  # of one that has a version
    if inspect.isroutine(function):
        version = f" (version {criterion.version})" if hasattr(criterion, "version") else ""
        return f"{function.__module__}:{function.__qualname__}{version}"
    options = {name: value for name, value in vars(criterion).items() if not name.startswith("_")}
    listed = ", ".join(f"{name}={value!r}" for name, value in options.items() if value is not None)
    if kind.__module__.startswith("keras_lth."):
        return f"{kind.__name__.lower()}({listed})" if listed else kind.__name__.lower()
    return f"{kind.__module__}:{kind.__qualname__}({listed})"
