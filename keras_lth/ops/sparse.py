"""Sparse products: NumPy arrays use the C++ core, tensors use the TensorFlow ops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_lth.ops import reference_sparse
from keras_lth.ops.core import CORE
from keras_lth.ops.structure import SparseStructure, value_type

__all__ = ["sparse_conv2d", "sparse_conv2d_gradients", "sparse_matmul", "sparse_matmul_gradients"]

Array = NDArray[Any]


def sparse_matmul(
    x: Any, values: Any, structure: SparseStructure, *, bias: Any = None, activation: str | None = None
) -> Any:
    """Compute ``activation(x @ W + bias)`` for the sparse W that `structure` and `values` describe.

    Args:
      x: float32 [..., inputs]. A NumPy array gives a NumPy array; a TensorFlow tensor or Keras variable gives a tensor,
        with gradients for x, values and bias.
      values: float32 or bfloat16 [room, *block], as `SparseStructure.values` makes them; bfloat16 is summed in
        float32. What fills up the blocks at the edges must be 0.
      structure: of a kernel [inputs, outputs].
      bias: float32 [outputs].
      activation: None or "relu", applied when the result is written.

    Returns:
      float32 [..., outputs]. The bits are the same for any number of threads; between instruction sets the last bits
      differ.

    Raises:
      TypeError, ValueError: an argument of the wrong type or shape; names it.
    """
    if not is_numpy(x):
        return _tensors().sparse_matmul(x, values, structure, bias=bias, activation=activation)
    check_matrix(structure)
    given = float_array("x", x, structure.rows)
    stored = check_values(values, structure)
    offset = None if bias is None else float_array("bias", bias, structure.cols, ndim=1)
    relu = check_activation(activation)
    y = np.empty((*given.shape[:-1], structure.cols), np.float32)
    if CORE is None:
        return reference_sparse.epilogue(given @ structure.to_dense(stored).astype(np.float32), offset, relu)
    CORE.multiply(structure, _bits(stored), given, offset, relu, y)
    return y


def sparse_matmul_gradients(
    x: Array, dy: Array, values: Array, structure: SparseStructure
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compute the gradients of `sparse_matmul` without bias and activation, in NumPy.

    Args:
      x: float32 [..., inputs].
      dy: float32 [..., outputs], the gradient of the result.
      values: float32 or bfloat16 [room, *block].
      structure: of a kernel [inputs, outputs].

    Returns:
      ``dy @ W.T`` [..., inputs], and ``x.T @ dy`` where a weight is stored [room, *block], both float32.
    """
    check_matrix(structure)
    given = float_array("x", x, structure.rows)
    gradient = float_array("dy", dy, structure.cols)
    if given.shape[:-1] != gradient.shape[:-1]:
        raise ValueError(f"x has shape {given.shape}, dy {gradient.shape}: all axes but the last must agree")
    stored = check_values(values, structure)
    if CORE is None:
        rows, cols = given.reshape(-1, structure.rows), gradient.reshape(-1, structure.cols)
        return gradient @ structure.to_dense(stored).astype(np.float32).T, structure.values(rows.T @ cols)
    dx = np.empty(given.shape, np.float32)
    dvalues = np.empty(stored.shape, np.float32)
    CORE.multiply_transposed(structure, _bits(stored), gradient, dx)
    CORE.sample_product(structure, given, gradient, dvalues)
    return dx, dvalues


def sparse_conv2d(
    x: Any,
    values: Any,
    structure: SparseStructure,
    *,
    strides: int | Sequence[int] = 1,
    padding: str = "valid",
    bias: Any = None,
    activation: str | None = None,
) -> Any:
    """Compute a two-dimensional convolution with a sparse kernel.

    Args:
      x: float32 [batch, height, width, inputs], NumPy or TensorFlow, as in `sparse_matmul`.
      values: float32 or bfloat16 [room, *block].
      structure: of a kernel [kernel height, kernel width, inputs, outputs]; blocks are of channels.
      strides: one number or (height, width).
      padding: "valid" or "same", as in TensorFlow (the larger half of an odd padding is at the end).
      bias: float32 [outputs].
      activation: None or "relu".

    Returns:
      float32 [batch, out height, out width, outputs].

    Raises:
      TypeError, ValueError: an argument of the wrong type or shape; names it.
    """
    if not is_numpy(x):
        return _tensors().sparse_conv2d(
            x, values, structure, strides=strides, padding=padding, bias=bias, activation=activation
        )
    kernel = check_kernel(structure)
    given = float_array("x", x, structure.rows, ndim=4)
    stride, same = check_strides(strides), check_padding(padding)
    out = reference_sparse.output_size(given.shape, kernel, stride, same)
    stored = check_values(values, structure)
    offset = None if bias is None else float_array("bias", bias, structure.cols, ndim=1)
    relu = check_activation(activation)
    if CORE is None:
        dense = structure.to_dense(stored).astype(np.float32)
        return reference_sparse.epilogue(reference_sparse.conv2d(given, dense, stride, same), offset, relu)
    y = np.empty((len(given), *out, structure.cols), np.float32)
    CORE.convolve(structure, _bits(stored), given, given.shape[:3], kernel, stride, same, offset, relu, y)
    return y


