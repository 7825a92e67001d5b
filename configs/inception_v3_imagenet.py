"""Inception-v3 on ImageNet (thesis, table 4.1): dense test accuracy 78.1 ± 0.1 %, one-shot IMP to a density of 30 %.

At k = 0 IMP has 75.7 % there, random pruning 75.2 %, reinitialised masks 75.5 % (thesis, table 4.2); from epoch 6 on it
is stable and matches. 171 epochs of batches of 1024 at a rate that falls linearly from 0.03 to 0.005. The thesis gives
no weight decay; that of ResNet-50 is a choice. The thesis' 27.1 million weights include the auxiliary head, which plans
cannot train: here are 23.8 million without it.

ImageNet as for resnet_50_imagenet. One training is some 8e18 operations: two years on two cores, so this is for
accelerators (docs/pods.md).
"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_lth.configs.resnet_50_imagenet import EPOCH
from keras_lth.configs.resnet_50_imagenet import get_config as resnet


def get_config() -> ConfigDict:
    """Return the setting."""
    config = resnet()
    config.model = "inception_v3"
    config.model_options.auxiliary = False
    config.data = "imagenet_299"
    config.augment = ("resized_crop_299", "flip")
    config.steps = 171 * EPOCH
    config.optimizer.learning_rate = 0.03
    config.schedule = ConfigDict({"decay": "linear", "final": 0.005})
    config.rewind_to = f"{6 * EPOCH} steps"
    return config
