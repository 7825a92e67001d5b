"""A user's program, run where other versions are installed; prints what it found as JSON."""

from __future__ import annotations

import json
from importlib.metadata import version

import keras
import numpy as np
import tensorflow_datasets

import keras_lth as lth
from keras_lth import datasets, ops
from keras_lth.schedules import Polynomial

with tensorflow_datasets.testing.mock_data(num_examples=600):
    splits = datasets.load("mnist")
model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
pruning = lth.GradualPruning(Polynomial(1.0, 0.1, begin=10, end=30, every=5), verbose=0)
model.fit(*splits.train, batch_size=15, epochs=1, verbose=0, callbacks=[pruning])
masks = lth.masks_of(model)
dense = model.predict(splits.test[0], verbose=0)
lth.sparsify(model, only_if_faster=False)


def trained(sparse: bool) -> dict[str, np.ndarray]:
    """Weights after an epoch of a chain of layers in the loop, which XLA compiles."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(50, "relu"), keras.layers.Dense(30, "relu"), keras.layers.Dense(10)]
    chain = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), *layers])
    chain.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    lth.mask(chain, lth.select({path: abs(v) for path, v in lth.prunable(chain).items()}, density=0.2))
    if sparse:
        lth.sparsify(chain, only_if_faster=False)
    data = datasets.ordered(*splits.train, batch_size=100, seed=1)
    lth.training.Loop(chain, data, jit_compile=True).run(0, data.steps_per_epoch, 1)
    return dict(lth.snapshot(chain).weights)


whole, stored = trained(False), trained(True)
packages = (
    "tensorflow", "keras", "tensorflow-datasets", "tensorflow-model-optimization", "tf_keras", "absl-py",
    "tensorflow-metadata",
)  # fmt: skip
found = {
    "versions": {name: version(name) for name in packages},
    "kept": sum(int(mask.sum()) for mask in masks.values()),
    "difference": float(abs(model.predict(splits.test[0], verbose=0) - dense).max()),
    "trained": max(float(abs(whole[path] - stored[path]).max()) for path in whole),
    "library": ops.tensorflow.library.load() is not None,
}
print("RESULT", json.dumps(found))
