"""The sparse products in TensorFlow's own ops: the kernel is made dense, then multiplied.

Used on accelerators, under XLA when it cannot call the kernels, and without the library. Shapes are static, the memory
is that of the dense kernel, and TensorFlow differentiates it: the gradient of the values is gathered from the dense
gradient.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_lth.ops.tensorflow import tensors

__all__ = ["conv2d", "matmul", "to_dense"]


def to_dense(values: Any, structure: tensors.Structure) -> Any:
    """values [room, *block] as the dense kernel [*structure.shape], zero elsewhere."""
    rows, cols = structure.block
    in_groups, out_groups = structure.taps * -(-structure.rows // rows), -(-structure.cols // cols)
    places, there = tensors.places(structure)
    # Selected, not multiplied: what lies behind the last block may be infinite, and its gradient is 0.
    if there is not None:
        values = tf.where(there[:, None, None], values, tf.zeros([], values.dtype))
    tiles = tf.scatter_nd(places, values, [in_groups, out_groups, rows, cols])
    whole = tf.reshape(tf.transpose(tiles, [0, 2, 1, 3]), [structure.taps, -1, out_groups * cols])
    return tf.reshape(whole[:, : structure.rows, : structure.cols], structure.shape)


def matmul(x: Any, values: Any, structure: tensors.Structure, bias: Any, relu: bool) -> Any:
    """x [..., inputs], all float32."""
    return _epilogue(tf.tensordot(x, to_dense(values, structure), 1), bias, relu)


def conv2d(
    x: Any, values: Any, structure: tensors.Structure, conv: tuple[int, int, bool], bias: Any, relu: bool
) -> Any:
    """x [batch, height, width, inputs], all float32; `conv` as in `tensors.geometry`."""
    count = None
    if not x.shape[0]:
        # TensorFlow with oneDNN gives an empty batch the wrong shape.
        count = tf.shape(x)[0]
        x = tf.pad(x, [[0, tf.maximum(1 - count, 0)], [0, 0], [0, 0], [0, 0]])
    y = tf.nn.conv2d(x, to_dense(values, structure), conv[:2], "SAME" if conv[2] else "VALID")
    return _epilogue(y if count is None else y[:count], bias, relu)


def _epilogue(y: Any, bias: Any, relu: bool) -> Any:
    shifted = y if bias is None else y + bias
    return tf.nn.relu(shifted) if relu else shifted
