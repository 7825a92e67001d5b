"""Workers on a Ray cluster, here of this machine: they do what processes do, and one that dies is started again."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray

from keras_lth.plans import run
from keras_lth.plans.on_ray import on_ray
from keras_lth.store import Store
from tests.plans import ray_tasks, toy


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One for all tests here: the cluster that a process is connected to is used."""
    before = os.environ.get("RAY_USAGE_STATS_ENABLED")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, configure_logging=False)
    yield
    ray.shutdown()
    if before is None:
        del os.environ["RAY_USAGE_STATS_ENABLED"]


def lines(log: Path) -> list[list[str]]:
    return [line.split() for line in log.read_text().splitlines()]


@pytest.mark.parametrize(("count", "threads"), [(2, "1"), (1, "2")])
def test_workers_are_processes_and_share_the_processors(count: int, threads: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert on_ray(count, ray_tasks.meet, (log, count)) == ""
    found = lines(log)
    assert len({pid for pid, *_ in found} - {str(os.getpid())}) == count
    assert {tuple(rest) for _, *rest in found} == {(threads, threads)}


def test_what_dies_is_started_again_until_it_died_too_often(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    assert on_ray(1, ray_tasks.die, (log, 2), restarts=2) == ""
    assert len({pid for (pid,) in lines(log)}) == 3
    assert capsys.readouterr().out.count("worker 0 died (WorkerCrashedError") == 2
    log.unlink()
    assert "1 of 1 workers died 2 times, the last with WorkerCrashedError" in on_ray(
        1, ray_tasks.die, (log, 9), restarts=1
    )


def test_what_raises_is_not_started_again(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"KeyError: 'no such weight'"):
        on_ray(1, ray_tasks.fail, (tmp_path / "log",))
    assert len(lines(tmp_path / "log")) == 1


def test_without_ray_there_is_advice(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RuntimeError, match=r"pip install 'keras_lth\[ray\]'"):
        run(toy.imp, store, runner="ray")
    with pytest.raises(ValueError, match=r"local, ray.*'slurm'"):
        run(toy.imp, store, runner="slurm")


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_without_a_cluster_is_named(scheme: str, monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(RuntimeError, match=rf"{address}.*ConnectionRefusedError.*ray start --head"):
        run(toy.imp, store, runner="ray")


def bits(store: Store) -> dict[str, Any]:
    return {n: {k: a.tobytes() for k, a in store.get(n).arrays.items()} for n in store.names()}


def test_a_killed_worker_loses_nothing(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On a cluster of its own, which ends with the run."""
    plan, log, killed = partial(toy.imps, sleep=0.05), tmp_path / "log", list[int]()
    ray.shutdown()
    os.environ["TOY_LOG"] = str(log)  # for the workers of the new cluster

    def kill() -> None:
        end = time.monotonic() + 120
        while not killed and time.monotonic() < end:
            time.sleep(0.01)
            if len(calls := [line for line in toy.counted(log) if line[1] == "train"]) >= 3:
                killed.append(calls[-1][0])
                os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        rows = run(plan, store, workers=2, runner="ray", commit_every=0, say=lambda text: None)
    finally:
        del os.environ["TOY_LOG"]
        thread.join()
    assert not ray.is_initialized() and killed and killed[0] != os.getpid()
    assert "died (WorkerCrashedError" in capsys.readouterr().out
    alone = Store(tmp_path / "alone")
    assert run(plan, alone, say=lambda text: None) == rows and bits(store) == bits(alone) and not store.under_way()
    assert len({line[0] for line in toy.counted(log) if line[1] == "train"}) >= 2
