"""A run in an object store: the same functions, no renames; every call of the store may fail, or be the last."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_lth import files
from keras_lth.files import heartbeat
from keras_lth.files.checkpoints import Checkpoints
from keras_lth.masks import Masks
from tests.crash import imp
from tests.files.memory import RUN, Killed, MemoryStore

# functions -------------------------------------------------------------------------------------------------------


def test_every_function_takes_such_paths(memory: MemoryStore) -> None:
    folder = "mem://bucket/run"
    assert files.list_names(folder) == [] and files.read_lines(f"{folder}/x") == []
    assert files.join(folder, "a", "b") == files.join(folder + "/", "a", "b") == f"{folder}/a/b"
    assert not files.is_local(folder) and files.is_local("runs/x") and files.is_local(Path("/x"))
    files.write_atomic(f"{folder}/a", b"one")
    files.write_atomic(f"{folder}/a", [b"tw", memoryview(b"o")])
    files.write_atomic(f"{folder}/sub/b", b"")
    assert files.read_bytes(f"{folder}/a") == b"two" and files.list_names(folder) == ["a", "sub"]
    files.write_manifest(folder, ["a", "sub/b"])
    assert files.check_manifest(folder) == ["a", "sub/b"]
    memory.objects[f"{folder}/a"] = b"twp"
    with pytest.raises(ValueError, match="mem://bucket/run/a was changed"):
        files.check_manifest(folder)
    files.remove(f"{folder}/a")
    files.remove(f"{folder}/a")
    with pytest.raises(ValueError, match="'a', which is not a file"):
        files.check_manifest(folder)
    with pytest.raises(FileNotFoundError, match="mem://bucket/run/a"):
        files.read_bytes(f"{folder}/a")
    masks = Masks({"w": np.eye(3, dtype=bool)})
    masks.save(f"{folder}/masks")
    assert Masks.load(f"{folder}/masks") == masks
    memory.objects[f"{folder}/masks"] = b"x"
    with pytest.raises(ValueError, match="mem://bucket/run/masks is not a keras_lth masks: it has no safe"):
        Masks.load(f"{folder}/masks")


def test_lines(memory: MemoryStore) -> None:
    path = "mem://b/metrics.jsonl"
    for text in ("a", "", "é"):
        files.append_line(path, text)
    assert memory.objects[path] == "a\n\né\n".encode() and files.read_lines(path) == ["a", "", "é"]
    memory.objects[path] += b"torn by something else"
    files.append_line(path, "b")
    assert files.read_lines(path) == ["a", "", "é", "b"]
    files.keep_lines(path, 2)
    assert memory.objects[path] == b"a\n\n"
    memory.calls.clear()
    files.keep_lines(path, 2)
    assert "put" not in {kind for kind, _ in memory.calls}
    with pytest.raises(ValueError, match="has 2 lines, but 3 were written"):
        files.keep_lines(path, 3)


def test_a_path_that_lost_a_slash() -> None:
    for function in (files.read_bytes, files.list_names, Checkpoints, files.DirectoryLock):
        with pytest.raises(ValueError, match=r"gs:/bucket/run lost a slash in a pathlib.Path: pass gs://"):
            function(Path("gs://bucket/run"))


def test_file_scheme_is_local(tmp_path: Path) -> None:
    files.write_atomic(f"file://{tmp_path}/x", b"1")
    assert (tmp_path / "x").read_bytes() == b"1" and files.is_local(f"file://{tmp_path}")


# checkpoints -----------------------------------------------------------------------------------------------------


def test_checkpoints(memory: MemoryStore) -> None:
    folder = "mem://bucket/run/checkpoints"
    store = Checkpoints(folder)
    assert store.latest() is None
    for step in range(4):
        store.save(step, {"w": np.full(3, step)}, {"step": step})
    assert store.steps() == [2, 3] and len(memory.objects) == 6
    puts = [path.split(".", 1)[1] for kind, path in memory.calls if kind == "put"]
    assert puts == ["safetensors", "state.json", "manifest.json"] * 4  # the manifest is the commit
    memory.objects[f"{folder}/000004_step_3.safetensors"] = b""
    memory.objects[f"{folder}/notes.txt"] = b""
    other = Checkpoints(folder)
    with pytest.warns(UserWarning, match="step 3 is skipped: mem://bucket/run/checkpoints/000004_step_3.safetensors"):
        found = other.latest()
    assert found is not None and found.step == 2 and found.arrays["w"].tolist() == [2, 2, 2]
    memory.calls.clear()
    with pytest.warns(UserWarning, match="step 3"):
        other.latest()
    assert [kind for kind, path in memory.calls if "000003" in path] == ["read"] * 3  # each object once


def test_who_may_not_remove_can_still_save(memory: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(13, "no right to delete", path)

    store = Checkpoints("mem://b", 1)
    store.save(1, {}, {})
    monkeypatch.setattr(memory, "remove", refuse)
    with pytest.warns(UserWarning, match="an old checkpoint could not be removed, .*no right to delete"):
        store.save(2, {}, {})
    found = Checkpoints("mem://b").latest()
    assert found is not None and found.step == 2


# a whole run -----------------------------------------------------------------------------------------------------


def run(store: MemoryStore, arm: Callable[[], None] | None = None) -> tuple[str, list[str], list[tuple[str, Any]]]:
    """The program of tests/crash, in this process: (how it ended, its warnings, what it reported as safe)."""
    told: list[tuple[str, Any]] = []
    if arm is None:
        store.arm(None)
    else:
        arm()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            imp.run(RUN, 2, lambda what, which: told.append((what, which)))
            ended = "well"
        except OSError as error:
            assert error.filename and str(error.filename).startswith(RUN)
            ended = "error"
        except Killed:
            ended = "killed"
    return ended, [str(warning.message) for warning in caught], told


def without_lock(store: MemoryStore) -> dict[str, bytes]:
    return {path: data for path, data in store.objects.items() if not path.endswith(".lock")}


def check(store: MemoryStore, told: list[tuple[str, Any]], wanted: dict[str, bytes]) -> None:
    """What was safe is there, and the next run ends as it should."""
    store.arm(None)
    last = Checkpoints(f"{RUN}/checkpoints").latest()
    events = max((n for what, n in told if what == "events"), default=0)
    assert (last.state["events"] if last is not None else 0) >= events
    assert len(files.read_lines(f"{RUN}/metrics.jsonl")) >= max((n for what, n in told if what == "lines"), default=0)
    assert {name for what, name in told if what == "file"} <= {path.removeprefix(RUN + "/") for path in store.objects}
    ended, warned, _ = run(store)
    assert (ended, warned) == ("well", [])
    assert without_lock(store) == wanted


@pytest.mark.parametrize("after", [False, True], ids=["before its effect", "after its effect"])
@pytest.mark.parametrize(
    ("error", "lasting"),
    [(OSError, False), (OSError, True), (Killed, True)],
    ids=["an error", "errors from there on", "death"],
)
def test_every_call_of_the_store_fails(
    memory: MemoryStore, error: type[BaseException], lasting: bool, after: bool
) -> None:
    assert run(memory)[:2] == ("well", [])
    wanted, calls = without_lock(memory), len(memory.calls)
    assert wanted.keys() == memory.objects.keys() and calls > 50
    for n in range(calls):
        memory.objects.clear()
        ended, warned, told = run(memory, partial(memory.arm, n, error, after=after, lasting=lasting))
        assert memory.struck >= 1
        assert ended == "killed" if error is Killed else ended == "error" or warned, f"call {n} failed in silence"
        # The dead process had the number of this one, which holds no lock now.
        assert not heartbeat._held
        check(memory, told, wanted)
