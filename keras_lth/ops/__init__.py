"""The Python face of the C++ core; imports neither TensorFlow nor Keras.

Where the extension could not be built, the NumPy reference gives the same results, slower. The environment variable
KERAS_LTH_ISA (portable, avx2 or avx512) forces an instruction set lower than the best one the processor runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from keras_lth.ops import reference
from keras_lth.ops.arguments import Array, Bools, NotANumberError, check_arrays, check_k, check_masks
from keras_lth.ops.core import CORE
from keras_lth.ops.sparse import sparse_conv2d, sparse_conv2d_gradients, sparse_matmul, sparse_matmul_gradients
from keras_lth.ops.structure import SparseStructure

__all__ = [
    "NotANumberError",
    "SparseStructure",
    "isa",
    "sparse_conv2d",
    "sparse_conv2d_gradients",
    "sparse_matmul",
    "sparse_matmul_gradients",
    "top_k_masks",
]


T = TypeVar("T", bound=np.generic)


def isa() -> str:
    """The instruction set in use: "avx512", "avx2", "portable", or "numpy" without the extension.

    Raises:
      ValueError: KERAS_LTH_ISA names a set that is unknown or that this processor does not run.
    """
    return "numpy" if CORE is None else str(CORE.chosen())


def top_k_masks(arrays: Sequence[Array], k: int, *, masks: Sequence[Bools] | None = None) -> list[Bools]:
    """Selects exactly the k largest |x| over all arrays together.

    Ties go to the lowest (array, flat index in C order). Magnitudes are compared exactly: -0 equals 0, denormals are
    not flushed, infinities are the largest. The result is the same on every instruction set and number of threads.

    Args:
      arrays: arrays of any shapes, all float64, all float32, all float16 or all bfloat16 (ml_dtypes). Contiguous ones
        are read in place; strided, byte-swapped or unaligned ones are copied first. They must not be written to while
        the call runs: the GIL is released.
      k: how many to select, 0 to the number of values (of True in `masks`, if given).
      masks: one boolean array for each array, of its shape; only where it is True may a value be selected.

    Returns:
      One new boolean array for each array, of its shape, with k True in all.

    Raises:
      NotANumberError: (a ValueError) there is a NaN, in a masked-out place too; its `array` and `index` say where.
      ValueError: k is out of range, or a mask has another shape.
      TypeError: a dtype is not supported, dtypes are mixed, or a mask is not boolean.
    """
    if CORE is None:
        return reference.top_k_masks(arrays, k, masks=masks)
    values, name = check_arrays(arrays)
    allowed = check_masks(masks, values)
    size = sum(array.size for array in values)
    count = check_k(k, size if allowed is None else sum(int(np.count_nonzero(mask)) for mask in allowed))
    selected = [np.empty(array.shape, dtype=np.bool_) for array in values]
    plain = [_plain(array) for array in values]
    nan = CORE.top_k(plain, selected, None if allowed is None else [_plain(mask) for mask in allowed], name, count)
    if nan is not None:
        raise NotANumberError(*nan)
    return selected


def _plain(array: NDArray[T]) -> NDArray[T]:
    """The array itself if it is C-contiguous, aligned and in native byte order, else such a copy."""
    return np.require(array, dtype=array.dtype.newbyteorder("="), requirements=["C", "A"])
