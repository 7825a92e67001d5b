"""Conv-8 on CIFAR-10: dense test accuracy about 80 % (estimate), 15 levels down to 3.5 %.

The thesis names this network (3.3.1) and does not describe its setting: it has that of Conv-6.
About four hours for one training on two cores (estimated).
CIFAR-10 comes from TFDS, which needs a network the first time (docs/data.md).
"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_lth.configs.conv import get_config as thesis


def get_config() -> ConfigDict:
    """Return the setting."""
    return thesis("conv_8")
