"""What the figures hold: their lines, labels and limits, read back from the ``Figure``."""

from __future__ import annotations

import itertools
import math

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg

from keras_lth.report import Curve, ErrorPath, Layer, Outcome, Results, figures, style

NAN = math.nan
CONFIG = {"model": "lenet_300_100", "data": "fashion_mnist", "rewind_to": 0}
ARMS = ("imp", "reinit", "random_layerwise", "random_global")
# Points lost at level n: IMP 0.1 n, then 1, 2 and 3 times as much, and as a fall at the end.
LOSS = {"imp": 0.001, "reinit": 0.004, "random_layerwise": 0.008, "random_global": 0.03}


def accuracy_of(arm: str, level: int, replicate: int) -> float:
    return 0.9 - LOSS[arm] * level + 0.001 * (replicate - 1)


def whole(replicates: int = 3, levels: int = 12, nan: tuple[tuple[str, int, int], ...] = ()) -> Results:
    outcomes, curves, layers, paths = [], [], [], []
    for arm in ARMS:
        for r in range(replicates):
            for level in range(0 if arm == "imp" else 1, levels + 1):
                n = round(266_200 * 0.8**level)
                a = NAN if (arm, level, r) in nan else accuracy_of(arm, level, r)
                outcomes.append(Outcome(arm, r, level, n / 266_200, n, 1200, a, 0.3))
                curves += [Curve(arm, r, level, n / 266_200, e, 100 * e, a * (1 - 2.0**-e)) for e in range(1, 13)]
    for r in range(replicates):
        for level in range(levels + 1):
            kept = {
                "hidden_1/kernel": (235_200, 0.78),
                "hidden_2/kernel": (30_000, 0.86),
                "output/kernel": (1000, 0.95),
            }
            layers += [Layer(r, level, p, n, round(n * q**level), q**level) for p, (n, q) in kept.items()]
    alphas = tuple(np.linspace(0, 1, 30))
    for network, density, height in (("dense", 1.0, 0.1), ("ticket", 0.0859, 0.03)):
        for fork in (0, 500, 2000):
            for data, base in (("train", 0.02), ("test", 0.1)):
                for i, pair in enumerate([(0, 1), (0, 2), (1, 2)]):
                    h = height * (1 + 0.1 * i) / (1 + fork / 100)
                    errors = tuple(base + 4 * h * a * (1 - a) for a in alphas)
                    paths.append(
                        ErrorPath(network, 0, density, 0, fork, pair, data, alphas, errors, max(errors) - base)
                    )
    return Results(outcomes, curves, layers, paths, CONFIG)


def line(axes, label):
    (found,) = [each for each in axes.get_lines() if each.get_label() == label]
    return found.get_xdata(), found.get_ydata()


def ends(axes):
    return [text for text in axes.texts if text.get_gid() == "end"]


def texts(figure):
    return " ".join(text.get_text() for text in figure.texts)


def test_accuracy_lines_hold_the_means_over_density():
    figure = figures.accuracy(whole(levels=4))
    (axes,) = figure.axes
    x, y = line(axes, "IMP")
    np.testing.assert_allclose(x, [round(266_200 * 0.8**n) / 266_200 for n in range(5)])
    np.testing.assert_allclose(y, [90.0, 89.9, 89.8, 89.7, 89.6])
    x, y = line(axes, "global random")
    np.testing.assert_allclose(y, [87.0, 84.0, 81.0, 78.0])
    assert line(axes, "dense")[1] == [pytest.approx(90.0)] * 2
    assert axes.get_xscale() == "log"
    left, right = axes.get_xlim()
    assert left > 1 > right
    assert [t.get_text() for t in ends(axes)] == [
        "global random ▼ 78.0 %", "layerwise random", "reinitialised", "IMP", "dense, 90.00 %",
    ]  # fmt: skip
    assert "LeNet-300-100 on Fashion-MNIST, 3 replicates" in texts(figure)


def test_spread_is_least_to_greatest_over_replicates():
    (axes,) = figures.accuracy(whole(levels=2)).axes
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose([band.min(), band.max()], [100 * (0.9 - 0.002 - 0.001), 100 * (0.9 + 0.001)])


def test_filled_markers_are_those_that_reach_dense():
    rows = [Outcome("imp", 0, level, 0.8**level, 1, 1, a) for level, a in enumerate((0.9, 0.91, 0.9, 0.89))]
    (axes,) = figures.accuracy(Results(rows)).axes
    points = [each for each in axes.get_lines() if each.get_label() == "_point"]
    assert [p.get_markerfacecolor() != "white" for p in points] == [True, True, False]


def test_ticks_are_levels_labelled_in_per_cent():
    figure = figures.accuracy(whole(levels=15))
    (axes,) = figure.axes
    FigureCanvasAgg(figure).draw()
    labels = [t.get_text() for t in axes.get_xticklabels()]
    assert labels[:4] == ["100", "64.0", "41.0", "26.2"]
    assert labels[-1] == "3.5"
    assert len(axes.get_xticks()) + len(axes.get_xticks(minor=True)) == 16


