"""A Keras model as a graph of nodes; the one module of this room that needs Keras."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_lth.export.activations import ACTIVATIONS
from keras_lth.export.graph import Array, Graph, Node
from keras_lth.layers.folded import affine, functional_of
from keras_lth.surgery import check_built, check_model, masks_of, variables

__all__ = ["lower"]

layers = keras.layers


def lower(model: keras.Model) -> Graph:
    """Lower a built model; its masks are applied to its kernels.

    Raises:
      TypeError: not a Keras model.
      ValueError: a layer, an option or a shape that is not supported, by name.
    """
    check_model(model)
    check_built(model)
    function = functional_of(model)
    if function is None:
        raise ValueError(
            f"{type(model).__name__} {model.name!r} is not a Sequential or functional model: its call cannot be read. "
            "Build it of layers, keras.Model(inputs, outputs)"
        )
    for what in ("inputs", "outputs"):
        if len(getattr(function, what)) != 1:
            raise ValueError(f"model {model.name!r} has {len(getattr(function, what))} {what}; 1 is supported")
    lowering = _Lowering(model)
    symbol = _Symbol(0)
    (result,) = lowering.run(function, [symbol])
    lowering.graph.output = result.node
    return lowering.graph


@dataclass(frozen=True)
class _Symbol:
    """The result of a node, as an argument of a layer; not a tuple, which Keras would take apart."""

    node: int


class _Lowering:
    def __init__(self, model: keras.Model) -> None:
        given = model.inputs[0].shape[1:]
        if any(size is None for size in given):
            raise ValueError(f"model {model.name!r} has the input shape {tuple(given)}: give every size a number")
        self.graph = Graph([int(size) for size in given])
        masks = masks_of(model)
        self.masks = {id(variable): masks[path] for path, variable in variables(model).items() if path in masks}

    def run(self, function: Any, given: Sequence[_Symbol]) -> list[_Symbol]:
        """The results of a functional model whose inputs are these nodes."""
        known = {id(tensor): symbol for tensor, symbol in zip(function.inputs, given, strict=True)}
        for depth in sorted(function._nodes_by_depth, reverse=True):
            for node in function._nodes_by_depth[depth]:
                if node.is_input or not node.operation:
                    continue
                arguments, options = node.arguments.fill_in(known)
                results = self.call(node.operation, arguments, options)
                known.update(zip(map(id, node.outputs), results, strict=True))
        return [known[id(tensor)] for tensor in function.outputs]

    def call(self, layer: Any, arguments: Sequence[Any], options: dict[str, Any]) -> list[_Symbol]:
        """The results of one layer's call."""
        flat = [a for a in keras.tree.flatten((arguments, options)) if isinstance(a, _Symbol)]
        if options.get("training"):
            raise ValueError(f"layer {layer.name!r} is called with training=True; only inference is supported")
        if getattr(layer, "_lth_transparent", False):
            layer = layer.layer
        function = functional_of(layer)
        if function is not None:
            return self.run(function, flat)
        operation = (
            _OPERATIONS.get(type(layer).__name__) if type(layer).__module__.startswith("keras.src.ops") else None
        )
        if operation is not None:
            return [_Symbol(_call_operation(self, layer, operation, arguments))]
        # Not its type: a fused layer says that it is of the class that it was.
        handler = _LAYERS.get(layer.__class__)
        if handler is None:
            names = ", ".join(sorted(kind.__name__ for kind in _LAYERS))
            raise ValueError(f"{type(layer).__name__} {layer.name!r} cannot be compiled. Supported are {names}")
        if getattr(layer, "compute_dtype", "float32") != "float32" or getattr(layer, "quantization_mode", None):
            raise ValueError(
                f"layer {layer.name!r} has the dtype policy {layer.dtype_policy.name}; float32 is supported"
            )
        if getattr(layer, "data_format", None) == "channels_first":
            raise ValueError(f"layer {layer.name!r} has data_format='channels_first'; 'channels_last' is supported")
        return [_Symbol(handler(self, layer, [symbol.node for symbol in flat]))]

    def shape(self, number: int) -> tuple[int, ...]:
        return self.graph.nodes[number].shape

    def add(self, kind: str, layer: Any, inputs: Sequence[int], shape: Sequence[int], **options: Any) -> int:
        return self.graph.add(Node(kind, layer.name, tuple(inputs), tuple(shape), options))

    def add_weights(
        self,
        kind: str,
        layer: Any,
        inputs: Sequence[int],
        shape: Sequence[int],
        arrays: dict[str, Array],
        **options: Any,
    ) -> int:
        arrays = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
        return self.graph.add(Node(kind, layer.name, tuple(inputs), tuple(shape), options, arrays))

    def weights(self, layer: Any) -> dict[str, Array]:
        """The kernel, masked, and the bias if there is one."""
        arrays = {"kernel": self.masked(layer._kernel, layer.kernel)}
        if layer.use_bias:
            arrays["bias"] = keras.ops.convert_to_numpy(layer.bias)
        return arrays

    def masked(self, variable: Any, value: Any) -> Array:
        array = np.asarray(keras.ops.convert_to_numpy(value))
        mask = self.masks.get(id(variable))
        return array if mask is None else array * mask

    def activation(self, number: int, layer: Any) -> int:
        """The activation of a layer that has one, after its result."""
        return _activate(self, layer, layer.activation, number)

    def reshape(self, number: int, layer: Any, shape: Sequence[int]) -> int:
        return number if self.shape(number) == tuple(shape) else self.add("reshape", layer, [number], shape)


