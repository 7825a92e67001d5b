"""Run by test_mirrored.py in a process of its own, on two devices."""

from __future__ import annotations

import tempfile
from typing import Any

import keras
import numpy as np

import keras_lth as lth
from keras_lth import datasets, surgery, training
from tests.two_devices import mirrored, report

X = np.random.default_rng(0).normal(size=(96, 6)).astype(np.float32)
Y = (X[:, :2] ** 2).astype(np.float32)
EPOCHS = 6


def network(strategy: Any) -> keras.Model:
    with strategy.scope():
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [keras.Input((6,)), keras.layers.Dense(16, "tanh"), keras.layers.Dropout(0.0), keras.layers.Dense(2)]
        )
        # What plain fit cannot run on several replicas: several steps in an execution.
        model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"], jit_compile=False, steps_per_execution=4)
    return model


def run(strategy: Any, folder: str | None = None) -> tuple[Any, keras.Model]:
    imp = lth.IMPCallback(rounds=2, epochs_per_round=2, rewind_to="3 steps", verbose=0)
    model = network(strategy)
    data = datasets.ordered(X, Y, batch_size=12, seed=1)
    training.fit(
        model, data, epochs=EPOCHS, callbacks=[imp], validation_data=(X, Y), steps_per_call=5, jit_compile=False,
        checkpoints=folder, checkpoint_every=0,
    )  # fmt: skip
    return imp, model


def replicas_agree(model: keras.Model) -> bool:
    copies = [[value.numpy() for value in variable._value.values] for variable in surgery.variables(model).values()]
    return all(len(pair) == 2 and pair[0].tobytes() == pair[1].tobytes() for pair in copies)


def main() -> None:
    import tensorflow as tf

    two = mirrored()
    with tempfile.TemporaryDirectory() as folder:
        imp, model = run(two, folder)
        _, again = run(two, folder)  # finished: nothing is trained
    one_imp, one = run(tf.distribute.get_strategy())
    a, b = surgery.snapshot(model), surgery.snapshot(one)
    uneven = ""
    try:
        training.fit(network(two), datasets.ordered(X, Y, batch_size=15, seed=1))
    except ValueError as error:
        uneven = str(error)
    report(
        {
            "masks": [bool(imp.masks(level) == one_imp.masks(level)) for level in range(3)],
            "steps": [level.steps for level in imp.history],
            "distance": max(float(np.abs(a.weights[path] - b.weights[path]).max()) for path in a.weights),
            "scores": [[level.score for level in one.history] for one in (imp, one_imp)],
            "agree": replicas_agree(model),
            "resumed": a.differences(surgery.snapshot(again)),
            "uneven": uneven,
        }
    )


if __name__ == "__main__":
    main()
