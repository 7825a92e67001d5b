"""Where the tasks of an experiment run, with Ray on this machine."""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from keras_lth.callbacks.journal import Journal
from keras_lth.experiments import run, runners
from keras_lth.experiments.runners import LocalRunner, RayRunner
from tests.experiments.ray_tasks import doing, then

BOTH = [LocalRunner(), LocalRunner(2), RayRunner(2)]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One for all tests here: a runner uses the cluster that its process is connected to."""
    before = os.environ.get("RAY_USAGE_STATS_ENABLED")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, configure_logging=False)
    yield
    ray.shutdown()
    if before is None:
        del os.environ["RAY_USAGE_STATS_ENABLED"]


def pids(folder: Path, name: str) -> list[int]:
    return [int(line) for line in (folder / f"{name}.log").read_text().splitlines()]


@pytest.mark.parametrize("runner", BOTH, ids=repr)
def test_tasks_run_once_and_make_others_ready(runner: Any, tmp_path: Path) -> None:
    runner.run(doing(tmp_path), [("makes_ready", ()), ("alone", (1,))], then)
    found = {path.stem: pids(tmp_path, path.stem) for path in tmp_path.iterdir()}
    assert {name: len(by) for name, by in found.items()} == {"makes_ready": 1, "alone": 1, "after": 2}
    here = {by == os.getpid() for ids in found.values() for by in ids}
    assert here == {runner == LocalRunner()}


@pytest.mark.parametrize("runner", BOTH[1:], ids=repr)
def test_two_run_at_once(runner: Any, tmp_path: Path) -> None:
    runner.run(doing(tmp_path), [("meets", (1,)), ("meets", (2,))], then)
    assert len(set(pids(tmp_path, "meets"))) == 2


@pytest.mark.parametrize(("runner", "wanted"), [(RayRunner(1), "2 2"), (RayRunner(2), "1 1"), (RayRunner(8), "1 1")])
def test_the_processors_are_shared(runner: Any, wanted: str, tmp_path: Path) -> None:
    runner.run(doing(tmp_path), [("tells", ())], then)
    assert (tmp_path / "threads.log").read_text() == wanted


def test_a_ray_task_has_a_process_of_its_own(tmp_path: Path) -> None:
    RayRunner(1).run(doing(tmp_path), [("alone", (i,)) for i in range(3)], then)
    assert len(set(pids(tmp_path, "alone"))) == 3


def test_what_dies_is_run_again_and_what_dies_too_often_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RayRunner(2, max_retries=2).run(doing(tmp_path), [("dies", (2,))], then)
    assert len(set(pids(tmp_path, "dies"))) == 3
    assert capsys.readouterr().out.count("dies(2) died (WorkerCrashedError") == 2
    (tmp_path / "dies.log").unlink()
    with pytest.raises(RuntimeError, match=r"^dies\(9\) died 2 times, the last time with WorkerCrashedError"):
        RayRunner(2, max_retries=1).run(doing(tmp_path), [("dies", (9,))], then)
    assert len(pids(tmp_path, "dies")) == 2
    with pytest.raises(RuntimeError, match=r"worker was killed .* while these ran: dies\(9\)"):
        LocalRunner(2).run(doing(tmp_path), [("dies", (9,))], then)


def test_what_fails_is_not_run_again(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^fails\(x\) failed: KeyError: 'no such weight'"):
        RayRunner(2).run(doing(tmp_path), [("fails", ("x",))], then)
    assert len(pids(tmp_path, "fails")) == 1
    with pytest.raises(KeyError, match="no such weight"):
        LocalRunner().run(doing(tmp_path), [("fails", ("x",))], then)


def test_without_ray_there_is_advice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RuntimeError, match=r"pip install 'keras_lth\[ray\]'"):
        RayRunner().run(doing(tmp_path), [("alone", ())], then)


def test_an_address_without_a_cluster_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
        with pytest.raises(
            RuntimeError, match=rf"no Ray cluster at {address} \(ConnectionRefusedError.*ray start --head"
        ):
            RayRunner(address=address).run(doing(tmp_path), [("alone", ())], then)


def test_runners_by_name() -> None:
    assert runners.make("local", 3) == LocalRunner(3)
    assert runners.make("ray", 3) == RayRunner(3)
    with pytest.raises(ValueError, match="runner is one of local, ray, not 'slurm'"):
        runners.make("slurm")


def test_a_strategy_and_workers_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"workers=1 \(runner 'ray'\) train on one device each"):
        run.run(config(), tmp_path, runner="ray", strategy=object())


def config() -> dict[str, Any]:
    found = importlib.import_module("configs.demo").get_config().to_dict()
    small = {"levels": 2, "replicates": 2, "steps": 48, "rewind_to": "0 steps", "jit_compile": False}
    return {**found, **small, "arms": ("imp",), "instability": {"forks": (), "runs": 2}}


def test_a_killed_training_goes_on_to_the_result_of_an_undisturbed_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted, got = tmp_path / "wanted", tmp_path / "got"
    run.run(config(), wanted)
    imp = got / "replicate_1" / "imp"
    killed: list[int] = []

    def kill() -> None:
        """The process that holds the folder, once it has finished a level and not all."""
        end = time.monotonic() + 120
        while time.monotonic() < end and not killed:
            time.sleep(0.002)
            if (imp / "tickets" / "level_00.ticket").exists() and not (imp / "tickets" / "level_02.ticket").exists():
                killed.append(json.loads((imp / ".lock").read_text())["pid"])
                os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    # Now it starts a cluster of its own, and ends it.
    ray.shutdown()
    run.run(config(), got, workers=2, runner="ray")
    assert not ray.is_initialized()
    thread.join()
    assert killed and killed[0] != os.getpid()
    assert "imp(1) died (WorkerCrashedError" in capsys.readouterr().out
    for replicate in range(2):
        for level in range(3):
            first, second = (
                Journal(folder / f"replicate_{replicate}" / "imp").ticket(level) for folder in (wanted, got)
            )
            assert first.masks == second.masks
            assert first.snapshot.same_bits(second.snapshot)
    tables = [
        [line.split(",") for line in (folder / "results.csv").read_text().splitlines()] for folder in (wanted, got)
    ]
    column = tables[0][0].index("seconds")
    assert [row[:column] for row in tables[0]] == [row[:column] for row in tables[1]]
