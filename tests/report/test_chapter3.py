"""The findings of chapter 3: each holds in rows made so, and flips when the arms that it compares are swapped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from keras_lth.report import figures_chapter3
from keras_lth.report.chapter3 import FINDINGS, dilations, stopping
from keras_lth.report.findings import DOES_NOT, HOLDS, UNKNOWN, Facts, Least, decided
from tests.report import chapter3_rows
from tests.report.rows import frames_of, results

LENET: dict[str, Any] = {"model": "lenet_300_100", "data": "mnist"}


def verdicts(setting: dict[str, Any] = LENET, only: str = "", **how: Any) -> dict[str, str]:
    chosen_ones = [finding for finding in FINDINGS if only in finding.id]
    frame = decided(results(chapter3_rows.world(**how), setting=setting), chosen_ones)
    return dict(zip(frame["id"], frame["verdict"], strict=True))


IMP_RANDOM = {"imp": "random_global", "random_global": "imp"}
# What must be different for a finding not to hold.
FLIPS: dict[str, dict[str, Any]] = {
    "3-01": {"swap": IMP_RANDOM},
    "3-02": {"TEST": {"imp": (16, 0.01)}, "gain": 0.0003},
    "3-03": {"swap": {"imp": "reinit", "reinit": "imp"}, "TEST": {"reinit": (2, 0.4)}},
    "3-05": {"swap": {"imp": "imp_one_shot", "imp_one_shot": "imp"}},
    "3-06": {"swap": {"imp": "imp_one_shot", "imp_one_shot": "imp"}},
    "3-07": {"TRAIN": {"imp": (8, 1.0)}},
    "3-08": {"swap": IMP_RANDOM},
    "3-09": {"swap": IMP_RANDOM},
    "3-11": {"swap": IMP_RANDOM},
    "3-12": {"swap": {"imp": "lrr", "lrr": "imp"}},
    "3-13": {"TEST": {"lrr": (10, 1.0)}},
    "3-14": {"swap": {"random_layerwise": "imp"}},
    "3-15": {"swap": {"random_global": "reinit", "reinit": "random_global"}},
    "3-18": {"swap": {"random_layerwise": "reinit", "reinit": "random_layerwise"}},
    "3-19": {"swap": {"reinit": "imp"}},
    "3-20": {"STOPS": {"imp": 500, "dense": 300}},
    "3-21": {"TEST": {"imp": (16, 1.0)}, "STOPS": {"imp": 100}},
    "3-22": {"STOPS": {"reinit": 200}},
    "3-23": {"LEAST": {"imp": 1.0}},
    "3-24": {"LEAST": {"imp": 0.9}},
    "3-25": {"swap": {"random_layerwise": "imp", "imp": "random_layerwise"}},
    "3-26": {"LEAST": {"dense": 1.0}},
    "3-27": {"swap": IMP_RANDOM},
    "3-28": {"by_replicate": 0.1},
    "3-29": {"swap": {"random_global": "imp"}},
    "3-30": {"emptied": "output/kernel"},
    "3-32": {"swap": {"imp": "lrr", "lrr": "imp"}},
    "3-33": {"swap": {"shuffled": "imp"}},
    "3-34": {"swap": {"signs": "reinit"}},
    "3-35": {"border": 5},
}


def test_all_hold_where_all_is_as_the_thesis_says() -> None:
    found = verdicts()
    assert {*found} == {*FLIPS} and {*found.values()} == {HOLDS}, found


@pytest.mark.parametrize("number", FLIPS)
def test_a_finding_can_fail(number: str) -> None:
    assert verdicts(only=number, **FLIPS[number])[number] == DOES_NOT


def test_what_names_lenet_is_about_lenet() -> None:
    """LRR is sparser than IMP on all other networks, and 3-18 is about LeNet alone."""
    assert verdicts({"model": "resnet_20"})["3-12"] == DOES_NOT
    assert verdicts({"model": "resnet_20"}, swap={"imp": "lrr", "lrr": "imp"})["3-12"] == HOLDS
    assert verdicts({"model": "resnet_20"})["3-18"] == UNKNOWN


def test_plans_of_a_run_may_have_settings_of_their_own() -> None:
    found = results(chapter3_rows.world(), setting=LENET)
    apart = replace(found, settings={"lenet, lottery": LENET, "lenet, dilation": {**LENET, "steps": 9}})
    assert decided(apart, FINDINGS).equals(decided(found, FINDINGS))


def test_missing_rows_decide_nothing() -> None:
    """Nothing but curves; one replicate, whose spread is unknown; a run that ends while it matches."""
    rows = [row for row in chapter3_rows.world() if row["table"] == "curves"]
    frame = decided(results(rows), FINDINGS)
    assert {*frame["verdict"]} == {UNKNOWN} and frame["shown"].str.contains("no rows results").any()
    one = decided(results([row for row in chapter3_rows.world() if row["replicate"] == 0]), FINDINGS)
    lone = one.set_index("id").loc[["3-05", "3-08", "3-14", "3-18", "3-28"]]
    assert {*lone["verdict"]} == {UNKNOWN} and lone["shown"].str.contains("one replicate").all()
    early = decided(results([row for row in chapter3_rows.world() if row["level"] <= 10]), FINDINGS).set_index("id")
    assert early.loc["3-01", "verdict"] == UNKNOWN and early.loc["3-02", "verdict"] == UNKNOWN


def test_a_density_that_may_go_on_is_not_the_least() -> None:
    """Trained down to level 10, where IMP and learning-rate rewinding still match, and one-shot pruning does not."""
    rows = [row for row in chapter3_rows.world() if row["level"] <= 10]
    found = decided(results(rows, setting=LENET), FINDINGS).set_index("id")["verdict"]
    assert {key: found[key] for key in ("3-06", "3-07", "3-08", "3-12", "3-13", "3-27")} == {
        "3-06": HOLDS, "3-07": UNKNOWN, "3-08": HOLDS, "3-12": UNKNOWN, "3-13": UNKNOWN, "3-27": UNKNOWN,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("a", "b", "less"),
    [
        (Least(0.1, False), Least(0.2, False), True), (Least(0.2, False), Least(0.1, False), False),
        (Least(0.1, True), Least(0.2, False), True), (Least(0.2, True), Least(0.1, False), None),
        (Least(0.2, False), Least(0.1, True), False), (Least(0.1, False), Least(0.2, True), None),
        (Least(0.1, True), Least(0.1, True), None),
    ],
)  # fmt: skip
def test_comparing_densities_of_which_one_may_go_on(a: Least, b: Least, less: bool | None) -> None:
    assert a.below(b) is less
    assert a.within(b, 2) is (None if a.open or b.open else True)


def test_a_diverged_training_is_left_out() -> None:
    rows = chapter3_rows.world()
    for row in rows:
        if row["table"] == "results" and row["arm"] == "random_global" and row["replicate"] == 1:
            row["accuracy"] = np.nan
    facts = Facts(results(rows), "lenet")
    assert facts.curve("random_global").means[3] == pytest.approx(0.9 - 0.09)


def test_noise_is_that_of_a_difference_of_means() -> None:
    """Replicates at ±0.0005: a deviation of 0.0005, so 2 · 0.0005 · √(2/3)."""
    facts = Facts(results(chapter3_rows.world()), "lenet")
    found = facts.between("imp", "reinit")
    assert found.noise == pytest.approx(0.001 * (2 / 3) ** 0.5)
    # IMP gains 0.2 points up to level 16, reinitialised networks lose 0.4 at each.
    assert found.means[10] == pytest.approx(0.002 + 0.04) and len(found.above) == 20


def test_the_least_loss_and_the_least_dilation() -> None:
    rows = frames_of([row for row in chapter3_rows.world() if row["table"] in ("holdout", "dilation")])
    stops = stopping(rows["holdout"])
    assert {*stops[stops["arm"] == "imp"]["step"]} == {300, 500} and {*stops[stops["arm"] == "lrr"]["step"]} == {700}
    least = dilations(rows["dilation"]).set_index(["arm", "level"])["least"]
    assert least["dense", 0] == 0.9 and least["imp", 11] == 0.5 and least["random_layerwise", 1] == 0.9
    assert np.isinf(least["random_layerwise", 11])


@pytest.mark.parametrize("name", ["one_shot", "retrained", "early_stopping", "dilation", "pixels"])
def test_figures(name: str) -> None:
    """Every figure has a mark with its numbers for each point, and none without its rows."""
    draw = getattr(figures_chapter3, name)
    found = draw(results(chapter3_rows.world()))
    assert found is not None and found.svg().count("<title>") >= (0 if name == "pixels" else 9)
    assert draw(results([row for row in chapter3_rows.world() if row["table"] == "layers"])) is None
