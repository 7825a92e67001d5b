"""Orders, packed masks, the threshold and a guess of it: against sorting in plain Python."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_lth import _core, ops

sys.path.insert(0, str(Path(__file__).resolve().parent))

from select_cases import (
    DTYPES,
    ORDERS,
    bools,
    first_positions,
    marked,
    numpy_only,
    same,
    shaped,
)

from tests.forms import examples, spread


@st.composite
def problems(draw: st.DrawFn) -> dict[str, Any]:
    dtype = draw(st.sampled_from(DTYPES))
    shapes = draw(st.lists(st.lists(st.integers(0, 7), max_size=3).map(tuple), min_size=1, max_size=4))
    arrays = [draw(shaped(dtype, shape)) for shape in shapes]
    masks = [draw(bools(shape)) for shape in shapes] if draw(st.booleans()) else None
    eligible = sum(a.size for a in arrays) if masks is None else sum(int(m.sum()) for m in masks)
    by, largest = draw(st.sampled_from(ORDERS))
    return {"arrays": arrays, "masks": masks, "k": draw(st.integers(0, eligible)), "by": by, "largest": largest}


@settings(max_examples=examples(250), deadline=None)
@given(problems(), st.booleans(), st.booleans(), st.floats(allow_nan=False) | st.none())
def test_every_order_with_bytes_and_bits(
    problem: dict[str, Any], bits_in: bool, bits_out: bool, near: float | None
) -> None:
    arrays, masks, k = problem["arrays"], problem["masks"], problem["k"]
    positions = first_positions(arrays, masks, problem["by"], problem["largest"])[:k]
    expected = marked(arrays, positions)
    if bits_out:
        expected = [np.packbits(mask) for mask in expected]
    given_masks = masks if masks is None or not bits_in else [np.packbits(mask) for mask in masks]
    options = {"masks": given_masks, "by": problem["by"], "largest": problem["largest"], "packed": bits_out}
    with numpy_only():
        selections = [ops.top_k(arrays, k, near=near, **options)]
    selections.append(ops.top_k(arrays, k, near=near, **options))
    for selection in selections:
        assert same(selection.masks, expected)
        if k == 0:
            assert selection.threshold is None
            continue
        last = arrays[positions[-1][0]].ravel()[positions[-1][1]]
        assert selection.threshold is not None and selection.threshold.dtype == arrays[0].dtype
        assert float(selection.threshold) == (float(last) if problem["by"] == "value" else abs(float(last)))
        assert not np.signbit(selection.threshold) or float(selection.threshold) != 0.0
    assert same(ops.top_k_masks(arrays, k, **options), expected)


@pytest.mark.parametrize(("dtype", "order"), spread(2, DTYPES, ORDERS))
def test_large_arrays_in_every_order(dtype: np.dtype[Any], order: tuple[str, bool]) -> None:
    """Where the threshold is guessed; by every instruction set, with a right, a near and a wrong guess."""
    by, largest = order
    random = np.random.default_rng(4)
    sizes, best = [60_007, 3, 32_768], _core.supported()[0]
    normal = [(random.standard_normal(n) + 0.5).astype(dtype) for n in sizes]
    coarse = [np.round(a.astype(np.float32) * 2).astype(dtype) for a in normal]
    masks = [random.random(n) < 0.4 for n in sizes]
    for arrays in (normal, coarse):
        for allowed in (None, masks):
            ranked = [np.abs(a.astype(np.float64)) if by == "magnitude" else a.astype(np.float64) for a in arrays]
            joined = np.concatenate(ranked)
            positions = np.arange(joined.size) if allowed is None else np.flatnonzero(np.concatenate(allowed))
            ranks = positions[np.argsort(-joined[positions] if largest else joined[positions], kind="stable")]
            for k in (1, ranks.size // 5, ranks.size - 1, ranks.size):
                flat = np.zeros(joined.size, bool)
                flat[ranks[:k]] = True
                expected = np.split(flat, np.cumsum(sizes)[:-1])
                threshold = joined[ranks[k - 1]]
                for isa in _core.supported():
                    for near in (threshold, threshold * 1.001, -3.0) if isa == best else (None,):
                        with pytest.MonkeyPatch.context() as patch:
                            patch.setenv("KERAS_LTH_ISA", isa)
                            got = ops.top_k(arrays, k, masks=allowed, by=by, largest=largest, near=near)
                        assert same(got.masks, expected) and float(got.threshold) == threshold


def test_signed_scores_by_hand() -> None:
    x = [np.array([0.5, -3.0, 2.0, -0.0, 0.0, 2.0], np.float32)]
    for by, largest, order in [
        ("magnitude", True, [1, 2, 5, 0, 3, 4]),
        ("magnitude", False, [3, 4, 0, 2, 5, 1]),
        ("value", True, [2, 5, 0, 3, 4, 1]),
        ("value", False, [1, 3, 4, 0, 2, 5]),
    ]:
        for k in range(7):
            mask = ops.top_k_masks(x, k, by=by, largest=largest)[0]
            assert np.flatnonzero(mask).tolist() == sorted(order[:k]), (by, largest, k)


def test_a_number_for_each_array() -> None:
    random = np.random.default_rng(7)
    arrays = [random.standard_normal(shape).astype(np.float32) for shape in [(30, 40), (0,), (500,), (4, 5, 6)]]
    ks = [100, 0, 499, 1]
    alone = [ops.top_k_masks([array], k)[0] for array, k in zip(arrays, ks, strict=True)]
    assert same(ops.top_k_masks(arrays, ks), alone)
    assert same(ops.top_k_masks(arrays, np.array(ks), packed=True), [np.packbits(mask) for mask in alone])
    allowed = [random.random(array.shape) < 0.9 for array in arrays]
    both = ops.top_k_masks(arrays, [5, 0, 5, 5], masks=[np.packbits(allowed[0]), *allowed[1:]])
    assert [int(mask.sum()) for mask in both] == [5, 0, 5, 5]
    assert not any((mask & ~ok).any() for mask, ok in zip(both, allowed, strict=True))
    with pytest.raises(ValueError, match=r"k\[3\] = 121 is outside 0\.\.\.120"):
        ops.top_k_masks(arrays, [1, 0, 1, 121])
    with pytest.raises(ValueError, match="k has 2 entries for 4 arrays"):
        ops.top_k_masks(arrays, [1, 0])
    arrays[2][77] = np.nan
    with pytest.raises(ops.NotANumberError, match=r"arrays\[2\] has a NaN at flat index 77"):
        ops.top_k_masks(arrays, ks)


def test_packed_masks_are_those_of_numpy_and_of_the_files(tmp_path: Path) -> None:
    from keras_lth import files

    x = np.random.default_rng(1).standard_normal((7, 11)).astype(np.float32)
    bits, plain = ops.top_k_masks([x], 30, packed=True)[0], ops.top_k_masks([x], 30)[0]
    assert bits.shape == (10,) and np.array_equal(np.unpackbits(bits, count=77).reshape(7, 11), plain)
    files.write_arrays(tmp_path / "mask", {"x": plain}, kind="masks", meta={})
    assert bits.tobytes() in (tmp_path / "mask").read_bytes()
    assert np.array_equal(ops.top_k_masks([x], 10, masks=[bits])[0], ops.top_k_masks([x], 10, masks=[plain])[0])


@pytest.mark.parametrize("core", [True, False])
def test_bad_arguments(core: bool) -> None:
    x = np.ones((2, 3), np.float32)
    cases: list[tuple[type[Exception], str, Any]] = [
        (ValueError, 'by must be "magnitude" or "value", not "size"', lambda: ops.top_k_masks([x], 1, by="size")),
        (TypeError, "largest must be a bool, not str", lambda: ops.top_k_masks([x], 1, largest="no")),
        (ValueError, "near is NaN", lambda: ops.top_k([x], 1, near=np.nan)),
        (TypeError, "near must be a number or None, not list", lambda: ops.top_k([x], 1, near=[1.0])),
        (ValueError, r"masks\[0\] has shape \(2,\): the packed bits of 6 values need \(1,\)",
         lambda: ops.top_k_masks([x], 1, masks=[np.zeros(2, np.uint8)])),
        (ValueError, r"masks\[0\] has bits set after the last of 6 values",
         lambda: ops.top_k_masks([x], 1, masks=[np.array([0b10000010], np.uint8)])),
        (ValueError, r"k = 2 is outside 0\.\.\.1",
         lambda: ops.top_k_masks([x], 2, masks=[np.array([0b10000000], np.uint8)])),
        (ValueError, r"k = -1 is outside 0\.\.\.6", lambda: ops.top_k([x], -1)),
        (ValueError, r"k = 18446744073709551617 is outside", lambda: ops.top_k([x], 2**64 + 1)),
        (TypeError, "k must be an integer, not NoneType", lambda: ops.top_k([x], None)),
        (TypeError, r"k\[0\] must be an integer, not float", lambda: ops.top_k_masks([x], [1.5])),
    ]  # fmt: skip
    for kind, pattern, call in cases:
        with pytest.raises(kind, match=pattern.replace('"size"', "'size'")):
            if core:
                call()
            else:
                with numpy_only():
                    call()


def test_the_threshold_of_a_sorted_input() -> None:
    x = np.arange(100_000, dtype=np.float64) - 50_000.0
    for k in (1, 10, 33_333, 99_999, 100_000):
        assert float(ops.top_k([x], k, by="value").threshold) == 50_000.0 - k
        assert float(ops.top_k([x], k, by="value", largest=False).threshold) == k - 50_001.0
