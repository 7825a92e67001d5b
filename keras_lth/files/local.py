"""Files in local folders: a temporary name, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from keras_lth.files.stores import Chunk

_BLOCK = 1 << 20  # bytes; smaller chunks are written together
_TEMPORARY = re.compile(r"\.(.+)\.(\d+)\.tmp", re.DOTALL)


class LocalStore:
    """The `Store` of local paths."""

    def open(self, path: str) -> BinaryIO:
        """Open a regular file for reading; raise ValueError for a folder or a device."""
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ValueError("it is a folder" if os.path.isdir(path) else "it is not a regular file")
        return open(path, "rb")

    def write(self, path: str, chunks: Sequence[Chunk]) -> None:
        """Write under a temporary name in the same folder, fsync, rename, fsync the folder; create missing folders.

        Temporaries of this file that a killed process left are removed first.
        """
        target = Path(path)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        with naming(target):
            for name in make_folder(target.parent):
                if abandoned(name, target.name):
                    target.with_name(name).unlink(missing_ok=True)
            try:
                _write(temporary, os.O_TRUNC, _blocks(chunks))
                os.replace(temporary, target)
            except BaseException:
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)
                raise
            _sync_folder(target.parent)

    def append(self, path: str, line: bytes) -> None:
        """Cut a torn line, append, fsync."""
        target = Path(path)
        with naming(target):
            created = target.name not in make_folder(target.parent)
            if not created:
                _cut_torn_line(target)
            _write(target, os.O_APPEND, [line])
            if created:
                _sync_folder(target.parent)

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder, sorted."""
        try:
            return sorted(os.listdir(folder))
        except FileNotFoundError:
            return []

    def remove(self, path: str) -> None:
        """Unlink the file, if it exists; durable after `settle`."""
        with naming(Path(path), "remove"):
            Path(path).unlink(missing_ok=True)

    def settle(self, folder: str) -> None:
        """Fsync the folder."""
        with naming(Path(folder), "sync"):
            _sync_folder(Path(folder))


LOCAL = LocalStore()


def abandoned(name: str, target: str | None = None) -> bool:
    """Return whether `name` is a temporary (of `target`, if given) whose writer is not alive on this machine."""
    found = _TEMPORARY.fullmatch(name)
    if found is None or (target is not None and found.group(1) != target):
        return False
    process = int(found.group(2))
    return process != os.getpid() and not alive(process)


def alive(process: int) -> bool:
    """Return whether a process with this id runs on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def make_folder(folder: Path) -> list[str]:
    """Create a folder and its parents, each synced into its parent; return its names."""
    try:
        names = os.listdir(folder)
        created = False
    except FileNotFoundError:
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        names, created = [], True
    if not names:
        # The creator of an empty folder may have died before the sync.
        with contextlib.nullcontext() if created else contextlib.suppress(PermissionError):
            _sync_folder(folder.parent)
    return names


@contextlib.contextmanager
def naming(path: Path, action: str = "write") -> Iterator[None]:
    """Name `path` in an OSError, instead of a temporary or a parent."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"cannot {action}: {error.strerror}", str(path)) from error


def _blocks(chunks: Sequence[Chunk]) -> Iterator[Chunk]:
    """The chunks, with small ones joined, because a model has many small arrays."""
    waiting: list[Chunk] = []
    size = 0
    for chunk in chunks:
        waiting.append(chunk)
        size += len(chunk)
        if size >= _BLOCK:
            yield from [b"".join(waiting)] if len(waiting) > 1 and size < 2 * _BLOCK else waiting
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


def _write(path: Path, flag: int, chunks: Iterator[Chunk] | Sequence[Chunk]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | flag, 0o666)
    try:
        for chunk in chunks:
            rest = memoryview(chunk)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cut_torn_line(path: Path) -> None:
    with open(path, "r+b") as file:
        whole = end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 4096)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end != whole:
            file.truncate(end)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems do not support this call.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