def _result(layer: Any, shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(size) for size in layer.compute_output_shape((1, *shape))[1:])


def _dense(lowering: _Lowering, layer: Any, inputs: list[int]) -> int:
    shape = (*lowering.shape(inputs[0])[:-1], layer.units)
    return lowering.activation(lowering.add_weights("dense", layer, inputs, shape, lowering.weights(layer)), layer)


def _convolution(lowering: _Lowering, layer: Any, inputs: list[int]) -> int:
    shape = lowering.shape(inputs[0])
    if layer.groups != 1 or any(rate != 1 for rate in layer.dilation_rate):
        raise ValueError(
            f"layer {layer.name!r} has groups={layer.groups}, dilation_rate={layer.dilation_rate}; 1 is supported"
        )
    arrays, strides, padding = lowering.weights(layer), list(layer.strides), layer.padding
    result, number = _result(layer, shape), inputs[0]
    if len(shape) == 2:  # one row of an image
        number = lowering.reshape(number, layer, (1, *shape))
        arrays["kernel"], strides = arrays["kernel"][None], [1, *strides]
    if padding == "causal":
        before = layer.kernel_size[0] - 1
        number = lowering.add("pad", layer, [number], (1, shape[0] + before, shape[1]), sides=[[0, 0], [before, 0]])
        padding = "valid"
    image = result if len(shape) == 3 else (1, *result)
    number = lowering.add_weights("conv", layer, [number], image, arrays, strides=strides, padding=padding)
    return lowering.activation(lowering.reshape(number, layer, result), layer)


def _normalization(lowering: _Lowering, layer: Any, inputs: list[int]) -> int:
    shape = lowering.shape(inputs[0])
    _last_axis(layer, layer.axis, shape)
    scale, shift = affine(layer)
    return lowering.add_weights("scale", layer, inputs, shape, {"scale": scale, "shift": shift})


def _layer_normalization(lowering: _Lowering, layer: Any, inputs: list[int]) -> int:
    shape = lowering.shape(inputs[0])
    axis = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    if len(axis) != 1 or getattr(layer, "rms_scaling", False):
        raise ValueError(f"layer {layer.name!r} has axis={layer.axis}: one axis, without rms_scaling, is supported")
    _last_axis(layer, axis[0], shape)
    arrays = {name: getattr(layer, name) for name in ("gamma", "beta") if getattr(layer, name) is not None}
    arrays = {name: keras.ops.convert_to_numpy(value) for name, value in arrays.items()}
    return lowering.add_weights("norm", layer, inputs, shape, arrays, epsilon=float(layer.epsilon))


def _last_axis(layer: Any, axis: int, shape: Sequence[int]) -> None:
    if axis not in (-1, len(shape)):
        raise ValueError(f"layer {layer.name!r} normalises axis {axis}; the last one is supported")


def _rescaling(lowering: _Lowering, layer: Any, inputs: list[int]) -> int:
    shape = lowering.shape(inputs[0])
    return _scale(lowering, layer, inputs[0], np.asarray(layer.scale), np.asarray(layer.offset), shape)


def _scale(lowering: _Lowering, layer: Any, number: int, scale: Any, shift: Any, shape: Sequence[int]) -> int:
    try:
        scale, shift = (np.broadcast_to(np.asarray(value, np.float32), shape[-1:]) for value in (scale, shift))
    except ValueError:
        raise ValueError(f"layer {layer.name!r} scales shape {tuple(shape)} by more than a number a channel") from None
    return lowering.add_weights("scale", layer, [number], shape, {"scale": scale, "shift": shift})


