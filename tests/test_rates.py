"""Rates of steps, and schedules that are stretched."""

from __future__ import annotations

from typing import Any

import pytest

from keras_lth.rates import CONSTANT, check_schedule, dilated, rates


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
