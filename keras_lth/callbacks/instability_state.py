"""What an ``InstabilityCallback`` knows inside a training, beside where it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_lth.callbacks.rounds_state import pack, unpack


def get(callback: Any, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state of the rounds with the ends so far and the fingerprints of the data orders."""
    prefix, watch = callback._prefix, callback._fingerprint
    watched = {
        "ends": [end.step for end in callback.ends],
        "batches": None if watch is None else list(watch.value()),  # None after the end
        "mark": list(callback._mark),
        "prefix": None if prefix is None else list(prefix),
        "orders": callback._orders.as_list(),
    }
    held = dict(arrays)
    for number, end in enumerate(callback.ends):
        held |= pack(f"end/{number}", end)
    return {**state, "watched": watched}, held


def set(callback: Any, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Give a callback that has begun its ``fit`` what `get` took."""
    watched = state["watched"]
    callback.ends = [unpack(f"end/{number}", step, arrays) for number, step in enumerate(watched["ends"])]
    if watched["batches"] is not None:
        callback._watch().restore(tuple(watched["batches"]))
    callback._mark = tuple(watched["mark"])
    callback._prefix = None if watched["prefix"] is None else tuple(watched["prefix"])
    callback._orders.take(watched["orders"])
    if len(callback.ends) == callback.runs:
        callback._compare()
