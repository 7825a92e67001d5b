"""Exact selection over weights that are distributed over several hosts, by a few small sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_lth.ops import reference
from keras_lth.ops.arguments import (
    Array,
    Flags,
    NotANumberError,
    check_arrays,
    check_masks,
    check_order,
    from_bits,
    integer,
    plain,
)
from keras_lth.ops.core import CORE

__all__ = ["ShardedSelection"]

BINS = 2048
# Used as a count if a shard has a NaN. Sums of 8191 of them, and of counts below 2**50, stay exact.
_REFUSED = -(1 << 50)
Histogram = NDArray[np.int64]


class ShardedSelection:
    """Selects exactly the k largest |x| over the arrays of all shards; each shard has one object, with the same k.

    The result equals `top_k_masks` over the arrays of shard 0, 1, ... in order: ties go to the lowest
    (shard, array, flat index). Each shard reads its arrays once per round and sends a histogram of 2048 int64 (16 KiB):

      1. While not `done`: h = `histogram()`; `refine(sum of h over the shards)`. Three rounds for float32, two for
         float16 and bfloat16, six for float64, whose values have twice the bits. Each round narrows the interval that
         contains the k-th value by a factor of 2048; after the last it is one value, the threshold.
      2. t = `ties()`: how many values of this shard equal the threshold. `masks(sum of t over the shards before)`.

    `run` does this with an all-reduce. All shards find the same threshold, and raise errors together.

    Args:
      arrays: the arrays of this shard; all shards must have the same dtype. They must not change until the masks are
          made.
      k: number to select over all shards.
      masks, by, largest, packed: as in `top_k_masks`.
      dtype: required if a shard has no array: the name of the dtype of the others.

    Raises:
      TypeError, ValueError: as in `top_k_masks`; an error that only one shard can see (NaN) is raised later, by all.
    """

    def __init__(
        self,
        arrays: Sequence[Array],
        k: int,
        *,
        masks: Sequence[Flags] | None = None,
        by: str = "magnitude",
        largest: bool = True,
        packed: bool = False,
        dtype: str | None = None,
    ) -> None:
        self._arrays, name = check_arrays(arrays)
        if not self._arrays and dtype is None:
            raise ValueError("a shard without arrays needs the dtype of the others")
        if dtype is not None and np.dtype(dtype).name != name:
            if self._arrays:
                raise TypeError(f"arrays[0] is {name}, not {dtype}")
            name = check_arrays([np.zeros(0, dtype)])[1]
        self._name = name
        self._order, self._packed = check_order(by, largest), packed
        self._allowed = check_masks(masks, self._arrays)
        self._k = integer("k", k)
        if self._k < 0:
            raise ValueError(f"k = {self._k} is negative")
        self._plain = [plain(array) for array in self._arrays]
        self._masks = None if self._allowed is None else [plain(mask) for mask in self._allowed]
        self._lo, self._hi = reference.key_range(name, self._order)
        self._rank = self._k  # of the threshold among the keys in [lo, hi], from the greatest
        self._rounds = 0
        self._mine: Histogram | None = None
        self._nan: NotANumberError | None = None
        self._ties = 0  # of this shard

    @property
    def done(self) -> bool:
        """Return whether the threshold is known."""
        return self._rounds > 0 and self._lo == self._hi

    @property
    def rounds(self) -> int:
        """Return the number of histograms that have been summed."""
        return self._rounds

    @property
    def threshold(self) -> np.generic | None:
        """Return the k-th value (|x| by magnitude), once done; None if k = 0."""
        if not self.done:
            raise RuntimeError("the threshold is not known yet: call refine until done")
        if self._k == 0:
            return None
        key = self._lo if self._order.largest else -self._lo
        dtype = np.dtype(self._name)
        sign = 1 << (8 * dtype.itemsize - 1)
        return from_bits(key if key >= 0 else sign | -key, dtype)

    def histogram(self) -> Histogram:
        """Return this shard's counts in 2048 equal parts of the interval, to be summed over the shards."""
        if self.done:
            raise RuntimeError("the threshold is already known: there is nothing to refine")
        self._mine = np.zeros(BINS, np.int64)
        try:
            self._mine = self._count()
        except NotANumberError as error:  # the other shards must not wait for this one
            self._nan = error
            self._mine[0] = _REFUSED
        return self._mine.copy()

    def refine(self, summed: Histogram) -> None:
        """Narrow the interval to the part that contains the k-th value.

        Raises:
          NotANumberError: this shard has a NaN.
          ValueError: another shard has one; k is more than the values of all shards; `summed` is not such a sum.
          RuntimeError: `histogram()` was not called in this round.
        """
        if self._mine is None:
            raise RuntimeError("refine takes the sum of this round's histograms: call histogram() first")
        total = np.asarray(summed)
        if total.shape != (BINS,) or total.dtype != np.int64:
            raise ValueError(f"summed must be int64 of shape ({BINS},), not {total.dtype.name} of {total.shape}")
        if self._nan is not None:
            raise self._nan
        if (total < 0).any():
            raise ValueError("another shard has a NaN")
        if (total < self._mine).any():
            raise ValueError("summed is less than the counts of this shard alone")
        eligible = int(total.sum())
        if self._rounds == 0 and self._k > eligible:
            raise ValueError(f"k = {self._k} is outside 0...{eligible}, the number of eligible values")
        if self._rank > eligible:
            raise ValueError("summed does not contain the counts of all shards")
        shift = self._shift
        if self._k == 0:
            self._lo = self._hi  # nothing is above
        else:
            above = np.cumsum(total[::-1])[::-1]  # in this part and those above it
            part = int(np.flatnonzero(above >= self._rank)[-1])
            self._rank -= int(above[part] - total[part])
            first = self._lo + (part << shift)
            self._lo, self._hi = first, min(first + (1 << shift) - 1, self._hi)
            self._ties = int(self._mine[part])
        self._rounds += 1
        self._mine = None

    def ties(self) -> int:
        """Return how many values of this shard equal the threshold; 0 if k = 0."""
        if not self.done:
            raise RuntimeError("ties are not known yet: call refine until done")
        return self._ties

    def masks(self, ties_before: int) -> list[Flags]:
        """Return the masks of this shard.

        Args:
          ties_before: the sum of `ties()` over the shards before this one.
        """
        before, mine = integer("ties_before", ties_before), self.ties()
        if before < 0:
            raise ValueError(f"ties_before = {before} is negative")
        quota = min(max(self._rank - before, 0), mine)
        if CORE is None:
            found: list[Flags] = [*reference.select_from(self._plain, self._masks, self._order, self._lo, quota)]
            return [np.packbits(mask) for mask in found] if self._packed else found
        shapes: list[Any] = [(array.size + 7) // 8 if self._packed else array.shape for array in self._arrays]
        selected: list[Flags] = [np.empty(shape, np.uint8 if self._packed else np.bool_) for shape in shapes]
        CORE.select_from(self._plain, selected, self._masks, self._name, *self._order, self._lo, quota)
        return selected

    def run(self, all_reduce: Callable[[Histogram], Histogram], shard: int = 0, shards: int = 1) -> list[Flags]:
        """Run the whole protocol and return the masks of this shard.

        Args:
          all_reduce: takes an int64 array and returns the sum over all shards; called equally often, with equal shapes,
              on every shard.
          shard: index of this shard, from 0.
          shards: number of shards.
        """
        if not 0 <= integer("shard", shard) < integer("shards", shards):
            raise ValueError(f"shard = {shard} is outside 0...{shards - 1}")
        while not self.done:
            self.refine(np.asarray(all_reduce(self.histogram())))
        ties = np.zeros(shards, np.int64)
        ties[shard] = self.ties()
        return self.masks(int(np.asarray(all_reduce(ties))[:shard].sum()))

    @property
    def _shift(self) -> int:
        return max(0, (self._hi - self._lo).bit_length() - 11)

    def _count(self) -> Histogram:
        if CORE is None:
            return reference.count_keys(self._plain, self._masks, self._order, self._lo, self._hi, self._shift)
        name, order = self._name, self._order
        bins, nan = CORE.count_keys(self._plain, self._masks, name, *order, self._lo, self._hi, self._shift)
        if nan is not None:
            raise NotANumberError(*nan)
        counted: Histogram = bins
        return counted
