"""Conv-6 on CIFAR-10: dense test accuracy about 78 % (estimate), 15 levels down to 3.5 %.

One of the networks of the thesis (3.3.1), with the setting of the first paper.
About three hours for one training on two cores (estimated).
CIFAR-10 comes from TFDS, which needs a network the first time (docs/data.md).
"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_lth.configs.conv import get_config as thesis


def get_config() -> ConfigDict:
    """Return the setting."""
    return thesis("conv_6")
