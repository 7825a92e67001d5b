"""Numbers of the report against numbers worked out by hand."""

from __future__ import annotations

import csv
import io
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_lth import report
from keras_lth.report import Curve, ErrorPath, Layer, Outcome, Results, tables
from keras_lth.report.curves import averaged, compared_level, curve_levels
from keras_lth.report.instability import along, barriers, shown_forks

NAN = math.nan
DENSE = (0.90, 0.91, 0.92)  # mean 0.91


def rows(arm: str, level: int, accuracies: tuple[float, ...], steps: int = 100) -> list[Outcome]:
    n = round(1000 * 0.8**level)
    return [Outcome(arm, r, level, n / 1000, n, steps, value, 0.3) for r, value in enumerate(accuracies)]


def results(*groups: list[Outcome], **options: object) -> Results:
    return Results([row for group in groups for row in group], **options)


THREE = results(
    rows("imp", 0, DENSE),
    rows("imp", 1, (0.92, 0.92, 0.92)),
    rows("imp", 2, (0.91, 0.90, 0.92)),
    rows("imp", 3, (0.89, 0.88, 0.90)),
    rows("reinit", 1, DENSE),
    rows("reinit", 2, (0.80, 0.84, 0.85)),
    rows("reinit", 3, (0.70, 0.72, 0.71)),
    config={"model": "lenet_300_100", "data": "mnist", "rewind_to": "0 steps"},
)


def test_cells_hold_mean_spread_difference_and_counts():
    summary = tables.summarise(THREE)
    assert summary.dense is not None
    assert (summary.dense.mean, summary.dense.low, summary.dense.high) == (pytest.approx(0.91), 0.90, 0.92)
    one, two, three = summary.arms["imp"]
    assert [cell.difference for cell in (one, two, three)] == pytest.approx([0.01, 0.0, -0.02])
    assert [cell.reaches for cell in (one, two, three)] == [True, True, False]
    # Replicate 1 falls from 0.91 to 0.90 at level 2; its neighbours do not fall.
    assert [(cell.reaching, cell.compared) for cell in (one, two, three)] == [(3, 3), (2, 3), (0, 3)]
    assert (two.low, two.high, two.remaining) == (0.90, 0.92, 640)
    assert summary.arms["reinit"][1].mean == pytest.approx(0.83)
    assert summary.sparsest("imp") is two
    assert summary.sparsest("reinit") is summary.arms["reinit"][0]


def test_rounding_in_the_files_is_no_difference_but_a_test_example_is():
    # 7 of 9 examples, written with six digits: 0.777778 + 0.777778 + 0.777778 against 0.777777 each.
    equal = results(rows("imp", 0, (0.777778,) * 3), rows("imp", 1, (0.777777,) * 3))
    assert tables.summarise(equal).arms["imp"][0].reaches
    # One example of 10 000 in one of ten replicates.
    worse = results(rows("imp", 0, (0.9,) * 10), rows("imp", 1, (0.9,) * 9 + (0.8999,)))
    assert not tables.summarise(worse).arms["imp"][0].reaches


def test_more_steps_than_the_dense_network_make_no_winning_ticket():
    late = results(rows("imp", 0, DENSE), rows("imp", 1, (0.95, 0.95, 0.95), steps=101))
    (cell,) = tables.summarise(late).arms["imp"]
    assert cell.difference == pytest.approx(0.04)
    assert (cell.reaches, cell.reaching) == (False, 0)


def test_diverged_replicates_are_left_out_and_named():
    lost = results(rows("imp", 0, (0.90, NAN, 0.92)), rows("imp", 1, (0.93, 0.50, NAN)), rows("reinit", 1, (NAN,) * 3))
    summary = tables.summarise(lost)
    assert summary.dense is not None
    assert (summary.dense.mean, summary.dense.diverged) == (pytest.approx(0.91), (1,))
    (cell,) = summary.arms["imp"]
    assert (cell.mean, cell.diverged) == (pytest.approx(0.715), (2,))
    # Replicate 1 has no dense network to be compared with.
    assert (cell.reaching, cell.compared) == (1, 2)
    assert math.isnan(summary.arms["reinit"][0].mean)
    said = " ".join(report.findings(lost))
    assert "dense, replicate 1; IMP at 80.0 %, replicate 2; reinitialised at 80.0 %, replicate 0" in said
    assert [row[4:] for row in tables.text_rows(lost)][1] == [
        "71.50 (50.00–93.00), 1 diverged",
        "−19.50 (1/2)",
        "diverged",
        "",
    ]


def test_a_loss_that_is_no_number_counts_as_diverged_at_any_accuracy():
    assert Outcome("imp", 0, 1, 0.8, 800, 100, 0.1, NAN).diverged
    assert Outcome("imp", 0, 1, 0.8, 800, 100, NAN).diverged
    assert not Outcome("imp", 0, 1, 0.8, 800, 100, 0.1, None).diverged


