"""The channels of a Keras model: which axes of its weights belong to which units, followed through its graph."""

from __future__ import annotations

from typing import Any

import keras

from keras_lth.surgery.paths import entries

Axis = tuple[tuple[int, int], ...]

_LAYERS = keras.layers
# What passes every channel on by itself.
_PASSED = (
    _LAYERS.Activation, _LAYERS.ReLU, _LAYERS.LeakyReLU, _LAYERS.ELU, _LAYERS.Dropout, _LAYERS.SpatialDropout2D,
    _LAYERS.MaxPooling1D, _LAYERS.MaxPooling2D, _LAYERS.AveragePooling1D, _LAYERS.AveragePooling2D,
    _LAYERS.GlobalAveragePooling1D, _LAYERS.GlobalAveragePooling2D, _LAYERS.GlobalMaxPooling1D,
    _LAYERS.GlobalMaxPooling2D, _LAYERS.ZeroPadding1D, _LAYERS.ZeroPadding2D, _LAYERS.Identity, _LAYERS.Softmax,
)  # fmt: skip
# What treats the inputs of a place alike and combines them channel by channel.
_COMBINED = (_LAYERS.Add, _LAYERS.Subtract, _LAYERS.Multiply, _LAYERS.Average, _LAYERS.Maximum, _LAYERS.Minimum)


class Channels:
    """Follows the last axis of every tensor through a model; `found` returns what is permuted together.

    A group is a set of units. Groups that a residual connection adds become one. Group −1 is fixed.

    Raises ``ValueError`` for a model without a graph, or a layer that is not known.
    """

    def __init__(self, model: keras.Model) -> None:
        self._same: dict[int, int] = {}
        self._axes: dict[str, list[Axis]] = {}
        self._paths = {id(entry.variable): entry.path for entry in entries(model)}
        self._shapes = {entry.path: tuple(entry.variable.shape) for entry in entries(model)}
        graph: Any = getattr(model, "_functional", None) or model
        if not hasattr(graph, "_nodes_by_depth"):
            raise ValueError(f"{type(model).__name__} has no graph: use a functional or a sequential Keras model.")
        of: dict[int, Axis] = {}
        for depth in sorted(graph._nodes_by_depth, reverse=True):
            for node in graph._nodes_by_depth[depth]:
                given = [of[id(tensor)] for tensor in node.input_tensors]
                for tensor in node.output_tensors:
                    of[id(tensor)] = self._through(node.operation, given, node.input_tensors, tensor)
        for tensor in keras.tree.flatten(model.outputs):
            for group, _ in of[id(tensor)]:
                self._join(group, -1)

    def found(self) -> tuple[dict[str, tuple[Axis, ...]], dict[int, int]]:
        """Return the parts of each weight's axes, and the size of each group from input to output."""
        axes = {path: tuple(map(self._resolved, found)) for path, found in self._axes.items()}
        for path, shape in self._shapes.items():
            axes.setdefault(path, tuple(() for _ in shape))
        sizes = {group: size for found in axes.values() for axis in found for group, size in axis if group >= 0}
        return axes, dict(sorted(sizes.items()))

    def _through(self, layer: Any, given: list[Axis], inputs: list[Any], output: Any) -> Axis:
        size = output.shape[-1]
        if isinstance(layer, _LAYERS.InputLayer):
            return ((-1, size),)
        if isinstance(layer, (_LAYERS.Dense, _LAYERS.Conv1D, _LAYERS.Conv2D)) and self._plain(layer):
            made: Axis = ((self._of_layer(layer, size), size),)
            self._note(layer.kernel, {-2: given[0], -1: made})
            if layer.use_bias:
                self._note(layer.bias, {-1: made})
            return made
        if isinstance(layer, _LAYERS.BatchNormalization) and layer.axis in (-1, len(output.shape) - 1):
            for variable in layer.variables:
                if id(variable) in self._paths and len(variable.shape) == 1 and variable.shape[0] == size:
                    self._note(variable, {-1: given[0]})
            return given[0]
        if isinstance(layer, _PASSED):
            return given[0]
        if isinstance(layer, _COMBINED):
            for other in given[1:]:
                self._join_axes(given[0], other, layer)
            return given[0]
        if isinstance(layer, _LAYERS.Concatenate) and layer.axis in (-1, len(output.shape) - 1):
            return tuple(part for axis in given for part in axis)
        if isinstance(layer, _LAYERS.Flatten):
            return given[0] * (size // sum(count for _, count in given[0]))
        if isinstance(layer, _LAYERS.Rescaling) and all(group < 0 for group, _ in self._resolved(given[0])):
            return given[0]
        shape = tuple(inputs[0].shape) if inputs else ()
        raise ValueError(
            f"The layer {layer.name!r} ({type(layer).__name__}, of an input of shape {shape}) is not known to permute "
            "with its channels: known are dense layers, convolutions, batch normalisation, pools, activations, and "
            "layers that add, concatenate or flatten."
        )

    @staticmethod
    def _plain(layer: Any) -> bool:
        """Whether the last axes of the kernel are all inputs and all outputs."""
        return getattr(layer, "groups", 1) == 1 and getattr(layer, "data_format", "channels_last") == "channels_last"

    def _of_layer(self, layer: Any, size: int) -> int:
        """The group of a layer's outputs: of a shared layer one for all of its calls."""
        path = self._paths[id(layer.kernel)]
        if path in self._axes:
            return self._axes[path][-1][0][0]
        group = len(self._same)
        self._same[group] = group
        return group

    def _note(self, variable: Any, axes: dict[int, Axis]) -> None:
        path = self._paths[id(variable)]
        noted = self._axes.setdefault(path, [() for _ in variable.shape])
        for at, axis in axes.items():
            if noted[at]:
                self._join_axes(noted[at], axis, variable)
            noted[at] = axis

    def _join_axes(self, first: Axis, second: Axis, what: Any) -> None:
        if [size for _, size in first] != [size for _, size in second]:
            raise ValueError(f"{what.name} combines channels of {first} and {second}, which are not alike.")
        for (one, _), (other, _) in zip(first, second, strict=True):
            self._join(one, other)

    def _join(self, one: int, other: int) -> None:
        least, most = sorted((self._root(one), self._root(other)))
        if least != most:
            self._same[most] = least

    def _root(self, group: int) -> int:
        while group >= 0 and self._same[group] != group:
            group = self._same[group]
        return group

    def _resolved(self, axis: Axis) -> Axis:
        return tuple((self._root(group), size) for group, size in axis)
