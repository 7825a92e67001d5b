"""Run by test_imp_strategy.py in a process of its own, on two devices."""

from __future__ import annotations

import sys
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_lth as lth
from keras_lth import surgery
from keras_lth.callbacks.instability import InstabilityCallback
from keras_lth.datasets import ordered
from tests.callbacks import small
from tests.callbacks.ledger import Ledger, check
from tests.two_devices import mirrored, report

L = keras.layers
X = np.random.default_rng(0).normal(size=(96, 6)).astype(np.float32)
Y = (X[:, :2] ** 2).astype(np.float32)
WEIGHTS = 6 * 5 + 5 * 2
NOISY = (L.BatchNormalization, lambda: L.Dropout(0.2))


def network(strategy: Any, optimizer: Any, *layers: Any) -> keras.Model:
    with strategy.scope():
        keras.utils.set_random_seed(0)
        between = [make() for make in layers]
        model = keras.Sequential([keras.Input((6,)), L.Dense(5, "tanh"), *between, L.Dense(2)])
        model.compile(optimizer(), "mse", metrics=["mae"], jit_compile=False)
    return model


def replicas_agree(model: keras.Model) -> bool:
    """Both copies of every weight that is trained and of every mask are the same bits."""
    agree = True
    for path, variable in surgery.variables(model).items():
        if not variable.trainable:
            continue
        copies = [value.numpy() for value in variable._value.values]
        agree &= len(copies) == 2 and copies[0].tobytes() == copies[1].tobytes()
        if path.endswith("kernel"):
            masks = [value.numpy() for value in surgery.variable_mask.mask_of(variable).mask.values]
            agree &= len(masks) == 2 and bool((masks[0] == masks[1]).all())
    return agree


def imp(strategy: Any, batch: int, k: int, restore: bool) -> bool:
    model = network(strategy, lambda: keras.optimizers.Adam(0.01), *NOISY)
    found, ledger = lth.IMPCallback(rounds=2, rewind_to=k, restore_optimizer=restore, verbose=0), Ledger(k)
    data = ordered(X, Y, batch_size=batch, seed=1)
    model.fit(data, epochs=3, callbacks=[found, ledger], verbose=0, shuffle=False)
    check(model, found, ledger, WEIGHTS)
    steps = 96 // batch
    assert [level.steps for level in found.history] == [steps, steps - k, steps - k]
    return replicas_agree(model)


def distance(strategy: Any) -> float:
    """How far IMP on two replicas ends from IMP on one device, with the same data in the same order."""
    ends = []
    for where in (strategy, tf.distribute.get_strategy()):
        model = network(where, lambda: keras.optimizers.SGD(0.05, momentum=0.9))
        found = lth.IMPCallback(rounds=2, epochs_per_round=2, rewind_to=5, verbose=0)
        data = ordered(X, Y, batch_size=8, seed=1)
        model.fit(data, epochs=6, callbacks=[found], validation_data=(X, Y), verbose=0, shuffle=False)
        ends.append((model.get_weights(), found.masks(2)))
    assert ends[0][1] == ends[1][1]
    return max(float(np.abs(a - b).max()) for a, b in zip(ends[0][0], ends[1][0], strict=True))


def instability(strategy: Any) -> dict[str, Any]:
    model = network(strategy, lambda: keras.optimizers.SGD(0.05, momentum=0.9), L.BatchNormalization)
    found = InstabilityCallback(fork_at=5, data={"all": (X, Y)}, metric="mae", points=4, verbose=0)
    data = ordered(X, Y, batch_size=8, seed=1)
    model.fit(data, epochs=4, callbacks=[found], verbose=0, shuffle=False)
    first, second = found.ends
    apart = max(float(np.abs(first.weights[path] - second.weights[path]).max()) for path in first.weights)
    measured = model.evaluate(X, Y, batch_size=96, verbose=0, return_dict=True)["mae"]
    messages = []
    repeated = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    for k in (0, 12):
        found_again = InstabilityCallback(fork_at=k, data={"all": (X, Y)}, metric="mae", points=4, verbose=0)
        try:
            model.fit(repeated, epochs=4, callbacks=[found_again], verbose=0, shuffle=False)
            messages.append("no error")
        except ValueError as error:
            messages.append(str(error))
    return {
        "apart": apart,
        "steps": [first.step, second.step],
        "error": [float(found.results[0].path.errors[0]), float(measured)],
        "equal_orders": messages,
        "gone": "train_step" not in vars(model),
    }


def refusals(strategy: Any) -> str:
    """What plain Keras cannot run on replicas is refused before the first step."""
    model = network(strategy, lambda: keras.optimizers.SGD(0.05))
    with strategy.scope():
        model.compile("sgd", "mse", jit_compile=False, steps_per_execution=2)
    try:
        model.fit(ordered(X, Y, batch_size=8, seed=1), epochs=3, callbacks=[lth.IMPCallback(verbose=0)], verbose=0)
    except ValueError as error:
        return str(error)
    return "no error"


class Look(keras.callbacks.Callback):
    """Behind a mover in the list: compares the replicas after each call."""

    def __init__(self) -> None:
        super().__init__()
        self.digests: list[str] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        surgery.check_replicas(self.model)
        self.digests.append(lth.masks_of(self.model).digest)


def rigl(strategy: Any) -> dict[str, Any]:
    """After each update both replicas hold the masks of the first."""
    with strategy.scope():
        built = small.model(jit_compile=False)
    look = Look()
    mover = lth.RigL(0.25, every=4, until="100%", verbose=0)
    lth.training.fit(built, small.data(), epochs=2, callbacks=[mover, look])
    copies = [[np.asarray(copy) for copy in layer.kernel._value.values] for layer in built.layers]
    return {
        "checked": len(look.digests),
        "remaining": lth.masks_of(built).remaining,
        "moved": len(set(look.digests)) - 1,
        "same": all(bool(np.array_equal(one, other)) for one, other in copies),
    }


def main(*asked: str) -> None:
    strategy = mirrored()
    if "fresh" in asked:
        report({"agree": [imp(strategy, 8, 5, False)]})
        return
    result = {
        "agree": [imp(strategy, 32, 1, True)],
        "distance": distance(strategy),
        "instability": instability(strategy),
        "refusal": refusals(strategy),
        "rigl": rigl(strategy),
    }
    report(result)


if __name__ == "__main__":
    main(*sys.argv[1:])
