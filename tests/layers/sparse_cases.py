"""Small models of every kind of layer that can be stored sparse, with masks and data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np

import keras_lth as lth

L = keras.layers


class Case(NamedTuple):
    """A model with masks, and a batch."""

    build: Callable[[], keras.Model]
    x: np.ndarray
    y: np.ndarray


def _images(rng: Any, size: int = 6, channels: int = 4) -> np.ndarray:
    return rng.normal(size=(8, size, size, channels)).astype(np.float32)


class Twice(keras.Model):
    """A subclassed model that calls one layer twice, inside a nested model too."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = L.Dense(6, activation="relu", name="shared")
        self.inner = keras.Sequential([L.Dense(6), L.Dense(4)])

    def call(self, x: Any) -> Any:
        return self.inner(self.shared(self.shared(x)))


def _sequential(shape: tuple[int, ...], *layers: Any) -> keras.Model:
    return keras.Sequential([keras.Input(shape), *layers, L.Dense(3, name="head")])


def _attention(cls: Any) -> keras.Model:
    x = keras.Input((5, 8))
    y = cls()(x, x)
    return keras.Model(x, L.Dense(3)(L.GlobalAveragePooling1D()(L.Add()([x, y]))))


def _twice() -> keras.Model:
    model = Twice()
    model(np.zeros((1, 6), np.float32))
    return model


MODELS: dict[str, tuple[Callable[[], keras.Model], tuple[int, ...], int]] = {
    "dense": (lambda: _sequential((6,), L.Dense(8, activation="relu"), L.Dense(7, "tanh", use_bias=False)), (6,), 3),
    "tokens": (lambda: _sequential((5, 6), L.Dense(8, activation="gelu"), L.Flatten()), (5, 6), 3),
    "conv1d": (lambda: _sequential((7, 4), L.Conv1D(6, 3, 2, "causal", activation="relu"), L.Flatten()), (7, 4), 3),
    "conv1d_same": (lambda: _sequential((7, 4), L.Conv1D(6, 2, padding="same"), L.Flatten()), (7, 4), 3),
    "conv2d": (
        lambda: _sequential(
            (6, 6, 4), L.Conv2D(8, 3, padding="same", activation="relu"), L.Conv2D(5, (2, 3), (2, 1)), L.Flatten()
        ),
        (6, 6, 4),
        3,
    ),
    "einsum": (
        lambda: _sequential(
            (5, 4, 3),
            L.EinsumDense("abcd,cde->aeb", output_shape=(6, 5), bias_axes="e", activation="relu"),
            L.EinsumDense("...e,ef->...f", output_shape=7, bias_axes="f"),
            L.Flatten(),
        ),
        (5, 4, 3),
        3,
    ),
    "attention": (lambda: _attention(lambda: L.MultiHeadAttention(2, 4)), (5, 8), 3),
    "grouped": (lambda: _attention(lambda: L.GroupQueryAttention(4, 4, 2)), (5, 8), 3),
    "time": (lambda: _sequential((5, 6), L.TimeDistributed(L.Dense(4)), L.Flatten()), (5, 6), 3),
    "simple_rnn": (lambda: _sequential((5, 6), L.SimpleRNN(7)), (5, 6), 3),
    "lstm": (lambda: _sequential((5, 6), L.LSTM(7)), (5, 6), 3),
    "gru": (lambda: _sequential((5, 6), L.GRU(7)), (5, 6), 3),
    "gru_before": (lambda: _sequential((5, 6), L.GRU(7, reset_after=False)), (5, 6), 3),
    "masked": (lambda: _sequential((6,), lth.layers.Masked(L.Dense(8, activation="relu"))), (6,), 3),
    "subclassed": (_twice, (6,), 4),
    "stacked": (
        lambda: _sequential(
            (5, 6),
            L.Dense(8, activation="gelu"),
            L.Conv1D(6, 3, 1, "causal", activation="relu"),
            L.EinsumDense("...e,ef->...f", output_shape=7, bias_axes="f"),
            L.TimeDistributed(L.Dense(4, kernel_regularizer="l2", kernel_constraint="non_neg")),
            L.LSTM(7),
        ),
        (5, 6),
        3,
    ),
    "l2": (lambda: _sequential((6,), L.Dense(8, kernel_regularizer="l2", kernel_constraint="non_neg")), (6,), 3),
}


def case(name: str) -> Case:
    """One of `MODELS`, with its batch."""
    build, shape, outputs = MODELS[name]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, *shape)).astype(np.float32)
    return Case(build, x, rng.normal(size=(8, outputs)).astype(np.float32))


def masks_for(model: keras.Model, block: int | None = None, density: float = 0.4) -> lth.Masks:
    """Random masks, of whole blocks if ``block``; at least one weight of each kernel stays."""
    rng = np.random.default_rng(1)
    masks = {}
    for path, variable in lth.prunable(model).items():
        shape = tuple(variable.shape)
        mask = rng.random(shape) < density
        if block is not None and len(shape) == 2:
            tiles = rng.random((-(-shape[0] // block), -(-shape[1] // block))) < density
            tiles.flat[0] = True
            mask = np.kron(tiles, np.ones((block, block), bool))[: shape[0], : shape[1]]
        mask.flat[0] = True
        masks[path] = mask
    return lth.Masks(masks)


def pair(name: str, block: int | None = None, **compiled: Any) -> tuple[keras.Model, keras.Model, Case]:
    """A masked model, and the same one whose masked kernels are stored sparse."""
    made = case(name)
    keras.utils.set_random_seed(3)
    dense = made.build()
    keras.utils.set_random_seed(3)
    sparse = made.build()
    for model in (dense, sparse):
        lth.mask(model, masks_for(model, block))
        optimizer = compiled.get("optimizer", "adam")
        optimizer = keras.optimizers.deserialize(keras.optimizers.serialize(keras.optimizers.get(optimizer)))
        model.compile(**{"loss": "mse", **compiled, "optimizer": optimizer})
    lth.sparsify(sparse, only_if_faster=False, block=block)
    return dense, sparse, made


def whole_weights(model: keras.Model) -> dict[str, np.ndarray]:
    return dict(lth.snapshot(model).weights)


def train(model: keras.Model, x: np.ndarray, y: np.ndarray, epochs: int = 5) -> None:
    model.fit(x, y, batch_size=4, epochs=epochs, shuffle=False, verbose=0)


def assert_same(dense: keras.Model, sparse: keras.Model, atol: float = 2e-5) -> None:
    a, b = whole_weights(dense), whole_weights(sparse)
    assert list(a) == list(b)
    for path, value in a.items():
        np.testing.assert_allclose(b[path], value, rtol=0, atol=atol, err_msg=path)
    for path, mask in lth.masks_of(dense).items():
        assert np.array_equal(lth.masks_of(sparse)[path], mask)
        assert np.count_nonzero(b[path][~mask]) == 0
