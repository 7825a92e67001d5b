"""An object store in memory: whole objects, no renames, and calls that fail when told to."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from keras_lth.files import heartbeat, stores

RUN = "mem://bucket/run"


class Killed(BaseException):
    """The process died in a call."""


class MemoryStore(stores.ObjectStore):
    """Objects by path. The call with number ``strike`` (from 0) fails: before or after its effect, with an error that
    the program sees or with its death; ``lasting`` makes every later one fail too."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.calls: list[tuple[str, str]] = []
        self.arm(None)

    def arm(self, strike: int | None, error: type[BaseException] = OSError, *, after=False, lasting=False) -> None:
        self.calls.clear()
        self._strike, self._error, self._after, self._lasting = strike, error, after, lasting
        self.struck = 0

    def read(self, path: str) -> bytes:
        with self._call("read", path):
            if path not in self.objects:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            return self.objects[path]

    def put(self, path: str, data: bytes) -> None:
        assert type(data) is bytes
        with self._call("put", path):
            self.objects[path] = data

    def names(self, folder: str) -> list[str]:
        with self._call("names", folder):
            start = folder.rstrip("/") + "/"
            return sorted({path[len(start) :].split("/")[0] for path in self.objects if path.startswith(start)})

    def remove(self, path: str) -> None:
        with self._call("remove", path):
            self.objects.pop(path, None)

    @contextmanager
    def _call(self, kind: str, path: str) -> Iterator[None]:
        number = len(self.calls)
        self.calls.append((kind, path))
        hit = self._strike is not None and (number == self._strike or (self._lasting and number > self._strike))
        if hit and not self._after:
            self._fail(kind, path)
        try:
            yield
        finally:
            if hit:
                self._fail(kind, path)

    def _fail(self, kind: str, path: str) -> None:
        self.struck += 1
        if issubclass(self._error, OSError):
            raise self._error(errno.EACCES, f"cannot {kind}", path)
        raise self._error


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryStore]:
    """Under ``mem://``; no lock is held at the end."""
    store = MemoryStore()
    stores.register("mem", store)
    monkeypatch.setattr(heartbeat, "SETTLE", 0.0)
    yield store
    stores.register("mem", None)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lock of")]
