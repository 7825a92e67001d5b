"""Masks that move while a plan trains: movers by name, as values of a plan, run between the calls of a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras_lth import schedules
from keras_lth.callbacks.gradual import GradualPruning
from keras_lth.callbacks.mover import Mover
from keras_lth.callbacks.sparse_training import DSR, SET, SNFS, RigL, StaticSparse
from keras_lth.names import hint

__all__ = ["MOVERS", "mover_of"]

MOVERS: Mapping[str, Any] = {
    "static": StaticSparse, "set": SET, "rigl": RigL, "snfs": SNFS, "dsr": DSR, "gradual": GradualPruning,
}  # fmt: skip
_SCHEDULES: Mapping[str, Any] = {
    "constant": schedules.Constant, "one_shot": schedules.OneShot, "polynomial": schedules.Polynomial,
    "periodic": schedules.Periodic,
}  # fmt: skip
_TIMES = ("begin", "end", "every", "until", "at")


def mover_of(given: Mapping[str, Any]) -> Mover:
    """Make a mover of ``{"name": "rigl", "density": 0.1, "every": 100, "until": 9_000}``.

    The schedule of "gradual" is ``{"name": "polynomial", "initial": 1.0, …}``. Times are steps of the trajectory: it
    has no end of which they could be a share.

    Raises:
        ValueError: an unknown name, a time that is not in steps, a time without a value where the default is a share.
    """
    options = {name: value for name, value in given.items() if name != "name"}
    mover = _named(MOVERS, given["name"], "mover")(**_made(options), verbose=0)
    held = (mover, getattr(mover, "schedule", None))
    times = {name: value for one in held for name in _TIMES if (value := getattr(one, name, None)) is not None}
    for name, time in times.items():
        if getattr(time, "unit", "steps") != "steps":
            raise ValueError(
                f"mover {given['name']!r} needs {name} in steps, not {time}: a trajectory has no epochs or end"
            )
    found: Mover = mover
    return found


def _made(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, with a schedule made of its description."""
    made = dict(options)
    if isinstance(held := made.get("schedule"), Mapping):
        rest = {name: value for name, value in held.items() if name != "name"}
        made["schedule"] = _named(_SCHEDULES, held["name"], "schedule")(**rest)
    return made


def _named(known: Mapping[str, Any], name: str, what: str) -> Any:
    if name not in known:
        raise ValueError(f"{what} {name!r} is not known: {hint(name, known)}")
    return known[name]
