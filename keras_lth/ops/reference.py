"""Selection in NumPy: slow and short, the reference for the compiled kernels."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from keras_lth.ops.arguments import Array, Bools, Flags, NotANumberError, Order, plain, unpacked

__all__ = ["block_scores", "count_keys", "key_range", "n_of_m", "select_from", "top_k", "top_k_masks"]

BINS = 2048
_BITS = {8: np.int64, 4: np.int32, 2: np.int16}
_INFINITY = {"float64": 0x7FF0 << 48, "float32": 0x7F80 << 16, "float16": 0x7C00, "bfloat16": 0x7F80}


def ranks(array: Array, order: Order, number: int = 0) -> NDArray[np.float64]:
    """Return flat ranks; the first value in the order has the lowest. A NaN is an error that names arrays[number]."""
    with np.errstate(invalid="ignore"):  # a signalling NaN is reported below
        values = np.ravel(array).astype(np.float64)  # holds every value of the other formats exactly
    nans = np.flatnonzero(np.isnan(values))
    if nans.size:
        raise NotANumberError(number, int(nans[0]))
    compared = values if order.by_value else np.abs(values)
    return -compared if order.largest else compared


def top_k(
    arrays: Sequence[Array], k: int, masks: Sequence[Flags] | None, order: Order
) -> tuple[list[Bools], float | None]:
    """Select the first k values, ties to the lowest (array, flat index), and return the last (|x| by magnitude)."""
    if not arrays:
        return [], None
    joined = np.concatenate([ranks(array, order, i) for i, array in enumerate(arrays)])
    positions = np.arange(joined.size)
    if masks is not None:
        allowed = [np.ravel(unpacked(mask, array.shape)) for mask, array in zip(masks, arrays, strict=True)]
        positions = np.flatnonzero(np.concatenate(allowed))
    # A stable sort leaves equal ranks in the order of their positions.
    chosen = positions[np.argsort(joined[positions], kind="stable")[:k]]
    selected = np.zeros(joined.size, dtype=np.bool_)
    selected[chosen] = True
    parts = np.split(selected, np.cumsum([array.size for array in arrays])[:-1])
    threshold = None
    if k > 0:
        threshold = float(-joined[chosen[-1]] if order.largest else joined[chosen[-1]]) + 0.0  # not -0
    return [part.reshape(array.shape).copy() for part, array in zip(parts, arrays, strict=True)], threshold


def top_k_masks(arrays: Sequence[Array], k: int, *, masks: Sequence[Flags] | None = None) -> list[Bools]:
    """Select exactly the k largest |x| over all arrays together."""
    return top_k(arrays, k, masks, Order())[0]


def n_of_m(array: Array, n: int, m: int, axis: int, mask: Bools | None, order: Order) -> Bools:
    """Select, of every m consecutive values along the axis, the first n eligible ones."""
    rank = np.moveaxis(ranks(array, order).reshape(array.shape), axis, -1)
    allowed = np.moveaxis(np.ones(array.shape, np.bool_) if mask is None else mask, axis, -1)
    selected = np.zeros_like(allowed)
    for start in range(0, array.shape[axis], m):
        group, open_ = rank[..., start : start + m], allowed[..., start : start + m]
        # Eligible ones first, then by rank; lexsort is stable and sorts by its last key first.
        first = np.lexsort((group, ~open_), axis=-1)[..., :n]
        np.put_along_axis(selected[..., start : start + m], first, True, axis=-1)
    return np.moveaxis(selected & allowed, -1, axis).copy()


def blocks_of(shape: tuple[int, ...], block: tuple[int, int]) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """Yield the index of each block of an array [taps, rows, cols], and the position of its values."""
    sides = (1, *block)
    for index in itertools.product(*(range(-(-n // side)) for n, side in zip(shape, sides, strict=True))):
        yield index, tuple(slice(i * side, (i + 1) * side) for i, side in zip(index, sides, strict=True))


def block_scores(
    array: Array, block: tuple[int, int], mask: Bools | None, order: Order, mean: bool
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the scores of the blocks of an array [taps, rows, cols], and their numbers of eligible values.

    Additions are in float64, in this order: over the rows of each column of a block; the sums of the columns whose
    numbers in the block are equal modulo 8, in order; those eight, in order.
    """
    values = ranks(array, Order(order.by_value, largest=False)).reshape(array.shape)
    open_ = np.ones(array.shape, np.bool_) if mask is None else mask
    values = np.where(open_, values, 0.0)
    counted = (array.shape[0], -(-array.shape[1] // block[0]), -(-array.shape[2] // block[1]))
    scores, counts = np.zeros(counted), np.zeros(counted, np.int64)
    with np.errstate(over="ignore", invalid="ignore"):
        for index, where in blocks_of(array.shape, block):
            cols = values[where].shape[2]
            columns = np.zeros(cols)
            for row in values[where][0]:
                columns = columns + row
            eight = np.zeros(8)
            for start in range(0, cols, 8):
                part = columns[start : start + 8]
                eight[: part.size] += part
            score = 0.0
            for term in eight:
                score = score + term
            counts[index] = np.count_nonzero(open_[where])
            scores[index] = score / counts[index] if mean and counts[index] else score
    return scores, counts


def key_range(name: str, order: Order) -> tuple[int, int]:
    """Return the least and the greatest key of a format."""
    infinity = _INFINITY[name]
    if order.by_value:
        return -infinity, infinity
    return (0, infinity) if order.largest else (-infinity, 0)


def keys(array: Array, order: Order) -> NDArray[np.int64]:
    """Return integers in the order of the values; the first value to select has the greatest."""
    wide = _BITS[array.dtype.itemsize]
    bits = np.ravel(plain(array)).view(wide).astype(np.int64)
    magnitude = bits & np.iinfo(wide).max
    key = np.where(bits < 0, -magnitude, magnitude) if order.by_value else magnitude
    return key if order.largest else -key


def count_keys(
    arrays: Sequence[Array], masks: Sequence[Flags] | None, order: Order, lo: int, hi: int, shift: int
) -> NDArray[np.int64]:
    """Count the eligible keys in each interval of length 2**shift in [lo, hi]."""
    bins = np.zeros(BINS, np.int64)
    for i, array in enumerate(arrays):
        ranks(array, order, i)  # refuses NaN
        inside = keys(array, order)
        if masks is not None:
            inside = inside[np.ravel(unpacked(masks[i], array.shape))]
        inside = inside[(inside >= lo) & (inside <= hi)]
        # In unsigned integers: for float64 by value a difference may be more than an int64 holds.
        distance = (inside.view(np.uint64) - np.uint64(lo & (2**64 - 1))) >> np.uint64(shift)
        bins += np.bincount(distance.astype(np.int64), minlength=BINS)
    return bins


def select_from(
    arrays: Sequence[Array], masks: Sequence[Flags] | None, order: Order, threshold: int, ties: int
) -> list[Bools]:
    """Select the keys above the threshold, and the first `ties` keys that are equal to it."""
    selected = []
    for i, array in enumerate(arrays):
        key = keys(array, order)
        allowed = np.ones(array.size, np.bool_) if masks is None else np.ravel(unpacked(masks[i], array.shape))
        chosen = allowed & (key > threshold)
        equal = np.flatnonzero(allowed & (key == threshold))[:ties]
        chosen[equal] = True
        ties -= equal.size
        selected.append(chosen.reshape(array.shape))
    return selected
