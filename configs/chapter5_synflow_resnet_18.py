"""chapter5_synflow for ResNet-18 (modified) on CIFAR-10, with the thesis' hyperparameters (table 5.2): dense 94.6 %.

Batches of 256 at a rate of 0.2, which falls by a factor of 0.1. Tanaka et al.: --config.batch_size=128
--config.optimizer.learning_rate=0.01 --config.schedule.factor=0.2, about 95 % reported, 93.7 % in the thesis. The
epochs and the steps of the drops are those of the schedule of table 4.1 for as many examples. TinyImageNet:
--config.data=tiny_imagenet, with 200 epochs in the thesis.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_lth.configs.chapter5_synflow import get_config as vgg


def get_config() -> ConfigDict:
    """Return the setting."""
    config = vgg()
    config.model = "resnet_18_modified"
    config.batch_size = 256
    config.steps = 31_500
    config.optimizer.learning_rate = 0.2
    config.schedule.drops = (16_000, 24_000)
    return config
