"""Kernels of which a layer holds the stored values alone, and the way back to whole ones.

A *stored* kernel is the Keras variable that it was, with another value: ``[room, *block]`` instead of the kernel's own
shape. So every list that holds the variable (Keras' trackers, optimizers, other models) stays right. What an optimizer
keeps for it is cut in the same way. Its layer changes to a subclass of its own class, with another ``call``.

The verbs of `keras_lth.surgery` see a model whole: `whole` gives each stored kernel and its slots the kernel's shape
and a mask, lets the verb work, and stores what the masks then keep. So masks, snapshots, tickets and criteria know
nothing of stored kernels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import keras
import numpy as np
import tensorflow as tf

from keras_lth.ops import SparseStructure, count_groups
from keras_lth.ops.tensorflow import LiveStructure, to_dense
from keras_lth.surgery.held import live_optimizers
from keras_lth.surgery.holders import trace_again
from keras_lth.surgery.optimizers import COPY, EMA, fresh_fill, leaves, slots
from keras_lth.surgery.paths import layers
from keras_lth.surgery.variable_mask import attach, detach, mask_of

__all__ = [
    "Kernel",
    "Layout",
    "View",
    "Wanted",
    "is_stored",
    "is_whole",
    "kernels_of",
    "mask_array",
    "on_whole",
    "store",
    "whole",
    "whole_shape",
]

P = ParamSpec("P")
R = TypeVar("R")

_KERNELS = "_keras_lth_kernels"  # of a layer: attribute → its stored kernel
_KERNEL = "_keras_lth_kernel"  # of a variable: the stored kernel that it is
_KEPT = "_keras_lth_kept"  # of a variable: the tf.Variable of its stored values, while it is whole
# A structure keeps its room, so that no step is traced again, until more than half of all room is empty.
_MOST_ROOM = 2.0


@dataclass(frozen=True)
class Layout:
    """How a kernel lies as that of a product or a convolution: ``kernel.transpose(axes).reshape(shape)``.

    Attributes:
        axes: of the kernel, in the order in which the product has them.
        shape: ``[inputs, outputs]`` or ``[height, width, inputs, outputs]``.
    """

    axes: tuple[int, ...]
    shape: tuple[int, ...]

    def product(self, kernel: np.ndarray) -> np.ndarray:
        """Lay a kernel, or its mask, out as the product has it."""
        return np.ascontiguousarray(kernel.transpose(self.axes).reshape(self.shape))

    def kernel(self, array: Any, shape: tuple[int, ...]) -> Any:
        """Lay an array, or a tensor, out as a kernel of ``shape``: the inverse of `product`."""
        reshape, transpose = (tf.reshape, tf.transpose) if tf.is_tensor(array) else (np.reshape, np.transpose)
        return transpose(reshape(array, [shape[axis] for axis in self.axes]), np.argsort(self.axes))


class Kernel:
    """One stored kernel.

    Attributes:
        variable: of the stored values.
        layout: how the kernel lies in the product.
        shape: of the kernel.
        live: its structure in variables: a traced step follows a new one.
    """

    def __init__(self, variable: keras.Variable, layout: Layout, structure: SparseStructure) -> None:
        self.variable, self.layout, self.shape = variable, layout, tuple(variable.shape)
        self.live = LiveStructure(structure)

    @property
    def structure(self) -> SparseStructure:
        """Which values are stored."""
        return self.live.structure

    @property
    def mask(self) -> np.ndarray:
        """True where a value is stored, in the kernel's shape."""
        return np.asarray(self.whole(np.ones((self.structure.room, *self.structure.block), np.float32)) != 0)

    def cut(self, array: np.ndarray) -> np.ndarray:
        """Take the stored values of an array of the kernel's shape."""
        return self.structure.values(self.layout.product(array))

    def whole(self, values: np.ndarray, fill: float = 0.0) -> np.ndarray:
        """Lay stored values out in an array of the kernel's shape, with ``fill`` elsewhere."""
        array = np.asarray(self.layout.kernel(self.structure.to_dense(values), self.shape))
        return array if fill == 0.0 else np.where(self.mask, array, np.asarray(fill, array.dtype))

    def dense(self) -> Any:
        """Return the whole kernel as a tensor, differentiable for the stored values."""
        return self.layout.kernel(to_dense(tf.convert_to_tensor(self.variable), self.live), self.shape)


