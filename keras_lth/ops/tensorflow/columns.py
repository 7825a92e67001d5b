"""Products with single weights under XLA on feature-major activations, "columns" (cc/sparse/columns.h).

A product's result remembers its columns, and the next product takes them: activations are copied at both ends of a
chain of layers instead of at each product, forward and backward. XLA removes the row-major results that nobody reads.

The gradient before a ReLU is 0 where its result is 0. A product that takes the columns of a ReLU computes its input's
gradient like that at once. So a product with ReLU takes the gradient of its columns as it is, and whoever else
reads them does so through `_read`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

__all__ = ["product", "through"]

# As cc/tf/xla.cc counts them.
FORWARD, GRAD_INPUT, GRAD_VALUES, PACK, UNPACK, BACKWARD = range(6, 12)
STRUCTURE = 6  # tensors: five index arrays and the geometry
MADE = "_keras_lth_columns"  # of a row-major tensor: what it was made from

Call = Callable[..., list[Any]]


@dataclass(frozen=True)
class _Made:
    """Columns of a tensor.

    Attributes:
        batch: their samples.
        tensor: [tiles, features, step].
        gated: whether they want the gradient before their ReLU.
        packed: whether they are a copy, not the result of a product.
    """

    batch: _Batch
    tensor: Any
    gated: bool = False
    packed: bool = False


def product(call: Call, x: Any, values: Any, structure: Sequence[Any], biases: Sequence[Any], relu: bool) -> Any:
    """Compute the product, which can be differentiated any number of times.

    Args:
        call: `xla.call` of the kernels in XLA.
        x: float32 [..., inputs] of a known shape.
        values: float32 or bfloat16 [stored, 1, 1].
        structure: the five index arrays and the geometry.
        biases: none, or one, float32 [outputs].
        relu: whether to apply ReLU at the end.

    Returns:
        float32 [..., outputs].
    """
    inputs, outputs = structure[-1].shape.as_list()[1:3]
    batch = _Batch(call, x.shape.num_elements() // inputs)
    made = _current(x)
    if made is None:
        made = _Made(batch, batch.pack(tf.reshape(x, [batch.m, inputs])), packed=True)
        _remember(x, made)
    # The gradient of a copy is a call of its own: XLA leaves that out if nobody needs it, as in a first layer.
    products = _Products(batch, inputs, outputs, values, separate=made.packed)
    columns = products.forward(made.tensor, made.gated, values, structure, biases, relu)
    return _row_major(_Made(batch, columns, relu), x.shape[:-1])


def through(y: Any, function: Callable[[Any], Any]) -> Any:
    """Apply an elementwise function of f(0) = 0 to a tensor, by way of its columns if it has some."""
    made = _current(y)
    if made is None:
        return function(y)
    return _row_major(_Made(made.batch, function(_read(made))), y.shape[:-1])


def _row_major(made: _Made, leading: Any) -> Any:
    columns = _read(made)
    y = tf.reshape(made.batch.unpack(columns), [*leading, columns.shape[1]])
    _remember(y, made)
    return y


def _read(made: _Made) -> Any:
    """Columns for who takes the gradient of what it reads as it is."""
    return _gated(made.tensor) if made.gated else made.tensor


@tf.custom_gradient
def _gated(y: Any) -> Any:
    return tf.identity(y), lambda dy: _before_relu(dy, y)


def _before_relu(dy: Any, y: Any) -> Any:
    return tf.raw_ops.ReluGrad(gradients=dy, features=tf.stop_gradient(y))


def _current(x: Any) -> _Made | None:
    """What x was made from, in the graph that is being traced."""
    made = getattr(x, MADE, None)
    return made if made is not None and made.tensor.graph is tf.compat.v1.get_default_graph() else None


def _remember(x: Any, made: _Made) -> None:
    # Not a tensor of an outer graph: what is made of it in a loop's body exists there alone.
    if getattr(x, "graph", None) is made.tensor.graph:
        setattr(x, MADE, made)


@dataclass(frozen=True)
class _Batch:
    """``m`` samples, in tiles of ``step`` as cc/sparse/columns.cc has them."""

    call: Call
    m: int

    @property
    def step(self) -> int:
        return 4 if self.m <= 4 else 8 if self.m <= 8 else min(-(-self.m // 16) * 16, 64)

    def shape(self, features: int) -> list[int]:
        return [-(-self.m // self.step), features, self.step]

    @property
    def filled(self) -> Any:
        """1 where there is a sample, 0 behind the last one: float32 [tiles, 1, step]."""
        tiles, _, step = self.shape(1)
        return tf.reshape(tf.cast(tf.range(tiles * step) < self.m, tf.float32), [tiles, 1, step])

    def pack(self, x: Any) -> Any:
        """x [m, features] as columns."""
        return self._copied(x, PACK, self.shape(x.shape[1]), self.unpack)

    def unpack(self, x: Any) -> Any:
        """Columns as [m, features]."""
        return self._copied(x, UNPACK, [self.m, x.shape[1]], self.pack)

    def _copied(self, x: Any, number: int, shape: list[int], back: Callable[[Any], Any]) -> Any:
        @tf.custom_gradient
        def run(x: Any) -> Any:
            return self.call(number, [tf.stop_gradient(x)], [shape], m=self.m)[0], back

        return run(x)


class _Products:
    """The custom calls of one product, whose gradients are one another.

    As in `xla`, the tensors of the structure are arguments of what is differentiated, and no gradient enters a call.
    """

    def __init__(self, batch: _Batch, inputs: int, outputs: int, values: Any, separate: bool) -> None:
        self.call = functools.partial(batch.call, m=batch.m)
        self.batch = batch
        self.inputs, self.outputs = batch.shape(inputs), batch.shape(outputs)
        self.values = values.shape.as_list()
        self.separate = separate

    def forward(
        self,
        x: Any,
        gated: bool,
        values: Any,
        structure: Sequence[Any],
        biases: Sequence[Any] = (),
        relu: bool = False,
    ) -> Any:
        """Columns of the result, which with ReLU want the gradient before it; ``gated``: those of x do."""

        @tf.custom_gradient
        def run(x: Any, values: Any, *rest: Any) -> Any:
            structure, biases = rest[:STRUCTURE], rest[STRUCTURE:]
            given = [*map(tf.stop_gradient, (x, values)), *structure, *map(tf.stop_gradient, biases)]
            (y,) = self.call(FORWARD, given, [self.outputs], relu=relu)

            def gradients(dy: Any) -> Any:
                dx, dvalues, db = self.backward(x, dy, values, structure, gated)
                return [dx, tf.cast(dvalues, values.dtype), *[None] * STRUCTURE, *[db for _ in biases]]

            return y, gradients

        return run(x, values, *structure, *biases)

    def backward(self, x: Any, dy: Any, values: Any, structure: Sequence[Any], gated: bool) -> tuple[Any, Any, Any]:
        """Gradients for x, the values and the bias of the linear product."""
        if self.separate:
            return self._apart(x, dy, values, structure, gated)

        @tf.custom_gradient
        def run(x: Any, dy: Any, values: Any, *structure: Any) -> Any:
            given = [*map(tf.stop_gradient, (dy, values)), *structure, tf.stop_gradient(x)]
            shapes = [self.inputs, self.values, self.outputs[1:2]]
            results = self.call(BACKWARD, given, shapes, relu=gated)

            def gradients(*g: Any) -> Any:
                with tf.GradientTape() as tape:
                    tape.watch([x, dy, values])
                    parts = self._apart(x, dy, values, structure, gated)
                dx, *others = tape.gradient(parts, [x, dy, values], output_gradients=g)
                return [_before_relu(dx, x) if gated else dx, *others, *[None] * STRUCTURE]

            return tuple(results), gradients

        return run(x, dy, values, *structure)

    def _apart(self, x: Any, dy: Any, values: Any, structure: Sequence[Any], gated: bool) -> tuple[Any, Any, Any]:
        dx = self.grad_input(dy, values, structure)
        return (_before_relu(dx, x) if gated else dx, *self.grad_values(x, dy, structure))

    def grad_input(self, dy: Any, values: Any, structure: Sequence[Any]) -> Any:
        @tf.custom_gradient
        def run(dy: Any, values: Any, *structure: Any) -> Any:
            def gradients(g: Any) -> Any:
                dvalues, _ = self.grad_values(g, dy, structure)
                back = self.forward(g, False, values, structure)
                return [back, tf.cast(dvalues, values.dtype), *[None] * STRUCTURE]

            given = [*map(tf.stop_gradient, (dy, values)), *structure]
            return self.call(GRAD_INPUT, given, [self.inputs])[0], gradients

        return run(dy, values, *structure)

    def grad_values(self, x: Any, dy: Any, structure: Sequence[Any]) -> tuple[Any, Any]:
        """Gradients for the values and the bias."""

        @tf.custom_gradient
        def run(x: Any, dy: Any, *structure: Any) -> Any:
            def gradients(g: Any, of_sums: Any) -> Any:
                back = self.forward(x, False, g, structure) + of_sums[:, None] * self.batch.filled
                return [self.grad_input(dy, g, structure), back, *[None] * STRUCTURE]

            given = [*map(tf.stop_gradient, (x, dy)), *structure]
            return tuple(self.call(GRAD_VALUES, given, [self.values, self.outputs[1:2]])), gradients

        return run(x, dy, *structure)
