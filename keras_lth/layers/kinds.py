"""Which layers can hold stored kernels, and what they then compute."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from keras_lth.layers.fused import mark
from keras_lth.ops.tensorflow import columns, sparse_conv2d, sparse_matmul
from keras_lth.surgery.roles import replaced
from keras_lth.surgery.stored import Kernel, Layout, kernels_of

__all__ = ["attribute_of", "kind_of", "layout_of", "positions", "register_sparse", "why_dense"]

_DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Kind:
    """How the layers of one class run on stored kernels.

    Attributes:
        layouts: ``layer → {attribute: layout}``, of each kernel; a string says why this layer cannot.
        call: what the layer computes: ``(layer, inputs, …)``, as the ``call`` of the class.
        of: the function that it replaces: a subclass with a ``call`` of its own stays dense.
    """

    layouts: Callable[[Any], dict[str, Layout] | str]
    call: Callable[..., Any]
    of: Any


_KINDS: dict[type, Kind] = {}


def register_sparse(cls: type, layouts: Callable[[Any], dict[str, Layout] | str], call: Callable[..., Any]) -> type:
    """Let `keras_lth.sparsify` store kernels of a layer class of your own.

    Args:
        cls: a subclass of ``keras.layers.Layer``.
        layouts: takes a built layer; returns for each attribute that holds a kernel how it lies in a product
            (`keras_lth.layers.Layout`), or one sentence on why this layer stays dense.
        call: takes the place of ``cls.call``; ``keras_lth.layers.kernels_of(layer)["kernel"]`` is the stored kernel.

    Returns:
        ``cls``.

    Raises:
        TypeError: ``cls`` is not a class of layers.
    """
    if not (isinstance(cls, type) and issubclass(cls, keras.layers.Layer)):
        raise TypeError(f"register_sparse takes a subclass of keras.layers.Layer, not {cls!r}")
    _KINDS[cls] = Kind(layouts, call, _call_of(cls))
    return cls


def _call_of(cls: Any) -> Any:
    return cls.call


def kind_of(layer: keras.layers.Layer) -> Kind | None:
    """The kind of a layer, by its class or a base class; None where there is none."""
    return next((_KINDS[cls] for cls in type(layer).__mro__ if cls in _KINDS), None)


def why_dense(layer: keras.layers.Layer, name: str) -> str:
    """Why the kernel in attribute ``name`` of ``layer`` cannot be stored, or ""."""
    kind = kind_of(layer)
    if kind is None:
        return f"{type(layer).__name__} has no sparse form"
    if _call_of(type(layer)) is not kind.of:
        return f"{type(layer).__name__} has a call of its own"
    reason = replaced(layer)
    if reason:
        return reason
    if layer.compute_dtype not in _DTYPES:
        return f"computes in {layer.compute_dtype}"
    found = kind.layouts(layer)
    if isinstance(found, str):
        return found
    if name not in found:
        return f"{name} is not multiplied by"
    variable = vars(layer)[name]
    constraint = getattr(variable.constraint, "user", variable.constraint)
    if not isinstance(constraint, (type(None), keras.constraints.NonNeg)):
        return f"has a constraint on the whole kernel ({type(constraint).__name__})"
    if variable.regularizer is not None and not isinstance(variable.regularizer, _ENTRYWISE):
        return f"has a regularizer of the whole kernel ({type(variable.regularizer).__name__})"
    return ""


_ENTRYWISE = (keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2)


def layout_of(layer: keras.layers.Layer, name: str) -> Layout:
    """How the kernel in attribute ``name`` lies in its product."""
    kind = kind_of(layer)
    assert kind is not None
    found = kind.layouts(layer)
    assert not isinstance(found, str)
    return found[name]


def positions(layer: keras.layers.Layer) -> int:
    """Rows of a layer's product for one example: tokens, pixels of the output; 1 where they are not known."""
    shape = (getattr(layer, "_build_shapes_dict", None) or {}).get("input_shape")
    if isinstance(layer, (keras.layers.Conv1D, keras.layers.Conv2D)) and shape is not None:
        shape = layer.compute_output_shape(shape)
    return math.prod(size for size in (shape or ())[1:-1] if size)


def attribute_of(layer: keras.layers.Layer, variable: keras.Variable) -> str:
    """The attribute of a layer that holds a variable of its own; "" where none does."""
    return next((name for name, value in vars(layer).items() if value is variable), "")


def _product(kernel: Kernel, x: Any, bias: Any, activation: Any) -> Any:
    """``activation(x @ kernel + bias)``."""
    values = tf.convert_to_tensor(kernel.variable)
    product = functools.partial(sparse_matmul, x, values, kernel.live, bias=bias)
    return _activated(product, activation)


