"""A run in an object store, one under a strategy, and one on two workers find what a run in a local folder finds."""

from __future__ import annotations

import csv
import importlib
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from keras_lth import files
from keras_lth.experiments import run
from keras_lth.files import stores
from tests.files.memory import MemoryStore
from tests.training.test_workers import addresses
from tests.two_devices import ROOT

BUCKET = "memory://bucket/runs/lottery"


def config(**changes: Any) -> dict[str, Any]:
    found = importlib.import_module("configs.demo").get_config().to_dict()
    small = {"levels": 2, "replicates": 1, "steps": 48, "arms": ("imp", "random_global"), "rewind_to": "0 steps"}
    instability = {"forks": ("24 steps",), "runs": 2}
    return {**found, **small, "jit_compile": False, "instability": instability, "checkpoint_every": 0.0, **changes}


def table(folder: Any) -> list[dict[str, str]]:
    rows = list(csv.DictReader(io.StringIO(files.read_bytes(files.join(folder, "results.csv")).decode())))
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def lines(folder: Path) -> dict[tuple[Any, ...], Any]:
    """Errors along the lines of the instability analysis."""
    rows = json.loads((folder / "instability.json").read_text())
    return {(row["network"], row["data"], *row["pair"]): pytest.approx(row["errors"], abs=1e-6) for row in rows}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(run.run(config(), tmp_path_factory.mktemp("local")))


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    memory = MemoryStore()
    stores.register("memory", memory)
    yield memory
    stores.register("memory", None)


def test_an_object_store(local: Path, store: MemoryStore) -> None:
    run.run(config(), BUCKET)
    assert table(BUCKET) == table(local)
    assert len(table(BUCKET)) == 5
    names = {path.removeprefix(f"{BUCKET}/") for path in store.objects}
    assert {"config.json", "results.csv", "instability.json"} <= names
    assert not [name for name in names if "checkpoints" in name]
    before = {path: data for path, data in store.objects.items() if "replicate_" in path}
    run.run(config(), BUCKET)  # finished: nothing is trained again
    assert {path: data for path, data in store.objects.items() if "replicate_" in path} == before
    with pytest.raises(ValueError, match="another config \\(steps: 48 there, 72 here\\)"):
        run.run(config(steps=72), BUCKET)


def test_one_device_as_a_strategy(local: Path, tmp_path: Path) -> None:
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    run.run(config(), tmp_path, strategy=strategy)
    assert table(tmp_path) == table(local)
    assert {which: one.expected for which, one in lines(local).items()} == lines(tmp_path)
    with pytest.raises(ValueError, match="train on one device each; a strategy gives one training several"):
        run.run(config(), tmp_path, workers=2, strategy=strategy)


def test_two_workers(local: Path, tmp_path: Path) -> None:
    cluster = ",".join(addresses())
    changes = {
        "levels": 2, "replicates": 1, "steps": 48, "arms": '("imp", "random_global")', "rewind_to": "0 steps",
        "jit_compile": False, "instability.forks": '("24 steps",)', "instability.runs": 2,
    }  # fmt: skip
    command = [
        sys.executable, "-m", "keras_lth.bin.lottery", f"--config={ROOT / 'configs' / 'demo.py'}",
        f"--workdir={tmp_path}", "--strategy=multiworker", f"--cluster={cluster}", "--timeout=120",
        *(f"--config.{name}={value}" for name, value in changes.items()),
    ]  # fmt: skip
    workers = [
        subprocess.Popen(
            [*command, f"--task={index}"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for index in range(2)
    ]
    try:
        said = [worker.communicate(timeout=300)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], said[0][-2000:] + said[1][-2000:]
    assert "Done in" in said[0]
    assert "Done in" not in said[1]
    counts = [(row["arm"], row["level"], row["remaining"], row["steps"]) for row in table(tmp_path)]
    assert counts == [(row["arm"], row["level"], row["remaining"], row["steps"]) for row in table(local)]
    for one, other in zip(table(tmp_path), table(local), strict=True):
        assert float(one["accuracy"]) == pytest.approx(float(other["accuracy"]), abs=0.01)
    assert lines(tmp_path).keys() == lines(local).keys()
