"""Find and load the library of TensorFlow ops, keras_lth/_tf_ops*.so, and set its number of threads."""

from __future__ import annotations

import ctypes
import importlib.machinery
import os
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import tensorflow as tf

__all__ = ["Library", "find", "load", "set_threads"]

FOLDER = Path(__file__).resolve().parents[2]
OPS = (
    "keras_lth_sparse_matmul",
    "keras_lth_sparse_matmul_grad_input",
    "keras_lth_sparse_matmul_grad_values",
    "keras_lth_sparse_conv2d",
    "keras_lth_sparse_conv2d_grad_input",
    "keras_lth_sparse_conv2d_grad_values",
    "keras_lth_moments",
    "keras_lth_normalize",
    "keras_lth_normalize_grad",
    "keras_lth_normalize_add_grad",
    "keras_lth_masked_sums",
    "keras_lth_max_pool_grad",
)


@dataclass(frozen=True)
class Library:
    """A loaded library.

    Attributes:
      ops: the module that TensorFlow made of it, with one function per op.
      xla_target: the name that XLA calls on the CPU, or None if this TensorFlow cannot register it.
      binary: the library, for its plain C functions.
    """

    ops: Any
    xla_target: str | None
    binary: ctypes.CDLL


def find(folder: Path = FOLDER) -> Path | None:
    """Return the library's file in the package, or None."""
    files = (folder / f"_tf_ops{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES)
    return next((file for file in files if file.exists()), None)


@lru_cache(maxsize=1)
def load() -> Library | None:
    """Load the library, once; return None, with one warning, if it is missing or TensorFlow cannot use it."""
    file = find()
    try:
        if file is None:
            raise FileNotFoundError("keras_lth/_tf_ops is missing")
        ops = tf.load_op_library(str(file))
        if lacking := [name for name in OPS if not hasattr(ops, name)]:
            raise ImportError(f"TensorFlow {tf.__version__} did not register {lacking[0]}")
    except (OSError, tf.errors.OpError, ImportError) as error:
        warnings.warn(
            f"the TensorFlow ops of keras_lth are not available ({error}): sparse products run as dense ones, "
            "with the same results but slower; reinstall the package with a C++ compiler to build them",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    binary = ctypes.CDLL(str(file))
    binary.keras_lth_xla_target.restype = ctypes.c_char_p
    binary.keras_lth_set_threads.argtypes = [ctypes.c_uint]
    target = binary.keras_lth_xla_target()
    return Library(ops, None if target is None else target.decode(), binary)


@lru_cache(maxsize=1)
def set_threads() -> None:
    """Adopt TensorFlow's intra-op setting, once, unless KERAS_LTH_THREADS is set.

    The setting is that of ``tf.config.threading.set_intra_op_parallelism_threads``, else of the environment variable
    TF_NUM_INTRAOP_THREADS; without either, all processors.
    """
    library = load()
    if library is None or os.environ.get("KERAS_LTH_THREADS"):
        return
    given = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
    from_environment = int(given) if given.isdecimal() else 0
    library.binary.keras_lth_set_threads(tf.config.threading.get_intra_op_parallelism_threads() or from_environment)
