"""Chapter 4's networks, spans, noises and measures, on a small network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_lth.experiments.instability import NETWORKS, Copies, Measures, forked, instability, log_spaced, trained
from keras_lth.experiments.lab import Lab
from keras_lth.experiments.lottery import levels
from keras_lth.plans import Notebook, run
from keras_lth.plans.step import digest
from tests.plans import nets

quiet: Any = {"say": lambda text: None}
ONE = replace(nets.HOW, rounds=1, k=4)


def named(plan: Any) -> Notebook:
    plan(book := Notebook(lambda step: None))
    return book


def plan_of(**how: Any) -> Any:
    return lambda book: instability(nets.lab(book), ONE, forks=(0, 6), **{"places": (1,), **how})


def test_names_of_the_first_rows() -> None:
    """What was computed before these options existed keeps its name."""
    book = named(plan_of(runs=2))
    names = [step.name for row in book.rows for step in row.steps]
    assert len(book.rows) == 2 * 2 * 2 and digest(sorted({*names}))[:16] == "1ebdbe17cf46f92f"


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    measures = Measures(every=4, distances=True, state=True, train_examples=10, points=5)

    def plan(book: Notebook) -> None:
        for forks, networks in (((0, 4), NETWORKS), ((12,), ("dense", "ticket"))):
            instability(
                nets.lab(book), ONE, forks=forks, networks=networks, places=(1,), how=Copies(2), measures=measures
            )  # fmt: skip

    return run(plan, tmp_path_factory.mktemp("forks") / "s", **quiet)


def table(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["table"] == name]


def test_every_network_and_fork(rows: list[dict[str, Any]]) -> None:
    found = table(rows, "instability")
    assert {(row["network"], row["fork"]) for row in found} == {
        *((name, k) for name in NETWORKS for k in (0, 4)), ("dense", 12), ("ticket", 12)
    }  # fmt: skip
    # 64 weights, of which a fifth is cut.
    assert {row["remaining"] for row in found if row["network"] != "dense"} == {51}
    for row in found:
        assert row["barrier"] == max(row["errors"]) - (row["errors"][0] / 2 + row["errors"][-1] / 2)
        assert 0 <= row["different"] <= row["most"] <= (22 if row["data"] == "test" else 10)
        assert len(row["alphas"]) == 5


def test_a_fork_at_the_end_is_one_network(rows: list[dict[str, Any]]) -> None:
    """k = T: no step is left for the noise, so everything between the copies is exactly 0."""
    for row in table(rows, "instability"):
        if row["fork"] == 12:
            assert row["barrier"] == row["l2"] == row["cosine"] == row["different"] == row["loss_l2"] == 0
    state = [row for row in table(rows, "state") if row["fork"] == 12 and row["network"] == "dense"]
    assert [row["k_to_end"] for row in state] == [0] and state[0]["init_to_k"] == state[0]["init_to_end"] > 0


def test_throughout_the_training(rows: list[dict[str, Any]]) -> None:
    """T = 12 by 4: steps 4 and 8 from a fork at 0, 8 from one at 4, none from the end."""
    found = {(row["fork"], row["at"]) for row in table(rows, "throughout") if row["network"] == "imp"}
    assert found == {(0, 4), (0, 8), (4, 8)}


def test_the_state_and_the_copies(rows: list[dict[str, Any]]) -> None:
    (state,) = [row for row in table(rows, "state") if (row["network"], row["fork"]) == ("imp", 4)]
    assert state["share_between_ends"] == pytest.approx(state["between_ends"] / state["init_to_end"])
    assert {"accuracy", "train_accuracy", "remaining"} <= {*state}
    ends = [row for row in table(rows, "copies") if (row["network"], row["fork"]) == ("imp", 4)]
    assert [row["copy"] for row in ends] == [0, 1]
    (line,) = [
        row for row in table(rows, "instability")
        if (row["network"], row["fork"], row["data"]) == ("imp", 4, "test")
    ]  # fmt: skip
    # The line's ends are the copies: α = 1 is the first.
    assert [1 - row["accuracy"] for row in ends] == pytest.approx([line["errors"][-1], line["errors"][0]], abs=1e-6)


def given(lab: Lab, name: str, fork: int = 4) -> Any:
    found = levels(lab, ONE, lab.init(0))
    return forked(lab, ONE, found, name, 1, fork, 1, 0)


def test_what_the_copies_start_from() -> None:
    def plan(book: Notebook) -> None:
        lab = nets.lab(book)
        made = {name: given(lab, name) for name in NETWORKS}
        assert made["imp"].state.params["step"] == made["reinit"].state.params["step"] == 4
        assert made["imp"].masks == made["reinit"].masks != made["random_layerwise"].masks
        assert made["reinit"].state.params["values"] == "fresh"
        # IMP rewinds to the fork itself; the ticket keeps the rewinding step of the setting.
        assert given(lab, "imp", 6).state.params["step"] == 6 and given(lab, "ticket", 6).state.point.step == 6
        whole = trained(lab, made["dense"], Copies(2, span="restart"), 1)
        assert [line.begin for line in whole] == [0, 0] and whole[0].at(12) != whole[1].at(12)
        slow = trained(lab, made["dense"], Copies(2, setting={"rates": 0.001}), 1)
        assert slow[0].begin == 4 and slow[0].rates == ((0, 0.001),)
        with pytest.raises(ValueError, match=r"step 13.*T=12"):
            given(lab, "dense", 13)

    named(plan)


def test_noises() -> None:
    both, order, augment = (Copies(2, noise=noise).noises(5) for noise in ("both", "order", "augment"))
    assert both[0] == (5, 5, 0) and both[1].order == both[1].augment != 5 and both[1].dropout == 1
    assert [noise.augment for noise in order] == [5, 5] and order[0].order != order[1].order
    assert [noise.order for noise in augment] == [5, 5] and augment[0].augment != augment[1].augment
    assert [noise.order for noise in Copies(2, seeds=(8, 9)).noises(5)] == [8, 9]
    with pytest.raises(ValueError, match=r"8 twice.*own seed"):
        Copies(2, seeds=(8, 8))


def test_order_and_augmentation_are_separate(tmp_path: Path) -> None:
    """Without augmentation its seed changes nothing; the order alone does."""

    def plan(book: Notebook) -> None:
        for noise in ("order", "augment"):
            instability(
                nets.lab(book), replace(ONE, rounds=0), forks=(0,), networks=("dense",), how=Copies(2, noise=noise),
                measures=Measures(data=("test",), points=2),
            )  # fmt: skip

    first, second = (row["l2"] for row in run(plan, tmp_path / "s", **quiet))
    assert first > 0 and second == 0


def test_forks_in_equal_ratios() -> None:
    found = log_spaced(24_000)
    assert found[0] == 0 and found[1] == 24 and found[-1] == 6_000 and len(found) == 8
    ratios = np.diff(np.log(found[1:]))
    np.testing.assert_allclose(ratios, ratios[0], rtol=0.02)
    assert log_spaced(2) == [0, 1]


def test_examples_of_each_part() -> None:
    measures = Measures(test_examples=20, train_examples=10, points=5)
    assert measures.on("test") == {"what": "test", "examples": 20}
    assert measures.along("train") == {"what": "train", "examples": 10, "points": 5, "statistics": "interpolate"}
