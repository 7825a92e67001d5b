from __future__ import annotations

import itertools
import re
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_lth.schedules import CONSTANT, Duration, check_schedule, cut, dilated, levels, rates
from keras_lth.selection import round_half_up

LENET = {"fc1/kernel": 235_200, "fc2/kernel": 30_000, "output/kernel": 1_000}


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        (0, 0, "steps"),
        (500, 500, "steps"),
        ("500 steps", 500, "steps"),
        ("1 step", 1, "steps"),
        ("2 epochs", 2, "epochs"),
        ("0.5 epochs", 0.5, "epochs"),
        ("1%", 1, "%"),
        (" 2.5 % ", 2.5, "%"),
    ],
)
def test_durations_are_read(text: object, amount: float, unit: str) -> None:
    assert Duration.parse(text) == Duration(amount, unit)


@pytest.mark.parametrize("text", ["", "five steps", "500", "1.5 steps", "-1 steps", -1, None, 2.0, True, "1 % steps"])
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="Invalid duration"):
        Duration.parse(text)


def test_durations_in_steps() -> None:
    assert Duration.parse("500 steps").steps(None, 24) == 500
    assert Duration.parse("2 epochs").steps(1000, 24) == 2000
    assert Duration.parse("1%").steps(1000, 24) == 240
    assert Duration.parse("0%").steps(None, 24) == 0
    with pytest.raises(ValueError, match="steps_per_epoch"):
        Duration.parse("1%").steps(None, 24)


def test_the_text_of_a_duration_reads_back() -> None:
    for text in ("500 steps", "2 epochs", "1%", "0.5 epochs"):
        assert Duration.parse(str(Duration.parse(text))) == Duration.parse(text)


def test_levels_of_lenet_follow_the_integer_recurrence() -> None:
    # n − ⌊n/5 + 1/2⌋, in exact arithmetic, from 266 200: the published 0.8ⁿ grid, 3.5 % after 15 rounds.
    expected = [266_200]
    for _ in range(15):
        n = expected[-1]
        expected.append(n - (Fraction(n, 5) + Fraction(1, 2)).__floor__())
    found = [sum(level.values()) for level in levels({"": 266_200}, 0.2, rounds=15)]
    assert found == expected
    assert found[1] == 212_960
    assert abs(found[15] / 266_200 - 0.8**15) < 1e-5


def test_the_last_cut_hits_the_target() -> None:
    found = levels({"": 1000}, 0.2, target_density=0.5)
    assert [level[""] for level in found] == [1000, 800, 640, 512, 500]


def test_one_shot_is_one_cut() -> None:
    assert levels({"": 1000}, 1.0, target_density=0.035) == [{"": 1000}, {"": 35}]


def test_layers_have_fractions_of_their_own() -> None:
    # Frankle & Carbin 2019: the output layer is pruned at half the rate.
    found = levels(LENET, {"fc1/kernel": 0.2, "fc2/kernel": 0.2, "output/kernel": 0.1}, rounds=2)
    assert found[1] == {"fc1/kernel": 188_160, "fc2/kernel": 24_000, "output/kernel": 900}
    assert found[2] == {"fc1/kernel": 150_528, "fc2/kernel": 19_200, "output/kernel": 810}


def test_what_cannot_be_reached_is_said() -> None:
    with pytest.raises(ValueError, match=r"not 0\.1"):
        levels({"": 1000}, 0.2, rounds=2, target_density=0.1)
    with pytest.raises(ValueError, match=re.escape("no longer removes")):
        levels({"": 3}, 0.1, rounds=5)
    with pytest.raises(ValueError, match="leave none"):
        cut({"": 1}, 0.6)


