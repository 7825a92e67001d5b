"""Sparse layers on several replicas, and in models that share kernels."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

import keras_lth as lth
from keras_lth.layers import kernels_of
from tests.forms import short_if
from tests.layers.sparse_cases import masks_for
from tests.two_devices import result_of

L = keras.layers


@pytest.mark.parametrize("way", short_if(lambda way: way == "fit", ["fit", "loop"]))
def test_two_replicas_train_sparse_layers_as_masked_ones(way: str) -> None:
    row = result_of(Path(__file__).with_name("mirrored_sparse_program.py"), way)
    assert row["stored"] == 3
    assert row["agree"]
    assert row["far"] < 1e-5


class Tied(L.Layer):
    """Multiplies by the kernel of another layer."""

    def __init__(self, other: keras.layers.Dense) -> None:
        super().__init__()
        self.other = other

    def build(self, shape: object) -> None:
        self.table = self.other._kernel

    def call(self, x: object) -> object:
        return keras.ops.matmul(x, keras.ops.transpose(self.table))


def test_a_kernel_that_two_layers_hold_stays_dense() -> None:
    first = L.Dense(5, name="first")
    model = keras.Sequential([keras.Input((6,)), first, Tied(first)])
    x = np.ones((2, 6), np.float32)
    report = lth.sparsify(model, masks_for(model), only_if_faster=False)
    assert "another layer" in report.dense["first/kernel"]
    assert model(x).shape == (2, 6)


def test_a_layer_that_two_models_share_is_sparse_in_both() -> None:
    shared = L.Dense(5, name="shared")
    x = keras.Input((6,))
    one, two = keras.Model(x, L.Dense(2)(shared(x))), keras.Model(x, L.Dense(3)(shared(x)))
    data = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
    for model in (one, two):
        model.compile("adam", "mse")
        model.fit(data, np.zeros((8, model.output_shape[-1])), epochs=1, verbose=0)
    masks = {path: mask for path, mask in masks_for(one).items() if path.startswith("shared")}
    lth.sparsify(one, masks, only_if_faster=False)
    assert kernels_of(shared)
    for model in (one, two):
        before = model.predict(data, verbose=0)
        model.fit(data, np.zeros((8, model.output_shape[-1])), epochs=2, verbose=0)
        assert not np.allclose(before, model.predict(data, verbose=0))
        assert lth.masks_of(model)["shared/kernel"].tolist() == masks["shared/kernel"].tolist()
    lth.densify(two)
    assert not kernels_of(shared)
    one.fit(data, np.zeros((8, 2)), epochs=1, verbose=0)
    assert np.count_nonzero(shared.kernel.numpy()[~masks["shared/kernel"]]) == 0


class Gated(L.Layer):
    """Multiplies its input by a kernel, with a gate: a layer of a user's own."""

    def build(self, shape: object) -> None:
        self.gate = self.add_weight(shape=(5,), name="gate", initializer="ones")
        self.kernel = self.add_weight(shape=(6, 5), name="kernel")

    def call(self, x: object) -> object:
        return keras.ops.matmul(x, self.kernel) * self.gate


def test_a_layer_of_ones_own_registers_how_it_is_stored() -> None:
    lth.register_prunable(Gated, "kernel")
    model = keras.Sequential([keras.Input((6,)), Gated()])
    x = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    masks = masks_for(model)
    report = lth.sparsify(model, masks, only_if_faster=False)
    assert report.dense == {"gated/kernel": "Gated has no sparse form"}
    before = model(x)

    def call(layer: Gated, x: object) -> object:
        kernel = kernels_of(layer)["kernel"]
        return lth.ops.sparse_matmul(x, kernel.variable, kernel.live) * layer.gate

    lth.layers.register_sparse(Gated, lambda layer: {"kernel": lth.layers.Layout((0, 1), (6, 5))}, call)
    assert lth.sparsify(model, only_if_faster=False).sparse == ("gated/kernel",)
    np.testing.assert_allclose(model(x), before, rtol=1e-5, atol=1e-6)
    model.compile("adam", "mse")
    model.fit(x, np.zeros((4, 5)), verbose=0)
    assert lth.masks_of(model)["gated/kernel"].tolist() == masks["gated/kernel"].tolist()
    with pytest.raises(TypeError, match=r"subclass of keras\.layers\.Layer"):
        lth.layers.register_sparse(int, lambda layer: {}, call)