@given(st.lists(st.one_of(st.just(NAN), st.floats(0, 1)), min_size=1, max_size=8))
def test_aggregation_equals_numpys(values):
    (cell,) = tables.summarise(results(rows("imp", 0, (0.5,) * len(values)), rows("imp", 1, tuple(values)))).arms["imp"]
    finite = np.array([v for v in values if not np.isnan(v)])
    assert len(cell.values) == finite.size
    if finite.size:
        np.testing.assert_allclose([cell.mean, cell.low, cell.high], [finite.mean(), finite.min(), finite.max()])
        assert cell.reaching == int((finite >= 0.5 - tables.ROUNDING).sum())


def test_csv_table_row_by_row():
    read = list(csv.DictReader(io.StringIO(tables.csv_table(THREE))))
    assert [row["level"] for row in read] == ["0", "1", "2", "3"]
    assert [row["density"] for row in read] == ["1", "0.8", "0.64", "0.512"]
    assert [row["imp_mean"] for row in read] == ["0.91", "0.92", "0.91", "0.89"]
    assert [row["imp_reaches_dense"] for row in read] == ["1", "1", "1", "0"]
    assert [row["imp_replicates_reaching"] for row in read] == ["3", "3", "2", "0"]
    assert read[0]["reinit_mean"] == ""
    assert (read[2]["reinit_mean"], read[2]["reinit_min"], read[2]["reinit_max"]) == ("0.83", "0.8", "0.85")
    assert read[2]["reinit_minus_dense"] == "-0.08"


def test_markdown_table():
    lines = [line for line in tables.markdown(THREE).splitlines() if line.startswith("|")]
    assert lines[0].count("|") == lines[1].count("|") == lines[-1].count("|") == 9
    assert lines[2].startswith("| dense | 100 % | 1,000 |  | 91.00 (90.00–92.00) |")
    assert (
        lines[4] == "| 2 | 64.0 % | 640 | yes | 91.00 (90.00–92.00) | +0.00 (2/3) | 83.00 (80.00–85.00) | −8.00 (0/3) |"
    )
    assert tables.markdown(THREE).startswith("**LeNet-300-100 on MNIST, 3 replicates**")


def test_a_later_start_is_matching_not_winning():
    late = Results(THREE.outcomes, config={"rewind_to": "5%"})
    assert (THREE.verdict, late.verdict) == ("winning ticket", "matching")
    assert tables.header(late)[0][3] == "matching?"
    assert Results(THREE.outcomes, config={"rewind_step": 7}).verdict == "matching"


@pytest.mark.parametrize(
    ("density", "text"),
    [(1.0, "100 %"), (0.9999, "100 %"), (0.512, "51.2 %"), (0.0859, "8.6 %"), (0.00999, "1.0 %"), (0.0092, "0.92 %")],
)
def test_densities_are_written_with_the_digits_that_matter(density, text):
    assert tables.percent(density) == text


def test_findings_say_down_to_where_each_arm_reaches():
    said = report.findings(THREE)
    assert said[0] == "The dense network has 91.00 % (90.00 to 92.00 over 3 replicates) test accuracy."
    assert (
        said[1]
        == "IMP tickets reach the dense accuracy down to 64.0 % of the weights; reinitialised ones down to 80.0 %."
    )
    assert said[2] == "The best IMP tickets, with 80.0 % of the weights, are 1.00 points above the dense network."
    assert said[3].startswith(
        "At the sparsest level, 51.2 % of the weights: IMP 89.00 % (−2.00), reinitialised 71.00 % (−20.00)"
    )
    assert said[4] == "IMP is more accurate than reinitialised at 3 of 3 levels."


def test_findings_name_denser_levels_that_fail():
    gap = results(rows("imp", 0, (0.9,)), rows("imp", 1, (0.8,)), rows("imp", 2, (0.9,)), rows("reinit", 1, (0.7,)))
    said = report.findings(gap)
    reached = "IMP tickets reach the dense accuracy down to 64.0 % of the weights (but not at 80.0 %)"
    assert said[1] == f"{reached}; reinitialised ones at no density."
    assert "There is one replicate: no spread is shown, and small differences may be chance." in said


def test_findings_when_nothing_reaches_or_nothing_is_there():
    worse = results(rows("imp", 0, (0.9,)), rows("imp", 1, (0.8,)))
    assert report.findings(worse)[1] == "No subnetwork reaches the dense accuracy: there is no winning ticket."
    assert report.findings(results(rows("imp", 0, (0.9,))))[1] == "No pruned network is finished."
    assert report.findings(results(rows("reinit", 1, (0.9,))))[0].startswith("No dense training is finished")
    assert report.findings(results(rows("imp", 0, (NAN,))))[0].startswith("Every dense training diverged")


