"""TensorFlow's file systems behind the store: its file system in memory, and its errors."""

from __future__ import annotations

import errno
import subprocess
import sys
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import tensorflow as tf

from keras_lth import files
from keras_lth.files import heartbeat, stores
from keras_lth.files.checkpoints import Checkpoints
from keras_lth.files.gfile import TensorFlowStore
from tests.crash import imp

SUBFOLDERS = ((), ("checkpoints",), ("tickets",))
PARTS = ("manifest.json", "safetensors", "state.json")


class RamStore(TensorFlowStore):
    """``ram://``, whose writer adds to an object that is there (TensorFlow 2.21), unlike that of any other."""

    def put(self, path: str, data: bytes) -> None:
        self.remove(path)
        super().put(path, data)


@pytest.fixture
def ram(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    monkeypatch.setattr(heartbeat, "SETTLE", 0.0)
    stores.register("ram", RamStore())
    yield f"ram://{request.node.name}/run"
    stores.register("ram", None)


def test_files(ram: str) -> None:
    path = files.join(ram, "a")
    with pytest.raises(FileNotFoundError, match=path):
        files.read_bytes(path)
    assert files.list_names(ram) == [] and files.read_lines(path) == []
    files.remove(path)
    files.write_atomic(path, b"one")
    files.write_atomic(path, b"")
    assert files.read_bytes(path) == b""
    files.write_atomic(path, bytes(range(256)) * 5000)
    assert files.read_bytes(path) == bytes(range(256)) * 5000
    for text in ("x", "é"):
        files.append_line(files.join(ram, "lines"), text)
    assert files.read_lines(files.join(ram, "lines")) == ["x", "é"]
    assert files.list_names(ram) == ["a", "lines"]
    files.write_manifest(ram, ["a", "lines"])
    assert files.check_manifest(ram) == ["a", "lines"]
    files.remove(path)
    assert files.list_names(ram) == ["lines", "manifest.json"]


def test_checkpoints(ram: str) -> None:
    store = Checkpoints(ram)
    assert store.latest() is None
    for step in (1, 2, 3):
        store.save(step, {"w": np.full((2, 2), step, np.float16)}, {"step": step})
    assert store.steps() == [2, 3] and len(files.list_names(ram)) == 6
    files.write_atomic(files.join(ram, "000003_step_3.state.json"), b"{}")
    with pytest.warns(UserWarning, match=f"step 3 is skipped: {ram}/000003_step_3.state.json is damaged"):
        found = Checkpoints(ram).latest()
    assert found is not None and found.step == 2 and found.arrays["w"].tolist() == [[2, 2], [2, 2]]


def test_a_whole_run_and_what_it_leaves(ram: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        imp.run(ram, 2)
        # This file system lists no folders.
        paths = [files.join(ram, *sub, name) for sub in SUBFOLDERS for name in files.list_names(files.join(ram, *sub))]
        assert [path.removeprefix(f"{ram}/") for path in paths] == [
            "config.json",
            "manifest.json",
            "metrics.jsonl",
            "rewind.state",
            *(f"checkpoints/00000{n}_step_{s}.{part}" for n, s in ((3, 1), (4, 4)) for part in PARTS),
            "tickets/level_00.ticket",
        ]
        before = [files.read_bytes(path) for path in paths]
        imp.run(ram, 2)
    assert [files.read_bytes(path) for path in paths] == before


@pytest.mark.parametrize(
    ("error", "expected", "code", "text"),
    [
        (tf.errors.NotFoundError, FileNotFoundError, errno.ENOENT, "No such file"),
        (tf.errors.PermissionDeniedError, PermissionError, errno.EACCES, "needs the role Storage Object Admin"),
        (tf.errors.UnauthenticatedError, PermissionError, errno.EACCES, "needs the role Storage Object Admin"),
        (tf.errors.UnimplementedError, OSError, errno.EPROTONOSUPPORT, "no file system for this scheme"),
        (tf.errors.DataLossError, OSError, errno.EIO, "what it said"),
        (tf.errors.UnavailableError, ConnectionError, errno.ECONNABORTED, "check the name of the bucket, the network"),
        (tf.errors.FailedPreconditionError, ConnectionError, errno.ECONNABORTED, "what it said"),
    ],
)
def test_errors_are_those_of_files(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception], expected: type[OSError], code: int, text: str
) -> None:
    def fail(*arguments: object, **named: object) -> None:
        raise error(None, None, "what it said\nin many lines")

    path = "gs://bucket/run/x"
    for name in ("GFile", "listdir", "remove"):
        monkeypatch.setattr(tf.io.gfile, name, fail)
    calls = [lambda: files.read_bytes(path), lambda: files.write_atomic(path, b"")]
    if error is not tf.errors.NotFoundError:  # nothing there: nothing to list, nothing to remove
        calls += [lambda: files.list_names(path), lambda: files.remove(path)]
    for call in calls:
        with pytest.raises(expected, match=text) as caught:
            call()
        assert caught.value.errno == code and caught.value.filename == path
        assert "many lines" not in str(caught.value)


def test_an_unknown_scheme() -> None:
    with pytest.raises(OSError, match="no file system for this scheme") as caught:
        files.write_atomic("nosuch://bucket/x", b"")
    assert caught.value.filename == "nosuch://bucket/x"


def test_local_paths_need_no_tensorflow(tmp_path: object) -> None:
    code = f"""
import sys
from keras_lth import files
with files.DirectoryLock({str(tmp_path)!r}) as lock:
    lock.check()
    files.Checkpoints({str(tmp_path)!r}).save(1, {{}}, {{}})
    files.append_line({str(tmp_path)!r} + "/lines", "x")
    files.write_manifest({str(tmp_path)!r}, ["lines"])
assert not {{"tensorflow", "keras", "etils"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
