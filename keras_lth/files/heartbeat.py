"""A lock in an object store, which has neither locks nor renames: an object that its holder keeps renewing.

No two clocks are compared. A process that finds the object watches it. A live holder renews it every `PERIOD`, so an
object that has not changed for `PATIENCE` belongs to a dead holder and is taken over. A holder that was a process of
this machine and no longer runs is replaced at once. If two processes take the lock at the same moment, both read it
again after `SETTLE`: the last writer has it. A holder that could not renew it in time, or finds another token in it,
has lost it, and `check` raises.

This prevents a run from being started twice. It does not protect against a writer that pauses for longer than
`PATIENCE` between `check` and its next write.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keras_lth.files.local import alive
from keras_lth.files.locks import described, this_process
from keras_lth.files.stores import place
from keras_lth.files.whole import read_bytes, write_atomic

PERIOD = 15.0  # s
PATIENCE = 45.0  # s
SETTLE = 1.0  # s, longer than one write takes

# Tokens of the locks that this process holds.
_held: set[str] = set()


class ObjectLock:
    """The lock of a folder of an object store; ``path`` is the object, ``folder`` is for messages."""

    def __init__(self, path: str, folder: str) -> None:
        self._path, self._folder = path, folder
        self._token: str | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._renewed = 0.0
        self._thief: dict[str, Any] | None = None

    def acquire(self, abandoned: Callable[[], bool] | None) -> None:
        """As `DirectoryLock.acquire`."""
        there = self._read()
        if there is not None and there.get("token") in _held:
            if abandoned is None or not abandoned():
                raise RuntimeError(f"{self._folder} is in use by {described(there)}")
            _held.discard(there["token"])
        elif there is not None and not _is_dead(there):
            self._watch(there)
        token = secrets.token_hex(8)
        fields = {**this_process(), "machine": _machine(), "token": token}
        self._write(fields, 0)
        time.sleep(SETTLE)
        there = self._read()
        if there is None or there.get("token") != token:
            raise RuntimeError(f"{self._folder} is in use by {described(there or {})}")
        _held.add(token)
        self._token, self._thief, self._renewed = token, None, time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._beat, args=(fields, self._stop), name=f"lock of {self._folder}", daemon=True
        )
        self._thread.start()

    def check(self) -> None:
        """As `DirectoryLock.check`."""
        if self._token is None:
            return
        if self._thief is not None:
            raise RuntimeError(f"the lock of {self._folder} was lost to {described(self._thief)}")
        if (ago := time.monotonic() - self._renewed) > PATIENCE - PERIOD:
            raise RuntimeError(
                f"the lock of {self._folder} could not be renewed for {ago:.0f} s: another process may hold it"
            )

    def release(self) -> None:
        """As `DirectoryLock.release`."""
        token, self._token = self._token, None
        if token is None:
            return
        self._stop.set()
        if self._thread is not None:  # a heartbeat in progress would write the object again
            self._thread.join(PERIOD)
        _held.discard(token)
        try:
            there = self._read()
            if there is not None and there.get("token") == token:
                store, name = place(self._path)
                store.remove(name)
        except OSError as error:  # the run is over, and no one renews the object
            warnings.warn(
                f"the lock of {self._folder} could not be removed, the next run will wait for it: {error}", stacklevel=3
            )

    def _watch(self, there: dict[str, Any]) -> None:
        end = time.monotonic() + PATIENCE
        warnings.warn(
            f"{self._folder} was in use by {described(there)}: checking for up to {PATIENCE:.0f} s whether it still is",
            stacklevel=4,
        )
        while time.monotonic() < end:
            time.sleep(PERIOD / 5)
            now = self._read()
            if now is None:
                return
            if now != there:
                raise RuntimeError(f"{self._folder} is in use by {described(now)}")

    def _beat(self, fields: dict[str, Any], stop: threading.Event) -> None:
        count = 0
        while not stop.wait(PERIOD):
            began = time.monotonic()
            try:
                there = self._read()
                if there is None or there.get("token") != fields["token"]:
                    self._thief = there or {}
                    return
                count += 1
                if not stop.is_set():
                    self._write(fields, count)
                    self._renewed = began
            except OSError:  # the next heartbeat may succeed; `check` measures the time
                continue

    def _read(self) -> dict[str, Any] | None:
        try:
            there = json.loads(read_bytes(self._path))
        except FileNotFoundError:
            return None
        except ValueError:
            return {}
        return there if isinstance(there, dict) else {}

    def _write(self, fields: dict[str, Any], beat: int) -> None:
        write_atomic(self._path, json.dumps({**fields, "beat": beat}).encode())


def _machine() -> str:
    """An identifier that is unique to this machine since its last start."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""


def _is_dead(holder: dict[str, Any]) -> bool:
    here = this_process()
    same = bool(_machine()) and holder.get("machine") == _machine() and holder.get("host") == here["host"]
    pid = holder.get("pid")
    # A token with this pid that is not held here was left by an earlier process with the same pid.
    return same and type(pid) is int and (pid == os.getpid() or not alive(pid))
