"""Run by test_mirrored.py in a process of its own, on two devices; its arguments are names of OPTIMIZERS."""

from __future__ import annotations

import sys
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lth import surgery
from keras_lth.layers import Masked
from tests.two_devices import mirrored, report

L = keras.layers
X = np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(32, 2)).astype(np.float32)
OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.05),
    "momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "nesterov": lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "adam": lambda: keras.optimizers.Adam(0.01),
    "adamw": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.01),
    "lion": lambda: keras.optimizers.Lion(0.01),
    "nadam": lambda: keras.optimizers.Nadam(0.01),
    "adagrad": lambda: keras.optimizers.Adagrad(0.05),
    "global_clipnorm": lambda: keras.optimizers.Adam(0.01, global_clipnorm=0.05),
    "ema": lambda: keras.optimizers.SGD(0.05, momentum=0.9, use_ema=True, ema_momentum=0.8),
    "loss_scale": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01), initial_scale=64.0),
}


def network(wrap: Any = lambda layer: layer) -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((6,)), wrap(L.Dense(5, activation="tanh")), L.Dense(2)])


def masks_for(model: keras.Model) -> dict[str, np.ndarray]:
    random = np.random.default_rng(2)
    return {path: random.random(tuple(v.shape)) < 0.5 for path, v in surgery.prunable(model).items()}


def fit(model: keras.Model, epochs: int = 2) -> None:
    model.fit(X, Y, batch_size=8, epochs=epochs, shuffle=False, verbose=0)


def run(strategy: Any, make: Any) -> tuple[Any, dict[str, np.ndarray]]:
    with strategy.scope():
        model = network()
        model.compile(make(), "mse", jit_compile=False)
    masks = masks_for(model)
    fit(model, 1)
    surgery.mask(model, masks)
    fit(model)
    model.set_weights([np.ones_like(w) for w in model.get_weights()])
    if strategy.num_replicas_in_sync > 1:
        model.evaluate(X, Y, verbose=0)
    healed = sum(np.count_nonzero(surgery.variables(model)[p].numpy()[~m]) for p, m in masks.items())
    fit(model, 1)
    return model, {**masks, "healed": healed}


def findings(model: Any, masks: dict[str, np.ndarray]) -> dict[str, Any]:
    healed = masks.pop("healed")
    wrong, agree = int(healed), True
    for path, mask in masks.items():
        replicas = [value.numpy() for value in surgery.variables(model)[path]._value.values]
        wrong += sum(int(np.count_nonzero(value[~mask])) for value in replicas)
        agree &= len(replicas) == 2 and replicas[0].tobytes() == replicas[1].tobytes()
        held = surgery.variable_mask.mask_of(surgery.variables(model)[path]).mask.values
        agree &= len(held) == 2 and all(np.array_equal(value.numpy(), mask) for value in held)
    return {"wrong": wrong, "agree": agree}


def refusals(strategy: Any) -> list[str]:
    messages = []
    for options, optimizer in (
        ({"jit_compile": True}, keras.optimizers.SGD),
        ({"steps_per_execution": 2}, keras.optimizers.SGD),
        ({}, lambda rate: keras.optimizers.SGD(rate, gradient_accumulation_steps=2)),
    ):
        with strategy.scope():
            model = network()
            model.compile(optimizer(0.1), "mse", **{"jit_compile": False, **options})
        surgery.mask(model, masks_for(model))
        try:
            fit(model)
            messages.append("no error")
        except ValueError as error:
            messages.append(str(error))
    return messages


def rewound(strategy: Any) -> dict[str, Any]:
    """Adam rewound to step 4 with fresh slots: its first update is the rate, on both replicas alike."""
    with strategy.scope():
        model = network()
        model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
    fit(model, 1)
    taken = surgery.snapshot(model)
    fit(model, 1)
    surgery.rewind(model, taken, masks_for(model))
    before = surgery.snapshot(model)
    kernel = surgery.variables(model)["dense/kernel"]
    model.fit(X[:8], Y[:8], batch_size=8, verbose=0)
    moved = float(np.abs(kernel.numpy() - before.weights["dense/kernel"]).max())
    surgery.rewind(model, taken, restore_optimizer=True)
    surgery.unmask(model)
    surgery.rewind(model, taken, restore_optimizer=True)
    return {"step": before.step, "moved": moved, "differences": surgery.snapshot(model).differences(taken)}


def by_hand(strategy: Any) -> int:
    mask = np.random.default_rng(3).random((6, 5)) < 0.5
    with strategy.scope():
        model = network(lambda layer: Masked(layer, mask))
        model.compile(keras.optimizers.Adam(0.01, global_clipnorm=0.1), "mse", jit_compile=False)
    fit(model)
    values = surgery.variables(model)["dense/kernel"]._value.values
    return sum(int(np.count_nonzero(value.numpy()[~mask])) for value in values)


def gradients(strategy: Any) -> float:
    """How far dense gradients are from those of one device, inside the scope of the strategy and outside."""
    model = network()
    model.compile("sgd", "mse", jit_compile=False)
    expected = surgery.dense_gradients(model, X, Y)
    with strategy.scope():
        model = network()
        model.compile("sgd", "mse", jit_compile=False)
        found = [surgery.dense_gradients(model, X, Y)]
    found.append(surgery.dense_gradients(model, X, Y))
    return max(float(np.abs(one[path] - expected[path]).max()) for one in found for path in expected)


def main(*names: str) -> None:
    strategy = mirrored()
    result: dict[str, Any] = {"optimizers": {}}
    for name in names:
        make = OPTIMIZERS[name]
        model, masks = run(strategy, make)
        result["optimizers"][name] = findings(model, masks)
        if name == "global_clipnorm":  # there they differ
            continue
        single, _ = run(tf.distribute.get_strategy(), make)
        result["optimizers"][name]["distance"] = max(
            float(np.abs(a - b).max()) for a, b in zip(model.get_weights(), single.get_weights(), strict=True)
        )
    result["refusals"] = refusals(strategy)
    result["rewound"] = rewound(strategy)
    result["gradients"] = gradients(strategy)
    result["by_hand"] = by_hand(strategy)
    report(result)


if __name__ == "__main__":
    main(*sys.argv[1:])
