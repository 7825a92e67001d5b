"""The compiled extension, or None if it could not be built."""

from __future__ import annotations

import warnings
from types import ModuleType

__all__ = ["CORE"]


def _load() -> ModuleType | None:
    try:
        from keras_lth import _core
    except ImportError as error:
        warnings.warn(
            f"keras_lth._core is missing ({error}): NumPy is used, with the same results but slower; "
            "reinstall the package with a C++ compiler to build it",
            RuntimeWarning,
            stacklevel=3,
        )
        return None
    return _core


CORE = _load()
