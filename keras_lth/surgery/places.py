"""The optimizers of a model, each with the place of its variables in a snapshot."""

from __future__ import annotations

import gc
import re
from collections.abc import Mapping

import keras
import numpy as np

from keras_lth.surgery.held import Held, live_optimizers
from keras_lth.surgery.optimizers import leaves, scalars, slots
from keras_lth.surgery.paths import variables
from keras_lth.tickets import Snapshot

__all__ = [
    "START",
    "build",
    "groups",
    "named",
    "outermost",
    "paths_by_id",
    "refuse_unknown",
    "steps_done",
    "weights_of",
    "with_inner",
]

START = "correction_start"
_OF = "of/"
# The keys of an optimizer that is not the model's own begin with the place where it was found and, inside a wrapper,
# its number.
_KEY = re.compile(r"((?:(?:@[^/]+|optimizer_\d+)/)?(?:inner_\d+/)?)(.+)")


def paths_by_id(model: keras.Model) -> dict[int, str]:
    """Return the path by the id of a variable, and of the TensorFlow variable in it."""
    return {id(one): path for path, variable in variables(model).items() for one in (variable, variable._value)}


def outermost(model: keras.Model, things: Held, *, elsewhere: bool = True) -> dict[str, keras.optimizers.Optimizer]:
    """Return key prefix → optimizer: no prefix for the model's own, the place for others.

    ``elsewhere=False`` omits optimizers that no part of the model holds, which need a search of the whole process.
    """
    found = dict(things.optimizers)
    own = found.pop("optimizer", None)
    live = _live(model, things) if elsewhere else {}
    if own is None and len(found or live) == 1:
        ((_, own),) = (found or live).items()
        found, live = ({}, live) if found else (found, {})
    result = {} if own is None else {"": own}
    return result | {f"@{path.replace('/', '.')}/": one for path, one in {**found, **live}.items()}


def _live(model: keras.Model, things: Held) -> dict[str, keras.optimizers.Optimizer]:
    """Optimizers that update weights of ``model`` but that no part of it holds."""
    known = {id(leaf) for outer in things.optimizers.values() for leaf in leaves(outer)}

    def others() -> list[keras.optimizers.Optimizer]:
        return [one for one in live_optimizers(model) if id(one) not in known]

    if not others():
        return {}
    gc.collect()  # optimizers left by an earlier compile() are in reference cycles
    found: dict[str, keras.optimizers.Optimizer] = {}
    for optimizer in others():
        name = f"held_elsewhere.{type(optimizer).__name__}"
        number = sum(1 for other in found if other.split("-")[0] == name)
        found[f"{name}-{number}" if number else name] = optimizer
    return found


def with_inner(prefix: str, outer: keras.optimizers.Optimizer) -> list[tuple[str, keras.optimizers.Optimizer]]:
    """Return an optimizer and those inside it, each with the prefix of its keys."""
    return [(f"{prefix}inner_{depth}/" if depth else prefix, leaf) for depth, leaf in enumerate(leaves(outer))]


def named(paths: Mapping[int, str], place: str, leaf: keras.optimizers.Optimizer) -> dict[str, keras.Variable]:
    """Return optimizer variables by position and name, because Keras' own names contain instance counters."""
    names = {id(variable): name.strip("_") for name, variable in scalars(leaf).items()}
    names |= {id(leaf._iterations): "iteration", id(leaf._learning_rate): "learning_rate"}
    for name, of in slots(leaf).items():
        for slot, weight in zip(of, leaf._trainable_variables, strict=True):
            names[id(slot)] = f"{name.strip('_')}/{paths.get(id(weight), weight.name)}"
    return {f"{place}{i:03d}/{names.get(id(v), 'variable')}": v for i, v in enumerate(leaf._variables)}


def weights_of(paths: Mapping[int, str], place: str, leaf: keras.optimizers.Optimizer) -> dict[str, np.ndarray]:
    """Return the weights that an optimizer updates: path → position."""
    weights = leaf._trainable_variables if leaf.built else []
    names = [paths.get(id(weight), f"?{weight.name}") for weight in weights]
    return {f"{place}{_OF}{name}": np.asarray(number, np.int64) for number, name in enumerate(names)}


def groups(snapshot: Snapshot) -> dict[str, dict[str, np.ndarray]]:
    """Split the optimizer part of a snapshot: prefix → key → value."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, value in snapshot.optimizer.items():
        match = _KEY.fullmatch(name)
        if match is not None:
            found.setdefault(match[1], {})[match[2]] = value
    return found


def build(
    model: keras.Model,
    found: Mapping[str, keras.optimizers.Optimizer],
    stored: Mapping[str, Mapping[str, np.ndarray]],
) -> None:
    """Build the optimizers that were built when the snapshot was taken, each on the weights that it had."""
    by_path = variables(model)

    def one(place: str, leaf: keras.optimizers.Optimizer, else_on: list[keras.Variable]) -> None:
        group = stored.get(place, {})
        order = {key[len(_OF) :]: int(number) for key, number in group.items() if key.startswith(_OF)}
        unknown = [path for path in order if path not in by_path]
        more = sum(key[:3].isdigit() for key in group) > len(leaf._variables)
        if leaf.built or not (order or (more and else_on)):
            return
        if unknown:
            raise ValueError(
                f"optimizer {leaf.name!r} updated weights that model {model.name!r} does not have ({unknown[:3]}): "
                f"first call optimizer.build(variables)"
            )
        weights = [by_path[path] for path in sorted(order, key=order.__getitem__)] or else_on
        with model.distribute_strategy.scope():
            leaf.build(weights)

    for prefix, outer in found.items():
        one(prefix, outer, model.trainable_variables if outer is getattr(model, "optimizer", None) else [])
        for place, leaf in with_inner(prefix, outer)[1:]:
            one(place, leaf, [])


def refuse_unknown(model: keras.Model, snapshot: Snapshot, places: list[str]) -> None:
    """Raise for slots of an optimizer that the model does not have."""
    for place in {match[1]: None for key in snapshot.slots if (match := _KEY.fullmatch(key))}:
        if place not in places:
            where, there = (one.rstrip("/") or "optimizer" for one in (place, ", ".join(places)))
            raise ValueError(
                f"the snapshot has the slots of an optimizer at {where!r}, but model {model.name!r} has none there "
                f"(it has: {there}): first set it as an attribute of the model, or skip the slots with "
                f"restore_optimizer=False"
            )


def steps_done(found: Mapping[str, keras.optimizers.Optimizer]) -> int:
    """Return the number of training steps, from the first optimizer that has made any."""
    # The model's own comes first. compile() always sets one, even if a train_step uses others.
    for optimizer in found.values():
        count = max(int(leaf._iterations.numpy()) for leaf in leaves(optimizer))
        if count:
            return count
    return 0
