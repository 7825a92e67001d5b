"""The sparse products for TensorFlow tensors: eager, in graphs, in SavedModels, and under XLA.

Importing this module loads the ops and registers their gradients, so import it before you load a SavedModel with these
ops. The kernels run on the CPU. On other devices, and without the library, the kernel is made dense and multiplied by
TensorFlow (`plain`), with the same result up to the order of the sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from keras_lth.ops.sparse import (
    check_activation,
    check_kernel,
    check_matrix,
    check_padding,
    check_strides,
    check_structure,
)
from keras_lth.ops.tensorflow import gradients, library, normalize, plain, tensors, xla
from keras_lth.ops.tensorflow.live import LiveStructure, structure_of

__all__ = ["LiveStructure", "gradients", "normalize", "sparse_conv2d", "sparse_matmul", "to_dense"]

FLOATS = (tf.float32, tf.bfloat16, tf.float16)

library.load()


@tf.autograph.experimental.do_not_convert
def sparse_matmul(
    x: Any, values: Any, structure: tensors.Structure, *, bias: Any = None, activation: str | None = None
) -> Any:
    """Compute ``activation(x @ W + bias)`` for the sparse W that `structure` and `values` describe.

    Args:
      x: [..., inputs], a tensor or a Keras variable, float32, bfloat16 or float16.
      values: [room, *block], of these dtypes. bfloat16 is read as it is; sums are float32 always.
      structure: of a kernel [inputs, outputs]; a LiveStructure is read at each run of what has traced it.
      bias: [outputs], or None.
      activation: None or "relu".

    Returns:
      [..., outputs], in the dtype of x. Differentiable, also twice, for x, values and bias.

    Raises:
      TypeError, ValueError: an argument of the wrong type or shape; names it. tf.errors.InvalidArgumentError: the same,
          if shapes are known only when the function runs.
    """
    check_matrix(structure_of(structure))
    relu = check_activation(activation)
    x, given, values, bias = _tensors(x, values, structure, bias)
    _check_shape("x", x, ("...", structure.rows))
    return _product(x, given, values, structure, None, bias, relu)


@tf.autograph.experimental.do_not_convert
def sparse_conv2d(
    x: Any,
    values: Any,
    structure: tensors.Structure,
    *,
    strides: int | Sequence[int] = 1,
    padding: str = "valid",
    bias: Any = None,
    activation: str | None = None,
) -> Any:
    """Compute a two-dimensional convolution with a sparse kernel.

    Args:
      x: [batch, height, width, inputs], dtypes as in `sparse_matmul`.
      values: [room, *block].
      structure: of a kernel [kernel height, kernel width, inputs, outputs], or live, as in `sparse_matmul`.
      strides: one number or (height, width).
      padding: "valid" or "same".
      bias: [outputs], or None.
      activation: None or "relu".

    Returns:
      [batch, out height, out width, outputs], of the dtype of x.

    Raises:
      TypeError, ValueError, tf.errors.InvalidArgumentError: as `sparse_matmul`.
    """
    kernel = check_kernel(structure_of(structure))
    conv = (*check_strides(strides), check_padding(padding))
    relu = check_activation(activation)
    x, given, values, bias = _tensors(x, values, structure, bias)
    _check_shape("x", x, (None, None, None, structure.rows))
    if not conv[2] and x.shape.rank == 4:
        for size, side in zip(x.shape[1:3], kernel, strict=True):
            if size is not None and size < side:
                raise ValueError(f"x has {size} pixels where the kernel has {side}: use padding='same'")
    return _product(x, given, values, structure, conv, bias, relu)


@tf.autograph.experimental.do_not_convert
def to_dense(values: Any, structure: tensors.Structure) -> Any:
    """The dense kernel that `structure` and `values` describe; the gradient of the values is that of their weights.

    Args:
      values: [room, *block], a tensor or a Keras variable, float32, bfloat16 or float16.
      structure: of a matrix or of a convolution's kernel; it may be live.

    Returns:
      [*structure.shape], of the dtype of the values, zero where nothing is stored.

    Raises:
      TypeError, ValueError: an argument of the wrong type or shape, by its name.
    """
    check_structure(structure_of(structure))
    given = _float("values", values)
    _check_shape("values", given, (structure.room, *structure.block))
    return plain.to_dense(given, structure)


def _product(
    x: Any,
    dtype: Any,
    values: Any,
    structure: tensors.Structure,
    conv: tuple[int, int, bool] | None,
    bias: Any,
    relu: bool,
) -> Any:
    loaded = library.load()
    where = _where(x, loaded, conv is not None)
    if where == "plain":
        weights = _cast(values, tf.float32)
        if conv is None:
            y = plain.matmul(x, weights, structure, bias, relu)
        else:
            y = plain.conv2d(x, weights, structure, conv, bias, relu)
        return _cast(y, dtype)
    assert loaded is not None
    library.set_threads()
    arrays = [*tensors.indices(structure), tensors.geometry(structure, conv)]
    if where == "xla":
        assert loaded.xla_target is not None
        return _cast(xla.product(loaded.xla_target, x, values, arrays, bias, relu, conv is not None), dtype)
    run = loaded.ops.keras_lth_sparse_matmul if conv is None else loaded.ops.keras_lth_sparse_conv2d
    return _cast(run(x, values, *arrays, [] if bias is None else [bias], relu=relu), dtype)


def _where(x: Any, loaded: library.Library | None, conv: bool) -> str:
    """What computes the product with x: "kernel", "xla" (a custom call of the kernel) or "plain"."""
    if loaded is None:
        return "plain"
    compiled = xla.in_xla()
    device = "" if compiled else x.device
    # Logical devices, not visible ones, so that those of other hosts count, such as TPUs that this process drives.
    if "CPU" not in device and (device or any(d.device_type != "CPU" for d in tf.config.list_logical_devices())):
        return "plain"
    if not compiled:
        return "kernel"
    return "xla" if xla.available(loaded.xla_target, x, conv) else "plain"


def _tensors(x: Any, values: Any, structure: tensors.Structure, bias: Any) -> tuple[Any, Any, Any, Any]:
    """x in float32, the dtype it had, values in float32 or bfloat16, bias in float32 or None."""
    x, values = _float("x", x), _float("values", values)
    _check_shape("values", values, (structure.room, *structure.block))
    if values.dtype != tf.bfloat16:
        values = _cast(values, tf.float32)
    if bias is not None:
        bias = _cast(_float("bias", bias), tf.float32)
        _check_shape("bias", bias, (structure.cols,))
    return _cast(x, tf.float32), x.dtype, values, bias


def _float(name: str, value: Any) -> Any:
    tensor = value if isinstance(value, tf.Tensor) else tf.convert_to_tensor(value)
    if tensor.dtype not in FLOATS:
        raise TypeError(f"{name} is {tensor.dtype.name}; supported are float32, bfloat16 and float16")
    return tensor


def _cast(tensor: Any, dtype: Any) -> Any:
    # A tf.cast to the same dtype costs as much as a small product.
    return tensor if tensor.dtype == dtype else tf.cast(tensor, dtype)


def _check_shape(name: str, tensor: Any, wanted: tuple[Any, ...]) -> None:
    """Raise ValueError if a known dimension is wrong; a leading "..." stands for any dimensions."""
    if tensor.shape.rank is None:
        return
    shape = tuple(tensor.shape)
    any_rank = wanted[0] == "..."
    sizes = wanted[1:] if any_rank else wanted
    last = shape[len(shape) - len(sizes) :] if len(shape) >= len(sizes) else ()
    fits = all(None in (size, side) or size == side for size, side in zip(last, sizes, strict=False))
    if not fits or len(last) != len(sizes) or not (any_rank or len(shape) == len(sizes)):
        text = ", ".join("." if size is None else str(size) for size in wanted)
        raise ValueError(f"{name} has shape {shape}; the structure needs [{text}]")
