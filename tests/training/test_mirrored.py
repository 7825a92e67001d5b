"""The loop on two replicas, with the same global batch as on one device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.two_devices import result_of


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return result_of(Path(__file__).with_name("mirrored_program.py"))


def test_the_masks_are_those_of_one_device(result: dict[str, Any]) -> None:
    assert result["masks"] == [True, True, True]
    assert result["steps"] == [16, 13, 13]


def test_the_weights_are_those_of_one_device_to_rounding(result: dict[str, Any]) -> None:
    assert result["distance"] < 1e-5
    assert result["scores"][0] == pytest.approx(result["scores"][1], rel=1e-4)


def test_replicas_agree(result: dict[str, Any]) -> None:
    assert result["agree"]


def test_a_finished_run_is_found(result: dict[str, Any]) -> None:
    assert result["resumed"] == []


def test_a_batch_that_replicas_cannot_share(result: dict[str, Any]) -> None:
    assert "2 replicas cannot share a batch of 15 examples equally" in result["uneven"]
