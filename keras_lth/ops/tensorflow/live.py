"""A structure in variables: functions that were traced with it follow a new mask without a new trace."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from keras_lth.ops.structure import SparseStructure

__all__ = ["LiveStructure", "structure_of"]

NAMES = ("starts", "others", "row_starts", "row_others", "row_places")


class LiveStructure(tf.Module):
    """A structure whose blocks can change: `sparse_matmul`, `sparse_conv2d` and `to_dense` take it for tensors.

    Its index arrays are variables, not trainable, made in the strategy's scope and on the device that are in force
    where it is made. What has traced it reads them at each run. As a ``tf.Module`` it is saved with whatever has it as
    an attribute. Where a checkpoint was restored into the variables, call `assign` with the structure that it is of.

    Attributes:
      structure: the structure that was assigned last, over the memory of the variables.
      starts, others, row_starts, row_others, row_places: variables, as the arrays of a SparseStructure.
    """

    def __init__(self, structure: SparseStructure) -> None:
        if not isinstance(structure, SparseStructure):
            raise TypeError(f"structure is {type(structure).__name__}, not SparseStructure: make it with from_mask")
        super().__init__(name="live_structure")
        with tf.init_scope():
            self.starts, self.others, self.row_starts, self.row_others, self.row_places = (
                tf.Variable(
                    # A copy: on the CPU TensorFlow may take a NumPy array's memory as it is.
                    np.array(array),
                    trainable=False,
                    name=name,
                    aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
                )
                for name, array in zip(NAMES, structure.indices, strict=True)
            )
        self.structure = self._over(structure)

    def assign(self, structure: SparseStructure) -> None:
        """Let `structure` take the place of the one that is there; between two steps, not beside one.

        Raises:
          TypeError: `structure` is not a SparseStructure.
          ValueError: it has another shape, block or room.
          RuntimeError: a function is being traced, which would assign when it is traced and never again.
        """
        if not isinstance(structure, SparseStructure):
            raise TypeError(f"structure is {type(structure).__name__}, not SparseStructure: make it with from_mask")
        mine, given = ((one.shape, one.block, one.room) for one in (self.structure, structure))
        if mine != given:
            raise ValueError(
                f"the structure assigned has {_sizes(structure)}, this one {_sizes(self.structure)}: make it with "
                f"from_mask(mask, block={self.block}, room={self.room}) of a mask {self.shape}"
            )
        if not tf.executing_eagerly():
            raise RuntimeError("a live structure is assigned while a function is traced: assign it between two calls")
        for variable, array in zip(self.indices, structure.indices, strict=True):
            variable.assign(np.array(array))
        self.structure = self._over(structure)

    def _over(self, structure: SparseStructure) -> SparseStructure:
        """The structure over the memory of the variables: indices are as large as values, and are kept once."""
        with tf.init_scope():
            if not tf.executing_eagerly():
                return structure
            return structure.over([np.asarray(memoryview(one.read_value())) for one in self.indices])

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the dense kernel."""
        return self.structure.shape

    @property
    def block(self) -> tuple[int, int]:
        """(inputs, outputs) of a block."""
        return self.structure.block

    @property
    def taps(self) -> int:
        """Height * width of a convolution's kernel, 1 for a matrix."""
        return self.structure.taps

    @property
    def rows(self) -> int:
        """Inputs of the kernel."""
        return self.structure.rows

    @property
    def cols(self) -> int:
        """Outputs of the kernel."""
        return self.structure.cols

    @property
    def room(self) -> int:
        """Blocks that there is place for."""
        return self.structure.room

    @property
    def indices(self) -> tuple[Any, ...]:
        """The variables starts, others, row_starts, row_others, row_places."""
        return self.starts, self.others, self.row_starts, self.row_others, self.row_places

    def __repr__(self) -> str:
        return f"LiveStructure({self.structure!r})"


def structure_of(structure: Any) -> Any:
    """The SparseStructure that a LiveStructure has now; anything else as it is."""
    return structure.structure if isinstance(structure, LiveStructure) else structure


def _sizes(structure: SparseStructure) -> str:
    return f"shape {structure.shape}, block {structure.block} and room {structure.room}"
