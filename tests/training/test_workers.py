"""Two workers on loopback train as one device does, and lose nothing when one of them dies."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_lth.training import strategies
from tests.training import workers_program
from tests.two_devices import MARK, ROOT

# Workers that train together, and a worker that is restarted, iterate over sets in another order each.
HASH_SEEDS = itertools.count(1)
ENDED = {"SIGKILL": -signal.SIGKILL, "SIGTERM": 143}


def addresses(count: int = 2) -> list[str]:
    held = [socket.create_server(("localhost", 0)) for _ in range(count)]
    found = [f"localhost:{one.getsockname()[1]}" for one in held]
    for one in held:
        one.close()
    return found


def start(**task: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.training.workers_program", json.dumps(task)],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONHASHSEED": str(next(HASH_SEEDS)),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ends(*processes: subprocess.Popen[str]) -> list[tuple[int, Any, str]]:
    """Of each its exit code, what it reported, and what it said to stderr."""
    rows = []
    try:
        for process in processes:
            out, err = process.communicate(timeout=180)
            lines = [line for line in out.splitlines() if line.startswith(MARK)]
            rows.append((process.returncode, json.loads(lines[-1][len(MARK) :]) if lines else None, err))
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    return rows


def both(folder: Path, strikes: dict[int, Any] | None = None, **task: Any) -> list[tuple[int, Any, str]]:
    workers, strikes = addresses(), strikes or {}
    return ends(*[start(workers=workers, index=i, folder=str(folder), strike=strikes.get(i), **task) for i in range(2)])


def undisturbed_run(folder: Path, **task: Any) -> list[Any]:
    rows = both(folder, **task)
    assert [code for code, _, _ in rows] == [0, 0], rows[0][2][-2000:] + rows[1][2][-2000:]
    return [reported for _, reported, _ in rows]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What two workers report that run undisturbed, then differ, then go on: all in one process each."""
    return undisturbed_run(tmp_path_factory.mktemp("together"), refusals=True)


@pytest.fixture(scope="module")
def undisturbed(together: list[Any]) -> list[Any]:
    return [reported["run"] for reported in together]


@pytest.fixture(scope="module")
def refused(together: list[Any]) -> list[Any]:
    return [reported["refused"] for reported in together]


def test_two_workers_are_one_device(undisturbed: list[Any], tmp_path: Path) -> None:
    task = {"workers": [], "index": 0, "folder": str(tmp_path)}
    alone = workers_program.run(task, workers_program.make(task))
    for two in undisturbed:
        assert two["masks"] == alone["masks"]
        assert [row[:3] for row in two["levels"]] == [row[:3] for row in alone["levels"]]
        assert [row[2] for row in two["levels"]] == [16, 13, 13]
        for path, value in alone["weights"].items():
            np.testing.assert_allclose(two["weights"][path], value, rtol=0, atol=1e-5, err_msg=path)
        for name, values in alone["history"].items():
            np.testing.assert_allclose(two["history"][name], values, rtol=1e-4, err_msg=name)
    assert list(alone["rates"]) == pytest.approx([0.01, 0.005] * 3)


def test_both_workers_hold_the_same_bits(undisturbed: list[Any]) -> None:
    chief, other = ({name: value for name, value in one.items() if name != "wrote"} for one in undisturbed)
    assert chief == other


def test_only_the_chief_writes(undisturbed: list[Any]) -> None:
    assert undisturbed[1]["wrote"] == []
    assert {"os.mkdir plans", "os.mkdir values"} <= set(undisturbed[0]["wrote"])


# The chief is killed; later the other worker is terminated.
STRIKES = ((0, 5, "SIGKILL"), (1, 3, "SIGTERM"))


def test_a_run_whose_chief_is_killed_ends_as_if_it_never_was(undisturbed: list[Any], tmp_path: Path) -> None:
    struck_and_resumed(undisturbed, tmp_path, STRIKES[:1])


