"""Layers: the Masked wrapper."""

from __future__ import annotations

from keras_lth.layers.masked import Masked

__all__ = ["Masked"]
