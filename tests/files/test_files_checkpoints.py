from __future__ import annotations

import hashlib
import json
import math
import os
import warnings
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from keras_lth import files
from keras_lth.files import checkpoints as module
from keras_lth.files.checkpoints import Checkpoints
from keras_lth.files.folders import seal, unseal

PARTS = ("safetensors", "state.json", "manifest.json")


def value(step: int) -> tuple[dict[str, np.ndarray], dict]:
    arrays = {
        "weights/b": np.full((2, 3), step, np.float32),
        "masks/a": np.arange(7) % 3 == step % 3,
        "seeds/s": np.array([step, 2**63], np.uint64),
        "half": np.array([1.5, -0.0, np.nan, step], ml_dtypes.bfloat16),
        "scalar": np.float64(step / 3),
        "none": np.zeros((0, 4), np.int8),
    }
    return arrays, {"step": step, "nested": {"é": [1, None, 0.1 + step, math.inf]}, "done": False}


def save(store: Checkpoints, *steps: int) -> None:
    for step in steps:
        store.save(step, *value(step))


def same(found: files.Checkpoint | None, step: int) -> None:
    assert found is not None
    arrays, state = value(step)
    assert found.step == step and found.state == state and list(found.arrays) == list(arrays)
    for name, array in arrays.items():
        other = found.arrays[name]
        assert (other.dtype, other.shape, other.tobytes()) == (array.dtype, array.shape, array.tobytes())
        assert not other.flags.writeable


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def of(*commits: tuple[int, int]) -> set[str]:
    return {f"{number:06d}_step_{step}.{part}" for number, step in commits for part in PARTS}


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
            store.save(step, arrays, state)  # type: ignore[arg-type]
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
    with pytest.warns(UserWarning, match="step 4 is passed over"):
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
    with pytest.raises(ValueError, match=r"has not read, the newest of step 20: go on from latest\(\)"):
        save(store, 1)
    assert names(tmp_path) == before
    same(store.latest(), 20)
    save(store, 1)
    other = Checkpoints(tmp_path)
    other.latest()
    save(store, 2)
    with pytest.raises(ValueError, match="the newest of step 2"):
        save(other, 3)


# damage ----------------------------------------------------------------------------------------------------------


