"""The classes that layers and models take on while their kernels are stored, and how they are saved and loaded."""

from __future__ import annotations

import base64
import functools
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from keras_lth.layers.kinds import attribute_of, kind_of, layout_of
from keras_lth.surgery.paths import entries, layers, variables
from keras_lth.surgery.stored import Wanted, kernels_of, store

__all__ = ["sparse_model", "wanted"]


def wanted(layer: keras.layers.Layer, kernels: Mapping[str, tuple[np.ndarray, Any, int | None]]) -> list[Wanted]:
    """What `keras_lth.surgery.stored.store` takes for one layer, of attribute → (mask in its product, block, room)."""
    kind = kind_of(layer)
    assert kind is not None
    own: Any = type(layer)
    cls = _sparse_class(own, kind.call, tuple(kernels))
    return [
        Wanted(layer, name, layout_of(layer, name), mask, tuple(block), cls, room)
        for name, (mask, block, room) in kernels.items()
    ]


class _Sparse(keras.layers.Layer):
    """What a layer with stored kernels does otherwise than its class."""

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Multiply by the stored values."""
        cls: Any = type(self)
        return cls._keras_lth_call(self, *args, **kwargs)

    def save_own_variables(self, store: Any) -> None:
        """Write whole kernels, which a dense model reads too; compressed, so their zeros take no room."""
        super().save_own_variables(_Whole(self, store))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> keras.layers.Layer:
        """Make a layer of the dense class: a clone of the model is dense, and samples its weights again."""
        dense: Any = cls.__bases__[1]
        return dense.from_config(config)


class _SparseModel(keras.Model):
    """What a model with stored kernels does otherwise than its class: it saves what is stored, and loads it.

    The model does, and not its layers: many layers do not save those that they make themselves.
    """

    _keras_lth_sparse = True

    def get_config(self) -> dict[str, Any]:
        """Return the config of the dense model, and what is stored of each kernel."""
        with as_dense(self):
            model = keras.saving.serialize_keras_object(self)
        model.pop("compile_config", None)
        stored = {id(kernel.variable): kernel for _, layer in layers(self) for kernel in kernels_of(layer).values()}
        kernels = {}
        for entry in entries(self):
            kernel = stored.get(id(entry.variable))
            if kernel is not None:
                mask = base64.b64encode(zlib.compress(np.packbits(kernel.mask).tobytes(), 9)).decode()
                block, room = list(kernel.structure.block), kernel.structure.room
                kernels[entry.path] = {"mask": mask, "block": block, "room": room}
        return {"model": model, "kernels": kernels}

    def __reduce__(self) -> Any:
        # Keras names the class of the model, which each process creates for itself.
        return _unpickled, super().__reduce__()[1]

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> keras.Model:
        """Make the dense model; its kernels are stored as soon as it is built."""
        model = keras.saving.deserialize_keras_object(config["model"], custom_objects)
        kernels = config["kernels"]
        if all(path in variables(model) for path in kernels):
            _keep(model, kernels)
            return model
        build = model.build

        @functools.wraps(build)
        def build_and_keep(*args: Any, **kwargs: Any) -> None:
            build(*args, **kwargs)
            _keep(model, kernels)

        model.build = build_and_keep
        return model


def _unpickled(buffer: Any) -> keras.Model:
    return keras.Model._unpickle_model(buffer)


def _keep(model: keras.Model, kernels: Mapping[str, Mapping[str, Any]]) -> None:
    """Store kernels of a model that was just built, as a config describes them."""
    found = {entry.path: entry for entry in entries(model)}
    missing = [path for path in kernels if path not in found]
    if missing:
        raise ValueError(
            f"the config of model {model.name!r} says what is stored of {missing}, and the model has no such weights: "
            "the file is damaged, or its layers have changed since"
        )
    by_layer: dict[int, tuple[Any, dict[str, Any]]] = {}
    for path, config in kernels.items():
        layer, variable = found[path].layer, found[path].variable
        shape = tuple(variable.shape)
        size = math.prod(shape)
        bits = np.frombuffer(zlib.decompress(base64.b64decode(config["mask"])), np.uint8)
        if len(bits) != (size + 7) // 8:
            raise ValueError(
                f"the config of model {model.name!r} has a mask of {len(bits)} bytes for {path} of shape {shape}, "
                f"which needs {(size + 7) // 8}: the file is damaged, or of another architecture"
            )
        mask = np.unpackbits(bits, count=size).astype(bool).reshape(shape)
        name = attribute_of(layer, variable)
        held = by_layer.setdefault(id(layer), (layer, {}))[1]
        held[name] = (layout_of(layer, name).product(mask), config["block"], config["room"])
    store(model, [each for layer, of in by_layer.values() for each in wanted(layer, of)])
    model.__class__ = sparse_model(model)


@contextmanager
def as_dense(model: keras.Model) -> Iterator[None]:
    """Inside, ``model`` and its layers have the classes of a dense model; what they hold stays stored."""
    held = [(one, type(one)) for _, one in layers(model) if isinstance(one, (_Sparse, _SparseModel))]
    for one, cls in held:
        one.__class__ = cls.__bases__[1]
    try:
        yield
    finally:
        for one, cls in held:
            one.__class__ = cls


def sparse_model(model: keras.Model) -> Any:
    """The class that a model takes on while kernels are stored."""
    cls: Any = type(model)
    return cls if issubclass(cls, _SparseModel) else _sparse_model(cls)


@functools.cache
def _sparse_model(cls: Any) -> Any:
    made = type(cls.__name__, (_SparseModel, cls), {"__module__": __name__})
    return keras.saving.register_keras_serializable(package="keras_lth", name="Sparse")(made)


class _Whole(Mapping[str, Any]):
    """A store of Keras in which stored kernels arrive whole, and whole kernels compressed."""

    def __init__(self, layer: keras.layers.Layer, store: Any) -> None:
        self._store = store
        self._kernels = {id(one.variable): one for one in kernels_of(layer).values()}

    def __setitem__(self, name: str, value: Any) -> None:
        kernel, store = self._kernels.get(id(value)), self._store
        array = keras.ops.convert_to_numpy(value) if kernel is None else kernel.whole(value.numpy())
        if array.ndim < 2 or array.dtype.name == "bfloat16" or type(store).__name__ != "H5IOStore":
            store[name] = array
            return
        # As Keras assigns it, with a filter.
        if not store._h5_entry_initialized:
            store._create_h5_group(store._h5_entry_path)
        store._h5_entry_group.create_dataset(
            name, data=array, chunks=array.shape, compression="gzip", compression_opts=9
        )

    def __getitem__(self, name: str) -> Any:
        return self._store[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._store.keys())

    def __len__(self) -> int:
        return len(self._store.keys())


@functools.cache
def _sparse_class(cls: Any, call: Callable[..., Any], names: tuple[str, ...]) -> Any:
    def reading(name: str) -> property:
        return property(lambda layer: kernels_of(layer)[name].dense())

    # The name stays: structural paths and summaries show it.
    body: dict[str, Any] = {name.lstrip("_"): reading(name) for name in names}
    body |= {"__module__": cls.__module__, "_keras_lth_call": staticmethod(call)}
    made = type(cls.__name__, (_Sparse, cls), body)
    package, mark, short = keras.saving.get_registered_name(cls).partition(">")
    if mark:
        # Saved as a layer of its own class, which the second registration leaves under the name.
        for one in (made, cls):
            keras.saving.register_keras_serializable(package, short)(one)
    return made
