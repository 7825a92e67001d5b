"""Workers meet before TensorFlow starts, or say within a time limit who is missing."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from keras_lth.training import rendezvous
from keras_lth.training.rendezvous import meet, reach


def addresses(count: int) -> list[str]:
    held = [socket.create_server(("localhost", 0)) for _ in range(count)]
    found = [f"localhost:{one.getsockname()[1]}" for one in held]
    for one in held:
        one.close()
    return found


class Meeting:
    """Workers in threads of this process; `ended` is what each came to: None, or what it raised."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self.ended: list[Any] = []

    def add(self, workers: list[str], index: int, timeout: float = 20.0) -> None:
        place = len(self.ended)
        self.ended.append("under way")

        def run() -> None:
            try:
                self.ended[place] = meet(workers, index, timeout)
            except (RuntimeError, ValueError) as error:
                self.ended[place] = error

        self.threads.append(threading.Thread(target=run, daemon=True))
        self.threads[-1].start()

    def wait(self) -> list[Any]:
        for thread in self.threads:
            thread.join(30)
        return self.ended


def call(address: str) -> socket.socket:
    """A connection to a worker that may not listen yet."""
    assert reach([address], 20.0) == []
    host, port = address.split(":")
    return socket.create_connection((host, int(port)), timeout=10)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_all_go_on_when_all_have_come(order: tuple[int, ...]) -> None:
    workers, meeting = addresses(3), Meeting()
    for number, index in enumerate(order):
        if number == 2:
            time.sleep(0.5)
            assert meeting.ended == ["under way", "under way"]
        meeting.add(workers, index)
    assert meeting.wait() == [None, None, None]
    # The port is free for TensorFlow's server.
    socket.create_server(("localhost", int(workers[0].split(":")[1]))).close()


def test_one_worker_waits_for_nobody() -> None:
    meet(addresses(1), 0, 0.0)


def test_who_is_missing_is_named() -> None:
    workers, meeting = addresses(3), Meeting()
    meeting.add(workers, 0, 1.5)
    meeting.add(workers, 1, 1.5)
    chief, other = meeting.wait()
    assert isinstance(chief, RuntimeError)
    assert isinstance(other, RuntimeError)
    assert f"of 3 workers, 2 ({workers[2]}) did not connect to {workers[0]} within 2 s" in str(chief)
    assert f"worker 1 ({workers[1]}) did not meet the others at {workers[0]} within 2 s" in str(other)


def test_an_absent_first_worker_is_named_with_the_reason() -> None:
    workers = addresses(2)
    with pytest.raises(
        RuntimeError, match=rf"at {workers[0]} within 1 s \(.*refused\): are worker 0 and all other workers running"
    ):
        meet(workers, 1, 1.0)


def test_another_list_is_refused_and_the_right_one_still_comes() -> None:
    workers, meeting = addresses(2), Meeting()
    other = [workers[0], "elsewhere:5000"]
    meeting.add(workers, 0)
    meeting.add(other, 1)
    meeting.threads[1].join(10)
    refused = meeting.ended[1]
    assert isinstance(refused, RuntimeError)
    assert f"worker 1 was refused: worker 0 has the worker list {', '.join(workers)}" in str(refused)
    assert f"this one has {', '.join(other)}: pass all workers the same list" in str(refused)
    meeting.add(workers, 1)
    assert meeting.wait()[::2] == [None, None]


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("", 0)) as server:
        taken = f"localhost:{server.getsockname()[1]}"
        with pytest.raises(RuntimeError, match=rf"worker 0 cannot listen at {taken}: .*in use"):
            meet([taken, "localhost:1"], 0, 1.0)


GARBAGE: dict[str, Callable[[list[str]], bytes]] = {
    "web": lambda _: b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "noise": lambda _: bytes(range(256)) * 300,
    "nothing": lambda _: b"",
    "no dictionary": lambda _: b"[1]\n",
    "deep": lambda _: b"[" * 60000 + b"\n",
    "no index": lambda workers: json.dumps({"workers": workers}).encode() + b"\n",
    "first again": lambda workers: json.dumps({"workers": workers, "index": 0}).encode() + b"\n",
    "no such worker": lambda workers: json.dumps({"workers": workers, "index": 2}).encode() + b"\n",
    "text": lambda workers: json.dumps({"workers": workers, "index": "1"}).encode() + b"\n",
    "list": lambda workers: json.dumps({"workers": workers, "index": [1]}).encode() + b"\n",
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_who_says_garbage_is_not_a_worker(kind: str) -> None:
    workers, meeting = addresses(2), Meeting()
    meeting.add(workers, 0)
    with call(workers[0]) as caller:
        caller.sendall(GARBAGE[kind](workers))
    time.sleep(0.1)
    assert meeting.ended == ["under way"]
    meeting.add(workers, 1)
    assert meeting.wait() == [None, None]


def test_who_says_nothing_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "_PATIENCE", 0.3)
    workers, meeting = addresses(2), Meeting()
    meeting.add(workers, 0)
    with call(workers[0]):
        meeting.add(workers, 1)
        assert meeting.wait() == [None, None]


def test_a_worker_that_died_must_come_again() -> None:
    workers, meeting = addresses(3), Meeting()
    meeting.add(workers, 0)
    with call(workers[0]) as earlier:
        earlier.sendall(json.dumps({"index": 1, "workers": workers}).encode() + b"\n")
    meeting.add(workers, 2)
    time.sleep(0.5)
    assert meeting.ended == ["under way"] * 2
    meeting.add(workers, 1)
    assert meeting.wait() == [None] * 3


def test_a_worker_that_comes_twice_takes_its_own_place() -> None:
    workers, meeting = addresses(3), Meeting()
    meeting.add(workers, 0)
    said = json.dumps({"index": 1, "workers": workers}).encode() + b"\n"
    with call(workers[0]) as earlier:
        earlier.sendall(said)
        with call(workers[0]) as again:
            again.sendall(said)
            assert earlier.recv(100) == b""
            assert meeting.ended == ["under way"]
            meeting.add(workers, 2)
            assert json.loads(again.recv(100)) == {"go": True}
    assert meeting.wait() == [None] * 2


@pytest.mark.parametrize(
    "address", ["localhost", ":5000", "localhost:", "localhost:x", "localhost:70000", "a:0", "a:²"]
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ValueError, match="an address must be host:port, not "):
        meet(["localhost:5000", address], 0, 1.0)


def test_reach_names_who_is_silent() -> None:
    silent = addresses(1)[0]
    with socket.create_server(("localhost", 0)) as server:
        there = f"grpc://localhost:{server.getsockname()[1]}"
        assert reach([there, silent], 0.5) == [silent]
        assert reach([there], 5.0) == []
