"""Where files are stored. A local folder renames and syncs; an object store (``gs://…``) writes whole objects.

A path with a scheme belongs to an object store: the one registered for the scheme, else TensorFlow's file systems,
which are imported only then. Every other path is local, and TensorFlow is never imported for it.
"""

from __future__ import annotations

import io
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO, Protocol

AnyPath = str | os.PathLike[str]
Chunk = bytes | memoryview

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_LOST_SLASH = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/[^/]")


class Store(Protocol):
    """The operations of a place for files. Each raises ``OSError`` with the path when it fails."""

    def open(self, path: str) -> BinaryIO:
        """Return a seekable reader of a file that `write` or `append` wrote; raise FileNotFoundError if there is
        none.
        """
        ...

    def write(self, path: str, chunks: Sequence[Chunk]) -> None:
        """Write the chunks, in order, to `path`: whole or not at all, and durable when this returns."""
        ...

    def append(self, path: str, line: bytes) -> None:
        """Append a line, with its line end, to a file of whole lines; a torn last line is dropped first."""
        ...

    def names(self, folder: str) -> list[str]:
        """Return the names in `folder`, sorted; none if the folder does not exist."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file; do nothing if it does not exist."""
        ...

    def settle(self, folder: str) -> None:
        """Make removals from `folder` durable."""
        ...


class ObjectStore(ABC):
    """The part of `Store` that follows from reading, writing, listing and removing whole objects.

    A subclass gives `read(path) → bytes`, `put(path, data)`, `names` and `remove`. `put` replaces an object whole.
    """

    @abstractmethod
    def read(self, path: str) -> bytes:
        """Return the content of the object; raise FileNotFoundError if there is none."""

    @abstractmethod
    def put(self, path: str, data: bytes) -> None:
        """Write the object whole."""

    def open(self, path: str) -> BinaryIO:
        """Return a reader of the object, which is read whole."""
        return io.BytesIO(self.read(path))

    def write(self, path: str, chunks: Sequence[Chunk]) -> None:
        """Write all chunks as one object."""
        self.put(path, chunks[0] if len(chunks) == 1 and isinstance(chunks[0], bytes) else b"".join(chunks))

    def append(self, path: str, line: bytes) -> None:
        """Rewrite the object with the new line."""
        try:
            before = self.read(path)
        except FileNotFoundError:
            before = b""
        self.put(path, before[: before.rfind(b"\n") + 1] + line)

    def settle(self, folder: str) -> None:  # noqa: B027  # on purpose: object stores need no more
        """Do nothing: a removed object is gone when the call returns."""


_registered: dict[str, Store] = {}


def register(scheme: str, store: Store | None) -> None:
    """Register `store` for every path that begins with ``scheme://``; None removes the registration."""
    if store is None:
        _registered.pop(scheme, None)
    else:
        _registered[scheme] = store


def place(path: AnyPath) -> tuple[Store, str]:
    """Return the store of `path`, and the path in that store.

    Raises:
        ValueError: a path such as ``gs:/bucket``, because `pathlib.Path` drops a slash of ``gs://bucket``.
    """
    name = os.fspath(path)
    found = _SCHEME.match(name)
    if found is None:
        if lost := _LOST_SLASH.match(name):
            scheme = lost.group(1)
            raise ValueError(f"{name} lost a slash in a pathlib.Path: pass {scheme}://… as a string")
        from keras_lth.files.local import LOCAL

        return LOCAL, name
    scheme = found.group(1)
    if scheme in _registered:
        return _registered[scheme], name
    if scheme == "file":
        return place(name[found.end() :])
    from keras_lth.files.gfile import TensorFlowStore

    return TensorFlowStore(), name


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Name `path` in an OSError that names no file, such as one of `read` itself."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, f"cannot read: {error.strerror}", path) from error


def is_local(path: AnyPath) -> bool:
    """Return whether `path` is in a local file system."""
    from keras_lth.files.local import LocalStore

    return isinstance(place(path)[0], LocalStore)


def join(folder: AnyPath, *names: str) -> str:
    """Join `folder` and names below it to one path, with or without a scheme."""
    name = os.fspath(folder)
    if _SCHEME.match(name):
        return "/".join([name.rstrip("/"), *names])
    return os.path.join(name, *names)
