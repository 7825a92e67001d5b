"""n of every m, blocks, neurons and channels: against loops over single values, and counts that follow from shapes."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_lth import _core, ops

sys.path.insert(0, str(Path(__file__).resolve().parent))

from select_cases import DTYPES, ORDERS, bools, each_dtype, numpy_only, rank, same, shaped

from tests.forms import examples


def n_of_m_by_loops(x: np.ndarray, n: int, m: int, axis: int, mask: np.ndarray | None, by: str, largest: bool) -> Any:
    out = np.zeros(x.shape, bool)
    for index in np.ndindex(*np.delete(x.shape, axis)):
        line = [(*index[: axis % x.ndim], j, *index[axis % x.ndim :]) for j in range(x.shape[axis])]
        for start in range(0, len(line), m):
            group = [at for at in line[start : start + m] if mask is None or mask[at]]
            for at in sorted(group, key=lambda at: rank(x[at], by, largest))[:n]:
                out[at] = True
    return out


@st.composite
def lines(draw: st.DrawFn) -> dict[str, Any]:
    shape = tuple(draw(st.lists(st.integers(0, 9), min_size=1, max_size=3)))
    m = draw(st.integers(1, 12))
    by, largest = draw(st.sampled_from(ORDERS))
    return {
        "x": draw(shaped(draw(st.sampled_from(DTYPES)), shape)),
        "n": draw(st.integers(1, m)),
        "m": m,
        "axis": draw(st.integers(-len(shape), len(shape) - 1)),
        "mask": draw(bools(shape)) if draw(st.booleans()) else None,
        "by": by,
        "largest": largest,
    }


@settings(max_examples=examples(200), deadline=None)
@given(lines())
def test_n_of_m(case: dict[str, Any]) -> None:
    expected = n_of_m_by_loops(*case.values())
    options = {name: case[name] for name in ("mask", "by", "largest")}
    arguments = case["x"], case["n"], case["m"], case["axis"]
    assert np.array_equal(ops.n_of_m_masks(*arguments, **options), expected)
    if case["mask"] is not None:
        options["mask"] = np.packbits(case["mask"])
    assert np.array_equal(ops.n_of_m_masks(*arguments, packed=True, **options), np.packbits(expected))
    with numpy_only():
        assert np.array_equal(ops.n_of_m_masks(*arguments, **options), expected)


@each_dtype
def test_two_of_four_on_kernels(dtype: np.dtype[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Along the inputs of a large kernel, by every instruction set; half of each four remain."""
    x = np.random.default_rng(0).standard_normal((3, 3, 64, 130)).astype(dtype)
    order = np.argsort(-np.abs(x.astype(np.float64)).reshape(9, 16, 4, 130), axis=2, kind="stable")
    expected = np.zeros((9, 16, 4, 130), bool)
    np.put_along_axis(expected, order[:, :, :2], True, axis=2)
    for isa in _core.supported():
        monkeypatch.setenv("KERAS_LTH_ISA", isa)
        mask = ops.n_of_m_masks(x, 2, 4, axis=-2)
        assert np.array_equal(mask, expected.reshape(x.shape))
        rows = ops.n_of_m_masks(x, 13, 130)  # each row for itself
        assert (rows.sum(-1) == 13).all()
        assert all(np.array_equal(rows[0, 0, i], ops.top_k_masks([x[0, 0, i]], 13)[0]) for i in range(64))


def block_score(x: np.ndarray, mask: np.ndarray, by: str, reduce: str) -> tuple[float, int]:
    """In the order that the documentation promises, a scalar at a time."""
    columns = [0.0] * x.shape[1]
    for r in range(x.shape[0]):
        for c in range(x.shape[1]):
            if mask[r, c]:
                columns[c] += float(x[r, c]) if by == "value" else abs(float(x[r, c]))
    eight = [0.0] * 8
    for c, total in enumerate(columns):
        eight[c % 8] += total
    score = 0.0
    for total in eight:
        score += total
    count = int(mask.sum())
    return (score / count if reduce == "mean" and count else score), count


@st.composite
def kernels(draw: st.DrawFn) -> dict[str, Any]:
    dtype = draw(st.sampled_from(DTYPES))
    taps = tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
    shapes = [(*taps, draw(st.integers(0, 9)), draw(st.integers(0, 20))) for _ in range(draw(st.integers(1, 3)))]
    by, largest = draw(st.sampled_from(ORDERS))
    arrays = [draw(shaped(dtype, shape)) for shape in shapes]
    if by == "value":  # inf and -inf in one block have no sum
        arrays = [np.where(np.isfinite(array), array / dtype.type(64), dtype.type(1)) for array in arrays]
    return {
        "arrays": arrays,
        "masks": [draw(bools(shape)) for shape in shapes] if draw(st.booleans()) else None,
        "block": (draw(st.integers(1, 5)), draw(st.integers(1, 12))),
        "reduce": draw(st.sampled_from(["mean", "sum"])),
        "by": by,
        "largest": largest,
    }


