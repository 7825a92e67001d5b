"""What bad arguments get: an exception that names the argument, from Python or from the kernel, never a crash."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from keras_lth.ops import SparseStructure
from keras_lth.ops import tensorflow as tf_ops
from tests.ops.tf_case import case, normal

MATRIX = case((6, 9), (2, 3), (4,), density=0.8)
KERNEL = case((3, 3, 6, 9), (2, 3), (2, 7, 7))
INDICES = ("starts", "others", "row_starts", "row_others", "row_places")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": normal(4, 5)}, ValueError, r"x has shape \(4, 5\); the structure needs \[..., 6\]"),
        ({"x": np.zeros([4, 6])}, TypeError, "x is float64"),
        ({"x": np.zeros([4, 6], int)}, TypeError, "x is int64"),
        ({"x": np.float32(1)}, ValueError, r"x has shape \(\)"),
        ({"values": normal(3, 2, 3)}, ValueError, r"values has shape \(3, 2, 3\)"),
        ({"values": np.zeros(MATRIX.values.shape)}, TypeError, "values is float64"),
        ({"bias": normal(8)}, ValueError, r"bias has shape \(8,\); the structure needs \[9\]"),
        ({"bias": np.zeros(9)}, TypeError, "bias is float64"),
        ({"activation": "gelu"}, ValueError, "activation = 'gelu'"),
        ({"structure": MATRIX.kernel}, TypeError, "structure is ndarray"),
        ({"structure": KERNEL.structure}, ValueError, "structure describes a kernel"),
    ],
)
def test_of_the_product(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"x": MATRIX.x, "values": MATRIX.values, "structure": MATRIX.structure, "bias": MATRIX.bias, **change}
    with pytest.raises(error, match=message):
        tf_ops.sparse_matmul(**arguments)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": normal(2, 7, 6)}, ValueError, r"x has shape \(2, 7, 6\)"),
        ({"x": normal(2, 7, 7, 5)}, ValueError, r"x has shape \(2, 7, 7, 5\)"),
        ({"x": normal(2, 2, 7, 6)}, ValueError, "x has 2 pixels where the kernel has 3"),
        ({"values": normal(3, 2, 3)}, ValueError, "values has shape"),
        ({"bias": normal(9, 1)}, ValueError, "bias has shape"),
        ({"strides": 0}, ValueError, "strides = 0"),
        ({"strides": (1, 2, 3)}, ValueError, "strides = "),
        ({"padding": "causal"}, ValueError, "padding = 'causal'"),
        ({"activation": "elu"}, ValueError, "activation = 'elu'"),
        ({"structure": MATRIX.structure}, ValueError, "structure describes a kernel"),
    ],
)
def test_of_the_convolution(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"x": KERNEL.x, "values": KERNEL.values, "structure": KERNEL.structure, "bias": KERNEL.bias, **change}
    with pytest.raises(error, match=message):
        tf_ops.sparse_conv2d(**arguments)


def test_shapes_that_are_known_only_when_a_graph_runs() -> None:
    function = tf.function(
        lambda x, values, bias: tf_ops.sparse_matmul(x, values, MATRIX.structure, bias=bias),
        input_signature=[tf.TensorSpec(None), tf.TensorSpec(None), tf.TensorSpec(None)],
        autograph=False,
    )
    np.testing.assert_allclose(
        function(MATRIX.x, MATRIX.values, MATRIX.bias), MATRIX.x @ MATRIX.kernel + MATRIX.bias, rtol=1e-5, atol=1e-5
    )
    for arguments, message in [
        ((normal(4, 5), MATRIX.values, MATRIX.bias), r"x has shape \[4,5\]; the structure needs \[...,6\]"),
        ((np.float32(1), MATRIX.values, MATRIX.bias), r"x has shape \[\]"),
        ((MATRIX.x, normal(4), MATRIX.bias), r"values has shape \[4\]"),
        ((MATRIX.x, MATRIX.values, normal(1, 9)), r"bias has shape \[1,9\]"),
    ]:
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            function(*arguments)


def library() -> Any:
    loaded = tf_ops.library.load()
    assert loaded is not None
    return loaded.ops


def inputs(structure: SparseStructure, conv: Any = None) -> dict[str, Any]:
    arrays = dict(zip(INDICES, structure.indices, strict=True))
    return {**arrays, "geometry": tf_ops.tensors.geometry(structure, conv)}


def changed(array: Any, place: int, value: int) -> Any:
    """The array with another number, as far as its type holds it: -1 is the largest one where there is no sign."""
    copy = np.array(array)
    copy[place] = np.int64(value).astype(copy.dtype)
    return copy


S = MATRIX.structure
BAD_INDICES = [
    ({"starts": S.starts[:-1]}, r"starts has shape \[3\]"),
    ({"starts": S.starts[None]}, "starts has shape"),
    ({"starts": changed(S.starts, 0, 1)}, "starts begins with 1"),
    ({"starts": changed(S.starts, -1, S.stored + 1)}, "starts ends with"),
    ({"starts": changed(S.starts, 1, S.stored + 7)}, "starts goes down"),
    ({"starts": changed(S.starts, 1, -(2**62))}, "starts goes down"),
    ({"others": S.others[:-1]}, "row_others has shape|others has shape"),
    ({"others": S.others.reshape(-1, 1)}, "others has shape"),
    ({"others": changed(S.others, 0, 3)}, "others holds a number"),
    ({"others": changed(S.others, -1, -1)}, "others holds a number"),
    ({"others": np.zeros_like(S.others)}, "others does not ascend"),
    ({"row_starts": S.starts[:2]}, "row_starts has shape"),
    ({"row_starts": changed(S.row_starts, -1, 2**40)}, "row_starts ends with"),
    ({"row_others": changed(S.row_others, 0, 2**31 - 1)}, "row_others holds a number"),
    ({"row_places": changed(S.row_places, 0, S.stored)}, "row_places holds a number"),
    ({"row_places": changed(S.row_places, 0, -1)}, "row_places holds a number"),
    ({"row_places": S.row_places[1:]}, "row_places has shape"),
    ({"geometry": np.zeros([0, 6, 9, 2], np.int8)}, "geometry has shape"),
    ({"geometry": np.zeros([1, 6, 9, 2, 3], np.int8)}, "geometry has shape"),
    ({"geometry": np.zeros([0, 0, 9, 2, 3], np.int8)}, "geometry has shape"),
    ({"geometry": np.zeros([0, 6, 9, 0, 3], np.int8)}, "geometry has shape"),
    ({"geometry": np.zeros([0, 2**40, 9, 2, 3], np.int8)}, "geometry has shape"),
]


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
@pytest.mark.parametrize(("change", "message"), BAD_INDICES)
def test_indices_that_are_no_structure(change: dict[str, Any], message: str, dtype: Any) -> None:
    given = {**inputs(S), **change}
    given = {name: array.astype(dtype) if array.dtype == np.uint16 else array for name, array in given.items()}
    for call in (
        lambda: library().keras_lth_sparse_matmul(x=MATRIX.x, values=MATRIX.values, bias=[], **given),
        lambda: library().keras_lth_sparse_matmul_grad_input(dy=normal(4, 9), values=MATRIX.values, **given),
        lambda: library().keras_lth_sparse_matmul_grad_values(x=MATRIX.x, dy=normal(4, 9), **given),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            call()


def test_arguments_of_the_gradients() -> None:
    ops, conv = library(), inputs(KERNEL.structure, (1, 1, False))
    for call, message in [
        (lambda: ops.keras_lth_sparse_matmul_grad_input(dy=normal(4, 8), values=MATRIX.values, **inputs(S)), "dy has"),
        (lambda: ops.keras_lth_sparse_matmul_grad_input(dy=normal(4, 9), values=normal(2), **inputs(S)), "values has"),
        (lambda: ops.keras_lth_sparse_matmul_grad_values(x=MATRIX.x, dy=normal(5, 9), **inputs(S)), "dy has"),
        (lambda: ops.keras_lth_sparse_matmul_grad_values(x=normal(4, 5), dy=normal(4, 9), **inputs(S)), "x has"),
        (lambda: ops.keras_lth_sparse_conv2d_grad_input(
            dy=normal(2, 5, 4, 9), values=KERNEL.values, x=KERNEL.x, **conv), "dy has"),
        (lambda: ops.keras_lth_sparse_conv2d_grad_input(
            dy=normal(2, 5, 5, 9), values=KERNEL.values, x=normal(2, 7, 7, 1), **conv), "x has"),
        (lambda: ops.keras_lth_sparse_conv2d_grad_values(x=KERNEL.x, dy=normal(1, 5, 5, 9), **conv), "dy has"),
        (lambda: ops.keras_lth_sparse_conv2d(x=normal(1, 2, 7, 6), values=KERNEL.values, bias=[], **conv), "x has 2"),
        (lambda: ops.keras_lth_sparse_conv2d(x=normal(7, 7, 6), values=KERNEL.values, bias=[], **conv), "x has shape"),
    ]:  # fmt: skip
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            call()


def test_the_shape_function_refuses_in_a_graph() -> None:
    @tf.function(input_signature=[tf.TensorSpec([None, 5])], autograph=False)
    def run(x: Any) -> Any:
        return library().keras_lth_sparse_matmul(x=x, values=MATRIX.values, bias=[], **inputs(S))

    with pytest.raises(ValueError, match=r"x has shape \[-1,5\] .*; the structure needs \[...,6\]"):
        run.get_concrete_function()


def test_dtypes_of_the_raw_ops() -> None:
    for change in ({"starts": tf.constant(S.starts, tf.int32)}, {"others": tf.constant(S.others, tf.int64)}):
        with pytest.raises((TypeError, tf.errors.InvalidArgumentError), match="int"):
            library().keras_lth_sparse_matmul(x=MATRIX.x, values=MATRIX.values, bias=[], **{**inputs(S), **change})


def test_a_result_larger_than_memory() -> None:
    side = 2**31 - 1
    given = {
        "starts": np.zeros(2, np.int64),
        "others": np.zeros(0, np.int32),
        "row_starts": np.zeros(2, np.int64),
        "row_others": np.zeros(0, np.int32),
        "row_places": np.zeros(0, np.int32),
        "geometry": np.zeros([0, 1, side, 1, side], np.int8),
    }
    values = np.zeros([0, 1, side], np.float32)
    with pytest.raises(tf.errors.ResourceExhaustedError):
        library().keras_lth_sparse_matmul(x=np.zeros([2**20, 1], np.float32), values=values, bias=[], **given)


def test_indices_are_checked_again_when_they_change() -> None:
    """A kernel that has seen good indices looks at others, even where they lie at the same place."""
    good = {name: tf.Variable(array) for name, array in zip(INDICES, S.indices, strict=True)}

    @tf.function(autograph=False)
    def run(x: Any) -> Any:
        arrays = {name: variable.read_value() for name, variable in good.items()}
        return library().keras_lth_sparse_matmul(
            x=x, values=MATRIX.values, bias=[], geometry=inputs(S)["geometry"], **arrays
        )

    wanted = MATRIX.x @ MATRIX.kernel
    for _ in range(3):
        np.testing.assert_allclose(run(MATRIX.x), wanted, rtol=1e-5, atol=1e-5)
        good["others"].scatter_nd_update([[0]], [77])
        with pytest.raises(tf.errors.InvalidArgumentError, match="others holds a number"):
            run(MATRIX.x)
        good["others"].assign(S.others)


def test_indices_under_xla_that_are_no_structure(capfd: pytest.CaptureFixture[str]) -> None:
    """TensorFlow exports no way for a custom call to fail: the result is NaN, and stderr says why."""
    loaded = tf_ops.library.load()
    assert loaded is not None
    target = loaded.xla_target

    @tf.function(jit_compile=True, autograph=False)
    def run(others: Any) -> Any:
        arrays = [S.starts, others, S.row_starts, S.row_others, S.row_places]
        structure = [*map(tf.convert_to_tensor, arrays), inputs(S)["geometry"]]
        return tf_ops.xla.product(
            target, tf.constant(MATRIX.x), tf.constant(MATRIX.values), structure, None, False, False
        )

    np.testing.assert_allclose(run(tf.constant(S.others)), MATRIX.x @ MATRIX.kernel, rtol=1e-5, atol=1e-5)
    result = run(tf.constant(changed(S.others, 0, 77)))
    assert result.shape == (4, 9)
    assert np.isnan(result).all()
    assert "a sparse product under XLA failed: others holds a number" in capfd.readouterr().err


def test_a_call_under_xla_checks_the_lists_that_it_reads(capfd: pytest.CaptureFixture[str]) -> None:
    """The product and the gradient of its values read one order of the blocks, the gradient of its input the other."""
    loaded = tf_ops.library.load()
    assert loaded is not None
    target = loaded.xla_target

    @tf.function(jit_compile=True, autograph=False)
    def run(row_places: Any) -> Any:
        arrays = [S.starts, S.others, S.row_starts, S.row_others, row_places]
        structure = [*map(tf.convert_to_tensor, arrays), inputs(S)["geometry"]]
        x, values = tf.constant(MATRIX.x), tf.constant(MATRIX.values)
        with tf.GradientTape() as tape:
            tape.watch([x, values])
            y = tf_ops.xla.product(target, x, values, structure, None, False, False)
        return y, *tape.gradient(y, [x, values])

    good, bad = run(tf.constant(S.row_places)), run(tf.constant(changed(S.row_places, 0, -1)))
    np.testing.assert_array_equal(bad[0], good[0])
    assert np.isnan(bad[1]).all()
    np.testing.assert_array_equal(bad[2], good[2])
    assert "row_places holds a number" in capfd.readouterr().err
