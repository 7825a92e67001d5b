"""Write files so that a crash at any moment leaves them whole. Every write of a run uses these functions.

Paths may be local or in an object store (``gs://…``).
"""

from __future__ import annotations

from collections.abc import Sequence

from keras_lth.files.stores import AnyPath, Chunk, place, reading


def write_atomic(path: AnyPath, data: bytes | Sequence[Chunk]) -> None:
    """Write `data` to `path` so that after a crash the file is the old or the new one, never a part.

    Local: temporary name in the same folder, fsync, rename, fsync of the folder; missing folders are created. In an
    object store: one object. Chunks are written one after the other.

    Raises:
        OSError: names `path`; the temporary file is removed and an earlier `path` is unchanged.
    """
    store, name = place(path)
    store.write(name, [data] if isinstance(data, bytes) else data)


def append_line(path: AnyPath, text: str) -> None:
    """Append `text` and a newline, synced; a line torn by an earlier crash is cut off first.

    One writer at a time (hold the `DirectoryLock`). In an object store the whole object is rewritten, so use it for
    rare lines, such as one per epoch.

    Raises:
        ValueError: `text` has a line break.
        OSError: names `path`; the earlier content stays readable.
    """
    if "\n" in text or "\r" in text:
        raise ValueError(f"a line for {path} must not contain a line break: {text!r}")
    store, name = place(path)
    store.append(name, (text + "\n").encode())


def read_lines(path: AnyPath) -> list[str]:
    """Return the complete lines of a file written by `append_line`, without line ends; ignore a torn last line.

    A file that does not exist has no lines.

    Raises:
        ValueError: the file is not UTF-8 text.
    """
    try:
        data = read_bytes(path)
    except FileNotFoundError:
        return []
    try:
        return data[: data.rfind(b"\n") + 1].decode().split("\n")[:-1]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file: {error}") from error


def keep_lines(path: AnyPath, count: int) -> None:
    """Cut a file to its first `count` lines, to remove lines written after the state from which a run resumes.

    Raises:
        ValueError: the file has fewer lines; it is left unchanged.
        OSError: names `path`.
    """
    lines = read_lines(path)
    if len(lines) < count:
        raise ValueError(f"{path} has {len(lines)} lines, but {count} were written: it was edited or replaced")
    kept = "".join(line + "\n" for line in lines[:count]).encode()
    if lines and kept != read_bytes(path):
        write_atomic(path, kept)


def read_bytes(path: AnyPath) -> bytes:
    """Return the content of a file. Raises FileNotFoundError if there is none, ValueError for a folder or a device."""
    store, name = place(path)
    try:
        with reading(name), store.open(name) as file:
            return file.read()
    except ValueError as error:
        raise ValueError(f"cannot read {name}: {error}") from None


def list_names(folder: AnyPath) -> list[str]:
    """Return the names in a folder, sorted; none if the folder does not exist."""
    store, name = place(folder)
    return store.names(name)


def remove(path: AnyPath) -> None:
    """Remove a file, if it exists."""
    store, name = place(path)
    store.remove(name)