def _activated(product: Callable[..., Any], activation: Any) -> Any:
    """The activation of a product, which computes ReLU itself, also that of a layer behind."""
    with_relu = functools.partial(product, activation="relu")
    if activation is keras.activations.relu:
        return with_relu()
    y = product()
    if activation in (None, keras.activations.linear):
        return mark(y, with_relu, xla=True)
    return columns.through(y, activation) if activation in _ELEMENTWISE else activation(y)


# Those that are 0 at 0.
_ELEMENTWISE = [
    getattr(keras.activations, name)
    for name in ("elu", "gelu", "leaky_relu", "mish", "relu6", "selu", "silu", "softsign", "tanh")
]


def _dense_layouts(layer: Any) -> dict[str, Layout] | str:
    return {"_kernel": Layout((0, 1), tuple(layer._kernel.shape))}


def _dense(layer: Any, inputs: Any, training: Any = None) -> Any:
    if not tf.is_tensor(inputs) or isinstance(inputs, (tf.SparseTensor, tf.RaggedTensor)):
        return keras.layers.Dense.call(layer, inputs)
    return _product(kernels_of(layer)["_kernel"], inputs, layer.bias, layer.activation)


def _conv_layouts(layer: Any) -> dict[str, Layout] | str:
    if layer.data_format != "channels_last":
        return "channels first"
    if layer.groups != 1:
        return f"{layer.groups} groups"
    if any(rate != 1 for rate in layer.dilation_rate):
        return f"dilation {layer.dilation_rate}"
    shape = tuple(layer._kernel.shape)
    return {"_kernel": Layout(tuple(range(len(shape))), shape if len(shape) == 4 else (1, *shape))}


def _conv(layer: Any, inputs: Any) -> Any:
    kernel, strides, padding = kernels_of(layer)["_kernel"], layer.strides, layer.padding
    x, values = tf.convert_to_tensor(inputs), tf.convert_to_tensor(kernel.variable)
    flat = len(layer.kernel_size) == 1
    if flat:
        if padding == "causal":
            x, padding = tf.pad(x, [[0, 0], [layer.kernel_size[0] - 1, 0], [0, 0]]), "valid"
        x, strides = x[:, None], (1, *strides)

    def product(activation: str | None = None) -> Any:
        y = sparse_conv2d(
            x, values, kernel.live, strides=strides, padding=padding, bias=layer.bias, activation=activation
        )
        return y[:, 0] if flat else y

    return _activated(product, layer.activation)


@dataclass(frozen=True)
class _Equation:
    """``x,w->y`` with each label of the kernel either summed over or new; "." stands for the axes of an ellipsis."""

    x: str
    w: str
    y: str

    @classmethod
    def parse(cls, equation: str) -> _Equation | None:
        left, y = equation.replace(" ", "").replace("...", ".").split("->")
        x, w = left.split(",")
        one = cls(x, w, y)
        known = set(one.w) <= set(one.x) ^ set(one.y) and "." not in one.w
        return one if known and one.x.rfind(".") <= 0 and one.y.rfind(".") <= 0 and set(one.free) <= set(y) else None

    @property
    def summed(self) -> str:
        return "".join(label for label in self.x if label in self.w)

    @property
    def new(self) -> str:
        return "".join(label for label in self.w if label not in self.x)

    @property
    def free(self) -> str:
        return "".join(label for label in self.x if label not in self.w)


def _einsum_layouts(layer: Any) -> dict[str, Layout] | str:
    equation = _Equation.parse(layer.equation)
    if equation is None:
        return f"equation {layer.equation}"
    axes = tuple(equation.w.index(label) for label in equation.summed + equation.new)
    sizes = [layer._kernel.shape[axis] for axis in axes]
    split = len(equation.summed)
    return {"_kernel": Layout(axes, (math.prod(sizes[:split]), math.prod(sizes[split:])))}


def _einsum(layer: Any, inputs: Any, training: Any = None) -> Any:
    equation = _Equation.parse(layer.equation)
    assert equation is not None
    kernel = kernels_of(layer)["_kernel"]
    x = tf.convert_to_tensor(inputs)
    extra = x.shape.rank - len(equation.x) + 1 if "." in equation.x else 0

    def moved(tensor: Any, source: str, target: str) -> Any:
        """The axes of a tensor in another order."""
        if source == target:
            return tensor
        places = {label: i + (extra - 1 if "." in source and label != "." else 0) for i, label in enumerate(source)}
        order: list[int] = []
        for label in target:
            order += range(extra) if label == "." else [places[label]]
        return tf.transpose(tensor, order)

    x = moved(x, equation.x, equation.free + equation.summed)
    lead = x.shape.rank - len(equation.summed)
    known = x.shape[:lead].as_list()
    dynamic = tf.shape(x)
    outer = [dynamic[i] if size is None else size for i, size in enumerate(known)]
    if len(equation.summed) > 1:
        x = tf.reshape(x, [*outer, kernel.layout.shape[0]])
    sizes = [kernel.shape[equation.w.index(label)] for label in equation.new]
    ordered = equation.free + equation.new == equation.y
    fused = ordered and layer.bias is not None and tuple(layer.bias.shape) == tuple(sizes)
    bias = tf.reshape(tf.convert_to_tensor(layer.bias), [-1]) if fused else None
    activation = layer.activation if fused or layer.bias is None else None
    y = tf.reshape(_product(kernel, x, bias, activation), [*outer, *sizes])
    y = moved(y, equation.free + equation.new, equation.y)
    if layer.bias is not None and not fused:
        y = keras.ops.add(y, layer.bias)
        y = y if layer.activation is None else layer.activation(y)
    return y


