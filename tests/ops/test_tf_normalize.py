"""Normalisation as two ops: values, two derivatives, shapes, refusals."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from keras_lth.ops.tensorflow import normalize
from tests.ops.tf_case import normal

EPSILON = 1e-2


def ours(x: Any, gamma: Any, beta: Any, residual: Any, relu: bool) -> Any:
    mean, variance = normalize.moments(x)
    made = normalize.Normalized(x, mean, tf.math.rsqrt(variance + EPSILON), gamma, beta)
    return made.result(residual, relu)


def theirs(x: Any, gamma: Any, beta: Any, residual: Any, relu: bool) -> Any:
    mean, variance = tf.nn.moments(x, list(range(x.shape.rank - 1)))
    y = gamma * (x - mean) * tf.math.rsqrt(variance + EPSILON) + beta
    y = y if residual is None else y + residual
    return tf.nn.relu(y) if relu else y


def derivatives(function: Any, given: list[Any], weight: Any, relu: bool) -> list[Any]:
    """The result, its gradients, and those of a norm of them."""
    x, gamma, beta, *rest = given
    with tf.GradientTape() as outer:
        outer.watch(given)
        with tf.GradientTape() as tape:
            tape.watch(given)
            y = function(x, gamma, beta, rest[0] if rest else None, relu)
            loss = tf.reduce_sum(weight * tf.sin(y))
        first = tape.gradient(loss, given)
        size = tf.add_n([tf.reduce_sum(tf.square(one)) for one in first])
    return [y, *first, *outer.gradient(size, given)]


@pytest.mark.parametrize("mode", ["eager", "graph", "unknown"])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("add", [False, True])
def test_values_and_two_derivatives(add: bool, relu: bool, mode: str) -> None:
    shape = (4, 5, 3, 7)
    given = [3 + 2 * normal(*shape), 1 + normal(7, seed=1), normal(7, seed=2), normal(*shape, seed=3)][
        : 4 if add else 3
    ]
    weight = normal(*shape, seed=4)

    def run(*given: Any) -> Any:
        return derivatives(ours, list(given), weight, relu)

    sizes = [[None, None, None, 7] if np.ndim(one) == 4 else [7] for one in given]
    if mode == "graph":
        run = tf.function(run, autograph=False)
    if mode == "unknown":
        run = tf.function(run, autograph=False, input_signature=[tf.TensorSpec(size) for size in sizes])
    wanted = derivatives(theirs, [tf.constant(one) for one in given], weight, relu)
    for got, one in zip(run(*map(tf.constant, given)), wanted, strict=True):
        np.testing.assert_allclose(got, one, rtol=0, atol=3e-5 * float(np.abs(one).max()))


def test_shapes_are_known_and_checked() -> None:
    @tf.function(input_signature=[tf.TensorSpec([None, 5, 3])], autograph=False)
    def run(x: Any) -> Any:
        mean, variance = normalize.moments(x)
        y = normalize.Normalized(x, mean, variance, mean, mean).result(x, True)
        assert (mean.shape, variance.shape, y.shape.as_list()) == ((3,), (3,), [None, 5, 3])
        return tf.gradients(y, x)[0]

    assert run.get_concrete_function().output_shapes.as_list() == [None, 5, 3]
    x, c = tf.ones([2, 3]), tf.ones([3])
    for x_, mean, residual, message in [
        (x, tf.ones([4]), x, r"mean has shape \[4\], not \[3\]"),
        (x, c, tf.ones([1, 3]), r"residual has shape \[1,3\], not \[2,3\]"),
        (tf.ones([]), c, tf.ones([]), "x has shape .*channels"),
    ]:
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            normalize.Normalized(x_, mean, c, c, c).result(residual, True)


def pooled(function: Any, x: Any, weight: Any) -> list[Any]:
    """The result, its gradient, and that of a norm of it."""
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
            loss = tf.reduce_sum(weight * tf.sin(y))
        first = tape.gradient(loss, x)
        size = tf.reduce_sum(tf.square(first))
    return [y, first, outer.gradient(size, x)]


@pytest.mark.parametrize("mode", ["eager", "graph", "unknown"])
@pytest.mark.parametrize(("shape", "size"), [((2, 4, 6, 5), (2, 2)), ((3, 3, 8, 17), (1, 4)), ((0, 4, 4, 3), (2, 2))])
def test_max_pooling_and_two_derivatives(shape: tuple[int, ...], size: tuple[int, int], mode: str) -> None:
    """Beside TensorFlow's, also where many pixels of a window are largest: as behind a ReLU."""
    x, rest = normal(*shape), (shape[1] // size[0], shape[2] // size[1], shape[3])
    weight = normal(shape[0], *rest, seed=1)
    for given in (x, np.maximum(np.round(x), 0.0)):

        def run(x: Any) -> Any:
            return pooled(lambda x: normalize.max_pool(x, size), x, weight)

        if mode != "eager":
            spec = tf.TensorSpec([None, *shape[1:]] if mode == "unknown" else shape, tf.float32)
            run = tf.function(run, autograph=False, input_signature=[spec])
        wanted = pooled(lambda x: tf.nn.max_pool2d(x, size, size, "VALID"), tf.constant(given), weight)
        for got, want in zip(run(tf.constant(given)), wanted, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
        assert (run(tf.constant(given))[1].numpy() == wanted[1].numpy()).all()


def test_max_pooling_chooses_the_pixels_of_tensorflow() -> None:
    """Of every window of four that is made of these."""
    few = [0.0, 1.0, np.nan, np.inf, -np.inf]
    windows = np.array(list(itertools.product(few, repeat=4)), np.float32).reshape(-1, 2, 2, 1)
    x, dy = tf.constant(windows), normal(len(windows), 1, 1, 1)
    ours, theirs = (lambda x: normalize.max_pool(x, (2, 2))), (lambda x: tf.nn.max_pool2d(x, 2, 2, "VALID"))
    results = []
    for pool in (ours, theirs):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = pool(x)
        results.append((y.numpy(), tape.gradient(y, x, output_gradients=tf.constant(dy)).numpy()))
    for got, want in zip(*results, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("x", "dy", "said"),
    [
        ((1, 5, 4, 2), (1, 2, 2, 2), "windows side by side"),
        ((1, 4, 4, 2), (1, 0, 2, 2), "windows side by side"),
        ((1, 4, 4, 2), (1, 2, 2, 3), "batch, height, width, channels"),
        ((4, 4, 2), (2, 2, 2), "batch, height, width, channels"),
    ],
)
def test_a_pooling_of_other_shapes_is_refused(x: tuple[int, ...], dy: tuple[int, ...], said: str) -> None:
    loaded = normalize.library.load()
    assert loaded is not None
    with pytest.raises(tf.errors.InvalidArgumentError, match=said) as caught:
        loaded.ops.keras_lth_max_pool_grad(x=tf.zeros(x), dy=tf.zeros(dy))
    assert str(list(dy)).replace(" ", "") in str(caught.value)
