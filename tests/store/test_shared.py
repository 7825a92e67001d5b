"""Hosts that use one store as one: only the chief sees it, and all of them take the same way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keras_lth import files
from keras_lth.plans import StepsFailedError, run
from keras_lth.store import Store, check
from keras_lth.store.shared import SharedStore
from tests.plans import toy

quiet: Any = {"say": lambda text: None}


class Stop(BaseException):
    pass


class Meeting:
    """What hosts exchange, as threads of this process."""

    def __init__(self, count: int) -> None:
        self.barrier = threading.Barrier(count, timeout=20)
        self.said: list[Any] = [None] * count

    def host(self, index: int) -> Host:
        return Host(self, index)

    def all(self, index: int, what: Any) -> list[Any]:
        self.said[index] = what
        self.barrier.wait()
        heard = list(self.said)
        self.barrier.wait()
        return heard


class Host:
    def __init__(self, meeting: Meeting, index: int) -> None:
        self.meeting, self.index, self.chief = meeting, index, index == 0

    def tell(self, data: bytes) -> bytes:
        return self.meeting.all(self.index, data)[0]

    def any(self, flag: bool) -> bool:
        return any(self.meeting.all(self.index, flag))


def together(folder: Path, work: Callable[[SharedStore], Any], count: int = 2) -> list[Any]:
    """What each host returns or raises; all but the first are given a folder that does not exist."""
    meeting, ends = Meeting(count), list[Any]([None] * count)

    def host(index: int) -> None:
        try:
            ends[index] = work(SharedStore(folder if index == 0 else "/nowhere/at/all", meeting.host(index)))
        except BaseException as error:
            ends[index] = error

    threads = [threading.Thread(target=host, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    return ends


def values(store: Store) -> dict[str, Any]:
    return {n: {k: a.tobytes() for k, a in store.get(n).arrays.items()} for n in store.names()}


@pytest.fixture
def alone(tmp_path: Path) -> tuple[Any, dict[str, Any]]:
    rows = run(toy.imp, tmp_path / "alone", **quiet)
    return rows, values(Store(tmp_path / "alone"))


def test_only_the_chief_sees_the_store(tmp_path: Path, alone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    monkeypatch.setenv("TOY_LOG", str(log))
    said: list[str] = []
    ends = together(tmp_path / "s", lambda store: run(toy.imp, store, say=said.append), 3)
    assert ends == [alone[0]] * 3 and values(Store(tmp_path / "s")) == alone[1]
    assert not Path("/nowhere").exists() and len(said) == 12
    # Each host trains with the others: 3 of each.
    assert len([line for line in toy.counted(log) if line[1] == "load"]) == 3 * 4


def test_they_go_on_from_one_commit(tmp_path: Path, alone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    advance = toy.Trainer.advance

    def dying(self: Any, to: int) -> None:
        if self.noise["order"] and self.step >= 70:
            raise Stop
        advance(self, to)

    monkeypatch.setattr(toy.Trainer, "advance", dying)
    ends = together(tmp_path / "s", lambda store: run(toy.imp, store, commit_every=0, **quiet))
    assert [type(end) for end in ends] == [Stop, Stop] and len(Store(tmp_path / "s").under_way()) == 1
    monkeypatch.setattr(toy.Trainer, "advance", advance)
    log = tmp_path / "log"
    monkeypatch.setenv("TOY_LOG", str(log))
    ends = together(tmp_path / "s", lambda store: run(toy.imp, store, commit_every=0, **quiet))
    assert ends == [alone[0]] * 2 and values(Store(tmp_path / "s")) == alone[1]
    # The commit was of step 71: 50, then calls of 7 steps.
    first = [line for line in toy.counted(log) if line[1] == "load"][:2]
    assert [line[3] for line in first] == [71, 71]


def test_what_fails_fails_on_all(tmp_path: Path) -> None:
    def plan(book: Any) -> None:
        toy.imp(book)
        lab = toy.Lab(book)
        book.row(toy.EVALUATE(lab.train(toy.START(lab.init(0), values="boom"), toy.FULL()).at(10)), arm="bad")

    ends = together(tmp_path / "s", lambda store: run(plan, store, **quiet))
    assert all(isinstance(end, StepsFailedError) and "boom" in str(end) for end in ends)
    assert len(Store(tmp_path / "s").errors()) == 1


def test_a_damaged_value_is_made_again_by_all(tmp_path: Path, alone: Any) -> None:
    run(toy.imp, tmp_path / "s", **quiet)
    store = Store(tmp_path / "s")
    name = next(name for name in store.names() if name.startswith("evaluate"))
    files.write_atomic(files.join(store.folder, "values", f"{name}.value"), b"")
    ends = together(tmp_path / "s", lambda store: run(toy.imp, store, **quiet))
    assert ends == [alone[0]] * 2 and not check(store) and values(store) == alone[1]


def test_a_folder_that_is_no_store_is_refused_on_all(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    ends = together(tmp_path, lambda store: store)
    assert all(isinstance(end, ValueError) and "earlier" in str(end) for end in ends)


def test_workers_or_hosts(tmp_path: Path) -> None:
    ends = together(tmp_path / "s", lambda store: run(toy.imp, store, workers=2, **quiet))
    assert all(isinstance(end, ValueError) and "strategy" in str(end) for end in ends)
