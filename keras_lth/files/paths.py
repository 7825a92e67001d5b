"""Paths below a run's folder, which may be local or in an object store."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase

from keras_lth.files.stores import AnyPath, is_local, join
from keras_lth.files.whole import list_names, read_bytes, remove

__all__ = ["RunPath"]


class RunPath(os.PathLike[str]):
    """The part of `pathlib.Path` that a run needs, also for ``gs://…``, where `pathlib` drops the second slash."""

    def __init__(self, path: AnyPath) -> None:
        self._path = os.fspath(path)

    def __fspath__(self) -> str:
        return self._path

    def __str__(self) -> str:
        return self._path

    def __repr__(self) -> str:
        return f"RunPath({self._path!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RunPath) and self._path == other._path

    def __hash__(self) -> int:
        return hash(self._path)

    def __truediv__(self, name: str) -> RunPath:
        return RunPath(join(self._path, name))

    @property
    def name(self) -> str:
        """Return the last part."""
        return self._path.rstrip("/").rpartition("/")[2]

    def exists(self) -> bool:
        """Return whether a file or a folder has this name."""
        if is_local(self):
            return os.path.exists(self._path)
        return self.name in list_names(self._path.rstrip("/").rpartition("/")[0])

    def names(self, pattern: str = "*") -> list[str]:
        """Return the names in this folder that match ``pattern``, sorted; none if the folder does not exist."""
        return [name for name in list_names(self) if fnmatchcase(name, pattern)]

    def read_text(self) -> str:
        """Return the content of the file, as UTF-8."""
        return read_bytes(self).decode()

    def remove(self) -> None:
        """Remove the file, if it exists."""
        remove(self)
