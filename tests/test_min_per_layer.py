"""The floor of each layer under one threshold: exactly k in all, and no layer empty."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import keras_lth as lth
from keras_lth.imp import IMP
from keras_lth.selection import keep_counts

# The layers' scores do not overlap: without a floor the first layers are emptied first.
SCORES = {"a": np.arange(10.0), "b": 100 + np.arange(10.0), "c": 200 + np.arange(10.0), "tiny": np.array([-0.5])}


def counts(masks: lth.Masks) -> list[int]:
    return [row.remaining for row in masks.table()]


@pytest.mark.parametrize(
    ("k", "least", "expected"),
    [
        (12, None, [0, 2, 10, 0]),
        (12, 1, [1, 1, 9, 1]),
        (12, 3, [3, 3, 5, 1]),
        # Shares are of a layer's size, of the smallest at least one weight.
        (12, 0.2, [2, 2, 7, 1]),
        (12, np.float32(0.2), [2, 2, 7, 1]),
        (12, np.int64(3), [3, 3, 5, 1]),
        (4, 1, [1, 1, 1, 1]),
        (31, 1, [10, 10, 10, 1]),
    ],
)
def test_exactly_k_with_a_floor(k: int, least: float | None, expected: list[int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        masks = lth.select(SCORES, k=k, min_per_layer=least)
    assert counts(masks) == expected
    # The highest of each layer remain.
    for path, count in zip(SCORES, expected, strict=True):
        assert masks[path].nonzero()[0].tolist() == list(range(SCORES[path].size - count, SCORES[path].size))


@given(st.lists(st.integers(0, 3), min_size=12, max_size=12), st.integers(3, 12), st.integers(1, 4))
def test_it_is_the_best_choice_under_the_floor(values: list[int], k: int, least: int) -> None:
    """The least sum of ranks among all choices that give each layer its floor: taken one by one from the top."""
    scores = {name: np.array(values[4 * i : 4 * i + 4], float) for i, name in enumerate("xyz")}
    if k < 3 * least:
        with pytest.raises(
            ValueError, match=f"min_per_layer={least} needs {3 * least} weights in 3 layers, but only {k} "
        ):
            lth.select(scores, k=k, min_per_layer=least)
        return
    ranking = sorted(range(12), key=lambda i: (-abs(values[i]), i))
    chosen, spare = set(), k - 3 * least
    inside = dict.fromkeys(range(3), 0)
    for i in ranking:
        if inside[i // 4] < least:
            inside[i // 4] += 1
            chosen.add(i)
        elif spare:
            spare -= 1
            chosen.add(i)
    masks = lth.select(scores, k=k, min_per_layer=least)
    assert {4 * n + i for n, m in enumerate(masks.values()) for i in m.nonzero()[0].tolist()} == chosen


def test_prune_and_imp_keep_the_floor() -> None:
    masks = lth.Masks.ones(SCORES)
    for _ in range(8):
        masks = lth.prune(SCORES, masks, 0.2, min_per_layer=1)
    left = 31
    for _ in range(8):
        left -= (2 * left + 5) // 10
    assert masks.remaining == left and not masks.empty
    assert counts(keep_counts(SCORES, lth.Masks.ones(SCORES), {"": 5}, 1)) == [1, 1, 2, 1]
    full = lth.Masks.ones(SCORES)
    IMP(target_density=7 / 31, min_per_layer=2).check(full)
    with pytest.raises(ValueError, match=r"min_per_layer=2\.0 needs 7 weights in 4 layers, but only 6 would remain"):
        IMP(target_density=6 / 31, min_per_layer=2).check(full)
    with pytest.raises(ValueError, match='scope="global"'):
        IMP(rounds=1, min_per_layer=1, scope="layer")


def test_excluded_layers_have_no_floor() -> None:
    masks = lth.select(SCORES, k=4, exclude="c", min_per_layer=1)
    assert counts(masks) == [1, 2, 10, 1]


def test_blocks_count_as_blocks() -> None:
    scores = {"low": np.ones((4, 4)), "high": np.full((4, 4), 9.0)}
    masks = lth.select(scores, k=4, structure=(2, 2), min_per_layer=1)
    assert counts(masks) == [4, 12]


@pytest.mark.parametrize("least", [0, -1, 1.5, True, "1", float("nan"), {"a": 1}])
def test_wrong_floors(least: object) -> None:
    with pytest.raises(ValueError, match="min_per_layer must be a"):
        lth.select(SCORES, k=12, min_per_layer=least)
