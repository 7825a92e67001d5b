"""What each kind of node does at run time: functions bound to the arrays that they read and write."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from keras_lth.export.activations import ACTIVATIONS
from keras_lth.export.graph import Array, Node
from keras_lth.export.kernels import Kernel
from keras_lth.ops import sparse_conv2d, sparse_matmul
from keras_lth.ops.core import CORE
from keras_lth.ops.reference_sparse import padding_before
from keras_lth.ops.structure import SparseStructure

__all__ = ["IN_PLACE", "Call", "Step", "bind"]

Call = Callable[[], object]

_CACHED = 1 << 18  # floats that the second-level cache of a core holds
_SAMPLES = 1024  # a chain keeps their copy

# Kinds that may write over their first input: each value depends on the one at its own place, or its own line.
IN_PLACE = ("activation", "merge", "norm", "scale")


class Step(NamedTuple):
    """A node, and its kernel if it has one."""

    node: Node
    kernel: Kernel | None


class Native(NamedTuple):
    """What a chain of the core does: a method of it, and its arguments."""

    method: str
    arguments: tuple[Any, ...]


Bound = Iterator[Call | Native]


def bind(steps: Sequence[tuple[Step, Sequence[Array], Array]]) -> list[Call]:
    """Bind steps to their arrays.

    Args:
      steps: in order, of any kind but "input" and "reshape": each with the float32 arrays [batch, *shape] of its input
        nodes, C-contiguous, and the one that it writes, which may be the first input for the kinds `IN_PLACE`.

    Returns:
      Functions without arguments, to be called in order. What the core does from one NumPy function to the next is one
      of them: threads are woken once.
    """
    calls: list[Call] = []
    chain = None
    for step, inputs, out in steps:
        for bound in _BINDERS[step.node.kind](step, inputs, out):
            if not isinstance(bound, Native):
                chain = None
                calls.append(bound)
                continue
            if chain is None:
                assert CORE is not None
                chain = CORE.Chain()
                calls.append(chain)
            getattr(chain, bound.method)(*bound.arguments)
    return calls


def _dense(step: Step, inputs: Sequence[Array], out: Array) -> Bound:
    (x,), kernel, bias, relu = inputs, _kernel(step), _bias(step), _relu(step)
    rows, result = x.reshape(-1, x.shape[-1]), out.reshape(-1, out.shape[-1])
    if kernel.structure is not None:
        if CORE is not None and len(rows) <= _SAMPLES and kernel.structure.block == (1, 1):
            yield Native("multiply", (kernel.structure, kernel.values, rows, bias, relu, result))
        elif CORE is not None:
            yield partial(CORE.multiply, kernel.structure, kernel.values, rows, bias, relu, result)
        else:
            yield lambda: np.copyto(result, _reference_product(kernel, rows, bias, relu))
        return
    yield partial(np.matmul, rows, kernel.values, out=result)
    if bias is not None:
        yield partial(np.add, result, bias, out=result)
    if relu:
        yield partial(np.maximum, result, 0, out=result)


def _reference_product(kernel: Kernel, x: Array, bias: Array | None, relu: bool) -> Array:
    assert kernel.structure is not None
    result: Array = sparse_matmul(x, kernel.values, kernel.structure, bias=bias, activation="relu" if relu else None)
    return result


def _convolution(step: Step, inputs: Sequence[Array], out: Array) -> Bound:
    (x,), kernel, bias, relu = inputs, _kernel(step), _bias(step), _relu(step)
    strides, padding = tuple(step.node.options["strides"]), step.node.options["padding"]
    structure = kernel.structure
    assert structure is not None
    if CORE is not None:
        size, same = structure.shape[:2], padding == "same"
        if _fits_a_chain(structure, x):
            window = (*size, *strides, *_before(x, size, strides, padding))
            yield Native("convolve", (structure, kernel.values, x, window, bias, relu, out))
        else:
            yield partial(CORE.convolve, structure, kernel.values, x, x.shape[:3], size, strides, same, bias, relu, out)
        return
    activation = "relu" if relu else None
    yield lambda: np.copyto(
        out,
        sparse_conv2d(x, kernel.values, structure, strides=strides, padding=padding, bias=bias, activation=activation),
    )


def _before(x: Array, size: Sequence[int], strides: Sequence[int], padding: str) -> tuple[int, int]:
    """Padding above and to the left of the images x."""
    same = padding == "same"
    top, left = (padding_before(n, k, s, same)[0] for n, k, s in zip(x.shape[1:3], size, strides, strict=True))
    return top, left


def _fits_a_chain(structure: SparseStructure, x: Array) -> bool:
    """Whether a chain's convolution is the faster one: few images whose planes the second-level cache holds.

    Where it packs whole images, the core's own packs tiles of many images, and prepares more for a call; measured from
    1 to 16 images of the layers of VGG-16 and ResNet-20.
    """
    if x[0].size > _CACHED:
        return False
    if structure.block != (1, 1):
        return len(x) == 1
    return len(x) <= 2 or (structure.stored <= 16 * structure.cols and x.size <= _CACHED)


def _scale(step: Step, inputs: Sequence[Array], out: Array) -> Bound:
    yield partial(np.multiply, inputs[0], step.node.arrays["scale"], out=out)
    yield partial(np.add, out, step.node.arrays["shift"], out=out)


def _activation(step: Step, inputs: Sequence[Array], out: Array) -> Bound:
    options = dict(step.node.options)
    yield partial(ACTIVATIONS[options.pop("function")], inputs[0], out, **options)


def _norm(step: Step, inputs: Sequence[Array], out: Array) -> Bound:
    gamma, beta = step.node.arrays.get("gamma"), step.node.arrays.get("beta")
    epsilon = np.float32(step.node.options["epsilon"])
    (x,) = inputs

    def run() -> None:
        np.subtract(x, x.mean(axis=-1, keepdims=True), out=out)
        variance = np.square(out).mean(axis=-1, keepdims=True)
        np.divide(out, np.sqrt(variance + epsilon), out=out)

    yield run
    if gamma is not None:
        yield partial(np.multiply, out, gamma, out=out)
    if beta is not None:
        yield partial(np.add, out, beta, out=out)


def _merge(step: Step, inputs: Sequence[Array], out: Array) -> Bound:
    mode, first = step.node.options["mode"], inputs[0]
    if CORE is not None and mode == "add" and [x.shape for x in inputs] == [out.shape] * 2:
        yield Native("sum", (*inputs, _relu(step), out))
        return
    if mode == "concatenate":
        yield partial(np.concatenate, inputs, axis=step.node.options["axis"], out=out)
    else:
        function = np.add if mode == "average" else getattr(np, mode)
        if len(inputs) == 1:
            yield partial(np.copyto, out, first)
        for other in inputs[1:]:
            yield partial(function, first, other, out=out)
            first = out
        if mode == "average":
            yield partial(np.multiply, out, np.float32(1 / len(inputs)), out=out)
    if _relu(step):
        yield partial(np.maximum, out, 0, out=out)


def _pool(step: Step, inputs: Sequence[Array], out: Array) -> Bound:
    (x,), options = inputs, step.node.options
    largest = options["mode"] == "max"
    before = _before(x, options["size"], options["strides"], options["padding"])
    if CORE is not None:
        yield Native("pool", (x, (*options["size"], *options["strides"], *before), largest, out))
        return
    taps = np.ndindex(*options["size"])
    windows = [_window(tap, before, options["strides"], x.shape[1:3], out.shape[1:3]) for tap in taps]
    counts = np.zeros(out.shape[1:3], np.float32)
    for here, _ in windows:
        counts[here] += 1
    yield partial(out.fill, -np.inf if largest else 0)
    for here, there in windows:
        target = out[:, here[0], here[1]]
        yield partial(np.maximum if largest else np.add, target, x[:, there[0], there[1]], out=target)
    if not largest:
        yield partial(np.divide, out, counts[..., None], out=out)


def _window(
    tap: Sequence[int], before: Sequence[int], strides: Sequence[int], size: Sequence[int], out: Sequence[int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Outputs that a tap of a window reaches, and the inputs it finds there: places within the image only."""
    here, there = [], []
    for offset, stride, count, outputs in zip(np.subtract(tap, before), strides, size, out, strict=True):
        first = max(0, -(int(offset) // stride))
        last = min(outputs - 1, (count - 1 - int(offset)) // stride)
        here.append(slice(first, max(first, last + 1)))
        begin = first * stride + int(offset)
        there.append(slice(begin, begin + max(0, (last - first) * stride + 1), stride))
    return (here[0], here[1]), (there[0], there[1])


def _global_pool(step: Step, inputs: Sequence[Array], out: Array) -> Bound:
    (x,), largest = inputs, step.node.options["mode"] == "max"
    batch, channels = len(x), x.shape[-1]
    pixels = x.reshape(batch, 1, -1, channels)
    if CORE is not None:
        yield Native("pool", (pixels, (1, pixels.shape[2], 1, 1, 0, 0), largest, out.reshape(batch, 1, 1, channels)))
    else:
        yield partial(np.max if largest else np.mean, pixels, axis=(1, 2), out=out.reshape(batch, channels))


def _pad(step: Step, inputs: Sequence[Array], out: Array) -> Bound:
    (x,), ((top, _), (left, _)) = inputs, step.node.options["sides"]
    inner = out[:, top : top + x.shape[1], left : left + x.shape[2]]

    def run() -> None:
        out.fill(0)  # another node may have had the array before
        np.copyto(inner, x)

    yield run


def _kernel(step: Step) -> Kernel:
    assert step.kernel is not None
    return step.kernel


def _bias(step: Step) -> Array | None:
    return step.node.arrays.get("bias")


def _relu(step: Step) -> bool:
    return bool(step.node.options.get("relu", False))


_BINDERS = {
    "activation": _activation,
    "conv": _convolution,
    "dense": _dense,
    "global_pool": _global_pool,
    "merge": _merge,
    "norm": _norm,
    "pad": _pad,
    "pool": _pool,
    "scale": _scale,
}
