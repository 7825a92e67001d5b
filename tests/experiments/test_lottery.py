from __future__ import annotations

import csv
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_lth import experiments
from keras_lth.callbacks.journal import Journal
from keras_lth.experiments import run
from keras_lth.experiments.lottery import ablated, seed_of

ROOT = Path(__file__).parents[2]
SMALL = {"levels": 2, "replicates": 2, "steps": 48, "arms": run.ARMS, "rewind_to": "0 steps", "jit_compile": False}


def config(**changes: Any) -> dict[str, Any]:
    found = importlib.import_module("configs.demo").get_config().to_dict()
    found["instability"] = {"forks": ("24 steps",), "runs": 2}
    return {**found, **SMALL, **changes}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lottery")
    return Path(run.run(config(), folder))


def test_every_arm_has_every_level(finished: Path) -> None:
    found = rows(finished / "results.csv")
    assert len(found) == 2 * (3 + 3 * 2)
    # 64·300 + 300·100 + 100·10 weights on the digits, a fifth less each level.
    assert {row["remaining"] for row in found if row["level"] == "2"} == {"32128"}
    assert {row["steps"] for row in found} == {"48"}
    assert {row["arm"] for row in found if row["level"] == "0"} == {"imp"}
    assert all(0.3 < float(row["accuracy"]) <= 1 for row in found if row["arm"] == "imp")
    curves = rows(finished / "curves.csv")
    assert len(curves) == 2 * len(found)
    assert {row["step"] for row in curves} == {"24", "48"}


def test_the_arms_are_what_they_say(finished: Path) -> None:
    layers = {(r["replicate"], r["level"], r["path"]): int(r["remaining"]) for r in rows(finished / "layers.csv")}
    masks = Journal(finished / "replicate_1" / "imp").ticket(2).masks
    assert {path: layers["1", "2", path] for path in masks} == {p: int(m.sum()) for p, m in masks.items()}
    layerwise, overall = ablated(masks, "random_layerwise", 5), ablated(masks, "random_global", 5)
    assert [int(m.sum()) for m in layerwise.values()] == [int(m.sum()) for m in masks.values()]
    assert overall.remaining == masks.remaining != masks.size
    assert [int(m.sum()) for m in overall.values()] != [int(m.sum()) for m in masks.values()]
    # Uniform over the network: each layer at about the same density (4 standard deviations of a binomial).
    for mask in overall.values():
        assert abs(mask.mean() - masks.density) < 4 * np.sqrt(masks.density * (1 - masks.density) / mask.size)
    assert ablated(masks, "reinit", 5) == masks


def test_replicates_and_arms_have_noise_of_their_own(finished: Path) -> None:
    first = [Journal(finished / f"replicate_{r}" / "imp").ticket(1) for r in range(2)]
    assert first[0].masks != first[1].masks
    assert not first[0].snapshot.same_bits(first[1].snapshot)
    seeds = {seed_of(config(), *what) for what in [("init", 0), ("init", 1), ("order", 0), ("reinit", "init", 0, 1)]}
    assert len(seeds) == 4


def test_instability_of_both_networks(finished: Path) -> None:
    found = json.loads((finished / "instability.json").read_text())
    assert [(r["network"], r["fork_step"], r["data"]) for r in found] == [
        (network, 24, data) for network in ("dense", "ticket") for data in ("test", "train")
    ]
    for row in found:
        assert len(row["errors"]) == len(row["alphas"]) == 30
        ends = (row["errors"][0] + row["errors"][-1]) / 2
        assert row["barrier"] == pytest.approx(max(row["errors"]) - ends)


def test_the_same_command_runs_nothing_again(finished: Path) -> None:
    kinds = ("level_*.ticket", "level_*.json", "instability/*.json")
    trainings = [path for kind in kinds for path in finished.rglob(kind)]
    before = {path: path.stat().st_mtime_ns for path in trainings}
    assert len(before) == 2 * (3 + 3 * 2) + 2
    run.run(config(), finished)
    for path, time in before.items():
        assert path.stat().st_mtime_ns == time


def test_two_workers_find_the_same_bits(finished: Path, tmp_path: Path) -> None:
    run.run(config(replicates=1, instability={"forks": (), "runs": 2}), tmp_path, workers=2)
    for level in range(3):
        name = Path("replicate_0", "imp", "tickets", f"level_{level:02d}.ticket")
        first, second = (Journal(folder / "replicate_0" / "imp").ticket(level) for folder in (finished, tmp_path))
        assert first.masks == second.masks, name
        assert first.snapshot.same_bits(second.snapshot)


def test_another_config_is_refused(finished: Path) -> None:
    with pytest.raises(ValueError, match=r"another config \(steps: 48 there, 96 here\)"):
        run.run(config(steps=96), finished)
    with pytest.raises(ValueError, match="arms are some of imp, reinit"):
        run.run(config(arms=("reinit",)), finished)


@pytest.mark.parametrize("name", ["demo", "lenet_300_100_digits", "lenet_300_100_fashion_mnist", "lenet_300_100_mnist"])
def test_configs_are_the_thesis(name: str) -> None:
    module = importlib.import_module(f"configs.{name}")
    found = module.get_config()
    assert module.__doc__ and "ccuracy" in module.__doc__
    assert (found.batch_size, found.optimizer.name, found.optimizer.learning_rate) == (60, "adam", 1.2e-3)
    assert found.fraction == 0.2
    if name != "demo":
        assert (found.steps, found.levels) == (24_000, 15)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "keras_lth.bin.lottery", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment,
    )


def test_the_binary(tmp_path: Path) -> None:
    overrides = [f"--config.{key}={value}" for key, value in {"levels": 1, "steps": 72, "replicates": 1}.items()]
    done = command("--config=configs/demo.py", f"--workdir={tmp_path}", "--config.arms=('imp',)", *overrides)
    assert done.returncode == 0, done.stderr
    assert "IMP round 1: 50,200 ⇒ 40,160 of 50,200 weights" in done.stdout
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["levels"], config["steps"], config["arms"]) == (1, 72, ["imp"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=configs/demo.py", "--config.leevls=3", "--workdir=x"], r"^--config:.*leevls.*Did you mean .levels"),
        (["--config=configs/demo.py", "--config.roundz=3", "--workdir=x"], r"^--config: .roundz. is no key of this"),
        (["--config=configs/demo.py"], "workdir"),
        (["--config=configs/none.py", "--workdir=x"], "none.py"),
        (["--config=configs/demo.py", "--workdir=x", "extra"], "extra"),
    ],
)
def test_wrong_commands(arguments: list[str], message: str) -> None:
    done = command(*arguments)
    assert done.returncode != 0
    assert re.search(message, done.stderr + done.stdout, re.M), done.stderr[-500:]
    assert "Traceback" not in done.stderr


def test_experiments_import() -> None:
    assert experiments.__doc__
