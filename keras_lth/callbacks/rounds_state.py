"""Where a ``RoundsCallback`` is inside a round, as plain values: what a training loop commits and goes on from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from keras_lth.callbacks.state import get_state, set_state
from keras_lth.rounds import Action, Position
from keras_lth.tickets import Snapshot

_PLAIN = ("_step", "_spent", "_order_seed", "_cut", "_epoch_start", "_epoch_iterations")
_SNAPSHOTS = ("captured", "origin")


def get(callback: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The position, the state of step k, and the states of the callbacks inside."""
    state: dict[str, Any] = {"position": asdict(callback.position), "steps": {}, "inner": []}
    arrays: dict[str, np.ndarray] = {}
    state["plain"] = {name: getattr(callback, name) for name in _PLAIN}
    state["rates"] = callback._rates.seen
    for name in _SNAPSHOTS:
        snapshot = getattr(callback, name)
        if snapshot is not None:
            state["steps"][name] = snapshot.step
            arrays |= pack(name, snapshot)
    for number, inner in enumerate(callback.callbacks):
        held, own = get_state(inner)
        state["inner"].append(held)
        arrays |= {f"inner/{number}/{name}": value for name, value in own.items()}
    return state, arrays


def set(callback: Any, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Give a callback that has begun its ``fit`` what `get` took; the callbacks inside begin if they have not."""
    idle = callback.machine.action(callback.position) in (Action.REWIND, Action.DONE)
    callback.position = Position(**state["position"])
    if idle and callback.machine.action(callback.position) not in (Action.REWIND, Action.DONE):
        callback._begin_inner(callback.position.round)
    for name, value in state["plain"].items():
        setattr(callback, name, value)
    callback._rates.seen = dict(state["rates"])
    for name in _SNAPSHOTS:
        step = state["steps"].get(name)
        setattr(callback, name, None if step is None else unpack(name, step, arrays))
    for number, (inner, held) in enumerate(zip(callback.callbacks, state["inner"], strict=True)):
        set_state(inner, held, within(f"inner/{number}", arrays))
    callback._first_epoch = None
    callback.model._initial_epoch = None


def pack(name: str, snapshot: Snapshot) -> dict[str, np.ndarray]:
    """The arrays of a snapshot under a name."""
    return {f"{name}/{key}": value for key, value in snapshot.named()}


def unpack(name: str, step: int, arrays: Mapping[str, np.ndarray]) -> Snapshot:
    """The snapshot that `pack` took apart."""
    return Snapshot.from_named(within(name, arrays), step)


def within(name: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays under a name, without it."""
    return {path[len(name) + 1 :]: value for path, value in arrays.items() if path.startswith(f"{name}/")}
