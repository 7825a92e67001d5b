"""VGG-16 on CIFAR-10, the thesis' own data: dense test accuracy 93.7 ± 0.1 %, studied at a density of 1.5 %.

That is level 19. At k = 0 IMP has 90.9 % there, random pruning 89.4 %, reinitialised masks 91.0 % (thesis, table 4.2).
About 20 hours for one training on two cores (estimated). CIFAR-10 comes from TFDS, which needs a network the first time
(docs/data.md).
"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_lth.configs.vgg_16 import get_config as thesis


def get_config() -> ConfigDict:
    """Return the setting."""
    return thesis()
