"""The compiled extension, or None where it could not be built."""

from __future__ import annotations

import warnings
from types import ModuleType

__all__ = ["CORE"]


def _load() -> ModuleType | None:
    try:
        from keras_lth import _core
    except ImportError as error:
        warnings.warn(
            f"keras_lth._core is missing ({error}): NumPy is used, same results but slower; "
            "reinstalling the package with a C++ compiler builds it",
            RuntimeWarning,
            stacklevel=3,
        )
        return None
    return _core


CORE = _load()
