"""Claims: a training in progress belongs to one process, and commits to a scratch folder that another can take over."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from keras_lth import files
from keras_lth.files.checkpoints import Checkpoint, Checkpoints, UnreadError


class LostError(RuntimeError):
    """The claim now belongs to another process, which took this one for dead."""


class Claim:
    """The commits of claimed work, by this process or by one that died."""

    def __init__(self, folder: str, lock: files.DirectoryLock) -> None:
        self._folder, self._lock = folder, lock
        self._checkpoints = Checkpoints(folder)

    def latest(self) -> Checkpoint | None:
        """Return the last undamaged commit."""
        return self._checkpoints.latest()

    def commit(self, step: int, arrays: Mapping[str, np.ndarray], state: Mapping[str, Any]) -> None:
        """Commit, as `Checkpoints.save` does. Raises `LostError` if another process has committed."""
        self.check()
        try:
            self._checkpoints.save(step, arrays, state)
        except UnreadError as error:
            raise LostError(str(error)) from error

    def check(self) -> None:
        """Raise `LostError` if the claim was lost to another process."""
        try:
            self._lock.check()
        except RuntimeError as error:
            raise LostError(str(error)) from error

    def clear(self) -> None:
        """Remove the commits: the work is done, and its values are stored."""
        # The lock is removed last, so that a waiting process finds the values.
        names = [name for name in files.list_names(self._folder) if name != ".lock"]
        for name in sorted(names, key=lambda name: not name.endswith(".manifest.json")):
            files.remove(files.join(self._folder, name))
        if files.is_local(self._folder):
            files.remove(files.join(self._folder, ".lock"))
            with contextlib.suppress(OSError):  # another process has just looked into it
                os.rmdir(self._folder)


@contextmanager
def claimed(folder: str) -> Iterator[Claim | None]:
    """Claim a scratch folder while the block runs; None if another process has it.

    A process that dies loses its claims: at once on a local disk, after its heartbeat stops in an object store.
    """
    lock = files.DirectoryLock(folder)
    try:
        lock.acquire()
    except (RuntimeError, FileNotFoundError):  # taken; or its holder has just finished, and removed the folder
        yield None
        return
    try:
        yield Claim(folder, lock)
    finally:
        lock.release()
