"""A run in an object store, under a strategy of one device and on two hosts makes what it makes in a folder."""

from __future__ import annotations

import csv
import io
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from keras_lth import files
from keras_lth.configs.lenet_300_100_digits import get_config
from keras_lth.experiments import config as configs
from keras_lth.experiments.instability import instability
from keras_lth.experiments.lottery import lottery
from keras_lth.experiments.tables import write_tables
from keras_lth.plans import Notebook, run
from keras_lth.plans import rows as rows_of
from keras_lth.store import Store
from tests.files.memory import MemoryStore
from tests.plans import nets

quiet: Any = {"say": lambda text: None}


def experiment(book: Notebook) -> None:
    lottery(nets.lab(book), replace(nets.HOW, rounds=1), arms=("imp", "random_global"), every=6)
    instability(nets.lab(book), replace(nets.HOW, rounds=1), forks=(6,), runs=2)


def bits(store: Store) -> dict[str, Any]:
    return {n: {k: a.tobytes() for k, a in store.get(n).arrays.items()} for n in store.names()}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("local"))
    run(experiment, store, **quiet)
    return store


def test_an_object_store(local: Store, memory: MemoryStore) -> None:
    run(experiment, "mem://bucket/run", **quiet)
    store = Store("mem://bucket/run")
    assert bits(store) == bits(local) and not store.under_way()
    rows = rows_of(experiment, store.folder).rows
    counts = write_tables(rows, files.join(store.folder, "rows"))
    assert counts == {"results.csv": 3, "curves.csv": 6, "layers.csv": 6, "instability.csv": 4}
    text = files.read_bytes(files.join(store.folder, "rows", "results.csv")).decode()
    found = [row["accuracy"] for row in rows if row["table"] == "results"]
    assert [float(row["accuracy"]) for row in csv.DictReader(io.StringIO(text))] == found


def test_one_device_as_a_strategy(local: Store, tmp_path: Path) -> None:
    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        run(experiment, store := Store(tmp_path / "s"), **quiet)
    assert bits(store) == bits(local)


CHANGES = {"steps": 24, "levels": 1, "arms": ("imp",), "jit_compile": False, "plan": "lottery,instability"}
FORKS = {"forks": ("0 steps",), "runs": 2}
FLAGS = (
    "--config=lenet_300_100_digits", "--workdir=run", *(f"--config.{key}={value}" for key, value in CHANGES.items()),
    *(f"--config.instability.{key}={value}" for key, value in FORKS.items()),
)  # fmt: skip


def start(folder: Path, *flags: str) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "keras_lth.bin.run", *FLAGS, *flags], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def on_one(folder: Path) -> None:
    """What the program does on one host, in this process."""
    config = configs.completed({**get_config().to_dict(), **CHANGES, "instability": FORKS})
    configs.check(config)
    plans = configs.plans_of(config, 1440)
    run(plans, folder / "run", **quiet)
    write_tables(rows_of(plans, folder / "run").rows, str(folder / "run" / "rows"))


def tables(folder: Path) -> dict[str, list[dict[str, str]]]:
    return {p.stem: list(csv.DictReader(p.read_text().splitlines())) for p in (folder / "run" / "rows").glob("*.csv")}


def test_two_hosts_and_the_program(tmp_path: Path) -> None:
    """The program on two hosts, of which only the first sees the store, as on one."""
    held = [socket.create_server(("localhost", 0)) for _ in range(2)]
    cluster = ",".join(f"localhost:{one.getsockname()[1]}" for one in held)
    for one in held:
        one.close()
    together = ["--strategy=multiworker", f"--cluster={cluster}", "--timeout=120"]
    processes = [start(tmp_path / f"host{index}", *together, f"--task={index}") for index in range(2)]
    try:
        on_one(tmp_path / "alone")
        said = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], said[0][1][-2000:] + said[1][1][-2000:]
    assert "results.csv" in said[0][0] and said[1][0] == "" and not list((tmp_path / "host1").iterdir())
    mine, alone = tables(tmp_path / "host0"), tables(tmp_path / "alone")
    assert mine.keys() == alone.keys() == {"results", "curves", "layers", "instability"}
    for name, rows in mine.items():
        for one, other in zip(rows, alone[name], strict=True):
            exact = ("plan", "arm", "level", "remaining", "path", "network", "fork", "step")
            assert {key: one[key] for key in exact if key in one} == {key: other[key] for key in exact if key in other}
            for key in {"accuracy", "train_accuracy", "barrier"} & one.keys():
                assert float(one[key]) == pytest.approx(float(other[key]), abs=0.02), (name, key)
