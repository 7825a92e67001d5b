"""LeNet-300-100 on MNIST, the thesis' own data: dense test accuracy 98.3 ± 0.1 %, 98.2 % at a density of 3.5 %.

MNIST comes from TFDS, which needs a network the first time. It takes as long as Fashion-MNIST.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_lth.configs.lenet_300_100 import get_config as thesis


def get_config() -> ConfigDict:
    """Return the setting."""
    return thesis("mnist")
