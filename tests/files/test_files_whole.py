from __future__ import annotations

import contextlib
import errno
import os
import random
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from keras_lth import files


def test_write_atomic_creates_folders_and_leaves_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c"
    files.write_atomic(path, b"one")
    files.write_atomic(path, b"two")
    assert path.read_bytes() == b"two" and [p.name for p in path.parent.iterdir()] == ["c"]


def test_write_atomic_survives_short_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[:3]))
    files.write_atomic(tmp_path / "x", b"0123456789")
    assert (tmp_path / "x").read_bytes() == b"0123456789"


@pytest.mark.parametrize("call", ["write", "fsync", "replace", "open"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_failed_call_keeps_the_earlier_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"earlier")

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OSError) as error:
            files.write_atomic(path, b"later")
    assert error.value.errno == code and error.value.filename == str(path)
    assert isinstance(error.value, PermissionError) == (code == errno.EACCES)
    assert os.strerror(code) in str(error.value)
    assert path.read_bytes() == b"earlier" and list(tmp_path.iterdir()) == [path]


def test_interruption_keeps_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"earlier")

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            files.write_atomic(path, b"later")
    assert path.read_bytes() == b"earlier" and list(tmp_path.iterdir()) == [path]


def test_a_real_limit_on_the_size(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"earlier")
    code = f"""
        import resource, signal
        from keras_lth import files
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            files.write_atomic({str(path)!r}, bytes(10_000))
        except OSError as error:
            print(error.errno, error.filename)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{errno.EFBIG} {path}"
    assert path.read_bytes() == b"earlier" and list(tmp_path.iterdir()) == [path]


def test_a_parent_that_is_a_file_and_a_target_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    for path in (tmp_path / "file" / "y", tmp_path / "file" / "z" / "y", tmp_path / "folder"):
        with pytest.raises(OSError) as error:
            files.write_atomic(path, b"")
        assert error.value.filename == str(path)
    assert (tmp_path / "file").read_bytes() == b"x"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


# lines -----------------------------------------------------------------------------------------------------------


def test_lines_without_a_torn_last_one(tmp_path: Path) -> None:
    path = tmp_path / "new" / "metrics.jsonl"
    assert files.read_lines(path) == []
    files.append_line(path, '{"a": 1}')
    files.append_line(path, "")
    files.append_line(path, "é\u2028")
    assert files.read_lines(path) == ['{"a": 1}', "", "é\u2028"]
    whole = path.read_bytes()
    for torn in ("é".encode()[:1], b'{"b', b"x" * 10_000):
        path.write_bytes(whole + torn)
        assert files.read_lines(path) == ['{"a": 1}', "", "é\u2028"]
        files.append_line(path, "next")
        assert path.read_bytes() == whole + b"next\n"
    path.write_bytes(b"only torn")
    assert files.read_lines(path) == []
    files.append_line(path, "first")
    assert files.read_lines(path) == ["first"]
    with pytest.raises(ValueError, match="line break"):
        files.append_line(path, "a\nb")
    path.write_bytes(b"\xff\n")
    with pytest.raises(ValueError, match=r"metrics.jsonl is not a text file"):
        files.read_lines(path)


def test_a_full_disk_tears_at_most_the_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    files.append_line(path, "one")
    real, calls = os.write, []

    def fill(fd: int, data: bytes) -> int:
        calls.append(fd)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, bytes(data)[:2])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fill)
        with pytest.raises(OSError, match="No space left"):
            files.append_line(path, "two")
    assert files.read_lines(path) == ["one"]
    files.append_line(path, "three")
    assert files.read_lines(path) == ["one", "three"]


def test_keep_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    files.keep_lines(path, 0)
    assert not path.exists()
    path.write_bytes(b"a\n\nb\nto")
    inode = path.stat().st_ino
    for count, content in ((3, b"a\n\nb\n"), (2, b"a\n\n"), (0, b"")):
        files.keep_lines(path, count)
        assert path.read_bytes() == content
        path.write_bytes(b"a\n\nb\n")
    files.keep_lines(path, 3)
    with pytest.raises(ValueError, match="has 3 lines, but 4 were written: it was edited or replaced"):
        files.keep_lines(path, 4)
    assert path.read_bytes() == b"a\n\nb\n" and path.stat().st_ino != inode
    inode = path.stat().st_ino
    files.keep_lines(path, 3)
    assert path.stat().st_ino == inode  # nothing to cut: not written again


# leftovers -------------------------------------------------------------------------------------------------------


def test_temporaries_of_dead_writers_of_this_file_are_removed(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as living:
        left = [f".x.{dead.pid}.tmp", f".x.{os.getpid()}.tmp"]
        kept = [f".x.{living.pid}.tmp", f".y.{dead.pid}.tmp", ".x.tmp", ".x.1e9.tmp", f"x.{dead.pid}.tmp"]
        for name in left + kept:
            (tmp_path / name).write_bytes(b"part")
        files.write_atomic(tmp_path / "x", b"whole")
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, "x"])
        living.communicate(b"\n")


def test_chunks_are_written_in_order_and_small_ones_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        sizes.append(len(data))
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    rng = random.Random(0)
    lengths = [0, 1, 5, 1 << 20, 3, 7, (1 << 21) + 3, 0, 9, 11, (1 << 20) - 1, 2]
    chunks = [rng.randbytes(length) for length in lengths]
    files.write_atomic(tmp_path / "x", [memoryview(chunk) if len(chunk) % 2 else chunk for chunk in chunks])
    assert (tmp_path / "x").read_bytes() == b"".join(chunks)
    assert len(sizes) < len(lengths) and sum(sizes) == sum(lengths)
    files.write_atomic(tmp_path / "empty", [])
    assert (tmp_path / "empty").read_bytes() == b""


def test_reading_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=f"cannot read {tmp_path}: it is a folder"):
        files.read_bytes(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="it is not a regular file"):
        files.read_bytes(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError, match="absent"):
        files.read_bytes(tmp_path / "absent")
    with pytest.raises(NotADirectoryError):
        (tmp_path / "file").write_bytes(b"")
        files.list_names(tmp_path / "file")
    assert files.list_names(tmp_path) == ["file", "pipe"] and files.list_names(tmp_path / "absent") == []
    files.remove(tmp_path / "file")
    files.remove(tmp_path / "file")
    assert files.list_names(tmp_path) == ["pipe"]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_file_systems_that_cannot_sync_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output") if code == errno.EIO else contextlib.nullcontext():
        files.write_atomic(tmp_path / "new" / "x", b"1")
        assert (tmp_path / "new" / "x").read_bytes() == b"1"
