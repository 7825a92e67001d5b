"""Small pictures, in memory and as from files, and a network for them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lth import datasets

N, BATCH = 60, 8
RANDOM = np.random.default_rng(0)
X = RANDOM.random((N, 6, 6, 1)).astype(np.float32)
Y = (X[:, :3].mean(axis=(1, 2, 3)) > X[:, 3:].mean(axis=(1, 2, 3))).astype(np.int64)


def shard(index: int, count: int) -> Any:
    """As files: examples in a fixed order."""
    return tf.data.Dataset.from_tensor_slices((X, Y)).shard(count, index)


def files(**options: Any) -> Any:
    return datasets.from_files(shard, **{"batch_size": BATCH, "seed": 3, "window": 16, **options})


def network(strategy: Any, size: int = 6) -> keras.Model:
    with strategy.scope():
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input((size, size, 1)),
                keras.layers.Conv2D(3, 3, activation="relu"),
                keras.layers.Flatten(),
                keras.layers.Dense(2),
            ]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss, metrics=["accuracy"], jit_compile=False)
    return model


def weights(model: keras.Model) -> list[np.ndarray]:
    return model.get_weights()
