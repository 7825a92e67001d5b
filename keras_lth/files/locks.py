"""One process at a time in a folder."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

from keras_lth.files.local import make_folder, naming
from keras_lth.files.stores import AnyPath, is_local, join

NAME = ".lock"


class DirectoryLock:
    """One process at a time in `folder`. Use as a context manager, or `acquire` and `release`.

    Local: a lock on `folder/.lock` that the system releases when its holder dies. The process that already holds it
    cannot take it again. In an object store: an object of that name with a heartbeat, see `heartbeat.ObjectLock`.
    """

    def __init__(self, folder: AnyPath) -> None:
        self.folder = os.fspath(folder)
        self._lock: _Lock
        if is_local(folder):
            self._lock = _FileLock(Path(folder))
        else:
            from keras_lth.files.heartbeat import ObjectLock

            self._lock = ObjectLock(join(folder, NAME), self.folder)

    def acquire(self, abandoned: Callable[[], bool] | None = None) -> None:
        """Take the lock; create a missing local folder.

        ``abandoned`` is called if this process itself holds the lock. It returns True if the holder will never release
        it, such as a callback whose ``fit`` raised and which a traceback still references. That lock is then ignored.

        In an object store this takes a second, or 45 s if the last holder died on another machine.

        Raises:
            RuntimeError: another process (or this one) holds it; gives its pid, host and start.
            OSError: the folder cannot be created or written.
        """
        self._lock.acquire(abandoned)

    def check(self) -> None:
        """Check that the lock is still held; call it before a commit.

        Raises:
            RuntimeError: in an object store the lock was lost; says to whom, or since when it could not be renewed.
        """
        self._lock.check()

    def release(self) -> None:
        """Release the lock; do nothing if it is not held."""
        self._lock.release()

    def __enter__(self) -> DirectoryLock:
        self.acquire()
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()


class _Lock(Protocol):
    def acquire(self, abandoned: Callable[[], bool] | None) -> None: ...

    def check(self) -> None: ...

    def release(self) -> None: ...


class _FileLock:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor: int | None = None

    def acquire(self, abandoned: Callable[[], bool] | None) -> None:
        path = self._folder / NAME
        with naming(path):
            make_folder(self._folder)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with naming(path):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, json.dumps(this_process()).encode())
        except BlockingIOError:
            holder = _holder(descriptor)
            os.close(descriptor)
            if holder.get("pid") == os.getpid() and abandoned is not None and abandoned():
                path.unlink()
                self.acquire(None)
                return
            raise RuntimeError(f"{self._folder} is in use by {described(holder)}") from None
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def check(self) -> None:
        """Do nothing: the system keeps the lock."""

    def release(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with naming(self._folder / NAME, "release"):
                os.close(descriptor)


def this_process() -> dict[str, Any]:
    """Return the holder's description in a lock."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": now}


def described(holder: dict[str, Any]) -> str:
    """Describe the holder of a lock for a message."""
    if not {"pid", "host", "since"} <= set(holder):
        return "another process"
    return f"process {holder['pid']} on {holder['host']} since {holder['since']}"


def _holder(descriptor: int) -> dict[str, Any]:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:  # its holder has not written it yet
        return {}
    return holder if isinstance(holder, dict) else {}
