"""Models of every kind that Keras makes, with data, and the number of their prunable weights worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

L = keras.layers
RNG = np.random.default_rng(5)
N, BATCH = 24, 4
STEPS = N // BATCH
ROWS = RNG.normal(size=(N, 6)).astype("float32")
IMAGES = RNG.normal(size=(N, 6, 6, 1)).astype("float32")
TOKENS = RNG.integers(0, 7, size=(N, 4)).astype("int32")
TARGETS = RNG.normal(size=(N, 2)).astype("float32")


@dataclass(frozen=True)
class Kind:
    """How to make a model, what it trains on, and how many of its weights are kernels or embeddings."""

    make: Callable[[], keras.Model]
    weights: int
    x: Any = None
    y: Any = None
    also: str | None = None

    def data(self) -> tuple[Any, Any]:
        return (ROWS if self.x is None else self.x), (TARGETS if self.y is None else self.y)

    def built(self, seed: int = 0, optimizer: Any = None, **options: Any) -> keras.Model:
        keras.utils.set_random_seed(seed)
        model = self.make()
        optimizer = keras.optimizers.SGD(0.05, momentum=0.9) if optimizer is None else optimizer
        model.compile(optimizer() if callable(optimizer) else optimizer, loss="mse", **options)
        return model


def sequential() -> keras.Model:
    return keras.Sequential([keras.Input((6,)), L.Dense(5, activation="tanh"), L.Dense(2)])


def two_in_two_out() -> keras.Model:
    a, b = keras.Input((6,), name="a"), keras.Input((4,), name="b")
    both = L.Concatenate()([L.Dense(3)(a), L.Dense(3)(b)])
    return keras.Model([a, b], [L.Dense(2)(both), L.Dense(3)(both)])


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.first = L.Dense(5)
        self.rest = [L.LayerNormalization(), L.Dense(4, activation="tanh"), {"last": L.Dense(2)}]

    def call(self, x: Any) -> Any:
        return self.rest[2]["last"](self.rest[1](self.rest[0](self.first(x))))


def subclassed() -> keras.Model:
    model = Subclassed()
    model(ROWS[:1])
    return model


def nested() -> keras.Model:
    inputs = keras.Input((6,))
    inner = keras.Sequential([L.Dense(4), keras.Sequential([L.BatchNormalization(), L.Dense(3)])])
    return keras.Model(inputs, L.Dense(2, name="head")(inner(inputs)))


def same_names() -> keras.Model:
    inputs = keras.Input((6,))
    left = keras.Sequential([keras.Input((6,)), L.Dense(3, name="same"), L.Dense(3, name="other")], name="left")
    right = keras.Sequential([keras.Input((6,)), L.Dense(3, name="same"), L.Dense(3, name="other")], name="right")
    return keras.Model(inputs, L.Dense(2, name="same")(L.Add()([left(inputs), right(inputs)])))


def shared() -> keras.Model:
    inputs = keras.Input((6,))
    layer = L.Dense(6, activation="tanh")
    return keras.Model(inputs, L.Dense(2)(layer(layer(inputs))))


def recurrent() -> keras.Model:
    cells = [L.Reshape((3, 2)), L.LSTM(3, return_sequences=True), L.GRU(2, recurrent_dropout=0.1)]
    return keras.Sequential([keras.Input((6,)), *cells, L.Dense(2)])


def attention() -> keras.Model:
    tokens = keras.Input((4,), dtype="int32")
    x = L.Embedding(7, 6)(tokens)
    x = L.LayerNormalization()(x + L.MultiHeadAttention(2, 3, dropout=0.1)(x, x))
    return keras.Model(tokens, L.Dense(2)(L.GlobalAveragePooling1D()(x)))


def convolutional() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            L.Conv2D(3, 3, padding="same", use_bias=False),
            L.BatchNormalization(),
            L.PReLU(),
            L.DepthwiseConv2D(3),
            L.SeparableConv2D(4, 3),
            L.BatchNormalization(),
            L.Dropout(0.3),
            L.GlobalAveragePooling2D(),
            L.Dense(2),
        ]
    )


def wrappers() -> keras.Model:
    cells = [L.Reshape((3, 2)), L.TimeDistributed(L.Dense(4)), L.Bidirectional(L.GRU(2))]
    return keras.Sequential([keras.Input((6,)), *cells, L.Dense(2)])


class Scale(L.Layer):
    """A layer of a kind that nobody knows, with a weight of rank 2."""

    def build(self, shape: Any) -> None:
        self.table = self.add_weight(shape=(1, int(shape[-1])), initializer="ones", name="table")

    def call(self, x: Any) -> Any:
        return x * self.table


def unknown() -> keras.Model:
    return keras.Sequential([keras.Input((6,)), Scale(), L.Dense(5), L.Dense(2)])


class Aliases(keras.Model):
    """Keeps the weight of a layer under a name of its own too, to tie the output to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        # As wide as the kernels: Keras' default, uniform in ±0.05, is pruned away before any kernel is.
        self.embed = L.Embedding(7, 6, embeddings_initializer="glorot_uniform")
        self.hidden, self.out, self.head = L.Dense(5), L.Dense(6), L.Dense(2)

    def build(self, shape: Any) -> None:
        self.embed.build(shape)
        self.table = self.embed.embeddings
        for layer, width in ((self.hidden, 6), (self.out, 5), (self.head, 28)):
            layer.build((None, width))
        self.built = True

    def call(self, tokens: Any) -> Any:
        x = self.out(keras.ops.tanh(self.hidden(self.embed(tokens))))
        x = keras.ops.matmul(x, keras.ops.transpose(self.table))
        return self.head(keras.ops.reshape(x, (-1, 28)))


def aliases() -> keras.Model:
    model = Aliases()
    model(TOKENS[:1])
    return model


def clone() -> keras.Model:
    return keras.models.clone_model(nested())


KINDS = {
    "sequential": Kind(sequential, 6 * 5 + 5 * 2),
    "two_in_two_out": Kind(two_in_two_out, 6 * 3 + 4 * 3 + 6 * 2 + 6 * 3, (ROWS, ROWS[:, :4]), (TARGETS, ROWS[:, 3:])),
    "subclassed": Kind(subclassed, 6 * 5 + 5 * 4 + 4 * 2),
    "nested": Kind(nested, 6 * 4 + 4 * 3 + 3 * 2),
    "same_names": Kind(same_names, 2 * (6 * 3 + 3 * 3) + 3 * 2),
    "shared": Kind(shared, 6 * 6 + 6 * 2),
    # Four gates of an LSTM, three of a GRU; (inputs + units) × units each.
    "recurrent": Kind(recurrent, 4 * (2 + 3) * 3 + 3 * (3 + 2) * 2 + 2 * 2),
    # Embeddings; query, key, value and output of two heads of 3.
    "attention": Kind(attention, 7 * 6 + 4 * 6 * 2 * 3 + 6 * 2, TOKENS, also="embeddings"),
    "convolutional": Kind(convolutional, 27 + 27 + (27 + 3 * 4) + 4 * 2, IMAGES),
    "wrappers": Kind(wrappers, 2 * 4 + 2 * 3 * (4 + 2) * 2 + 4 * 2),
    "unknown": Kind(unknown, 6 * 5 + 5 * 2),
    "clone": Kind(clone, 6 * 4 + 4 * 3 + 3 * 2),
    "aliases": Kind(aliases, 7 * 6 + 6 * 5 + 5 * 6 + 4 * 7 * 2, TOKENS, also="embeddings"),
}
