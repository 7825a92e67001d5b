"""The networks of the papers, built."""

from __future__ import annotations

from keras_lth.models.lenet import lenet_300_100

__all__ = ["lenet_300_100"]
