"""NumPy's numbers and arrays of no dimension are numbers; booleans and text are not."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import keras_lth as lth
from keras_lth.arguments import real, whole
from keras_lth.callbacks.imp_plan import IMPPlan
from keras_lth.schedules import Duration
from keras_lth.selection import random_like, uniform

SCORES = {"a": np.arange(20.0), "b": np.arange(20.0)}
MASKS = lth.Masks.ones(SCORES)
INTEGERS: dict[str, tuple[int, Callable[[Any], Any]]] = {
    "k": (3, lambda n: lth.select(SCORES, k=n)),
    "random_like": (3, lambda n: random_like(MASKS, n)),
    "uniform": (3, lambda n: uniform(n, "a", (3,)).tolist()),
    "random": (3, lambda n: lth.criteria.Random(n).seed),
    "rounds": (3, lambda n: IMPPlan(rounds=n)),
    "epochs_per_round": (3, lambda n: IMPPlan(epochs_per_round=n)),
    "rewind_to": (3, Duration.parse),
    "step": (3, lambda n: lth.Snapshot({}, step=n)),
    "padding": (3, lambda n: lth.datasets.Crop(n).padding),
    "ordered": (3, lambda n: lth.datasets.ordered(np.ones((6, 1)), batch_size=n, seed=n).position),
    "runs": (3, lambda n: lth.InstabilityCallback(runs=n, points=n, data={"test": (np.ones(3), np.ones(3))}).runs),
    "classes": (3, lambda n: lth.models.lenet_300_100((n,), n, seed=n).count_params()),
    "points": (3, lambda n: whole(n, "points", least=2)),
}
REALS: dict[str, tuple[float, Callable[[Any], Any]]] = {
    "density": (0.2, lambda x: lth.select(SCORES, x)),
    "densities": (0.2, lambda x: lth.select(SCORES, scope={"a": x, "b": 0.5})),
    "fraction": (0.2, lambda x: lth.prune(SCORES, MASKS, x)),
    "fractions": (0.2, lambda x: lth.prune(SCORES, MASKS, {"a": x, ".*": 0.1}, scope="layer")),
    "plan": (0.2, lambda x: IMPPlan(rounds=2, fraction=x)),
    "plans": (0.2, lambda x: IMPPlan(rounds=2, fraction={".*": x}, scope="layer")),
    "target": (0.2, lambda x: IMPPlan(target_density=x)),
    "floor": (0.2, lambda x: lth.select(SCORES, k=20, min_per_layer=x)),
}


@pytest.mark.parametrize("name", INTEGERS)
def test_whole_numbers(name: str) -> None:
    number, call = INTEGERS[name]
    expected = call(number)
    for kind in (np.int64, np.int32, np.uint8, np.array):
        assert call(kind(number)) == expected, kind
    for wrong in (True, np.True_, "x", 2.5, [3], None):
        with pytest.raises((ValueError, TypeError)):
            whole(wrong, name)


@pytest.mark.parametrize("name", [name for name in INTEGERS if name not in ("k", "step")])
def test_whole_numbers_are_not_booleans(name: str) -> None:
    for wrong in (True, np.True_, np.array(True), [3]):
        with pytest.raises((ValueError, TypeError)):
            INTEGERS[name][1](wrong)


@pytest.mark.parametrize("name", REALS)
def test_real_numbers(name: str) -> None:
    number, call = REALS[name]
    expected = call(number)
    # As printed: 0.2 in single precision is just above 0.2, and is taken for 0.2.
    for kind in (np.float64, np.float32, np.float16, np.array):
        assert call(kind(number)) == expected, kind
    for wrong in (True, np.True_, "0.2", [0.2], np.array([0.2]), {"x": 1}, object()):
        with pytest.raises(ValueError):
            call(wrong)


def test_values() -> None:
    assert real(np.float32(0.1), "x") == 0.1
    assert real(Fraction(1, 4), "x") == 0.25
    assert real(np.array(3), "x") == 3.0
    assert whole(np.array(3), "x") == 3
    with pytest.raises(ValueError, match="x must be a whole number of at least 2, not 1"):
        whole(1, "x", least=2)


@pytest.mark.parametrize("scope", ["global", "neuron"])
def test_densities_by_layer_say_what_to_write(scope: str) -> None:
    with pytest.raises(ValueError, match='scope="layer"'):
        lth.select(SCORES, {"a": 0.1, ".*": 0.5}, scope=scope)
    assert lth.select(SCORES, {"a": 0.1, ".*": 0.5}, scope="layer").remaining == 12
    with pytest.raises(ValueError, match="target_density must be a number"):
        lth.IMPCallback(target_density={"a": 0.1})
    with pytest.raises(ValueError, match='scope="layer"'):
        lth.IMPCallback(fraction={"a": 0.1})
