"""Where a sparse product can stand: loops, nested functions, pipelines, graphs of TensorFlow 1."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from keras_lth.ops import tensorflow as tf_ops
from tests.ops.tf_case import case, close, with_gradients

CASES = {
    "matmul": case((21, 30), (4, 8), (5,), activation="relu"),
    "conv2d": case((3, 3, 5, 7), None, (2, 9, 8), strides=(2, 1), padding="same"),
}


def result(given: Any) -> Any:
    return given.dense(given.x, given.kernel, given.bias)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("product", CASES)
def test_in_a_loop(product: str, jit_compile: bool) -> None:
    given = CASES[product]
    weights = tf.constant([1.0, 2.0, 3.0])

    @tf.function(jit_compile=jit_compile, autograph=False)
    def run(x: Any, values: Any) -> Any:
        def weighted(x: Any, values: Any) -> Any:
            _, y = tf.while_loop(
                lambda i, y: i < 3,
                lambda i, y: (i + 1, y + weights[i] * given.sparse(x, values, given.bias)),
                (tf.constant(0), tf.zeros(result(given).shape)),
                maximum_iterations=3,
            )
            return y / 6

        return with_gradients(weighted)(x, values)

    got = run(tf.constant(given.x), tf.constant(given.values))
    wanted = with_gradients(lambda x, values: given.sparse(x, values, given.bias))(given.x, given.values)
    close(got[0], result(given))
    for one, other in zip(got, wanted, strict=True):
        close(one, other)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_in_branches_and_nested_functions(jit_compile: bool) -> None:
    given = CASES["matmul"]

    @tf.function(autograph=False)
    def inner(x: Any) -> Any:
        return given.sparse(x, given.values, given.bias)

    @tf.function(jit_compile=jit_compile, autograph=False)
    def outer(x: Any) -> Any:
        return tf.cond(tf.reduce_sum(x) > 1e9, lambda: tf.zeros([5, 30]), lambda: inner(x))

    got = with_gradients(outer)(given.x)
    for one, other in zip(
        got, with_gradients(lambda x: given.dense(x, given.kernel, given.bias))(given.x), strict=True
    ):
        close(one, other)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_of_unknown_rank(jit_compile: bool) -> None:
    given = CASES["matmul"]
    function = tf.function(
        lambda x: given.sparse(x, given.values, given.bias),
        input_signature=[tf.TensorSpec(None)],
        jit_compile=jit_compile,
        autograph=False,
    )
    close(function(given.x), result(given))
    close(function(given.x[0]), result(given)[0])


@pytest.mark.parametrize("product", CASES)
def test_in_a_graph_of_tensorflow_1(product: str) -> None:
    given = CASES[product]
    with tf.Graph().as_default():
        x, values = tf.constant(given.x), tf.constant(given.values)
        y = given.sparse(x, values, given.bias)
        gradients = tf.gradients(tf.reduce_sum(tf.sin(y)), [x, values])
        with tf.compat.v1.Session() as session:
            got = session.run([y, *gradients])
    wanted = with_gradients(lambda x, values: given.sparse(x, values, given.bias))(given.x, given.values)
    for one, other in zip(got, wanted, strict=True):
        close(one, other)


def test_in_a_pipeline() -> None:
    given = CASES["matmul"]
    data = tf.data.Dataset.from_tensor_slices(given.x).batch(2).map(lambda x: given.sparse(x, given.values, given.bias))
    close(np.concatenate(list(data.as_numpy_iterator())), result(given))


def test_jacobian_and_forward_mode() -> None:
    given = case((4, 3), None, (2,))
    x = tf.constant(given.x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = given.sparse(x, given.values, given.bias)
    jacobian = tape.jacobian(y, x)
    close(jacobian, np.einsum("kn,ab->anbk", given.kernel, np.eye(2)))
    with tf.autodiff.ForwardAccumulator(x, tf.ones_like(x)) as forward:
        y = given.sparse(x, given.values, given.bias)
    close(forward.jvp(y), tf.reduce_sum(jacobian, [2, 3]))


def test_shapes_are_inferred() -> None:
    def shape_of(given: Any, spec: list[Any], gradient: bool = False) -> list[Any]:
        def run(x: Any) -> Any:
            # The tape's second result is the gradient for x.
            return with_gradients(lambda x: given.sparse(x, given.values, given.bias))(x)[int(gradient)]

        function = tf.function(run, input_signature=[tf.TensorSpec(spec)], autograph=False)
        return list(function.get_concrete_function().output_shapes.as_list())

    matrix, kernel = CASES["matmul"], CASES["conv2d"]
    assert shape_of(matrix, [None, 21]) == [None, 30]
    assert shape_of(matrix, [None, 3, 21]) == [None, 3, 30]
    assert shape_of(matrix, [None, None]) == [None, 30]
    assert shape_of(matrix, [None, 21], gradient=True) == [None, 21]
    assert shape_of(kernel, [None, 9, 8, 5]) == [None, 5, 8, 7]
    assert shape_of(kernel, [None, None, 8, 5]) == [None, None, 8, 7]
    assert shape_of(kernel, [3, 9, None, None]) == [3, 5, None, 7]
    assert shape_of(kernel, [None, 9, 8, 5], gradient=True) == [None, 9, 8, 5]


def test_tensors_of_a_structure_live_as_long_as_it() -> None:
    given = case((8, 8), None, (2,))
    key = id(given.structure)
    given.sparse(given.x, given.values, given.bias)
    kept = [name for identity, name in tf_ops.tensors._made if identity == key]
    assert sorted(kept) == ["geometry [8, 8, 1, 1]", "indices"]
    del given
    gc.collect()
    assert not [name for identity, name in tf_ops.tensors._made if identity == key]