def _cell_layouts(layer: Any) -> dict[str, Layout] | str:
    # The gates of implementation 1 have dropout masks of their own.
    gates = hasattr(layer, "implementation")
    if gates and (layer.recurrent_dropout or (layer.dropout and layer.implementation == 1)):
        return "dropout in each gate"
    names = ["kernel", "recurrent_kernel"] if getattr(layer, "reset_after", True) else ["kernel"]
    return {name: Layout((0, 1), tuple(vars(layer)[name].shape)) for name in names}


def _times(layer: Any, name: str, x: Any, bias: Any = None) -> Any:
    kernel = kernels_of(layer).get(name)
    if kernel is not None:
        return _product(kernel, x, bias, None)
    y = keras.ops.matmul(x, getattr(layer, name))
    return y if bias is None else keras.ops.add(y, bias)


def _simple_cell(layer: Any, sequence: Any, states: Any, training: bool = False) -> Any:
    nested = isinstance(states, (list, tuple))
    before = states[0] if nested else states
    # Keras draws both masks in inference too.
    masks = layer.get_dropout_mask(sequence), layer.get_recurrent_dropout_mask(before)
    if training:
        sequence, before = (one if m is None else one * m for one, m in zip((sequence, before), masks, strict=True))
    output = _times(layer, "kernel", sequence, layer.bias) + _times(layer, "recurrent_kernel", before)
    output = output if layer.activation is None else layer.activation(output)
    return output, [output] if nested else output


def _dropped(layer: Any, inputs: Any, training: bool) -> Any:
    return inputs * layer.get_dropout_mask(inputs) if training and 0.0 < layer.dropout < 1.0 else inputs


def _lstm_cell(layer: Any, inputs: Any, states: Any, training: bool = False) -> Any:
    z = _times(layer, "kernel", _dropped(layer, inputs, training), layer.bias if layer.use_bias else None)
    i, f, c, o = tf.split(z + _times(layer, "recurrent_kernel", states[0]), 4, axis=1)
    carry = layer.recurrent_activation(f) * states[1] + layer.recurrent_activation(i) * layer.activation(c)
    h = layer.recurrent_activation(o) * layer.activation(carry)
    return h, [h, carry]


def _gru_cell(layer: Any, inputs: Any, states: Any, training: bool = False) -> Any:
    nested = isinstance(states, (list, tuple))
    h, units = states[0] if nested else states, layer.units
    bias, recurrent_bias = layer.bias if layer.use_bias else None, None
    if layer.use_bias and layer.reset_after:
        bias, recurrent_bias = tf.unstack(tf.convert_to_tensor(layer.bias))
    xz, xr, xh = tf.split(_times(layer, "kernel", _dropped(layer, inputs, training), bias), 3, axis=-1)
    if layer.reset_after:
        hz, hr, hh = tf.split(_times(layer, "recurrent_kernel", h, recurrent_bias), 3, axis=-1)
        z, r = layer.recurrent_activation(xz + hz), layer.recurrent_activation(xr + hr)
        hh = r * hh
    else:
        kernel = tf.convert_to_tensor(layer.recurrent_kernel)
        hz, hr = tf.split(tf.matmul(h, kernel[:, : 2 * units]), 2, axis=-1)
        z, r = layer.recurrent_activation(xz + hz), layer.recurrent_activation(xr + hr)
        hh = tf.matmul(r * h, kernel[:, 2 * units :])
    new = z * h + (1 - z) * layer.activation(xh + hh)
    return new, [new] if nested else new


register_sparse(keras.layers.Dense, _dense_layouts, _dense)
register_sparse(keras.layers.Conv1D, _conv_layouts, _conv)
register_sparse(keras.layers.Conv2D, _conv_layouts, _conv)
register_sparse(keras.layers.EinsumDense, _einsum_layouts, _einsum)
register_sparse(keras.layers.SimpleRNNCell, _cell_layouts, _simple_cell)
register_sparse(keras.layers.LSTMCell, _cell_layouts, _lstm_cell)
register_sparse(keras.layers.GRUCell, _cell_layouts, _gru_cell)
