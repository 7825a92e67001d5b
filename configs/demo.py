"""The demo: a few minutes of iterative magnitude pruning with rewinding, and two of its ablations.

Nine levels down to 13 % of LeNet-300-100 on the digits that scikit-learn ships (97 to 98 % dense accuracy), three
replicates of 480 steps. Use ``--config.data=fashion_mnist --config.steps=3000 --config.replicates=1`` for 70 000
images.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_lth.configs.lenet_300_100 import get_config as thesis


def get_config() -> ConfigDict:
    """Return the setting."""
    config = thesis("digits")
    config.steps = 480
    config.levels = 9
    config.replicates = 3
    # Two epochs of the digits.
    config.rewind_to = "48 steps"
    config.arms = ("imp", "reinit", "random_layerwise")
    return config
