"""The replications of GraSP, and of SNIP in its paper, for ResNet-50 on ImageNet (thesis 5.3.5, 5.4.4).

| dense: reported, thesis | sparsity | GraSP: reported, thesis | SNIP: reported, thesis |
|---|---|---|---|
| 75.7, 76.2 % | 60 % | 74.0, 73.4 % | 74.0, 73.9 % |
| | 80 % | 72.0, 71.0 % | 69.7, 71.2 % |
| | 90 % | 68.1, 67.0 % | 62.0, 65.7 % |

Scores see ten examples of each class, 10 000 in all. Wang et al. train with batches of 128 at a rate of 0.1, the thesis
with 1024 at 0.4 (table 4.1), as here. For accelerators (docs/pods.md).
"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_lth.configs.resnet_50_imagenet import get_config as resnet


def get_config() -> ConfigDict:
    """Return the setting."""
    config = resnet()
    config.plan = "early"
    config.levels = 0
    config.early = ConfigDict({"methods": ("random", "snip", "grasp"), "densities": (0.4, 0.2, 0.1)})
    return config