@given(st.dictionaries(st.text("abc", min_size=1), st.integers(1, 5000), min_size=1), st.floats(0.05, 0.9))
def test_a_target_is_hit_exactly_over_layers(sizes: dict[str, int], target: float) -> None:
    total = sum(sizes.values())
    wanted = round_half_up(target, total)
    if wanted == 0:
        return
    found = levels(sizes, 0.5 if wanted * 2 >= total else 1.0, target_density=target)
    assert sum(found[-1].values()) == wanted
    for earlier, later in itertools.pairwise(found):
        assert all(0 <= later[name] <= earlier[name] for name in sizes)


def test_rates_are_pieces() -> None:
    assert rates(1.2e-3, {}, 24_000) == 1.2e-3
    drops = {"drops": (32_000, 48_000), "factor": 0.1}
    assert rates(0.1, drops, 63_000) == ((0, 0.1), (32_000, 0.1 * 0.1), (48_000, 0.1 * 0.1**2))
    warm = rates(0.03, {**drops, "warmup": 30_000}, 63_000)
    assert warm[:2] == ((0, {"linear": [0, 0.0, 30_000, 0.03]}), (30_000, 0.03)) and len(warm) == 4
    assert rates(0.03, {"decay": "linear", "final": 0.005}, 900) == ((0, {"linear": [0, 0.03, 900, 0.005]}),)


@pytest.mark.parametrize("dilation", [0.2, 0.7, 1, 1.3, 2.1, 1 / 3])
def test_a_dilated_schedule_has_the_same_rates_stretched(dilation: float) -> None:
    """ResNet-20 with warm-up (thesis, table 4.1)."""
    schedule: Any = {"drops": (32_010, 48_000), "warmup": 30_000, "factor": 0.1}
    stretched, steps = dilated(schedule, 63_000, dilation)
    assert steps == round(63_000 * dilation) and stretched["factor"] == 0.1
    assert stretched["warmup"] == round(30_000 * dilation)
    assert stretched["drops"] == (round(32_010 * dilation), round(48_000 * dilation))
    begins = [begin for begin, _ in rates(0.03, schedule, 63_000)]
    assert [begin for begin, _ in rates(0.03, stretched, steps)] == [round(begin * dilation) for begin in begins]
    assert dilated({}, 24_000, dilation)[1] == round(24_000 * dilation)


@pytest.mark.parametrize(
    ("schedule", "steps", "dilation", "said"),
    [
        # The greatest common divisor of 480 and 100 is 20, so dilations in twentieths work.
        ({"drops": (100,)}, 480, 0.333, r"0.333.*steps=480 159.84.*multiples of 1/20, such as 0.35"),
        ({"drops": (100,), "warmup": 90}, 480, 0.15, r"warmup=90 13.5.*1/10, such as 0.2"),
        ({}, 480, 0.001, r"0.001.*480 0.48.*1/480, such as 0.002083333333"),
        ({}, 480, 0, r"0.*1/480"),
        ({}, 480, "half", "dilation.*half"),
    ],
)
def test_a_dilation_that_gives_no_whole_step(schedule: Any, steps: int, dilation: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        dilated(schedule, steps, dilation)


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ({"drops": (30, 100)}, r"drops.*\(30, 100\).*steps=100.*steps=101"),
        ({"warmup": 100}, "warmup.*100.*steps=100.*steps=101"),
        ({"warmup": 30, "drops": (30,)}, r"drops=\(30,\).*above warmup=30"),
        ({"decay": "exponential"}, "decay.*cosine.*'exponential'"),
        ({"decay": "linear", "drops": (30,)}, "decay='linear'.*drops"),
        ({"final": 0.1}, "final=0.1.*decay='linear'"),
        ({"decay": "linear", "final": -1}, "final.*-1"),
        ({"warmup": -1}, "warmup.*-1"),
        ({"factor": "a tenth"}, "factor.*a tenth"),
    ],
)
def test_a_schedule_that_cannot_work(schedule: Any, said: str) -> None:
    check_schedule(CONSTANT, 100)
    with pytest.raises(ValueError, match=said):
        rates(0.1, schedule, 100)
