"""ResNet-20 on CIFAR-10 at a tenth of the rate (thesis, table 4.1, "low"): IMP works with the original initial values.

Dense test accuracy 88.8 ± 0.1 %. At a density of 8.6 % (level 11) IMP at k = 0 has 89.0 %, random pruning 85.7 %,
reinitialised masks 84.7 % (thesis, table 4.2).
CIFAR-10 comes from TFDS, which needs a network the first time (docs/data.md).
As long as ResNet-20: 3.4 hours for one training on two cores.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_lth.configs.resnet_20 import get_config as thesis


def get_config() -> ConfigDict:
    """Return the setting."""
    config = thesis()
    config.optimizer.learning_rate = 0.01
    config.rewind_to = "0 steps"
    return config