def test_far_arms_are_clipped_and_marked_near_ones_are_not():
    # The reference falls by 1: 2 points count. Others are seen whole down to 10 points, else 8 are shown.
    assert style.lower_limit(90.0, [89.0], [81.0]) == 81.0
    assert style.lower_limit(90.0, [89.0], [79.0]) == 82.0
    assert style.lower_limit(90.0, [70.0], [NAN]) == 70.0
    # The top is 90.1, IMP falls by 1.4, so the axis ends 8 points below, with 6 % of room at both ends and two rows of
    # 3.5 % at the foot for the two arms that leave it.
    (axes,) = figures.accuracy(whole()).axes
    low = axes.get_ylim()[0]
    assert low == pytest.approx(82.1 - 0.48 - 2 * 0.035 * 8.96)
    marks = {each.get_color(): each for each in axes.get_lines() if each.get_label() == "_clipped"}
    # 90 − 0.8 n and 90 − 3 n fall below 80.99 at level 12, and from level 4 on.
    counts = {colour: len(each.get_xdata()) for colour, each in marks.items()}
    assert counts == {style.COLOURS["random_layerwise"]: 1, style.COLOURS["random_global"]: 9}
    assert all(y > low for each in marks.values() for y in each.get_ydata())


def test_diverged_replicates_are_marked_and_left_out_of_the_line():
    nan = (("imp", 2, 0), ("reinit", 3, 0), ("reinit", 3, 1), ("reinit", 3, 2))
    figure = figures.accuracy(whole(levels=4, nan=nan))
    (axes,) = figure.axes
    marks = [each for each in axes.get_lines() if each.get_label() == "_diverged"]
    assert [(m.get_color(), [round(x, 3) for x in m.get_xdata()]) for m in marks] == [
        (style.COLOURS["imp"], [0.64]), (style.COLOURS["reinit"], [0.512]),
    ]  # fmt: skip
    assert len(line(axes, "reinitialised")[0]) == 3
    # Replicates 1 and 2 remain: 0.898 and 0.899.
    assert line(axes, "IMP")[1][2] == pytest.approx(89.85)
    assert "diverged, left out" in texts(figure)


def test_an_arm_that_always_diverged_is_named():
    nan = tuple(("reinit", level, r) for level in range(1, 4) for r in range(3))
    (axes,) = figures.accuracy(whole(levels=3, nan=nan)).axes
    assert "reinitialised: diverged" in [t.get_text() for t in ends(axes)]


def test_one_replicate_has_no_spread_and_says_so():
    figure = figures.accuracy(whole(replicates=1))
    assert "1 replicate; no spread to show" in texts(figure)
    assert "band" not in texts(figure)


def test_curves_show_imp_by_density_and_arms_at_one():
    figure = figures.curves(whole())
    left, right = figure.axes
    assert left.get_xlabel() == right.get_xlabel() == "training step"
    x, y = line(left, "dense")
    np.testing.assert_allclose(x, 100 * np.arange(1, 13))
    np.testing.assert_allclose(y, [90 * (1 - 2.0**-e) for e in range(1, 13)])
    assert right.get_title(loc="left") == "21.0 % of the weights, by arm"
    assert {t.get_text().split(" (")[0] for t in ends(right)} == {"dense", *figures_arms()}


def figures_arms():
    return {"IMP", "reinitialised", "layerwise random", "global random"}


def test_curves_without_reinitialised_ones_have_one_panel():
    given_rows = whole(levels=3)
    alone = Results(given_rows.outcomes, [c for c in given_rows.curves if c.arm == "imp"], config=CONFIG)
    (axes,) = figures.curves(alone).axes
    assert {t.get_text() for t in ends(axes)} == {"dense", "80.0 %", "64.0 %", "51.2 %"}


def test_layers_lines_and_empty_layers():
    layers = [
        Layer(0, level, path, size, n, n / size)
        for level, (a, b) in enumerate([(100, 10), (40, 4), (11, 0)])
        for path, size, n in (("a/kernel", 100, a), ("b/kernel", 10, b))
    ]
    figure = figures.layers(Results([Outcome("imp", 0, 0, 1.0, 110, 1, 0.9)], layers=layers))
    (axes,) = figure.axes
    x, y = line(axes, "a/kernel")
    np.testing.assert_allclose(x, [1, 44 / 110, 11 / 110])
    np.testing.assert_allclose(y, [100, 40, 11])
    assert list(line(axes, "b/kernel")[1]) == [100, 40]
    empty = [m for m in axes.get_lines() if m.get_label() == "_empty" and len(m.get_xdata())]
    assert [list(m.get_xdata()) for m in empty] == [[pytest.approx(0.1)]]
    assert "b/kernel (empty)" in [t.get_text() for t in ends(axes)]
    assert "no weight left" in texts(figure)


