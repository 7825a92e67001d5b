"""Every supported layer gives what Keras gives."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import keras_lth as lth
from tests.export.networks import check, prune, shake
from tests.forms import spread

layers = keras.layers
IMAGE, LINE, VECTOR = (9, 7, 5), (11, 5), (24,)
ACTIVATIONS = (
    "elu", "exponential", "gelu", "hard_sigmoid", "hard_silu", "leaky_relu", "linear", "log_softmax", "relu", "relu6",
    "selu", "sigmoid", "silu", "softmax", "softplus", "softsign", "tanh",
)  # fmt: skip


def alone(shape: tuple[int, ...], *stack: Any) -> keras.Model:
    return shake(keras.Sequential([keras.Input(shape), *stack]))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation: str) -> None:
    check(alone(VECTOR, layers.Dense(6, activation)), batch=40)
    check(alone(VECTOR, layers.Activation(activation)), batch=40)


def test_gelu_is_exact_to_rounding_everywhere() -> None:
    model = alone((1,), layers.Activation("gelu"))
    x = np.linspace(-8, 8, 4001, dtype=np.float32)[:, None]
    np.testing.assert_allclose(lth.export.compile(model)(x), model.predict(x, verbose=0), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "layer",
    [
        layers.ReLU(), layers.ReLU(max_value=0.5), layers.ReLU(negative_slope=0.1, threshold=0.2),
        layers.ReLU(max_value=1.0, negative_slope=0.3), layers.LeakyReLU(0.3), layers.ELU(0.7), layers.Softmax(),
        layers.Softmax(axis=1), layers.Dropout(0.5), layers.GaussianNoise(1.0), layers.SpatialDropout2D(0.5),
        layers.Rescaling(2.0, -1.0), layers.Rescaling([1.0, 2.0, 3.0, 4.0, 5.0]), layers.BatchNormalization(),
        layers.BatchNormalization(center=False), layers.BatchNormalization(scale=False), layers.LayerNormalization(),
        layers.LayerNormalization(center=False, scale=False), layers.ZeroPadding2D(2),
        layers.ZeroPadding2D(((0, 3), (1, 2))), layers.Flatten(), layers.Reshape((7, 45)), layers.Reshape((-1, 3)),
        layers.GlobalAveragePooling2D(), layers.GlobalAveragePooling2D(keepdims=True), layers.GlobalMaxPooling2D(),
        layers.Dense(4), layers.Dense(4, "relu", use_bias=False), layers.Activation(layers.ReLU(max_value=1.0)),
    ],
    ids=lambda layer: layer.name,
)  # fmt: skip
def test_layers_of_images(layer: keras.Layer) -> None:
    check(alone(IMAGE, layer))


@pytest.mark.parametrize(
    ("size", "strides", "padding"), spread(3, [1, 3, (2, 4), 5], [1, 2, (3, 2)], ["same", "valid"])
)
def test_convolutions(size: Any, strides: Any, padding: str) -> None:
    model = alone(IMAGE, layers.Conv2D(6, size, strides, padding), layers.ReLU())
    check(model)
    check(prune(model, 0.2), batch=1)
    check(model, batch=20)


@pytest.mark.parametrize("padding", ["same", "valid", "causal"])
@pytest.mark.parametrize("strides", [1, 2])
def test_convolutions_of_lines(strides: int, padding: str) -> None:
    check(alone(LINE, layers.Conv1D(6, 3, strides, padding, activation="tanh"), layers.ZeroPadding1D((1, 2))))


@pytest.mark.parametrize(
    ("kind", "size", "strides", "padding"),
    spread(3, [layers.MaxPooling2D, layers.AveragePooling2D], [2, (3, 1), 4], [None, 1, 3, (1, 2)], ["same", "valid"]),
)
def test_pooling(kind: Any, size: Any, strides: Any, padding: str) -> None:
    model = alone(IMAGE, kind(size, strides, padding))
    check(model)
    check(model, batch=1)


@pytest.mark.parametrize("kind", [layers.MaxPooling1D, layers.AveragePooling1D])
def test_pooling_of_lines(kind: Any) -> None:
    check(alone(LINE, kind(3, 2, "same"), layers.GlobalMaxPooling1D()))
    check(alone(LINE, kind(2), layers.GlobalAveragePooling1D()))


@pytest.mark.parametrize(
    "merge", [layers.Add, layers.Subtract, layers.Multiply, layers.Maximum, layers.Minimum, layers.Average]
)
def test_merges(merge: Any) -> None:
    x = inputs = keras.Input(IMAGE)
    a, b = layers.Dense(5)(x), layers.Dense(5, "tanh")(x)
    check(keras.Model(inputs, layers.ReLU()(merge()([a, b]))))
    check(keras.Model(inputs, merge()([a, a])))
    check(keras.Model(inputs, merge()([x, layers.GlobalAveragePooling2D(keepdims=True)(b)])))
    if merge in (layers.Add, layers.Multiply, layers.Average):
        check(keras.Model(inputs, merge()([a, b, x])))


@pytest.mark.parametrize("axis", [-1, 1, 2])
def test_concatenations(axis: int) -> None:
    x = inputs = keras.Input(IMAGE)
    check(keras.Model(inputs, layers.Concatenate(axis)([layers.Dense(5)(x), x, layers.ReLU()(x)])))


def test_operators_on_tensors() -> None:
    x = inputs = keras.Input(IMAGE)
    y = layers.Dense(5)(x)
    check(keras.Model(inputs, keras.ops.relu(x + y) * 2.0 - (1.0 - y)))
    with pytest.raises(ValueError, match=r"Maximum.*constant"):
        lth.export.compile(keras.Model(inputs, keras.ops.maximum(x, 1.0)))


def test_what_is_not_supported_is_named() -> None:
    cases: list[tuple[tuple[int, ...], Any, str]] = [
        (LINE, layers.LSTM(3), r"LSTM 'lstm.*Supported are .*Conv2D"),
        (IMAGE, layers.Conv2D(5, 3, groups=5), "groups=5"),
        (IMAGE, layers.Conv2D(5, 3, dilation_rate=2), r"dilation_rate=\(2, 2\)"),
        (IMAGE, layers.BatchNormalization(axis=1), "axis 1; the last"),
        (VECTOR, layers.Dense(3, keras.activations.mish), "'mish'. Supported are .*relu"),
        (VECTOR, layers.Dense(3, lambda x: x * 2), "'<lambda>'"),
        (VECTOR, layers.Dense(3, dtype="mixed_bfloat16"), "mixed_bfloat16; float32"),
    ]
    for shape, layer, message in cases:
        with pytest.raises(ValueError, match=message):
            lth.export.compile(alone(shape, layer))

    class Own(layers.Dense):
        def call(self, x: Any) -> Any:
            return 2 * super().call(x)

    with pytest.raises(ValueError, match="Own 'own"):
        lth.export.compile(alone(VECTOR, Own(3)))
    with pytest.raises(ValueError, match=r"\(None, None, 3\): give every size a number"):
        lth.export.compile(alone((None, None, 3), layers.GlobalMaxPooling2D()))
    two = [keras.Input((3,)), keras.Input((3,))]
    with pytest.raises(ValueError, match="2 inputs; 1"):
        lth.export.compile(keras.Model(two, layers.Add()(two)))
    inputs = keras.Input(VECTOR)
    with pytest.raises(ValueError, match="training=True"):
        lth.export.compile(keras.Model(inputs, layers.Dropout(0.5)(inputs, training=True)))
    with pytest.raises(TypeError):
        lth.export.compile("model")