@settings(max_examples=examples(150), deadline=None)
@given(kernels(), st.data())
def test_blocks(case: dict[str, Any], data: st.DataObject) -> None:
    arrays, masks, (rows, cols) = case["arrays"], case["masks"], case["block"]
    ranked, scores = [], []
    for i, x in enumerate(arrays):
        counted = (*x.shape[:-2], math.ceil(x.shape[-2] / rows), math.ceil(x.shape[-1] / cols))
        scores.append(np.zeros(counted))
        for at in np.ndindex(*counted):
            where = (*at[:-2], slice(at[-2] * rows, (at[-2] + 1) * rows), slice(at[-1] * cols, (at[-1] + 1) * cols))
            mask = np.ones(x[where].shape, bool) if masks is None else masks[i][where]
            scores[i][at], count = block_score(x[where], mask, case["by"], case["reduce"])
            if count:
                ranked.append((-scores[i][at] if case["largest"] else scores[i][at], i, at, where))
    k = data.draw(st.integers(0, len(ranked)))
    expected = [np.zeros(x.shape, bool) for x in arrays]
    for _, i, _, where in sorted(ranked, key=lambda row: row[:3])[:k]:
        expected[i][where] = True if masks is None else masks[i][where]
    options = {name: case[name] for name in ("masks", "block", "reduce", "by", "largest")}
    with numpy_only():
        assert same(ops.top_k_masks(arrays, k, **options), expected)
    assert same(ops.top_k_masks(arrays, k, **options), expected)
    assert same(ops.top_k_masks(arrays, k, packed=True, **options), [np.packbits(mask) for mask in expected])
    for i, x in enumerate(arrays):
        mask = None if masks is None else masks[i]
        got = ops.group_scores(x, block=case["block"], reduce=case["reduce"], by=case["by"], mask=mask)
        assert got.shape == scores[i].shape and got.tobytes() == scores[i].tobytes()
        everything = np.ones(x.shape, bool) if mask is None else mask
        assert ops.count_groups(everything, block=case["block"]) == sum(row[1] == i for row in ranked)
    with pytest.raises(
        ValueError, match=rf"k = {len(ranked) + 1} is outside 0...{len(ranked)}, the number of eligible"
    ):
        ops.top_k_masks(arrays, len(ranked) + 1, **options)


@each_dtype
def test_scores_have_the_same_bits_everywhere(dtype: np.dtype[Any]) -> None:
    """Sums that round, by every instruction set and number of threads."""
    x = np.random.default_rng(2).standard_normal((513, 1030)).astype(dtype)
    for sides in [(16, 16), (1, 16), (4, 4), (64, 700), (513, 1), (1, 1030), (512, 1029)]:
        blocks = (math.ceil(513 / sides[0]), math.ceil(1030 / sides[1]))
        found = set()
        for isa in _core.supported():
            for threads in (1, 3):
                scores, counts = np.empty(blocks), np.empty(blocks, np.int64)
                view = (1, 513, 1030, *sides)
                assert _core.score_blocks(x, None, dtype.name, False, False, view, scores, counts, isa, threads) is None
                found.add(scores.tobytes())
        assert len(found) == 1 and int(counts.sum()) == x.size
        assert np.allclose(scores.sum(), np.abs(x.astype(np.float64)).sum(), rtol=1e-12)


def test_neurons_and_channels() -> None:
    kernel = np.random.default_rng(3).standard_normal((3, 3, 5, 7)).astype(np.float32)
    for axis in range(-4, 4):
        others = tuple(a for a in range(4) if a != axis % 4)
        scores = ops.group_scores(kernel, axis=axis)
        assert np.allclose(scores, np.abs(kernel.astype(np.float64)).mean(others), rtol=1e-14)
        (mask,) = ops.top_k_masks([kernel], 2, axis=axis)
        best = np.argsort(-scores)[:2]
        kept = np.flatnonzero(mask.any(others))
        assert (
            sorted(best) == kept.tolist()
            and mask.take(kept, axis).all()
            and int(mask.sum()) == 2 * mask.size / mask.shape[axis]
        )
        assert ops.count_groups(mask, axis=axis) == 2
    # Over layers the mean ranks neurons whatever their number of inputs, the sum favours many inputs.
    layers = [np.full((100, 2), 1.0), np.full((10, 2), 5.0)]
    assert [int(m.sum()) for m in ops.top_k_masks(layers, 2, axis=-1)] == [0, 20]
    assert [int(m.sum()) for m in ops.top_k_masks(layers, 2, axis=-1, reduce="sum")] == [200, 0]


