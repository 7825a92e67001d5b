"""The Python interface of the C++ core; it imports neither TensorFlow nor Keras.

Without the compiled extension, the NumPy reference gives the same results, more slowly. The environment variable
KERAS_LTH_ISA (portable, avx2 or avx512) forces a lower instruction set than the best one that the processor supports.
"""

from __future__ import annotations

from keras_lth.ops.arguments import NotANumberError
from keras_lth.ops.core import CORE
from keras_lth.ops.groups import count_groups, group_scores, n_of_m_masks
from keras_lth.ops.ranking import Selection, top_k, top_k_masks
from keras_lth.ops.sharded import ShardedSelection
from keras_lth.ops.sparse import sparse_conv2d, sparse_conv2d_gradients, sparse_matmul, sparse_matmul_gradients
from keras_lth.ops.structure import SparseStructure

__all__ = [
    "NotANumberError",
    "Selection",
    "ShardedSelection",
    "SparseStructure",
    "count_groups",
    "group_scores",
    "isa",
    "n_of_m_masks",
    "sparse_conv2d",
    "sparse_conv2d_gradients",
    "sparse_matmul",
    "sparse_matmul_gradients",
    "top_k",
    "top_k_masks",
]


def isa() -> str:
    """Return the instruction set in use: "avx512", "avx2", "portable", or "numpy" without the extension.

    Raises:
      ValueError: KERAS_LTH_ISA names a set that is unknown or that this processor does not support.
    """
    return "numpy" if CORE is None else str(CORE.chosen())
