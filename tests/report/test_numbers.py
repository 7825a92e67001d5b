"""Numbers of the report against numbers worked out by hand, or by NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_lth.imp import at_least
from keras_lth.report import figures, numbers, page
from tests.report import rows

NAN = math.nan


def table(*groups: tuple[str, int, tuple[float, ...]]) -> Any:
    """The summary of (arm, level, accuracy of each replicate)."""
    listed = [
        {"table": "results", "arm": arm, "replicate": r, "level": level, "density": 0.8**level, "accuracy": value}
        for arm, level, values in groups
        for r, value in enumerate(values)
    ]
    found = numbers.networks(rows.results(listed))
    assert found is not None
    return numbers.summary(found)


THREE = table(
    ("imp", 0, (0.90, 0.91, 0.92)), ("imp", 1, (0.92, 0.92, 0.92)), ("imp", 2, (0.91, 0.90, 0.92)),
    ("imp", 3, (0.89, 0.88, 0.90)), ("reinit", 1, (0.90, 0.91, 0.92)), ("reinit", 2, (0.80, 0.84, 0.85)),
)  # fmt: skip


def test_mean_spread_difference_and_counts() -> None:
    imp = THREE[THREE["arm"] == "imp"]
    assert imp["mean"].tolist() == pytest.approx([0.91, 0.92, 0.91, 0.89])
    assert imp["least"].tolist() == [0.90, 0.92, 0.90, 0.88] and imp["greatest"].tolist() == [0.92, 0.92, 0.92, 0.90]
    assert imp["difference"].tolist() == pytest.approx([0, 0.01, 0, -0.02])
    assert imp["matches"].tolist() == [True, True, True, False]
    # Replicate 1 falls from 0.91 to 0.90 at level 2; its neighbours do not fall.
    assert imp["matching"].tolist() == [3, 3, 2, 0] and imp["compared"].tolist() == [3] * 4


def test_verdicts() -> None:
    imp, reinit = numbers.verdicts(THREE).to_dict("records")
    assert imp == {
        "arm": "IMP", "sparsest matching": "64.0 %", "levels that match": "2 of 3",
        "best, points to dense": "+1.00 at 80.0 %", "sparsest": "51.2 %", "accuracy there, %": "89.00 (88.00–90.00)",
        "points to dense": "−2.00", "replicates that match": "0 of 3",
    }  # fmt: skip
    assert (reinit["arm"], reinit["sparsest matching"], reinit["points to dense"]) == (
        "reinitialised",
        "80.0 %",
        "−8.00",
    )


def test_a_level_at_which_random_pruning_matches_is_trivial() -> None:
    """IMP matches at levels 1 and 2, global random pruning at 1."""
    found = table(
        ("imp", 0, (0.9,)), ("imp", 1, (0.9,)), ("imp", 2, (0.91,)), ("random_global", 1, (0.9,)),
        ("random_global", 2, (0.8,)),
    )  # fmt: skip
    assert [row["not trivial"] for row in numbers.verdicts(found).to_dict("records")] == ["1", "0"]


def test_the_table_of_levels() -> None:
    levels = numbers.by_level(THREE).to_dict("list")
    assert levels["level"] == ["dense", "1", "2", "3"]
    assert levels["IMP, %"][:3] == [
        "91.00 (90.00–92.00)", "92.00 (92.00–92.00)\n+1.00 (3/3) ✓", "91.00 (90.00–92.00)\n+0.00 (2/3) ✓",
    ]  # fmt: skip
    assert levels["reinitialised, %"][2:] == ["83.00 (80.00–85.00)\n−8.00 (0/3)", ""]


def test_equal_numbers_of_test_examples_match_in_float32_and_one_example_less_does_not() -> None:
    # 7 + 1 and 4 + 4 of 9 examples, as Keras gives them; the means of float32 numbers differ in the eighth digit.
    share = [float(np.float32(n / 9)) for n in range(10)]
    assert table(("imp", 0, (share[7], share[1])), ("imp", 1, (share[4], share[4])))["matches"].tolist() == [True, True]
    # One example of 10 000 in one of ten replicates.
    worse = table(("imp", 0, (0.9,) * 10), ("imp", 1, (0.9,) * 9 + (0.8999,)))
    assert worse["matches"].tolist() == [True, False]


def test_one_rule_of_matching() -> None:
    assert at_least(0.9, 0.9) and not at_least(np.nextafter(0.9, 0), 0.9) and at_least(0.3, 0.3, less=True)
    assert not at_least(NAN, 0.9) and not at_least(0.9, NAN) and not at_least(0.31, 0.3, less=True)


def test_each_network_is_held_against_its_own_dense_network() -> None:
    # Replicate 1 of level 1 is missing, replicate 0 lost its dense network: only replicate 2 is compared.
    found = table(("imp", 0, (NAN, 0.91, 0.92)), ("imp", 1, (0.99, NAN, 0.91)))
    (level,) = found[found["level"] == 1].to_dict("records")
    assert level["difference"] == pytest.approx(-0.01) and (level["matching"], level["compared"]) == (0, 1)
    assert (level["mean"], level["diverged"], level["replicates"]) == (pytest.approx(0.95), 1, 3)
    assert numbers.accuracy(level) == "95.00 (91.00–99.00), 1 diverged"
    # An arm with a dense network of its own is held against that one.
    mine = table(("imp", 0, (0.9,)), ("late", 0, (0.8,)), ("late", 1, (0.85,)), ("reinit", 1, (0.85,)))
    assert dict(zip(mine["arm"], mine["matches"], strict=True)) == {"imp": True, "late": True, "reinit": False}


def test_a_loss_that_is_not_finite_is_a_network_that_diverged() -> None:
    listed = [row for row in rows.lottery(1, 1) if row["table"] == "results"]
    listed[1]["loss"] = math.inf
    found = numbers.networks(rows.results(listed))
    assert found is not None and found["diverged"].tolist() == [False, True, False, False, False]
    # Where no loss is known, none diverged.
    found = numbers.networks(rows.results([{**row, "loss": None} for row in listed]))
    assert found is not None and not found["diverged"].any()


@given(st.lists(st.one_of(st.just(NAN), st.floats(0, 1, width=32)), min_size=1, max_size=8))
def test_means_are_numpys(values: list[float]) -> None:
    level = table(("imp", 0, (0.5,) * len(values)), ("imp", 1, tuple(values))).iloc[1]
    finite = np.array([value for value in values if not math.isnan(value)])
    assert level["replicates"] - level["diverged"] == finite.size
    if finite.size:
        np.testing.assert_allclose([level["mean"], level["least"], level["greatest"]], [
            finite.mean(), finite.min(), finite.max()
        ])  # fmt: skip
        assert level["matching"] == (finite >= 0.5).sum()


def test_stability() -> None:
    found = numbers.pairs(rows.results(rows.lines(replicates=2)))
    assert found is not None
    dense, ticket = numbers.stability(found).to_dict("records")
    # The points next to the middle are 14/29 and 15/29; heights of the pairs are 1, 1.1 and 1.2 of the first.
    peak = 4 * 14 * 15 / 29**2
    assert dense["k = 0"] == f"{11 * peak:.2f} ({10 * peak:.2f}–{12 * peak:.2f})"
    assert dense["k = 500"] == f"{11 * peak / 6:.2f} ({10 * peak / 6:.2f}–{12 * peak / 6:.2f})"
    # 1.83 and 0.52 points at 500 and 2000; the ticket 3.3 points at 0, 0.55 at 500.
    assert (dense["stable from"], ticket["stable from"]) == ("step 500 on", "step 500 on")
    assert ticket["network"] == "ticket, 50.0 %"


def test_a_pair_with_a_number_that_is_not_finite_is_a_gap() -> None:
    """The mean of three pairs, of which one is not known, is not known: at that position, and as a barrier."""
    listed = rows.lines(forks=(0, 500))
    dense = [row for row in listed if row["network"] == "dense" and row["fork"] == 0]
    dense[1]["errors"] = [*dense[1]["errors"][:9], NAN, *dense[1]["errors"][10:]]
    found = numbers.pairs(rows.results(listed))
    assert found is not None and found["unknown"].sum() == 1
    gone = found[(found["network"] == "dense") & (found["fork"] == 0)]
    assert gone["barrier"].isna().all()
    assert all(np.isnan(errors).nonzero()[0].tolist() == [9] for errors in gone["errors"])
    cells = numbers.stability(found).to_dict("records")[0]
    assert cells["k = 0"] == "not known" and cells["k = 500"] != "not known" and cells["stable from"] == "step 500 on"
    assert found[found["fork"] == 500]["barrier"].notna().all()
    path, barrier = figures.path(rows.results(listed)), figures.barrier(rows.results(listed))
    assert path is not None and barrier is not None
    # Two parts of one line, on either side of the gap.
    assert [len(part.get_xdata()) for part in path.grid[0, 0].get_lines()[:2]] == [9, 20]
    everywhere = [{**row, "errors": [NAN] * 30, "barrier": NAN} for row in listed]
    assert figures.path(rows.results(everywhere)) and figures.barrier(rows.results(everywhere))
    assert "6 of 6 pairs" in page.page(rows.results(everywhere[:6]), {})


@pytest.mark.parametrize(
    ("density", "text"),
    [(1.0, "100 %"), (0.9999, "100 %"), (0.512, "51.2 %"), (0.0859, "8.6 %"), (0.00999, "1.0 %"), (0.0092, "0.92 %")],
)
def test_densities_have_the_digits_that_a_reader_needs(density: float, text: str) -> None:
    assert numbers.percent(density) == text