def test_edge_blocks_and_groups_without_values() -> None:
    x = np.ones((5, 5))
    assert ops.group_scores(x, block=(4, 4), reduce="sum").tolist() == [[16.0, 4.0], [4.0, 1.0]]
    assert ops.group_scores(x, block=(4, 4)).tolist() == [[1.0, 1.0], [1.0, 1.0]]
    (mask,) = ops.top_k_masks([x], 3, block=(4, 4))
    assert mask.tolist() == [[True] * 5] * 4 + [[True] * 4 + [False]]
    allowed = np.zeros((5, 5), bool)
    allowed[4] = True
    assert ops.count_groups(allowed, block=(4, 4)) == 2
    (mask,) = ops.top_k_masks([x], 1, block=(4, 4), masks=[allowed])
    assert mask.tolist() == [[False] * 5] * 4 + [[True] * 4 + [False]]
    for shape in [(0, 4), (4, 0), (0, 0)]:
        assert ops.group_scores(np.zeros(shape), block=(2, 2)).size == 0
        assert ops.group_scores(np.zeros(shape), axis=0).shape == (0,)
        assert ops.top_k_masks([np.zeros(shape), np.ones((2, 2))], 1, axis=1)[0].shape == shape
        assert ops.count_groups(np.ones(shape, bool), axis=1) == 0
    assert ops.top_k_masks([], 0, block=(2, 2)) == []
    assert ops.n_of_m_masks(np.zeros((0, 4)), 2, 4).shape == (0, 4)


def test_layouts_are_read_as_what_they_hold() -> None:
    base = np.random.default_rng(5).standard_normal((12, 18)).astype(np.float32)
    views = [base[::2, ::3], base.T, np.asfortranarray(base), base.astype(">f4"), np.broadcast_to(base[0], (4, 18))]
    for view in views:
        plain = np.array(view.tolist(), np.float32)
        assert np.array_equal(ops.n_of_m_masks(view, 1, 3), ops.n_of_m_masks(plain, 1, 3))
        assert same(ops.top_k_masks([view], 2, block=(2, 3)), ops.top_k_masks([plain], 2, block=(2, 3)))
        strided = np.zeros((plain.shape[0], 2 * plain.shape[1]), bool)[:, ::2]
        strided[:, :3] = True
        assert ops.top_k_masks([view], 1, axis=0, masks=[strided])[0].sum() == 3


