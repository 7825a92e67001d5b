"""ResNet-20 on CIFAR-10, the thesis' own data: dense test accuracy 91.7 ± 0.1 %, matching down to a density of 16.8 %.

CIFAR-10 comes through TFDS, which needs the network the first time. Channels are normalised as in open_lth.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs.resnet_20 import thesis


def get_config() -> ConfigDict:
    """The setting."""
    return thesis("cifar10", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
