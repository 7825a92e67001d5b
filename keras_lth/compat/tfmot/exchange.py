"""Weights and masks from a model that TFMOT pruned, and back: HDF5 files of Keras 2's ``save_weights``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import h5py
import keras
import numpy as np

from keras_lth import surgery
from keras_lth.compat.tfmot.marks import marked
from keras_lth.masks import Masks
from keras_lth.surgery.paths import entries
from keras_lth.surgery.stored import on_whole

__all__ = ["load_weights", "save_weights"]

# What TFMOT's wrapper adds to the weights of a layer.
_ADDED = ("mask", "threshold", "pruning_step")


@on_whole
def load_weights(model: keras.Model, path: str | os.PathLike[str]) -> Masks:
    """Set ``model`` to the weights that a model of Keras 2 saved with ``save_weights("….h5")``; return its masks.

    The masks are those of TFMOT's wrappers, else those of the exact zeros of the weights that TFMOT would prune; they
    are put on. The layers must come in the same order, with weights of the same shapes.

    Raises:
        ValueError: other layers or shapes; lists the first difference.
    """
    ours, masks = _layers(model), {}
    with h5py.File(path, "r") as file:
        theirs = [(name, arrays) for name, arrays in _groups(file) if arrays]
    if len(ours) != len(theirs):
        raise ValueError(f"{path} has {len(theirs)} layers with weights, and model {model.name!r} has {len(ours)}")
    known = {id(variable): name for name, variable in surgery.variables(model).items()}
    values = []
    for (layer, variables), (name, arrays) in zip(ours, theirs, strict=True):
        plain = [(key, array) for key, array in arrays if _last(key) not in _ADDED]
        shapes = [tuple(array.shape) for _, array in plain]
        if shapes != [tuple(variable.shape) for variable in variables]:
            found = [tuple(variable.shape) for variable in variables]
            raise ValueError(f"layer {name!r} of {path} has weights of shapes {shapes}, and {layer.name!r} has {found}")
        values += [(variable, array) for variable, (_, array) in zip(variables, plain, strict=True)]
        left = list(variables)
        for mask in (array for key, array in arrays if _last(key) == "mask"):
            # The masks come in the order of the pruned weights, of which no two of one shape change places.
            place = next(number for number, variable in enumerate(left) if tuple(variable.shape) == mask.shape)
            masks[known[id(left.pop(place))]] = mask != 0
    surgery.unmask(model)
    for variable, array in values:
        variable.assign(array)
    if not masks:
        held = surgery.prunable(model) if not marked(model) else {p: v for p, (v, _) in marked(model).items()}
        masks = {name: np.asarray(variable.numpy()) != 0 for name, variable in held.items()}
    return Masks(surgery.mask(model, masks))


@on_whole
def save_weights(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Write the weights of ``model`` for ``load_weights`` of the same model of Keras 2, not wrapped by TFMOT.

    There, zeros are 0, and ``prune_low_magnitude`` with ``ConstantSparsity`` keeps them.
    """
    with h5py.File(path, "w") as file:
        layers = _layers(model)
        file.attrs["layer_names"] = [layer.name.encode() for layer, _ in layers]
        file.attrs["backend"], file.attrs["keras_version"] = b"tensorflow", b"2.15.0"
        for layer, variables in layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{number}_{variable.name}:0" for number, variable in enumerate(variables)]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, variable in zip(names, variables, strict=True):
                group.create_dataset(name, data=variable.numpy())


def _layers(model: keras.Model) -> list[tuple[Any, list[Any]]]:
    """The layers of a model with weights, in order, each with its trainable weights first, as Keras 2 writes them."""
    seeds = {id(entry.variable) for entry in entries(model) if entry.seed}
    found = []
    for layer in model.layers:
        own = [one for one in [*layer.trainable_weights, *layer.non_trainable_weights] if id(one) not in seeds]
        if own:
            found.append((layer, own))
    return found


def _groups(file: Any) -> Iterator[tuple[str, list[tuple[str, np.ndarray]]]]:
    names = file.attrs.get("layer_names")
    if names is None:
        raise ValueError(f"{file.filename} was not written by save_weights of Keras 2, in its format .h5")
    for name in names:
        group = file[name]
        keys = [key.decode() if isinstance(key, bytes) else key for key in group.attrs["weight_names"]]
        yield (name.decode() if isinstance(name, bytes) else name), [(key, np.asarray(group[key])) for key in keys]


def _last(key: str) -> str:
    return key.rpartition("/")[2].partition(":")[0]
