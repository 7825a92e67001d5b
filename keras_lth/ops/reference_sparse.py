"""The sparse products in dense NumPy: the definition of the results, and the fallback without the extension."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float32]


def padding_before(size: int, kernel: int, stride: int, same: bool) -> tuple[int, int]:
    """Return the zeros before the first item of an axis, and the size of the result, by TensorFlow's rule.

    Raises:
      ValueError: a kernel larger than the axis, without padding.
    """
    if not same:
        if kernel > size:
            raise ValueError(f"x has {size} pixels where the kernel has {kernel}: use padding='same'")
        return 0, (size - kernel) // stride + 1
    out = -(-size // stride)
    return max(0, (out - 1) * stride + kernel - size) // 2, out


def output_size(
    shape: tuple[int, ...], kernel: tuple[int, int], stride: tuple[int, int], same: bool
) -> tuple[int, int]:
    """Return height and width of the result for an x of `shape` [batch, height, width, inputs]."""
    height, width = (padding_before(n, k, s, same)[1] for n, k, s in zip(shape[1:3], kernel, stride, strict=True))
    return height, width


def epilogue(y: Array, bias: Array | None, relu: bool) -> Floats:
    """Add the bias, then apply ReLU if requested."""
    shifted = y if bias is None else y + bias
    return (np.maximum(shifted, 0) if relu else shifted).astype(np.float32, copy=False)


def conv2d(x: Floats, kernel: Floats, stride: tuple[int, int], same: bool) -> Floats:
    """Compute the convolution as one matrix product per tap of the kernel [height, width, inputs, outputs]."""
    padded, views = _padded(x.shape, kernel.shape, stride, same)
    padded[_inner(x.shape, kernel.shape, stride, same)] = x
    out = output_size(x.shape, (kernel.shape[0], kernel.shape[1]), stride, same)
    y = np.zeros((len(x), *out, kernel.shape[3]), np.float32)
    for tap, view in views:
        y += padded[view] @ kernel[tap]
    return y


def conv2d_gradients(
    x: Floats, dy: Floats, kernel: Floats, stride: tuple[int, int], same: bool
) -> tuple[Floats, Floats]:
    """Compute the gradients of `conv2d` for x and for the kernel."""
    padded, views = _padded(x.shape, kernel.shape, stride, same)
    inner = _inner(x.shape, kernel.shape, stride, same)
    padded[inner] = x
    gradient = np.zeros_like(padded)
    dkernel = np.zeros(kernel.shape, np.float32)
    for tap, view in views:
        gradient[view] += dy @ kernel[tap].T
        dkernel[tap] = np.tensordot(padded[view], dy, axes=((0, 1, 2), (0, 1, 2)))
    return np.ascontiguousarray(gradient[inner]), dkernel


def _before(shape: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, int], same: bool) -> list[int]:
    axes = zip(shape[1:3], kernel[:2], stride, strict=True)
    return [padding_before(size, k, s, same)[0] for size, k, s in axes]


def _inner(
    shape: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, int], same: bool
) -> tuple[slice, slice, slice]:
    top, left = _before(shape, kernel, stride, same)
    return slice(None), slice(top, top + shape[1]), slice(left, left + shape[2])


def _padded(
    shape: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, int], same: bool
) -> tuple[Floats, list[tuple[tuple[int, int], tuple[slice, slice, slice]]]]:
    """Zeros for x and its padding, and for each tap the part of it that the tap reads."""
    out = output_size(shape, (kernel[0], kernel[1]), stride, same)
    sizes = [
        max(before + size, (count - 1) * step + k)
        for before, size, count, step, k in zip(
            _before(shape, kernel, stride, same), shape[1:3], out, stride, kernel[:2], strict=True
        )
    ]

    def views() -> Iterator[tuple[tuple[int, int], tuple[slice, slice, slice]]]:
        for tap in np.ndindex(kernel[0], kernel[1]):
            vertical, horizontal = (
                slice(first, first + (count - 1) * step + 1, step)
                for first, count, step in zip(tap, out, stride, strict=True)
            )
            yield (tap[0], tap[1]), (slice(None), vertical, horizontal)

    return np.zeros((shape[0], *sizes, shape[3]), np.float32), list(views())
