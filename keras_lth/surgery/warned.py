"""Short warnings about a model, once per cause and model."""

from __future__ import annotations

import warnings
import weakref

import keras

__all__ = ["warn_once"]

_LONGEST = 300
_said: weakref.WeakKeyDictionary[keras.layers.Layer, set[str]] = weakref.WeakKeyDictionary()


def warn_once(model: keras.layers.Layer, cause: str, text: str, stacklevel: int = 2) -> None:
    """Warn with at most 300 characters of ``text``, unless ``model`` already had a warning with this ``cause``."""
    causes = _said.setdefault(model, set())
    if cause not in causes:
        causes.add(cause)
        text = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
        warnings.warn(text, stacklevel=stacklevel + 1)
