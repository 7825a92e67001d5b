"""The stored weights of a kernel: the part of a sparse product that is fixed until the next pruning."""

from __future__ import annotations

import copy
import operator
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

__all__ = ["SparseStructure"]

Array = NDArray[Any]
MOST_GROUPS = 2**31 - 1
HALF_GROUPS = 2**16  # are numbered in 16 bits
VALUE_TYPES = ("float32", "bfloat16")


class SparseStructure:
    """The stored blocks of a dense kernel [inputs, outputs], or of a convolution's [height, width, inputs, outputs].

    A block is `block` = (inputs, outputs) weights; (1, 1) stores single weights. Blocks at the edges are filled up with
    zeros. The values of a structure are an array [room, *block], ordered by output group, then by tap of the
    convolution, then by input group. Blocks are indexed in both orders, for the product and for its input gradient,
    once: values can change at every step. The indices are compressed lists: those of output group g are
    ``others[starts[g]:starts[g + 1]]``; an input group is numbered tap * input groups + group.

    A structure may have room for more blocks than it stores, so that others can follow it in arrays of one size. What
    lies behind the last block, 0 in the indices, is in no product, whatever its values are; its gradient is 0.

    Attributes:
      shape: the shape of the dense kernel.
      block: the (inputs, outputs) of a block.
      taps: height * width of a convolution's kernel, 1 for a matrix.
      stored: number of blocks.
      room: number of blocks that there is place for, `stored` or more.
      starts, others: int64 [output groups + 1] and uint16 [room]: input groups of each output group, ascending.
      row_starts, row_others, row_places: int64 [taps * input groups + 1] and uint16 [room]: output groups of each input
        group, ascending, and how many values of the output group are before the block's. Where there are more than
        65,536 groups of inputs or of outputs they and `others` are int32.
    """

    def __init__(
        self, shape: tuple[int, ...], block: tuple[int, int], blocks: NDArray[np.bool_], room: int | None = None
    ) -> None:
        self.shape = shape
        self.block = block
        self.taps = int(np.prod(shape[:-2], dtype=np.int64))
        self.rows, self.cols = shape[-2:]
        out_groups, in_groups = np.nonzero(blocks.T)
        self.stored = len(in_groups)
        self.room = self.stored if room is None else room
        dtype = np.uint16 if max(blocks.shape) <= HALF_GROUPS else np.int32
        self.starts = _starts(out_groups, blocks.shape[1])
        self.others = _index(in_groups, self.room, dtype)
        row_groups, row_others = np.nonzero(blocks)
        self.row_starts = _starts(row_groups, blocks.shape[0])
        self.row_others = _index(row_others, self.room, dtype)
        places = np.empty(self.stored, np.int64)
        # A stable sort by output group of the list by input group is the list by output group.
        places[np.argsort(row_others, kind="stable")] = np.arange(self.stored) - self.starts[out_groups]
        self.row_places = _index(places, self.room, dtype)

    @classmethod
    def from_mask(
        cls, mask: Array, block: int | Sequence[int] | None = None, room: int | None = None
    ) -> SparseStructure:
        """The structure of a boolean mask.

        Args:
          mask: bool [inputs, outputs], or [..., inputs, outputs] for a convolution's kernel.
          block: sides (inputs, outputs) of a block, or one number for both; None stores single weights.
          room: blocks to make place for; None for as many as the mask keeps.

        Raises:
          TypeError: `mask` is not boolean, `block` or `room` not integers.
          ValueError: fewer than two dimensions or an empty one; sides below 1; a block that the mask keeps in part:
            it would come back to life; less room than blocks.
        """
        kept = np.asarray(mask)
        if kept.dtype != np.bool_:
            raise TypeError(f"mask is {kept.dtype.name}, not bool")
        if kept.ndim < 2 or 0 in kept.shape:
            raise ValueError(f"mask has shape {kept.shape}: use a kernel [..., inputs, outputs] without empty axes")
        sides = _sides(block)
        taps = int(np.prod(kept.shape[:-2], dtype=np.int64))
        groups = (taps * -(-kept.shape[-2] // sides[0]), -(-kept.shape[-1] // sides[1]))
        if max(groups) > MOST_GROUPS:
            raise ValueError(
                f"mask of shape {kept.shape} has {max(groups)} groups; at most {MOST_GROUPS} are supported"
            )
        tiles = _tiles(kept, sides)
        any_kept = tiles.any(axis=(1, 3))
        inside = _tiles(np.ones(kept.shape, bool), sides) if _ragged(kept.shape, sides) else np.True_
        partial = any_kept & ((tiles != inside) & inside).any(axis=(1, 3))
        if partial.any():
            raise ValueError(
                f"mask keeps {int(partial.sum())} of {int(any_kept.sum())} blocks {sides[0]}x{sides[1]} only in part; "
                "select whole blocks, or use block=None"
            )
        return cls(tuple(kept.shape), sides, np.asarray(any_kept), _room(room, int(any_kept.sum())))

    def over(self, indices: Sequence[Array]) -> SparseStructure:
        """Return this structure over other arrays of the same content: `indices`, in their order."""
        made = copy.copy(self)
        made.starts, made.others, made.row_starts, made.row_others, made.row_places = indices
        return made

    @property
    def indices(self) -> tuple[Array, Array, Array, Array, Array]:
        """Return starts, others, row_starts, row_others, row_places."""
        return self.starts, self.others, self.row_starts, self.row_others, self.row_places

    @property
    def density(self) -> float:
        """Return the share of the kernel's weights that are stored."""
        return int(self.mask().sum()) / int(np.prod(self.shape))

    def mask(self) -> NDArray[np.bool_]:
        """The mask [*shape] that this is the structure of."""
        return self.to_dense(np.ones((self.room, *self.block), np.float32)).astype(bool)

    def values(self, kernel: Array) -> Array:
        """The stored values [room, *block] of a dense kernel [*shape], float32 or bfloat16.

        They are 0 beyond the kernel's edges, and behind the last block.

        Raises:
          ValueError: `kernel` has another shape.
        """
        dense = np.asarray(kernel)
        if dense.shape != self.shape:
            raise ValueError(f"kernel has shape {dense.shape}, but the structure has {self.shape}")
        tiles = _tiles(dense, self.block).transpose(0, 2, 1, 3)
        kept = np.zeros((self.room, *self.block), dense.dtype if dense.dtype.name in VALUE_TYPES else np.float32)
        kept[: self.stored] = tiles[self.others[: self.stored], self._out_groups()]
        return kept

    def to_dense(self, values: Array) -> Array:
        """The dense kernel [*shape] of `values` [room, *block]: zero where nothing is stored.

        Raises:
          ValueError: `values` has another shape.
        """
        given = np.asarray(values)
        if given.shape != (self.room, *self.block):
            raise ValueError(f"values has shape {given.shape}, the structure stores {(self.room, *self.block)}")
        rows, cols = self.block
        tiles = np.zeros((len(self.row_starts) - 1, len(self.starts) - 1, rows, cols), given.dtype)
        tiles[self.others[: self.stored], self._out_groups()] = given[: self.stored]
        whole = tiles.transpose(0, 2, 1, 3).reshape(self.taps, -1, tiles.shape[1] * cols)
        return np.ascontiguousarray(whole[:, : self.rows, : self.cols]).reshape(self.shape)

    def _out_groups(self) -> Array:
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, SparseStructure)
            and (self.shape, self.block, self.room) == (other.shape, other.block, other.room)
            and np.array_equal(self.starts, other.starts)
            and np.array_equal(self.others, other.others)
        )

    def __hash__(self) -> int:
        return hash((self.shape, self.block, self.room, self.starts.tobytes(), self.others.tobytes()))

    def __repr__(self) -> str:
        room = "" if self.room == self.stored else f"room={self.room}, "
        return (
            f"SparseStructure(shape={self.shape}, block={self.block}, stored={self.stored}, {room}"
            f"density={self.density:.4g})"
        )


