"""The replication of SynFlow on CIFAR-10 (thesis 5.5; H. Tanaka et al. 2020): VGG-11 at halved densities down to 0.1 %.

Other networks: --config.model=vgg_16, and chapter5_synflow_resnet_18.

| network | data | dense: reported, thesis |
|---|---|---|
| VGG-11 | CIFAR-10 | about 92, 92.0 % |
| VGG-16 | CIFAR-10 | about 94, 93.5 % |
| ResNet-18 (modified) | CIFAR-10 | about 95, 93.7 %; with the thesis' hyperparameters 94.6 % |
| ResNet-18 (modified) | TinyImageNet | about 64, 58.8 %; with the thesis' hyperparameters 64 % |

The paper shows 13 sparsities in equal ratios to 99.9 %, the thesis 50, 75, 87.5, … % (figure 5-3), as here. VGGs have
the schedule of table 4.1. For accelerators (docs/pods.md).
"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_lth.configs.vgg_16 import get_config as vgg


def get_config() -> ConfigDict:
    """Return the setting."""
    config = vgg("cifar10")
    config.model = "vgg_11"
    config.plan = "early"
    config.levels = 0
    config.replicates = 3
    methods = ("random", "magnitude", "snip", "grasp", "synflow")
    config.early = ConfigDict({"methods": methods, "densities": tuple(0.5**n for n in range(1, 11))})
    return config
