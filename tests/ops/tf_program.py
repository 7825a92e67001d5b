"""The TensorFlow ops checked with NumPy and the standard library only; prints what it found as JSON.

Run by the Python of an environment that has TensorFlow and nothing of ours installed, with the repository on its path.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import tensorflow as tf

from keras_lth.ops import SparseStructure
from keras_lth.ops import tensorflow as tf_ops


def normal(*shape: int, seed: int) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def conv_by_loops(x: Any, kernel: Any) -> Any:
    """Stride 1, no padding, in float64."""
    height, width = kernel.shape[:2]
    y = np.zeros((len(x), x.shape[1] - height + 1, x.shape[2] - width + 1, kernel.shape[3]))
    for row, col in np.ndindex(height, width):
        y += x[:, row : row + y.shape[1], col : col + y.shape[2]].astype(float) @ kernel[row, col]
    return y


def run() -> dict[str, Any]:
    library = tf_ops.library.load()
    assert library is not None
    mask = np.kron(np.random.default_rng(0).random((5, 4)) < 0.5, np.ones((4, 8), bool))
    matrix = SparseStructure.from_mask(mask, (4, 8))
    weights = normal(20, 32, seed=1) * mask
    kernel_mask = np.random.default_rng(2).random((3, 3, 5, 7)) < 0.3
    kernel = SparseStructure.from_mask(kernel_mask)
    filters = normal(3, 3, 5, 7, seed=3) * kernel_mask
    x, bias = normal(9, 20, seed=4), normal(32, seed=5)
    images = normal(3, 8, 9, 5, seed=6)
    wanted = np.maximum(x.astype(float) @ weights + bias, 0)
    # loss = sum(y ** 2) / 2, so the gradient of y is y.
    dx, dweights, dbias = wanted @ weights.T, matrix.values((x.T @ wanted) * mask), wanted.sum(0)
    wanted_images = conv_by_loops(images, filters)

    def product(x: Any, values: Any, bias: Any) -> list[Any]:
        with tf.GradientTape() as tape:
            tape.watch([x, values, bias])
            y = tf_ops.sparse_matmul(x, values, matrix, bias=bias, activation="relu")
            loss = tf.reduce_sum(y**2) / 2
        return [y, *tape.gradient(loss, [x, values, bias])]

    def convolution(x: Any, values: Any) -> Any:
        return tf_ops.sparse_conv2d(x, values, kernel)

    errors = {}
    for mode in ("eager", "graph", "jit"):
        wrap = {"eager": lambda f: f, "graph": tf.function, "jit": lambda f: tf.function(f, jit_compile=True)}[mode]
        got = wrap(product)(tf.constant(x), tf.constant(matrix.values(weights)), tf.constant(bias))
        image = wrap(convolution)(tf.constant(images), tf.constant(kernel.values(filters)))
        pairs = zip([*got, image], [wanted, dx, dweights, dbias, wanted_images], strict=True)
        errors[mode] = [float(np.abs(one - other).max() / np.abs(other).max()) for one, other in pairs]
    return {
        "tensorflow": tf.__version__,
        "library": str(tf_ops.library.find()),
        "xla_target": library.xla_target,
        "errors": errors,
    }


if __name__ == "__main__":
    print("RESULT", json.dumps(run()), flush=True)
    sys.exit(0)
