"""A run makes what is missing, once, whoever else is at work and whatever happens to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_lth.plans import Notebook, StepsFailedError, estimate, run, tidy
from keras_lth.plans import rows as rows_of
from keras_lth.plans.run import Session
from keras_lth.store import Store, check
from keras_lth.store.upkeep import distinguishing, plan_of, supersede
from tests.plans import toy

quiet: Any = {"say": lambda text: None}
PLANS = {"imp": toy.imp, "instability": toy.instability}


def loads(log: Path) -> list[tuple[int, int]]:
    """(seed of the order, first step) of each training that really ran."""
    return [(order, step) for _, what, *rest in toy.counted(log) if what == "load" for order, step, _ in [rest]]


def trained(log: Path) -> Counter[tuple[int, int]]:
    """How often each step of each training was taken."""
    found: Counter[tuple[int, int]] = Counter()
    for _, what, *rest in toy.counted(log):
        if what == "train":
            order, since, to = rest
            found.update((order, step) for step in range(since, to))
    return found


def values(store: Store) -> dict[str, Any]:
    found = {name: store.get(name) for name in store.names()}
    return {n: (dict(v.meta), {k: a.tobytes() for k, a in v.arrays.items()}) for n, v in found.items()}


def test_a_run_and_again(store: Store, log: Path) -> None:
    rows = run(toy.imp, store, **quiet)
    assert [row["level"] for row in rows] == [0, 1, 2, 3]
    # 20 · 0.8, and 20 % of what remains each time, rounded.
    assert [row.get("remaining", 20) for row in rows] == [20, 16, 13, 10]
    assert len(loads(log)) == 4 and Counter(step for _, step in loads(log)) == {0: 1, 50: 3}
    # The dense one has 100 steps, each level T − k.
    assert sum(trained(log).values()) == 100 + 3 * 50
    log.unlink()
    before = values(store)
    assert run(toy.imp, store, **quiet) == rows
    assert toy.counted(log) == [] and values(store) == before and store.under_way() == set()


def test_two_plans_share_what_they_have_in_common(store: Store, log: Path) -> None:
    """The instability of two levels of a finished IMP trains its forks, and nothing twice."""
    run(toy.imp, store, **quiet)
    first = len(loads(log))
    rows = run(PLANS, store, **quiet)
    assert [(row["network"], row["k"]) for row in rows[4:]] == [(0, 0), (0, 50), (2, 0), (2, 50)]
    # A level begins at k = 50, so its forks at 0 and 50 are the same two trainings.
    assert loads(log)[first:] == [(7, 0), (8, 0), (7, 50), (8, 50), (7, 50), (8, 50)]
    # One fork more: each of the two networks once more to step 75, which no plan had kept, and its two copies.
    first = len(loads(log))
    run({**PLANS, "more": partial(toy.instability, ks=(0, 50, 75))}, store, **quiet)
    orders = Counter(loads(log)[first:])
    assert len(loads(log)[first:]) == 6 and orders[7, 75] == orders[8, 75] == 2
    assert {step for _, step in orders} == {50, 75}  # from W_k on, not from 0


def test_together_from_the_start_nothing_is_trained_twice(store: Store, log: Path) -> None:
    run({**PLANS, "more": partial(toy.instability, ks=(0, 50, 75))}, store, **quiet)
    twice = {key: count for key, count in trained(log).items() if count > 1 and key[0] not in (7, 8)}
    assert not twice


def test_a_step_that_raises_does_not_stop_the_others(store: Store, log: Path) -> None:
    def plan(book: Notebook) -> None:
        toy.imp(book)
        lab = toy.Lab(book)
        bad = toy.START(lab.init(0), values="boom")
        book.row(toy.EVALUATE(lab.train(bad, toy.FULL()).at(10)), arm="bad")

    with pytest.raises(StepsFailedError) as failed:
        run(plan, store, command="python -m program --workdir=w", **quiet)
    (name,) = failed.value.errors
    text = str(failed.value)
    assert (
        name.startswith("state-") and "ArithmeticError: boom" in text and f"program --workdir=w --only={name}" in text
    )
    assert "'values': 'boom'" in text and "start-" in text
    assert len(Session({"imp": toy.imp}, store, **quiet).rows().rows) == 4
    assert set(store.errors()) == {name} and "boom" in store.errors()[name]["traceback"]
    # Alone it fails again, and nothing else is done.
    log.unlink()
    with pytest.raises(StepsFailedError, match="boom"):
        run(plan, store, only=name, **quiet)
    assert [what for _, what, *_ in toy.counted(log)] == ["init"]


def test_a_step_is_made_alone(store: Store, log: Path) -> None:
    agenda = Session({"imp": toy.imp}, store, **quiet)
    cut = next(step for step in agenda.missing().values() if step.kind is toy.CUT)
    run(toy.imp, store, only=cut.name, **quiet)
    assert {name.split("-")[0] for name in store.names()} == {"full", "state", "cut"}
    assert len(loads(log)) == 1
    with pytest.raises(ValueError, match="cut-nothing"):
        run(toy.imp, store, only="cut-nothing", **quiet)


def descendants(name: str, session: Session) -> set[str]:
    found = {name}
    for step in session.agenda.steps.values():  # inputs first
        if any(each.name in found for each in step.sources):
            found.add(step.name)
    return found - {name}


@pytest.mark.parametrize("kind", ["cut", "state", "full", "slots", "evaluate", "compare"])
@pytest.mark.parametrize("where", [20, -3])
def test_a_damaged_value_is_found_said_and_made_again(kind: str, where: int, store: Store) -> None:
    run(PLANS, store, **quiet)
    session = Session(PLANS, store, **quiet)
    assert not session.missing()
    before = values(store)
    name = sorted(name for name in store.names() if name.startswith(kind))[0]
    path = Path(store.folder) / "values" / f"{name}.value"
    raw = bytearray(path.read_bytes())
    raw[where] ^= 1
    path.write_bytes(raw)
    assert set(check(store)) == {name}
    for each in descendants(name, session):
        store.drop(each)
    kept = {each: os.stat(Path(store.folder) / "values" / f"{each}.value").st_ino for each in store.names()}
    said: list[str] = []
    run(PLANS, store, say=said.append)
    assert values(store) == before
    assert any(f"{name} is damaged" in text for text in said)
    # Nothing else was touched.
    now = {each: os.stat(Path(store.folder) / "values" / f"{each}.value").st_ino for each in kept}
    assert {each for each in kept if now[each] != kept[each]} <= {name}


def test_a_damaged_value_in_the_middle_is_found_while_others_are_made(store: Store) -> None:
    run(toy.imp, store, **quiet)
    before = values(store)
    cuts = [name for name in store.names() if name.startswith("cut")]
    (Path(store.folder) / "values" / f"{cuts[0]}.value").write_bytes(b"")
    said: list[str] = []
    rows = run(PLANS, store, say=said.append)
    assert len(rows) == 8 and {n: v for n, v in values(store).items() if n in before} == before
    assert any(cuts[0] in text for text in said)


def test_a_disk_that_always_damages_is_not_asked_for_ever(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(self: Store, name: str) -> Any:
        from keras_lth.store import DamagedError

        raise DamagedError(name, "it was edited")

    monkeypatch.setattr(Store, "get", damaged)
    with pytest.raises(OSError, match="check the disk"):
        run(toy.imp, store, **quiet)


def test_dry_run(store: Store, tmp_path: Path) -> None:
    nothing = estimate(PLANS, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    assert {line.kind: (line.there, line.missing) for line in nothing.lines} == {
        "full": (0, 1), "state": (0, 11), "slots": (0, 1), "evaluate": (0, 4), "cut": (0, 3), "compare": (0, 3),
    }  # fmt: skip
    assert nothing.seconds is None and nothing.looks == 4 and "?" in str(nothing)
    run(partial(toy.imp, sleep=0.01), store, **quiet)
    before = values(store)
    found = {line.kind: line for line in estimate(partial(toy.imp, sleep=0.01, replicate=1), store.folder).lines}
    assert (found["full"].there, found["full"].missing) == (1, 0)
    assert (found["state"].there, found["state"].missing) == (0, 5)
    # A state of twenty float64; four trainings of 250 steps in calls of at most 7, 10 ms each.
    assert found["state"].bytes == pytest.approx(5 * 160)
    calls = 8 + 8 + 3 * 8
    assert 0.01 * calls <= (found["state"].seconds or 0) <= 0.05 * calls
    done = estimate(partial(toy.imp, sleep=0.01), store.folder)
    assert (done.seconds, done.bytes) == (0, 0) and "all" in str(done)
    assert values(store) == before


def start(folder: Path, sleep: float, workers: int = 1) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.plans.program", str(folder), str(sleep), str(workers)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_divide_the_work(store: Store, log: Path) -> None:
    processes = [start(Path(store.folder), 0.03) for _ in range(2)]
    ended = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ended
    by = {process: [line for line in toy.counted(log) if line[0] == process.pid] for process in processes}
    took = [[line for line in lines if line[1] == "load"] for lines in by.values()]
    # Each training once, each step once, and both processes at work.
    assert len(loads(log)) == 8 and set(trained(log).values()) == {1}
    assert min(map(len, took)) >= 3
    rows = [out.splitlines()[-1] for out, _ in ended]
    assert rows[0] == rows[1] and "'level': 3" in rows[0]
    assert store.under_way() == set() and not check(store)


def test_workers_divide_the_work(store: Store, log: Path) -> None:
    rows = run(partial(toy.imps, sleep=0.01), store, workers=2, **quiet)
    assert len(rows) == 8 and set(trained(log).values()) == {1}
    assert len({pid for pid, what, *_ in toy.counted(log) if what == "load"} - {os.getpid()}) == 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_another_process_takes_over(number: signal.Signals, store: Store, log: Path) -> None:
    """One of two is killed in a training: the other goes on from its commit, and nothing is lost."""
    processes = [start(Path(store.folder), 0.05) for _ in range(2)]
    while not [line for line in toy.counted(log) if line[0] == processes[0].pid and line[1] == "train"][3:]:
        assert processes[0].poll() is None
        time.sleep(0.01)
    processes[0].send_signal(number)
    processes[0].communicate(timeout=60)
    assert processes[0].returncode == (-9 if number == signal.SIGKILL else 143)
    _out, err = processes[1].communicate(timeout=120)
    assert processes[1].returncode == 0, err
    # At most the one call that no commit came after was run again.
    again = [key for key, count in trained(log).items() if count > 1]
    assert len(again) <= 7 and len({order for order, _ in again}) <= 1
    alone = Store(Path(store.folder).parent / "alone")
    run(partial(toy.imps, sleep=0.05), alone, say=lambda text: None)
    assert values(store) == values(alone) and store.under_way() == set()


def test_all_workers_are_killed(store: Store, log: Path) -> None:
    process = start(Path(store.folder), 0.05, workers=2)
    while len(toy.counted(log)) < 8:
        time.sleep(0.01)
    for pid in {line[0] for line in toy.counted(log)}:
        os.kill(pid, signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "2 of 2 workers ended with -9, -9" in err and "Start the same run again" in err
    assert len(run(partial(toy.imps, sleep=0.05), store, **quiet)) == 8


def test_rows_are_made_of_what_is_there(store: Store) -> None:
    session = Session({"imp": toy.imp}, store, **quiet)
    cut = next(step for step in session.missing().values() if step.kind is toy.CUT)
    run(toy.imp, store, only=cut.name, **quiet)
    run(toy.imp, store, only=next(n for n in session.agenda.steps if n.startswith("evaluate")), **quiet)
    found = session.rows()
    assert [row["level"] for row in found.rows] == [0] and [row["level"] for row in found.missing] == [1, 2, 3]
    # And without the plan, from the store alone.
    plan = store.plans()["imp"]
    there = store.names()
    assert tidy(plan["rows"], lambda name: store.get(name) if name in there else None) == found


def test_what_a_plan_waits_for_is_kept(store: Store) -> None:
    def waits(book: Notebook) -> None:
        book.row(toy.CUT(), look=book.look(toy.CUT()).meta)

    assert list(Session({"waits": waits}, store, **quiet).missing()) == [toy.CUT().name]
    known = store.plans()["waits"]
    assert known["awaited"] == [toy.CUT().name] and known["rows"] == []


def test_a_row_that_contradicts_itself_is_refused() -> None:
    from keras_lth.store import Value

    values = {"a": Value({}, {"rows": [{"x": 1}]}), "b": Value({}, {"rows": [{"x": 2}]})}
    many = Value({}, {"rows": [{"y": 1}, {"y": 2}]})
    assert tidy([({"l": 0}, ["a", "m"])], {**values, "m": many}.get).rows == [
        {"l": 0, "x": 1, "y": 1}, {"l": 0, "x": 1, "y": 2}
    ]  # fmt: skip
    with pytest.raises(ValueError, match="'x'"):
        tidy([({}, ["a", "b"])], values.get)
    with pytest.raises(ValueError, match="several rows"):
        tidy([({}, ["m", "n"])], {"m": many, "n": Value({}, {"rows": [{"z": 1}, {"z": 2}]})}.get)
    with pytest.raises(ValueError, match="not stored"):
        Notebook(lambda step: None).row(toy.INIT(seed=1))


def test_the_arms_differ_in_what_they_start_from(store: Store) -> None:
    from keras_lth.imp import IMP, Start

    how = IMP(k=20, T=40, rounds=1)
    plans = {
        f"{start}": partial(toy.imp, how=replace(how, rewind=start))
        for start in (Start(), Start(slots="k"), Start("trained"), Start("trained", "end"), Start(clock="zero"))
    }
    rows = run(plans, store, **quiet)
    ends = [row["accuracy"] for row in rows if row["level"] == 1]
    assert len(set(ends)) == 5 and len({row["accuracy"] for row in rows if row["level"] == 0}) == 1
    assert not np.isnan(ends).any()


def test_two_configs_of_one_plan_have_two_records(store: Store) -> None:
    """And a plan that grows has one."""
    rows = {count: run(partial(toy.imps, replicates=count), store, **quiet) for count in (1, 2)}
    (record,) = store.plans()
    assert record.startswith("imps-") and len(rows[2]) == 2 * len(rows[1]) == 8
    how = replace(toy.HOW, T=80)
    assert run({"imps": partial(toy.imps, how=how)}, store, **quiet)  # arguments without a canonical form: the name
    run({"imps": partial(toy.imp, replicate=5)}, store, **quiet)
    records = store.plans()
    assert len(records) == 3 and {plan_of(name) for name in records} == {"imps"}
    # All rows of all, each once, under the plan that has them; whoever asks has its own first.
    mine = partial(toy.imps, replicates=1)
    found = rows_of({"imps": mine}, store.folder).rows
    assert len(found) == 8 + 8 + 4 and [row["replicate"] for row in found[:4]] == [0] * 4
    assert len({row["plan"] for row in found}) == 4
    assert distinguishing(store, record) == "replicates=2"


def test_growing_drops_no_record_that_knows_more(store: Store) -> None:
    run(partial(toy.imps, replicates=2), store, **quiet)
    run(partial(toy.imps, replicates=1), store, **quiet)
    (less,) = [name for name, known in store.plans().items() if known["arguments"] == {"replicates": 1}]
    assert len(store.plans()) == 2
    store.drop_plan(less)
    supersede(store, less)  # another run has dropped it meanwhile
    assert len(store.plans()) == 1
