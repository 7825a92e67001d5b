"""Section 6.2.2 of the thesis for a residual network with batch normalisation on Fashion-MNIST, scaled to two cores.

Dynamic IMP with one change of its masks at step 300, at three densities, its seven ablations, the recipe that the
thesis concludes from them, and beside it the dense network, one-shot IMP that rewinds to that step, static masks and
RigL; three replicates. ResNet-8 of width 8 (19 464 prunable weights) on images of 14 × 14, 1 000 steps of batches of
32: half an epoch.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_lth.configs.chapter3_resnet_8 import get_config as chapter3


def get_config() -> ConfigDict:
    """Return the setting."""
    config = chapter3()
    config.plan = "keras_lth.experiments.dynamic:dynamic"
    config.levels = 0
    config.steps = 1_000
    config.schedule.drops = (500, 750)
    config.data_options = ConfigDict({"shrink": 2})
    config.plan_options = ConfigDict({"changes": (300,), "densities": (0.05, 0.1, 0.2), "replicates": 3})
    return config
