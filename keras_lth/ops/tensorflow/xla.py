"""The sparse products inside a function that XLA compiles for the CPU: custom calls of the same kernels.

A custom call has static shapes. If the batch size is not known when the function is traced (Keras' fit), the batch is
divided into tiles of a fixed size, and the last one is padded with zeros.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_lth.ops.tensorflow import columns
from keras_lth.ops.tensorflow.columns import STRUCTURE

try:
    # TensorFlow has no public name for this op.
    from tensorflow.compiler.tf2xla.ops.gen_xla_ops import xla_custom_call_v2
except ImportError:
    xla_custom_call_v2 = None

__all__ = ["available", "call", "in_xla", "product"]

# In the order of `Op` in cc/tf/problem.h.
FORWARD, GRAD_INPUT, GRAD_VALUES = range(3)
ROWS, CONV = 0, 3
# Rows of a product, images of a convolution.
TILE = {ROWS: 32, CONV: 8}


def in_xla() -> bool:
    """Return whether XLA compiles the function being traced: tf.function(jit_compile=True), or one inside it."""
    if tf.executing_eagerly():
        return False
    graph = tf.compat.v1.get_default_graph()
    while graph is not None:
        context = graph._get_control_flow_context()
        while context is not None:
            if context.IsXLAContext():
                return True
            context = context.outer_context
        graph = getattr(graph, "outer_graph", None)
    return False


def available(target: str | None, x: Any, conv: bool) -> bool:
    """Return whether custom calls can be made for x: the sizes of its images must be known."""
    if target is None or xla_custom_call_v2 is None or x.shape.rank is None:
        return False
    return not conv or x.shape[1:3].is_fully_defined()


def product(target: str, x: Any, values: Any, structure: list[Any], bias: Any, relu: bool, conv: bool) -> Any:
    """Compute the product, which can be differentiated any number of times.

    Args:
      target: the name of the kernels in XLA.
      x: float32 [..., inputs] or [batch, height, width, inputs].
      values: float32 or bfloat16 [stored, *block].
      structure: the five index arrays and the geometry.
      bias: float32 [outputs] or None.
      relu: whether to apply ReLU at the end.
      conv: whether it is a convolution.
    """
    biases = [] if bias is None else [bias]
    sizes = structure[-1].shape.as_list()
    inputs, outputs, *block = sizes[1:5]
    if conv:
        kernel, strides, same = sizes[5:7], sizes[7:9], sizes[9]
        pixels = x.shape[1:3].as_list()
        out = [-(-n // s) if same else (n - k) // s + 1 for n, k, s in zip(pixels, kernel, strides, strict=True)]
        calls = _Calls(target, CONV, [*pixels, inputs], [*out, outputs], values)
        return calls.product(relu, x, values, structure, biases)
    # Only the last axis belongs to the kernel.
    if block == [1, 1] and x.shape.is_fully_defined():
        return columns.product(functools.partial(call, target), x, values, structure, biases, relu)
    rows = tf.reshape(x, [x.shape.num_elements() // inputs if x.shape.is_fully_defined() else -1, inputs])
    y = _Calls(target, ROWS, [inputs], [outputs], values).product(relu, rows, values, structure, biases)
    return tf.ensure_shape(tf.reshape(y, tf.concat([tf.shape(x)[:-1], [outputs]], 0)), [*x.shape[:-1], outputs])


class _Calls:
    """The three custom calls of one product, whose gradients are one another.

    Args:
        target: the name of the kernels in XLA.
        kind: ROWS or CONV.
        inputs, outputs: the shapes at both sides of the kernel, without the first axis.
        values: the stored values.

    The structure's tensors are arguments of the differentiated function, not captured by it: in the gradient of a loop
    TensorFlow finds loop invariants among the former, and fails on eager tensors among the latter.
    """

    def __init__(self, target: str, kind: int, inputs: list[int], outputs: list[int], values: Any) -> None:
        self.target, self.kind = target, kind
        self.inputs, self.outputs = inputs, outputs
        self.values = values.shape.as_list()

    def product(self, relu: bool, x: Any, values: Any, structure: Sequence[Any], biases: Sequence[Any] = ()) -> Any:
        @tf.custom_gradient
        def run(x: Any, values: Any, *rest: Any) -> Any:
            structure, biases = rest[:STRUCTURE], rest[STRUCTURE:]
            y = self._forward(x, values, structure, biases, relu)

            def gradients(dy: Any) -> Any:
                if relu:
                    dy = tf.raw_ops.ReluGrad(gradients=dy, features=tf.stop_gradient(y))
                dx, dvalues = self._both(x, dy, values, structure)
                db = [tf.reduce_sum(tf.reshape(dy, [-1, self.outputs[-1]]), 0) for _ in biases]
                return [dx, dvalues, *[None] * STRUCTURE, *db]

            return y, gradients

        return run(x, values, *structure, *biases)

    def _both(self, x: Any, dy: Any, values: Any, structure: Sequence[Any]) -> tuple[Any, Any]:
        """Gradients of the linear product for x and the values."""
        return self.grad_input(dy, values, structure), tf.cast(self.grad_values(x, dy, structure), values.dtype)

    def grad_input(self, dy: Any, values: Any, structure: Sequence[Any]) -> Any:
        @tf.custom_gradient
        def run(dy: Any, values: Any, *structure: Any) -> Any:
            def gradients(g: Any) -> Any:
                dvalues = tf.cast(self.grad_values(g, dy, structure), values.dtype)
                return [self.product(False, g, values, structure), dvalues, *[None] * STRUCTURE]

            return self._grad_input(dy, values, structure), gradients

        return run(dy, values, *structure)

    def grad_values(self, x: Any, dy: Any, structure: Sequence[Any]) -> Any:
        @tf.custom_gradient
        def run(x: Any, dy: Any, *structure: Any) -> Any:
            def gradients(g: Any) -> Any:
                return [
                    self.grad_input(dy, g, structure),
                    self.product(False, x, g, structure),
                    *[None] * STRUCTURE,
                ]

            return self._grad_values(x, dy, structure), gradients

        return run(x, dy, *structure)

    # No gradient may pass below: a tape that watches the inputs would differentiate the loop itself.

    def _forward(self, x: Any, values: Any, structure: Any, biases: Any, relu: bool) -> Any:
        x, values, *biases = map(tf.stop_gradient, (x, values, *biases))

        def one(tile: Any) -> Any:
            return self._call(FORWARD, [tile, values, *structure, *biases], [tile.shape[0], *self.outputs], relu=relu)

        return self._stacked(one, x, self.inputs, self.outputs)

    def _grad_input(self, dy: Any, values: Any, structure: Any) -> Any:
        dy, values = map(tf.stop_gradient, (dy, values))

        def one(tile: Any) -> Any:
            shape = [tile.shape[0], *self.inputs]
            shape_of_x = shape if self.kind == CONV else None
            return self._call(GRAD_INPUT, [tile, values, *structure], shape, shape_of_x=shape_of_x)

        return self._stacked(one, dy, self.outputs, self.inputs)

    def _grad_values(self, x: Any, dy: Any, structure: Any) -> Any:
        x, dy = map(tf.stop_gradient, (x, dy))

        def one(x: Any, dy: Any) -> Any:
            return self._call(GRAD_VALUES, [x, dy, *structure], self.values)

        if x.shape[0] is not None and dy.shape[0] is not None:
            return one(x, dy)
        features, gradients = self._tiles(x, self.inputs), self._tiles(dy, self.outputs)
        _, total = tf.while_loop(
            lambda i, _: i < tf.shape(features)[0],
            lambda i, total: (i + 1, total + one(features[i], gradients[i])),
            (tf.constant(0), tf.zeros(self.values)),
        )
        return total

    def _stacked(self, one: Callable[[Any], Any], x: Any, sizes: list[int], result: list[int]) -> Any:
        """`one` of x, or of its tiles one after another."""
        if x.shape[0] is not None:
            return one(x)
        tile = TILE[self.kind]
        tiles = tf.map_fn(one, self._tiles(x, sizes), fn_output_signature=tf.TensorSpec([tile, *result], tf.float32))
        return tf.reshape(tiles, [-1, *result])[: tf.shape(x)[0]]

    def _tiles(self, x: Any, sizes: list[int]) -> Any:
        tile, rows = TILE[self.kind], tf.shape(x)[0]
        # At least one tile: XLA compiles even a loop body that never runs, and refuses to slice an empty tensor.
        missing = tf.maximum(tile, -(-rows // tile) * tile) - rows
        return tf.reshape(tf.pad(x, [[0, missing], *[[0, 0]] * len(sizes)]), [-1, tile, *sizes])

    def _call(self, op: int, arguments: list[Any], shape: list[int], **options: Any) -> Any:
        return call(self.target, op + self.kind, arguments, [shape], **options)[0]


def call(
    target: str,
    number: int,
    arguments: list[Any],
    results: list[list[int]],
    *,
    relu: bool = False,
    m: int = 0,
    shape_of_x: list[int] | None = None,
) -> list[Any]:
    """Make a custom call, which has no gradient.

    Args:
        target: the name of the kernels in XLA.
        number: which one, as cc/tf/xla.cc counts them.
        arguments: tensors, the second one float32 or bfloat16.
        results: the shapes of what it returns, float32.
        relu: whether to apply ReLU, or to gate a gradient.
        m: samples, of columns.
        shape_of_x: of a last argument of which only the shape is read.
    """
    shapes = [argument.shape.as_list() for argument in arguments]
    if shape_of_x is not None:
        # The empty geometry replaces it.
        arguments, shapes = [*arguments, arguments[-1]], [*shapes, shape_of_x]
    words = [len(results), *(tf.TensorShape(shape).num_elements() for shape in results)]
    words += [number, int(relu), m, len(arguments)]
    for argument, dims in zip(arguments, shapes, strict=True):
        words += [int(argument.dtype.size == 2), len(dims), *dims]
    return xla_custom_call_v2(
        operands=arguments,
        call_target_name=target,
        backend_config=" ".join(map(str, words)),
        has_side_effect=False,
        result_dtypes=[tf.float32] * len(results),
        result_shapes=results,
    )
