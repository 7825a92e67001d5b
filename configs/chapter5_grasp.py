"""The replications of GraSP, and of SNIP in its paper, on CIFAR-10 (thesis 5.3.5, 5.4.4; C. Wang et al. 2020): VGG-19.

WRN-32-2: --config.model=wrn_32_2. ResNet-50 on ImageNet: chapter5_grasp_imagenet.

| network | dense: reported, thesis | sparsity | GraSP: reported, thesis | SNIP: reported, thesis |
|---|---|---|---|---|
| VGG-19 | 94.2, 93.5 % | 90 % | 93.3, 92.8 % | 93.6, 93.5 % |
| | | 95 % | 93.0, 92.5 % | 93.4, 93.4 % |
| | | 98 % | 92.2, 91.6 % | 92.1 %, diverged |
| WRN-32-2 | 94.8, 94.5 % | 90 % | 92.4, 92.2 % | 92.6, 92.5 % |
| | | 95 % | 91.4, 90.9 % | 91.1, 91.0 % |
| | | 98 % | 88.8, 88.3 % | 87.5, 87.7 % |

Scores see ten examples of each class. The schedule is that of table 4.1. For accelerators (docs/pods.md).
"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_lth.configs.vgg_16 import get_config as vgg


def get_config() -> ConfigDict:
    """Return the setting."""
    config = vgg("cifar10")
    config.model = "vgg_19"
    config.plan = "early"
    config.levels = 0
    config.replicates = 5
    config.early = ConfigDict({"methods": ("random", "snip", "grasp"), "densities": (0.1, 0.05, 0.02)})
    return config
