"""Run by test_replicated.py in a process of its own, on two devices: what plain ``fit`` cannot run on replicas.

Its arguments are whether what is resumed runs with XLA, and the cells: rule/settings/steps of an accumulation/XLA.
Each cell trains a masked network on two replicas. The reference is one without pruned weights, its surviving ones in
one vector scattered into each kernel, trained by Keras' own ``fit`` on one device with the same global batch.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import suppress
from typing import Any

import keras
import numpy as np

from keras_lth import datasets, surgery, training
from tests.surgery.test_matrix import WIDTHS, Scattered, data, weights_and_masks
from tests.training.networks import Strike, Struck
from tests.two_devices import mirrored, report

KERNELS, BIASES, MASKS = weights_and_masks()
X, Y = data()
BATCH, STEPS, EPOCHS = 8, 6, 2
# Accumulations of 2 and of 3 are both cut by the first call.
CALLS = (5, 1, 4, 2)
PATHS = ("dense/kernel", "dense_1/kernel")
RULES: dict[str, Any] = {
    "momentum": lambda **options: keras.optimizers.SGD(0.1, momentum=0.9, **options),
    "adam": lambda **options: keras.optimizers.Adam(0.01, **options),
}
EXTRAS: dict[str, dict[str, Any]] = {
    "plain": {},
    "global_clipnorm": {"global_clipnorm": 0.05},
    "clipnorm": {"clipnorm": 0.05},
    "clipvalue": {"clipvalue": 0.01},
    "weight_decay": {"weight_decay": 0.05},
    "ema": {"use_ema": True, "ema_momentum": 0.8},
}


def optimizer(rule: str, extra: str, steps: int) -> keras.optimizers.Optimizer:
    accumulation = {"gradient_accumulation_steps": steps} if steps > 1 else {}
    extras = {name: value for one in extra.split("+") for name, value in EXTRAS[one].items()}
    return RULES[rule](**extras, **accumulation)


def compiled(model: keras.Model, rule: str, extra: str, steps: int) -> keras.Model:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer(rule, extra, steps), loss, jit_compile=False)
    return model


def examples() -> Any:
    return datasets.ordered(X, Y, batch_size=BATCH, seed=3)


def network(strategy: Any, rule: str, extra: str, steps: int) -> keras.Model:
    with strategy.scope():
        model = keras.Sequential(
            [keras.Input((WIDTHS[0],)), keras.layers.Dense(WIDTHS[1], "tanh"), keras.layers.Dense(WIDTHS[2])]
        )
        model.set_weights([array for pair in zip(KERNELS, BIASES, strict=True) for array in pair])
        compiled(model, rule, extra, steps)
    surgery.mask(model, dict(zip(PATHS, MASKS, strict=True)))
    return model


def reference(rule: str, extra: str, steps: int) -> dict[str, np.ndarray]:
    """Kernels and biases after Keras' own training on one device, without pruned weights."""
    inputs = outputs = keras.Input((WIDTHS[0],))
    layers = [Scattered(*given) for given in zip(KERNELS, BIASES, MASKS, ("tanh", None), strict=True)]
    for layer in layers:
        outputs = layer(outputs)
    model = compiled(keras.Model(inputs, outputs), rule, extra, steps)
    model.fit(examples(), epochs=EPOCHS, shuffle=False, verbose=0)
    found = {}
    for path, layer, mask in zip(PATHS, layers, MASKS, strict=True):
        kernel = np.zeros(mask.shape, np.float32)
        kernel[mask] = layer.values.numpy()
        found |= {path: kernel, path.replace("kernel", "bias"): layer.bias.numpy()}
    return found


def copies(variable: Any) -> list[np.ndarray]:
    return [value.numpy() for value in variable.values]


def looked_at(model: keras.Model) -> dict[str, int]:
    """Pruned weights that are not 0 on some replica, and of the variables compared those that differ between them."""
    wrong, differ, compared = 0, 0, 0
    for path, mask in zip(PATHS, MASKS, strict=True):
        both = copies(surgery.variables(model)[path]._value)
        assert len(both) == 2
        wrong += sum(int(np.count_nonzero(value[~mask])) for value in both)
    for variable in [*model.variables, *model.optimizer.variables]:
        values = copies(variable._value)
        compared += len(values) == 2
        differ += len({value.tobytes() for value in values}) > 1
    return {"wrong": wrong, "differ": differ, "compared": compared}


def run(strategy: Any, cell: tuple[Any, ...]) -> tuple[keras.Model, dict[str, int]]:
    """The model after the calls, and what was wrong after any of them."""
    *settings, jit = cell
    model = network(strategy, *settings)
    loop = training.Loop(model, examples(), jit_compile=jit)
    found = dict.fromkeys(("wrong", "differ", "compared"), 0)
    step = 0
    for count in CALLS:
        loop.run(step, count, 3)
        step += count
        found = {name: found[name] + number for name, number in looked_at(model).items()}
    model.optimizer.finalize_variable_values(model.trainable_weights)
    return model, {**found, "final": looked_at(model)["wrong"]}


def cell_row(strategy: Any, cell: tuple[Any, ...]) -> dict[str, Any]:
    model, found = run(strategy, cell)
    wanted = reference(*cell[:3])
    distance = max(
        float(np.abs(value - surgery.variables(model)[path].numpy()).max()) for path, value in wanted.items()
    )
    begun = {path: np.where(mask, kernel, 0) for path, kernel, mask in zip(PATHS, KERNELS, MASKS, strict=True)}
    moved = max(float(np.abs(wanted[path] - kernel).max()) for path, kernel in begun.items())
    return {**found, "distance": distance, "moved": moved, "step": surgery.snapshot(model).step}


def resumed(strategy: Any, jit: bool) -> dict[str, Any]:
    """Struck inside an accumulation, twice, and resumed."""

    def trained(folder: str | None, strike: int | None, steps_per_call: int = 2) -> Any:
        model = network(strategy, "adam", "plain", 3)
        history = training.fit(
            model, examples(), epochs=3, steps_per_call=steps_per_call, jit_compile=jit, callbacks=[Strike(strike)],
            checkpoints=folder, checkpoint_every=0,
        )  # fmt: skip
        return surgery.snapshot(model), history.history["loss"]

    whole, losses = trained(None, None)
    with tempfile.TemporaryDirectory() as folder:
        for at in (3, 3):
            with suppress(Struck):
                trained(folder, at)
                return {"struck": False}
        end, again = trained(folder, None)
    return {
        "struck": True,
        "differences": end.differences(whole),
        "losses": [losses, again],
        "by_call_size": whole.differences(trained(None, None, 500)[0]),
    }


def hand(strategy: Any) -> list[str]:
    """What is said of masks that agree, then of one changed on one replica."""
    said = []
    model = network(strategy, "momentum", "plain", 1)
    for change in (False, True):
        if change:
            replica = surgery.variable_mask.mask_of(surgery.variables(model)["dense_1/kernel"]).mask.values[1]
            replica.assign(~replica.numpy())
        try:
            surgery.check_replicas(model)
            said.append("")
        except RuntimeError as error:
            said.append(str(error))
    return said


def main(resumed_with_xla: str, *names: str) -> None:
    two = mirrored()
    rows = {}
    for name in names:
        rule, extra, steps, jit = name.split("/")
        rows[name] = cell_row(two, (rule, extra, int(steps), jit == "True"))
    report(
        {
            "cells": rows,
            "resumed": {resumed_with_xla: resumed(two, resumed_with_xla == "True")},
            "hand": hand(two),
        }
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
