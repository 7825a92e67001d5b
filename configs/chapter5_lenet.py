"""Chapter 5 of the thesis for LeNet-300-100 on Fashion-MNIST, scaled to two cores.

Random pruning, magnitude, SNIP, iterative SNIP, GraSP, GraSP by least absolute scores, and SynFlow at initialisation,
at eight densities from 51 to 1.2 %, beside magnitude pruning after training and LTR; their ablations, and pruning at
four steps of training, at two densities; three replicates. Dense test accuracy about 87 %. 2 000 steps of batches of
60, 903 trainings: half an hour on two cores.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_lth.configs.lenet_300_100 import get_config as thesis


def get_config() -> ConfigDict:
    """Return the setting."""
    config = thesis("fashion_mnist")
    config.plan = "early"
    config.steps = 2_000
    config.levels = 0
    config.replicates = 3
    config.early = ConfigDict(
        {
            "levels": (3, 5, 8, 10, 12, 15, 18, 20),
            "ablated": (10, 15),
            "steps": ("100 steps", "250 steps", "600 steps", "1200 steps"),
            "ltr": "100 steps",
        }
    )
    return config
