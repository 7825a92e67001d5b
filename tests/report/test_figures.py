"""What the figures hold: their lines, bands, marks and limits, read back from Matplotlib; nothing clipped."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from keras_lth.report import Results, figures, style
from tests.report import rows

FIGURES = ("accuracy", "curves", "layers", "path", "barrier")


def whole(replicates: int = 3, levels: int = 4, **more: Any) -> Results:
    return rows.results([*rows.lottery(replicates, levels, **more), *rows.lines()])


def line(axes: Any, label: str) -> tuple[Any, Any]:
    (found,) = [each for each in axes.get_lines() if each.get_label() == label]
    return np.asarray(found.get_xdata(), float), np.asarray(found.get_ydata(), float)


def names(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_accuracy_is_means_with_a_band_over_density() -> None:
    (axes,) = figures.accuracy(whole()).figure.axes
    x, y = line(axes, "IMP")
    np.testing.assert_allclose(x, [0.8**n for n in (4, 3, 2, 1, 0)])
    np.testing.assert_allclose(y, [89.6, 89.7, 89.8, 89.9, 90.0])
    # The first band is that of the dense line, 0.1 points up and down as that of IMP.
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose([band.min(), band.max()], [89.6 - 0.1, 90.0 + 0.1])
    assert axes.get_xscale() == "log" and axes.xaxis_inverted()
    # In the order in which the lines end at the sparse side.
    assert names(axes) == ["dense, 90.00 %", "IMP", "reinitialised", "layerwise random", "global random"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["100", "80.0", "64.0", "51.2", "41.0"]


def test_several_runs_have_a_line_each() -> None:
    one, other = whole(), rows.results(rows.lottery(2, 4), run="other")
    frames = {"results": pd.concat([one.tables["results"], other.tables["results"]], ignore_index=True)}
    both = Results(frames, {**one.settings, **other.settings})
    (axes,) = figures.accuracy(both).figure.axes
    lines = ("dense, 90.00 %", "IMP", "reinitialised", "layerwise random", "global random")
    expected = {f"{run}: {name}" for run in ("lenet", "other") for name in lines} - {"other: dense, 90.00 %"}
    assert {*names(axes)} == expected | {"other: dense, 89.95 %"}
    np.testing.assert_allclose(line(axes, "other: IMP")[1], [89.55, 89.65, 89.75, 89.85, 89.95])


def test_hollow_markers_are_levels_that_do_not_match() -> None:
    listed = [
        {"table": "results", "arm": "imp", "replicate": 0, "level": n, "density": 0.8**n, "accuracy": value}
        for n, value in enumerate((0.9, 0.91, 0.9, 0.89))
    ]
    (axes,) = figures.accuracy(rows.results(listed)).figure.axes
    (hollow,) = [each for each in axes.get_lines() if each.get_label() == "_mark"]
    assert hollow.get_markerfacecolor() == style.PAPER and hollow.get_xdata().tolist() == [pytest.approx(0.512)]


def test_far_arms_are_clipped_and_marked() -> None:
    # The reference falls by 1: 2 points count. Others are seen whole down to 10 points, else 8 are shown.
    assert style.lower_limit(90.0, [89.0], [81.0]) == 81.0
    assert style.lower_limit(90.0, [89.0], [79.0]) == 82.0
    assert style.lower_limit(90.0, [70.0], [math.nan]) == 70.0
    made = figures.accuracy(
        whole(levels=12, lost=[("imp", 2, 0), ("reinit", 3, 0), ("reinit", 3, 1), ("reinit", 3, 2)])
    )
    (axes,) = made.figure.axes
    low = axes.get_ylim()[0]
    # The top is 90.1; IMP falls to 88.7: the axis ends 8 points below, with 6 % of room at both ends, and four rows of
    # marks of 3.5 % each at its foot.
    assert low == pytest.approx(82.1 - 0.48 - 4 * 0.035 * 8.96)
    marks = {(m.get_marker(), m.get_color()): len(m.get_xdata()) for m in axes.get_lines() if m.get_label() == "_mark"}
    # 90 − 0.8 n and 90 − 3 n fall below 81.62 at levels 11 and 12, and from 3 on.
    assert marks["v", style.arm_look("random_layerwise", 0)["color"]] == 2
    assert marks["v", style.arm_look("random_global", 0)["color"]] == 10
    assert marks["X", style.arm_look("imp", 0)["color"]] == marks["X", style.arm_look("reinit", 0)["color"]] == 1
    # Replicates 1 and 2 remain: 0.898 and 0.899; nothing remains of level 3.
    assert line(axes, "IMP")[1][-3] == pytest.approx(89.85) and len(line(axes, "reinitialised")[0]) == 11
    assert "diverged" in said(made) and "below the axis" in said(made)


def said(made: style.Drawing) -> str:
    return " ".join(text.get_text() for text in made.figure.findobj(matplotlib.text.Text))


def test_one_replicate_has_no_spread_and_says_so() -> None:
    made = figures.accuracy(whole(replicates=1))
    assert "1 replicate; no spread to show" in said(made) and "bands" not in said(made)


def test_curves_by_density_and_by_arm() -> None:
    left, right = figures.curves(whole(levels=12)).figure.axes
    x, y = line(left, "dense")
    np.testing.assert_allclose(x, 100 * np.arange(1, 9))
    np.testing.assert_allclose(y, [90 * (1 - 2.0**-epoch) for epoch in range(1, 9)])
    # No level matches: the first, the last, and those with the smallest gaps between them.
    assert {*names(left)} == {"dense", "51.2 %", "26.2 %", "13.4 %", "6.9 %"}
    # The middle of 12 levels is the seventh: 0.8^7.
    assert right.get_title(loc="left").startswith("21.0 %")
    assert {*names(right)} == {"dense", "IMP", "reinitialised", "layerwise random", "global random"}
    alone = [row for row in rows.lottery(levels=3) if row.get("arm", "imp") == "imp"]
    (axes,) = figures.curves(rows.results(alone)).figure.axes
    assert {*names(axes)} == {"dense", "80.0 %", "64.0 %", "51.2 %"}


def test_layers_that_are_emptied() -> None:
    listed = [
        {"table": "layers", "replicate": 0, "level": level, "path": path, "size": size, "remaining": n}
        for level, left in enumerate([(100, 10), (40, 4), (11, 0)])
        for path, size, n in zip(("a/kernel", "b/kernel"), (100, 10), left, strict=True)
    ]
    made = figures.layers(rows.results(listed))
    (axes,) = made.figure.axes
    x, y = line(axes, "a/kernel")
    np.testing.assert_allclose(x, [11 / 110, 44 / 110, 1])
    np.testing.assert_allclose(y, [11, 40, 100])
    assert line(axes, "b/kernel")[1].tolist() == [40, 100] and line(axes, "_empty")[0].tolist() == [0.1]
    assert "no weight left" in said(made)


def test_many_layers_are_told_apart_by_depth_and_some_are_named() -> None:
    listed = [
        {"table": "layers", "replicate": 0, "level": n, "path": f"c{i}", "size": 100, "remaining": 100 - 2 * n * i}
        for n in (0, 1, 2)
        for i in range(20)
    ]
    (axes,) = figures.layers(rows.results(listed)).figure.axes
    assert len({each.get_color() for each in axes.get_lines()}) == 21
    assert {*names(axes)} - {"whole network"} == {f"c{i}" for i in range(0, 20, 3)}


def test_paths_by_network_and_fork() -> None:
    axes = figures.path(whole()).figure.axes
    assert [each.get_title(loc="left") for each in axes] == ["k = 0", "k = 500", "k = 2,000"] * 2
    x, y = line(axes[0], "test")
    assert (len(x), x[0], x[-1]) == (30, 0, 1)
    assert max(y) == pytest.approx(10 + 44 * (14 / 29) * (15 / 29))
    many = figures.path(rows.results(rows.lines(forks=range(0, 900, 100)))).figure.axes
    assert [each.get_title(loc="left") for each in many[:4]] == ["k = 0", "k = 300", "k = 500", "k = 800"]


def test_barriers_with_bars_over_pairs_and_the_line_of_two_points() -> None:
    (axes,) = figures.barrier(whole()).figure.axes
    assert line(axes, "stable below 2")[1].tolist() == [2, 2]
    peak = 400 * (14 / 29) * (15 / 29)
    np.testing.assert_allclose(line(axes, "dense, test")[1], [peak * 0.11, peak * 0.11 / 6, peak * 0.11 / 21])
    bars = axes.collections[0].get_segments()
    np.testing.assert_allclose(bars[0][:, 1], [peak * 0.1, peak * 0.12])
    (axes,) = figures.barrier(rows.results(rows.lines(forks=(0, 10, 1000)))).figure.axes
    assert axes.get_xscale() == "symlog" and list(axes.get_xticks()) == [0, 10, 1000] and axes.get_xlim()[0] < 0


def test_missing_rows_give_no_figure() -> None:
    bare = rows.results([row for row in rows.lottery() if row["table"] == "results"])
    assert [getattr(figures, name)(bare) is None for name in FIGURES] == [False, True, True, True, True]
    # A table of that name with other columns is a user's own.
    assert figures.accuracy(rows.results([{"table": "results", "x": 1}])) is None
    (axes,) = figures.accuracy(rows.results([rows.lottery()[0]])).figure.axes
    assert names(axes) == ["dense, 89.90 %"]


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("replicates", [1, 3])
def test_nothing_is_clipped_and_no_labels_overlap(name: str, replicates: int) -> None:
    made = getattr(figures, name)(whole(replicates, 15, lost=[("reinit", 15, 0)]))
    canvas = FigureCanvasAgg(made.figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    width, height = made.figure.get_size_inches() * style.DPI
    texts = [each for each in made.figure.findobj(matplotlib.text.Text) if each.get_text() and each.get_visible()]
    boxes = {each: each.get_window_extent(renderer) for each in texts}
    for axes in made.figure.axes:
        for axis in (axes.xaxis, axes.yaxis):  # ticks beyond the limits are not drawn
            for tick in {*axis.get_major_ticks(), *axis.get_minor_ticks()} - {*axis._update_ticks()}:
                boxes.pop(tick.label1, None), boxes.pop(tick.label2, None)
    for text, box in boxes.items():
        assert box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height, text.get_text()
    for (one, a), (other, b) in itertools.combinations(boxes.items(), 2):
        assert not a.shrunk(0.95, 0.8).overlaps(b.shrunk(0.95, 0.8)), (one.get_text(), other.get_text())


def test_drawing_is_the_same_each_time_and_leaves_the_users_settings_alone() -> None:
    with matplotlib.rc_context({"font.size": 31, "axes.facecolor": "red"}):
        first = figures.accuracy(whole())
        assert matplotlib.rcParams["font.size"] == 31
    again = figures.accuracy(whole())
    assert again.png() == first.png() and again.svg() == first.svg()


def test_a_figure_of_a_page_says_its_numbers_where_they_are() -> None:
    made = figures.accuracy(whole(levels=1))
    text = made.svg()
    hints = dict(re.findall(r'<circle class="tip" ([^>]*)><title>([^<]*)</title>', text))
    said = {hint: place for place, hint in hints.items()}
    place = said["IMP, 80.0 % of the weights: 89.90 % (89.80 to 90.00)"]
    x, y = (float(re.search(rf'{name}="([^"]*)"', place)[1]) for name in ("cx", "cy"))
    (axes,) = made.figure.axes
    height = made.figure.get_size_inches()[1] * made.figure.dpi
    px, py = axes.transData.transform((0.8, 89.9))
    assert (x, y) == (
        pytest.approx(72 * px / made.figure.dpi, abs=0.1),
        pytest.approx(72 * (height - py) / made.figure.dpi, abs=0.1),
    )
    # Below the axis nothing can be pointed at: of arms at level 4 only those that are seen have a hint.
    far = figures.accuracy(whole(levels=12)).svg()
    assert "global random, 64.0 %" in far and "global random, 6.9 %" not in far
    # Colours are variables of the page, dark and light.
    assert not re.search(r"#[0-9a-f]{6}\b", text)
    css = style.colours_css([text])
    light, dark = css.split("@media (prefers-color-scheme: dark)")
    assert "--xffffff: #ffffff" in light and re.search(r"--xffffff: #1[0-9a-f]1[0-9a-f]1", dark)
