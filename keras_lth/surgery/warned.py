"""Warnings about a model: short, and once for a cause and a model."""

from __future__ import annotations

import warnings
import weakref

import keras

__all__ = ["warn_once"]

_LONGEST = 300
_said: weakref.WeakKeyDictionary[keras.layers.Layer, set[str]] = weakref.WeakKeyDictionary()


def warn_once(model: keras.layers.Layer, cause: str, text: str, stacklevel: int = 2) -> None:
    """Warn with at most 300 characters of ``text``, unless ``model`` had a warning of this ``cause`` already."""
    causes = _said.setdefault(model, set())
    if cause not in causes:
        causes.add(cause)
        text = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
        warnings.warn(text, stacklevel=stacklevel + 1)
