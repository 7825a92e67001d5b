"""Chapter 3 of the thesis for LeNet-300-100 on Fashion-MNIST, whole, scaled to two cores.

Levels 0 to 20 of IMP, iterative and one-shot, learning-rate rewinding, reinitialisation, and random pruning, with three
replicates; early stopping on a tenth of the training examples, which is held out of all trainings (thesis 3.3.6); the
least stretch of the schedule at six densities; and what the subnetworks look like. The thesis trains 24 000 steps with
five replicates on MNIST, without a hold-out in its other figures. Dense test accuracy about 88.5 %. 456 trainings
of 12 000 steps and more: 71 minutes on two cores that other work shared.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_lth.configs.lenet_300_100 import get_config as thesis


def get_config() -> ConfigDict:
    """Return the setting."""
    config = thesis("fashion_mnist")
    config.plan = "lottery,dilation,anatomy"
    config.data_options = ConfigDict({"holdout": 0.1, "seed": 1})
    config.steps = 12_000
    config.levels = 20
    config.replicates = 3
    config.arms = ("imp", "imp_one_shot", "lrr", "reinit", "random_layerwise", "random_global")
    # Each dilation by a tenth is a multiple of 1 200 steps.
    config.validation_freq = "400 steps"
    config.dilation = ConfigDict({"levels": (3, 6, 9, 12, 15, 18)})
    config.anatomy = ConfigDict({"levels": (0, 3, 6, 9, 12, 15, 18, 20)})
    return config
