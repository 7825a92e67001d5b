"""A run in an object store, and one under a strategy, find what a run in a local folder finds."""

from __future__ import annotations

import csv
import importlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from keras_lth import files, report
from keras_lth.experiments import run
from keras_lth.files import stores
from tests.files.memory import MemoryStore

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
    page = report.write(BUCKET)
    assert str(page) == f"{BUCKET}/report/index.html"
    names = {path.removeprefix(f"{BUCKET}/") for path in store.objects}
    assert {"config.json", "results.csv", "instability.json", "report/accuracy.png", "report/index.html"} <= names
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
