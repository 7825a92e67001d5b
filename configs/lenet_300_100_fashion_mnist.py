"""LeNet-300-100 on Fashion-MNIST: 60 000 images of 28 × 28, 266 200 prunable weights, 24 epochs.

Dense test accuracy about 89 to 90 %; the thesis has no number for this data set. One training takes 20 to 40 s on two
cores, a replicate of four arms at 15 levels half an hour to an hour.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_lth.configs.lenet_300_100 import get_config as thesis


def get_config() -> ConfigDict:
    """Return the setting."""
    return thesis("fashion_mnist")
