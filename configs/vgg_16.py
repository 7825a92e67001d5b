"""VGG-16 with the thesis' setting (table 4.1), shared by its data sets: that of ResNet-20, with another network.

14.7 million weights, rewound to step 1000, where IMP's subnetworks become stable (thesis, figure 4-15), 20 levels down
to 1.2 %. An image takes 7.6 times the multiplications of ResNet-20: about 20 hours for one training on two cores
(estimated), so this is for accelerators.
"""

from __future__ import annotations

from collections.abc import Sequence

from ml_collections import ConfigDict

from keras_lth.configs.resnet_20 import get_config as resnet


def get_config(
    data: str = "cifar10",
    mean: Sequence[float] = (0.485, 0.456, 0.406),
    std: Sequence[float] = (0.229, 0.224, 0.225),
) -> ConfigDict:
    """Return the setting for ``data``, whose channels have this mean and deviation."""
    config = resnet(data, mean, std)
    config.model = "vgg_16"
    config.rewind_to = "1000 steps"
    config.levels = 20
    return config
