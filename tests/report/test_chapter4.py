"""The findings of chapter 4: each holds in rows made so, and flips when what it compares is changed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from keras_lth.report import figures, figures_chapter4
from keras_lth.report.chapter4 import FINDINGS
from keras_lth.report.findings import DOES_NOT, HOLDS, UNKNOWN, Facts, decided
from keras_lth.report.forks import by_fork, chosen, medians, stable_from
from tests.report import chapter4_rows
from tests.report.chapter4_rows import NEVER
from tests.report.rows import results

SETTINGS = {
    "standard": {"model": "resnet_20", "data": "cifar10"}, "lenet": {"model": "lenet_300_100", "data": "mnist"},
}  # fmt: skip


def verdicts(kind: str = "standard", only: str = "", **how: Any) -> dict[str, str]:
    chosen_ones = [finding for finding in FINDINGS if only in finding.id]
    frame = decided(results(chapter4_rows.world(kind, **how), setting=SETTINGS[kind]), chosen_ones)
    return dict(zip(frame["id"], frame["verdict"], strict=True))


IMP, RANDOM, REINIT = ("imp", 8), ("random_layerwise", 8), ("reinit", 8)
NO_IMP = {("imp", n): (NEVER, NEVER) for n in chapter4_rows.LEVELS}
# What must be different for a finding not to hold.
FLIPS: dict[str, dict[str, Any]] = {
    "4-01": {"kind": "lenet", "steps": {("dense", 0): (500, 0)}, "high": 0.05},
    "4-02": {"high": 0.5},
    "4-03": {"steps": {("dense", 0): (NEVER, 0)}},
    "4-04": {"train_gap": 0.1},
    "4-06": {"longer": 0.3},
    "4-07": {"fall": 1.0},
    "4-08": {"inside": 0.1},
    "4-09": {"slope": -1.0},
    "4-10": {"slope": -1.0},
    "4-11": {"tilt": 200},
    "4-12": {"tilt": 200},
    "4-13": {"steps": NO_IMP},
    "4-14": {"steps": {IMP: (0, 0)}},
    "4-15": {"baseline": 0.05},
    "4-16": {"steps": {IMP: (0, 500)}},
    "4-17": {"steps": {REINIT: (500, 500)}},
    "4-19": {"steps": {IMP: (NEVER, 500)}},
    "4-20": {"steps": {("dense", 0): (250, 0)}},
    "4-22": {"steps": {IMP: (2000, 250)}},
    "4-23": {"trained": 0.97},
    "4-24": {"train_gap": 0.1},
    "4-25": {"inside": 0.1},
    "4-27": {"apart": {"l2": 8.0, "different": 1100}},
    "4-28": {"apart": {"l2": 8.0, "different": 1100}},
    "4-29": {"apart": {"l2": 8.0, "different": 1100}},
    "4-30": {"apart": {"l2": 8.0, "different": 1100}},
    "4-31": {"apart": {"l2": 8.0, "different": 1100}},
    "4-32": {"steps": {("imp", 1): (250, 0)}},
    "4-33": {"steps": {("random_layerwise", 1): (NEVER, NEVER)}},
    "4-34": {"steps": {("random_layerwise", n): (NEVER, 0) for n in (3, 8)}},
    "4-35": {"steps": {("imp", 3): (2000, 0), IMP: (2000, 100)}},
    "4-36": {"calm": 0.115},
    "4-37": {"raw": 0.35},
    "4-39": {"raw": 0.35},
    "4-40": {"moved": 3.0},
    "4-42": {"close": 0.2},
    "4-43": {"moved": 4.0},
    "4-44": {"share": 0.9},
}


def test_all_hold_where_all_is_as_the_thesis_says() -> None:
    standard, lenet = verdicts(), verdicts("lenet")
    assert {number for number, said in standard.items() if said == HOLDS} == {*FLIPS} - {"4-01"}, standard
    assert {*FLIPS, "4-18", "4-21"} == {*standard}
    # LeNet is stable and matches from the first step on.
    for number in ("4-01", "4-03", "4-14", "4-16", "4-17", "4-18", "4-20", "4-21"):
        assert lenet[number] == HOLDS, number
    assert lenet["4-02"] == lenet["4-19"] == lenet["4-22"] == UNKNOWN and standard["4-01"] == UNKNOWN


@pytest.mark.parametrize("number", FLIPS)
def test_a_finding_can_fail(number: str) -> None:
    assert verdicts(only=number, **FLIPS[number]) == {number: DOES_NOT}


def test_what_starts_stable_or_matching_can_change() -> None:
    rows = chapter4_rows.world("lenet")
    for row in rows:
        if row["network"] == "imp" and row["fork"] >= 250:
            row |= {"barrier": 0.1} if row["table"] == "instability" else {}
            row |= {"accuracy": 0.8} if row["table"] == "copies" else {}
    frame = decided(results(rows, setting=SETTINGS["lenet"]), FINDINGS).set_index("id")["verdict"]
    assert frame["4-18"] == frame["4-21"] == DOES_NOT


def test_missing_rows_decide_nothing() -> None:
    frame = decided(results([{"table": "results", "arm": "imp", "level": 1}]), FINDINGS)
    assert {*frame["verdict"]} == {UNKNOWN}


def test_nan_is_never_averaged_away() -> None:
    """One pair whose barrier is not known makes the mean unknown, so the network is stable there at no earlier step."""
    rows = chapter4_rows.world()
    for row in rows:
        if row["table"] == "instability" and (row["network"], row["fork"], row["pair"]) == ("imp", 1000, "0-1"):
            row["barrier"] = math.nan
    found = by_fork(Facts(results(rows), "lenet"), "imp", 8)
    assert math.isnan(found[1000]) and stable_from(found) == 2000


def test_medians_and_the_choice_of_density() -> None:
    facts = Facts(results(chapter4_rows.world()), "lenet")
    assert chosen(facts) == 8
    found = medians(facts, "imp")
    assert found["stable"].tolist() == [1000, 500, 500, 1000, math.inf]
    assert found["matching"].tolist() == [0, 500, 500, math.inf, math.inf]
    assert found["density"].tolist() == pytest.approx([0.8**level for level in chapter4_rows.LEVELS])


@pytest.mark.parametrize("name", ["distances", "errors", "throughout", "stable_matching", "density_choice", "state"])
def test_figures(name: str) -> None:
    """Every figure has a mark with its numbers for each point, and none without its rows."""
    draw = getattr(figures_chapter4, name)
    found = draw(results(chapter4_rows.world()))
    assert found is not None and found.svg().count("<title>") >= 5
    assert draw(results([{"table": "results", "arm": "imp", "level": 1}])) is None


def test_lines_of_chapter_4_have_a_name_for_each_level_and_span() -> None:
    found = figures.barrier(results(chapter4_rows.world()))
    assert found is not None
    names = {line.get_label() for line in found.grid[0, 0].get_lines()}
    assert {"IMP, 17 %, test", "dense, test", "dense, T steps, test"} <= {
        *map(str, names)
    } or "IMP, 16.8 %, test" in names
    assert np.isfinite(found.grid[0, 0].get_ylim()).all()