class _Stored(keras.Variable):
    """What the variable of a stored kernel does otherwise than its class."""

    def assign(self, value: Any) -> Any:
        """Assign stored values, or what is stored of a whole kernel, which is what files of the dense model hold."""
        kernel = vars(self)[_KERNEL]
        given = tuple(np.shape(value))
        if given == kernel.shape and given != tuple(self.shape):
            value = kernel.cut(np.asarray(value))
        return super().assign(value)

    def _trackable_children(self, save_type: str = "checkpoint", **kwargs: Any) -> Any:
        # A SavedModel refuses a function with variables that it does not find.
        children = dict(super()._trackable_children(save_type, **kwargs))
        return children | {"structure": vars(self)[_KERNEL].live} if save_type == "savedmodel" else children


@functools.cache
def _stored_class(cls: Any) -> Any:
    return type(cls.__name__, (_Stored, cls), {"__module__": cls.__module__})


@dataclass(frozen=True)
class Wanted:
    """A kernel to be stored.

    Attributes:
        layer: its layer.
        name: the attribute of the layer that holds the variable.
        layout: how the kernel lies in the product.
        mask: what is stored, boolean, as the product has it.
        block: sides of the stored blocks.
        cls: the class that the layer takes on; its second base is the layer's own.
        room: of the structure; None as `store` finds it best.
    """

    layer: keras.layers.Layer
    name: str
    layout: Layout
    mask: np.ndarray
    block: tuple[int, int]
    cls: Any
    room: int | None = None

    @property
    def variable(self) -> Any:
        """The variable of the kernel."""
        return vars(self.layer)[self.name]


@dataclass
class View:
    """What `whole` gives.

    Attributes:
        wanted: what is stored at the end; None: what was stored before, as the masks then are.
    """

    wanted: list[Wanted] | None = None


def is_stored(variable: Any) -> bool:
    """Whether a variable holds the stored values of a kernel."""
    return _KERNEL in getattr(variable, "__dict__", {})


def mask_array(variable: keras.Variable) -> np.ndarray | None:
    """The mask of a variable, by its mask or by what is stored of it; None if it has neither."""
    worn = mask_of(variable)
    if worn is not None:
        return worn.numpy()
    return vars(variable)[_KERNEL].mask if is_stored(variable) else None


def whole_shape(variable: keras.Variable) -> tuple[int, ...]:
    """The shape of a variable; of a stored kernel that of the whole one."""
    shape: tuple[int, ...] = vars(variable)[_KERNEL].shape if is_stored(variable) else tuple(variable.shape)
    return shape


def kernels_of(layer: keras.layers.Layer) -> dict[str, Kernel]:
    """The stored kernels of a layer, by attribute."""
    return dict(vars(layer).get(_KERNELS, {}))


def store(model: keras.layers.Layer, wanted: Sequence[Wanted], before: Sequence[Wanted] = ()) -> None:
    """Store kernels of ``model`` that are whole; ``before``: those that `whole` made whole.

    Where kernels are stored again in the same room, the same variables take their values, and no step is traced again.
    """
    optimizers = _optimizers(model)
    slots_of, keys = _slots(optimizers), _keys(optimizers)
    strategy = getattr(model, "distribute_strategy", None) or tf.distribute.get_strategy()
    left = {id(each): each for one in before for each in _together(one.variable, slots_of)}
    stale = []
    by_layer: dict[int, dict[str, Kernel]] = {}
    for one, structure in zip(wanted, _structures(wanted), strict=True):
        variable = one.variable
        detach(variable)
        kernel = vars(variable).get(_KERNEL)
        if kernel is None or kernel.structure.block != structure.block or kernel.structure.room != structure.room:
            with tf.init_scope(), strategy.scope():
                kernel = Kernel(variable, one.layout, structure)
        elif kernel.structure is not structure:
            kernel.live.assign(structure)
        for each in _together(variable, slots_of):
            left.pop(id(each), None)
            stale += _cut(each, kernel, strategy)
        vars(variable)[_KERNEL] = kernel
        kind: Any = type(variable)
        variable.__class__ = _stored_class(kind)
        by_layer.setdefault(id(one.layer), {})[one.name] = kernel
    for one in wanted:
        vars(one.layer)[_KERNELS] = by_layer[id(one.layer)]
        one.layer.__class__ = one.cls
    for variable in left.values():
        stale += [vars(variable).pop(_KEPT)] if _KEPT in vars(variable) else []
        vars(variable).pop(_KERNEL, None)
    _key_again(keys)
    if stale:
        trace_again(stale)


