"""Gradients of the ops, registered by name, so that eager tapes, graphs and loaded SavedModels find them.

The three ops of a product are closed under differentiation, so second derivatives work too.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_lth.ops.tensorflow.library import load

__all__ = ["LINEAR"]

INDICES = ("starts", "others", "row_starts", "row_others", "row_places", "geometry")
LINEAR = {"matmul": "KerasLthSparseMatmul", "conv2d": "KerasLthSparseConv2d"}


def _function(name: str) -> Any:
    library = load()
    assert library is not None, "a gradient of an op of a library that is not loaded"
    return getattr(library.ops, f"keras_lth_sparse_{name}")


def _structure(op: Any) -> dict[str, Any]:
    return dict(zip(INDICES, op.inputs[2:8], strict=True))


def _skipped(op: Any) -> Any:
    """Inputs whose gradient is not needed; only an eager tape knows."""
    return getattr(op, "skip_input_indices", None) or ()


def _masked_sums(dy: Any, y: Any) -> Any:
    library = load()
    assert library is not None, "a gradient of an op of a library that is not loaded"
    return library.ops.keras_lth_masked_sums(dy=dy, y=y)


@tf.RegisterGradient("KerasLthMaskedSums")
def _of_masked_sums(op: Any, g: Any, of_sums: Any) -> list[Any]:
    return [tf.raw_ops.ReluGrad(gradients=g + of_sums, features=op.inputs[1]), None]


def _register(product: str) -> None:
    conv = product == "conv2d"

    def forward(x: Any, values: Any, structure: dict[str, Any]) -> Any:
        return _function(product)(x=x, values=values, bias=[], **structure)

    def grad_input(dy: Any, values: Any, structure: dict[str, Any], x: Any) -> Any:
        extra = {"x": x} if conv else {}
        return _function(f"{product}_grad_input")(dy=dy, values=values, **structure, **extra)

    def grad_values(x: Any, dy: Any, structure: dict[str, Any]) -> Any:
        return _function(f"{product}_grad_values")(x=x, dy=dy, **structure)

    @tf.RegisterGradient(LINEAR[product])
    def of_forward(op: Any, dy: Any) -> list[Any]:
        x, values = op.inputs[:2]
        structure, skipped = _structure(op), _skipped(op)
        bias: list[Any] = []
        if op.get_attr("relu") and len(op.inputs) > 8:
            # In one pass over what is larger than the caches.
            dy, *bias = _masked_sums(dy, op.outputs[0])
        elif op.get_attr("relu"):
            dy = tf.raw_ops.ReluGrad(gradients=dy, features=op.outputs[0])
        dx = None if 0 in skipped else grad_input(dy, values, structure, x)
        dvalues = None if 1 in skipped else tf.cast(grad_values(x, dy, structure), values.dtype)
        bias = bias or [tf.reduce_sum(tf.reshape(dy, [-1, tf.shape(dy)[-1]]), 0) for _ in op.inputs[8:]]
        return [dx, dvalues, *[None] * len(INDICES), *bias]

    @tf.RegisterGradient(f"{LINEAR[product]}GradInput")
    def of_grad_input(op: Any, g: Any) -> list[Any]:
        dy, values = op.inputs[:2]
        structure = _structure(op)
        d_values = tf.cast(grad_values(g, dy, structure), values.dtype)
        return [forward(g, values, structure), d_values, *[None] * (len(op.inputs) - 2)]

    @tf.RegisterGradient(f"{LINEAR[product]}GradValues")
    def of_grad_values(op: Any, g: Any) -> list[Any]:
        x, dy = op.inputs[:2]
        structure = _structure(op)
        return [grad_input(dy, g, structure, x), forward(x, g, structure), *[None] * len(INDICES)]


for _product in LINEAR:
    _register(_product)
