"""Writing files so that a crash at any moment leaves them whole: every write of a run goes through these functions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` so that after a crash the file is the old one or the new one, never a part.

    Temporary name in the same folder, fsync, rename, fsync of the folder. Missing folders are created.

    Raises:
        OSError: naming `path`; the temporary file is gone and an earlier `path` is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with naming(path):
        make_folder(path.parent)
        try:
            _write(temporary, os.O_TRUNC, data)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def append_line(path: str | os.PathLike[str], text: str) -> None:
    """Append `text` and a newline, synced; a line that an earlier crash tore is cut off first.

    One writer at a time (hold the `DirectoryLock`).

    Raises:
        ValueError: `text` has a line break.
        OSError: naming `path`; what was in the file before stays readable.
    """
    path = Path(path)
    if "\n" in text or "\r" in text:
        raise ValueError(f"a line for {path} must not contain a line break: {text!r}")
    with naming(path):
        created = not path.exists()
        make_folder(path.parent)
        if not created:
            _cut_torn_line(path)
        _write(path, os.O_APPEND, (text + "\n").encode())
        if created:
            _sync_folder(path.parent)


def read_lines(path: str | os.PathLike[str]) -> list[str]:
    """The complete lines of a file made by `append_line`, without line ends; a torn last line is left out.

    A file that does not exist has no lines.

    Raises:
        ValueError: the file is not UTF-8 text.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        return []
    try:
        return data[: data.rfind(b"\n") + 1].decode().split("\n")[:-1]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file: {error}") from error


def _write(path: Path, flag: int, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | flag, 0o666)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cut_torn_line(path: Path) -> None:
    with open(path, "r+b") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 4096)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        file.truncate(end)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, each synced into its parent."""
    if not folder.exists():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put `path`, instead of a temporary or a parent, into an OSError."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"cannot write: {error.strerror}", str(path)) from error
