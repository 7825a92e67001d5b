"""The figures of a run, from plain rows: each function returns a ``Figure``, or ``None`` when its rows are missing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_lth.report import style
from keras_lth.report.curves import curves
from keras_lth.report.instability import barrier, path
from keras_lth.report.layers import layers
from keras_lth.report.results import DENSE_ARM, Results
from keras_lth.report.style import End
from keras_lth.report.tables import Cell, Summary, arm_name, summarise

__all__ = ["accuracy", "barrier", "curves", "layers", "path"]


@style.styled
def accuracy(results: Results) -> Figure:
    """Accuracy against density, a line an arm, the dense network as a gray line (thesis figs. 3-7, 3-1)."""
    summary = summarise(results)
    figure, grid = style.canvas(
        5.2, "Test accuracy against weights remaining", f"{results.title}; {style.spread_text(results)}"
    )
    axes: Axes = grid[0, 0]
    cells = {arm: [c for c in found if c.values] for arm, found in summary.arms.items()}
    style.density_axis(axes, [c.density for found in summary.arms.values() for c in found])
    style.percent_axis(axes, "test accuracy after the last step, %")
    low, high = _accuracy_limits(summary)
    # What the axis does not hold stands at its foot, below all points: a row for each arm and kind.
    kinds = [any(100 * c.mean < low for c in found) + any(c.diverged for c in found) for found in summary.arms.values()]
    step = 0.035 * (high - low)
    low -= step * sum(kinds)
    feet = (low + step * (0.6 + i) for i in itertools.count())
    axes.set_ylim(low, high)
    ends = _dense_band(axes, summary.dense)
    notes = ["● mean at least the dense mean   ○ below it"] if summary.dense and any(cells.values()) else []
    for arm, line in cells.items():
        colour = style.colour_of(arm)
        start = [summary.dense] if arm == DENSE_ARM and summary.dense and summary.dense.values else []
        _draw_arm(axes, arm, [*start, *line])
        below = [c.density for c in line if 100 * c.mean < low]
        if below:
            axes.plot(below, [next(feet)] * len(below), "v", color=colour, zorder=5, label="_clipped")
        lost = [c.density for c in summary.arms[arm] if c.diverged]
        if lost:
            axes.plot(lost, [next(feet)] * len(lost), "X", color=colour, markersize=8, zorder=5, label="_diverged")
        last = 100 * line[-1].mean if line else low
        text = arm_name(arm) if line else f"{arm_name(arm)}: diverged"
        text += f" ▼ {last:.1f} %" if last < low else ""
        ends.append(End(line[-1].density if line else axes.get_xlim()[1], last, text, colour))
    drawn = {str(each.get_label()) for each in axes.get_lines()}
    notes += ["▼ mean below the axis"] if "_clipped" in drawn else []
    notes += ["✖ a replicate diverged, left out"] if "_diverged" in drawn else []
    style.footnote(figure, notes)
    style.label_ends(figure, axes, ends)
    style.widen_right(figure)
    return figure


def _draw_arm(axes: Axes, arm: str, cells: Sequence[Cell]) -> None:
    """Mean, spread, and a marker a level: filled where the mean reaches the dense one."""
    colour, x = style.colour_of(arm), [c.density for c in cells]
    axes.plot(x, [100 * c.mean for c in cells], color=colour, label=arm_name(arm), zorder=3)
    axes.fill_between(x, [100 * c.low for c in cells], [100 * c.high for c in cells], color=colour, alpha=0.16, lw=0)
    for cell in cells:
        if cell.level:
            look: dict[str, Any] = {
                "color": colour,
                "markerfacecolor": colour if cell.reaches else "white",
                "zorder": 4,
            }
            axes.plot([cell.density], [100 * cell.mean], style.marker_of(arm), label="_point", **look)


def _accuracy_limits(summary: Summary) -> tuple[float, float]:
    """The y-axis in per cent: IMP whole, the other arms as far as they are near."""
    reference = [100 * c.low for c in summary.arms.get(DENSE_ARM, ())]
    if summary.dense:
        reference.append(100 * summary.dense.low)
    others = [100 * c.low for line in summary.arms.values() for c in line]
    tops = [100 * c.high for line in [*summary.arms.values(), [summary.dense]] for c in line if c]
    top = max((value for value in tops if math.isfinite(value)), default=100.0)
    low = style.lower_limit(top, reference, others)
    room = max(0.06 * (top - low), 0.05)
    return low - room, min(top + room, 100.0 + room / 2)


def _dense_band(axes: Axes, dense: Cell | None) -> list[End]:
    if dense is None or not dense.values:
        return []
    axes.axhline(100 * dense.mean, color=style.GRAY, lw=1.4, zorder=2, label="dense")
    if dense.spread:
        axes.axhspan(100 * dense.low, 100 * dense.high, color=style.GRAY, alpha=0.16, lw=0, label="_dense")
    return [End(axes.get_xlim()[1], 100 * dense.mean, f"dense, {100 * dense.mean:.2f} %", style.GRAY)]
