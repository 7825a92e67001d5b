"""Two hosts of a strategy run one plan: the chief keeps the values, and a death of either loses nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_lth.store import Store, check
from tests.two_devices import MARK, ROOT


def start(folder: Path) -> list[subprocess.Popen[str]]:
    held = [socket.create_server(("localhost", 0)) for _ in range(2)]
    workers = ",".join(f"localhost:{one.getsockname()[1]}" for one in held)
    for one in held:
        one.close()
    command = [sys.executable, "-m", "tests.experiments.hosts_program", workers]
    return [
        subprocess.Popen(
            [*command, str(index), str(folder)], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONHASHSEED": str(index + 1)},
        )
        for index in range(2)
    ]  # fmt: skip


def ends(processes: list[subprocess.Popen[str]]) -> list[Any]:
    found = []
    for process in processes:
        out, err = process.communicate(timeout=180)
        assert process.returncode == 0, err[-3000:]
        found.append(json.loads(next(line for line in out.splitlines() if line.startswith(MARK))[len(MARK) :]))
    return found


@pytest.mark.proof
def test_two_hosts(tmp_path: Path) -> None:
    first, second = ends(start(tmp_path / "a"))
    assert first == second and first["loads"] == [0, 4, 0, 4, 0]
    results = [row for row in first["rows"] if row["table"] == "results"]
    assert [row["arm"] for row in results] == ["imp", "imp", "reinit", "imp", "reinit"]
    assert all(np.isfinite(row["loss"]) for row in results)
    # Killed in the third training, one of them; the other says so, and both start again.
    processes = start(tmp_path / "b")
    store = tmp_path / "b"
    while len(list((store / "values").glob("state-*"))) < 4:
        assert processes[1].poll() is None, processes[1].communicate()[1][-3000:]
    processes[1].send_signal(signal.SIGKILL)
    for process in processes:
        process.communicate(timeout=180)
    assert processes[1].returncode == -9 and processes[0].returncode != 0
    again, also = ends(start(store))
    assert again["rows"] == also["rows"] == first["rows"] and len(again["loads"]) < 5
    a, b = Store(tmp_path / "a"), Store(store)
    assert a.names() == b.names() and not check(b) and not b.under_way()
    for name in a.names():
        mine, yours = a.get(name), b.get(name)
        assert all(np.array_equal(mine.arrays[key], yours.arrays[key]) for key in mine.arrays), name
