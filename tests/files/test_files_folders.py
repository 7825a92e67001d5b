from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from keras_lth import files


def test_manifest(tmp_path: Path) -> None:
    files.write_atomic(tmp_path / "a", b"abc")
    files.write_atomic(tmp_path / "sub" / "b", b"")
    files.write_manifest(tmp_path, ["a", "sub/b"])
    entries = json.loads((tmp_path / "manifest.json").read_text())
    # The published test vectors of SHA-256 for "abc" and "".
    assert entries["a"]["sha256"] == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert entries["sub/b"] == {
        "bytes": 0,
        "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    }
    assert files.check_manifest(tmp_path) == ["a", "sub/b"]
    (tmp_path / "a").write_bytes(b"abd")
    with pytest.raises(ValueError, match="a was changed"):
        files.check_manifest(tmp_path)
    (tmp_path / "a").unlink()
    with pytest.raises(ValueError, match="'a', which is not a file"):
        files.check_manifest(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", '{"a":', '{"../x": {}}', '{"/etc/hostname": {}}', "[" * 100_000])
def test_bad_manifests(tmp_path: Path, text: str) -> None:
    with pytest.raises(FileNotFoundError):
        files.check_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest.json"):
        files.check_manifest(tmp_path)


# lock ------------------------------------------------------------------------------------------------------------


def test_lock_in_one_process(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    with files.DirectoryLock(folder) as lock:
        with pytest.raises(RuntimeError, match=rf"run is in use by process {os.getpid()} on .+ since 20\d\d-"):
            files.DirectoryLock(folder).acquire()
        with pytest.raises(RuntimeError, match="in use"):
            lock.acquire()
    with files.DirectoryLock(folder):
        pass
    lock.release()
    with pytest.raises(ZeroDivisionError), files.DirectoryLock(folder):
        raise ZeroDivisionError
    files.DirectoryLock(folder).acquire()


def test_lock_of_another_process_until_it_is_killed(tmp_path: Path) -> None:
    code = f"""
        import time
        from keras_lth import files
        with files.DirectoryLock({str(tmp_path)!r}):
            print("held", flush=True)
            time.sleep(600)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with pytest.raises(RuntimeError, match=f"{tmp_path} is in use by process {process.pid} on "):
            files.DirectoryLock(tmp_path).acquire()
    finally:
        process.kill()
        process.communicate()
    with files.DirectoryLock(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


def test_lock_needs_a_writable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        files.DirectoryLock(tmp_path / "file").acquire()


def test_a_lock_without_text_is_held_all_the_same(tmp_path: Path) -> None:
    with files.DirectoryLock(tmp_path):
        for text in ("", "[]", "{}", "nonsense"):
            (tmp_path / ".lock").write_text(text)
            with pytest.raises(RuntimeError, match="in use by another process"):
                files.DirectoryLock(tmp_path).acquire()
