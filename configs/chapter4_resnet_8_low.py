"""The network of chapter4_resnet_8 at a tenth of its rate: is the dense network stable from step 0 (thesis, 4.1.3)?"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_lth.configs.chapter4_resnet_8 import get_config as high


def get_config() -> ConfigDict:
    """Return the setting."""
    config = high()
    config.levels = 0
    config.optimizer.learning_rate = 0.01
    config.instability.update({"networks": ("dense",), "levels": (), "forks": ("0 steps", "120 steps")})
    return config
