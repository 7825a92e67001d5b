"""Chapter 5 of the thesis for a residual network with batch normalisation on Fashion-MNIST, scaled to two cores.

ResNet-8 of width 8 (19 464 prunable weights) on images of 14 × 14: all methods at eight densities from 64 to 5.5 %,
their ablations and pruning at four steps of training at two densities, two replicates; 600 steps of
batches of 32 on 9 600 of the training images (two epochs). The thesis trains ResNet-20 on CIFAR-10 for 63 000 steps.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_lth.configs.chapter3_resnet_8 import get_config as chapter3


def get_config() -> ConfigDict:
    """Return the setting."""
    config = chapter3()
    config.plan = "early"
    config.data_options = ConfigDict({"subset": 9_600, "shrink": 2})
    config.steps = 600
    config.schedule.drops = (300, 450)
    config.levels = 0
    config.replicates = 2
    config.early = ConfigDict(
        {
            "levels": (2, 3, 5, 6, 8, 9, 11, 13),
            "ablated": (6, 9),
            "step_ablations": (),
            "steps": ("40 steps", "80 steps", "160 steps", "320 steps"),
            "ltr": "40 steps",
        }
    )
    return config