def _activation(lowering: _Lowering, layer: Any, inputs: list[int]) -> int:
    return lowering.activation(inputs[0], layer)


def _activate(lowering: _Lowering, layer: Any, function: Any, number: int) -> int:
    if isinstance(function, keras.Layer):
        return lowering.call(function, [_Symbol(number)], {})[0].node
    name = getattr(function, "__name__", type(function).__name__)
    if name == "linear":
        return number
    if (name not in ACTIVATIONS and name not in _ALIASES) or getattr(keras.activations, name, None) is not function:
        names = ", ".join(sorted([*ACTIVATIONS, *_ALIASES, "linear"]))
        raise ValueError(f"layer {layer.name!r} has the activation {name!r}. Supported are {names}")
    name, options = _ALIASES.get(name, (name, {}))
    return lowering.add("activation", layer, [number], lowering.shape(number), function=name, **options)


_ALIASES: dict[str, tuple[str, dict[str, Any]]] = {
    "relu6": ("relu", {"max_value": 6.0}),
    "leaky_relu": ("relu", {"negative_slope": 0.2}),
    "selu": ("elu", {"alpha": 1.6732632423543772, "scale": 1.0507009873554805}),
}


def _relu(lowering: _Lowering, layer: Any, inputs: list[int]) -> int:
    options = {"negative_slope": layer.negative_slope, "max_value": layer.max_value, "threshold": layer.threshold}
    given = {
        name: float(value) for name, value in options.items() if value is not None and (value or name == "max_value")
    }
    return lowering.add("activation", layer, inputs, lowering.shape(inputs[0]), function="relu", **given)


def _leaky_relu(lowering: _Lowering, layer: Any, inputs: list[int]) -> int:
    slope = float(layer.negative_slope)
    return lowering.add("activation", layer, inputs, lowering.shape(inputs[0]), function="relu", negative_slope=slope)


def _elu(lowering: _Lowering, layer: Any, inputs: list[int]) -> int:
    return lowering.add(
        "activation", layer, inputs, lowering.shape(inputs[0]), function="elu", alpha=float(layer.alpha)
    )


def _softmax(lowering: _Lowering, layer: Any, inputs: list[int]) -> int:
    shape = lowering.shape(inputs[0])
    if not isinstance(layer.axis, int) or layer.axis == 0:
        raise ValueError(f"layer {layer.name!r} has axis={layer.axis}; one axis of the example is supported")
    return lowering.add("activation", layer, inputs, shape, function="softmax", axis=layer.axis)


def _pool(lowering: _Lowering, layer: Any, inputs: list[int]) -> int:
    shape = lowering.shape(inputs[0])
    result, sides, strides = _result(layer, shape), list(layer.pool_size), list(layer.strides)
    number = inputs[0]
    if len(shape) == 2:
        number = lowering.reshape(number, layer, (1, *shape))
        sides, strides = [1, *sides], [1, *strides]
    mode = "max" if "Max" in type(layer).__name__ else "average"
    image = result if len(shape) == 3 else (1, *result)
    number = lowering.add("pool", layer, [number], image, mode=mode, size=sides, strides=strides, padding=layer.padding)
    return lowering.reshape(number, layer, result)


def _global_pool(lowering: _Lowering, layer: Any, inputs: list[int]) -> int:
    shape = lowering.shape(inputs[0])
    mode = "max" if "Max" in type(layer).__name__ else "average"
    return lowering.add("global_pool", layer, inputs, _result(layer, shape), mode=mode)


def _pad(lowering: _Lowering, layer: Any, inputs: list[int]) -> int:
    shape = lowering.shape(inputs[0])
    sides = [list(map(int, side)) for side in layer.padding] if len(shape) == 3 else [[0, 0], list(layer.padding)]
    result, number = _result(layer, shape), inputs[0]
    if len(shape) == 2:
        number = lowering.reshape(number, layer, (1, *shape))
    image = result if len(shape) == 3 else (1, *result)
    return lowering.reshape(lowering.add("pad", layer, [number], image, sides=sides), layer, result)


def _reshape(lowering: _Lowering, layer: Any, inputs: list[int]) -> int:
    return lowering.reshape(inputs[0], layer, _result(layer, lowering.shape(inputs[0])))


