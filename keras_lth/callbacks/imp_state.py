"""What an ``IMPCallback`` knows inside a round, beside where it is."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_lth.callbacks.levels import Level
from keras_lth.callbacks.rounds_state import pack, unpack, within
from keras_lth.callbacks.state import decode, encode
from keras_lth.masks import Masks

State = dict[str, Any]
Arrays = dict[str, np.ndarray]


def get(callback: Any, state: State, arrays: Arrays) -> tuple[State, Arrays]:
    """The state of the rounds with the finished levels, their masks, and the logs of the training under way."""
    levels = {
        "history": [encode(level.as_dict()) for level in callback.history],
        "masks": len(callback._masks),
        "kept": {str(round): snapshot.step for round, snapshot in callback._kept.items()},
        "seen": encode(callback._seen),
        "logs": encode(callback._logs),
        "rows": encode(callback._rows),
        "curves": encode(callback._curves),
        "seconds": time.perf_counter() - callback._began,
    }
    held = dict(arrays)
    for round, masks in enumerate(callback._masks):
        held |= {f"level/{round}/{path}": mask for path, mask in masks.items()}
    for round, snapshot in callback._kept.items():
        held |= pack(f"kept/{round}", snapshot)
    return {**state, "levels": levels}, held


def set(callback: Any, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Give a callback what `get` took; its folder may be ahead, and gets the lines that belong to this state."""
    levels = state["levels"]
    callback.history = [Level.from_dict(decode(row)) for row in levels["history"]]
    callback._masks = [Masks(within(f"level/{round}", arrays)) for round in range(levels["masks"])]
    callback._kept = {int(round): unpack(f"kept/{round}", step, arrays) for round, step in levels["kept"].items()}
    callback._seen, callback._logs = decode(levels["seen"]), decode(levels["logs"])
    callback._rows, callback._curves = decode(levels["rows"]), decode(levels["curves"])
    callback._began = time.perf_counter() - levels["seconds"]
