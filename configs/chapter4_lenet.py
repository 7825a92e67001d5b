"""Chapter 4 of the thesis for LeNet-300-100 on Fashion-MNIST, scaled to two cores: one network and eight steps k.

Three initialisations and three data orders of each (nine pairs), at step 0 and seven steps in equal ratios. Choose the
network with ``--config.instability.networks="('imp',)"``; "dense" is the default, and IMP, layerwise random and
reinitialised subnetworks share their trainings in one workdir. Level 12 has 6.9 % of the weights. The thesis trains
24 000 steps on MNIST. Dense test accuracy about 88 %.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_lth.configs.lenet_300_100 import get_config as thesis


def get_config() -> ConfigDict:
    """Return the setting."""
    config = thesis("fashion_mnist")
    config.plan = "instability"
    config.steps = 4_000
    config.levels = 12
    config.replicates = 3
    # Training error on a fixed 10 000 examples.
    config.instability = ConfigDict({
        "networks": ("dense",), "levels": (12,), "distances": True, "state": True, "train_examples": 10_000,
    })  # fmt: skip
    return config
