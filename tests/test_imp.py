"""The value IMP: one definition of a cut, of a start and of a seed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_lth.callbacks.imp_plan import IMPPlan
from keras_lth.imp import IMP, WHOLE, Noise, Start
from keras_lth.masks import Masks
from keras_lth.rounds import Rounds, noise_seed
from keras_lth.seeds import seed_of
from keras_lth.selection import keep_counts, prune, select

SHAPES = {"a/kernel": (10, 7), "b/kernel": (7, 5), "output/kernel": (5, 3)}
FULL = Masks.ones(SHAPES)
SCORES = {path: np.random.default_rng(3).random(shape) for path, shape in SHAPES.items()}
fractions = st.floats(0.1, 0.6).map(lambda f: round(f, 3))


@given(fractions, st.sampled_from(["global", "layer"]), st.integers(1, 4), st.none() | st.floats(0.2, 0.7))
def test_cuts_are_those_of_the_callback(fraction: float, scope: str, rounds: int, target: float | None) -> None:
    """Level by level, what remains and which weights; the plan of a fit has the same numbers."""
    imp = IMP(fraction=fraction, scope=scope, rounds=None if target else rounds, target_density=target)
    counts = imp.counts(FULL)
    plan = IMPPlan(imp.rounds, None, target, fraction, scope=scope)
    machine = plan.choose(1000, 10, FULL)
    assert machine.rounds == len(counts) - 1 and plan.imp(machine).counts(FULL) == counts
    mine = yours = FULL
    for count in counts[1:]:
        assert imp.count(mine) == count
        mine, yours = imp.prune(SCORES, mine), keep_counts(SCORES, yours, count, None)
        assert mine == yours and mine.remaining == sum(count.values())
        # The worker makes the same cut of what stands in the parameters of a step.
        assert IMP.of_cut(**imp.cut()).prune(SCORES, yours & FULL) == imp.prune(SCORES, mine)


def test_known_counts() -> None:
    # 120 weights: 120 − 24, 96 − 19.2 → 19, 77 − 15.4 → 15.
    assert [level[WHOLE] for level in IMP(rounds=3).counts(FULL)] == [120, 96, 77, 62]
    # In each layer: 70, 35 and 15.
    assert IMP(rounds=1, scope="layer").counts(FULL)[1] == {"a/kernel": 56, "b/kernel": 28, "output/kernel": 12}
    half = IMP(rounds=1, scope="layer", fraction={"output": 0.1, ".*": 0.2}).counts(FULL)[1]
    assert half == {"a/kernel": 56, "b/kernel": 28, "output/kernel": 13}  # 15 − 1.5 → 2, halves up
    # To 30 % in one shot: 36 of 120.
    assert IMP(rounds=1, fraction=1, target_density=0.3).counts(FULL)[1] == {WHOLE: 36}
    assert [level[WHOLE] for level in IMP(target_density=0.6).counts(FULL)] == [120, 96, 77, 72]


@pytest.mark.parametrize("structure", ["output", "input", (2, 2)])
def test_structures(structure: Any) -> None:
    imp = IMP(rounds=2, fraction=0.5, structure=structure)
    counts = imp.counts(FULL)
    masks = imp.prune(SCORES, FULL)
    assert masks == prune(SCORES, FULL, 0.5, structure=structure)
    assert imp.counts(masks)[0] == counts[1] and imp.count(masks) == counts[2]
    assert IMP.of_cut(**imp.cut()).prune(SCORES, FULL) == masks
    assert IMP.of_cut(**{**imp.cut(), "structure": list(structure)} if structure == (2, 2) else imp.cut()) is not None
    halves = IMP(rounds=1, structure="2:4")
    scores = {"a/kernel": np.random.default_rng(0).random((8, 4))}
    assert halves.prune(scores, Masks.ones({"a/kernel": (8, 4)})) == select(scores, structure="2:4")


def test_seeds() -> None:
    imp = IMP(T=10, rounds=2, seed=5)
    assert imp.noise(0) == Noise(5, 5, 0)
    # The rule that IMPCallback follows: the same bits in `fit` and in a plan.
    assert imp.noise(2) == Noise(noise_seed(5, 2), noise_seed(5, 2), 2)
    assert imp.noise(2).moved(77) == noise_seed(77, 2) and imp.noise(0).moved(77) == 77
    assert noise_seed(5, 2) == seed_of(5, 2) == 94152710
    assert seed_of(1, "init", 0) != seed_of(1, "init", 1) != seed_of(2, "init", 0)


@pytest.mark.parametrize("span", ["remaining", "restart"])
def test_clocks_are_those_of_rounds(span: Any) -> None:
    machine = Rounds(3, 4, 10, 15, span)
    imp = IMP(k=15, T=40, rounds=3, rewind=Start(clock="k" if span == "remaining" else "zero"))
    assert [imp.clock(level) for level in range(4)] == [machine.start(level) for level in range(4)]
    assert [imp.end(level) for level in range(4)] == [machine.total_steps] * 4


def test_starts() -> None:
    imp = IMP(k=15, T=40, rounds=3)
    assert imp.start(1) == {"values": "k", "step": 15, "slots": "fresh"}
    assert replace(imp, rewind=Start(slots="k")).start(1) == {"values": "k", "step": 15, "slots": "k"}
    # Learning-rate rewinding, and fine-tuning for as many steps at the rate of the end (Renda et al. 2020).
    assert replace(imp, rewind=Start("trained")).start(2) == {"values": "trained", "step": 15, "slots": "fresh"}
    tuned = replace(imp, rewind=Start("trained", "end"))
    assert tuned.start(2)["step"] == 40 and tuned.end(2) == 65 and tuned.end(0) == 40
    fresh = replace(imp, rewind=Start("fresh", "zero"))
    assert fresh.start(1)["seed"] != fresh.start(2)["seed"] and fresh.start(1)["step"] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"k": 40, "T": 40, "rounds": 1}, "0 ≤ k < T = 40, not 40"),
        ({"k": -1, "T": 40, "rounds": 1}, "not -1"),
        ({}, "rounds, target_density"),
        ({"rounds": 1.5}, "not 1.5"),
        ({"rounds": -1}, "not -1"),
        ({"target_density": 5}, "0.05 keeps 5 %"),
        ({"rounds": 1, "fraction": 20}, "not 20"),
        ({"rounds": 1, "fraction": 1.0}, "not 1.0"),
        ({"rounds": 1, "fraction": 0.0}, "not 0.0"),
        ({"rounds": 1, "fraction": {}}, "not {}"),
        ({"rounds": 1, "fraction": {"a": 0.1}}, 'scope="layer"'),
        ({"rounds": 1, "scope": "layers"}, "'layers'"),
        ({"rounds": 1, "structure": "4:2"}, "'4:2'"),
        ({"rounds": 2, "structure": "2:4"}, "rounds=1"),
        ({"rounds": 1, "rewind": Start(slots="k", clock="zero")}, 'slots="fresh"'),
        ({"rounds": 1, "rewind": Start(values="rewound")}, "'rewound'"),
    ],
)
def test_what_cannot_work_is_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as found:
        IMP(**arguments)
    assert said in str(found.value)


def test_what_the_network_does_not_allow_is_refused() -> None:
    with pytest.raises(ValueError, match="'b/kernel'"):
        IMP(rounds=1, scope="layer", fraction={"a": 0.1}).counts(FULL)
    with pytest.raises(ValueError, match="none"):
        IMP(rounds=1, fraction=0.999).prune({"a": np.ones(1)}, Masks.ones({"a": (1,)}))
    with pytest.raises(ValueError, match="no longer removes"):
        IMP(rounds=40).counts(FULL)


def test_it_needs_no_keras() -> None:
    import subprocess
    import sys

    code = "import sys, keras_lth.imp, keras_lth.plans; assert not {'keras', 'tensorflow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_levels_of_open_lth() -> None:
    """The counts that open_lth's own run of LeNet-300-100 printed, and with its output layer ignored."""
    layers = {"fc1": (784, 300), "fc2": (300, 100), "fc3": (100, 10)}
    imp = IMP(rounds=10, compat="open_lth")
    counts = [sum(each.values()) for each in imp.counts(Masks.ones(layers))]
    assert counts == [266200, 212959, 170366, 136291, 109031, 87223, 69777, 55820, 44655, 35723, 28577]
    assert IMP.of_cut(**imp.cut()).count(Masks.ones(layers)) == imp.count(Masks.ones(layers)) == {"": 212959}
    # The fraction also counts the 1 000 ignored weights, of which none is pruned: 265 200 − ⌈0.2 · 266 200⌉ − 1.
    ignoring = IMP(rounds=2, compat="open_lth", ignored=1000)
    counts = [sum(each.values()) for each in ignoring.counts(Masks.ones({k: layers[k] for k in ("fc1", "fc2")}))]
    assert counts == [265200, 265200 - 53241, 265200 - 53241 - (42592 + 1)]
    with pytest.raises(ValueError, match=r"open_lth.*scope=\"global\".*'torch'"):
        IMP(rounds=1, compat="torch")
