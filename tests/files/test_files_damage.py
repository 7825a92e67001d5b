"""Checkpoints that were damaged, or edited: they are passed over, with a warning, and never believed."""

from __future__ import annotations

import hashlib
import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from keras_lth.files import checkpoints as module
from keras_lth.files.checkpoints import Checkpoints
from keras_lth.files.folders import seal, unseal
from tests.files.commits import PARTS, names, of, same, save


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
            with pytest.warns(UserWarning, match=f"step 2 is skipped: {path} is damaged: ") as caught:
                found = Checkpoints(tmp_path).latest()
            assert found is not None and found.step == 1 and len(caught) == 1
        path.write_bytes(data)
    assert Checkpoints(tmp_path).latest().step == 2


@pytest.mark.parametrize("part", PARTS)
def test_truncated_grown_missing_and_replaced_parts(tmp_path: Path, part: str) -> None:
    save(Checkpoints(tmp_path), 1, 2)
    path = tmp_path / f"000002_step_2.{part}"
    data = path.read_bytes()
    for edited in (b"", data[:-1], data[: len(data) // 2], data + b"\0", data + data, b"[" * 50_000, b"[]", b"null"):
        path.write_bytes(edited)
        with pytest.warns(UserWarning, match=f"step 2 is skipped: {path}"):
            same(Checkpoints(tmp_path).latest(), 1)
    path.unlink()
    if part == "manifest.json":
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # without a manifest it never was committed
            same(Checkpoints(tmp_path).latest(), 1)
        return
    with pytest.warns(UserWarning, match=f"step 2 is skipped: {path} is missing"):
        same(Checkpoints(tmp_path).latest(), 1)
    path.mkdir()
    with pytest.warns(UserWarning, match=f"{path} is damaged: it is a folder"):
        same(Checkpoints(tmp_path).latest(), 1)
    path.rmdir()
    path.symlink_to(tmp_path / f"000001_step_1.{part}")
    with pytest.warns(UserWarning, match="manifest"):
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
        with pytest.warns(UserWarning, match="step 2 is skipped"):
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
        with pytest.warns(UserWarning, match="step 2 is skipped"):
            same(Checkpoints(tmp_path).latest(), 1)


def test_a_damaged_newest_stays_until_a_newer_one_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(Checkpoints(tmp_path), 1, 2)
    (tmp_path / "000002_step_2.safetensors").write_bytes(b"")
    store = Checkpoints(tmp_path)
    with pytest.warns(UserWarning, match="step 2 is skipped"):
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
    assert sorted(str(warning.message).split(" is skipped")[0] for warning in caught) == [
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
        with pytest.raises(ValueError, match=rf"{path} has format version {version!r}, .* version 1: continue with"):
            store.latest()
        with pytest.raises(ValueError, match="has not read"):
            save(store, 3)
        store.sweep()
        assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before
    assert module.VERSION == 1
