"""Run by test_fused.py in a process of its own, on two devices."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

import keras_lth as lth
from tests.two_devices import mirrored, report

X = np.random.default_rng(0).normal(1.5, 2.0, (32, 6, 6, 3)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(32, 2)).astype(np.float32)


def trained(strategy: tf.distribute.Strategy, fuse: bool) -> keras.Model:
    keras.utils.set_random_seed(0)
    with strategy.scope():
        layers = keras.layers
        model = keras.Sequential(
            [
                keras.Input((6, 6, 3)),
                layers.Conv2D(4, 3),
                layers.BatchNormalization(momentum=0.8),
                layers.Flatten(),
                layers.Dense(2),
            ]
        )
        model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse", jit_compile=False)
    if fuse:
        lth.fuse(model)
    model.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    return model


def main() -> None:
    strategy = mirrored()
    plain, fused = (trained(strategy, fuse) for fuse in (False, True))
    pairs = zip(plain.variables, fused.variables, strict=True)
    wrong = [a.path for a, b in pairs if not np.allclose(a.numpy(), b.numpy(), rtol=2e-5, atol=2e-5)]
    report({"wrong": wrong, "fused": type(fused.layers[1]) is not keras.layers.BatchNormalization})


if __name__ == "__main__":
    main()
