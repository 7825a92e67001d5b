"""A store keeps each value under its name: whole or absent, checked, local and in an object store."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_lth import files
from keras_lth.files import heartbeat, local
from keras_lth.plans import run
from keras_lth.plans.run import Session
from keras_lth.store import DamagedError, MissingError, Store, Value, check, copy, listed, sweepable, thinnable
from keras_lth.store.upkeep import bytes_of, drop
from tests.files.memory import MemoryStore
from tests.plans import toy

VALUE = Value({"w": np.arange(6.0).reshape(2, 3), "m": np.array([True, False, True])}, {"rows": [{"x": 0.1 + 0.2}]})
quiet: Any = {"say": lambda text: None}


def same(a: Value, b: Value) -> bool:
    equal = a.arrays.keys() == b.arrays.keys() and all(
        a.arrays[k].dtype == b.arrays[k].dtype and np.array_equal(a.arrays[k], b.arrays[k]) for k in a.arrays
    )
    return equal and dict(a.meta) == dict(b.meta)


def test_put_and_get(folder: str) -> None:
    store = Store(folder)
    assert store.names() == set() and not store.has("a-1")
    store.put("a-1", VALUE, {"kind": "a", "seconds": 1.5})
    assert store.names() == {"a-1"} and store.has("a-1") and same(store.get("a-1"), VALUE)
    # 6 float64, and 3 booleans in a byte.
    record = store.record("a-1")
    assert (record["kind"], record["seconds"], record["bytes"]) == ("a", 1.5, 49) and record["made"].endswith("+00:00")
    assert store.get("a-1").rows == [{"x": 0.1 + 0.2}]
    with pytest.raises(MissingError, match="a-2"):
        store.get("a-2")
    with pytest.raises(ValueError, match=r"\.\./x"):
        store.put("../x", VALUE, {})
    store.drop("a-1")
    store.settle()
    assert Store(folder).names() == set()


def test_the_first_of_two_writers_is_kept(folder: str) -> None:
    store = Store(folder)
    store.put("a-1", VALUE, {"who": 1})
    store.put("a-1", Value({"w": np.zeros(1)}), {"who": 2})
    assert same(store.get("a-1"), VALUE) and store.record("a-1")["who"] == 1


@pytest.mark.parametrize("change", [lambda d: d[:-1] + bytes([d[-1] ^ 1]), lambda d: d[: len(d) // 2], lambda d: b""])
def test_a_damaged_value_is_found(folder: str, change: Any) -> None:
    store = Store(folder)
    for name in ("a-1", "a-2"):
        store.put(name, VALUE, {"kind": "a"})
    path = files.join(folder, "values", "a-1.value")
    files.write_atomic(path, change(files.read_bytes(path)))
    with pytest.raises(DamagedError, match="a-1 is damaged"):
        store.get("a-1")
    assert set(check(store)) == {"a-1"} and len(listed(store)) == 2


def test_a_value_under_the_name_of_another_is_damaged(folder: str) -> None:
    store = Store(folder)
    store.put("a-1", VALUE, {})
    files.write_atomic(
        files.join(folder, "values", "a-2.value"), files.read_bytes(files.join(folder, "values", "a-1.value"))
    )
    with pytest.raises(DamagedError, match="holds the value a-1"):
        store.get("a-2")


def test_a_bad_sector_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    store = Store(tmp_path / "s")
    store.put("a-1", VALUE, {})

    def fail(path: Any, **more: Any) -> Any:
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(files, "read_arrays", fail)
    with pytest.raises(DamagedError, match="Input/output error"):
        store.get("a-1")


def contents(folder: str, memory: MemoryStore) -> dict[str, bytes]:
    if folder.startswith("mem:"):
        return dict(memory.objects)
    return {str(path): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("store.json", json.dumps({"format": "keras_lth store", "version": 2}), "version 2, but this keras_lth reads"),
        ("store.json", "{}", "not part of a keras_lth store"),
        ("store.json", "", "not part of a keras_lth store"),
        ("config.json", "{}", "earlier keras_lth"),
        ("replicate_0/imp/levels.json", "[]", "earlier keras_lth"),
        ("results.csv", "", "earlier keras_lth"),
        ("thesis.tex", "", "'thesis.tex'"),
    ],
)
def test_what_is_no_store_of_this_version_is_said_and_untouched(
    folder: str, memory: MemoryStore, name: str, content: str, said: str
) -> None:
    files.write_atomic(files.join(folder, *name.split("/")), content.encode())
    before = contents(folder, memory)
    for _ in range(2):
        with pytest.raises(ValueError, match=said):
            Store(folder)
        with pytest.raises(ValueError, match=said):
            run(toy.imp, folder, **quiet)
    assert contents(folder, memory) == before


def test_a_value_of_a_newer_format_is_not_damage(folder: str) -> None:
    store = Store(folder)
    run(toy.imp, store, **quiet)
    name = next(name for name in store.names() if name.startswith("evaluate"))
    path = files.join(folder, "values", f"{name}.value")
    raw = files.read_bytes(path).replace(b'"version":"1"', b'"version":"2"')
    files.write_atomic(path, raw)
    with pytest.raises(ValueError, match="format version '2'") as found:
        run(toy.imp, store, **quiet)
    assert not isinstance(found.value, DamagedError) and files.read_bytes(path) == raw


def test_a_store_that_does_not_exist(folder: str) -> None:
    with pytest.raises(FileNotFoundError):
        Store(folder, create=False)
    assert files.list_names(folder) == []
    Store(folder)
    Store(folder, create=False)


def test_without_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = run(toy.imp, tmp_path / "s", **quiet)
    before = contents(str(tmp_path / "s"), MemoryStore())

    def refuse(path: Any, *more: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(local.LocalStore, "write", lambda self, path, chunks: refuse(path))
    monkeypatch.setattr(os, "mkdir", refuse)
    assert run(toy.imp, tmp_path / "s", **quiet) == rows
    with pytest.raises(PermissionError, match=str(tmp_path / "s")):
        run({"imp": toy.imp, "more": toy.instability}, tmp_path / "s", **quiet)
    assert contents(str(tmp_path / "s"), MemoryStore()) == before


def test_an_object_store_without_rights(memory: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = run(toy.imp, "mem://bucket/s", **quiet)
    before = dict(memory.objects)

    def refuse(path: str, data: bytes) -> None:
        raise PermissionError(13, "no rights", path)

    monkeypatch.setattr(memory, "put", refuse)
    assert run(toy.imp, "mem://bucket/s", **quiet) == rows
    with pytest.raises(PermissionError, match="no rights"):
        run({"imp": toy.imp, "more": toy.instability}, "mem://bucket/s", **quiet)
    assert memory.objects == before


def test_a_plan_runs_on_an_object_store(memory: MemoryStore, tmp_path: Path) -> None:
    plans = {"imp": toy.imp, "instability": toy.instability}
    store, local = Store("mem://bucket/run"), Store(tmp_path / "s")
    rows = run(plans, store, **quiet)
    assert rows == run(plans, local, **quiet) and len(rows) == 8
    assert store.names() == local.names() and all(same(store.get(name), local.get(name)) for name in store.names())
    assert not [path for path in memory.objects if "/scratch/" in path]


def test_two_sessions_on_an_object_store(memory: MemoryStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log = tmp_path / "log"
    monkeypatch.setenv("TOY_LOG", str(log))
    monkeypatch.setattr(heartbeat, "SETTLE", 0.1)  # longer than a write: who wrote last has it
    sessions = [Session({"imps": toy.imps}, Store("mem://bucket/run"), commit_every=0, **quiet) for _ in range(2)]
    threads = [threading.Thread(target=session.work, args=(0.01,)) for session in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len([line for line in toy.counted(log) if line[1] == "load"]) == 8
    assert len(sessions[0].rows().rows) == 8


def test_a_call_of_the_object_store_fails(memory: MemoryStore) -> None:
    run(toy.imp, "mem://bucket/run", **quiet)
    wanted = {name: files.read_bytes(f"mem://bucket/run/{name}") for name in ("store.json",)}
    values = set(Store("mem://bucket/run").names())
    memory.objects.clear()
    memory.arm(None)
    run(toy.imp, "mem://bucket/run", **quiet)
    for number in range(0, len(memory.calls), 5):
        memory.objects.clear()
        memory.arm(number)
        try:
            run(toy.imp, "mem://bucket/run", **quiet)
        except OSError as error:
            assert "cannot" in str(error)
        memory.arm(None)
        assert len(run(toy.imp, "mem://bucket/run", **quiet)) == 4
        assert Store("mem://bucket/run").names() == values
        assert files.read_bytes("mem://bucket/run/store.json") == wanted["store.json"]


def test_a_claim_is_one_processes(folder: str) -> None:
    store = Store(folder)
    with store.claim("work") as mine:
        assert mine is not None
        mine.commit(3, {"a": np.ones(2)}, {})
        with store.claim("work") as yours, store.claim("other") as other:
            assert yours is None and other is not None
        assert store.under_way() >= {"work"}
    with store.claim("work") as again:
        assert again is not None
        found = again.latest()
        assert found is not None and found.step == 3
        again.clear()
    assert "work" not in store.under_way()


def test_list_sweep_and_thin(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(folder)
    plans = {"imp": toy.imp, "instability": toy.instability}
    rows = run(plans, store, **quiet)
    entries = listed(store)
    assert {entry.name for entry in entries} == store.names()
    labels = [entry.labels for entry in entries if entry.kind == "evaluate"]
    assert sorted(labels) == [f"arm=imp replicate=0 level={level}" for level in range(4)]
    assert sweepable(store) == []
    # What the rows show stays, and so does what cannot be thinned.
    thin = thinnable(store)
    assert {entry.kind for entry in thin} == {"state", "slots"} and bytes_of(thin) == 160 * len(thin)
    drop(store, thin)
    log = tmp_path / "log"
    monkeypatch.setenv("TOY_LOG", str(log))
    assert run(plans, store, **quiet) == rows and toy.counted(log) == []
    # Another plan makes again what it needs of it, and nothing else.
    run(toy.imp, store, **quiet)
    more = run({**plans, "more": _more}, store, **quiet)
    assert len(more) == 9 and {line[2] for line in toy.counted(log) if line[1] == "load"} == {0}
    # A plan that is no longer there: its values are named by nobody.
    files.remove(files.join(folder, "plans", "more.json"))
    gone = sweepable(store)
    assert {entry.kind for entry in gone} == {"state", "evaluate"} and len(gone) == 2
    drop(store, gone)
    assert sweepable(store) == []


def _more(book: Any) -> None:
    line = toy.imp(type(book)(lambda step: None))[1][0][1]
    book.row(toy.EVALUATE(line.at(60)), more=True)


def test_thin_keeps_what_a_missing_step_needs(folder: str) -> None:
    store = Store(folder)
    session = Session({"imp": toy.imp}, store, **quiet)
    cut = next(step for step in session.missing().values() if step.kind is toy.CUT)
    run(toy.imp, store, only=cut.name, **quiet)
    # The dense end has no row yet.
    assert thinnable(store) == [] and {name.split("-")[0] for name in store.names()} == {"full", "state", "cut"}


def test_a_damaged_plan_is_said(folder: str) -> None:
    store = Store(folder)
    run(toy.imp, store, **quiet)
    path = files.join(folder, "plans", "imp.json")
    files.write_atomic(path, files.read_bytes(path)[:-9])
    with pytest.raises(ValueError, match=r"imp\.json"):
        sweepable(store)
    run(toy.imp, store, **quiet)
    assert sweepable(store) == []


def test_copy(folder: str, tmp_path: Path) -> None:
    store, target = Store(folder), Store(tmp_path / "copy")
    rows = run(toy.imp, store, **quiet)
    said: list[str] = []
    assert set(copy(store, target, said.append)) == store.names() == set(said)
    assert copy(store, target) == []
    assert target.plans() == store.plans() and all(same(store.get(n), target.get(n)) for n in store.names())
    assert all(store.record(name) == target.record(name) for name in store.names())
    assert run(toy.imp, target, **quiet) == rows
