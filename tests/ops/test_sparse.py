"""Sparse products of NumPy arrays against dense float64, SciPy and TensorFlow's rule for padding."""

from __future__ import annotations

import itertools
from typing import Any

import hypothesis.strategies as st
import ml_dtypes
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings

from keras_lth import _core, ops
from keras_lth.ops import SparseStructure, sparse
from tests.forms import examples
from tests.ops.test_structure import mask_of_blocks

BLOCKS = [None, (1, 16), (4, 4), (8, 8), (16, 16), (32, 32), (64, 64), (3, 5), (16, 1), (2, 32)]


@pytest.fixture(params=["extension", "numpy"], autouse=True)
def core(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test runs with the extension and as if it had not been built."""
    if request.param == "numpy":
        monkeypatch.setattr(sparse, "CORE", None)


def problem(
    shape: tuple[int, ...], block: Any, density: float, seed: int, more_room: int = 0
) -> tuple[SparseStructure, Any, Any]:
    structure = SparseStructure.from_mask(mask_of_blocks(shape, block, density, seed), block)
    structure = SparseStructure.from_mask(structure.mask(), block, structure.stored + more_room)
    kernel = np.random.default_rng(seed).normal(size=shape).astype(np.float32) * structure.mask()
    values = structure.values(kernel)
    values[structure.stored :] = np.nan
    return structure, values, kernel.astype(np.float64)


def normal(*shape: int, seed: int = 1) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def close(got: Any, wanted: Any) -> None:
    assert got.dtype == np.float32
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=2e-5 * max(1.0, float(np.abs(wanted).max(initial=0.0))))


@settings(deadline=None, max_examples=examples(60))
@given(
    st.integers(1, 70), st.integers(1, 70), st.sampled_from(BLOCKS), st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    st.sampled_from([0, 1, 2, 5, 8, 15, 16, 17, 33, 64, 65, 130]), st.sampled_from([0, 0, 1, 9]),
    st.integers(0, 99),
)  # fmt: skip
def test_matmul(inputs: int, outputs: int, block: Any, density: float, batch: int, room: int, seed: int) -> None:
    structure, values, kernel = problem((inputs, outputs), block, density, seed, room)
    x, dy, bias = normal(batch, inputs), normal(batch, outputs, seed=2), normal(outputs, seed=3)
    close(ops.sparse_matmul(x, values, structure), x @ kernel)
    close(ops.sparse_matmul(x, values, structure, bias=bias), x @ kernel + bias)
    close(ops.sparse_matmul(x, values, structure, bias=bias, activation="relu"), np.maximum(x @ kernel + bias, 0))
    dx, dvalues = ops.sparse_matmul_gradients(x, dy, values, structure)
    close(dx, dy @ kernel.T)
    close(dvalues, structure.values((x.astype(np.float64).T @ dy) * structure.mask()))
    assert not dvalues[structure.stored :].any()


def test_wide_and_deep_beside_scipy() -> None:
    for block, density in itertools.product([None, (16, 16), (4, 4)], [0.02, 0.1]):
        structure, values, kernel = problem((1000, 700), block, density, 0)
        x, dy = normal(130, 1000), normal(130, 700, seed=2)
        close(ops.sparse_matmul(x, values, structure), (scipy.sparse.csr_array(kernel.T) @ x.T.astype(np.float64)).T)
        dx, dvalues = ops.sparse_matmul_gradients(x, dy, values, structure)
        close(dx, (scipy.sparse.csr_array(kernel) @ dy.T.astype(np.float64)).T)
        close(dvalues, structure.values((x.astype(np.float64).T @ dy) * structure.mask()))


def test_leading_axes_are_a_batch() -> None:
    structure, values, kernel = problem((6, 9), None, 0.5, 0)
    x = normal(2, 3, 4, 6)
    close(ops.sparse_matmul(x, values, structure), x @ kernel)
    close(ops.sparse_matmul(x[0, 0, 0], values, structure), x[0, 0, 0] @ kernel)
    dx, dvalues = ops.sparse_matmul_gradients(x, normal(2, 3, 4, 9), values, structure)
    assert dx.shape == x.shape
    assert dvalues.shape == values.shape


def test_views_are_read_right() -> None:
    structure, values, kernel = problem((6, 9), None, 0.5, 0)
    x = normal(12, 10)[::2, ::-1][:, :6]
    assert not x.flags.c_contiguous
    close(ops.sparse_matmul(x, values, structure), x @ kernel)
    frozen = np.ascontiguousarray(x)
    frozen.flags.writeable = False
    close(ops.sparse_matmul(frozen, values, structure), x @ kernel)


def test_values_change_without_a_new_structure() -> None:
    structure, values, kernel = problem((32, 32), (16, 16), 0.5, 0)
    x = normal(20, 32)
    for factor in (1, -2, 3):
        close(ops.sparse_matmul(x, factor * values, structure), factor * (x @ kernel))


@pytest.mark.parametrize("block", [None, (8, 8), (16, 16)])
def test_bfloat16_values_are_summed_in_float32(block: Any) -> None:
    structure, values, _ = problem((64, 48), block, 0.5, 0)
    narrow = values.astype(ml_dtypes.bfloat16)
    x = normal(40, 64)
    kernel = structure.to_dense(narrow).astype(np.float64)
    close(ops.sparse_matmul(x, narrow, structure), x @ kernel)
    dx, _ = ops.sparse_matmul_gradients(x, normal(40, 48), narrow, structure)
    close(dx, normal(40, 48) @ kernel.T)


def naive_conv(x: Any, kernel: Any, strides: tuple[int, int], same: bool) -> Any:
    sizes, pads = [], []
    for size, k, step in zip(x.shape[1:3], kernel.shape[:2], strides, strict=True):
        out = -(-size // step) if same else (size - k) // step + 1
        total = max(0, (out - 1) * step + k - size) if same else 0
        sizes.append(out)
        pads.append((total // 2, total - total // 2))
    padded = np.pad(x.astype(np.float64), ((0, 0), *pads, (0, 0)))
    y = np.zeros((len(x), *sizes, kernel.shape[3]))
    for row, col in np.ndindex(*sizes):
        top, left = row * strides[0], col * strides[1]
        window = padded[:, top : top + kernel.shape[0], left : left + kernel.shape[1]]
        y[:, row, col] = np.einsum("nhwi,hwio->no", window, kernel)
    return y


@settings(deadline=None, max_examples=examples(60))
@given(
    st.integers(1, 12), st.integers(1, 12), st.sampled_from([(1, 1), (3, 3), (5, 5), (7, 7), (1, 3), (2, 4)]),
    st.sampled_from([(1, 1), (2, 2), (1, 2), (3, 3)]), st.booleans(), st.sampled_from([1, 2, 3, 16, 17]),
    st.sampled_from([None, (4, 4), (1, 16), (16, 16), (3, 2)]), st.sampled_from([0, 0, 1, 9]),
    st.integers(0, 99),
)  # fmt: skip
def test_conv2d(
    height: int, width: int, k: tuple[int, int], strides: tuple[int, int], same: bool, batch: int, block: Any,
    room: int, seed: int,
) -> None:  # fmt: skip
    if not same and (height < k[0] or width < k[1]):
        height, width = height + k[0], width + k[1]
    random = np.random.default_rng(seed)
    inputs, outputs = (int(n) for n in random.integers(1, 20, 2))
    structure, values, kernel = problem((*k, inputs, outputs), block, 0.4, seed, room)
    x, bias = normal(batch, height, width, inputs), normal(outputs, seed=3)
    padding = "same" if same else "valid"
    wanted = naive_conv(x, kernel, strides, same)
    close(ops.sparse_conv2d(x, values, structure, strides=strides, padding=padding), wanted)
    got = ops.sparse_conv2d(x, values, structure, strides=strides, padding=padding, bias=bias, activation="relu")
    close(got, np.maximum(wanted + bias, 0))
    dy = normal(*wanted.shape, seed=2)
    dx, dvalues = ops.sparse_conv2d_gradients(x, dy, values, structure, strides=strides, padding=padding)
    # The result is linear in x and in the values: <dy, conv(u, v)> is <dx, u> for v = values, <dvalues, v> for u = x.
    u = normal(*x.shape, seed=4)
    total = float(np.sum(dy * naive_conv(u, kernel, strides, same)))
    scale = float(np.abs(dy).sum()) + 1.0
    assert float(np.sum(dx.astype(np.float64) * u)) == pytest.approx(total, abs=1e-5 * scale)
    other = normal(*kernel.shape, seed=5) * structure.mask()
    total = float(np.sum(dy * naive_conv(x, other.astype(np.float64), strides, same)))
    assert float(np.sum(dvalues.astype(np.float64) * structure.values(other))) == pytest.approx(total, abs=1e-5 * scale)
    assert not dvalues[structure.stored :].any()


def test_the_bits_depend_on_no_thread_count() -> None:
    for shape, block in (((200, 300), None), ((256, 128), (16, 16)), ((256, 128), (4, 4))):
        structure, values, _ = problem(shape, block, 0.3, 0)
        x, dy = normal(100, shape[0]), normal(100, shape[1], seed=2)
        for isa in _core.supported():
            results = []
            for threads in (1, 2, 3, 7):
                y, dx = np.empty_like(dy), np.empty_like(x)
                dvalues = np.empty_like(values)
                _core.multiply(structure, values, x, None, False, y, isa=isa, threads=threads)
                _core.multiply_transposed(structure, values, dy, dx, isa=isa, threads=threads)
                _core.sample_product(structure, x, dy, dvalues, isa=isa, threads=threads)
                results.append((y.tobytes(), dx.tobytes(), dvalues.tobytes()))
            assert len(set(results)) == 1
            close(y, x @ structure.to_dense(values).astype(np.float64))


S22, V22, _ = problem((2, 2), None, 1.0, 0)
K33, W33, _ = problem((3, 3, 2, 2), None, 1.0, 0)
X4 = np.ones((1, 5, 5, 2), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ops.sparse_matmul(np.ones((3, 2)), V22, S22), TypeError, "x is float64, not float32"),
        (lambda: ops.sparse_matmul(normal(3, 5), V22, S22), ValueError, r"x has shape \(3, 5\); the structure needs"),
        (lambda: ops.sparse_matmul(np.float32(1), V22, S22), ValueError, r"x has shape \(\)"),
        (lambda: ops.sparse_matmul(normal(3, 2), V22[:3], S22), ValueError, r"values has shape \(3, 1, 1\)"),
        (lambda: ops.sparse_matmul(normal(3, 2), V22.astype(int), S22), TypeError, "values is int64"),
        (lambda: ops.sparse_matmul(normal(3, 2), V22, np.eye(2)), TypeError, "structure is ndarray"),
        (lambda: ops.sparse_matmul(normal(3, 2), W33, K33), ValueError, r"kernel \(3, 3, 2, 2\); sparse_matmul needs"),
        (lambda: ops.sparse_matmul(normal(3, 2), V22, S22, bias=normal(3)), ValueError, r"bias has shape \(3,\)"),
        (lambda: ops.sparse_matmul(normal(3, 2), V22, S22, activation="tanh"), ValueError, "activation = 'tanh'"),
        (
            lambda: ops.sparse_matmul_gradients(normal(3, 2), normal(4, 2), V22, S22),
            ValueError,
            "all axes but the last",
        ),
        (lambda: ops.sparse_conv2d(normal(5, 5, 2), W33, K33), ValueError, r"x has shape \(5, 5, 2\)"),
        (lambda: ops.sparse_conv2d(X4, V22, S22), ValueError, r"kernel \(2, 2\); sparse_conv2d needs"),
        (lambda: ops.sparse_conv2d(X4[:, :2], W33, K33), ValueError, "2 pixels where the kernel has 3"),
        (lambda: ops.sparse_conv2d(X4, W33, K33, strides=0), ValueError, "strides = 0"),
        (lambda: ops.sparse_conv2d(X4, W33, K33, strides=(1, 2, 1)), ValueError, "strides"),
        (lambda: ops.sparse_conv2d(X4, W33, K33, padding="full"), ValueError, "padding = 'full'"),
        (lambda: ops.sparse_conv2d_gradients(X4, X4, W33, K33), ValueError, "dy has shape"),
    ],
)
def test_bad_arguments(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("field", ["starts", "others", "row_starts", "row_others", "row_places"])
def test_broken_indices_are_refused(field: str) -> None:
    structure, values, _ = problem((6, 9), None, 0.5, 0)
    x, y = normal(4, 6), np.empty((4, 9), np.float32)
    _core.multiply(structure, values, x, None, False, y)  # remembers the arrays that it has checked
    good = getattr(structure, field)
    for place, value in ((0, -1), (1, 1000), (len(good) - 1, 2**31 - 1)):
        broken = good.copy()
        broken[place] = np.int64(value).astype(broken.dtype)
        setattr(structure, field, broken)
        with pytest.raises(ValueError, match=r"by_(col|row)\."):
            _core.multiply(structure, values, x, None, False, y)
    for array in (good[:-1], good.astype(np.float64), np.repeat(good, 2)[::2]):
        setattr(structure, field, array)
        with pytest.raises(ValueError, match=f"{field}: a C-contiguous"):
            _core.multiply(structure, values, x, None, False, y)
