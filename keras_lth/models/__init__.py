"""The networks of the papers, returned built."""

from __future__ import annotations

from keras_lth.models.lenet import lenet_300_100
from keras_lth.models.resnet import resnet_20

__all__ = ["lenet_300_100", "resnet_20"]
