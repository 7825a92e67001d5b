"""The replication of SNIP on CIFAR-10 (thesis 5.3.4; N. Lee et al. 2019): VGG-16; choose others by --config.model.

| network | `model` | dense: reported, thesis | sparsity | pruned: reported, thesis |
|---|---|---|---|---|
| VGG-16 | vgg_16 | 91.7, 93.6 % | 97 % | 92.0, 92.1 % |
| VGG2-16 (two dense layers) | not offered | 93.2, 93.5 % | 95 % | 92.9, 92.3 % |
| WRN-14-8 | wrn_14_8 | 93.8, 95.2 % | 95 % | 93.4, 93.4 % |
| WRN-14-10 | wrn_14_10 | 94.1, 95.4 % | 95 % | 93.6, 93.9 % |
| WRN-20-8 | wrn_20_8 | 93.9, 95.6 % | 95 % | 94.1, 94.3 % |

Means of five replicates in the thesis. Scores see ten examples of each class; nothing is sampled again after pruning.
The schedule is that of table 4.1. For accelerators (docs/pods.md).
"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_lth.configs.vgg_16 import get_config as vgg


def get_config() -> ConfigDict:
    """Return the setting."""
    config = vgg("cifar10")
    config.plan = "early"
    config.levels = 0
    config.replicates = 5
    config.early = ConfigDict({"methods": ("random", "magnitude", "snip"), "densities": (0.05, 0.03)})
    return config