def test_every_flipped_bit_of_the_newest_is_found(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    for step in (1, 2):
        store.save(step, {"w": np.array([step], np.int8)}, {"a": step})
    for part in PARTS:
        path = tmp_path / f"000002_step_2.{part}"
        data = path.read_bytes()
        # Every bit of the small files; of the arrays, whose every bit test_files_arrays flips, some.
        for position in range(0, 8 * len(data), 1 if len(data) < 100 else 11):
            edited = bytearray(data)
            edited[position // 8] ^= 1 << position % 8
            path.write_bytes(edited)
            with pytest.warns(UserWarning, match=f"step 2 is passed over: {path} is damaged: ") as caught:
                found = Checkpoints(tmp_path).latest()
            assert found is not None and found.step == 1 and len(caught) == 1
        path.write_bytes(data)
    assert Checkpoints(tmp_path).latest().step == 2  # type: ignore[union-attr]


@pytest.mark.parametrize("part", PARTS)
def test_truncated_grown_missing_and_replaced_parts(tmp_path: Path, part: str) -> None:
    save(Checkpoints(tmp_path), 1, 2)
    path = tmp_path / f"000002_step_2.{part}"
    data = path.read_bytes()
    for edited in (b"", data[:-1], data[: len(data) // 2], data + b"\0", data + data, b"[" * 50_000, b"[]", b"null"):
        path.write_bytes(edited)
        with pytest.warns(UserWarning, match=f"step 2 is passed over: {path}"):
            same(Checkpoints(tmp_path).latest(), 1)
    path.unlink()
    if part == "manifest.json":
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # without a manifest it never was committed
            same(Checkpoints(tmp_path).latest(), 1)
        return
    with pytest.warns(UserWarning, match=f"step 2 is passed over: {path} is missing"):
        same(Checkpoints(tmp_path).latest(), 1)
    path.mkdir()
    with pytest.warns(UserWarning, match=f"{path} is damaged: it is a folder"):
        same(Checkpoints(tmp_path).latest(), 1)
    path.rmdir()
    path.symlink_to(tmp_path / f"000001_step_1.{part}")
    with pytest.warns(UserWarning, match="its manifest"):
        same(Checkpoints(tmp_path).latest(), 1)


def rewrite(path: Path, **changes: object) -> None:
    """A manifest with other fields and a right digest: what someone does on purpose."""
    path.write_bytes(seal({**unseal(path.read_bytes()), **changes}))


def test_manifests_are_not_believed_even_with_a_right_digest(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    save(store, 1, 2)
    path = tmp_path / "000002_step_2.manifest.json"
    data = path.read_bytes()
    entries = unseal(data)["files"]
    arrays, state = entries
    outside = tmp_path.parent / "outside"
    outside.write_bytes(b"x")
    for changes in (
        {"step": 3},
        {"commit": 1},
        {"more": 1},
        {"files": {}},
        {"files": None},
        {"files": 3},
        {"files": [arrays, state]},
        {"files": {arrays: entries[arrays]}},
        {"files": {**entries, "../outside": {"bytes": 1, "sha256": "0"}}},
        {"files": {"../outside": entries[arrays], state: entries[state]}},
        {"files": {**entries, arrays: {**entries[arrays], "bytes": 2**60}}},
        {"files": {**entries, arrays: None}},
        {"format": "keras_lth ticket"},
        {"format": ["keras_lth checkpoint"]},
    ):
        rewrite(path, **changes)
        with pytest.warns(UserWarning, match="step 2 is passed over"):
            same(Checkpoints(tmp_path).latest(), 1)
        path.write_bytes(data)
    # The files of another checkpoint under this one's names, with their true hashes.
    for part in PARTS[:2]:
        (tmp_path / f"000002_step_2.{part}").write_bytes((tmp_path / f"000001_step_1.{part}").read_bytes())
    old = unseal((tmp_path / "000001_step_1.manifest.json").read_bytes())["files"]
    rewrite(path, files=dict(zip(entries, old.values(), strict=True)))
    with pytest.warns(UserWarning, match="belongs to another checkpoint"):
        same(Checkpoints(tmp_path).latest(), 1)


def test_state_that_is_no_mapping(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    save(store, 1, 2)
    path = tmp_path / "000002_step_2.state.json"
    for text in (b"[]", b"3", b"nonsense", b"[" * 100_000, b"\xff"):
        path.write_bytes(text)
        manifest = tmp_path / "000002_step_2.manifest.json"
        entries = unseal(manifest.read_bytes())["files"]
        entries[path.name] = {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}
        rewrite(manifest, files=entries)
        with pytest.warns(UserWarning, match="step 2 is passed over"):
            same(Checkpoints(tmp_path).latest(), 1)


def test_a_damaged_newest_stays_until_a_newer_one_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(Checkpoints(tmp_path), 1, 2)
    (tmp_path / "000002_step_2.safetensors").write_bytes(b"")
    store = Checkpoints(tmp_path)
    with pytest.warns(UserWarning, match="step 2 is passed over"):
        same(store.latest(), 1)
    with monkeypatch.context() as patch:

        def fail(*args: object) -> None:
            raise OSError(28, os.strerror(28))

        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="No space left"):
            save(store, 2)
    assert names(tmp_path) == of((1, 1), (2, 2))
    save(store, 2)
    assert names(tmp_path) == of((1, 1), (3, 2))
    same(Checkpoints(tmp_path).latest(), 2)


def test_all_damaged(tmp_path: Path) -> None:
    save(Checkpoints(tmp_path), 1, 2)
    for path in tmp_path.glob("*.manifest.json"):
        path.write_bytes(b"")
    store = Checkpoints(tmp_path)
    with pytest.warns(UserWarning) as caught:
        assert store.latest() is None
    assert sorted(str(warning.message).split(" is passed")[0] for warning in caught) == [
        "the checkpoint of step 1",
        "the checkpoint of step 2",
    ]
    save(store, 3)
    assert names(tmp_path) == of((3, 3))


def test_another_version_is_an_error_and_nothing_is_touched(tmp_path: Path) -> None:
    save(Checkpoints(tmp_path), 1, 2)
    path = tmp_path / "000002_step_2.manifest.json"
    for version in (2, 0, "1", None, True):
        rewrite(path, version=version)
        before = {p: p.read_bytes() for p in tmp_path.iterdir()}
        store = Checkpoints(tmp_path)
        with pytest.raises(ValueError, match=rf"{path} has format version {version!r}, .* version 1: go on with"):
            store.latest()
        with pytest.raises(ValueError, match="has not read"):
            save(store, 3)
        store.sweep()
        assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before
    assert module.VERSION == 1


# reading while another process writes ----------------------------------------------------------------------------


def test_latest_while_the_writer_removes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, reader = Checkpoints(tmp_path, 1), Checkpoints(tmp_path)
    save(writer, 1)
    real, calls = module.decode, []

    def slow(*args: object, **kwargs: object) -> object:
        if len(calls) < 3:
            calls.append(1)
            save(writer, len(calls) + 1)  # the state file that is read next has just been removed
        return real(*args, **kwargs)  # type: ignore[arg-type]

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
