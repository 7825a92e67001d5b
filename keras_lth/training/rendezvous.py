"""Connect the processes of a run before TensorFlow starts, which would wait silently and forever for a missing one.

The first worker listens at its own address. The others connect to it and identify themselves. When all are connected,
all continue.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Sequence
from typing import Any

__all__ = ["meet", "reach"]

_PAUSE = 0.2  # s between two attempts
_PATIENCE = 2.0  # seconds for a caller to identify itself
_LIMIT = 1 << 16  # bytes of a message


def meet(workers: Sequence[str], index: int, timeout: float) -> None:
    """Wait until all of ``workers`` (host:port) are connected; this process is the one at ``index``.

    Raises:
      RuntimeError: names workers that did not connect within ``timeout`` seconds, or that have another worker list.
      ValueError: an address is not host:port.
    """
    places = [_place(worker) for worker in workers]
    end = time.monotonic() + timeout
    if len(places) > 1 and index == 0:
        _wait_for_all(workers, places[0][1], end, timeout)
    elif len(places) > 1:
        _come(workers, index, places[0], end, timeout)


def reach(addresses: Sequence[str], timeout: float) -> list[str]:
    """Return those of ``addresses`` (host:port) that did not answer within ``timeout`` seconds."""
    end = time.monotonic() + timeout
    silent = list(addresses)
    while silent and time.monotonic() < end:
        silent = [address for address in silent if not _answers(_place(address), end)]
        if silent:
            time.sleep(min(_PAUSE, max(0.0, end - time.monotonic())))
    return silent


def _wait_for_all(workers: Sequence[str], port: int, end: float, timeout: float) -> None:
    come: dict[int, socket.socket] = {}
    try:
        with _listening(workers[0], port) as server:
            while len(come) < len(workers) - 1:
                left = end - time.monotonic()
                if left <= 0:
                    missing = [f"{i} ({worker})" for i, worker in enumerate(workers) if i and i not in come]
                    raise RuntimeError(
                        f"of {len(workers)} workers, {', '.join(missing)} did not connect to {workers[0]} within "
                        f"{timeout:.0f} s: is the same program running there, with the same list of workers and its "
                        "own index?"
                    )
                server.settimeout(min(left, 1.0))
                try:
                    caller, _ = server.accept()
                except TimeoutError:
                    continue
                index = _asked(caller, workers)
                if index is None:
                    caller.close()
                    continue
                if index in come:
                    come[index].close()
                come[index] = caller
                # A worker that has died since then will connect again.
                for gone in [i for i, held in come.items() if not _waits(held)]:
                    come.pop(gone).close()
        # The socket is closed: the address is free for TensorFlow's own server.
        for caller in come.values():
            _say(caller, {"go": True})
        for caller in come.values():
            # The caller closes first, so that no port of this side lingers.
            _hear(caller)
    finally:
        for caller in come.values():
            caller.close()


def _listening(address: str, port: int) -> socket.socket:
    try:
        return socket.create_server(("", port))
    except OSError as error:
        raise RuntimeError(f"worker 0 cannot listen at {address}: {error}") from error


def _asked(caller: socket.socket, workers: Sequence[str]) -> int | None:
    """The index of the calling worker; None for a stranger, which is refused."""
    caller.settimeout(_PATIENCE)
    said = _hear(caller)
    index = said.get("index")
    if said.get("workers") != list(workers):
        _say(caller, {"refused": f"worker 0 has the worker list {', '.join(workers)}"})
    elif type(index) is int and 0 < index < len(workers):
        return index
    return None


def _waits(caller: socket.socket) -> bool:
    """Whether the other end is still connected; it sends nothing while it waits."""
    caller.setblocking(False)
    try:
        return bool(caller.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        caller.settimeout(_PATIENCE)


def _come(workers: Sequence[str], index: int, first: tuple[str, int], end: float, timeout: float) -> None:
    reason = "no answer"
    while (left := end - time.monotonic()) > 0:
        try:
            with socket.create_connection(first, timeout=min(left, 5.0)) as caller:
                _say(caller, {"index": index, "workers": list(workers)})
                caller.settimeout(left)
                said = _hear(caller)
        except OSError as error:
            said, reason = {}, str(error)
        if said.get("go"):
            return
        if "refused" in said:
            raise RuntimeError(
                f"worker {index} was refused: {said['refused']}, this one has {', '.join(workers)}: pass all "
                "workers the same list"
            )
        time.sleep(_PAUSE)
    raise RuntimeError(
        f"worker {index} ({workers[index]}) did not meet the others at {workers[0]} within {timeout:.0f} s "
        f"({reason}): are worker 0 and all other workers running, and do firewalls open this port?"
    )


def _say(connection: socket.socket, message: dict[str, Any]) -> None:
    try:
        connection.sendall(json.dumps(message).encode() + b"\n")
    except OSError:
        # Ignore: a dead peer shows up as an empty read.
        return


def _hear(connection: socket.socket) -> dict[str, Any]:
    """The next message; nothing if the peer is gone or sends something else."""
    data = b""
    try:
        while not data.endswith(b"\n") and len(data) < _LIMIT:
            more = connection.recv(_LIMIT)
            if not more:
                return {}
            data += more
        said = json.loads(data)
    except (OSError, ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _answers(place: tuple[str, int], end: float) -> bool:
    try:
        socket.create_connection(place, timeout=max(0.1, min(5.0, end - time.monotonic()))).close()
    except OSError:
        return False
    return True


def _place(address: str) -> tuple[str, int]:
    host, _, port = address.removeprefix("grpc://").rpartition(":")
    if not host or not (port.isascii() and port.isdecimal() and 0 < int(port) < 1 << 16):
        raise ValueError(f"an address must be host:port, not {address!r}")
    return host, int(port)
