from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from keras_lth.files import checkpoints as module
from keras_lth.files.checkpoints import Checkpoints
from keras_lth.files.folders import seal, unseal
from tests.files.commits import PARTS, names, of, same, save, value


def test_save_and_latest(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    store = Checkpoints(folder)
    assert store.latest() is None and store.steps() == [] and not folder.exists()
    store.sweep()
    assert not folder.exists()
    save(store, 0)
    same(store.latest(), 0)
    same(Checkpoints(folder).latest(), 0)
    # A step may come twice and may go back: the commits are the order.
    save(store, 500, 500, 20)
    assert store.steps() == [500, 20] and names(folder) == of((3, 500), (4, 20))
    same(Checkpoints(folder).latest(), 20)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_last_are_kept(tmp_path: Path, keep: int) -> None:
    store = Checkpoints(tmp_path, keep)
    for step in range(6):
        save(store, step)
        assert store.steps() == list(range(6))[max(0, step + 1 - keep) : step + 1]
        assert len(names(tmp_path)) == 3 * len(store.steps())
    with pytest.raises(ValueError, match="keep must be at least 1, not 0"):
        Checkpoints(tmp_path, 0)


def test_more_than_a_million_commits(tmp_path: Path) -> None:
    save(Checkpoints(tmp_path), 1)
    for path in tmp_path.iterdir():
        renamed = path.with_name(path.name.replace("000001", "999999"))
        path.rename(renamed)
        if renamed.name.endswith("manifest.json"):
            fields = unseal(renamed.read_bytes())
            fields["commit"] = 999_999
            fields["files"] = {name.replace("000001", "999999"): entry for name, entry in fields["files"].items()}
            renamed.write_bytes(seal(fields))
    store = Checkpoints(tmp_path)
    same(store.latest(), 1)
    save(store, 2, 3)
    assert names(tmp_path) == of((1_000_000, 2), (1_000_001, 3))
    same(store.latest(), 3)


def test_what_cannot_be_stored_leaves_nothing(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    save(store, 1)
    before = names(tmp_path)
    arrays, state = value(2)
    with pytest.raises(ValueError, match=r"array 'text' of dtype <U1 cannot be stored in .*000002_step_2\.safetensors"):
        store.save(2, {**arrays, "text": np.array(["a"])}, state)
    for bad, place in (({"a": {1: 2}}, r"state\['a'\] is a dict"), ({"a": [object()]}, r"state\['a'\]\[0\]")):
        with pytest.raises(TypeError, match=place):
            store.save(2, arrays, bad)
    for step in (-1, 0.5):
        with pytest.raises(ValueError, match="step must be a whole number"):
            store.save(step, arrays, state)
    assert names(tmp_path) == before
    same(store.latest(), 1)


def test_state_comes_back_as_json(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    store.save(3, {}, {"tuple": (1, 2), "numpy": np.float32(0.1), "count": np.int64(7)})
    found = store.latest()
    assert found is not None and found.arrays == {}
    assert found.state == {"tuple": [1, 2], "numpy": float(np.float32(0.1)), "count": 7}


# leftovers -------------------------------------------------------------------------------------------------------


def test_leftovers_are_swept_and_foreign_files_stay(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    save(store, 1, 2)
    foreign = {"notes.txt", ".notes.txt.17.tmp", "000009_step_.safetensors", "step_3.manifest.json", "x.safetensors"}
    left = {"000003_step_9.safetensors", "000003_step_9.state.json", "000001_step_0.state.json"}
    left |= {".000003_step_9.manifest.json.17.tmp", ".000003_step_9.safetensors.123456.tmp"}
    for name in foreign | left:
        (tmp_path / name).write_bytes(b"abc")
    same(store.latest(), 2)
    assert store.steps() == [1, 2] and names(tmp_path) == of((1, 1), (2, 2)) | foreign | left
    store.sweep()
    assert names(tmp_path) == of((1, 1), (2, 2)) | foreign
    (tmp_path / "000003_step_9.safetensors").write_bytes(b"abc")
    save(store, 3)
    assert names(tmp_path) == of((2, 2), (3, 3)) | foreign
    same(store.latest(), 3)


def test_sweep_removes_what_is_beyond_keep_once_the_newest_was_read(tmp_path: Path) -> None:
    save(Checkpoints(tmp_path, 5), 1, 2, 3, 4)
    (tmp_path / "000004_step_4.state.json").write_bytes(b"{}")
    store = Checkpoints(tmp_path, 1)
    store.sweep()
    assert store.steps() == [1, 2, 3, 4]
    with pytest.warns(UserWarning, match="step 4 is skipped"):
        same(store.latest(), 3)
    store.sweep()
    # 4 is damaged: it does not count, and it stays until a newer one is there.
    assert store.steps() == [3, 4]
    save(store, 4)
    assert names(tmp_path) == of((5, 4))


def test_checkpoints_that_were_not_read_are_not_pushed_out(tmp_path: Path) -> None:
    save(Checkpoints(tmp_path), 10, 20)
    before = names(tmp_path)
    store = Checkpoints(tmp_path)
    with pytest.raises(ValueError, match=r"has not read, the newest of step 20: resume from latest\(\)"):
        save(store, 1)
    assert names(tmp_path) == before
    same(store.latest(), 20)
    save(store, 1)
    other = Checkpoints(tmp_path)
    other.latest()
    save(store, 2)
    with pytest.raises(ValueError, match="the newest of step 2"):
        save(other, 3)


# reading while another process writes ----------------------------------------------------------------------------


def test_latest_while_the_writer_removes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, reader = Checkpoints(tmp_path, 1), Checkpoints(tmp_path)
    save(writer, 1)
    real, calls = module.decode, []

    def slow(*args: object, **kwargs: object) -> object:
        if len(calls) < 3:
            calls.append(1)
            save(writer, len(calls) + 1)  # the state file that is read next has just been removed
        return real(*args, **kwargs)

    monkeypatch.setattr(module, "decode", slow)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same(reader.latest(), 4)
    assert len(calls) == 3


def test_a_person_can_read_it(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save(20, {"w": np.ones(3)}, {"round": 2})
    assert json.loads((tmp_path / "000001_step_20.state.json").read_text()) == {"round": 2}
    manifest = json.loads((tmp_path / "000001_step_20.manifest.json").read_text())
    assert list(manifest) == ["format", "version", "commit", "step", "files", "digest"]
    assert [entry["bytes"] for entry in manifest["files"].values()] == [
        (tmp_path / f"000001_step_20.{part}").stat().st_size for part in PARTS[:2]
    ]
