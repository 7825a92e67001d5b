"""A structure as tensors: created once, shared by every eager call and every function that captures them."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import tensorflow as tf

from keras_lth.ops.structure import SparseStructure

__all__ = ["geometry", "indices", "places"]

Tensors = tuple[Any, ...]

_made: dict[tuple[int, str], Tensors] = {}


def indices(structure: SparseStructure) -> Tensors:
    """Return starts, others, row_starts, row_others, row_ids."""
    return _once(structure, "indices", lambda: [np.array(array) for array in structure.indices])


def places(structure: SparseStructure) -> Any:
    """Return int32 [stored, 2]: input group (with its tap) and output group of each block."""

    def make() -> list[np.ndarray[Any, Any]]:
        groups = np.repeat(np.arange(len(structure.starts) - 1), np.diff(structure.starts))
        return [np.stack([structure.others, groups.astype(np.int32)], axis=1)]

    return _once(structure, "places", make)[0]


def geometry(structure: SparseStructure, conv: tuple[int, int, bool] | None = None) -> Any:
    """Return the sizes of the kernel as the dimensions of an empty int8 tensor, as cc/tf/problem.h reads them.

    Args:
      structure: the structure of a matrix, or of a convolution's kernel.
      conv: stride height, stride width, and whether the padding is "same".
    """
    sizes = [structure.rows, structure.cols, *structure.block]
    if conv is not None:
        sizes += [*structure.shape[:2], *conv[:2], int(conv[2])]
    return _once(structure, f"geometry {sizes}", lambda: [np.zeros([0, *sizes], np.int8)])[0]


def _once(structure: SparseStructure, what: str, make: Any) -> Tensors:
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
