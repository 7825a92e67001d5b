"""ResNet-20 on Fashion-MNIST: 60 000 images of 28 × 28 in one channel, 270 608 prunable weights, 134 epochs.

The setting is that of CIFAR-10; the thesis has no number for this data set.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_lth.configs.resnet_20 import get_config as thesis


def get_config() -> ConfigDict:
    """Return the setting."""
    # Mean and deviation of the training pixels.
    return thesis("fashion_mnist", mean=(0.2860,), std=(0.3530,))
