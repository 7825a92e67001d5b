from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_lth.masks import Masks
from keras_lth.selection import prune, round_half_up, select, uniform

FEW_VALUES = st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, 5e-324, float("inf"), -float("inf")])
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
SCORES = st.dictionaries(
    st.text("abc/", min_size=1, max_size=3),
    SHAPES.flatmap(lambda shape: hnp.arrays(np.float64, shape, elements=FEW_VALUES)),
    min_size=1,
    max_size=4,
)


def expected(scores: dict, k: int, eligible: dict[str, list[bool]]) -> dict[str, list[bool]]:
    """The definition, one weight at a time: sort by (-|score|, tensor, index), keep the first k."""
    order = []
    for tensor, (path, array) in enumerate(scores.items()):
        for index, value in enumerate(array.reshape(-1).tolist()):
            if eligible[path][index]:
                order.append((-abs(value), tensor, index, path))
    kept = {path: [False] * array.size for path, array in scores.items()}
    for _, _, index, path in sorted(order)[:k]:
        kept[path][index] = True
    return kept


def flat(masks: Masks) -> dict[str, list[bool]]:
    return {path: mask.reshape(-1).tolist() for path, mask in masks.items()}


@st.composite
def with_masks(draw: st.DrawFn) -> tuple[dict[str, np.ndarray], Masks]:
    scores = draw(SCORES)
    return scores, Masks({path: draw(hnp.arrays(np.bool_, array.shape)) for path, array in scores.items()})


# counts ----------------------------------------------------------------------------------------------------------


@given(st.decimals(0, 1, places=4), st.integers(0, 10**8))
def test_round_half_up_is_decimal(share: Decimal, count: int) -> None:
    assert round_half_up(float(share), count) == int((share * count).quantize(Decimal(1), ROUND_HALF_UP))


def test_round_half_up_where_floats_fall_short() -> None:
    assert 0.145 * 100 < 14.5  # why floats are not enough
    assert round_half_up(0.145, 100) == 15
    assert [round_half_up(0.5, n) for n in range(6)] == [0, 1, 1, 2, 2, 3]
    assert round_half_up(np.float32(0.25), 6) == 2


# select ----------------------------------------------------------------------------------------------------------


@given(with_masks(), st.data())
def test_select_equals_sorting(case: tuple[dict, Masks], data: st.DataObject) -> None:
    scores, within = case
    k = data.draw(st.integers(0, within.remaining))
    masks = select(scores, k=k, within=within)
    assert flat(masks) == expected(scores, k, flat(within)) and list(masks) == list(scores)
    assert masks.remaining == k
    everything = {path: [True] * array.size for path, array in scores.items()}
    assert flat(select(scores, k=k)) == expected(scores, k, everything)


@given(SCORES, st.decimals("0.01", 1, places=2))
def test_density_by_layer_counts(scores: dict, density: Decimal) -> None:
    counts = {p: int((density * a.size).quantize(Decimal(1), ROUND_HALF_UP)) for p, a in scores.items()}
    if sum(counts.values()) == 0:
        with pytest.raises(ValueError, match="keeps none of"):
            select(scores, float(density), scope="layer")
        return
    masks = select(scores, float(density), scope="layer")
    for path, array in scores.items():
        alone = expected({path: array}, counts[path], {path: [True] * array.size})
        assert masks[path].reshape(-1).tolist() == alone[path]


def test_a_hand_made_ranking() -> None:
    scores = {"b": np.array([[3.0, -7.0], [0.5, 3.0]]), "a": np.array([-3.0, 8.0])}
    assert flat(select(scores, 0.5)) == {"b": [True, True, False, False], "a": [False, True]}
    assert flat(select(scores, 0.5, scope="layer")) == {"b": [True, True, False, False], "a": [False, True]}
    assert flat(select(scores, k=5)) == {"b": [True, True, False, True], "a": [True, True]}
    assert select(scores, 1.0) == Masks.ones(scores)
    # 0.25 × 6 = 1.5 → 2
    assert flat(select(scores, 0.25)) == {"b": [False, True, False, False], "a": [False, True]}
    masks = select(scores, k=1)
    assert masks.empty == ("b",)