def _structures(wanted: Sequence[Wanted]) -> list[SparseStructure]:
    """The structure of each kernel: the one that it had, if it fits, in the room that it had, unless that is large."""
    counts = [count_groups(one.mask, block=one.block) for one in wanted]
    olds = [vars(one.variable)[_KERNEL].structure if _KERNEL in vars(one.variable) else None for one in wanted]
    rooms = [
        old.room if old is not None and old.block == one.block and count <= old.room else None
        for one, old, count in zip(wanted, olds, counts, strict=True)
    ]
    fit = None not in rooms and sum(room or 0 for room in rooms) <= _MOST_ROOM * sum(counts)
    result = []
    for one, old, room in zip(wanted, olds, rooms, strict=True):
        structure = SparseStructure.from_mask(one.mask, one.block, room if fit else one.room)
        result.append(old if old is not None and old == structure else structure)
    return result


@contextmanager
def whole(model: Any, *, run: bool = False) -> Iterator[View]:
    """Inside, the stored kernels of ``model`` are whole and masked; then what the masks keep is stored.

    A kernel that has lost its mask, or has nothing left, stays whole.

    Args:
        model: anything; what is not a Keras layer has no stored kernels.
        run: whether the model is run inside: functions that were traced with stored kernels are traced again.
    """
    before = _expand(model) if isinstance(model, keras.layers.Layer) else []
    cls: Any = type(model)
    if hasattr(cls, "_keras_lth_sparse"):
        model.__class__ = cls.__bases__[1]
    view = View()
    if run:
        trace_again([vars(one.variable)[_KEPT] for one in before])
    try:
        yield view
    finally:
        if run:
            trace_again([one.variable for one in before])
        wanted = _again(before) if view.wanted is None else view.wanted
        if before or wanted:
            store(model, wanted, before)
        if wanted:
            model.__class__ = cls


def on_whole(verb: Callable[P, R]) -> Callable[P, R]:
    """Let a verb whose first argument is ``model`` see it whole."""

    @functools.wraps(verb)
    def act(*args: P.args, **kwargs: P.kwargs) -> R:
        # Without a model the verb itself says what is missing.
        with whole(args[0] if args else kwargs.get("model")):
            return verb(*args, **kwargs)

    return act


def _expand(model: keras.layers.Layer) -> list[Wanted]:
    """Make the stored kernels of ``model`` whole; return what they were."""
    found = [(layer, kernels_of(layer)) for _, layer in layers(model) if _KERNELS in vars(layer)]
    if not found:
        return []
    optimizers = _optimizers(model)
    slots_of, keys = _slots(optimizers), _keys(optimizers)
    strategy = getattr(model, "distribute_strategy", None) or tf.distribute.get_strategy()
    before = []
    for layer, kernels in found:
        cls: Any = type(layer)
        layer.__class__ = cls.__bases__[1]
        del vars(layer)[_KERNELS]
        for name, kernel in kernels.items():
            variable: Any = kernel.variable
            mask = kernel.mask
            before.append(Wanted(layer, name, kernel.layout, kernel.layout.product(mask), kernel.structure.block, cls))
            fills = {id(slot): fill for slot, fill in slots_of.get(id(variable), [])}
            for each in _together(variable, slots_of):
                if each._value is not None:
                    vars(each)[_KEPT] = each._value
                    _put(each, kernel.whole(each._value.numpy(), fills.get(id(each), 0.0)), strategy)
            variable.__class__ = type(variable).__bases__[1]
            attach(variable, strategy).assign(mask)
    _key_again(keys)
    return before


