"""zero_is_zero and as_if_absent over optimizers × modes.

The reference has no pruned weights at all: its surviving weights live in one vector per kernel, scattered into the
kernel.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lth import surgery

BATCH, STEPS, WIDTHS = 8, 6, (6, 7, 4)

OPTIMIZERS: dict[str, tuple[type[keras.optimizers.Optimizer], dict[str, Any]]] = {
    "SGD": (keras.optimizers.SGD, {"learning_rate": 0.1}),
    "momentum": (keras.optimizers.SGD, {"learning_rate": 0.1, "momentum": 0.9}),
    "Nesterov": (keras.optimizers.SGD, {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}),
    "Adam": (keras.optimizers.Adam, {"learning_rate": 0.01}),
    "AdamW": (keras.optimizers.AdamW, {"learning_rate": 0.01}),
    "RMSprop": (keras.optimizers.RMSprop, {"learning_rate": 0.01}),
    "Lion": (keras.optimizers.Lion, {"learning_rate": 0.01}),
    "Nadam": (keras.optimizers.Nadam, {"learning_rate": 0.01}),
    "Adagrad": (keras.optimizers.Adagrad, {"learning_rate": 0.1}),
}
# mode → (optimizer arguments, compile arguments, dtype policy)
MODES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "plain": ({}, {}, "float32"),
    "eager": ({}, {"run_eagerly": True}, "float32"),
    "jit_compile": ({}, {"jit_compile": True}, "float32"),
    "steps_per_execution": ({}, {"steps_per_execution": 3}, "float32"),
    "jit_and_steps_per_execution": ({}, {"jit_compile": True, "steps_per_execution": 3}, "float32"),
    "gradient_accumulation": ({"gradient_accumulation_steps": 2}, {}, "float32"),
    "ema": ({"use_ema": True, "ema_momentum": 0.8}, {}, "float32"),
    "ema_overwrite": ({"use_ema": True, "ema_momentum": 0.8, "ema_overwrite_frequency": 2}, {}, "float32"),
    "mixed_float16": ({}, {}, "mixed_float16"),
    "mixed_bfloat16": ({}, {}, "mixed_bfloat16"),
    "weight_decay": ({"weight_decay": 0.05}, {}, "float32"),
    "global_clipnorm": ({"global_clipnorm": 0.05}, {}, "float32"),
    "clipnorm": ({"clipnorm": 0.05}, {}, "float32"),
    "clipvalue": ({"clipvalue": 0.01}, {}, "float32"),
}
# Each optimizer with one or two modes, each mode with one optimizer, but those that are part of another;
# `make proof` computes the other cells.
PARTS = ("plain", "jit_compile", "steps_per_execution")
CELLS = [
    pytest.param(name, mode, marks=() if (row + 2 * column) % 9 == 0 and mode not in PARTS else pytest.mark.proof)
    for row, name in enumerate(OPTIMIZERS)
    for column, mode in enumerate(MODES)
]
# Half precision sums the same numbers in another order: a few units of the last place of its activations.
TOLERANCE = {"float32": 1e-6, "mixed_float16": 2e-3, "mixed_bfloat16": 2e-2}


class Scattered(keras.layers.Layer):
    """A dense layer whose kernel consists of the surviving weights only."""

    def __init__(self, kernel: np.ndarray, bias: np.ndarray, mask: np.ndarray, activation: str | None) -> None:
        super().__init__()
        self.initial = (kernel[mask], bias)
        self.where = np.argwhere(mask).astype(np.int32)
        self.dense_shape = kernel.shape
        self.activation = keras.activations.get(activation)

    def build(self, input_shape: Any) -> None:
        values, bias = self.initial
        self.values = self.add_weight(shape=values.shape, initializer=_constant(values), name="values")
        self.bias = self.add_weight(shape=bias.shape, initializer=_constant(bias), name="bias")

    def call(self, inputs: Any) -> Any:
        kernel = tf.scatter_nd(self.where, tf.convert_to_tensor(self.values), self.dense_shape)
        return self.activation(tf.matmul(inputs, kernel) + tf.convert_to_tensor(self.bias))


def _constant(value: np.ndarray) -> Callable[..., Any]:
    return lambda shape, dtype=None: tf.cast(value, dtype)


def weights_and_masks() -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    random = np.random.default_rng(3)
    shapes = list(itertools.pairwise(WIDTHS))
    kernels = [random.normal(size=shape).astype(np.float32) for shape in shapes]
    biases = [random.normal(size=shape[1]).astype(np.float32) * 0.1 for shape in shapes]
    masks = [random.random(shape) < 0.4 for shape in shapes]
    return kernels, biases, masks


def data() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(4)
    return random.normal(size=(BATCH * STEPS, WIDTHS[0])).astype(np.float32), random.integers(0, 4, BATCH * STEPS)


def compiled(model: keras.Model, optimizer: str, mode: str) -> keras.Model:
    kind, arguments = OPTIMIZERS[optimizer]
    extra, options, _ = MODES[mode]
    model.compile(
        kind(**{**arguments, **extra}),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **{"jit_compile": False, **options},
    )
    return model


def masked_model(optimizer: str, mode: str) -> tuple[keras.Model, list[np.ndarray]]:
    kernels, biases, masks = weights_and_masks()
    policy = MODES[mode][2]
    model = keras.Sequential(
        [
            keras.Input((WIDTHS[0],)),
            keras.layers.Dense(WIDTHS[1], activation="tanh", dtype=policy),
            keras.layers.Dense(WIDTHS[2], dtype=policy),
        ]
    )
    model.set_weights([array for pair in zip(kernels, biases, strict=True) for array in pair])
    compiled(model, optimizer, mode)
    surgery.mask(model, {"dense/kernel": masks[0], "dense_1/kernel": masks[1]})
    return model, masks


def reference_model(optimizer: str, mode: str) -> keras.Model:
    kernels, biases, masks = weights_and_masks()
    inputs = outputs = keras.Input((WIDTHS[0],))
    for kernel, bias, kept, activation in zip(kernels, biases, masks, ("tanh", None), strict=True):
        layer = Scattered(kernel, bias, kept, activation)
        layer.dtype_policy = MODES[mode][2]
        outputs = layer(outputs)
    return compiled(keras.Model(inputs, outputs), optimizer, mode)


class ZeroAfterEveryExecution(keras.callbacks.Callback):
    """Counts entries that are not exactly 0 where the mask is False."""

    def __init__(self, masks: list[np.ndarray]) -> None:
        super().__init__()
        self.masks, self.looks, self.wrong = masks, 0, 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.looks += 1
        for layer, kept in zip(self.model.layers, self.masks, strict=True):
            self.wrong += int(np.count_nonzero(layer.kernel.numpy()[~kept]))


def with_loss_scale(model: keras.Model, mode: str) -> None:
    if MODES[mode][2] == "mixed_float16":
        # Keras wraps by the policy of the model; here the policy is the layers'.
        model.optimizer = keras.optimizers.LossScaleOptimizer(model.optimizer, initial_scale=256.0)


@pytest.mark.parametrize(("optimizer", "mode"), CELLS)
def test_zero_is_zero_and_as_if_absent(optimizer: str, mode: str) -> None:
    x, y = data()
    model, masks = masked_model(optimizer, mode)
    reference = reference_model(optimizer, mode)
    watch = ZeroAfterEveryExecution(masks)
    for each, callbacks in ((model, [watch]), (reference, [])):
        with_loss_scale(each, mode)
        each.fit(x, y, batch_size=BATCH, epochs=2, shuffle=False, verbose=0, callbacks=callbacks)

    assert watch.looks == 2 * STEPS // MODES[mode][1].get("steps_per_execution", 1)
    assert watch.wrong == 0
    tolerance = TOLERANCE[MODES[mode][2]]
    kernels, _, _ = weights_and_masks()
    for layer, other, kept, start in zip(model.layers, reference.layers[1:], masks, kernels, strict=True):
        kernel = layer.kernel.numpy()
        assert np.count_nonzero(kernel[~kept]) == 0
        np.testing.assert_allclose(kernel[kept], other.values.numpy(), rtol=0, atol=tolerance)
        np.testing.assert_allclose(layer.bias.numpy(), other.bias.numpy(), rtol=0, atol=tolerance)
        assert np.abs(kernel - np.where(kept, start, 0)).max() > 1e-3, "the network did not train"
    # The slots of absent weights are those of a fresh optimizer.
    for leaf in surgery.optimizers.leaves(model.optimizer):
        for name, held in surgery.optimizers.slots(leaf).items():
            fresh = surgery.optimizers.fresh_fill(leaf)[name]
            for slot, kept in ((held[0], masks[0]), (held[2], masks[1])):
                assert np.all(slot.numpy()[~kept] == np.float32(fresh)), name
    assert int(model.optimizer.iterations.numpy()) == int(reference.optimizer.iterations.numpy())