def test_excluded_layers_stay_whole_and_are_not_counted() -> None:
    scores = {"conv/kernel": np.arange(10.0), "out/kernel": np.full(4, 100.0)}
    for exclude in ("^out", ["out", "out/kernel"], lambda path: path.startswith("out")):
        masks = select(scores, 0.2, exclude=exclude)
        assert masks["out/kernel"].all() and masks["conv/kernel"].nonzero()[0].tolist() == [8, 9]
        assert select(scores, k=2, exclude=exclude) == masks
    within = Masks({"conv/kernel": np.arange(10) % 2 == 0, "out/kernel": [1, 0, 0, 1]})
    masks = select(scores, 0.2, exclude="out", within=within)
    # 0.2 of all 10 weights of the layer, among the 5 that are left.
    assert masks["conv/kernel"].nonzero()[0].tolist() == [6, 8]
    assert masks["out/kernel"].tolist() == [True, False, False, True]


def test_a_density_for_each_layer_by_the_first_regex_found() -> None:
    scores = {"conv/kernel": np.arange(10.0), "conv_1/kernel": np.arange(10.0), "out/kernel": np.arange(10.0)}
    masks = select(scores, scope={"conv_1": 0.1, "conv": 0.5, "": 1.0})
    assert [row.remaining for row in masks.table()] == [5, 1, 10]
    with pytest.raises(ValueError, match=r"no density for 'conv_1/kernel': none of conv matches"):
        select(scores, scope={"conv": 0.5})
    assert select(scores, scope={"conv.*": 0.5}, exclude="out").remaining == 20
    assert select(scores, scope={"conv.*": 0.5, "out": 0.1}, exclude="out").remaining == 20


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16, np.int32, np.uint8])
def test_score_dtypes(dtype: type) -> None:
    scores = {"a": np.array([1, 3, 2], dtype), "b": np.array([[4, 0]], dtype)}
    assert flat(select(scores, k=2)) == {"a": [False, True, False], "b": [True, False]}


def test_mixed_dtypes_are_compared_exactly() -> None:
    # 1 + 2^-11 is the float32 between the float16 neighbours 1 and 1 + 2^-10.
    half, single = np.array([1, 1 + 2**-10], np.float16), np.array([1 + 2**-11], np.float32)
    assert flat(select({"half": half, "single": single}, k=2)) == {"half": [False, True], "single": [True]}
    with pytest.raises(TypeError, match="the score of 'half' has dtype complex128"):
        select({"single": single, "half": np.array([1j])}, k=1)


