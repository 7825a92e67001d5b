"""What the tests of selection share: arrays that are hard to order, and a definition of the order in plain Python."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import strategies as st

from keras_lth.ops import groups, ranking, sharded

DTYPES = [np.dtype(d) for d in (np.float64, np.float32, np.float16, ml_dtypes.bfloat16)]
BITS = {8: np.uint64, 4: np.uint32, 2: np.uint16}
INFINITY = {"float64": 0x7FF0 << 48, "float32": 0x7F80 << 16, "float16": 0x7C00, "bfloat16": 0x7F80}
ORDERS = [("magnitude", True), ("magnitude", False), ("value", True), ("value", False)]

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
each_order = pytest.mark.parametrize(("by", "largest"), ORDERS, ids=lambda v: str(v))


@contextmanager
def numpy_only() -> Iterator[None]:
    """As where the extension is missing."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (groups, ranking, sharded):
            patch.setattr(module, "CORE", None)
        yield


def shaped(dtype: np.dtype[Any], shape: tuple[int, ...]) -> st.SearchStrategy[np.ndarray]:
    """Arrays of a shape with many ties, both zeros, denormals and infinities."""
    infinity, sign = INFINITY[dtype.name], 1 << (8 * dtype.itemsize - 1)
    magnitudes = st.one_of(
        st.integers(0, 3), st.integers(infinity - 2, infinity), st.integers(0, infinity), st.just(infinity // 2)
    )
    bits = st.builds(lambda magnitude, negative: magnitude | negative * sign, magnitudes, st.booleans())
    size = int(np.prod(shape, dtype=int))
    lists = st.lists(bits, min_size=size, max_size=size)
    return lists.map(lambda values: np.array(values, BITS[dtype.itemsize]).view(dtype).reshape(shape))


def bools(shape: tuple[int, ...]) -> st.SearchStrategy[np.ndarray]:
    size = int(np.prod(shape, dtype=int))
    return st.lists(st.booleans(), min_size=size, max_size=size).map(lambda v: np.array(v, bool).reshape(shape))


def rank(value: Any, by: str, largest: bool) -> float:
    """What comes first is lowest."""
    compared = float(value) if by == "value" else abs(float(value))
    return -compared if largest else compared


def first_positions(
    arrays: list[np.ndarray], masks: list[np.ndarray] | None, by: str, largest: bool
) -> list[tuple[int, int]]:
    """Eligible (array, flat index) in the order in which they are selected, by sorting tuples."""
    order = []
    for i, array in enumerate(arrays):
        allowed = np.ones(array.size, bool) if masks is None else masks[i].ravel()
        order += [(rank(v, by, largest), i, j) for j, v in enumerate(array.ravel()) if allowed[j]]
    return [(i, j) for _, i, j in sorted(order)]


def marked(arrays: list[np.ndarray], positions: list[tuple[int, int]]) -> list[np.ndarray]:
    masks = [np.zeros(array.shape, bool) for array in arrays]
    for i, j in positions:
        masks[i].ravel()[j] = True
    return masks


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return len(a) == len(b) and all(
        x.dtype == y.dtype and x.shape == y.shape and np.array_equal(x, y) for x, y in zip(a, b, strict=True)
    )
