"""Find what a model holds besides its weights: optimizers, variables that Keras does not list, random generators.

The search walks over attributes, containers, plain objects, and what the model's own methods take from their closures
and modules. Each object found has a path by which a second instance, or another process, finds its counterpart.
"""

from __future__ import annotations

import collections
import contextlib
import dis
import functools
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

from keras_lth.surgery.paths import entries, layers
from keras_lth.surgery.teaching import Living

__all__ = ["Held", "held", "inside", "live_optimizers"]

# The walk does not enter objects of these packages; their training state is recognised by type.
_LIBRARIES = frozenset({"builtins", "functools", "keras", "keras_lth", "numpy", "tensorflow", "tf_keras", "weakref"})
_PLAIN = (str, bytes, int, float, complex, bool, type(None), type, types.ModuleType)
_PLAIN_TYPES = frozenset(_PLAIN)
# Keras' own lists of objects that the walk visits under their own names.
_BOOKS = frozenset({
    "_inbound_nodes", "_layers", "_losses", "_metrics", "_nodes", "_nodes_by_depth", "_non_trainable_variables",
    "_operations", "_operations_by_depth", "_outbound_nodes", "_seed_generators", "_tracked", "_tracker",
    "_trainable_variables", "_variables",
})  # fmt: skip
_OPTIMIZERS = Living(keras.optimizers.Optimizer, "build")
_DEPTH = 8
_LONG = 10_000  # longer lists are data
_TABLES = (tf.lookup.experimental.MutableHashTable, tf.lookup.experimental.DenseHashTable)


@dataclass
class Held:
    """The objects found, by path.

    Attributes:
        optimizers: the outermost ones.
        state: keras and TensorFlow variables that are neither weights nor an optimizer's own.
        noise: the states of seed generators that no layer lists, and of ``tf.random.Generator``.
        refused: objects whose state cannot be saved: path → what it is.
    """

    optimizers: dict[str, keras.optimizers.Optimizer] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    noise: dict[str, Any] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def held(model: keras.Model) -> Held:
    """Return everything that ``model``, its layers and its own methods hold besides weights."""
    tracked = list(layers(model))
    walk = _Walk(tracked)
    for path, layer in tracked:
        walk.attributes(layer, path, 0)
        walk.methods(layer, path)
    found = walk.found
    owned = {id(variable) for one in found.optimizers.values() for variable in one._variables}
    found.state = {path: variable for path, variable in found.state.items() if id(variable) not in owned}
    within = {id(inner) for outer in found.optimizers.values() for inner in inside(outer)}
    found.optimizers = {path: one for path, one in found.optimizers.items() if id(one) not in within}
    return found


def inside(optimizer: keras.optimizers.Optimizer) -> list[keras.optimizers.Optimizer]:
    """Return the optimizers that ``optimizer`` wraps, in any attribute and at any depth, outer ones first."""
    walk = _Walk()
    walk.attributes(optimizer, "", 0)
    return list(walk.found.optimizers.values())


def live_optimizers(model: keras.Model) -> list[keras.optimizers.Optimizer]:
    """Return every built Keras optimizer of the process that updates a variable of ``model``.

    This is the last resort for an optimizer that only a hand-written loop or a callback holds. The order does not
    depend on memory addresses.
    """
    paths = {id(thing): entry.path for entry in entries(model) for thing in (entry.variable, entry.variable._value)}
    found = [
        one
        for one in _OPTIMIZERS
        if getattr(one, "built", False) and any(id(v) in paths for v in one._trainable_variables)
    ]

    def order(optimizer: keras.optimizers.Optimizer) -> tuple[str, list[str], str]:
        handled = [paths.get(id(weight), "") for weight in optimizer._trainable_variables]
        return type(optimizer).__name__, handled, optimizer.name

    wrapped = {id(inner) for outer in found for inner in inside(outer)}
    return sorted((one for one in found if id(one) not in wrapped), key=order)


