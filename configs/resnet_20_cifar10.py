"""ResNet-20 on CIFAR-10, the thesis' own data: dense test accuracy 91.7 ± 0.1 %, matching down to a density of 16.8 %.

CIFAR-10 comes from TFDS, which needs a network the first time. Channels are normalised as in open_lth.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_lth.configs.resnet_20 import get_config as thesis


def get_config() -> ConfigDict:
    """Return the setting."""
    return thesis()
