"""What plain ``fit`` cannot run on replicas: XLA, many steps in a call, gradient accumulation, common clipping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.two_devices import result_of

# As in the program: rule, settings, steps of an accumulation, XLA.
NAMES = [
    *[f"{rule}/plain/{steps}/{jit}" for rule in ("momentum", "adam") for steps in (1, 2, 3) for jit in (False, True)],
    *("momentum/global_clipnorm/1/True", "adam/global_clipnorm/2/False", "momentum/clipnorm/3/True"),
    *("momentum/clipvalue/1/False", "adam/weight_decay/2/True", "adam/ema/1/True", "momentum/ema/3/False"),
]


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return result_of(Path(__file__).with_name("replicated_program.py"))


def test_all_cells_are_asked_for(result: dict[str, Any]) -> None:
    assert sorted(result["cells"]) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_zero_is_zero_on_every_replica_after_every_call(result: dict[str, Any], name: str) -> None:
    assert result["cells"][name]["wrong"] == 0
    assert result["cells"][name]["final"] == 0


@pytest.mark.parametrize("name", NAMES)
def test_replicas_agree_bit_by_bit(result: dict[str, Any], name: str) -> None:
    assert result["cells"][name]["compared"] >= 4 * 6
    assert result["cells"][name]["differ"] == 0


@pytest.mark.parametrize("name", NAMES)
def test_two_replicas_are_one_device_without_the_pruned_weights(result: dict[str, Any], name: str) -> None:
    row = result["cells"][name]
    assert row["step"] == 12
    assert row["moved"] > 1e-2, "the network did not train"
    assert row["distance"] < 1e-5


@pytest.mark.parametrize("jit", ["False", "True"])
def test_struck_inside_an_accumulation_and_gone_on_with(result: dict[str, Any], jit: str) -> None:
    row = result["resumed"][jit]
    assert row["struck"]
    assert row["differences"] == []
    assert row["losses"][0] == row["losses"][1]


@pytest.mark.parametrize("jit", ["False", "True"])
def test_the_bits_depend_on_no_call_size(result: dict[str, Any], jit: str) -> None:
    assert result["resumed"][jit]["by_call_size"] == []


def test_a_mask_that_differs_on_one_replica_is_named(result: dict[str, Any]) -> None:
    assert result["hand"] == ["", "the replicas hold different masks of dense_1/kernel"]
