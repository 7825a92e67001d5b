"""What plain ``fit`` cannot run on replicas: XLA, many steps in a call, gradient accumulation, common clipping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import forms
from tests.two_devices import result_of

# Rule, settings, steps of an accumulation, XLA. In every run each value of each; with XLA each rule and count.
SHORT = (
    *("adam/plain/1/False", "momentum/clipvalue/1/True"),
    *("adam/global_clipnorm+ema/2/True", "momentum/clipnorm+weight_decay/3/True"),
)
LONG = [
    *SHORT[1:],
    *[f"{rule}/plain/{steps}/{jit}" for rule in ("momentum", "adam") for steps in (1, 2, 3) for jit in (False, True)],
    *("momentum/global_clipnorm/1/True", "adam/global_clipnorm/2/False", "momentum/clipnorm/3/True"),
    *("momentum/clipvalue/1/False", "adam/weight_decay/2/True", "adam/ema/1/True", "momentum/ema/3/False"),
]
NAMES = forms.short_if(lambda name: name in SHORT, LONG)
# With XLA or without: what goes on after it was struck.
RESUMED = forms.short_if(lambda jit: jit == "False", ["False", "True"])


def result(short: bool = True) -> dict[str, Any]:
    cells = [name for name in LONG if (name in SHORT) == short]
    # What is resumed runs without XLA in the short form, with it in the long one.
    return result_of(Path(__file__).with_name("replicated_program.py"), str(not short), *cells)


def cell(name: str) -> dict[str, Any]:
    return result(name in SHORT)["cells"][name]


def test_every_value_is_in_the_short_form() -> None:
    assert set(SHORT) < set(LONG)
    for place in range(4):
        short, long = ({v for name in n for v in name.split("/")[place].split("+")} for n in (SHORT, LONG))
        assert short == long


@pytest.mark.parametrize("name", NAMES)
def test_zero_is_zero_on_every_replica_after_every_call(name: str) -> None:
    assert cell(name)["wrong"] == 0
    assert cell(name)["final"] == 0


@pytest.mark.parametrize("name", NAMES)
def test_replicas_agree_bit_by_bit(name: str) -> None:
    assert cell(name)["compared"] >= 4 * 6
    assert cell(name)["differ"] == 0


@pytest.mark.parametrize("name", NAMES)
def test_two_replicas_are_one_device_without_the_pruned_weights(name: str) -> None:
    row = cell(name)
    assert row["step"] == 12
    assert row["moved"] > 1e-2, "the network did not train"
    assert row["distance"] < 1e-5


@pytest.mark.parametrize("jit", RESUMED)
def test_struck_inside_an_accumulation_and_gone_on_with(jit: str) -> None:
    row = result(jit == "False")["resumed"][jit]
    assert row["struck"]
    assert row["differences"] == []
    assert row["losses"][0] == row["losses"][1]


@pytest.mark.parametrize("jit", RESUMED)
def test_the_bits_depend_on_no_call_size(jit: str) -> None:
    assert result(jit == "False")["resumed"][jit]["by_call_size"] == []


def test_a_mask_that_differs_on_one_replica_is_named() -> None:
    assert result()["hand"] == ["", "the replicas hold different masks of dense_1/kernel"]
