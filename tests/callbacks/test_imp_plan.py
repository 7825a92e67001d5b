from __future__ import annotations

import re

import numpy as np
import pytest

from keras_lth.callbacks.imp_plan import IMPPlan
from keras_lth.masks import Masks
from keras_lth.rounds import UNKNOWN, Rounds
from keras_lth.schedules import Duration

FULL = Masks.ones({"fc1/kernel": (784, 300), "fc2/kernel": (300, 100), "output/kernel": (100, 10)})
TOTAL = 266_200


def choose(epochs: int, steps: int = 1000, **arguments: object) -> Rounds:
    return IMPPlan(**arguments).choose(epochs, steps, FULL)


def test_the_example_of_the_readme() -> None:
    found = choose(16 * 24, rounds=15, rewind_to=Duration.parse("500 steps"))
    assert found == Rounds(15, 24, 1000, 500)
    assert found.total_epochs == 16 * 24


@pytest.mark.parametrize(
    ("epochs", "rounds", "per_round"), [(2, 1, 1), (3, 1, 1), (9, 2, 3), (100, 9, 10), (384, 18, 20), (10_000, 20, 476)]
)
def test_without_arguments(epochs: int, rounds: int, per_round: int) -> None:
    found = choose(epochs)
    assert (found.rounds, found.epochs) == (rounds, per_round)
    assert found.total_epochs <= epochs


def test_any_one_argument_fixes_the_others() -> None:
    assert choose(50, rounds=4) == Rounds(4, 10, 1000)
    assert choose(53, rounds=4) == Rounds(4, 10, 1000)
    assert choose(50, epochs_per_round=10) == Rounds(4, 10, 1000)
    # 0.8⁵ = 0.328 > 0.3 > 0.8⁶ = 0.262: six rounds, the last cut shortened.
    assert choose(70, target_density=0.3) == Rounds(6, 10, 1000)
    counts = IMPPlan(target_density=0.3).imp().counts(FULL)
    assert [sum(c.values()) for c in counts][-1] == 79_860 == TOTAL * 3 // 10
    assert choose(20, target_density=0.05, one_shot=True) == Rounds(1, 10, 1000)
    assert choose(20, one_shot=True) == Rounds(1, 10, 1000)


def test_epochs_that_the_rewind_saves_are_counted() -> None:
    # Rounds from epoch 2 of 10 take 8: 10 + 3 · 8 = 34.
    plan = {"rounds": 3, "epochs_per_round": 10, "rewind_to": Duration.parse("2 epochs")}
    assert choose(34, **plan).total_epochs == 34
    message = "need 34 epochs, but fit has 33: use fit(epochs=34), or rounds=2, or epochs_per_round=9"
    with pytest.raises(ValueError, match=re.escape(message)):
        choose(33, **plan)


@pytest.mark.parametrize(
    ("epochs", "arguments", "message"),
    [
        (1, {}, "at least 2 epochs"),
        (3, {"rounds": 3}, r"fit\(epochs=4\) or more, or rounds=2"),
        (9, {"epochs_per_round": 5}, r"fit\(epochs=10\), or epochs_per_round=4"),
        (10, {"rounds": 4, "target_density": 0.1}, "reach a density of 0.4096, not 0.1"),
        (10, {"rewind_to": Duration(99_999, "steps")}, "choose a step before 3000"),
        (10, {"rewind_to": Duration(100, "%")}, "choose a step before"),
    ],
)
def test_what_the_epochs_cannot_hold(epochs: int, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose(epochs, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rounds": 0}, "rounds must be a whole number"),
        ({"epochs_per_round": 1.5}, "epochs_per_round must be a whole number"),
        ({"target_density": 0.0}, "target_density must be between 0 and 1"),
        ({"target_density": 1.5}, "target_density must be between 0 and 1"),
        ({"fraction": 1.0}, "fraction must be between 0 and 1"),
        ({"fraction": 0}, "fraction must be between 0 and 1"),
        ({"scope": "channel"}, "scope must be"),
        ({"fraction": {".*": 0.2}}, 'need scope="layer"'),
        ({"one_shot": True, "rounds": 3}, "omit rounds"),
    ],
)
def test_wrong_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IMPPlan(**arguments)


def test_half_the_rate_at_the_output() -> None:
    plan = IMPPlan(rounds=1, scope="layer", fraction={"output": 0.1, ".*": 0.2})
    assert plan.imp().counts(FULL)[1] == {"fc1/kernel": 188_160, "fc2/kernel": 24_000, "output/kernel": 900}
    with pytest.raises(ValueError, match="no fraction for 'fc1/kernel': none of output matches"):
        IMPPlan(rounds=1, scope="layer", fraction={"output": 0.1}).choose(10, 10, FULL)


def test_a_sparse_start_counts_from_where_it_is() -> None:
    half = Masks({path: np.arange(1000) % 2 == 0 for path in ("fc1/kernel", "fc2/kernel")})
    plan = IMPPlan(target_density=0.4)
    assert [c[""] for c in plan.imp().counts(half)] == [1000, 800]
    with pytest.raises(ValueError, match="already"):
        IMPPlan(target_density=0.5).choose(10, 10, half)


def test_unknown_number_of_batches() -> None:
    assert choose(10, UNKNOWN, rewind_to=Duration(7, "steps")).rewind_step == 7
    for text in ("1 epochs", "1%"):
        with pytest.raises(ValueError, match="does not report"):
            choose(10, UNKNOWN, rewind_to=Duration.parse(text))