class _Walk:
    """Visits each object once."""

    def __init__(self, tracked: Sequence[tuple[str, keras.layers.Layer]] = ()) -> None:
        self.found = Held()
        self.seen: set[int] = set()
        self.kept: list[
            Any
        ] = []  # keeps temporary objects alive, such as items of a proxy, so that no address is reused
        self.known: set[int] = set()
        self.layers = {id(layer) for _, layer in tracked}
        for _, layer in tracked:
            self.know([*layer._trainable_variables, *layer._non_trainable_variables])
            self.know(generator.state for generator in layer._seed_generators)

    def know(self, variables: Any) -> None:
        """Mark ``variables`` as listed elsewhere."""
        self.known |= {id(thing) for variable in variables for thing in (variable, getattr(variable, "_value", None))}

    def attributes(self, owner: Any, path: str, depth: int) -> None:
        """Visit what ``owner`` holds, public attributes first."""
        own = dict(vars(owner)) if hasattr(owner, "__dict__") else {}
        kind: Any = type(owner)
        own |= {name: getattr(owner, name) for name in _slot_names(kind) if hasattr(owner, name)}
        names = [name for name, value in own.items() if type(value) not in _PLAIN_TYPES and name not in _BOOKS]
        for name in sorted(names, key=lambda name: (name.startswith("_"), name)):
            if not name.startswith("_self_"):
                self.visit(own[name], _join(path, name.lstrip("_")), depth + 1, owner)

    def methods(self, layer: keras.layers.Layer, path: str) -> None:
        """Visit what methods that are not Keras' own take from their closures and modules."""
        for kind in type(layer).__mro__:
            if _library(kind) not in _LIBRARIES:
                for name, value in sorted(vars(kind).items()):
                    self.function(value, _join(path, name), 0, layer)

    def visit(self, value: Any, path: str, depth: int, owner: Any) -> None:
        """Record ``value``, or visit what it holds."""
        if isinstance(value, _PLAIN) or id(value) in self.seen or depth > _DEPTH:
            return
        self.seen.add(id(value))
        self.kept.append(value)
        if self._take(value, path, depth, owner):
            return
        if isinstance(value, Mapping):
            for number, (key, item) in enumerate(list(value.items())):
                self.visit(item, _join(path, key if isinstance(key, (str, int)) else number), depth + 1, owner)
        elif isinstance(value, (list, tuple, set, collections.deque)):
            for number, item in enumerate([] if len(value) > _LONG else list(value)):
                self.visit(item, _join(path, number), depth + 1, owner)
        elif _is_function(value):
            self.function(value, path, depth, owner)
        elif _library(type(value)) not in _LIBRARIES:
            self._plain(value, path, depth)
        elif _applies(value):
            self.found.refused[path] = f"{type(value).__name__}, an optimizer that is not one of Keras 3"

    def _take(self, value: Any, path: str, depth: int, owner: Any) -> bool:
        """Handle ``value`` if its kind is known; return whether it is."""
        if isinstance(value, keras.optimizers.Optimizer):
            self.found.optimizers[path] = value
            self.know(value._variables)
            self.know(value._trainable_variables)
            self.attributes(value, path, depth)
        elif isinstance(value, (keras.Variable, tf.Variable)):
            if id(value) not in self.known:
                self.know([value])
                self.found.state[path] = value
        elif isinstance(value, keras.random.SeedGenerator):
            if id(value.state) not in self.known:
                self.know([value.state])
                self.found.noise[_join(path, "seed_generator_state")] = value.state
        elif isinstance(value, tf.random.Generator):
            self.know([value.state])
            self.found.noise[_join(path, "generator_state")] = value.state
        elif isinstance(value, keras.layers.Layer):
            self._layer(value, path, depth)
        elif isinstance(value, _TABLES):
            if _library(type(owner)) != "keras":
                self.found.refused[path] = f"a {type(value).__name__}"
        elif isinstance(value, tf.data.Iterator):
            self.found.refused[path] = "an iterator of tf.data"
        else:
            return isinstance(value, (keras.metrics.Metric, tf.Tensor))
        return True

    def _layer(self, layer: keras.layers.Layer, path: str, depth: int) -> None:
        """Handle a layer that Keras does not track: all of it is state. A tracked one is visited at its own place."""
        if id(layer) in self.layers or not self.layers:
            return
        new = [(inner_path, inner) for inner_path, inner in layers(layer) if id(inner) not in self.layers]
        self.layers |= {id(inner) for _, inner in new}
        for inner_path, inner in new:
            place = _join(path, inner_path) if inner_path else path
            for variable in [*inner._trainable_variables, *inner._non_trainable_variables]:
                self.visit(variable, self._free(_join(place, variable.name)), depth, inner)
            for generator in inner._seed_generators:
                self.visit(generator, place, depth, inner)
            self.attributes(inner, place, depth)

    def _plain(self, value: Any, path: str, depth: int) -> None:
        before = len(self.found.optimizers)
        self.attributes(value, path, depth)
        if _applies(value) and len(self.found.optimizers) == before and not self._wraps_one(value):
            self.found.refused[path] = f"{type(value).__name__}, an optimizer that is not one of Keras 3"

    def _wraps_one(self, value: Any) -> bool:
        """Whether ``value`` contains a Keras optimizer that was found before."""
        other = _Walk()
        other.attributes(value, "", 0)
        return bool(other.found.optimizers)

    def function(self, value: Any, path: str, depth: int, owner: Any) -> None:
        """Visit what a function uses from outside, unless it belongs to a library."""
        if isinstance(value, functools.partial):
            for number, item in enumerate([value.func, *value.args, *value.keywords.values()]):
                self.visit(item, _join(path, number), depth + 1, owner)
            return
        value = getattr(value, "__wrapped__", value)
        value = getattr(value, "python_function", value)  # of a tf.function
        value = getattr(value, "__func__", getattr(value, "fget", getattr(value, "func", value)))
        if not isinstance(value, types.FunctionType) or _library(value) in _LIBRARIES or depth > _DEPTH:
            return
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # a cell that has no value yet
                self.visit(cell.cell_contents, _join(path, name), depth + 1, owner)
        for name in _globals(value.__code__):
            if name in value.__globals__:
                self._global(value.__globals__[name], _join(path, name), depth + 1, owner)

    def _global(self, value: Any, path: str, depth: int, owner: Any) -> None:
        # Another model in the module is not part of this one.
        if not isinstance(value, keras.layers.Layer):
            self.visit(value, path, depth, owner)

    def _free(self, path: str) -> str:
        number, free = 0, path
        while free in self.found.state:
            number += 1
            free = f"{path}_{number}"
        return free


def _globals(code: types.CodeType) -> list[str]:
    """The names that a function and its inner functions take from their module."""
    names = {one.argval for one in dis.get_instructions(code) if one.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names.update(_globals(constant))
    return sorted(names)


@functools.cache
def _slot_names(of: type) -> list[str]:
    names: list[str] = []
    for kind in of.__mro__:
        slots = vars(kind).get("__slots__", ())
        names += [slots] if isinstance(slots, str) else list(slots)
    return [name for name in names if not name.startswith("__")]


def _applies(value: Any) -> bool:
    """Whether ``value`` has the method that identifies optimizers."""
    return callable(getattr(type(value), "apply_gradients", None))


def _is_function(value: Any) -> bool:
    return isinstance(value, (types.FunctionType, types.MethodType, functools.partial)) or hasattr(
        type(value), "python_function"
    )


def _library(thing: Callable[..., Any] | type) -> str:
    return (getattr(thing, "__module__", None) or "builtins").split(".")[0]


def _join(path: str, name: str | int) -> str:
    return f"{path}/{name}" if path else str(name)
