"""A structure as tensors: made once, shared by every eager call and every function that captures them.

Those of a live structure are read from its variables each time.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import tensorflow as tf

from keras_lth.ops.structure import SparseStructure
from keras_lth.ops.tensorflow.live import LiveStructure

__all__ = ["Structure", "geometry", "indices", "places"]

Structure = SparseStructure | LiveStructure
Tensors = tuple[Any, ...]

_made: dict[tuple[int, str], Tensors] = {}


def indices(structure: Structure) -> Tensors:
    """starts, others, row_starts, row_others, row_places."""
    if isinstance(structure, LiveStructure):
        return tuple(map(tf.convert_to_tensor, structure.indices))
    return _once(structure, "indices", lambda: [np.array(array) for array in structure.indices])


def places(structure: Structure) -> tuple[Any, Any]:
    """int32 [room, 2], input group (with its tap) and output group of each block; bool [room], whether there is one.

    Where there is none the place is a valid one all the same. Instead of the second it is None where all are there.
    """
    if isinstance(structure, LiveStructure):
        starts, others, *_ = indices(structure)
        entries = tf.range(structure.room, dtype=tf.int64)
        groups = tf.searchsorted(starts, entries, side="right", out_type=tf.int32) - 1
        last = -(-structure.cols // structure.block[1]) - 1
        return tf.stack([tf.cast(others, tf.int32), tf.minimum(groups, last)], axis=1), entries < starts[-1]

    def make() -> list[np.ndarray[Any, Any]]:
        stored = structure.stored
        pairs = np.zeros([structure.room, 2], np.int32)
        pairs[:stored, 0] = structure.others[:stored]
        pairs[:stored, 1] = np.repeat(np.arange(len(structure.starts) - 1), np.diff(structure.starts))
        return [pairs, np.arange(structure.room) < stored]

    pairs, there = _once(structure, "places", make)
    return pairs, None if structure.stored == structure.room else there


def geometry(structure: Structure, conv: tuple[int, int, bool] | None = None) -> Any:
    """The sizes of the kernel as the dims of an empty int8 tensor, as cc/tf/problem.h reads them.

    Args:
      structure: the structure of a matrix, or of a convolution's kernel.
      conv: stride height, stride width, and whether the padding is "same".
    """
    sizes = [structure.rows, structure.cols, *structure.block]
    if conv is not None:
        sizes += [*structure.shape[:2], *conv[:2], int(conv[2])]
    return _once(structure, f"geometry {sizes}", lambda: [np.zeros([0, *sizes], np.int8)])[0]


def _once(structure: Structure, what: str, make: Any) -> Tensors:
    if not tf.executing_eagerly() and not tf.compat.v1.get_default_graph().building_function:
        # A graph of TensorFlow 1 captures nothing.
        return tuple(map(tf.constant, make()))
    # By identity: hashing a structure reads all its indices.
    key = (id(structure), what)
    found = _made.get(key)
    if found is None:
        with tf.init_scope(), tf.device("/CPU:0"):
            # Copies, so that writing to the NumPy arrays cannot change what a kernel has checked.
            found = tuple(map(tf.constant, make()))
            if tf.executing_eagerly():
                _made[key] = found
                weakref.finalize(structure, _made.pop, key, None)
    return found
