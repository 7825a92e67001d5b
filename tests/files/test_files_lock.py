"""The lock of a run in an object store: a heartbeat, taken over where nobody renews it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import warnings
from typing import Any

import pytest

from keras_lth import files
from keras_lth.files import heartbeat
from tests.files.memory import RUN, MemoryStore

LOCK = f"{RUN}/.lock"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "PERIOD", 0.05)
    monkeypatch.setattr(heartbeat, "PATIENCE", 0.4)


def someone(**fields: Any) -> bytes:
    return json.dumps({"pid": 7, "host": "other", "since": "then", "machine": "m", "token": "t", **fields}).encode()


def test_lock_in_one_process(memory: MemoryStore) -> None:
    with files.DirectoryLock(RUN) as lock:
        lock.check()
        for other in (lock, files.DirectoryLock(RUN)):
            with pytest.raises(RuntimeError, match=rf"run is in use by process {os.getpid()} on .+ since 20\d\d-"):
                other.acquire()
        other.release()
        with pytest.raises(RuntimeError, match="in use"):
            other.acquire(lambda: False)
        lock.check()
    assert memory.objects == {}
    with files.DirectoryLock(RUN):
        pass


def test_lock_that_its_holder_will_never_release(memory: MemoryStore, quick: None) -> None:
    first, second = files.DirectoryLock(RUN), files.DirectoryLock(RUN)
    first.acquire()
    second.acquire(lambda: True)
    time.sleep(0.2)
    with pytest.raises(RuntimeError, match=rf"was lost to process {os.getpid()}"):
        first.check()
    first.release()
    second.check()
    assert json.loads(memory.objects[LOCK])["pid"] == os.getpid()
    second.release()
    assert memory.objects == {}


def test_lock_of_a_dead_process_of_this_machine_is_taken_at_once(memory: MemoryStore) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    here = {"host": socket.gethostname(), "machine": heartbeat._machine()}
    for pid in (child.pid, os.getpid()):
        memory.objects[LOCK] = someone(pid=pid, **here)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with files.DirectoryLock(RUN):
                pass


@pytest.mark.parametrize("content", [someone(), b"", b"nonsense", b"[]", b"{}"])
def test_lock_that_nobody_renews_is_taken_over_after_a_while(memory: MemoryStore, quick: None, content: bytes) -> None:
    memory.objects[LOCK] = content
    began = time.monotonic()
    with pytest.warns(UserWarning, match="was in use by .*process"), files.DirectoryLock(RUN):
        assert time.monotonic() - began >= 0.4
        assert json.loads(memory.objects[LOCK])["pid"] == os.getpid()


def test_lock_that_another_machine_renews(memory: MemoryStore, quick: None) -> None:
    memory.objects[LOCK] = someone(beat=0)
    timer = threading.Timer(0.2, lambda: memory.objects.update({LOCK: someone(beat=1)}))
    timer.start()
    with (
        pytest.warns(UserWarning, match="was in use"),
        pytest.raises(RuntimeError, match="run is in use by process 7 on other since then"),
    ):
        files.DirectoryLock(RUN).acquire()
    timer.join()
    assert memory.objects == {LOCK: someone(beat=1)}


def test_lock_is_renewed(memory: MemoryStore, quick: None) -> None:
    with files.DirectoryLock(RUN) as lock:
        before = json.loads(memory.objects[LOCK])
        deadline = time.monotonic() + 10
        while json.loads(memory.objects[LOCK])["beat"] < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        after = json.loads(memory.objects[LOCK])
        assert after == {**before, "beat": after["beat"]} and after["beat"] >= 3
        lock.check()


def test_two_that_take_it_in_the_same_moment(memory: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    real = memory.put

    def overtaken(path: str, data: bytes) -> None:
        real(path, data)
        real(path, someone())

    with monkeypatch.context() as patch:
        patch.setattr(memory, "put", overtaken)
        with pytest.raises(RuntimeError, match="in use by process 7 on other"):
            files.DirectoryLock(RUN).acquire()
    assert memory.objects == {LOCK: someone()} and not heartbeat._held


def test_lock_that_was_lost_or_could_not_be_renewed(memory: MemoryStore, quick: None) -> None:
    for content, match in ((someone(), "was lost to process 7 on other since then"), (None, "lost to another process")):
        lock = files.DirectoryLock(RUN)
        lock.acquire()
        memory.objects.clear()
        if content is not None:
            memory.objects[LOCK] = content
        time.sleep(0.2)
        with pytest.raises(RuntimeError, match=match):
            lock.check()
        lock.release()
        assert memory.objects == ({LOCK: content} if content is not None else {})
        memory.objects.clear()
    with files.DirectoryLock(RUN) as lock:
        memory.arm(0, lasting=True)
        time.sleep(0.5)
        assert memory.struck >= 1
        with pytest.raises(RuntimeError, match=r"could not be renewed for \d+ s: another process may hold it"):
            lock.check()
        memory.arm(None)
        time.sleep(0.2)
        lock.check()


def test_release_without_the_network(memory: MemoryStore) -> None:
    lock = files.DirectoryLock(RUN)
    lock.acquire()
    memory.arm(0, lasting=True)
    with pytest.warns(
        UserWarning, match="the lock of mem://bucket/run could not be removed, the next run will wait for it"
    ):
        lock.release()
    assert not heartbeat._held
