from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from keras_lth import surgery

L = keras.layers


class Bilinear(keras.layers.Layer):
    """A layer of no known kind."""

    def build(self, shape: Any) -> None:
        self.form = self.add_weight(shape=(int(shape[-1]), int(shape[-1])), name="form")
        self.offset = self.add_weight(shape=(int(shape[-1]),), name="offset")

    def call(self, x: Any) -> Any:
        return x @ self.form + self.offset


class MyDense(L.Dense):
    pass


def kernels(*layers: Any, shape: tuple[int, ...]) -> list[str]:
    return list(surgery.prunable(keras.Sequential([keras.Input(shape), *layers])))


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (lambda: L.Dense(2), (3,), ["dense/kernel"]),
        (lambda: MyDense(2), (3,), ["my_dense/kernel"]),
        (lambda: L.EinsumDense("ab,bc->ac", 2), (3,), ["einsum_dense/kernel"]),
        (lambda: L.Conv1D(2, 3), (8, 3), ["conv1d/kernel"]),
        (lambda: L.Conv2D(2, 3), (8, 8, 3), ["conv2d/kernel"]),
        (lambda: L.Conv3D(2, 2), (4, 4, 4, 1), ["conv3d/kernel"]),
        (lambda: L.Conv1DTranspose(2, 3), (8, 3), ["conv1d_transpose/kernel"]),
        (lambda: L.Conv2DTranspose(2, 3), (8, 8, 3), ["conv2d_transpose/kernel"]),
        (lambda: L.DepthwiseConv1D(3), (8, 3), ["depthwise_conv1d/kernel"]),
        (lambda: L.DepthwiseConv2D(3), (8, 8, 3), ["depthwise_conv2d/kernel"]),
        (
            lambda: L.SeparableConv2D(2, 3),
            (8, 8, 3),
            ["separable_conv2d/depthwise_kernel", "separable_conv2d/pointwise_kernel"],
        ),
        (lambda: L.LSTM(2), (4, 3), ["lstm/cell/kernel", "lstm/cell/recurrent_kernel"]),
        (lambda: L.GRU(2), (4, 3), ["gru/cell/kernel", "gru/cell/recurrent_kernel"]),
        (lambda: L.SimpleRNN(2), (4, 3), ["simple_rnn/cell/kernel", "simple_rnn/cell/recurrent_kernel"]),
        (
            lambda: L.ConvLSTM2D(2, 2),
            (2, 4, 4, 1),
            ["conv_lstm2d/cell/kernel", "conv_lstm2d/cell/recurrent_kernel"],
        ),
    ],
)
def test_prunable_by_role(layer: Any, shape: tuple[int, ...], expected: list[str]) -> None:
    assert [path.replace("conv_lst_m2_d", "conv_lstm2d") for path in kernels(layer(), shape=shape)] == [
        path.replace("conv_lst_m2_d", "conv_lstm2d") for path in expected
    ]


def test_attention_kernels_but_not_its_two_dimensional_biases() -> None:
    inputs = keras.Input((4, 6))
    model = keras.Model(inputs, L.MultiHeadAttention(2, 3)(inputs, inputs))
    assert [path.split("/")[-1] for path in surgery.prunable(model)] == ["kernel"] * 4


def test_never_normalisation_bias_or_prelu() -> None:
    layers = [L.BatchNormalization(), L.LayerNormalization(axis=(1, 2, 3)), L.PReLU(), L.Conv2D(1, 1)]
    assert kernels(*layers, shape=(4, 4, 2)) == ["conv2d/kernel"]
    model = keras.Sequential([keras.Input((4, 4, 2)), *layers])
    assert surgery.unknown_layers(model) == {}


def network() -> keras.Model:
    return keras.Sequential([keras.Input((4,)), L.Dense(4), Bilinear(), L.Dense(4, name="head")])


def test_unknown_layers_are_listed_warned_about_once_and_named_by_include() -> None:
    model = network()
    assert surgery.unknown_layers(model) == {"bilinear": ("bilinear/form",)}
    assert list(surgery.prunable(model)) == ["dense/kernel", "head/kernel"]
    assert list(surgery.prunable(model, include=["bilinear", "head"])) == ["bilinear/form", "head/kernel"]
    with pytest.warns(UserWarning, match="bilinear/form"):
        surgery.mask(model, {"dense/kernel": np.eye(4) > 0})
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        surgery.mask(model, {"dense/kernel": np.eye(4) < 1})
        surgery.mask(model, {"bilinear/form": np.eye(4) > 0})
    assert np.count_nonzero(model.layers[1].form.numpy()) == 4
    report = surgery.sparsity(model)
    assert report.unknown == {}
    assert (report.size, report.remaining) == (48, 12 + 4 + 16)
    assert report.density == 32 / 48
    assert "bilinear/form" in str(report)


def test_include_and_exclude() -> None:
    model = network()
    assert list(surgery.prunable(model, include="^head")) == ["head/kernel"]
    assert list(surgery.prunable(model, exclude="head")) == ["dense/kernel"]
    assert list(surgery.prunable(model, exclude=lambda path, variable: variable.shape[0] == 4 and "head" in path)) == [
        "dense/kernel"
    ]
    assert list(surgery.prunable(model, include=["dense", "head"], exclude=["^d"])) == ["head/kernel"]


def test_unknown_layers_show_in_the_report() -> None:
    report = surgery.sparsity(network())
    assert report.unknown == {"bilinear": ("bilinear/form",)}
    assert [row.path for row in report.rows] == ["dense/kernel", "head/kernel"]
    assert "bilinear" in str(report).splitlines()[-1]