@pytest.mark.proof
def test_a_run_struck_in_every_way_ends_as_if_it_never_was(undisturbed: list[Any], tmp_path: Path) -> None:
    struck_and_resumed(undisturbed, tmp_path, STRIKES)


@pytest.mark.proof
def test_processes_that_train_with_xla_too_end_with_the_same_bits(tmp_path: Path) -> None:
    whole = [reported["run"] for reported in undisturbed_run(tmp_path / "whole", combined=True)]
    struck_and_resumed(whole, tmp_path / "struck", STRIKES, combined=True)


def struck_and_resumed(whole: list[Any], folder: Path, strikes: Sequence[tuple[int, int, str]], **task: Any) -> None:
    for victim, at, strike in strikes:
        rows = both(folder, {victim: [at, strike]}, **task)
        assert rows[victim][0] == ENDED[strike], rows[victim][2][-2000:]
        code, reported, err = rows[1 - victim]
        assert reported is None
        if strike == "SIGTERM":
            assert code == 143, err[-2000:]
        else:
            assert code not in (0, 143)
            assert f"RuntimeError: worker {1 - victim} of 2 stops: another worker was lost" in err, err[-2000:]
            assert "Start all workers again" in err
    rows = both(folder, **task)
    assert [code for code, _, _ in rows] == [0, 0], rows[0][2][-2000:]
    for (_, resumed, _), one in zip(rows, whole, strict=True):
        assert {**resumed["run"], "wrote": None} == {**one, "wrote": None}


def test_workers_that_do_not_run_the_same_are_told_what_differs(refused: list[Any]) -> None:
    for said in (row["said"] for row in refused):
        assert said["seed"].startswith("RuntimeError: the data of worker 1 differ from worker 0's: ")
        assert said["steps_per_call"].startswith("RuntimeError: the arguments of the training of worker 1 differ")
        assert said["callbacks"].startswith("RuntimeError: the callbacks of worker 1 differ from worker 0's: ")
        assert "do all workers run the same program, config, data and versions" in said["callbacks"]


def test_a_folder_that_is_not_shared_is_named(refused: list[Any]) -> None:
    for index, said in enumerate(row["said"] for row in refused):
        assert f"own_{index} of worker 1 differ from worker 0's" in said["folder"]
        assert said["folder"].endswith("and see the same workdir?")


def test_what_the_chief_cannot_do_ends_all(refused: list[Any]) -> None:
    chief, other = (row["said"]["chief"] for row in refused)
    assert "cannot write: Not a directory: '/dev/null/.lock'" in chief
    assert other == "RuntimeError: worker 0 failed; see its output for the reason"


def test_workers_share_files(refused: list[Any]) -> None:
    chief, other = refused
    assert chief["losses"] == other["losses"]
    assert chief["losses"][1] < chief["losses"][0]
    assert chief["evaluated"] == other["evaluated"]
    files, arrays = chief["evaluated"]
    assert files == pytest.approx(arrays, rel=1e-5)


def test_workers_share_an_instability_analysis(refused: list[Any], tmp_path: Path) -> None:
    chief, other = refused
    assert chief["instability"] == other["instability"]
    assert (chief["wrote"] != [], other["wrote"]) == (True, [])
    alone = workers_program.instability(strategies.make("none"), tmp_path)
    np.testing.assert_allclose(chief["instability"]["errors"], alone["errors"], rtol=1e-5)
    # The end of the line at alpha 0 is the last training, which the model holds.
    assert alone["errors"][0] == pytest.approx(alone["held"], rel=1e-6)
    assert len(set(alone["errors"])) == 4


def test_workers_run_xla_accumulation_and_clipping_at_once(refused: list[Any]) -> None:
    chief, other = (row["combined"] for row in refused)
    assert chief == other
    assert chief["masked"] == 0
    alone = workers_program.combined(strategies.make("none"))
    for path, value in alone["weights"].items():
        np.testing.assert_allclose(chief["weights"][path], value, rtol=1e-4, atol=1e-6)