def sparse_conv2d_gradients(
    x: Array,
    dy: Array,
    values: Array,
    structure: SparseStructure,
    *,
    strides: int | Sequence[int] = 1,
    padding: str = "valid",
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compute, in NumPy, the gradients of `sparse_conv2d` without bias and activation, for x and the stored values."""
    kernel = check_kernel(structure)
    given = float_array("x", x, structure.rows, ndim=4)
    stride, same = check_strides(strides), check_padding(padding)
    out = reference_sparse.output_size(given.shape, kernel, stride, same)
    gradient = float_array("dy", dy, structure.cols, ndim=4)
    if gradient.shape[:3] != (len(given), *out):
        raise ValueError(f"dy has shape {gradient.shape}, but the result has {(len(given), *out, structure.cols)}")
    stored = check_values(values, structure)
    if CORE is None:
        dense = structure.to_dense(stored).astype(np.float32)
        dx, dense_gradient = reference_sparse.conv2d_gradients(given, gradient, dense, stride, same)
        return dx, structure.values(dense_gradient)
    dx = np.empty(given.shape, np.float32)
    dvalues = np.empty(stored.shape, np.float32)
    CORE.convolve_transposed(structure, _bits(stored), gradient, given.shape[:3], kernel, stride, same, dx)
    CORE.sample_convolution(structure, given, gradient, given.shape[:3], kernel, stride, same, dvalues)
    return dx, dvalues


def is_numpy(x: Any) -> bool:
    """Return whether `x` belongs to NumPy rather than to TensorFlow or Keras."""
    return isinstance(x, (np.ndarray, np.generic, list, tuple, float, int))


def check_structure(structure: Any) -> None:
    """Raises unless it is a SparseStructure."""
    if isinstance(structure, SparseStructure):
        return
    name = type(structure).__name__
    if isinstance(getattr(structure, "structure", None), SparseStructure):
        raise TypeError(f"structure is {name}; NumPy arrays need its .structure")
    raise TypeError(f"structure is {name}, not SparseStructure: make it with from_mask")


def check_matrix(structure: SparseStructure) -> None:
    """Raises unless the structure is a matrix's."""
    check_structure(structure)
    if len(structure.shape) != 2:
        raise ValueError(f"structure describes a kernel {structure.shape}; sparse_matmul needs [inputs, outputs]")


def check_kernel(structure: SparseStructure) -> tuple[int, int]:
    """The kernel's (height, width); raises unless the structure is a two-dimensional convolution's."""
    check_structure(structure)
    if len(structure.shape) != 4:
        raise ValueError(
            f"structure describes a kernel {structure.shape}; sparse_conv2d needs [height, width, inputs, outputs]"
        )
    return structure.shape[0], structure.shape[1]


def check_values(values: Any, structure: SparseStructure) -> Array:
    """Return `values` as a contiguous array of the structure's shape."""
    stored = np.asarray(values)
    value_type(stored)
    if stored.shape != (structure.room, *structure.block):
        raise ValueError(f"values has shape {stored.shape}, the structure stores {(structure.room, *structure.block)}")
    return np.ascontiguousarray(stored)


def check_activation(activation: str | None) -> bool:
    """Return whether it is "relu"."""
    if activation not in (None, "relu"):
        raise ValueError(f"activation = {activation!r}; supported are None and 'relu'")
    return activation == "relu"


def check_padding(padding: str) -> bool:
    """Return whether it is "same"."""
    if not isinstance(padding, str) or padding.lower() not in ("same", "valid"):
        raise ValueError(f"padding = {padding!r}; supported are 'valid' and 'same'")
    return padding.lower() == "same"


def check_strides(strides: int | Sequence[int]) -> tuple[int, int]:
    """Return strides as (height, width)."""
    pair = [strides, strides] if isinstance(strides, (int, np.integer)) else list(strides)
    if len(pair) != 2 or not all(isinstance(s, (int, np.integer)) and s >= 1 for s in pair):
        raise ValueError(f"strides = {strides!r}: use one integer of at least 1, or two")
    return int(pair[0]), int(pair[1])


def float_array(name: str, array: Any, last: int, ndim: int | None = None) -> NDArray[np.float32]:
    """Return `array` as C-contiguous float32 whose last axis is `last`; copy only if needed."""
    given = np.asarray(array)
    if given.dtype != np.float32:
        raise TypeError(f"{name} is {given.dtype.name}, not float32: convert it with astype")
    if given.ndim == 0 or given.shape[-1] != last or (ndim is not None and given.ndim != ndim):
        wanted = f"[{', '.join(['...'] if ndim is None else ['.'] * (ndim - 1))}{', ' if ndim != 1 else ''}{last}]"
        raise ValueError(f"{name} has shape {given.shape}; the structure needs {wanted}")
    return np.require(given, requirements=["C", "A"])


def _bits(values: Array) -> Array:
    return values if values.dtype == np.float32 else values.view(np.uint16)


def _tensors() -> Any:
    from keras_lth.ops import tensorflow as tensors

    return tensors
