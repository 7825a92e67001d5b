"""IMP, RigL and instability under MirroredStrategy with two virtual CPU devices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.two_devices import result_of

PROGRAM = Path(__file__).with_name("strategy_program.py")


def result() -> dict[str, Any]:
    return result_of(PROGRAM)


def test_imp_holds_its_masks_on_both_replicas_alike() -> None:
    # Counts, rewound weights and zeros are asserted in the program, with slots of step k and three steps an epoch.
    assert result()["agree"] == [True]


@pytest.mark.proof
def test_imp_with_fresh_slots_holds_its_masks_too() -> None:
    assert result_of(PROGRAM, "fresh")["agree"] == [True]


def test_two_replicas_find_the_ticket_of_one_device() -> None:
    # The program asserts equal masks; replicas add gradients in another order.
    assert 0 <= result()["distance"] < 1e-5


def test_instability_on_replicas() -> None:
    found = result()["instability"]
    assert found["apart"] > 1e-3
    assert found["steps"] == [24, 24]
    # The end of the line at α = 0 is the last training, which the model still holds.
    assert found["error"][0] == pytest.approx(found["error"][1], rel=1e-5)
    assert found["gone"]


def test_equal_orders_are_caught_on_replicas() -> None:
    first, second = result()["instability"]["equal_orders"]
    assert "Trainings 0 and 1 saw the same 12 batches in the same order in the epoch up to step 12" in first
    assert "Trainings 0 and 1 saw the same 12 batches in the same order in the epoch up to step 24" in second


def test_what_keras_cannot_run_is_refused() -> None:
    assert "steps_per_execution=1" in result()["refusal"]


def test_masks_that_move_are_the_same_on_both_replicas() -> None:
    found = result()["rigl"]
    assert found["checked"] >= 4 and found["remaining"] == 36 and found["moved"] > 0
    assert found["same"]
