"""Gradients of all weights, pruned ones too, that leave no trace in the model."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lth as lth

X = np.random.default_rng(0).normal(size=(12, 8)).astype("float32")
Y = np.arange(12) % 3


def network(dtype: str = "float32", dropout: float = 0.5) -> keras.Model:
    keras.utils.set_random_seed(1)
    keras.config.set_dtype_policy(dtype)
    try:
        x = inputs = keras.Input((8,))
        x = keras.layers.Dense(6, "tanh", kernel_regularizer=keras.regularizers.L2(0.1), name="hidden")(x)
        x = keras.layers.Dropout(dropout)(keras.layers.BatchNormalization(name="norm")(x))
        model = keras.Model(inputs, keras.layers.Dense(3, name="out")(x))
    finally:
        keras.config.set_dtype_policy("float32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss, metrics=["accuracy"], jit_compile=False)
    return model


def everything(model: keras.Model) -> list[Any]:
    held = [*model.variables, *model.optimizer.variables, *(v for m in model.metrics for v in m.variables)]
    return [np.array(variable.numpy()) for variable in held]


def by_hand(model: keras.Model, masks: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A network of two layers around a normalisation by the batch, in NumPy, by the chain rule."""
    w, b = (np.float64(v.numpy()) for v in model.get_layer("hidden").weights)
    v, c = (np.float64(v.numpy()) for v in model.get_layer("out").weights)
    gamma, beta = (np.float64(one.numpy()) for one in model.get_layer("norm").trainable_variables)
    w, v, n = w * masks["hidden/kernel"], v * masks["out/kernel"], len(X)
    h = np.tanh(X @ w + b)
    scale = 1 / np.sqrt(h.var(0) + model.get_layer("norm").epsilon)
    z = (h - h.mean(0)) * scale
    a = z * gamma + beta
    logits = a @ v + c
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    back = (p - np.eye(3)[Y]) / n
    dz = back @ v.T * gamma
    dh = scale * (dz - dz.mean(0) - z * (dz * z).mean(0))
    return {"hidden/kernel": X.T @ (dh * (1 - h**2)), "out/kernel": a.T @ back}


@pytest.fixture(scope="module")
def masks() -> lth.Masks:
    rng = np.random.default_rng(2)
    return lth.Masks({"hidden/kernel": rng.random((8, 6)) < 0.4, "out/kernel": rng.random((6, 3)) < 0.6})


def test_gradients_of_all_weights_by_hand_without_a_trace(masks: lth.Masks) -> None:
    model = network()
    lth.mask(model, masks)
    model.fit(X, Y, verbose=0, shuffle=False)
    before = everything(model)
    found = lth.dense_gradients(model, X, Y)
    assert all(np.array_equal(a, b) for a, b in zip(before, everything(model), strict=True))
    for path, gradient in by_hand(model, masks).items():
        np.testing.assert_allclose(found[path], gradient, atol=1e-6)
        assert np.abs(found[path][~masks[path]]).max() > 1e-3
    # The next fit is that of a model that has seen none of it.
    other = network()
    lth.mask(other, masks)
    for epochs, one in ((1, model), (2, other)):
        one.fit(X, Y, verbose=0, epochs=epochs, shuffle=False)
    assert all(np.array_equal(a, b) for a, b in zip(everything(model), everything(other), strict=True))


def test_sparse_models_and_batches(masks: lth.Masks) -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(6, "tanh", name="hidden"), keras.layers.Dense(3, name="out")]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    lth.mask(model, masks)
    expected = lth.dense_gradients(model, X, Y)
    for size in (5, 12):
        for path, found in lth.dense_gradients(model, X, Y, batch_size=size).items():
            np.testing.assert_allclose(found, expected[path], atol=1e-6)
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(5)
    for path, found in lth.dense_gradients(model, data).items():
        np.testing.assert_allclose(found, expected[path], atol=1e-6)
    assert len(lth.sparsify(model, only_if_faster=False).sparse) == 2
    before = [np.array(v.numpy()) for v in model.variables]
    for path, found in lth.dense_gradients(model, X, Y).items():
        np.testing.assert_allclose(found, expected[path], atol=1e-6)
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(before, model.variables, strict=True))


def test_several_outputs_and_losses_that_layers_add() -> None:
    inputs = keras.Input((8,))
    hidden = keras.layers.Dense(4, name="hidden", activity_regularizer=keras.regularizers.L2(0.1))(inputs)
    model = keras.Model(inputs, [keras.layers.Dense(1, name="a")(hidden), keras.layers.Dense(1, name="b")(hidden)])
    with pytest.raises(ValueError, match=r"no loss.*compile"):
        lth.dense_gradients(model, X, [Y, Y])
    model.compile("sgd", ["mse", "mse"], loss_weights=[1.0, 2.0], jit_compile=False)
    labels = [Y[:, None].astype("float32"), X[:, :1]]
    with pytest.raises(ValueError, match=r"2 outputs.*compile"):
        lth.dense_gradients(model, X, labels, loss="mse")
    metrics = len(model.metrics)
    found = lth.dense_gradients(model, X, labels)
    assert len(model.metrics) == metrics and not model._compile_loss.built
    h = X @ model.get_layer("hidden").kernel.numpy()
    errors = [h @ model.get_layer(name).kernel.numpy() - y for name, y in zip("ab", labels, strict=True)]
    np.testing.assert_allclose(found["b/kernel"], 2 * 2 * h.T @ errors[1] / len(X), rtol=1e-4)
    back = sum(w * 2 * e @ model.get_layer(n).kernel.numpy().T for w, e, n in zip((1, 2), errors, "ab", strict=True))
    np.testing.assert_allclose(found["hidden/kernel"], X.T @ (back + 0.2 * h) / len(X), rtol=1e-3, atol=1e-5)
    model.fit(X, labels, verbose=0)
    assert len(model.metrics) > metrics


def test_bad_input_is_said() -> None:
    model = network()
    with pytest.warns(UserWarning, match=r"dropout.*off"):
        lth.dense_gradients(model, X, Y)
    with pytest.raises(ValueError, match=r"y of shape \(12,\).* 11 .*\[0, 3\)"):
        lth.dense_gradients(model, X, np.arange(12))
    with pytest.raises(ValueError, match=r"\(12, 5\)"):
        lth.dense_gradients(model, X, np.zeros((12, 5)))
    with pytest.raises(ValueError, match=r"same number.*11, 12"):
        lth.dense_gradients(model, X, Y[:11])
    with pytest.raises(ValueError, match="nan"):
        lth.dense_gradients(model, np.full_like(X, np.nan), Y)
    with pytest.raises(ValueError, match=r"batch_size.*0"):
        lth.dense_gradients(model, X, Y, batch_size=0)
    with pytest.raises(ValueError, match=r"no call\(\)"):
        parts = keras.Model()
        parts.inner = network()
        lth.dense_gradients(parts, X, Y, loss="mse")
    rounded = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2), keras.layers.Lambda(keras.ops.round)])
    rounded.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"dense/kernel.*exclude|any weight.*round"):
        lth.dense_gradients(rounded, X, Y[:, None].repeat(2, 1).astype("float32"))
