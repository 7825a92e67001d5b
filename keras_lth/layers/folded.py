"""Batch normalisation inside the kernel before it, for inference, in place.

The normalisation keeps its weights, which become those of the identity. So the model is the same function in Keras' own
classes too, and is saved and loaded as that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_lth.layers.fused import become, plain_relu
from keras_lth.surgery.holders import trace_again
from keras_lth.surgery.paths import layers

__all__ = ["affine", "fold_in_place", "functional_of"]

_KERNELS = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D)


def functional_of(model: Any) -> Any:
    """The functional model that a model is, or has inside; None where its call cannot be read."""
    if isinstance(model, keras.Sequential):
        return model._functional
    return model if isinstance(model, keras.Model) and model._obj_type() == "Functional" else None


def affine(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """The scale and the shift, [channels], that a BatchNormalization computes in inference."""
    mean, variance = map(keras.ops.convert_to_numpy, (layer.moving_mean, layer.moving_variance))
    scale = 1 / np.sqrt(variance + np.float32(layer.epsilon))
    if layer.gamma is not None:
        scale = scale * keras.ops.convert_to_numpy(layer.gamma)
    shift = -mean * scale
    return scale, shift if layer.beta is None else shift + keras.ops.convert_to_numpy(layer.beta)


class _Skipped(keras.layers.Layer):
    """What a layer whose work another has taken over does otherwise than its class: nothing."""

    def call(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """The inputs."""
        return inputs


class _Pair(NamedTuple):
    """A normalisation, the layer whose kernel takes it over, and a ReLU that alone reads its result, or None."""

    kernel: Any
    norm: Any
    relu: Any


def fold_in_place(model: keras.Model) -> list[str]:
    """Fold each BatchNormalization of ``model`` whose input is the result of a Dense, Conv1D or Conv2D alone into it.

    The kernel is scaled by output, the bias takes the shift (a layer without one gets one, not trainable), and a plain
    ReLU behind becomes its activation. The normalisation is left as the identity, and frozen. Kernels must be whole.

    Returns:
        Names of the layers folded away.
    """
    folded: list[str] = []
    touched = []
    for pair in list(_pairs(model)):
        scale, shift = affine(pair.norm)
        kernel, layer = pair.kernel._kernel, pair.kernel
        bias = keras.ops.convert_to_numpy(layer.bias) if layer.use_bias else np.zeros_like(shift)
        if not layer.use_bias:
            layer._tracker.unlock()
            layer.bias = layer.add_weight(name="bias", shape=shift.shape, initializer="zeros", trainable=False)
            layer._tracker.lock()
            layer.use_bias = True
        kernel.assign(keras.ops.convert_to_numpy(kernel) * scale)
        layer.bias.assign(bias * scale + shift)
        _make_identity(pair.norm)
        if pair.relu is not None:
            layer.activation = keras.activations.relu
        for one in (pair.norm, pair.relu):
            if one is not None:
                become(one, _Skipped)
                folded.append(one.name)
        touched += layer.variables
    if touched:
        trace_again(touched)
    return folded


def _make_identity(norm: Any) -> None:
    norm.moving_mean.assign(np.zeros(norm.moving_mean.shape))
    norm.moving_variance.assign(np.full(norm.moving_variance.shape, 1.0 - norm.epsilon))
    if norm.gamma is not None:
        norm.gamma.assign(np.ones(norm.gamma.shape))
    if norm.beta is not None:
        norm.beta.assign(np.zeros(norm.beta.shape))
    norm.trainable = False


def _pairs(model: keras.Model) -> Iterator[_Pair]:
    found = [function for _, layer in layers(model) if (function := functional_of(layer)) is not None]
    functions = list({id(function): function for function in found}.values())
    nodes = [_nodes(function) for function in functions]
    calls = Counter(id(node.operation) for each in nodes for node in each)
    for function, of in zip(functions, nodes, strict=True):
        made = {id(output): node.operation for node in of for output in node.outputs}
        readers: dict[int, list[Any]] = {id(output): [None] for output in function.outputs}
        for node in of:
            for tensor in node.arguments.keras_tensors:
                readers.setdefault(id(tensor), []).append(node)
        for node in of:
            norm, tensors = node.operation, node.arguments.keras_tensors
            kernel = made.get(id(tensors[0])) if len(tensors) == 1 else None
            if kernel is None or calls[id(norm)] != 1 or calls[id(kernel)] != 1 or len(readers[id(tensors[0])]) != 1:
                continue
            if not _takes(kernel) or not _given(norm):
                continue
            behind = readers.get(id(node.outputs[0]), [])
            relu = behind[0].operation if len(behind) == 1 and behind[0] is not None else None
            yield _Pair(kernel, norm, relu if plain_relu(relu) and calls[id(relu)] == 1 else None)


def _nodes(function: Any) -> list[Any]:
    return [node for of in function._nodes_by_depth.values() for node in of if node.operation and not node.is_input]


def _takes(layer: Any) -> bool:
    return (
        layer.__class__ in _KERNELS
        and layer.activation in (None, keras.activations.linear)
        and layer.compute_dtype == "float32"
        and getattr(layer, "data_format", "channels_last") == "channels_last"
        and not getattr(layer, "quantization_mode", None)
        and not getattr(layer, "lora_enabled", False)
    )


def _given(norm: Any) -> bool:
    return (
        norm.__class__ is keras.layers.BatchNormalization
        and norm.compute_dtype == "float32"
        and norm.axis in (-1, norm.input_spec.ndim - 1)
        and not isinstance(norm, _Skipped)
    )
