"""Learned masks: the forward pass, the gradient that passes through, and the ordinary masked model at the end."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lth as lth
from keras_lth.layers import EdgePopup, Learning, Movement, Rule, StraightThrough, Supermask, learn_masks
from keras_lth.layers.learned import _highest
from keras_lth.schedules import Polynomial
from tests.callbacks import moving, small
from tests.forms import short_if, spread

X = tf.constant(small.X[:10])


def gradients(model: keras.Model, training: bool = False) -> dict[str, np.ndarray]:
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(X, training=training) ** 2)
    found = tape.gradient(loss, model.trainable_variables)
    return {v.path: np.asarray(g) for v, g in zip(model.trainable_variables, found, strict=True)}


def by_hand(kernels: list[Any], biases: list[Any]) -> Any:
    return tf.nn.relu(X @ kernels[0] + biases[0]) @ kernels[1] + biases[1]


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_the_highest_are_those_of_a_sort(dtype: str) -> None:
    """With ties, both zeros, signs, and magnitudes from 1e-30 to 1e30; compiled too."""
    random, compiled = np.random.default_rng(0), tf.function(_highest, jit_compile=True)
    for digits, kept in ((0, 1), (0, 200), (1, 406), (3, 77), (3, 407)):
        drawn = random.normal(size=(37, 11)).round(digits) * random.choice([1, -1, 0, 1e-30, 1e30], size=(37, 11))
        scores = tf.cast(drawn, dtype)
        exact = np.asarray(tf.cast(scores, tf.float64))
        wanted = exact >= np.sort(exact.ravel())[-kept]
        for function in (_highest, compiled):
            np.testing.assert_array_equal(np.asarray(tf.cast(function(scores, tf.constant(kept)), tf.bool)), wanted)


def test_edge_popup_computes_with_the_highest_scores_and_passes_the_gradient_through() -> None:
    model = small.model()
    signs = [np.sign(w) for w in model.get_weights()[::2]]
    learning = learn_masks(model, EdgePopup(density=0.25, seed=3))
    kernels = [layer.kernel.numpy() for layer in model.layers]
    for kernel, sign in zip(kernels, signs, strict=True):
        # √(2 / (fan_in · k)) times the sign.
        np.testing.assert_allclose(kernel, sign * np.sqrt(2 / (kernel.shape[0] * 0.25)), rtol=1e-6)
    scores = [layer.kernel_scores.numpy() for layer in scored(model)]
    masked = [k * (np.abs(s) >= np.sort(np.abs(s).ravel())[-k.size // 4]) for k, s in zip(kernels, scores, strict=True)]
    np.testing.assert_allclose(model(X), by_hand(masked, [0, 0]), rtol=1e-5)
    with tf.GradientTape() as tape:
        held = [tf.constant(k, tf.float32) for k in masked]
        tape.watch(held)
        loss = tf.reduce_sum(by_hand(held, [0, 0]) ** 2)
    # Through the absolute value: a negative score falls where more of its weight is wanted.
    wanted = [g * k * np.sign(s) for g, k, s in zip(tape.gradient(loss, held), kernels, scores, strict=True)]
    found = gradients(model)
    assert len(found) == 2  # weights and biases are constants
    for a, b in zip(found.values(), wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert [int(m.sum()) for m in learning.masks().values()] == [24, 12]


def scored(model: keras.Model) -> list[Any]:
    """The layers, each with the variable of its scores as an attribute of this view."""

    class View:
        def __init__(self, layer: Any) -> None:
            self.kernel_scores = next(v for v in layer.trainable_variables if v.name == "kernel_scores")

    return [View(layer) for layer in model.layers]


@pytest.mark.parametrize(
    "rule",
    short_if(
        lambda rule: not isinstance(rule, EdgePopup), [Supermask(rescale=True), EdgePopup(0.5), StraightThrough(0.5)]
    ),
    ids=str,
)
def test_a_learned_mask_becomes_an_ordinary_one(rule: Rule) -> None:
    model = small.model()
    shapes = [w.shape for w in model.get_weights()]
    learning = learn_masks(model, rule)
    model.compile(keras.optimizers.Adam(0.1), small.model().loss)
    before = moving.weights(model)
    model.fit(small.data(), epochs=2, verbose=0, shuffle=False)
    if rule.frozen:
        kernels = [layer.kernel.numpy() for layer in model.layers]
        assert all(any(np.array_equal(kernel, old) for old in before) for kernel in kernels)
    outputs = model(X, training=False)
    masks = learning.finish()
    assert [w.shape for w in model.get_weights()] == shapes and type(model.layers[0]) is not None
    assert lth.masks_of(model) == masks and 0 < masks.remaining < masks.size
    np.testing.assert_allclose(model(X), outputs, rtol=1e-4, atol=1e-5)
    assert len(model.trainable_variables) == 4
    model.compile("sgd", small.model().loss)
    model.fit(small.data(), epochs=1, verbose=0, shuffle=False)
    assert lth.masks_of(model) == masks


def test_a_supermask_draws_in_training_alone() -> None:
    model = small.model()
    learn_masks(model, Supermask(initial=0.7))
    drawn = [np.asarray(model(X, training=True)) for _ in range(3)]
    assert not np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[1], drawn[2])
    whole = by_hand([layer.kernel.numpy() for layer in model.layers], [0, 0])
    np.testing.assert_allclose(model(X, training=False), whole, rtol=1e-5)
    # The gradient of the scores: g · w · σ′, with σ′ = 0.7 · 0.3, in inference where the mask is fixed.
    with tf.GradientTape() as tape:
        held = [tf.constant(layer.kernel.numpy()) for layer in model.layers]
        tape.watch(held)
        loss = tf.reduce_sum(by_hand(held, [0, 0]) ** 2)
    wanted = [0.21 * g * k for g, k in zip(tape.gradient(loss, held), held, strict=True)]
    for a, b in zip(gradients(model).values(), wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_straight_through_weights_train_under_the_mask() -> None:
    model = small.model("sgd")
    learning = learn_masks(model, StraightThrough(0.25))
    model.compile("sgd", small.model().loss)
    before, masks = model.layers[0].kernel.numpy(), learning.masks()
    model.fit(small.data(), epochs=1, verbose=0, shuffle=False)
    pruned = ~masks["dense/kernel"]
    assert (model.layers[0].kernel.numpy() != before)[pruned].mean() > 0.5


def test_movement_follows_a_schedule_and_grows_scores_of_weights_that_move_away_from_zero() -> None:
    model = small.model("sgd")
    learning = learn_masks(model, Movement())
    rate = 0.1
    model.compile(keras.optimizers.SGD(rate), small.model().loss)
    before = model.layers[0].kernel.numpy()
    model.train_on_batch(small.X[:16], small.Y[:16])
    moved = model.layers[0].kernel.numpy() - before
    (scores,) = (v.numpy() for v in model.layers[0].trainable_variables if v.name == "kernel_scores")
    # One step of SGD: ΔS = −ηg·w and Δw = −ηg.
    np.testing.assert_allclose(scores, moved * before, rtol=1e-3, atol=1e-7)
    ramp = lth.GradualPruning(Polynomial(1.0, 0.25, 1, 5, every=2), learning, verbose=0)
    model.fit(small.data(), epochs=1, verbose=0, shuffle=False, callbacks=[ramp])
    assert [int(m.sum()) for m in learning.finish().values()] == [24, 12]


def test_convolutions_attention_and_nested_models() -> None:
    layers = keras.layers
    inner = keras.Sequential([layers.Conv2D(3, 3, name="conv"), layers.BatchNormalization()])
    inputs = keras.Input((6, 6, 2))
    x = layers.Reshape((16, 3))(inner(inputs))
    x = layers.MultiHeadAttention(2, 4)(x, x)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    learning = learn_masks(model, Supermask())
    model.compile("adam", "mse", run_eagerly=True)
    model.fit(np.ones((4, 6, 6, 2)), np.ones((4, 2)), verbose=0)
    assert len(learning.finish()) == 6


@pytest.mark.parametrize("rule", spread(4, [Supermask(), EdgePopup(0.3), Movement(0.5), StraightThrough(0.3)]), ids=str)
def test_a_learned_mask_classifies_what_it_was_trained_on(rule: Rule) -> None:
    """Four classes; half of the examples would be far above chance, and above what the untrained network has."""
    random = np.random.default_rng(0)
    x = random.normal(size=(600, 8)).astype("float32")
    y = (x @ random.normal(size=(8, 4))).argmax(1)
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(128, "relu"), keras.layers.Dense(4)])
    learning = learn_masks(model, rule)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.02), loss, jit_compile=False)
    model.fit(x, y, batch_size=30, epochs=15, verbose=0)
    learning.finish()
    assert (model.predict(x, verbose=0).argmax(1) == y).mean() > 0.6


def test_what_cannot_be_learned_is_refused() -> None:
    model = small.model()
    learn_masks(model, Supermask())
    with pytest.raises(ValueError, match=r"learned already.*finish"):
        learn_masks(model, Supermask())
    masked = small.model()
    lth.mask(masked, lth.select(lth.criteria.Random(0)(masked), density=0.5))
    with pytest.raises(ValueError, match="unmask"):
        learn_masks(masked, Supermask())
    cells = keras.Sequential([keras.Input((3, 2)), keras.layers.LSTM(2)])
    with pytest.raises(ValueError, match=r"recurrent cell.*exclude"):
        learn_masks(cells, Supermask())
    for make, match in (
        (lambda: Supermask(initial=1.0), "initial.*1.0"),
        (lambda: EdgePopup(0.0), "density.*0.0"),
        (lambda: EdgePopup(0.5, init="zeros"), "zeros"),
    ):
        with pytest.raises(ValueError, match=match):
            make()
    assert Learning.__doc__
