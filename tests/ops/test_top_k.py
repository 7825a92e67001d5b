"""The compiled selection against the NumPy reference, closed forms and published counts."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_lth import _core, ops
from keras_lth.ops import ranking
from tests.forms import examples, spread

DTYPES = [np.dtype(d) for d in (np.float64, np.float32, np.float16, ml_dtypes.bfloat16)]
ISAS = _core.supported()
BITS = {8: np.uint64, 4: np.uint32, 2: np.uint16}
INFINITY = {"float64": 0x7FF0 << 48, "float32": 0x7F80 << 16, "float16": 0x7C00, "bfloat16": 0x7F80}
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)


def with_numpy(arrays: Any, k: Any, **options: Any) -> list[np.ndarray]:
    """`ops.top_k_masks` as where the extension is missing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "CORE", None)
        return ops.top_k_masks(arrays, k, **options)


each_implementation = pytest.mark.parametrize("top_k_masks", [ops.top_k_masks, with_numpy], ids=["core", "reference"])


def from_bits(bits: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    return bits.astype(BITS[dtype.itemsize]).view(dtype)


def run(arrays: list[np.ndarray], k: int, masks: list[np.ndarray] | None, isa: str, threads: int) -> list[np.ndarray]:
    """The core with one instruction set and number of threads."""
    selected = [np.ones(array.shape, dtype=bool) for array in arrays]
    found = _core.top_k(arrays, selected, masks, arrays[0].dtype.name, k, isa=isa, threads=threads)
    assert found[0] is None
    return selected


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return len(a) == len(b) and all(x.dtype == bool and np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[np.ndarray], int, list[np.ndarray] | None]:
    """Arrays of any shapes with many ties, both zeros, denormals and infinities; k; perhaps masks."""
    dtype = draw(st.sampled_from(DTYPES))
    infinity = INFINITY[dtype.name]
    sign = 1 << (8 * dtype.itemsize - 1)
    magnitudes = st.one_of(
        st.integers(0, 3),  # zero and the smallest denormals
        st.integers(infinity - 2, infinity),  # infinity and the largest finite numbers
        st.integers(0, infinity),
        st.just(infinity // 2),
    )
    bits = st.builds(lambda m, s: m | (sign if s else 0), magnitudes, st.booleans())
    shapes = draw(st.lists(st.lists(st.integers(0, 9), max_size=3).map(tuple), min_size=1, max_size=5))
    arrays, masks = [], []
    for shape in shapes:
        size = int(np.prod(shape, dtype=int))
        values = np.array(draw(st.lists(bits, min_size=size, max_size=size)), dtype=BITS[dtype.itemsize])
        arrays.append(values.view(dtype).reshape(shape))
        keep = draw(st.lists(st.booleans(), min_size=size, max_size=size))
        masks.append(np.array(keep, dtype=bool).reshape(shape))
    masked = draw(st.booleans())
    eligible = sum(int(m.sum()) if masked else m.size for m in masks)
    return arrays, draw(st.integers(0, eligible)), masks if masked else None


@settings(max_examples=examples(200), deadline=None)
@given(problems())
def test_core_equals_reference(problem: tuple[list[np.ndarray], int, list[np.ndarray] | None]) -> None:
    arrays, k, masks = problem
    expected = with_numpy(arrays, k, masks=masks)
    assert sum(int(m.sum()) for m in expected) == k
    assert same(ops.top_k_masks(arrays, k, masks=masks), expected)
    for isa in ISAS:
        assert same(run(arrays, k, masks, isa, 2), expected)


@pytest.mark.parametrize(("dtype", "share"), spread(2, DTYPES, [0.0, 1e-5, 0.2, 0.5, 0.999, 1.0]))
def test_large_arrays_on_every_path(dtype: np.dtype[Any], share: float) -> None:
    """Sizes at which the threshold is guessed from a sample, in several chunks and threads."""
    random = np.random.default_rng(3)
    sizes = [150_001, 0, 7, 65_536]
    normal = [random.standard_normal(n).astype(dtype) for n in sizes]
    coarse = [np.round(a.astype(np.float32)).astype(dtype) for a in normal]  # nearly all are ties
    masks = [random.random(n) < 0.3 for n in sizes]
    for arrays in (normal, coarse):
        for allowed in (None, masks):
            eligible = sum(sizes) if allowed is None else sum(int(m.sum()) for m in masks)
            k = round(share * eligible)
            expected = with_numpy(arrays, k, masks=allowed)
            for isa in ISAS:
                for threads in (1, 3):
                    assert same(run(arrays, k, allowed, isa, threads), expected)


@each_implementation
@each_dtype
def test_every_power_of_two_is_ordered(top_k_masks: Any, dtype: np.dtype[Any]) -> None:
    """Bit patterns 0, 1, 2, 4, ... up to infinity are ordered as integers; signs do not matter."""
    patterns = [0] + [1 << b for b in range(8 * dtype.itemsize - 1) if 1 << b < INFINITY[dtype.name]]
    patterns.append(INFINITY[dtype.name])
    sign = 1 << (8 * dtype.itemsize - 1)
    bits = np.array([p | (sign if i % 2 else 0) for i, p in enumerate(patterns)], dtype=np.uint64)
    shuffle = np.random.default_rng(0).permutation(len(bits))
    values = from_bits(bits[shuffle], dtype)
    for k in range(len(bits) + 1):
        assert np.array_equal(top_k_masks([values], k)[0], shuffle >= len(bits) - k)


@each_implementation
def test_ties_go_to_the_lowest_array_and_index(top_k_masks: Any) -> None:
    arrays = [np.array([[1.0, -2.0], [2.0, 0.0]]), np.array(-2.0), np.array([3.0, 2.0, 2.0])]
    assert [m.tolist() for m in top_k_masks(arrays, 3)] == [[[False, True], [True, False]], False, [True, False, False]]
    assert [m.tolist() for m in top_k_masks(arrays, 5)] == [[[False, True], [True, False]], True, [True, True, False]]
    zeros = [np.array([-0.0, 0.0, -0.0, 0.0])]
    assert top_k_masks(zeros, 2)[0].tolist() == [True, True, False, False]


@each_dtype
def test_split_over_arrays_does_not_matter(dtype: np.dtype[Any]) -> None:
    random = np.random.default_rng(5)
    flat = np.round(random.standard_normal(90_000) * 8).astype(dtype)
    mask = random.random(flat.size) < 0.7
    whole = ops.top_k_masks([flat], 20_000, masks=[mask])[0]
    cuts = np.sort(random.integers(0, flat.size, 40))
    parts = ops.top_k_masks(np.split(flat, cuts), 20_000, masks=np.split(mask, cuts))
    assert np.array_equal(np.concatenate(parts), whole)
    assert not (whole & ~mask).any()


@each_implementation
@each_dtype
def test_layouts(top_k_masks: Any, dtype: np.dtype[Any]) -> None:
    """Strided, Fortran, broadcast, byte-swapped, unaligned and read-only arrays are read as what they hold."""
    base = np.random.default_rng(6).standard_normal((6, 8)).astype(dtype)
    frozen = base.copy()
    frozen.setflags(write=False)
    unaligned = np.frombuffer(b"\0" + base.tobytes(), dtype=dtype, offset=1, count=base.size).reshape(base.shape)
    views = {
        "strided": base[::2, 1::3],
        "fortran": np.asfortranarray(base),
        "transposed": base.T,
        "reversed": base[::-1, ::-1],
        "broadcast": np.broadcast_to(base[0], (5, 8)),
        "read-only": frozen,
        "unaligned": unaligned,
    }
    if dtype.name != "bfloat16":
        views["swapped"] = base.astype(dtype.newbyteorder("S"))
    for name, view in views.items():
        plain = np.array(view.tolist(), dtype=dtype)
        k = view.size // 3
        by_rank = np.argsort(-np.abs(plain.astype(np.float64)).ravel(), kind="stable")[:k]
        expected = np.zeros(view.size, dtype=bool)
        expected[by_rank] = True
        before = view.tolist()
        got = top_k_masks([view], k)[0]
        assert got.shape == view.shape and np.array_equal(got.ravel(), expected), name
        assert view.tolist() == before
        strided_mask = np.zeros((view.shape[0], 2 * view.shape[1]), dtype=bool)[:, ::2]
        strided_mask[0] = True
        assert top_k_masks([view], view.shape[1], masks=[strided_mask])[0].tolist() == strided_mask.tolist()


@each_implementation
def test_empty_and_zero_dimensional(top_k_masks: Any) -> None:
    assert top_k_masks([], 0) == []
    arrays = [np.zeros((0, 3), np.float32), np.array(-1.5, np.float32), np.zeros((2, 0), np.float32)]
    assert [m.shape for m in top_k_masks(arrays, 0)] == [(0, 3), (), (2, 0)]
    assert [bool(m.any()) for m in top_k_masks(arrays, 0)] == [False, False, False]
    assert [bool(m.any()) for m in top_k_masks(arrays, 1)] == [False, True, False]
    assert top_k_masks([np.zeros((0,))], 0)[0].shape == (0,)
    nothing = np.frombuffer(b"123456789", dtype=np.float64, offset=1)[:0]
    assert top_k_masks([nothing, np.ones(2)], 1)[1].tolist() == [True, False]


def test_calls_at_the_same_time() -> None:
    """The GIL is released, so calls overlap; they share nothing."""
    random = np.random.default_rng(8)
    inputs = [random.standard_normal(200_000).astype(np.float32) for _ in range(6)]
    expected = [with_numpy([x], 1000 + i) for i, x in enumerate(inputs)]
    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(lambda i: ops.top_k_masks([inputs[i]], 1000 + i), range(6)))
    assert all(same(a, b) for a, b in zip(got, expected, strict=True))


@each_implementation
def test_results_are_new_writeable_arrays(top_k_masks: Any) -> None:
    first, second = top_k_masks([np.ones(3), np.ones(3)], 4)
    first[:] = False
    assert second.tolist() == [True, False, False]


@each_implementation
@each_dtype
def test_nan_is_named(top_k_masks: Any, dtype: np.dtype[Any]) -> None:
    patterns = [INFINITY[dtype.name] + 1, (1 << (8 * dtype.itemsize)) - 1]  # signalling, and negative quiet
    for pattern in patterns:
        arrays = [np.ones(3, dtype), np.ones((40, 5), dtype)]
        arrays[1].ravel().view(BITS[dtype.itemsize])[[77, 199]] = pattern
        masks = [np.ones(3, bool), np.zeros((40, 5), bool)]
        for allowed in (None, masks):
            for k in (0, 3):
                with pytest.raises(ValueError, match=r"arrays\[1\] has a NaN at flat index 77$") as caught:
                    top_k_masks(arrays, k, masks=allowed)
                assert (caught.value.array, caught.value.index) == (1, 77)
    again = pickle.loads(pickle.dumps(ops.NotANumberError(1, 77)))
    assert (str(again), again.index) == (str(ops.NotANumberError(1, 77)), 77)


@each_implementation
def test_bad_arguments(top_k_masks: Any) -> None:
    x = np.ones((2, 3), np.float32)
    cases: list[tuple[type[Exception], str, Any]] = [
        (ValueError, r"k = 7 is outside 0\.\.\.6", lambda: top_k_masks([x], 7)),
        (ValueError, r"k = -1 is outside 0\.\.\.6", lambda: top_k_masks([x], -1)),
        (ValueError, r"k = 1 is outside 0\.\.\.0", lambda: top_k_masks([], 1)),
        (ValueError, r"k = 3 is outside 0\.\.\.2", lambda: top_k_masks([x], 3, masks=[np.eye(2, 3, dtype=bool)])),
        (TypeError, "k must be an integer, not float", lambda: top_k_masks([x], 2.0)),
        (
            TypeError,
            r"arrays\[1\] is int32; supported dtypes are float64",
            lambda: top_k_masks([x, x.astype(np.int32)], 1),
        ),
        (TypeError, r"arrays\[0\] is float8_e5m2", lambda: top_k_masks([x.astype(ml_dtypes.float8_e5m2)], 1)),
        (TypeError, r"arrays\[0\] is float32 but arrays\[1\] is float64", lambda: top_k_masks([x, np.ones(2)], 1)),
        (TypeError, "arrays must be a list or tuple of arrays, not ndarray", lambda: top_k_masks(x, 1)),
        (TypeError, "arrays must be a list or tuple of arrays, not dict", lambda: top_k_masks({"a": x}, 1)),
        (TypeError, r"masks\[0\] is int8, not bool", lambda: top_k_masks([x], 1, masks=[np.ones((2, 3), np.int8)])),
        (ValueError, r"masks\[0\] has shape \(3, 2\)", lambda: top_k_masks([x], 1, masks=[np.ones((3, 2), bool)])),
        (ValueError, "masks has 0 entries for 1 arrays", lambda: top_k_masks([x], 1, masks=[])),
    ]
    for kind, pattern, call in cases:
        with pytest.raises(kind, match=pattern):
            call()


def test_lenet_levels() -> None:
    """LeNet-300-100 on 28 x 28 pixels: 266 200 weights in kernels; rounds of 20 % leave 0.8^n of them."""
    random = np.random.default_rng(0)
    shapes = [(784, 300), (300, 100), (100, 10)]
    weights = [random.standard_normal(s).astype(np.float32) for s in shapes]
    masks = [np.ones(s, bool) for s in shapes]
    remaining = sum(m.size for m in masks)
    assert remaining == 266_200
    counts = []
    for _ in range(15):
        remaining -= (2 * remaining + 5) // 10  # a fifth, rounded half up
        smaller = ops.top_k_masks(weights, remaining, masks=masks)
        assert not any((new & ~old).any() for new, old in zip(smaller, masks, strict=True))
        masks = smaller
        counts.append(sum(int(m.sum()) for m in masks))
    assert counts[:3] == [212_960, 170_368, 136_294]
    # The densities that the lottery-ticket papers print for 20 % a round, in per cent.
    published = [80.0, 64.0, 51.2, 41.0, 32.8, 26.2, 21.0, 16.8, 13.4, 10.7, 8.6, 6.9, 5.5, 4.4, 3.5]
    assert [round(100 * count / 266_200, 1) for count in counts] == published


def test_core_refuses_what_it_cannot_read() -> None:
    x, out = np.ones((4, 4), np.float32), np.zeros((4, 4), bool)
    for values, selected, eligible, name in [
        (x.T[1:], out[1:], None, "float32"),
        (x, out, None, "float64"),
        (x, out[:3], None, "float32"),
        (x, out, np.ones((4, 3), bool), "float32"),
        (x, out, None, "int32"),
    ]:
        with pytest.raises(ValueError):
            _core.top_k([values], [selected], None if eligible is None else [eligible], name, 1)
    frozen = out.copy()
    frozen.setflags(write=False)
    with pytest.raises(ValueError, match="writeable"):
        _core.top_k([x], [frozen], None, "float32", 1)
    with pytest.raises(ValueError, match=r"k = 17 is outside 0\.\.\.16"):
        _core.top_k([x], [out], None, "float32", 17)
