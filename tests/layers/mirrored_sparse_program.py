"""Run by test_sparse_places.py in a process of its own, on two devices; its argument is "fit" or "loop"."""

from __future__ import annotations

import sys
from typing import Any

import keras
import numpy as np

import keras_lth as lth
from keras_lth.layers import kernels_of
from tests.two_devices import mirrored, report

strategy = mirrored()
L = keras.layers
X = np.random.default_rng(0).normal(size=(32, 6, 6, 3)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(32, 2)).astype(np.float32)


def trained(store: bool, loop: bool) -> dict[str, Any]:
    keras.utils.set_random_seed(0)
    with strategy.scope():
        layers = [L.Conv2D(5, 3, activation="relu"), L.Flatten(), L.Dense(7, activation="tanh"), L.Dense(2)]
        model = keras.Sequential([keras.Input((6, 6, 3)), *layers])
        model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse", jit_compile=False)
    random = np.random.default_rng(2)
    masks = {path: random.random(tuple(v.shape)) < 0.4 for path, v in lth.prunable(model).items()}

    def fit() -> None:
        if loop:
            lth.training.fit(model, lth.datasets.ordered(X, Y, batch_size=8, seed=1), epochs=2)
        else:
            model.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)

    fit()
    lth.mask(model, masks)
    if store:
        lth.sparsify(model, only_if_faster=False)
    fit()
    lth.mask(model, {path: np.roll(mask, 1, axis=-1) for path, mask in masks.items()})
    fit()
    lth.surgery.check_replicas(model)
    stored = [one for layer in model.layers for one in kernels_of(layer).values()]
    copies = [[copy.numpy() for copy in one.variable._value.values] for one in stored]
    agree = all(np.array_equal(*pair) for pair in copies)
    weights = lth.snapshot(model).weights
    return {"stored": len(stored), "agree": agree, "weights": [weights[path] for path in sorted(weights)]}


def compared(loop: bool) -> dict[str, Any]:
    dense, sparse = trained(False, loop), trained(True, loop)
    far = max(float(np.abs(a - b).max()) for a, b in zip(dense["weights"], sparse["weights"], strict=True))
    return {"stored": sparse["stored"], "agree": sparse["agree"], "far": far}


report(compared(sys.argv[1] == "loop"))
