"""ResNet-8 of width 8 on Fashion-MNIST: ResNet-20's setting, scaled so that one training takes 70 to 90 s on two cores.

19 464 prunable weights, 3 000 steps of batches of 128 (6.4 epochs), the rate divided by 10 at the same shares of the
training as in the thesis (1 500 and 2 250), no augmentation. Dense test accuracy 90.8 % (one run). Ten levels
down to 10.7 %: 31 trainings with three arms, 40 minutes a replicate.

Rewound to step 100, which is 3 % of the training. For IMP at k = 0: --config.rewind_to="0 steps".
"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_lth.configs.resnet_20 import get_config as thesis


def get_config() -> ConfigDict:
    """Return the setting."""
    # Mean and deviation of the training pixels.
    config = thesis("fashion_mnist", mean=(0.2860,), std=(0.3530,))
    config.model = "resnet_cifar"
    config.model_options.update({"depth": 8, "width": 8})
    config.augment = ()
    config.steps = 3_000
    config.schedule.drops = (1_500, 2_250)
    config.levels = 10
    config.rewind_to = "100 steps"
    config.arms = ("imp", "lrr", "reinit")
    config.validation_freq = "500 steps"
    return config
