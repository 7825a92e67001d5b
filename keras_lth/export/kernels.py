"""A kernel as it is multiplied by: single weights, blocks or dense, whichever takes the least time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_lth.export.graph import Array
from keras_lth.ops.structure import SparseStructure

__all__ = ["Kernel", "choose"]

# Time of a stored weight beside that of one in a dense product, as benchmarks/bench.py measures it (128 samples, 90 %
# zeros; a convolution's blocks share the load of a run among their outputs only). At batch 1 memory decides, where a
# single weight has 8 bytes and one of a block 4: the same quotients.
_MATRIX = {(1, 1): 2.0, (4, 4): 1.2, (8, 8): 1.1, (16, 16): 1.0, (1, 16): 1.3}
_CONVOLUTION = {(1, 1): 1.8, (1, 4): 1.3, (1, 8): 1.1, (1, 16): 1.1}
_DENSE_MATRIX = 1.05


@dataclass(frozen=True)
class Kernel:
    """Weights [..., inputs, outputs]: `values` [stored, *block] of a structure, or dense without one."""

    structure: SparseStructure | None
    values: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the dense kernel."""
        return self.values.shape if self.structure is None else self.structure.shape

    @property
    def density(self) -> float:
        """Share of weights that are not 0."""
        return int(np.count_nonzero(self.values)) / int(np.prod(self.shape))

    @property
    def bytes(self) -> int:
        """Of the values and of the indices that a product reads."""
        indices = 0 if self.structure is None else self.structure.starts.nbytes + self.structure.others.nbytes
        return self.values.nbytes + indices

    def blocks(self) -> Array:
        """Which blocks are stored: bool [taps * input groups, output groups]."""
        assert self.structure is not None
        starts = self.structure.starts
        stored = np.zeros((len(self.structure.row_starts) - 1, len(starts) - 1), np.bool_)
        stored[self.structure.others, np.repeat(np.arange(len(starts) - 1), np.diff(starts))] = True
        return stored

    def __str__(self) -> str:
        if self.structure is None:
            return "dense"
        rows, cols = self.structure.block
        return "single weights" if (rows, cols) == (1, 1) else f"{rows}×{cols} blocks"


def choose(kernel: Array, block: tuple[int, int] | None = None) -> Kernel:
    """Choose how a kernel is stored: exact zeros are left out where that makes it faster.

    Args:
      kernel: float32 [inputs, outputs] or [height, width, inputs, outputs].
      block: (inputs, outputs) of a block to use whatever it costs; None chooses.
    """
    costs = _MATRIX if kernel.ndim == 2 else _CONVOLUTION
    kept = kernel != 0
    if block is None:
        stored = {sides: _blocks(kept, sides).sum() * sides[0] * sides[1] * cost for sides, cost in costs.items()}
        block = min(stored, key=lambda sides: stored[sides])
        if kernel.ndim == 2 and stored[block] >= _DENSE_MATRIX * kernel.size:
            return Kernel(None, np.ascontiguousarray(kernel))
    structure = SparseStructure(kernel.shape, block, _blocks(kept, block))
    return Kernel(structure, structure.values(kernel))


def _blocks(kept: Array, block: tuple[int, int]) -> Array:
    """Blocks [taps * input groups, output groups] that hold a weight."""
    rows, cols = kept.shape[-2:]
    taps = kept.reshape(-1, rows, cols)
    taps = np.pad(taps, ((0, 0), (0, -rows % block[0]), (0, -cols % block[1])))
    tiles = taps.reshape(-1, block[0], taps.shape[2] // block[1], block[1])
    return np.asarray(tiles.any(axis=(1, 3)))
