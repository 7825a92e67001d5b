"""Small networks and data for the training loop's tests."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_lth import datasets

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(250, 20)).astype(np.float32)
Y = (X[:, :4] + 0.5 * RANDOM.normal(size=(250, 4))).argmax(axis=1)
STEPS = 16  # of an epoch; the last batch has 10 examples


def network(optimizer: Any = None, *, dropout: float = 0.0, seed: int = 0, **options: Any) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((20,)),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(dropout, seed=1),
            keras.layers.Dense(4),
        ]
    )
    rate = keras.optimizers.schedules.ExponentialDecay(1e-2, 20, 0.9)
    model.compile(
        optimizer or keras.optimizers.Adam(rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **options,
    )
    return model


def examples(seed: int = 5, batch_size: int = 16) -> datasets.order.Ordered:
    return datasets.ordered(X, Y, batch_size=batch_size, seed=seed)


class Struck(Exception):
    """What a test raises in the middle of a run."""


class Strike(keras.callbacks.Callback):
    """Raises at the n-th batch hook, the first is 1; None never."""

    def __init__(self, at: int | None) -> None:
        super().__init__()
        assert at is None or at >= 1  # 0 would be a strike that never comes
        self.left = at

    def get_state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {}, {}

    def set_state(self, state: Any, arrays: Any) -> None:
        """It keeps its own count."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                raise Struck
