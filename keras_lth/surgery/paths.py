"""Structural paths: names of a model's variables that are the same for every instance of one architecture.

``variable.path`` differs between two instances of one model, so the keys of masks and snapshots are structural:
``dense/kernel``, ``dense_1/kernel``, ``encoder/blocks/0/kernel``. Layers that the user named keep their name, unless it
looks like one of Keras' own, because a loaded model cannot tell those apart. Each path also knows the names that Keras
shows, so that patterns match a weight by either (`keras_lth.names`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras

from keras_lth.names import WeightPath

__all__ = ["Entry", "entries", "layers", "variables"]

_UNNAMED = re.compile(r"^variable(_\d+)?$")


@dataclass(frozen=True)
class Entry:
    """One variable and its place; both paths are `WeightPath`. ``name``: its name in its layer."""

    path: str
    name: str
    variable: keras.Variable
    layer_path: str
    layer: keras.layers.Layer
    seed: bool


def variables(model: keras.Model) -> dict[str, keras.Variable]:
    """Return every variable of ``model`` by structural path: weights, statistics and seed-generator states.

    Metric and optimizer variables are not included. Shared layers appear once, at their first place. The order is that
    of construction, the same for two instances, for clones and for loaded copies.
    """
    return {entry.path: entry.variable for entry in entries(model)}


def entries(model: keras.Model) -> list[Entry]:
    """Return `variables` with the layers that own them."""
    seen: set[int] = set()
    found: list[Entry] = []
    taken: set[str] = set()
    walk = list(layers(model))
    owners = _owners(walk)

    def add(layer_path: WeightPath, layer: keras.layers.Layer, variable: keras.Variable, seed: bool, name: str) -> None:
        if id(variable) in seen or owners.get(id(variable), layer) is not layer:
            return
        seen.add(id(variable))
        path = _unique(_join(layer_path, name), taken)
        shown = [_join(outer, variable.name) for outer in layer_path.shown]
        found.append(Entry(WeightPath(path, [*shown, variable.path]), name, variable, layer_path, layer, seed))

    for layer_path, layer in walk:
        names = _variable_names(layer)
        for variable in [*layer._trainable_variables, *layer._non_trainable_variables]:
            add(layer_path, layer, variable, False, names.get(id(variable), _UNNAMED.sub("variable", variable.name)))
        for generator in layer._seed_generators:
            add(layer_path, layer, generator.state, True, "seed_generator_state")
    return found


def _variable_names(layer: keras.layers.Layer) -> dict[int, str]:
    """Attribute names for variables without a name of their own, which Keras numbers per process (``variable_7``)."""
    return {
        id(value): name.lstrip("_")
        for name, value in vars(layer).items()
        if isinstance(value, keras.Variable) and _UNNAMED.fullmatch(value.name)
    }


def _owners(walk: list[tuple[WeightPath, keras.layers.Layer]]) -> dict[int, keras.layers.Layer]:
    """The layer that created each variable.

    An outer layer may also keep a weight of an inner one under its own name (SpectralNormalization, tied embeddings),
    and Keras then tracks it in both.
    """
    owners: dict[int, tuple[str, keras.layers.Layer]] = {}
    for path, layer in walk:
        for variable in [*layer._trainable_variables, *layer._non_trainable_variables]:
            outer = owners.get(id(variable))
            if outer is None or path.startswith(f"{outer[0]}/" if outer[0] else ""):
                owners[id(variable)] = (path, layer)
    return {key: layer for key, (_, layer) in owners.items()}


def layers(model: keras.Model) -> Iterator[tuple[WeightPath, keras.layers.Layer]]:
    """Return every layer of ``model`` once, depth first, starting with the model itself at path ``""``."""
    yield from _walk(model, WeightPath("", [""]), set())


def _walk(
    layer: keras.layers.Layer, path: WeightPath, seen: set[int]
) -> Iterator[tuple[WeightPath, keras.layers.Layer]]:
    if id(layer) in seen:
        return
    seen.add(id(layer))
    yield path, layer
    for name, child in _children(layer):
        place = str(path) if _transparent(layer) else _join(path, name)
        yield from _walk(child, WeightPath(place, [_join(outer, str(child.name)) for outer in path.shown]), seen)


def _join(outer: str, name: str) -> str:
    return f"{outer}/{name}" if outer else name


def _children(layer: keras.layers.Layer) -> list[tuple[str, keras.layers.Layer]]:
    if isinstance(layer, keras.Sequential) or _is_functional(layer):
        children = _distinct([*layer.layers, *layer._layers])
        names = [_own_name(child) for child in children]
    else:
        children = _distinct(layer._layers)
        if not children:  # most layers hold none: their attributes need not be walked
            return []
        attributes = _attributes(layer)
        names = [attributes.get(id(child)) or _class_name(child) for child in children]
    taken: set[str] = set()
    return [(_unique(name, taken), child) for name, child in zip(names, children, strict=True)]


def _is_functional(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.Model) and layer._obj_type() == "Functional"


def _distinct(items: list[Any]) -> list[Any]:
    return list({id(item): item for item in items}.values())


def _transparent(layer: keras.layers.Layer) -> bool:
    """A wrapper that adds nothing to paths (`keras_lth.layers.Masked`), so that masks fit with and without it."""
    return bool(getattr(layer, "_lth_transparent", False))


def _own_name(layer: keras.layers.Layer) -> str:
    """The user's name for a layer, else its class in snake case."""
    if _transparent(layer):
        inner = _own_name(layer.layer)
        if inner != _class_name(layer.layer) or _is_automatic(layer):
            return inner
        return str(layer.name)
    return _class_name(layer) if _is_automatic(layer) else str(layer.name)


def _is_automatic(layer: keras.layers.Layer) -> bool:
    return re.fullmatch(rf"{re.escape(_snake(type(layer).__name__))}(_\d+)?", str(layer.name)) is not None


def _class_name(layer: keras.layers.Layer) -> str:
    return _snake(type(layer).__name__)


def _snake(name: str) -> str:
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _attributes(layer: keras.layers.Layer) -> dict[int, str]:
    """Attribute path of each layer held by ``layer``; public attributes are preferred over private ones."""
    names: dict[int, str] = {}

    def visit(name: str, value: Any, inside: tuple[int, ...]) -> None:
        if isinstance(value, keras.layers.Layer):
            names.setdefault(id(value), name)
        elif isinstance(value, (list, tuple, dict)) and id(value) not in inside:
            items = value.items() if isinstance(value, dict) else enumerate(value)
            for key, item in items:
                visit(f"{name}/{key}", item, (*inside, id(value)))

    # TensorFlow keeps its records under `_self_…`, Keras under these two.
    held = {
        name: value
        for name, value in vars(layer).items()
        if name not in ("_layers", "_tracked") and not name.startswith("_self_")
    }
    for name in sorted(held, key=lambda name: name.startswith("_")):
        visit(name.lstrip("_"), held[name], ())
    return names


def _unique(name: str, taken: set[str]) -> str:
    unique, number = name, 0
    while unique in taken:
        number += 1
        unique = f"{name}_{number}"
    taken.add(unique)
    return unique
