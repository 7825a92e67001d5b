"""Groups of values that are kept or removed together (blocks, neurons, channels) or by number (n of every m)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_lth.ops import reference
from keras_lth.ops.arguments import (
    Array,
    Bools,
    Flags,
    NotANumberError,
    Order,
    check_arrays,
    check_masks,
    check_order,
    integer,
    plain,
    unpacked,
)
from keras_lth.ops.core import CORE

__all__ = ["count_groups", "group_scores", "n_of_m_masks"]


class Group(NamedTuple):
    """An array seen as [taps, rows, cols], divided into blocks."""

    view: tuple[int, int, int]
    block: tuple[int, int]
    scores: tuple[int, ...]
    """Shape of the scores."""
    mean: bool

    @property
    def counted(self) -> tuple[int, int, int]:
        """Return the number of blocks along taps, rows and columns."""
        taps, rows, cols = self.view
        return taps, -(-rows // self.block[0]), -(-cols // self.block[1])


def n_of_m_masks(
    array: Array,
    n: int,
    m: int,
    axis: int = -1,
    *,
    mask: Flags | None = None,
    by: str = "magnitude",
    largest: bool = True,
    packed: bool = False,
) -> Flags:
    """Select, of every m consecutive values along an axis, the n of largest |x|; ties to the lowest index.

    If m does not divide the axis, the last group is shorter and keeps n of its values, or all. Hardware for 2:4 kernels
    needs the groups along the inputs: axis -2 of a Keras kernel.

    Args:
      array: float64, float32, float16 or bfloat16 of at least one axis.
      n, m: 1 <= n <= m; with m equal to the length of the axis, n of each row are selected.
      mask: only values where it is True may be selected; boolean of the array's shape, or packed bits. If a group has
          fewer than n such values, all of them are selected.
      by, largest, packed: as in `top_k_masks`.

    Raises:
      NotANumberError: (a ValueError) there is a NaN; its `index` gives the position.
      ValueError: n, m or axis is invalid, or the mask has another shape.
      TypeError: a dtype is not supported, or n or m is not an integer.
    """
    values, name = check_arrays([array])
    allowed, order = check_masks(None if mask is None else [mask], values), check_order(by, largest)
    few, of = integer("n", n), integer("m", m)
    if not 1 <= few <= of:
        raise ValueError(f"n = {few}, m = {of}: use 1 <= n <= m")
    shape = values[0].shape
    along = check_axis("array", shape, axis)
    of = max(1, min(of, shape[along]))
    few = min(few, of)
    eligible = None if allowed is None else opened(allowed[0], values[0])
    if CORE is None:
        selected = reference.n_of_m(values[0], few, of, along, eligible, order)
    else:
        selected = np.empty(shape, np.bool_)
        sides = (_product(shape[:along]), shape[along], _product(shape[along + 1 :]))
        nan = CORE.n_of_m(plain(values[0]), selected, eligible, name, *order, sides, few, of)
        if nan is not None:
            raise NotANumberError(0, nan)
    return np.packbits(selected) if packed else selected


def group_scores(
    array: Array,
    *,
    block: tuple[int, int] | None = None,
    axis: int | None = None,
    reduce: str = "mean",
    mask: Flags | None = None,
    by: str = "magnitude",
) -> NDArray[np.float64]:
    """Return the score of each group: the mean or the sum of |x| (by="value": of x) over its eligible values.

    Sums are in float64, in a fixed order: first over the rows of each column of a block; then the sums of columns whose
    numbers in the block are equal modulo 8, in order; then those eight, in order. So they have the same bits on every
    processor and with any number of threads. A group along an axis is a block of the array reshaped to [before, axis ×
    after].

    Args:
      array, block, axis, reduce, mask, by: as in `top_k_masks`; block or axis is required.

    Returns:
      For blocks, shape [..., blocks of rows, blocks of columns]; for an axis, shape [its length]. 0 for a group without
      eligible values.

    Raises:
      NotANumberError, ValueError, TypeError: as in `top_k_masks`.
    """
    values, _ = check_arrays([array])
    allowed, order = check_masks(None if mask is None else [mask], values), check_order(by, True)
    checked = check(values, block, axis, reduce)
    if checked is None:
        raise ValueError("group_scores needs a block or an axis")
    eligible = None if allowed is None else opened(allowed[0], values[0])
    return score(values[0], checked[0], eligible, order, 0)[0]


def count_groups(mask: Bools, *, block: tuple[int, int] | None = None, axis: int | None = None) -> int:
    """Count the groups of an array with a True in the mask: those that can be selected.

    Args:
      mask: boolean, of the array's shape.
      block, axis: as in `top_k_masks`; one of them is required.

    Raises:
      TypeError: the mask is not boolean.
      ValueError: as in `top_k_masks`.
    """
    array = np.asarray(mask)
    if array.dtype != np.bool_:
        raise TypeError(f"mask is {array.dtype.name}, not bool")
    checked = check([array], block, axis, "sum")
    if checked is None:
        raise ValueError("count_groups needs a block or an axis")
    if array.size == 0:
        return 0
    (_, rows, cols), (block_rows, block_cols) = checked[0].view, checked[0].block
    in_rows = np.logical_or.reduceat(array.reshape(checked[0].view), np.arange(0, rows, block_rows), axis=1)
    return int(np.count_nonzero(np.logical_or.reduceat(in_rows, np.arange(0, cols, block_cols), axis=2)))


def check(arrays: Sequence[Array], block: tuple[int, int] | None, axis: int | None, reduce: str) -> list[Group] | None:
    """Return how each array is divided into groups; None without a block or an axis."""
    if reduce not in ("mean", "sum"):
        raise ValueError(f'reduce must be "mean" or "sum", not {reduce!r}')
    if block is not None and axis is not None:
        raise ValueError("pass a block or an axis, not both")
    if block is not None:
        sides = _sides(block)
        return [_blocks(i, array, sides, reduce == "mean") for i, array in enumerate(arrays)]
    if axis is not None:
        return [_slices(i, array, axis, reduce == "mean") for i, array in enumerate(arrays)]
    return None


def score(
    array: Array, group: Group, mask: Bools | None, order: Order, number: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the scores of the groups of arrays[number], and their numbers of eligible values."""
    try:
        if CORE is None:
            view = None if mask is None else mask.reshape(group.view)
            scores, counts = reference.block_scores(array.reshape(group.view), group.block, view, order, group.mean)
        else:
            scores, counts = np.empty(group.counted), np.empty(group.counted, np.int64)
            sides, name = (*group.view, *group.block), array.dtype.name
            nan = CORE.score_blocks(plain(array), mask, name, order.by_value, group.mean, sides, scores, counts)
            if nan is not None:
                raise NotANumberError(number, nan)
    except NotANumberError as error:
        raise NotANumberError(number, error.index) from None
    if order.by_value and np.isnan(scores).any():
        first = int(np.flatnonzero(np.isinf(array.astype(np.float64)))[0])
        raise NotANumberError(number, first, "inf and -inf in one group, the first")
    return scores.reshape(group.scores), counts.reshape(group.scores)