def _sides(block: int | Sequence[int] | None) -> tuple[int, int]:
    if block is None:
        return 1, 1
    given = list(block) if isinstance(block, Sequence) else [block, block]
    try:
        sides = [operator.index(side) for side in given]
    except TypeError:
        raise TypeError(f"block must be an integer or two, not {block!r}") from None
    if len(sides) != 2 or min(sides) < 1:
        raise ValueError(f"block = {block!r}: use two sides of at least 1")
    return sides[0], sides[1]


def _room(room: int | None, stored: int) -> int:
    if room is None:
        return stored
    try:
        given = operator.index(room)
    except TypeError:
        raise TypeError(f"room must be an integer or None, not {room!r}") from None
    if not stored <= given <= MOST_GROUPS:
        raise ValueError(
            f"room = {given} for a mask of {stored} blocks: give {stored} to {MOST_GROUPS}, or None for {stored}"
        )
    return given


def _ragged(shape: tuple[int, ...], block: tuple[int, int]) -> bool:
    return bool(shape[-2] % block[0] or shape[-1] % block[1])


def _tiles(kernel: Array, block: tuple[int, int]) -> Array:
    """[..., inputs, outputs] as [taps * input groups, block inputs, output groups, block outputs], padded with 0."""
    rows, cols = kernel.shape[-2:]
    stacked = kernel.reshape(-1, rows, cols)
    if _ragged(kernel.shape, block):
        stacked = np.pad(stacked, ((0, 0), (0, -rows % block[0]), (0, -cols % block[1])))
    return stacked.reshape(-1, block[0], stacked.shape[2] // block[1], block[1])


def _starts(groups: Array, count: int) -> Array:
    starts = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(groups, minlength=count), out=starts[1:])
    starts.flags.writeable = False
    return starts


def _index(groups: Array, room: int, dtype: type[np.generic]) -> Array:
    index = np.zeros(room, dtype)
    index[: len(groups)] = groups
    index.flags.writeable = False
    return index


def value_type(values: Array) -> str:
    """Return the name of a supported dtype of values.

    Raises:
      TypeError: it is neither float32 nor bfloat16.
    """
    name = "bfloat16" if values.dtype == ml_dtypes.bfloat16 else values.dtype.name
    if name not in VALUE_TYPES:
        raise TypeError(f"values is {name}; supported are {', '.join(VALUE_TYPES)}")
    return name
