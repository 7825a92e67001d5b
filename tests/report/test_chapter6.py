"""The findings of section 6.2.2: each holds in rows made so, and flips when what it compares is changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from keras_lth.report import figures_chapter6
from keras_lth.report.chapter6 import FINDINGS
from keras_lth.report.findings import DOES_NOT, HOLDS, UNKNOWN, decided
from tests.report.rows import Row, results

DENSITIES = (0.05, 0.1, 0.2)
# Points that an arm loses to the dense network.
LOSS = {
    "dense": 0.0, "imp": 0.0, "dynamic": 0.05, "static": 2.0, "rigl": 1.0, "first_magnitude": 0.2, "first_random": 0.6,
    "grow_gradient": 3.0, "grow_random": 3.0, "overlap_50": 1.0, "overlap_80": 1.5, "fresh": 0.0, "recipe": 0.1,
}  # fmt: skip


def world(loss: Mapping[str, float] | None = None, new: float = 0.8) -> list[Row]:
    rows: list[Row] = []
    for replicate in range(3):
        for density in DENSITIES:
            of: dict[str, Any] = {"replicate": replicate, "wanted": density}
            for arm, lost in {**LOSS, **(loss or {})}.items():
                accuracy = 0.9 - lost / 100 + 0.0005 * (replicate - 1)
                own = 1.0 if arm == "dense" else density
                rows.append({"table": "dynamic", "arm": arm, **of, "density": own, "accuracy": accuracy})
            rows.append({"table": "phases", "arm": "dynamic", **of, "change": 1, "density": new * density})
    return rows


def verdicts(rows: list[Row]) -> dict[str, str]:
    frame = decided(results(rows), FINDINGS)
    return dict(zip(frame["id"], frame["verdict"], strict=True))


FLIPS: dict[str, dict[str, Any]] = {
    "6-01": {"loss": {"dynamic": 1.0}},
    "6-02a": {"new": 0.3},
    "6-02b": {"loss": {"overlap_50": 0.05}},
    "6-03": {"loss": {"fresh": 1.0}},
    "6-04": {"loss": {"first_magnitude": 1.0}},
    "6-05": {"loss": {"grow_random": 1.0}},
    "6-06": {"loss": {"recipe": 1.0}},
}


def test_all_hold_where_all_is_as_the_thesis_says() -> None:
    found = verdicts(world())
    assert {*found} == {*FLIPS} and {*found.values()} == {HOLDS}, found


@pytest.mark.parametrize("number", FLIPS)
def test_a_finding_can_fail(number: str) -> None:
    assert verdicts(world(**FLIPS[number]))[number] == DOES_NOT


def test_missing_rows_decide_nothing() -> None:
    found = verdicts([row for row in world() if row["table"] == "phases"])
    assert {key for key, verdict in found.items() if verdict != UNKNOWN} == {"6-02a"}


def test_the_figure_has_all_arms() -> None:
    made = figures_chapter6.dynamic(results(world()))
    assert made is not None
    names = [{line.get_label() for line in axes.get_lines()} for axes in made.grid[:, 0]]
    assert {"dynamic IMP", "IMP", "RigL", "static masks"} <= names[0] and len(names[1] & {"first mask random"}) == 1
    assert figures_chapter6.dynamic(results([])) is None