def expand(chosen: Flags, shape: tuple[int, ...], group: Group, mask: Bools | None) -> Bools:
    """Return the eligible values of the chosen groups."""
    selected = np.empty(group.view, np.bool_)
    flags = np.ascontiguousarray(chosen).reshape(group.counted)
    if CORE is None:
        for index, where in reference.blocks_of(group.view, group.block):
            selected[where] = flags[index]
        if mask is not None:
            selected &= mask.reshape(group.view)
    else:
        CORE.expand_blocks(flags, selected, mask, (*group.view, *group.block))
    return selected.reshape(shape)


def opened(mask: Flags, array: Array) -> Bools:
    """Return a mask as contiguous booleans of an array's shape."""
    return plain(unpacked(mask, array.shape))


def check_axis(name: str, shape: tuple[int, ...], axis: Any) -> int:
    """Return the axis as a number from 0."""
    number = integer("axis", axis)
    if not -len(shape) <= number < len(shape):
        raise ValueError(f"axis = {number}, but {name} has shape {shape}")
    return number % len(shape)


def _sides(block: Any) -> tuple[int, int]:
    if np.ndim(block) != 1 or len(block) != 2:
        raise ValueError(f"block must be two sides (rows, columns), not {block!r}")
    rows, cols = integer("block[0]", block[0]), integer("block[1]", block[1])
    if min(rows, cols) < 1:
        raise ValueError(f"the sides of a block must be at least 1, not {rows} × {cols}")
    return rows, cols


def _blocks(number: int, array: Array, sides: tuple[int, int], mean: bool) -> Group:
    if array.ndim < 2:
        raise ValueError(f"arrays[{number}] has shape {array.shape}: blocks need at least two axes")
    rows, cols = array.shape[-2:]
    # A block larger than the array is clipped to the array.
    block = (min(sides[0], max(rows, 1)), min(sides[1], max(cols, 1)))
    view = (_product(array.shape[:-2]), rows, cols)
    return Group(view, block, (*array.shape[:-2], -(-rows // block[0]), -(-cols // block[1])), mean)


def _slices(number: int, array: Array, axis: int, mean: bool) -> Group:
    along = check_axis(f"arrays[{number}]", array.shape, axis)
    outer, inner = _product(array.shape[:along]), _product(array.shape[along + 1 :])
    length = array.shape[along] if array.size else 0
    block = (max(outer, 1), max(inner, 1))
    return Group((1, outer if length else 0, length * inner), block, (length,), mean)


def _product(sides: Sequence[int]) -> int:
    return int(np.prod(sides, dtype=np.int64))