def _again(before: Iterable[Wanted]) -> list[Wanted]:
    """What is to be stored of kernels that were stored before, by the masks that they have now."""
    result = []
    for one in before:
        worn = mask_of(one.variable)
        if worn is not None and (mask := one.layout.product(worn.numpy())).any():
            block = one.block if np.array_equal(mask, one.mask) or is_whole(mask, one.block) else (1, 1)
            result.append(Wanted(one.layer, one.name, one.layout, mask, block, one.cls))
    return result


def is_whole(mask: np.ndarray, block: tuple[int, int]) -> bool:
    """Whether a mask, as the product has it, keeps every block whole or not at all, and not only cut-off ones."""
    if block == (1, 1):
        return True
    inside = count_groups(mask, block=block) * block[0] * block[1]
    # Cheaper than a structure, and most masks are of single weights.
    if 4 * np.count_nonzero(mask) < inside:
        return False
    try:
        SparseStructure.from_mask(mask, block)
    except ValueError:
        return False
    return True


def _optimizers(model: keras.layers.Layer) -> list[keras.optimizers.Optimizer]:
    """Every built optimizer that updates a weight of ``model``, those inside others too."""
    found = live_optimizers(model) if isinstance(model, keras.Model) else []
    return [leaf for outer in found for leaf in leaves(outer) if leaf.built]


def _keys(optimizers: Iterable[keras.optimizers.Optimizer]) -> list[tuple[keras.optimizers.Optimizer, list[Any]]]:
    return [(leaf, [leaf._var_key(weight) for weight in leaf._trainable_variables]) for leaf in optimizers]


def _key_again(keys: Iterable[tuple[keras.optimizers.Optimizer, list[Any]]]) -> None:
    """Let optimizers find their weights: they keep them under a name of the tf.Variable, which is another one now."""
    for leaf, before in keys:
        new = {old: leaf._var_key(weight) for old, weight in zip(before, leaf._trainable_variables, strict=True)}
        for name, held in vars(leaf).items():
            if isinstance(held, dict) and not held.keys().isdisjoint(new):
                vars(leaf)[name] = {new.get(key, key): value for key, value in held.items()}


def _slots(optimizers: Iterable[keras.optimizers.Optimizer]) -> dict[int, list[tuple[keras.Variable, float]]]:
    """id of a weight → what optimizers keep for it, each with the value that a fresh optimizer has there."""
    found: dict[int, list[tuple[keras.Variable, float]]] = {}
    for leaf in optimizers:
        lists = slots(leaf)
        fill = fresh_fill(leaf) if lists else {}
        for name, of in lists.items():
            value = fill.get(name, 0.0)
            # A copy of the weight is 0 where the weight is pruned.
            constant = 0.0 if name == EMA or value == COPY else float(value)
            for slot, weight in zip(of, leaf._trainable_variables, strict=True):
                if slot is not None:
                    found.setdefault(id(weight), []).append((slot, constant))
    return found


def _together(variable: Any, slots_of: dict[int, list[tuple[keras.Variable, float]]]) -> list[Any]:
    return [variable, *(slot for slot, _ in slots_of.get(id(variable), []))]


def _cut(variable: Any, kernel: Kernel, strategy: tf.distribute.Strategy) -> list[Any]:
    """Leave the stored values of a variable alone; return the tf.Variables whose traces are void."""
    if variable._value is None:
        # Built symbolically: the value comes later, from this initializer.
        made, structure = variable._initializer, kernel.structure
        variable._initializer = lambda shape, dtype=None: kernel.cut(np.asarray(made(kernel.shape, dtype=dtype)))
        variable._shape = (structure.room, *structure.block)
        variable._ndim = 3
        return []
    values = kernel.cut(np.asarray(variable._value.numpy()))
    kept = vars(variable).pop(_KEPT, None)
    if kept is not None and tuple(kept.shape) == values.shape:
        kept.assign(values)
        variable._value, variable._shape, variable._ndim = kept, values.shape, values.ndim
        return []
    old = variable._value if kept is None else kept
    _put(variable, values, strategy)
    return [old]


def _put(variable: Any, array: np.ndarray, strategy: tf.distribute.Strategy) -> None:
    with tf.init_scope(), strategy.scope(), strategy.extended.colocate_vars_with(variable._value):
        variable._initialize(tf.convert_to_tensor(array, variable._dtype))
    variable._shape, variable._ndim = tuple(array.shape), array.ndim
