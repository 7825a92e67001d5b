from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from keras_lth import surgery
from keras_lth.layers import Masked

L = keras.layers


def functional() -> keras.Model:
    inputs = keras.Input((8,))
    a = L.Dense(4)(inputs)
    shared = L.Dense(4, name="tied")
    b = shared(shared(L.Dense(4)(a)))
    block = keras.Sequential([keras.Input((4,)), L.Dense(4), L.BatchNormalization(), L.Dense(4)], name="block")
    return keras.Model(inputs, L.Dropout(0.5)(block(b)))


class Encoder(keras.layers.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.dense = L.Dense(4)
        self.dense_1 = L.Dense(4)

    def call(self, x: Any) -> Any:
        return self.dense_1(self.dense(x))


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.blocks = [L.Dense(4), L.Dense(4)]
        self.heads = {"left": L.Dense(2), "right": L.Dense(2)}
        self._secret = L.Dense(4)
        self.scale = self.add_weight(shape=(4,), name="scale")

    def call(self, x: Any) -> Any:
        x = self._secret(self.encoder(x) * self.scale)
        for block in self.blocks:
            x = block(x)
        return self.heads["left"](x) + self.heads["right"](x)


def subclassed() -> keras.Model:
    model = Subclassed()
    model(np.zeros((1, 4), np.float32))
    return model


def recurrent() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((5, 3)),
            L.TimeDistributed(L.Dense(4)),
            L.Bidirectional(L.LSTM(4, return_sequences=True)),
            L.RNN([L.GRUCell(3), L.GRUCell(2)], return_sequences=True),
            L.SimpleRNN(2),
        ]
    )


def test_functional_paths() -> None:
    assert list(surgery.variables(functional())) == [
        "dense/kernel",
        "dense/bias",
        "dense_1/kernel",
        "dense_1/bias",
        "tied/kernel",
        "tied/bias",
        "block/dense/kernel",
        "block/dense/bias",
        "block/batch_normalization/gamma",
        "block/batch_normalization/beta",
        "block/batch_normalization/moving_mean",
        "block/batch_normalization/moving_variance",
        "block/dense_1/kernel",
        "block/dense_1/bias",
        "dropout/seed_generator_state",
    ]


def test_subclassed_paths_are_attributes_and_indices() -> None:
    kernels = [path for path in surgery.variables(subclassed()) if path.endswith("kernel")]
    assert sorted(kernels) == [
        "blocks/0/kernel",
        "blocks/1/kernel",
        "encoder/dense/kernel",
        "encoder/dense_1/kernel",
        "heads/left/kernel",
        "heads/right/kernel",
        "secret/kernel",
    ]
    assert "scale" in surgery.variables(subclassed())


def test_wrappers_and_cells_recurse() -> None:
    assert list(surgery.prunable(recurrent())) == [
        "time_distributed/layer/kernel",
        "bidirectional/forward_layer/cell/kernel",
        "bidirectional/forward_layer/cell/recurrent_kernel",
        "bidirectional/backward_layer/cell/kernel",
        "bidirectional/backward_layer/cell/recurrent_kernel",
        "rnn/cell/cells/0/kernel",
        "rnn/cell/cells/0/recurrent_kernel",
        "rnn/cell/cells/1/kernel",
        "rnn/cell/cells/1/recurrent_kernel",
        "simple_rnn/cell/kernel",
        "simple_rnn/cell/recurrent_kernel",
    ]


@pytest.mark.parametrize("make", [functional, subclassed, recurrent])
def test_same_for_two_instances_and_every_variable_is_there_once(make: Any) -> None:
    first, second = make(), make()
    assert list(surgery.variables(first)) == list(surgery.variables(second))
    expected = {id(v) for v in first.variables}
    assert [id(v) for v in surgery.variables(first).values()] == list(
        dict.fromkeys(id(v) for v in surgery.variables(first).values())
    )
    assert {id(v) for v in surgery.variables(first).values()} == expected


@pytest.mark.parametrize("make", [functional, recurrent])
def test_clones_and_loaded_copies_have_the_same_paths(make: Any, tmp_path: Path) -> None:
    model = make()
    shapes = {path: tuple(v.shape) for path, v in surgery.variables(model).items()}
    model.save(tmp_path / "model.keras")
    for copy in (keras.models.clone_model(model), keras.models.load_model(tmp_path / "model.keras")):
        assert {path: tuple(v.shape) for path, v in surgery.variables(copy).items()} == shapes
        assert list(surgery.variables(copy)) == list(shapes)


def test_metrics_and_optimizer_are_not_included() -> None:
    model = functional()
    model.compile("adam", "mse", metrics=["mae"])
    before = list(surgery.variables(model))
    model.fit(np.zeros((2, 8)), np.zeros((2, 4)), verbose=0)
    assert list(surgery.variables(model)) == before


def test_equal_names_are_told_apart_in_order() -> None:
    class Twins(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.a = self.add_weight(shape=(1,), name="w")
            self.b = self.add_weight(shape=(2,), name="w")

        def call(self, x: Any) -> Any:
            return x * self.a

    model = keras.Sequential([keras.Input((2,)), Twins(), L.Dense(2, name="mine")])
    assert {p: tuple(v.shape) for p, v in surgery.variables(model).items()} == {
        "twins/w": (1,),
        "twins/w_1": (2,),
        "mine/kernel": (2, 2),
        "mine/bias": (2,),
    }


def test_masked_adds_no_place_of_its_own() -> None:
    plain = keras.Sequential([keras.Input((4,)), L.Dense(3), L.Dense(3, name="head"), L.Dense(2)])
    wrapped = keras.Sequential([keras.Input((4,)), Masked(L.Dense(3)), Masked(L.Dense(3, name="head")), L.Dense(2)])
    assert list(surgery.variables(wrapped)) == list(surgery.variables(plain))
    named = keras.Sequential([keras.Input((4,)), Masked(L.Dense(3), name="first")])
    assert list(surgery.prunable(named)) == ["first/kernel"]