def test_many_layers_are_coloured_by_depth_and_some_are_named():
    layers = [
        Layer(0, n, f"conv_{i}/kernel", 100, 100 - 2 * n * i, 1 - n * i / 50) for n in (0, 1, 2) for i in range(20)
    ]
    figure = figures.layers(Results([Outcome("imp", 0, 0, 1.0, 2000, 1, 0.9)], layers=layers))
    (axes,) = figure.axes
    drawn = {each.get_label(): each.get_color() for each in axes.get_lines() if each.get_label().startswith("conv")}
    assert len(set(drawn.values())) == 20
    named = {t.get_text() for t in ends(axes)} - {"whole network"}
    assert named == {f"conv_{i}/kernel" for i in range(0, 20, 3)}
    assert "dark to light: input to output" in texts(figure)


def test_path_panels_by_network_and_fork():
    axes = figures.path(whole()).axes
    assert len(axes) == 6
    assert [a.get_title(loc="left") for a in axes[:3]] == ["k = 0", "k = 500", "k = 2,000"]
    x, y = line(axes[0], "test")
    assert (len(x), x[0], x[-1]) == (30, 0, 1)
    # Heights 0.1, 0.11, 0.12 over a base of 0.1; the points next to the middle are at 14/29.
    assert max(y) == pytest.approx(100 * (0.1 + 4 * 0.11 * (14 / 29) * (15 / 29)))


def test_barrier_means_bars_and_the_line_of_two_points():
    (axes,) = figures.barrier(whole()).axes
    assert line(axes, "2 points")[1] == [2.0, 2.0]
    (drawn,) = [c for c in axes.containers if c.get_label() == "dense network, test"]
    peak = 400 * (14 / 29) * (15 / 29)
    np.testing.assert_allclose(drawn[0].get_ydata(orig=False), [peak * 0.11, peak * 0.11 / 6, peak * 0.11 / 21])
    low, high = drawn[2][0].get_segments()[0][:, 1]
    np.testing.assert_allclose([low, high], [peak * 0.1, peak * 0.12])
    assert axes.get_xscale() == "linear"


def test_forks_far_apart_get_a_log_axis_that_holds_step_zero():
    paths = [ErrorPath("dense", 0, 1.0, 0, k, (0, 1), "test", (0, 1), (0.1, 0.1), 0.03) for k in (0, 10, 1000)]
    (axes,) = figures.barrier(Results([], paths=paths)).axes
    assert axes.get_xscale() == "symlog"
    assert list(axes.get_xticks()) == [0, 10, 1000]
    assert axes.get_xlim()[0] < 0


def test_missing_rows_give_no_figure():
    bare = Results(whole().outcomes)
    assert [draw(bare) for draw in (figures.curves, figures.layers, figures.path, figures.barrier)] == [None] * 4


def test_only_a_dense_network_is_a_figure_too():
    (axes,) = figures.accuracy(Results([Outcome("imp", 0, 0, 1.0, 10, 1, 0.9)])).axes
    assert [t.get_text() for t in ends(axes)] == ["dense, 90.00 %"]


@pytest.mark.parametrize("name", ["accuracy", "curves", "layers", "path", "barrier"])
@pytest.mark.parametrize("replicates", [1, 3])
def test_nothing_is_clipped_and_no_labels_overlap(name, replicates):
    figure = getattr(figures, name)(whole(replicates=replicates, levels=20, nan=(("reinit", 20, 0),)))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    width, height = figure.get_size_inches() * style.DPI
    shown = list(figure.texts)
    for axes in figure.axes:
        shown += [
            axes.xaxis.label,
            axes.yaxis.label,
            axes.title,
            *axes.texts,
            *axes.get_xticklabels(),
            *axes.get_yticklabels(),
        ]
        boxes = sorted((t.get_window_extent(renderer) for t in ends(axes)), key=lambda b: b.y0)
        for below, above in itertools.pairwise(boxes):
            assert above.y0 >= below.y0 + 0.8 * below.height
    for text in shown:
        if text.get_text() and text.get_visible():
            box = text.get_window_extent(renderer)
            assert box.x0 >= 0 and box.x1 <= width, text.get_text()
            assert box.y0 >= 0 and box.y1 <= height, text.get_text()


def test_drawing_is_deterministic_and_leaves_the_users_settings_alone():
    with matplotlib.rc_context({"font.size": 31, "axes.facecolor": "red"}):
        first = style.png(figures.accuracy(whole(levels=3)))
        assert matplotlib.rcParams["font.size"] == 31
    assert style.png(figures.accuracy(whole(levels=3))) == first


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_labels_are_spread_in_order_within_the_axes(heights):
    heights = sorted(heights)
    moved = style.spread(heights, 0.1)
    assert len(moved) == len(heights)
    assert all(b - a >= 0.1 - 1e-9 for a, b in itertools.pairwise(moved))
    assert min(moved) >= -1e-9 and max(moved) <= 1 + 1e-9
    if all(b - a >= 0.1 for a, b in itertools.pairwise(heights)):
        assert moved == pytest.approx(heights)


def test_two_labels_that_touch_part_around_their_middle():
    assert style.spread([0.5, 0.52], 0.1) == pytest.approx([0.46, 0.56])
    assert style.spread([0.0, 0.01], 0.1) == pytest.approx([0.0, 0.1])
