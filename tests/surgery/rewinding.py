"""A small network, its training and its masks, which the tests of rewinding share."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_lth import surgery

X = np.random.default_rng(0).normal(size=(48, 5)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 3, 48)
BATCH = 8  # six steps an epoch
MODES: dict[str, dict[str, Any]] = {
    "graph": {},
    "eager": {"run_eagerly": True},
    "jit": {"jit_compile": True},
    "spe": {"steps_per_execution": 3},
}


def network(optimizer: Any, dropout: float = 0.0, **options: Any) -> keras.Model:
    """5 → 9 → 3 with normalisation and dropout; compiled if given an optimizer."""
    keras.utils.set_random_seed(7)
    model = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(9, activation="relu"),
            keras.layers.BatchNormalization(momentum=0.5),
            keras.layers.Dropout(dropout, seed=3),
            keras.layers.Dense(3),
        ]
    )
    if optimizer is not None:
        model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), **options)
    return model


def train(model: keras.Model, epochs: int = 1, **options: Any) -> None:
    """A silent fit on all of the data in order."""
    model.fit(X, Y, batch_size=BATCH, epochs=epochs, shuffle=False, verbose=0, **options)


def some_masks(model: keras.Model, density: float = 0.5) -> dict[str, np.ndarray]:
    """Random masks for the prunable weights, the same for equal shapes."""
    random = np.random.default_rng(5)
    return {path: random.random(tuple(v.shape)) < density for path, v in surgery.prunable(model).items()}
