from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_lth.schedules import Constant, Duration, Function, OneShot, Periodic, Polynomial, Updates, cut, levels
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


@pytest.mark.parametrize("step", [0, 100, 137, 500, 900, 1000, 5000])
def test_a_polynomial_is_that_of_zhu_and_gupta(step: int) -> None:
    # Their equation 1 in sparsities: s_t = s_f + (s_i − s_f)(1 − (t − t_0)/(nΔt))³.
    done = min(max(step - 100, 0), 800) / 800
    sparsity = 0.9 + (0.2 - 0.9) * (1 - done) ** 3
    assert Polynomial(0.8, 0.1, begin=100, end=900)(step) == pytest.approx(1 - sparsity)


@given(st.integers(0, 20), st.none() | st.integers(0, 30), st.integers(1, 9), st.integers(0, 60))
def test_updates_are_begin_every_nth_and_end(begin: int, length: int | None, every: int, step: int) -> None:
    end = None if length is None else begin + length
    updates = Updates(begin, end, every).in_steps(100, 1)
    due = [s for s in range(200) if s >= begin and ((s - begin) % every == 0 or s == end) and (end is None or s <= end)]
    assert updates.last(step) == max((s for s in due if s <= step), default=None)
    assert updates.next(step) == min((s for s in due if s > step), default=None)


def test_schedules_in_steps() -> None:
    found = Polynomial(1.0, 0.1, begin="10%", end="2 epochs", every="0.5 epochs").in_steps(20, 4)
    assert [found.next(step) for step in (0, 8, 18, 38, 40)] == [8, 18, 28, 40, None]
    assert OneShot(0.2, at="1 epoch").in_steps(20, 4).last(19) is None
    periodic = Periodic(0.1, every=10, begin=20, end=55).in_steps(20, 4)
    assert [periodic(step) for step in (0, 20, 30, 40, 50, 55, 60)] == [1.0, 0.1, 1.0, 0.1, 1.0, 0.1, 0.1]
    assert Function(lambda step: 1 / (1 + step)).in_steps(20, 4)(1) == 0.5


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Polynomial(1.0, 0.1, begin=9, end=5), "begins at 9 steps, after its end at 5 steps.*earlier"),
        (lambda: Polynomial(1.0, 0.1, begin="50%", end=5).in_steps(20, 4), "40 steps, after its end at 5 steps"),
        (lambda: Polynomial(1.0, 0.1, end=81).in_steps(20, 4), "ends at step 81.*ends at step 80.*at most 80"),
        (lambda: OneShot(0.1, at="5 epochs").in_steps(20, 4), "begins at step 100.*80"),
        (lambda: Constant(0.1, every=0), "at least 1"),
        (lambda: Constant(0.0), r"density must lie in \(0, 1\], not 0.0"),
        (lambda: Polynomial(1.0, 1.5), "final.*1.5"),
        (lambda: Polynomial(1.0, 0.5, power=0), "power.*0"),
        (lambda: Constant(0.5, begin="1%").in_steps(None, 4), "steps_per_epoch"),
        (lambda: Constant(0.5, begin="1%").next(0), "in_steps"),
        (lambda: Function(lambda _: 2.0)(3), "step 3.*2.0"),
    ],
)
def test_schedules_that_cannot_work_are_refused(make: Callable[[], object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make()
