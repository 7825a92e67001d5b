"""zero_is_zero and replicas_agree under MirroredStrategy with two virtual CPU devices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import forms
from tests.two_devices import result_of

PROGRAM = Path(__file__).with_name("mirrored_program.py")
# As in the program. In every run a rule with one slot and with two, which are those of the settings.
LONG = [
    *("sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop", "lion", "nadam", "adagrad"),
    *("global_clipnorm", "ema", "loss_scale"),
]
SHORT = ("global_clipnorm", "ema", "loss_scale")


def names(*without: str) -> list[Any]:
    return forms.short_if(lambda name: name in SHORT, [name for name in LONG if name not in without])


def result(short: bool = True) -> dict[str, Any]:
    return result_of(PROGRAM, *[name for name in LONG if (name in SHORT) == short])


@pytest.mark.parametrize("name", names())
def test_pruned_weights_are_zero_on_both_replicas_which_agree(name: str) -> None:
    row = result(name in SHORT)["optimizers"][name]
    assert row["wrong"] == 0
    assert row["agree"]


@pytest.mark.parametrize("name", names("global_clipnorm"))
def test_two_replicas_train_as_one(name: str) -> None:
    # Clipping is left out: Keras clips on each replica before it sums the gradients, so there two differ from one.
    assert result(name in SHORT)["optimizers"][name]["distance"] < 1e-4


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


def test_dense_gradients_are_those_of_one_device() -> None:
    assert result()["gradients"] < 1e-6
