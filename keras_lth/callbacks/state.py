"""The state of a callback: what a resumed training must restore to continue as if it had never stopped.

A callback may define ``get_state() → (JSON-able dict, arrays)`` and ``set_state(state, arrays)``. Keras' own callbacks
do not; for them every plain attribute is saved (numbers, strings, lists and dictionaries of them, arrays). Their
counters and memory consist of such attributes (EarlyStopping's best weights, the rates that ReduceLROnPlateau set).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_lth.tickets import Snapshot

__all__ = ["get_state", "pack", "set_state", "unpack", "within"]

State = dict[str, Any]
Arrays = dict[str, np.ndarray]
# How Keras' own callbacks compare a monitored log; without one, they set it and flip the sign of `min_delta`.
_OPERATIONS = {"less": keras.ops.less, "greater": keras.ops.greater}
# Set by Keras at the start of every training.
_GIVEN = ("_model", "model", "params", "validation_data")


def get_state(callback: keras.callbacks.Callback) -> tuple[State, Arrays]:
    """Return the state of a callback: a JSON-able dictionary, and arrays by name."""
    if hasattr(callback, "get_state"):
        return callback.get_state()
    state: State = {}
    arrays: Arrays = {}
    for name, value in vars(callback).items():
        if name in _GIVEN:
            continue
        if isinstance(value, np.ndarray):
            arrays[name] = value
        elif any(value is operation for operation in _OPERATIONS.values()):
            state[name] = {"operation": value.__name__}
        elif isinstance(value, list) and value and all(isinstance(item, np.ndarray) for item in value):
            arrays |= {f"{name}/{i}": item for i, item in enumerate(value)}
            state[name] = {"arrays": len(value)}
        elif (plain := encode(value)) is not None:
            state[name] = {"plain": plain}
    return state, arrays


def set_state(callback: keras.callbacks.Callback, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Restore the state that `get_state` returned."""
    if hasattr(callback, "set_state"):
        callback.set_state(state, arrays)
        return
    for name, value in arrays.items():
        if "/" not in name:
            setattr(callback, name, value)
    for name, held in state.items():
        if "arrays" in held:
            setattr(callback, name, [arrays[f"{name}/{i}"] for i in range(held["arrays"])])
        elif "operation" in held:
            setattr(callback, name, _OPERATIONS[held["operation"]])
        else:
            setattr(callback, name, decode(held["plain"]))


def encode(value: Any) -> Any:
    """Return a JSON-able form that keeps types, infinities and NaN; None if there is none."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        return {"none": True}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        items = [encode(item) for item in value]
        return None if None in items else {"tuple" if isinstance(value, tuple) else "list": items}
    if isinstance(value, dict):
        pairs = [[encode(key), encode(item)] for key, item in value.items()]
        return None if any(None in pair for pair in pairs) else {"dict": pairs}
    return None


def decode(value: Any) -> Any:
    """Return the value that `encode` was given."""
    if not isinstance(value, dict):
        return value
    ((kind, held),) = value.items()
    if kind == "none":
        return None
    if kind == "float":
        return float(held)
    if kind == "dict":
        return {decode(key): decode(item) for key, item in held}
    items = [decode(item) for item in held]
    return tuple(items) if kind == "tuple" else items


def pack(name: str, snapshot: Snapshot) -> Arrays:
    """Return the arrays of a snapshot, prefixed with a name."""
    return {f"{name}/{key}": value for key, value in snapshot.named()}


def unpack(name: str, step: int, arrays: Mapping[str, np.ndarray]) -> Snapshot:
    """Rebuild the snapshot that `pack` took apart."""
    return Snapshot.from_named(within(name, arrays), step)


def within(name: str, arrays: Mapping[str, np.ndarray]) -> Arrays:
    """Return the arrays with a name as prefix, without the prefix."""
    return {path[len(name) + 1 :]: value for path, value in arrays.items() if path.startswith(f"{name}/")}
