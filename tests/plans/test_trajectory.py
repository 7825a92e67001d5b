"""one_state_one_name: however a training is cut, its point at a step has one name and the same bits."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_lth.imp import Noise
from keras_lth.plans import Notebook, Step, Trajectory, run, trajectory
from keras_lth.plans.run import Session
from keras_lth.store import Store
from tests.forms import examples
from tests.plans import toy

RATES = ((0, 0.05), (30, 0.01), (60, 0.002))
NOISE = Noise(3)


def line(rates: Any = RATES, seed: int = 1, noise: Noise = NOISE) -> Trajectory:
    return toy.Lab(Notebook(lambda step: None), rates).train(toy.INIT(seed=seed), toy.FULL(), noise)


def wanting(*steps: Step) -> Any:
    return lambda book: book.want(*steps)


def made(store: Store, steps: Iterable[Step]) -> dict[str, bytes]:
    """The bits of the values."""
    return {
        f"{step.name}/{name}": array.tobytes() for step in steps for name, array in store.get(step.name).arrays.items()
    }


def points(whole: Trajectory, at: int) -> list[Step]:
    return [whole.at(at), whole.slots(at)]


@lru_cache
def uncut(at: int) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "s")
        run(wanting(*points(line(), at)), store, say=lambda text: None)
        return made(store, points(line(), at))


class Stop(BaseException):
    pass


@settings(max_examples=examples(25))
@given(st.lists(st.integers(1, 99), max_size=4), st.integers(1, 40), st.lists(st.integers(0, 30), max_size=2))
def test_one_state_one_name(cuts: list[int], calls: int, kills: list[int]) -> None:
    """Asked for in any parts, run in calls of any length, killed after any of them."""
    whole = line()
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        store = Store(Path(folder) / "s")
        patch.setenv("TOY_CALLS", str(calls))
        advance = toy.Trainer.advance
        for at in [*cuts, 100]:
            for kill in kills:
                left = [kill]

                def dying(self: Any, to: int, left: list[int] = left) -> None:
                    left[0] -= 1
                    if left[0] < 0:
                        raise Stop
                    advance(self, to)

                patch.setattr(toy.Trainer, "advance", dying)
                with pytest.MonkeyPatch.context(), contextlib.suppress(Stop):
                    run(wanting(*points(whole, at)), store, commit_every=0, say=lambda text: None)
            patch.setattr(toy.Trainer, "advance", advance)
            run(wanting(*points(whole, at)), store, say=lambda text: None)
        assert made(store, points(whole, 100)) == uncut(100)
        assert store.under_way() == set()


def test_another_point_continues_from_the_nearest_kept(store: Store, log: Path) -> None:
    whole = line()
    for at in (50, 80, 60, 100):
        run(wanting(*points(whole, at)), store, say=lambda text: None)
    loads = [(step, first) for _, what, *rest in toy.counted(log) if what == "load" for _, step, first in [rest]]
    # 60 lies between 50 and 80; 100 goes on from 80.
    assert loads == [(0, True), (50, False), (50, False), (80, False)]
    run(wanting(whole.at(70)), store, say=lambda text: None)  # without slots: nothing can go on from it
    run(wanting(whole.at(75)), store, say=lambda text: None)
    loads = [rest[1] for _, what, *rest in toy.counted(log) if what == "load"]
    assert loads[-2:] == [60, 60]


def test_a_state_is_kept_without_slots(store: Store) -> None:
    run(wanting(line().at(10)), store, say=lambda text: None)
    assert set(store.get(line().at(10).name).arrays) == {"weights/w"}
    assert store.names() == {line().at(10).name, toy.FULL().name}
    run(wanting(line().slots(10)), store, say=lambda text: None)
    assert set(store.get(line().slots(10).name).arrays) == {"optimizer/m"}


def test_only_rates_of_the_steps_taken_are_in_the_name() -> None:
    whole = line()
    assert whole.at(30) == line(0.05).at(30) == line(((0, 0.05), (30, 7))).at(30)
    assert whole.at(31) != line(0.05).at(31)
    assert whole.at(60) == line(((0, 0.05), (10, 0.05), (30, 0.01))).at(60)
    assert line(0.05).at(500) == line(((0, 0.05), (500, 0.01))).at(500)
    assert whole.at(0) == toy.INIT(seed=1)
    assert len({line(0.05).at(5), line(0.05, seed=2).at(5), line(0.05, noise=Noise(4)).at(5), line(0.1).at(5)}) == 4
    # A formula is named as it is given: where it began is part of it.
    cosine = {"cosine": [0.1, 100]}
    assert line(((0, cosine),)).at(5) != line(((0, {"cosine": [0.1, 200]}),)).at(5)


def test_a_training_that_starts_at_a_point_of_itself_is_itself() -> None:
    lab = toy.Lab(Notebook(lambda step: None), RATES)
    whole = line()
    again = lab.train(whole.at(40), toy.FULL(), Noise(3))
    assert again.at(100) == whole.at(100) and again.at(40) == whole.at(40) and again.id == whole.id
    # The clock goes on, and so do the rates: they are of the step.
    assert lab.on(rates=0.05).train(whole.at(20), toy.FULL(), Noise(3)).at(30) == whole.at(30)
    assert lab.on(rates=0.05).train(whole.at(20), toy.FULL(), Noise(3)).at(40) != whole.at(40)
    other = lab.train(whole.at(40), toy.FULL(), Noise(9))
    assert other.begin == 40 and other.at(40) == whole.at(40) and other.at(100) != whole.at(100)
    assert [each.kind.name for each in other.inputs] == ["state", "slots", "full"]


def test_a_switch_of_rate_shares_what_came_before(store: Store, log: Path) -> None:
    first = line(0.05)
    switched = line(((0, 0.05), (50, 0.01)))
    run(wanting(*points(first, 50), first.at(100)), store, say=lambda text: None)
    run(wanting(switched.at(100)), store, say=lambda text: None)
    steps = sum(to - since for _, what, *rest in toy.counted(log) if what == "train" for _, since, to in [rest])
    assert steps == 100 + 50
    a, b = (store.get(each.at(100).name).arrays["weights/w"] for each in (first, switched))
    assert not np.array_equal(a, b)


def test_observed_rows_are_beside_the_trajectory(store: Store, log: Path) -> None:
    whole, bits = line(), uncut(45)
    log.unlink(missing_ok=True)
    short, long = (whole.observed("test", every=10, to=to) for to in (45, 72))
    run(wanting(short, whole.at(45), whole.slots(45)), store, say=lambda text: None)
    rows = store.get(short.name).rows
    assert [row["step"] for row in rows] == [10, 20, 30, 40, 45]
    # Observing changes nothing.
    assert made(store, points(whole, 45)) == bits
    run(wanting(long), store, say=lambda text: None)
    steps = sum(to - since for _, what, *rest in toy.counted(log) if what == "train" for _, since, to in [rest])
    assert steps == 72
    longer = store.get(long.name).rows
    assert [row["step"] for row in longer] == [10, 20, 30, 40, 50, 60, 70, 72]
    assert longer[:4] == rows[:4]
    # Without the rows up to there, a kept state is of no use.
    other = whole.observed("train", every=30, to=72)
    run(wanting(other), store, say=lambda text: None)
    assert [row["step"] for row in store.get(other.name).rows] == [30, 60, 72]
    loads = [rest[1] for _, what, *rest in toy.counted(log) if what == "load"]
    assert loads == [0, 45, 0]


@given(st.integers(1, 30), st.integers(1, 60), st.integers(0, 20))
@settings(max_examples=examples(15))
def test_rows_do_not_depend_on_where_it_was_killed(every: int, to: int, kill: int) -> None:
    whole = line()
    wanted = whole.observed("test", every=every, to=to)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOY_CALLS", "4")
        stores = [Store(Path(folder) / name) for name in ("a", "b")]
        run(wanting(wanted), stores[0], say=lambda text: None)
        session = Session({"plan": wanting(wanted)}, stores[1], commit_every=0, say=lambda text: None)
        advance, left = toy.Trainer.advance, [kill]

        def dying(self: Any, to: int) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise Stop
            advance(self, to)

        patch.setattr(toy.Trainer, "advance", dying)
        with contextlib.suppress(Stop):
            session.work()
        patch.setattr(toy.Trainer, "advance", advance)
        run(wanting(wanted), stores[1], say=lambda text: None)
        assert stores[0].get(wanted.name).rows == stores[1].get(wanted.name).rows


def test_a_point_before_the_start_is_refused() -> None:
    lab = toy.Lab(Notebook(lambda step: None), RATES)
    fork = lab.train(line().at(40), None, Noise(9))
    with pytest.raises(ValueError, match="step > 40"):
        fork.at(39)
    with pytest.raises(ValueError, match="increasing steps"):
        trajectory(toy.TRAIN, toy.INIT(seed=1), None, ((5, 0.1),))
