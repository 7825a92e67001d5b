"""Tasks without a training, for the runners: they write down what they did in a folder that all processes see."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

from keras_lth.experiments.runners import Task

POOLS = ("INTRAOP", "INTEROP")


def doing(folder: Path) -> Any:
    """A ``do`` for a runner."""
    return partial(do, folder=folder)


def do(task: Task, folder: Path) -> None:
    name, arguments = task
    log = folder / f"{name}.log"
    with log.open("a") as file:
        file.write(f"{os.getpid()}\n")
    lines = len(log.read_text().splitlines())
    if name == "meets":
        # Ends only if another of its kind runs at the same time.
        _wait(lambda: lines >= 2 or len(log.read_text().splitlines()) >= 2)
    elif name == "dies":
        (times,) = arguments
        if lines <= times:
            os.kill(os.getpid(), signal.SIGKILL)
    elif name == "fails":
        raise KeyError("no such weight")
    elif name == "tells":
        (folder / "threads.log").write_text(" ".join(os.environ[f"TF_NUM_{pool}_THREADS"] for pool in POOLS))


def then(task: Task) -> list[Task]:
    """What a task makes ready."""
    name, _ = task
    return [("after", (name, i)) for i in range(2)] if name == "makes_ready" else []


def _wait(until: Any) -> None:
    end = time.monotonic() + 60
    while not until():
        if time.monotonic() > end:
            raise TimeoutError("the other task did not come")
        time.sleep(0.05)
