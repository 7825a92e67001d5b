"""A small network and data of a user's own, and their experiment."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_lth import datasets
from keras_lth.experiments.lab import Lab, network
from keras_lth.imp import IMP
from keras_lth.models.lenet import layer_seed
from keras_lth.plans import Notebook, versioned

# 22 examples in batches of 4 leave a batch of 2: an epoch has 6 steps.
EXAMPLES, BATCH, PER_EPOCH = 22, 4, 6
ADAM = {"name": "adam", "epsilon": 1e-8}
MOMENTUM = {"name": "sgd", "momentum": 0.9}


@versioned(version=1)
def blobs() -> datasets.Splits:
    draw = np.random.default_rng(0)
    y = np.arange(2 * EXAMPLES, dtype=np.int32) % 3
    x = (draw.normal(size=(2 * EXAMPLES, 5)) + y[:, None]).astype(np.float32)
    return datasets.Splits((x[:EXAMPLES], y[:EXAMPLES]), (x[EXAMPLES:], y[EXAMPLES:]), 3)


@versioned(version=1)
def net(shape: Any, classes: int, seed: int, *, dropout: float = 0.0, norm: bool = False) -> keras.Model:
    def sample(name: str) -> Any:
        return keras.initializers.GlorotNormal(layer_seed(seed, name))

    inputs = keras.Input(shape)
    x = keras.layers.Dense(8, "relu", kernel_initializer=sample("hidden"), name="hidden")(inputs)
    if norm:
        x = keras.layers.BatchNormalization(name="norm")(x)
    if dropout:
        x = keras.layers.Dropout(dropout, seed=seed, name="dropout")(x)
    return keras.Model(inputs, keras.layers.Dense(classes, kernel_initializer=sample("output"), name="output")(x))


def lab(book: Notebook, options: Any = None, **setting: Any) -> Lab:
    return Lab(
        book,
        network(blobs, net, **(options or {})),
        batch_size=BATCH,
        **{"optimizer": ADAM, "rates": 0.02, "jit_compile": False, **setting},
    )


HOW = IMP(k=0, T=2 * PER_EPOCH, rounds=2)
