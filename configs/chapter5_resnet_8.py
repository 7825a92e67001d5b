"""Chapter 5 of the thesis for a residual network with batch normalisation on Fashion-MNIST, scaled to two cores.

ResNet-8 of width 8 (19 464 prunable weights) on images of 14 × 14: all methods at eight densities from 64 to 5.5 %,
their ablations and pruning at four steps of training at two densities, three replicates, as for LeNet; 1 000 steps of
batches of 32 on 16 000 of the training images (two epochs). The thesis trains ResNet-20 on CIFAR-10 for 63 000 steps.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_lth.configs.chapter3_resnet_8 import get_config as chapter3


def get_config() -> ConfigDict:
    """Return the setting."""
    config = chapter3()
    config.plan = "early"
    config.data_options = ConfigDict({"subset": 16_000, "shrink": 2})
    config.steps = 1_000
    config.schedule.drops = (500, 750)
    config.levels = 0
    config.early = ConfigDict(
        {
            "levels": (2, 3, 5, 6, 8, 9, 11, 13),
            "ablated": (6, 9),
            "step_ablations": (),
            "steps": ("50 steps", "125 steps", "250 steps", "500 steps"),
            "ltr": "50 steps",
        }
    )
    return config
