"""SparseStructure against loops over blocks."""

from __future__ import annotations

import itertools
import pickle
from typing import Any

import hypothesis.strategies as st
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings

from keras_lth import ops
from keras_lth.ops import SparseStructure

shapes = st.one_of(
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
)
blocks = st.one_of(st.none(), st.tuples(st.integers(1, 8), st.integers(1, 8)))


def mask_of_blocks(shape: tuple[int, ...], block: tuple[int, int] | None, density: float, seed: int) -> Any:
    rows, cols = block or (1, 1)
    random = np.random.default_rng(seed)
    mask = np.zeros(shape, bool)
    for tap in np.ndindex(shape[:-2]):
        for row, col in itertools.product(range(0, shape[-2], rows), range(0, shape[-1], cols)):
            mask[tap][row : row + rows, col : col + cols] = random.random() < density
    return mask


@settings(deadline=None)
@given(shapes, blocks, st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.integers(0, 99))
def test_against_loops(shape: tuple[int, ...], block: Any, density: float, seed: int) -> None:
    mask = mask_of_blocks(shape, block, density, seed)
    structure = SparseStructure.from_mask(mask, block)
    rows, cols = block or (1, 1)
    assert (structure.rows, structure.cols) == shape[-2:]
    assert structure.taps == int(np.prod(shape[:-2]))
    taps = mask.reshape(-1, *shape[-2:])
    groups = (-(-shape[-2] // rows), -(-shape[-1] // cols))
    kernel = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    flat = kernel.reshape(taps.shape)
    listed = []
    for col in range(groups[1]):
        assert structure.starts[col] == len(listed)
        for tap, row in itertools.product(range(len(taps)), range(groups[0])):
            if taps[tap, row * rows, col * cols]:
                listed.append((tap * groups[0] + row, col))
                tile = np.zeros((rows, cols), np.float32)
                part = flat[tap, row * rows : (row + 1) * rows, col * cols : (col + 1) * cols]
                tile[: part.shape[0], : part.shape[1]] = part
                np.testing.assert_array_equal(structure.values(kernel)[len(listed) - 1], tile)
    assert structure.starts[-1] == structure.stored == len(listed)
    assert structure.others.tolist() == [row for row, _ in listed]
    by_row = sorted((row, col, i) for i, (row, col) in enumerate(listed))
    assert structure.row_others.tolist() == [col for _, col, _ in by_row]
    assert structure.row_places.tolist() == [i - structure.starts[col] for _, col, i in by_row]
    in_group = [sum(row == group for row, _, _ in by_row) for group in range(len(taps) * groups[0])]
    assert np.diff(structure.row_starts).tolist() == in_group
    np.testing.assert_array_equal(structure.to_dense(structure.values(kernel)), kernel * mask)
    np.testing.assert_array_equal(structure.mask(), mask)
    assert structure.density == pytest.approx(mask.mean())


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((2**16, 2), "uint16"),
        ((2**16 + 1, 2), "int32"),
        ((2, 2**16), "uint16"),
        ((2, 2**16 + 1), "int32"),
        ((3, 3, 7281, 2), "uint16"),
        ((3, 3, 7282, 2), "int32"),
    ],
)
def test_indices_have_16_bits_where_these_hold_all_groups(shape: tuple[int, ...], dtype: str) -> None:
    """2^16 groups have the numbers up to 2^16 - 1; an output group of as many blocks has places up to that, too."""
    mask = np.zeros(shape, np.bool_)
    mask[..., -1] = True
    mask[..., -1, :] = True
    structure = SparseStructure.from_mask(mask)
    assert {array.dtype.name for array in structure.indices} == {"int64", dtype}
    assert structure.row_places.max() == structure.others.max() == np.prod(shape[:-1]) - 1
    assert structure.row_others.max() == shape[-1] - 1
    np.testing.assert_array_equal(structure.mask(), mask)
    kernel = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    values, kept = structure.values(kernel), kernel * mask
    if len(shape) == 2:
        x = np.random.default_rng(2).normal(size=(5, shape[0])).astype(np.float32)
        dy = np.ones((5, shape[1]), np.float32)
        np.testing.assert_allclose(ops.sparse_matmul(x, values, structure), x @ kept, rtol=1e-4, atol=1e-3)
        dx, dvalues = ops.sparse_matmul_gradients(x, dy, values, structure)
        np.testing.assert_allclose(dx, dy @ kept.T, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(dvalues, structure.values(x.T @ dy), rtol=1e-4, atol=1e-3)


@settings(deadline=None)
@given(shapes, blocks, st.sampled_from([0.0, 0.3, 1.0]), st.integers(0, 5), st.integers(0, 99))
def test_room(shape: tuple[int, ...], block: Any, density: float, more: int, seed: int) -> None:
    mask = mask_of_blocks(shape, block, density, seed)
    tight = SparseStructure.from_mask(mask, block)
    stored = tight.stored
    assert tight.room == stored
    structure = SparseStructure.from_mask(mask, block, room=stored + more)
    assert (structure.stored, structure.room) == (stored, stored + more)
    assert structure.starts[-1] == structure.row_starts[-1] == stored
    for got, wanted in zip(structure.indices, tight.indices, strict=True):
        assert got.dtype == wanted.dtype
        np.testing.assert_array_equal(got[: len(wanted)], wanted)
        assert not got[len(wanted) :].any()
    kernel = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    values = structure.values(kernel)
    np.testing.assert_array_equal(values[:stored], tight.values(kernel))
    assert values.shape == (stored + more, *structure.block)
    assert not values[stored:].any()
    values[stored:] = np.nan
    np.testing.assert_array_equal(structure.to_dense(values), kernel * mask)
    np.testing.assert_array_equal(structure.mask(), mask)
    assert structure.density == tight.density
    assert (structure == tight) == (more == 0)
    same = SparseStructure.from_mask(mask, block, room=np.int64(stored + more))
    read = pickle.loads(pickle.dumps(structure))
    assert structure == same == read
    assert hash(structure) == hash(same) == hash(read)
    assert (f"stored={stored}, room={stored + more}, " in repr(structure)) == (more > 0)


@pytest.mark.parametrize(
    ("room", "error", "message"),
    [
        (3, ValueError, "room = 3 for a mask of 4 blocks: give 4 to 2147483647, or None for 4"),
        (-1, ValueError, "room = -1 "),
        (2**31, ValueError, "room = 2147483648 "),
        (4.5, TypeError, "room must be an integer or None, not 4.5"),
    ],
)
def test_bad_room(room: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SparseStructure.from_mask(np.eye(4, dtype=bool), room=room)


def test_values_keep_bfloat16_and_narrow_float64() -> None:
    structure = SparseStructure.from_mask(np.eye(3, dtype=bool))
    assert structure.values(np.eye(3)).dtype == np.float32
    assert structure.values(np.eye(3, dtype=ml_dtypes.bfloat16)).dtype == ml_dtypes.bfloat16


def test_equal_structures_are_equal() -> None:
    mask = np.random.default_rng(0).random((6, 8)) < 0.5
    one, same, other = (SparseStructure.from_mask(m) for m in (mask, mask.copy(), ~mask))
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one != "a mask"
    assert repr(one) == f"SparseStructure(shape=(6, 8), block=(1, 1), stored={mask.sum()}, density={mask.mean():.4g})"
    with pytest.raises(ValueError, match="read-only"):
        one.others[0] = 1


@pytest.mark.parametrize(
    ("mask", "block", "error", "message"),
    [
        (np.ones((4, 4)), None, TypeError, "mask is float64, not bool"),
        (np.ones(4, bool), None, ValueError, r"mask has shape \(4,\)"),
        (np.ones((4, 0), bool), None, ValueError, "without empty axes"),
        (np.ones((4, 4), bool), "ab", TypeError, "block must be an integer or two"),
        (np.ones((4, 4), bool), (2, 2, 2), ValueError, "two sides"),
        (np.ones((4, 4), bool), 0, ValueError, "at least 1"),
        (np.eye(4, dtype=bool), 2, ValueError, "keeps 2 of 2 blocks 2x2 only in part"),
        (np.eye(3, dtype=bool), 2, ValueError, "keeps 1 of 2 blocks 2x2 only in part"),
    ],
)
def test_bad_arguments(mask: Any, block: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SparseStructure.from_mask(mask, block)


def test_bad_values() -> None:
    structure = SparseStructure.from_mask(np.eye(4, dtype=bool))
    with pytest.raises(ValueError, match=r"kernel has shape \(4, 5\), but the structure has \(4, 4\)"):
        structure.values(np.ones((4, 5)))
    with pytest.raises(ValueError, match=r"values has shape \(4,\), the structure stores \(4, 1, 1\)"):
        structure.to_dense(np.ones(4))
