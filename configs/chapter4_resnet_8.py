"""Chapter 4 of the thesis for a residual network with batch normalisation on Fashion-MNIST, scaled to two cores.

ResNet-8 of width 8 (19 464 prunable weights) on images of 14 × 14, 1 000 steps of batches of 32: the dense network and
IMP's subnetworks at five densities from 51.2 to 3.5 %, pruned in five rounds, from four steps k; two copies of two
initialisations. Errors on the line are those of 2 000 test images at 11 points. Its twin at a tenth of the rate is
chapter4_resnet_8_low. The thesis trains ResNet-20 on CIFAR-10 for 63 000 steps.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_lth.configs.chapter3_resnet_8 import get_config as chapter3


def get_config() -> ConfigDict:
    """Return the setting."""
    config = chapter3()
    config.plan = "instability"
    config.replicates = 2
    config.steps = 1_000
    config.schedule.drops = (500, 750)
    config.data_options = ConfigDict({"shrink": 2})
    config.levels = 5
    config.fraction = 0.488
    config.instability = ConfigDict({
        "forks": ("0 steps", "20 steps", "80 steps", "300 steps"),
        "networks": ("dense", "imp"), "levels": (1, 2, 3, 4, 5), "runs": 2, "data": ("test",), "state": True,
        "test_examples": 2_000, "points": 11,
    })  # fmt: skip
    return config
