"""sparse_conv2d of TensorFlow tensors against tf.nn.conv2d, with its gradients."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
import tensorflow as tf
from hypothesis import assume, given, settings

from tests.forms import examples, spread
from tests.ops.tf_case import MODES, case, check_product, close, in_mode, op_types, with_gradients

sides = st.sampled_from([1, 3, 5])


@settings(deadline=None, max_examples=examples(60))
@given(
    sides, sides, st.integers(1, 9), st.integers(1, 9), st.sampled_from([None, (1, 4), (4, 4), (3, 2)]),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.integers(1, 3), st.integers(1, 11), st.integers(1, 11),
    st.integers(1, 3), st.integers(1, 2), st.sampled_from(["same", "valid"]), st.sampled_from([None, "relu"]),
    st.sampled_from([0, 0, 1, 9]), st.integers(0, 99),
)  # fmt: skip
def test_shapes(
    kernel_height: int, kernel_width: int, inputs: int, outputs: int, block: Any, density: float, batch: int,
    height: int, width: int, stride_height: int, stride_width: int, padding: str, activation: str | None, room: int,
    seed: int,
) -> None:  # fmt: skip
    assume(padding == "same" or (height >= kernel_height and width >= kernel_width))
    given_ = case((kernel_height, kernel_width, inputs, outputs), block, (batch, height, width), density, seed, room,
                  strides=(stride_height, stride_width), padding=padding, activation=activation)  # fmt: skip
    check_product(given_)


@pytest.mark.parametrize(
    ("mode", "how", "batch"),
    spread(2, MODES, [(None, "same"), ((2, 4), "valid")], [(2, 0), (19, 0), (2, 5), (19, 5)]),
)
def test_modes(mode: str, how: tuple[Any, str], batch: tuple[int, int]) -> None:
    (block, padding), (images, room) = how, batch
    given_ = case((3, 3, 5, 7), block, (images, 9, 8), more_room=room, strides=(2, 2), padding=padding,
                  activation="relu")  # fmt: skip
    check_product(given_, mode)


@pytest.mark.parametrize(("mode", "padding"), spread(2, MODES, ["same", "valid"]))
def test_an_empty_batch(mode: str, padding: str) -> None:
    given_ = case((3, 3, 5, 7), None, (0, 9, 8), strides=(2, 2), padding=padding, activation="relu")
    arguments = (given_.x, given_.values, given_.bias)
    y, dx, dvalues, dbias = in_mode(with_gradients(given_.sparse), mode, *arguments)(*arguments)
    assert y.shape == ((0, 5, 4, 7) if padding == "same" else (0, 4, 3, 7))
    assert dx.shape == given_.x.shape
    assert (dvalues.shape, dbias.shape) == (given_.values.shape, given_.bias.shape)
    assert not dvalues.numpy().any()
    assert not dbias.numpy().any()


@pytest.mark.parametrize(("mode", "op"), [("graph", "KerasLthSparseConv2d"), ("jit", "XlaCustomCallV2"),
                                          ("jit_unknown_batch", "XlaCustomCallV2")])  # fmt: skip
def test_it_is_our_kernel_that_runs(mode: str, op: str) -> None:
    given_ = case((3, 3, 5, 7), None, (2, 9, 8))
    found = op_types(in_mode(with_gradients(given_.sparse), mode, given_.x, given_.values, given_.bias))
    assert op in found
    assert not {"Conv2D", "ScatterNd"} & found


@pytest.mark.parametrize("jit_compile", [False, True])
def test_images_of_unknown_size(jit_compile: bool) -> None:
    given_ = case((3, 3, 5, 7), None, (2, 9, 8), padding="same", strides=(2, 1))
    function = tf.function(with_gradients(lambda x: given_.sparse(x, given_.values, given_.bias)),
                           input_signature=[tf.TensorSpec([None, None, None, 5])], jit_compile=jit_compile)  # fmt: skip
    y, dx = function(given_.x)
    wanted = with_gradients(lambda x: given_.dense(x, given_.kernel, given_.bias))(given_.x)
    close(y, wanted[0])
    close(dx, wanted[1])


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_finite_differences(padding: str) -> None:
    given_ = case((3, 3, 2, 3), None, (2, 6, 5), strides=(2, 1), padding=padding)
    arguments = [given_.x, given_.values, given_.bias]
    analytic, numeric = tf.test.compute_gradient(
        lambda *three: tf.reduce_sum(given_.sparse(*three) ** 2, axis=[0, 3]), arguments, delta=0.25
    )
    for one, other in zip(analytic, numeric, strict=True):
        close(one, other, 1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_second_derivatives(mode: str) -> None:
    given_ = case((3, 3, 2, 3), (2, 3), (2, 5, 4), strides=(2, 1), padding="same")

    def twice(product: Any) -> Any:
        def run(x: Any, bias: Any) -> Any:
            with tf.GradientTape() as outer:
                outer.watch(x)
                with tf.GradientTape() as inner:
                    inner.watch(x)
                    loss = tf.reduce_sum(product(x, bias) ** 3)
                second = tf.reduce_sum(tf.sin(inner.gradient(loss, x)))
            return outer.gradient(second, x)

        return run

    x, bias = tf.constant(given_.x), tf.constant(given_.bias)
    got = in_mode(twice(lambda x, bias: given_.sparse(x, given_.values, bias)), mode, x, bias)(x, bias)
    close(got, twice(lambda x, bias: given_.dense(x, given_.kernel, bias))(x, bias), 1e-3)
