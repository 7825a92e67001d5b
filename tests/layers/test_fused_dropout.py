"""Dropout of a fused or sparse model: under XLA it draws from another generator, and stands between stored kernels."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_lth as lth


def dropping(layers: list[Any]) -> keras.Model:
    keras.utils.set_random_seed(5)
    return keras.Sequential([keras.Input((40,)), *layers])


def test_dropout_under_xla_keeps_and_scales_as_it_says() -> None:
    model, plain = (dropping([keras.layers.Dropout(0.3, seed=9, name="drop")]) for _ in range(2))
    assert "1 Dropout layers draw faster" in lth.fuse(model).summary
    x = tf.ones([1000, 40])
    drop = tf.function(lambda model, x: model(x, training=True), jit_compile=True, autograph=False)
    first, second = drop(model, x).numpy(), drop(model, x).numpy()
    # 40 000 draws: 4 standard deviations of the fraction are 0.009.
    for y in (first, second):
        assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.7)}
        assert abs(np.mean(y > 0) - 0.7) < 0.01
    assert abs(np.mean((first > 0) == (second > 0)) - 0.58) < 0.01
    # A new model with its seed draws the same; elsewhere it is Keras' own, and inference is the identity.
    again = dropping([keras.layers.Dropout(0.3, seed=9)])
    lth.fuse(again)
    assert (drop(again, x).numpy() == first).all()
    other = dropping([keras.layers.Dropout(0.3, seed=9)])
    lth.fuse(other)
    assert (other(x, training=True).numpy() == plain(x, training=True).numpy()).all()
    assert (model(x, training=False).numpy() == 1).all()
    assert [one.get_config() for one in model.layers] == [one.get_config() for one in plain.layers]


def test_dropout_stands_between_stored_kernels_without_a_copy() -> None:
    dense = keras.layers.Dense
    model = dropping([dense(30, "relu"), keras.layers.Dropout(0.4, seed=2), dense(20)])
    lth.sparsify(model, {path: abs(v.numpy()) > 0.05 for path, v in lth.prunable(model).items()}, only_if_faster=False)
    first, dropout, last = model.layers
    x = np.random.default_rng(0).standard_normal((70, 40), np.float32)

    @tf.function(jit_compile=True, autograph=False)
    def step(x: Any) -> Any:
        with tf.GradientTape() as tape:
            hidden = dropout(first(x), training=True)
            loss = tf.reduce_sum(last(hidden))
        return hidden, tape.gradient(loss, [first.bias.value, last.bias.value])

    text = step.experimental_get_compiler_ir(tf.constant(x))(stage="optimized_hlo")
    hidden, (d_first, d_last) = step(tf.constant(x))
    kernel = np.asarray(last.kernel)
    # What is above 0 behind the dropout passed the ReLU and was kept, times 1/0.6.
    wanted = ((hidden.numpy() > 0) / 0.6 * kernel.sum(1)).sum(0)
    np.testing.assert_allclose(d_first, wanted, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(d_last, np.full(20, 70.0), rtol=1e-5)
    relu = np.maximum(x @ np.asarray(first.kernel) + np.asarray(first.bias), 0)
    there = hidden.numpy() > 0
    np.testing.assert_allclose(hidden.numpy()[there], relu[there] / 0.6, rtol=1e-4, atol=1e-5)
    # x packed, multiplied; hidden unpacked, which is returned; the gradient of the result packed, all gradients of the
    # last layer, and those of the first one's weights. The loss needs no result.
    assert sum("custom-call(" in line for line in text.splitlines()) == 6