def test_findings_name_missing_replicates():
    short = results(rows("imp", 0, DENSE), rows("imp", 1, (0.9, 0.9)))
    assert "Fewer than the 3 replicates are finished at: IMP at 80.0 % (2)." in report.findings(short)


def curve(arm: str, level: int, replicate: int, accuracies: tuple[float, ...]) -> list[Curve]:
    return [Curve(arm, replicate, level, 0.8**level, i + 1, 10 * (i + 1), a) for i, a in enumerate(accuracies)]


def test_curves_are_averaged_step_by_step():
    both = curve("imp", 1, 0, (0.5, 0.7)) + curve("imp", 1, 1, (0.3, NAN)) + curve("reinit", 1, 0, (0.1, 0.1))
    assert averaged(both, "imp", 1) == [(10, pytest.approx(0.4), 0.3, 0.5), (20, 0.7, 0.7, 0.7)]


def test_chosen_levels_hold_dense_best_and_sparsest():
    outcomes = rows("imp", 0, (0.9,)) + [
        row for level in range(1, 16) for row in rows("imp", level, (0.91 if level <= 11 else 0.8,))
    ]
    points = [p for level in range(16) for p in curve("imp", level, 0, (0.5,))] + curve("reinit", 9, 0, (0.4,))
    chosen = Results(outcomes, points)
    # 0, 11 and 15 are given; the widest gap, 0 to 11, is halved at 5, then 5 to 11 at 8.
    assert curve_levels(chosen) == [0, 5, 8, 11, 15]
    assert compared_level(chosen) == 9
    assert compared_level(Results(outcomes, curve("imp", 1, 0, (0.5,)))) is None


def error_path(fork: int, pair: tuple[int, int], errors: tuple[float, ...], network: str = "dense", data: str = "test"):
    alphas = tuple(np.linspace(0, 1, len(errors)))
    top = max(errors) - (errors[0] + errors[-1]) / 2
    return ErrorPath(network, 0 if network == "dense" else 3, 0.512 if network != "dense" else 1.0, 0, fork, pair, data,
                     alphas, errors, top)  # fmt: skip


def test_paths_are_averaged_over_pairs_and_judged_by_the_mean():
    paths = [
        error_path(0, (0, 1), (0.1, 0.2, 0.1)),  # barrier 10 points
        error_path(0, (0, 2), (0.1, 0.4, 0.1)),  # 30
        error_path(50, (0, 1), (0.1, 0.12, 0.1)),  # 2
        error_path(50, (0, 2), (0.1, 0.11, 0.1)),  # 1: the mean, 1.5, is stable
        error_path(0, (0, 1), (0.1, NAN, 0.1), network="ticket"),
    ]
    assert along(paths[:2])[1] == (0.5, pytest.approx(0.3), 0.2, 0.4)
    assert barriers(paths[:4], "test") == {0: pytest.approx([0.1, 0.3]), 50: pytest.approx([0.02, 0.01])}
    said = " ".join(report.findings(Results(THREE.outcomes, paths=paths)))
    judged = "on test data 20.00, 1.50 points from steps 0, 50, stable (below 2) from step 50 on."
    assert f"Instability of the dense network: {judged}" in said
    assert "Instability of the ticket, 51.2 % of the weights: on test data every pair diverged." in said
    assert "Paths with points that are no number, left out: ticket from step 0, pair 0–1." in said
    assert shown_forks([error_path(k, (0, 1), (0.1, 0.1)) for k in (0, 1, 2, 3, 4, 5, 6)]) == [0, 2, 4, 6]


@pytest.mark.parametrize(
    ("heights", "verdict"),
    [
        ((0.3, 0.3), "unstable (2 or more) from every step tried"),
        ((0.101, 0.101), "stable (below 2) from every step tried"),
        ((0.101, 0.3), "stable (below 2) only from step 0"),
    ],
)
def test_verdicts_on_stability(heights, verdict):
    paths = [error_path(50 * i, (0, 1), (0.1, h, 0.1)) for i, h in enumerate(heights)]
    assert verdict in " ".join(report.findings(Results(THREE.outcomes, paths=paths)))


def test_layers_at_the_sparsest_level():
    layers = [
        Layer(0, 0, "a/kernel", 100, 100, 1.0), Layer(0, 0, "b/kernel", 10, 10, 1.0),
        Layer(0, 1, "a/kernel", 100, 20, 0.2), Layer(0, 1, "b/kernel", 10, 2, 0.2),
        Layer(0, 2, "a/kernel", 100, 11, 0.11), Layer(0, 2, "b/kernel", 10, 0, 0.0),
    ]  # fmt: skip
    said = report.findings(Results(THREE.outcomes, layers=layers))
    shares = "a/kernel keeps the largest share (11.0 %) and b/kernel the smallest (0 %)."
    assert f"Where IMP leaves 10.0 % of all weights, {shares}" in said
    assert "b/kernel has no weight left from level 2 on, in one replicate or more." in said
