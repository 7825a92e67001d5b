"""Selection over arrays: exactly the first k values, or groups of values, in an order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_lth.ops import groups, reference
from keras_lth.ops.arguments import (
    Array,
    Flags,
    NotANumberError,
    Order,
    check_arrays,
    check_k,
    check_masks,
    check_near,
    check_order,
    count_eligible,
    from_bits,
    integer,
    plain,
)
from keras_lth.ops.core import CORE

__all__ = ["Selection", "top_k", "top_k_masks"]


class Selection(NamedTuple):
    """The result of `top_k`."""

    masks: list[Flags]
    """One for each array: bool of its shape, or packed."""
    threshold: np.generic | None
    """The last value that was selected (|x| by magnitude), of the arrays' dtype; None where k = 0."""


def top_k(
    arrays: Sequence[Array],
    k: int,
    *,
    masks: Sequence[Flags] | None = None,
    by: str = "magnitude",
    largest: bool = True,
    packed: bool = False,
    near: float | None = None,
) -> Selection:
    """Do as `top_k_masks` for single values; also return the threshold, which speeds up the next call as `near`.

    Args:
      arrays, k, masks, by, largest, packed: as in `top_k_masks`.
      near: a guess of the threshold, such as the last one. It does not change the result. If the threshold has moved by
          less than half a per cent of the values, one small sample of the data is enough.

    Raises:
      TypeError, ValueError: as in `top_k_masks`; or `near` is not a number, or NaN.
    """
    values, name = check_arrays(arrays)
    order, allowed = check_order(by, largest), check_masks(masks, values)
    guess = check_near(near, values[0].dtype) if values else None
    return _top_k(values, name, k, allowed, order, packed, guess, threshold=True)


def top_k_masks(
    arrays: Sequence[Array],
    k: int | Sequence[int],
    *,
    masks: Sequence[Flags] | None = None,
    by: str = "magnitude",
    largest: bool = True,
    block: tuple[int, int] | None = None,
    axis: int | None = None,
    reduce: str = "mean",
    packed: bool = False,
) -> list[Flags]:
    """Select exactly the k largest |x| over all arrays together, or in each array; or the k best groups.

    Ties go to the lowest (array, flat index in C order). Values are compared exactly: -0 equals 0, denormals are not
    flushed, infinities are the largest. The result is the same on every instruction set and number of threads.

    Args:
      arrays: arrays of any shapes, all float64, all float32, all float16 or all bfloat16 (ml_dtypes). Contiguous ones
        are read in place; strided, byte-swapped or unaligned ones are copied first. They must not be written to while
        the call runs, because the GIL is released.
      k: number to select, from 0 to the number of values (of True in `masks`, if given) or of groups. One number for
          all arrays together, or one per array.
      masks: one mask per array; only values where it is True may be selected. Boolean of the array's shape, or uint8
          with one bit per value, packed as by numpy.packbits.
      by: "magnitude" compares |x|, "value" x.
      largest: False selects the smallest.
      block: sides of blocks over the last two axes (of a convolution's kernel: inputs and outputs, for each tap); those
        at the edges are smaller. k counts blocks, masks are unions of blocks.
      axis: instead of a block, all values with one index along this axis form a group: -1 gives output neurons or
          channels, -2 inputs. k counts them.
      reduce: a group's score is the "mean" or the "sum" over its eligible values, in float64; see `group_scores`.
      packed: return masks as uint8 of one axis, as numpy.packbits would.

    Returns:
      One new mask per array, boolean of its shape, or packed. Groups without eligible values are never selected.

    Raises:
      NotANumberError: (a ValueError) there is a NaN, even where the mask is False; its `array` and `index` give the
          position.
      ValueError: k is out of range, a mask has another shape, a block or axis does not fit an array.
      TypeError: a dtype is not supported, dtypes are mixed, or a mask is neither boolean nor packed.
    """
    values, name = check_arrays(arrays)
    order, allowed = check_order(by, largest), check_masks(masks, values)
    grouped = groups.check(values, block, axis, reduce)
    counts = _counts(k, len(values))
    if counts is not None:
        parts = []
        for i, count in enumerate(counts):
            mine = None if allowed is None else allowed[i : i + 1]
            try:
                if grouped is None:
                    parts += _top_k(values[i : i + 1], name, count, mine, order, packed, label=f"k[{i}]").masks
                else:
                    parts += _grouped(values[i : i + 1], count, mine, order, grouped[i : i + 1], packed, f"k[{i}]")
            except NotANumberError as error:
                raise NotANumberError(i, error.index) from None
        return parts
    if grouped is not None:
        return _grouped(values, k, allowed, order, grouped, packed)
    return _top_k(values, name, k, allowed, order, packed).masks


def _counts(k: Any, arrays: int) -> list[object] | None:
    """k as a list with one number per array, or None if it is one number."""
    if np.ndim(k) == 0:
        return None
    counts = list(k)
    if len(counts) != arrays:
        raise ValueError(f"k has {len(counts)} entries for {arrays} arrays")
    return counts


def _top_k(
    values: list[Array],
    name: str,
    k: object,
    allowed: list[Flags] | None,
    order: Order,
    packed: bool,
    near: np.generic | None = None,
    threshold: bool = False,
    label: str = "k",
) -> Selection:
    count, size = integer(label, k), sum(array.size for array in values)
    if CORE is None or not 0 <= count <= size:
        check_k(count, count_eligible(values, allowed), label)
        found, last = reference.top_k(values, count, allowed, order)
        value = None if last is None else values[0].dtype.newbyteorder("=").type(last)
        return Selection([np.packbits(mask) for mask in found] if packed else [*found], value)
    shapes: list[Any] = [(array.size + 7) // 8 if packed else array.shape for array in values]
    selected = [np.empty(shape, np.uint8 if packed else np.bool_) for shape in shapes]
    bits = None if near is None else int(near.view(f"u{near.itemsize}"))
    masks = None if allowed is None else [plain(mask) for mask in allowed]
    try:
        nan, last = CORE.top_k(
            [plain(array) for array in values], selected, masks, name, count, *order, near=bits, threshold=threshold
        )
    except ValueError as error:
        raise ValueError(str(error).replace("k =", f"{label} =", 1)) from None
    if nan is not None:
        raise NotANumberError(*nan)
    return Selection(selected, None if last is None else from_bits(last, values[0].dtype))


def _grouped(
    values: list[Array],
    k: object,
    allowed: list[Flags] | None,
    order: Order,
    grouped: Sequence[groups.Group],
    packed: bool,
    label: str = "k",
) -> list[Flags]:
    """The k groups of best score, spread over their values."""
    scores, eligible, opened = [], [], []
    for i, (array, group) in enumerate(zip(values, grouped, strict=True)):
        mask = None if allowed is None else groups.opened(allowed[i], array)
        score, counts = groups.score(array, group, mask, order, i)
        scores.append(score)
        eligible.append(counts > 0)
        opened.append(mask)
    total = sum(int(np.count_nonzero(mask)) for mask in eligible)
    count = integer(label, k)
    if not 0 <= count <= total:
        raise ValueError(f"{label} = {count} is outside 0...{total}, the number of eligible groups")
    # Scores are compared by value, because a score of magnitudes is never negative.
    chosen = _top_k([*scores], "float64", count, [*eligible], Order(True, order.largest), False).masks
    masks: list[Flags] = [
        groups.expand(mask, array.shape, group, open_)
        for mask, array, group, open_ in zip(chosen, values, grouped, opened, strict=True)
    ]
    return [np.packbits(mask) for mask in masks] if packed else masks
