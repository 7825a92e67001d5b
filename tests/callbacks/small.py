"""A small classification problem and model that the callbacks' tests share."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_lth.datasets import ordered

N, BATCH = 96, 16
STEPS = N // BATCH
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 8)).astype("float32")
Y = (X @ RNG.normal(size=(8, 4))).argmax(1).astype("int32")


def data(seed: int = 3) -> Any:
    """Six batches an epoch."""
    return ordered(X, Y, batch_size=BATCH, seed=seed)


def model(optimizer: Any = "adam", seed: int = 0, *layers: Any, **options: Any) -> keras.Model:
    """8 → 12 → 4, built and compiled; 144 prunable weights."""
    keras.utils.set_random_seed(seed)
    built = keras.Sequential([keras.Input((8,)), keras.layers.Dense(12, "relu"), *layers, keras.layers.Dense(4)])
    built.compile(
        optimizer() if callable(optimizer) else optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **options,
    )
    return built


def fit(built: keras.Model, callback: keras.callbacks.Callback, epochs: int, seed: int = 3, **options: Any) -> Any:
    """A silent fit on `data` with validation."""
    options = {"validation_data": (X, Y), "verbose": 0, "shuffle": False, **options}
    return built.fit(data(seed), epochs=epochs, callbacks=[callback, *options.pop("beside", [])], **options)


def unvalidated(built: keras.Model, callback: keras.callbacks.Callback, epochs: int, **options: Any) -> Any:
    """The same without validation, which costs a third of such a fit: for what has nothing to do with it."""
    return fit(built, callback, epochs, **{"validation_data": None, **options})


def weights(built: keras.Model) -> list[np.ndarray]:
    """All values, in order."""
    return [np.array(value) for value in built.get_weights()]
