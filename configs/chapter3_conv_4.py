"""Chapter 3 of the thesis for a convolutional network on Fashion-MNIST, scaled to two cores.

Conv-4 of width 8 (30 536 prunable weights), 2 000 steps of batches of 60: two epochs, Adam at 1e-3. Six levels down
to 26.2 %, three replicates: IMP rewound to step 100 and to step 0, learning-rate rewinding, reinitialisation. Dense
test accuracy about 87 %. One training takes about 12 s on one core, all 75 together 10 minutes on two. The thesis
trains Conv-4 on CIFAR-10.

For the colour set of docs/data.md: --config.data=emoji.npz
"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_lth.configs.conv_4_fashion_mnist import get_config as larger


def get_config() -> ConfigDict:
    """Return the setting."""
    config = larger()
    config.model_options.width = 8
    config.optimizer.learning_rate = 1e-3
    config.steps = 2_000
    config.levels = 6
    config.replicates = 3
    config.rewind_to = "100 steps"
    config.arms = ("imp", "reset", "lrr", "reinit")
    config.validation_freq = "500 steps"
    return config