def test_most_negative_integer_is_the_largest() -> None:
    assert flat(select({"a": np.array([-128, 127], np.int8)}, k=1)) == {"a": [True, False]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "exactly one of density, k"),
        ({"density": 0.5, "k": 1}, "exactly one of density, k"),
        ({"density": 0.5, "scope": {"": 0.5}}, "exactly one of density, k"),
        ({"density": 0.0}, r"density must lie in \(0, 1\], not 0.0"),
        ({"density": 1.01}, r"density must lie in \(0, 1\]"),
        ({"density": float("nan")}, r"density must lie in \(0, 1\]"),
        ({"density": "half"}, "density must be a number, not 'half'"),
        ({"scope": {"": -1}}, r"density must lie in \(0, 1\], not -1"),
        ({"density": 0.01}, "density 0.01 keeps none of 5 weights"),
        ({"k": 6}, "cannot keep 6 of 5 eligible weights in a, b"),
        ({"k": -1}, "cannot keep -1 of 5"),
        ({"k": 2, "scope": "layer"}, 'use scope="global"'),
        ({"density": 0.5, "scope": "neuron"}, 'scope must be "global" or "layer", not \'neuron\''),
        ({"density": 0.5, "exclude": ""}, "exclude matches all layers: a, b"),
        ({"density": 0.9, "within": Masks({"a": [1, 0, 0], "b": [0, 0]})}, "cannot keep 5 of 1 eligible"),
        ({"density": 0.5, "within": Masks({"a": [1, 0, 0]})}, "within and scores .* 'b' .* is missing"),
        ({"density": 0.5, "within": Masks({"a": [1, 0], "b": [0, 0]})}, r"within and scores .* 'a' has shape \(2,\)"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select({"a": np.arange(3.0), "b": np.arange(2.0)}, **arguments)


def test_no_scores() -> None:
    with pytest.raises(ValueError, match="there are no scores"):
        select({}, 0.5)


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_nan_is_named_by_path(scope: str) -> None:
    scores = {"skip": np.array([np.nan]), "fine": np.ones(3), "dense/kernel": np.array([[1.0, 2.0], [np.nan, 3.0]])}
    with pytest.raises(ValueError, match="the score of 'dense/kernel' is NaN at flat index 2"):
        select(scores, 0.5, scope=scope, exclude="skip")
    assert select(scores, 1.0, exclude="skip|dense").density == 1.0


# prune -----------------------------------------------------------------------------------------------------------


@given(with_masks(), st.decimals(0, 1, places=2))
def test_prune_counts_and_order(case: tuple[dict, Masks], fraction: Decimal) -> None:
    scores, masks = case
    left = masks.remaining - int((fraction * masks.remaining).quantize(Decimal(1), ROUND_HALF_UP))
    if left == 0:
        with pytest.raises(ValueError, match="would leave none"):
            prune(scores, masks, float(fraction))
        return
    pruned = prune(scores, masks, float(fraction))
    assert pruned.remaining == left and (pruned & masks) == pruned
    assert flat(pruned) == expected(scores, left, flat(masks))


def test_levels_of_lenet_300_100() -> None:
    """Twenty cuts of 20 %: 0.8ⁿ of 266,200 weights, by the integer recurrence r ← r − ⌊r/5 + 1/2⌋."""
    scores = {
        "dense/kernel": uniform(0, "dense", (784, 300)).astype(np.float32) - np.float32(0.5),
        "dense_1/kernel": uniform(0, "dense_1", (300, 100)).astype(np.float32),
        "dense_2/kernel": uniform(0, "dense_2", (100, 10)).astype(np.float32),
    }
    masks, left = Masks.ones(scores), 266_200
    counts = []
    for level in range(1, 21):
        masks = prune(scores, masks, 0.2)
        left -= (2 * left + 5) // 10
        counts.append(masks.remaining)
        assert masks.remaining == left
        # A rounding error of at most 1/2 a cut, each later shrunk by 0.8: never more than 0.5 / (1 − 0.8).
        assert abs(left - Fraction(4, 5) ** level * 266_200) <= Fraction(5, 2)
        assert masks.density == pytest.approx(0.8**level, abs=1e-5)
    assert counts[:4] == [212_960, 170_368, 136_294, 109_035]
    assert abs(masks.density - 0.0115) < 1e-4


def test_prune_by_layer_with_half_the_rate_at_the_output() -> None:
    scores = {"dense/kernel": np.arange(10.0), "out/kernel": np.arange(10.0)}
    masks = prune(scores, Masks.ones(scores), {"^out": 0.1, ".*": 0.2}, scope="layer")
    assert flat(masks) == {"dense/kernel": [False] * 2 + [True] * 8, "out/kernel": [False] + [True] * 9}
    again = prune(scores, masks, {"^out": 0.1, ".*": 0.2}, scope="layer", exclude="dense")
    # round(0.1 × 9) = 1
    assert [row.remaining for row in again.table()] == [8, 8]
    # Half of 5 rounds up to 3 removed.
    assert prune(scores, select(scores, scope={"": 0.5}), 0.5, scope="layer").remaining == 4
    assert prune(scores, masks, 0.0) == masks
    assert prune(scores, masks, {"out": 1.0, "": 0.0}, scope="layer").empty == ("out/kernel",)


def test_global_prune_ignores_what_is_gone_and_what_is_excluded() -> None:
    scores = {"a": np.array([9.0, 1.0, 8.0, 2.0, 7.0]), "b": np.array([0.0, 0.0])}
    masks = Masks({"a": [0, 1, 1, 1, 1], "b": [1, 0]})
    assert flat(prune(scores, masks, 0.5, exclude="b")) == {"a": [0, 0, 1, 0, 1], "b": [1, 0]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fraction": 1.0}, "fraction 1.0 of the 4 remaining weights would leave none"),
        ({"fraction": 0.9}, "would leave none"),
        ({"fraction": -0.1}, r"fraction must lie in \[0, 1\]"),
        ({"fraction": 1.2}, r"fraction must lie in \[0, 1\]"),
        ({"fraction": {"": 0.2}}, 'needs scope="layer"'),
        ({"fraction": {"b": 0.2}, "scope": "layer"}, "fraction='b' matches no weight; the paths are a"),
        ({"fraction": 0.2, "masks": Masks({"c": [1, 1, 1, 1]})}, "masks and scores .* 'c' .* unknown"),
    ],
)
def test_bad_cuts(arguments: dict, message: str) -> None:
    scores = {"a": np.arange(4.0)}
    with pytest.raises(ValueError, match=message):
        prune(scores, **{"masks": Masks.ones(scores), **arguments})