@pytest.mark.parametrize("core", [True, False])
def test_bad_groups(core: bool) -> None:
    x = np.ones((4, 6), np.float32)
    nan = np.ones((4, 6), np.float32)
    nan[2, 5] = np.nan
    closed = np.zeros((4, 6), bool)
    opposite = np.array([[1.0, np.inf], [-np.inf, 1.0]])
    cases: list[tuple[type[Exception], str, Any]] = [
        (ValueError, "n = 5, m = 4: use 1 <= n <= m", lambda: ops.n_of_m_masks(x, 5, 4)),
        (ValueError, "n = 0, m = 4", lambda: ops.n_of_m_masks(x, 0, 4)),
        (TypeError, "m must be an integer, not float", lambda: ops.n_of_m_masks(x, 2, 4.0)),
        (ValueError, r"axis = 2, but array has shape \(4, 6\)", lambda: ops.n_of_m_masks(x, 2, 4, 2)),
        (ValueError, r"axis = -1, but array has shape \(\)", lambda: ops.n_of_m_masks(np.float32(1), 2, 4)),
        (ops.NotANumberError, "NaN at flat index 17", lambda: ops.n_of_m_masks(nan, 2, 4, mask=closed)),
        (ops.NotANumberError, "NaN at flat index 17", lambda: ops.n_of_m_masks(nan, 2, 40)),
        (ValueError, r"masks\[0\] has shape", lambda: ops.n_of_m_masks(x, 2, 4, mask=closed.T)),
        (TypeError, r"arrays\[0\] is int64", lambda: ops.n_of_m_masks(np.ones(4, int), 2, 4)),
        (ValueError, "not both", lambda: ops.top_k_masks([x], 1, block=(2, 2), axis=0)),
        (ValueError, "block must be two sides", lambda: ops.top_k_masks([x], 1, block=16)),
        (ValueError, "block must be two sides", lambda: ops.top_k_masks([x], 1, block=(1, 2, 3))),
        (ValueError, "at least 1, not 0 × 2", lambda: ops.top_k_masks([x], 1, block=(0, 2))),
        (TypeError, r"block\[1\] must be an integer", lambda: ops.top_k_masks([x], 1, block=(2, 2.5))),
        (ValueError, r"arrays\[1\] has shape \(6,\): blocks need", lambda: ops.top_k_masks([x, x[0]], 1, block=(2, 2))),
        (ValueError, r"axis = -3, but arrays\[0\]", lambda: ops.top_k_masks([x], 1, axis=-3)),
        (ValueError, "reduce must be", lambda: ops.top_k_masks([x], 1, axis=0, reduce="max")),
        (ValueError, r"k = 5 is outside 0\.\.\.4, the number of eligible gr", lambda: ops.top_k_masks([x], 5, axis=0)),
        (ValueError, r"k\[1\] = -1 is outside 0\.\.\.6", lambda: ops.top_k_masks([x, x], [2, -1], axis=1)),
        (ops.NotANumberError, r"arrays\[1\] has a NaN at flat index 17",
         lambda: ops.top_k_masks([x, nan], 1, block=(2, 2), masks=[closed, closed])),
        (ops.NotANumberError, r"arrays\[0\] has inf and -inf in one group, the first at flat index 1",
         lambda: ops.top_k_masks([opposite], 1, block=(2, 2), by="value")),
        (ValueError, "needs a block or an axis", lambda: ops.group_scores(x)),
        (ValueError, "needs a block or an axis", lambda: ops.count_groups(closed)),
        (TypeError, "mask is float32, not bool", lambda: ops.count_groups(x, axis=0)),
    ]  # fmt: skip
    for kind, pattern, call in cases:
        with pytest.raises(kind, match=pattern):
            if core:
                call()
            else:
                with numpy_only():
                    call()
    assert ops.top_k_masks([np.abs(opposite)], 1, block=(2, 2), by="value")[0].all()


def test_core_refuses_what_it_cannot_read() -> None:
    x, out, scores = np.ones((4, 6), np.float32), np.zeros((4, 6), bool), np.zeros((2, 3))
    counts = np.zeros((2, 3), np.int64)
    view = (1, 4, 6, 2, 2)
    assert _core.score_blocks(x, None, "float32", False, False, view, scores, counts) is None
    calls = [
        lambda: _core.score_blocks(x, None, "float32", False, False, (1, 4, 7, 2, 2), scores, counts),
        lambda: _core.score_blocks(x, None, "float32", False, False, (1, 4, 6, 0, 2), scores, counts),
        lambda: _core.score_blocks(x, None, "float32", False, False, (2**32, 2**32, 24, 2, 2), scores, counts),
        lambda: _core.score_blocks(x, None, "float32", False, False, view, scores[:1], counts),
        lambda: _core.score_blocks(x, out[:2], "float32", False, False, view, scores, counts),
        lambda: _core.expand_blocks(out[:2, :2], out, None, view),
        lambda: _core.n_of_m(x, out, None, "float32", False, True, (4, 6, 2), 2, 4),
        lambda: _core.n_of_m(x, out, None, "float64", False, True, (4, 6, 1), 2, 4),
        lambda: _core.n_of_m(x, out[:2], None, "float32", False, True, (4, 6, 1), 2, 4),
        lambda: _core.count_keys([x], None, "float32", False, True, 0, 1 << 30, 3),
        lambda: _core.count_keys([x], None, "float32", False, True, -1, 5, 0),
        lambda: _core.count_keys([x], None, "bfloat16", False, True, 0, 5, 0),
        lambda: _core.select_from([x], [out], None, "float32", False, True, -1, 0),
    ]
    for call in calls:
        with pytest.raises(ValueError):
            call()
    with pytest.raises(TypeError):
        _core.score_blocks(x, None, "float32", False, False, view, scores.astype(np.float32), counts)


def test_bfloat16_scores_are_exact() -> None:
    x = np.array([[1.0, 2.0**-133], [3.0, 0.0]], ml_dtypes.bfloat16)
    assert ops.group_scores(x, block=(2, 2), reduce="sum").item() == 4.0
    assert ops.group_scores(x[:, 1:], block=(2, 2), reduce="sum").item() == 2.0**-133
    half = np.array([[2.0**-24, 65504.0]], np.float16)
    assert ops.group_scores(half, block=(1, 2), reduce="sum").item() == 65504.0 + 2.0**-24
