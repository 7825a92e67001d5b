"""VGG-16 on CIFAR-10 at a tenth of the rate (thesis, table 4.1, "low"): IMP works with the original initial values.

Dense test accuracy 91.7 ± 0.1 %. At a density of 5.5 % (level 13) IMP at k = 0 has 91.6 %, random pruning 90.1 %,
reinitialised masks 90.2 % (thesis, table 4.2). About 20 hours for one training on two cores (estimated).
CIFAR-10 comes from TFDS, which needs a network the first time (docs/data.md).
"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_lth.configs.vgg_16 import get_config as thesis


def get_config() -> ConfigDict:
    """Return the setting."""
    config = thesis()
    config.optimizer.learning_rate = 0.01
    config.rewind_to = "0 steps"
    config.levels = 14
    return config
