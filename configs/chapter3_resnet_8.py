"""Chapter 3 of the thesis for a residual network with batch normalisation on Fashion-MNIST, scaled to two cores.

ResNet-8 of width 8 (19 464 prunable weights), 1 500 steps of batches of 32: 0.8 epochs, the rate of 0.1 divided by 10
at half and at three quarters of them. Six levels down to 26.2 %, three replicates: IMP rewound to step 50 and to step
0, learning-rate rewinding, reinitialisation. Dense test accuracy about 86 %. One training takes about 18 s on one
core, all 75 with their evaluations 20 minutes on two. The thesis trains ResNet-20 on CIFAR-10 for 63 000 steps.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_lth.configs.resnet_8_fashion_mnist import get_config as larger


def get_config() -> ConfigDict:
    """Return the setting."""
    config = larger()
    config.batch_size = 32
    config.steps = 1_500
    config.schedule.drops = (750, 1_125)
    config.levels = 6
    config.replicates = 3
    config.rewind_to = "50 steps"
    config.arms = ("imp", "reset", "lrr", "reinit")
    config.validation_freq = "500 steps"
    return config
