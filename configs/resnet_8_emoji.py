"""ResNet-8 of width 8 on emoji in colour: trained on Google's drawings, tested on Twitter's (docs/data.md).

Make the data first, in the folder in which you run: ``python scripts/emoji.py … --out=emoji.npz``. 1 906 images of
32 × 32 to train on, nine categories; the largest class is 20 % of them. 19 576 prunable weights, 2 000 steps of batches
of 128 with flips and crops (133 epochs). Dense test accuracy about 45 % (one run, to step 1 500; 85 % on the drawings
that it trains on). One training takes about 90 s on two cores.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_lth.configs.resnet_8_fashion_mnist import get_config as small


def get_config() -> ConfigDict:
    """Return the setting."""
    config = small()
    config.data = "emoji.npz"
    # Mean and deviation of the training pixels.
    config.model_options.update({"mean": (0.823, 0.770, 0.710), "std": (0.281, 0.280, 0.345)})
    config.augment = ("flip", "crop")
    config.steps = 2_000
    config.schedule.drops = (1_000, 1_500)
    return config
