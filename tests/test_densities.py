"""Densities of layers: exact totals, closed forms, and what cannot be."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import keras_lth as lth
from keras_lth.densities import ERK, ByName, Densities, ErdosRenyi, Like, SmartRatio, Uniform
from keras_lth.selection import uniform

LENET = {"fc1/kernel": (784, 300), "fc2/kernel": (300, 100), "out/kernel": (100, 10)}
CONV = {"conv/kernel": (3, 3, 3, 16), "deep/kernel": (3, 3, 16, 64), "out/kernel": (64, 10)}
SHAPES = st.dictionaries(
    st.sampled_from("abcdef"), st.lists(st.integers(1, 7), min_size=2, max_size=4).map(tuple), min_size=2
)


def scores(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    return {path: uniform(0, path, shape) for path, shape in shapes.items()}


@given(SHAPES, st.floats(0.05, 1.0), st.sampled_from([Uniform, ErdosRenyi, ERK]))
def test_the_total_is_exact_and_layers_differ_from_their_share_by_less_than_one(
    shapes: dict[str, tuple[int, ...]], density: float, rule: type
) -> None:
    size = sum(math.prod(shape) for shape in shapes.values())
    k = math.floor(density * size + 0.5)
    if not k:
        return
    masks = lth.select(scores(shapes), density=rule(density))
    assert masks.remaining == k
    for path, share in rule(density).of(shapes).items():
        assert abs(masks[path].sum() - share * masks[path].size) < 1 + 1e-6
        # Within a layer the highest remain.
        kept = scores(shapes)[path][masks[path]]
        assert kept.size == 0 or kept.min() >= np.sort(scores(shapes)[path].ravel())[-kept.size]


def test_closed_forms() -> None:
    # SET on Fashion-MNIST: 784-1000-1000-1000-10 with epsilon 13 is 2.96, 2.6, 2.6 % and a whole output layer.
    shapes = {"a": (784, 1000), "b": (1000, 1000), "c": (1000, 1000), "d": (1000, 10)}
    kept = 13 * (1784 + 2000 + 2000) + 10_000
    found = ErdosRenyi(kept / 2_794_000).of(shapes)
    assert found == pytest.approx({"a": 0.02958, "b": 0.026, "c": 0.026, "d": 1.0}, abs=1e-4)
    # Whole layers leave the rest to the others, in proportion to their raw densities.
    erk = ERK(0.1).of(CONV)
    raw = {path: sum(shape) / math.prod(shape) for path, shape in CONV.items()}
    sizes = {path: math.prod(shape) for path, shape in CONV.items()}
    epsilon = (0.1 * sum(sizes.values()) - 0) / sum(raw[path] * sizes[path] for path in CONV)
    assert erk == pytest.approx({path: raw[path] * epsilon for path in CONV}) and max(erk.values()) < 1
    ratio = SmartRatio(0.1, last=0.5).of(CONV)
    assert ratio["out/kernel"] == 0.5 and ratio["conv/kernel"] / ratio["deep/kernel"] == pytest.approx(12 / 6)
    steep = SmartRatio(0.1, steep=True).of(LENET)
    assert steep["fc1/kernel"] / steep["fc2/kernel"] == pytest.approx(12 / (6 / 4))
    assert lth.select(scores(CONV), density=SmartRatio(0.1)).remaining == round(0.1 * sum(sizes.values()))


def test_by_name_and_like_other_masks() -> None:
    masks = lth.select(scores(LENET), density=ByName({"out": 0.5, ".*": 0.01}))
    assert [row.remaining for row in masks.table()] == [2352, 300, 500]
    renamed = {f"other_{path}": shape for path, shape in LENET.items()}
    again = lth.select(scores(renamed), density=Like(masks))
    assert [row.remaining for row in again.table()] == [2352, 300, 500] and again.overlap != 1
    neurons = lth.select(scores(LENET), density=Uniform(0.5), structure="output")
    assert [int(mask.any(0).sum()) for mask in neurons.values()] == [150, 50, 5]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (lambda: Uniform(0.0), r"\(0, 1\].*0.0"),
        (lambda: ERK(1.5), r"\(0, 1\].*1.5"),
        (lambda: SmartRatio(0.001), r"density=0.001.*last=0.3"),
        (lambda: SmartRatio(0.5, last=0), "last.*0"),
        (lambda: ByName({"fc1": 0.5}), "fc2/kernel"),
        (lambda: ByName({".*": 1.2}), "fc1/kernel.*1.2"),
        (lambda: Like(lth.Masks.ones({"a": (2, 2)})), "'a'"),
        (lambda: Uniform(1e-9), "keeps none"),
    ],
)
def test_what_cannot_be_is_said(rule: Callable[[], Densities], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        lth.select(scores(LENET), density=rule())


def test_a_threshold_keeps_what_reaches_it() -> None:
    values = {"a": np.array([[-3.0, 1.0], [2.0, 0.0]]), "b": np.array([[2.0]])}
    assert lth.select(values, threshold=2).remaining == 3
    assert lth.select(values, threshold=2, by="value").remaining == 2
    assert lth.select(values, threshold=0, by="value", largest=False).remaining == 2
    within = lth.Masks({"a": np.array([[0, 1], [1, 1]]), "b": np.array([[1]])})
    assert lth.select(values, threshold=2, within=within).remaining == 2
    with pytest.raises(ValueError, match=r"exactly one.*threshold=1"):
        lth.select(values, threshold=1, k=2)
    assert isinstance(Uniform(0.5), Densities)
