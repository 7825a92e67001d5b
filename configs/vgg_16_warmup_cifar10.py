"""VGG-16 on CIFAR-10 with a warm-up of 30 000 steps to 0.1 (thesis, table 4.1): IMP works with the original values.

Dense test accuracy 93.4 ± 0.1 %. At a density of 1.5 % (level 19) IMP at k = 0 has 93.2 %, random pruning 90.1 %,
reinitialised masks 90.7 % (thesis, table 4.2). About 20 hours for one training on two cores (estimated).
CIFAR-10 comes from TFDS, which needs a network the first time (docs/data.md).
"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_lth.configs.vgg_16 import get_config as thesis


def get_config() -> ConfigDict:
    """Return the setting."""
    config = thesis()
    config.schedule.warmup = 30_000
    config.rewind_to = "0 steps"
    return config