def _nothing(lowering: _Lowering, layer: Any, inputs: list[int]) -> int:
    return inputs[0]


def _merge(lowering: _Lowering, layer: Any, inputs: list[int]) -> int:
    mode = type(layer).__name__.lower()
    shapes = [lowering.shape(number) for number in inputs]
    if mode == "concatenate":
        axis = layer.axis if layer.axis < 0 else layer.axis - 1 - len(shapes[0])
        if axis < -len(shapes[0]):
            raise ValueError(f"layer {layer.name!r} concatenates examples (axis={layer.axis}): not supported")
        sizes = [sum(shape[axis] for shape in shapes) if i == axis % len(shapes[0]) else size
                 for i, size in enumerate(shapes[0])]  # fmt: skip
        return lowering.add("merge", layer, inputs, sizes, mode=mode, axis=axis)
    return _elementwise(lowering, layer, mode, inputs)


def _elementwise(lowering: _Lowering, layer: Any, mode: str, inputs: list[int]) -> int:
    shapes = [lowering.shape(number) for number in inputs]
    if len({len(shape) for shape in shapes}) != 1:
        raise ValueError(f"layer {layer.name!r} merges the shapes {shapes}: as many axes each are supported")
    return lowering.add("merge", layer, inputs, np.broadcast_shapes(*shapes), mode=mode)


_OPERATIONS = {
    "Add": "add", "Subtract": "subtract", "Multiply": "multiply", "Maximum": "maximum", "Minimum": "minimum",
    "Relu": "relu",
}  # fmt: skip


def _call_operation(lowering: _Lowering, operation: Any, mode: str, arguments: Sequence[Any]) -> int:
    """What x + y, x * 2 and keras.ops.relu(x) leave in a graph."""
    symbols = [a.node for a in arguments if isinstance(a, _Symbol)]
    if mode == "relu":
        return lowering.add("activation", operation, symbols, lowering.shape(symbols[0]), function="relu")
    if len(symbols) == 2:
        return _elementwise(lowering, operation, mode, symbols)
    (place,) = [i for i, a in enumerate(arguments) if isinstance(a, _Symbol)]
    constant = np.asarray(keras.ops.convert_to_numpy(arguments[1 - place]), np.float32)
    scale, shift = {
        ("add", 0): (1, constant), ("add", 1): (1, constant), ("subtract", 0): (1, -constant),
        ("subtract", 1): (-1, constant), ("multiply", 0): (constant, 0), ("multiply", 1): (constant, 0),
    }.get((mode, place), (None, None))  # fmt: skip
    if scale is None:
        raise ValueError(f"{type(operation).__name__} {operation.name!r} of a tensor and a constant is not supported")
    return _scale(lowering, operation, symbols[0], scale, shift, lowering.shape(symbols[0]))


_LAYERS: dict[type, Callable[[_Lowering, Any, list[int]], int]] = {
    layers.Activation: _activation,
    layers.ActivityRegularization: _nothing,
    layers.AlphaDropout: _nothing,
    layers.BatchNormalization: _normalization,
    layers.Conv1D: _convolution,
    layers.Conv2D: _convolution,
    layers.Dense: _dense,
    layers.Dropout: _nothing,
    layers.ELU: _elu,
    layers.Flatten: _reshape,
    layers.GaussianDropout: _nothing,
    layers.GaussianNoise: _nothing,
    layers.LayerNormalization: _layer_normalization,
    layers.LeakyReLU: _leaky_relu,
    layers.ReLU: _relu,
    layers.Rescaling: _rescaling,
    layers.Reshape: _reshape,
    layers.Softmax: _softmax,
    layers.SpatialDropout1D: _nothing,
    layers.SpatialDropout2D: _nothing,
    **dict.fromkeys([layers.ZeroPadding1D, layers.ZeroPadding2D], _pad),
    **dict.fromkeys(
        [layers.MaxPooling1D, layers.MaxPooling2D, layers.AveragePooling1D, layers.AveragePooling2D], _pool
    ),
    **dict.fromkeys(
        [
            layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalAveragePooling1D,
            layers.GlobalAveragePooling2D,
        ],
        _global_pool,
    ),
    **dict.fromkeys(
        [
            layers.Add, layers.Average, layers.Concatenate, layers.Maximum, layers.Minimum, layers.Multiply,
            layers.Subtract,
        ],
        _merge,
    ),
}  # fmt: skip
