"""zero_is_zero and replicas_agree under MirroredStrategy with two virtual CPU devices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("mirrored_program.py")
# As in the program.
NAMES = [
    *("sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop", "lion", "nadam", "adagrad"),
    *("global_clipnorm", "ema", "loss_scale"),
]


@cache
def result() -> dict[str, Any]:
    path = os.pathsep.join([str(PROGRAM.parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(PROGRAM)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))[7:])


@pytest.mark.parametrize("name", NAMES)
def test_pruned_weights_are_zero_on_both_replicas_which_agree(name: str) -> None:
    row = result()["optimizers"][name]
    assert row["wrong"] == 0
    assert row["agree"]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("global_clipnorm",)])
def test_two_replicas_train_as_one(name: str) -> None:
    # Clipping is left out: Keras clips on each replica before it sums the gradients, so there two differ from one.
    assert result()["optimizers"][name]["distance"] < 1e-4


def test_cells_that_keras_cannot_run_are_named_errors() -> None:
    jit, executions, accumulation = result()["refusals"]
    assert "jit_compile=False" in jit
    assert "steps_per_execution=1" in executions
    assert "gradient_accumulation_steps=2" in accumulation
    assert all("2 replicas" in message for message in result()["refusals"])


def test_rewinding_on_replicas() -> None:
    row = result()["rewound"]
    assert row["step"] == 4
    assert 0.0099 < row["moved"] < 0.0101
    assert row["differences"] == []


def test_layers_masked_by_hand_on_replicas() -> None:
    assert result()["by_hand"] == 0
