"""sparse_matmul of TensorFlow tensors against the dense product, with its gradients."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings

from keras_lth import ops
from keras_lth.ops import tensorflow as tf_ops
from tests.forms import examples, spread
from tests.ops.tf_case import MODES, case, check_product, close, in_mode, normal, op_types, with_gradients

BLOCKS = [None, (1, 16), (4, 4), (8, 8), (16, 16), (3, 5), (16, 1)]


@settings(deadline=None, max_examples=examples(60))
@given(
    st.integers(1, 40), st.integers(1, 40), st.sampled_from(BLOCKS), st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    st.sampled_from([(0,), (1,), (7,), (33,), (2, 3), (2, 0, 3), ()]), st.sampled_from([None, "relu"]),
    st.sampled_from([0, 0, 1, 9]), st.integers(0, 99),
)  # fmt: skip
def test_shapes(
    inputs: int, outputs: int, block: Any, density: float, batch: Any, activation: str | None, room: int, seed: int
) -> None:
    check_product(case((inputs, outputs), block, batch, density, seed, room, activation=activation))


@pytest.mark.parametrize(
    ("mode", "how", "batch"),
    spread(3, MODES, [(None, 0), ((4, 8), 0), (None, 7), ((4, 8), 3)], [(0,), (5,), (70,), (3, 2)]),
)
def test_modes(mode: str, how: tuple[Any, int], batch: tuple[int, ...]) -> None:
    block, room = how
    check_product(case((21, 30), block, batch, more_room=room, activation="relu"), mode)


@pytest.mark.parametrize(("mode", "op"), [("graph", "KerasLthSparseMatmul"), ("jit", "XlaCustomCallV2"),
                                          ("jit_unknown_batch", "XlaCustomCallV2")])  # fmt: skip
def test_it_is_our_kernel_that_runs(mode: str, op: str) -> None:
    given_ = case((21, 30), None, (5,))
    found = op_types(in_mode(with_gradients(given_.sparse), mode, given_.x, given_.values, given_.bias))
    assert op in found
    assert not {"MatMul", "ScatterNd"} & found


def test_the_same_bits_as_numpy() -> None:
    given_ = case((50, 40), (8, 8), (17,), activation="relu")
    wanted = ops.sparse_matmul(given_.x, given_.values, given_.structure, bias=given_.bias, activation="relu")
    np.testing.assert_array_equal(given_.sparse(given_.x, given_.values, given_.bias), wanted)
    np.testing.assert_array_equal(
        ops.sparse_matmul(tf.constant(given_.x), given_.values, given_.structure, bias=given_.bias, activation="relu"),
        wanted,
    )


@pytest.mark.parametrize("mode", MODES)
def test_bfloat16_values_are_summed_in_float32(mode: str) -> None:
    given_ = case((64, 24), (8, 8), (9,))
    values = given_.values.astype(ml_dtypes.bfloat16)
    arguments = (given_.x, values, given_.bias)
    y, dx, dvalues, _ = in_mode(with_gradients(given_.sparse), mode, *arguments)(*arguments)
    rounded = given_.structure.to_dense(values).astype(np.float32)
    wanted = with_gradients(given_.dense)(given_.x, rounded, given_.bias)
    close(y, wanted[0])
    close(dx, wanted[1])
    assert dvalues.dtype == tf.bfloat16
    close(dvalues, given_.structure.values(wanted[2].numpy()), 0.01)


@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16])
def test_half_precision_activations(dtype: Any) -> None:
    given_ = case((20, 30), None, (6,))
    x = tf.cast(given_.x, dtype)
    y, dx, *_ = with_gradients(given_.sparse)(x, given_.values, given_.bias)
    assert (y.dtype, dx.dtype) == (dtype, dtype)
    close(tf.cast(y, tf.float32), given_.dense(tf.cast(x, tf.float32), given_.kernel, given_.bias), 0.01)


@pytest.mark.parametrize("mode", MODES)
def test_second_derivatives(mode: str) -> None:
    given_ = case((7, 6), (2, 3), (4,))

    def twice(product: Any) -> Any:
        def run(x: Any, weights: Any, bias: Any) -> Any:
            variables = [x, weights, bias]
            with tf.GradientTape() as outer:
                outer.watch(variables)
                with tf.GradientTape() as inner:
                    inner.watch(variables)
                    loss = tf.reduce_sum(product(x, weights, bias) ** 3)
                first = inner.gradient(loss, variables)
                second = tf.add_n([tf.reduce_sum(tf.sin(gradient)) for gradient in first])
            return outer.gradient(second, variables)

        return run

    arguments = [tf.constant(array) for array in (given_.x, given_.values, given_.bias)]
    got = in_mode(twice(given_.sparse), mode, *arguments)(*arguments)
    wanted = twice(lambda x, values, bias: given_.dense(x, tf_ops.plain.to_dense(values, given_.structure), bias))
    for one, other in zip(got, wanted(*arguments), strict=True):
        close(one, other, 1e-3)


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_finite_differences(mode: str) -> None:
    given_ = case((9, 8), (4, 4), (5,))
    arguments = [given_.x, given_.values, given_.bias]
    function = in_mode(lambda *three: tf.reduce_sum(given_.sparse(*three) ** 2, axis=-1), mode, *arguments)
    # The square is of the second degree: a large step has no error but rounding.
    analytic, numeric = tf.test.compute_gradient(function, arguments, delta=0.25)
    for one, other in zip(analytic, numeric, strict=True):
        close(one, other, 1e-4)


def test_gradients_that_nobody_asks_for_are_not_computed() -> None:
    given_ = case((9, 8), None, (5,))
    x, values = tf.constant(given_.x), tf.Variable(given_.values)
    ran = []
    library = tf_ops.library.load()
    assert library is not None
    with pytest.MonkeyPatch.context() as patch:
        name = "keras_lth_sparse_matmul_grad_input"
        original = getattr(library.ops, name)
        patch.setattr(library.ops, name, lambda **inputs: ran.append(name) or original(**inputs))
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(given_.sparse(x, values, given_.bias))
        tape.gradient(loss, values)
        assert ran == []
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(given_.sparse(x, values, given_.bias))
        tape.gradient(loss, x)
        assert ran == [name]


def test_keras_variables() -> None:
    given_ = case((9, 8), None, (5,))
    x, values, bias = (keras.Variable(array) for array in (given_.x, given_.values, given_.bias))
    close(given_.sparse(x, values, bias), given_.dense(given_.x, given_.kernel, given_.bias))
    close(ops.sparse_matmul(x, values, given_.structure), given_.x @ given_.kernel)


class Sparse(keras.layers.Layer):
    """A trained sparse product."""

    def __init__(self, given_: Any) -> None:
        super().__init__()
        self.given = given_
        self.values = self.add_weight(shape=given_.values.shape, initializer="zeros")
        self.values.assign(given_.values)

    def call(self, x: Any) -> Any:
        return self.given.sparse(x, self.values, self.given.bias)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_keras_trains_it(jit_compile: bool) -> None:
    given_ = case((9, 8), None, (70,), activation="relu")
    targets = normal(70, 8)

    def trained(dense: bool) -> tuple[Any, list[float], Any]:
        layer: Any = keras.layers.Dense(8, activation="relu") if dense else Sparse(given_)
        model = keras.Sequential([keras.Input((9,)), layer])
        if dense:
            layer.set_weights([given_.kernel, given_.bias])
            layer.bias.trainable = False
        model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=jit_compile)
        # 70 is not a multiple of 32: the last batch is smaller.
        losses = model.fit(given_.x, targets, epochs=1, batch_size=70, shuffle=False, verbose=0).history["loss"]
        return layer.trainable_weights[0].numpy(), losses, model.predict(given_.x[:33], verbose=0)

    values, losses, _ = trained(dense=False)
    kernel, wanted, _ = trained(dense=True)
    close(losses, wanted)
    close(values, given_.structure.values(kernel * given_.structure.mask()))
    model = keras.Sequential([keras.Input((9,)), Sparse(given_)])
    model.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=jit_compile)
    history = model.fit(given_.x, targets, epochs=3, batch_size=32, verbose=0).history["loss"]
    assert history[-1] < history[0]
    close(model.predict(given_.x[:33], verbose=0), model(given_.x[:33]))
