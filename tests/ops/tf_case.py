"""Sparse products and the dense ones they equal, for the tests of the TensorFlow ops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from keras_lth.ops import SparseStructure
from keras_lth.ops import tensorflow as tf_ops
from tests.ops.test_structure import mask_of_blocks

MODES = ("eager", "graph", "jit", "jit_unknown_batch")


def normal(*shape: int, seed: int = 1) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@dataclass
class Case:
    """A product: `sparse(x, values, bias)` and `dense(x, kernel, bias)` are the same function of x and bias."""

    structure: SparseStructure
    kernel: Any
    x: Any
    bias: Any
    strides: tuple[int, int] = (1, 1)
    padding: str = "valid"
    activation: str | None = None

    @property
    def values(self) -> Any:
        """Those of the kernel, and NaN where the structure has room left."""
        values = self.structure.values(self.kernel)
        values[self.structure.stored :] = np.nan
        return values

    def sparse(self, x: Any, values: Any, bias: Any) -> Any:
        if self.kernel.ndim == 2:
            return tf_ops.sparse_matmul(x, values, self.structure, bias=bias, activation=self.activation)
        return tf_ops.sparse_conv2d(
            x,
            values,
            self.structure,
            strides=self.strides,
            padding=self.padding,
            bias=bias,
            activation=self.activation,
        )

    def dense(self, x: Any, kernel: Any, bias: Any) -> Any:
        if self.kernel.ndim == 2:
            y = tf.tensordot(x, kernel, 1) + bias
        else:
            y = tf.nn.conv2d(x, kernel, self.strides, self.padding.upper()) + bias
        return tf.nn.relu(y) if self.activation else y


def case(
    shape: tuple[int, ...],
    block: Any,
    x: tuple[int, ...],
    density: float = 0.4,
    seed: int = 0,
    more_room: int = 0,
    **more: Any,
) -> Case:
    structure = SparseStructure.from_mask(mask_of_blocks(shape, block, density, seed), block)
    structure = SparseStructure.from_mask(structure.mask(), block, room=structure.stored + more_room)
    kernel = normal(*shape, seed=seed) * structure.mask()
    return Case(structure, kernel, normal(*x, shape[-2], seed=seed + 1), normal(shape[-1], seed=seed + 2), **more)


def in_mode(function: Callable[..., Any], mode: str, *arguments: Any) -> Callable[..., Any]:
    """The function of tensors as it runs eagerly, in a graph, or compiled by XLA; the first axis is the batch."""
    if mode == "eager":
        return function
    tensors = [tf.convert_to_tensor(argument) for argument in arguments]
    signature = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in tensors]
    if mode != "jit":
        signature[0] = tf.TensorSpec([None, *tensors[0].shape[1:]], tensors[0].dtype)
    return tf.function(function, input_signature=signature, jit_compile=mode.startswith("jit"), autograph=False)


def op_types(function: Any) -> set[str]:
    """Types of all the ops of a traced tf.function, those of the functions it calls included."""
    graph = function.get_concrete_function().graph.as_graph_def()
    nodes = [*graph.node, *(node for inner in graph.library.function for node in inner.node_def)]
    return {node.op for node in nodes}


def with_gradients(function: Callable[..., Any]) -> Callable[..., list[Any]]:
    """The result, and the gradients of a smooth function of it for every argument."""

    def run(*arguments: Any) -> list[Any]:
        arguments = tuple(tf.convert_to_tensor(argument) for argument in arguments)
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            y = function(*arguments)
            loss = tf.reduce_sum(tf.sin(tf.cast(y, tf.float32)))
        return [y, *tape.gradient(loss, arguments)]

    return run


def check_product(given: Case, mode: str = "eager") -> None:
    """Result and gradients against the dense product's."""
    arguments = (given.x, given.values, given.bias)
    function = in_mode(with_gradients(given.sparse), mode, *arguments)
    got = function(*arguments)
    wanted = with_gradients(given.dense)(given.x, given.kernel, given.bias)
    wanted[2] = given.structure.values(wanted[2].numpy() * given.structure.mask())
    for one, other in zip(got, wanted, strict=True):
        close(one, other)
    assert not np.any(got[2][given.structure.stored :])


def close(got: Any, wanted: Any, tolerance: float = 3e-5) -> None:
    got, wanted = np.asarray(got, np.float32), np.asarray(wanted, np.float32)
    assert got.shape == wanted.shape
    np.testing.assert_allclose(
        got, wanted, rtol=tolerance, atol=tolerance * max(1.0, float(np.abs(wanted).max(initial=0)))
    )
