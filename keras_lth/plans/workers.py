"""Processes on this machine that do the same work, and the signal that ends them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

TERMINATED = 128 + signal.SIGTERM


def in_processes(count: int, function: Callable[..., None], arguments: tuple[Any, ...]) -> str:
    """Run ``function(*arguments)`` in ``count`` processes, each with its share of the processors for TensorFlow.

    Returns a message about those that died, or "". A SIGTERM is passed on to them, and ends this call with
    ``SystemExit(143)``.
    """
    spawn = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // count)
    processes = [spawn.Process(target=with_threads, args=(threads, function, arguments)) for _ in range(count)]
    for process in processes:
        process.start()

    def end() -> None:
        for process in processes:
            process.terminate()

    with _handling(end):
        for process in processes:
            process.join()
    codes = [process.exitcode for process in processes]
    if TERMINATED in codes or -signal.SIGTERM in codes:
        raise SystemExit(TERMINATED)
    died = [str(code) for code in codes if code]
    return f"{len(died)} of {count} workers ended with {', '.join(died)} (-9: out of memory?)" if died else ""


@contextmanager
def until_terminated(ending: threading.Event) -> Iterator[None]:
    """Let SIGTERM set ``ending``, so that the work commits and ends."""
    with _handling(ending.set):
        yield


def with_threads(threads: int, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Call ``function(*arguments)`` with this number of threads for TensorFlow, which must not have started yet."""
    for pool in ("INTRAOP", "INTEROP"):
        os.environ[f"TF_NUM_{pool}_THREADS"] = str(threads)
    function(*arguments)


@contextmanager
def _handling(act: Callable[[], Any]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        act()

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
