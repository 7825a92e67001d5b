"""The figures of a run, from plain rows: each function returns a ``Figure``, or ``None`` when its rows are missing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from keras_lth.report import style
from keras_lth.report.instability import barrier, path
from keras_lth.report.results import DENSE_ARM, Curve, Layer, Results
from keras_lth.report.style import End
from keras_lth.report.tables import Cell, Summary, arm_name, mean, percent, summarise

__all__ = ["accuracy", "barrier", "curves", "layers", "path"]

Line = list[tuple[int, float, float, float]]


def _spread_text(results: Results) -> str:
    return "lines are means, bands least to greatest" if len(results.replicates) > 1 else "one replicate: no spread"


@style.styled
def accuracy(results: Results) -> Figure:
    """Accuracy against density, a line an arm, the dense network as a gray line (thesis figs. 3-7, 3-1)."""
    summary = summarise(results)
    figure, grid = style.canvas(
        5.2, "Test accuracy against weights remaining", f"{results.title}; {_spread_text(results)}"
    )
    axes: Axes = grid[0, 0]
    cells = {arm: [c for c in found if c.values] for arm, found in summary.arms.items()}
    style.density_axis(axes, [c.density for found in summary.arms.values() for c in found])
    style.percent_axis(axes, "test accuracy after the last step, %")
    low, high = _accuracy_limits(summary)
    axes.set_ylim(low, high)
    ends = _dense_band(axes, summary.dense)
    notes = ["● mean at least the dense mean   ○ below it"] if summary.dense and any(cells.values()) else []
    clipped = False
    for index, (arm, line) in enumerate(cells.items()):
        colour, marker = style.colour_of(arm), style.marker_of(arm)
        start = [summary.dense] if arm == DENSE_ARM and summary.dense and summary.dense.values else []
        whole = [*start, *line]
        x, y = [c.density for c in whole], [100 * c.mean for c in whole]
        if whole:
            axes.plot(x, y, color=colour, label=arm_name(arm), zorder=3)
            axes.fill_between(x, [100 * c.low for c in whole], [100 * c.high for c in whole], color=colour, alpha=0.16, lw=0)
        for cell in line:
            face = colour if cell.reaches else "white"
            if 100 * cell.mean >= low:
                axes.plot(
                    [cell.density], [100 * cell.mean], marker, color=colour, markerfacecolor=face, zorder=4, label="_point"
                )
            else:
                clipped = True
                height = low + (high - low) * (0.015 + 0.032 * index)
                axes.plot([cell.density], [height], "v", color=colour, markerfacecolor=colour, zorder=4, label="_clipped")
        lost = [c for c in summary.arms[arm] if c.diverged]
        for cell in lost:
            height = low + (high - low) * (0.03 + 0.032 * index)
            axes.plot([cell.density], [height], "X", color=colour, markersize=8, zorder=5, label="_diverged")
        text = arm_name(arm)
        if line and y[-1] < low:
            text += f"\n{y[-1]:.1f} %, below the axis"
        if line:
            ends.append(End(x[-1], y[-1], text, colour))
    if clipped:
        notes.append("▼ mean below the axis")
    if any(c.diverged for found in summary.arms.values() for c in found):
        notes.append("✖ a replicate diverged, left out")
    style.footnote(figure, notes)
    style.label_ends(axes, ends)
    style.widen_right(figure)
    return figure


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


@style.styled
def curves(results: Results) -> Figure | None:
    """Test accuracy through training: IMP at chosen densities, and beside it the reinitialised subnetwork of one
    density (thesis figs. 3-1, 3-2)."""
    levels = curve_levels(results)
    if not levels:
        return None
    compared = compared_level(results)
    shared = {"columns": 2, "sharey": True} if compared is not None else {}
    figure, grid = style.canvas(
        4.7, "Test accuracy through training", f"{results.title}; {_spread_text(results)}", **shared
    )
    lines = {level: averaged(results.curves, DENSE_ARM, level) for level in levels}
    densities = {row.level: row.density for row in results.curves}
    panels = [[(lines[0] if level == 0 else lines[level], *_level_look(level, i, len(levels), densities[level]))
               for i, level in enumerate(levels)]]  # fmt: skip
    titles = ["IMP, by weights remaining"]
    if compared is not None:
        arms = [DENSE_ARM, *sorted({r.arm for r in results.curves if r.level == compared} - {DENSE_ARM})]
        arms = [arm for arm in summarise(results).arms if arm in arms] or arms
        second = [(averaged(results.curves, a, compared), style.colour_of(a), style.marker_of(a), arm_name(a)) for a in arms]
        dense = averaged(results.curves, DENSE_ARM, 0)
        panels.append(([(dense, style.GRAY, "", "dense")] if dense else []) + second)
        titles.append(f"{percent(densities[compared])} of the weights, by arm")
    finals = [100 * line[-1][1] for line in lines.values() if line]
    early = [100 * line[max(0, len(line) // 8)][2] for panel in panels for line, *_ in panel if line]
    top = max(100 * point[3] for panel in panels for line, *_ in panel for point in line)
    low = style.lower_limit(top, finals, early)
    for axes, panel, title in zip(grid[0], panels, titles, strict=True):
        axes.set_title(title)
        style.step_axis(axes)
        axes.set_ylim(low - 0.04 * (top - low), min(100.0, top) + 0.04 * (top - low))
        for line, colour, marker, name in panel:
            if not line:
                continue
            steps, middle, least, most = (list(column) for column in zip(*line, strict=True))
            every = max(1, len(steps) // 8)
            axes.plot(
                steps, [100 * v for v in middle], marker=marker, markevery=every, color=colour, label=name, markersize=4.5
            )
            axes.fill_between(steps, [100 * v for v in least], [100 * v for v in most], color=colour, alpha=0.14, lw=0)
    style.percent_axis(grid[0, 0], "test accuracy, %")
    if compared is not None:
        figure.subplots_adjust(wspace=0.3)
    for axes, panel in zip(grid[0], panels, strict=True):
        ends = [End(line[-1][0], 100 * line[-1][1], _end_text(name, line, low), colour) for line, colour, _, name in panel if line]
        style.label_ends(axes, ends)
    style.footnote(figure, ["The first steps lie below the axis."] if _below(panels, low) else [])
    style.widen_right(figure)
    return figure


def _below(panels: Iterable[Iterable[tuple[Line, str, str, str]]], low: float) -> bool:
    return any(100 * point[1] < low for panel in panels for line, *_ in panel for point in line)


def _end_text(name: str, line: Line, low: float) -> str:
    last = 100 * line[-1][1]
    return name if last >= low else f"{name} ({last:.1f} %, below)"


def _level_look(level: int, index: int, count: int, density: float) -> tuple[str, str, str]:
    if level == 0:
        return style.GRAY, "", "dense"
    shade = matplotlib.colormaps["viridis"](0.05 + 0.75 * (index - 1) / max(1, count - 2))
    return to_hex(shade), style.SHAPES[(index - 1) % len(style.SHAPES)], percent(density)


def averaged(rows: Iterable[Curve], arm: str, level: int) -> Line:
    """A training curve over replicates: (step, mean, least, greatest) a test; diverged replicates are left out."""
    steps: dict[int, list[float]] = {}
    for row in rows:
        if row.arm == arm and row.level == level and math.isfinite(row.accuracy):
            steps.setdefault(row.step, []).append(row.accuracy)
    return [(step, mean(values), min(values), max(values)) for step, values in sorted(steps.items())]


def curve_levels(results: Results) -> list[int]:
    """The levels whose curves are shown: dense, the sparsest that reaches it, the sparsest of all, two between."""
    present = sorted({row.level for row in results.curves if row.arm == DENSE_ARM and math.isfinite(row.accuracy)})
    if len(present) <= 5:
        return present
    best = summarise(results).sparsest(DENSE_ARM)
    marks = [0, best.level, present[-1]] if best else [0, present[-1]]
    chosen = {min(present, key=lambda level: abs(level - mark)) for mark in marks}
    while len(chosen) < 5:
        between = sorted(chosen)
        _, at = max((b - a, a) for a, b in zip(between, between[1:], strict=False))
        right = between[between.index(at) + 1]
        inside = [level for level in present if at < level < right]
        if not inside:
            break
        chosen.add(min(inside, key=lambda level: abs(level - (at + right) / 2)))
    return sorted(chosen)


def compared_level(results: Results) -> int | None:
    """The level at which IMP and the reinitialised subnetwork are shown side by side: IMP's sparsest that reaches the
    dense accuracy, else the middle one."""
    per_arm = [{r.level for r in results.curves if r.arm == arm and r.level} for arm in (DENSE_ARM, "reinit")]
    both = sorted(set.intersection(*per_arm))
    if not both:
        return None
    best = summarise(results).sparsest(DENSE_ARM)
    return min(both, key=lambda level: abs(level - best.level)) if best else both[len(both) // 2]


@style.styled
def layers(results: Results) -> Figure | None:
    """The density of each layer's mask against the level, that is, against the network's density."""
    if not any(row.level for row in results.layers):
        return None
    paths = list(dict.fromkeys(row.path for row in results.layers))
    figure, grid = style.canvas(5.0, "Density of each layer at each level of IMP", f"{results.title}; {_spread_text(results)}")
    axes: Axes = grid[0, 0]
    levels = sorted({row.level for row in results.layers})
    overall = {level: _overall([row for row in results.layers if row.level == level]) for level in levels}
    style.density_axis(axes, overall.values(), label=False)
    axes.set_xlabel("weights remaining in the network, % (log scale, a tick a level)")
    axes.set_yscale("log")
    axes.set_ylabel("weights remaining in the layer, % (log scale)")
    least = min([row.density for row in results.layers if row.remaining] + list(overall.values()))
    low = 100 * least / 1.6
    axes.set_ylim(low, 130)
    axes.yaxis.set_major_locator(FixedLocator([m * 10.0**e for e in range(-6, 3) for m in (1, 2, 5)]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    x = [overall[level] for level in levels]
    axes.plot(x, [100 * each for each in x], color=style.GRAY, ls="--", lw=1.2, label="whole network")
    ends = [End(x[-1], 100 * x[-1], "whole network", style.GRAY)]
    emptied = False
    for index, name in enumerate(paths):
        colour, marker = _layer_look(index, len(paths))
        points = [_of_layer(results.layers, name, level) for level in levels]
        middle = [mean(p) for p in points]
        kept = [i for i, value in enumerate(middle) if value > 0]
        gone = [i for i, value in enumerate(middle) if value == 0]
        axes.plot([x[i] for i in kept], [100 * middle[i] for i in kept], marker=marker, color=colour, label=name)
        axes.fill_between(
            [x[i] for i in kept], [100 * min(points[i]) for i in kept], [100 * max(points[i]) for i in kept],
            color=colour, alpha=0.16, lw=0,
        )  # fmt: skip
        axes.plot([x[i] for i in gone], [low * 1.08] * len(gone), "X", color=colour, markersize=8, label="_empty")
        emptied = emptied or bool(gone)
        if len(paths) <= 8 or index % math.ceil(len(paths) / 8) == 0:
            last = kept[-1] if kept else 0
            ends.append(End(x[last], 100 * middle[last], name + (" (empty)" if gone else ""), colour))
    style.footnote(figure, ["✖ the layer has no weight left"] if emptied else [])
    style.label_ends(axes, ends)
    style.widen_right(figure)
    return figure


def _layer_look(index: int, count: int) -> tuple[str, str]:
    if count <= len(style.SERIES):
        return style.SERIES[index], style.SHAPES[index]
    return to_hex(matplotlib.colormaps["cividis"](index / (count - 1))), ""


def _of_layer(rows: Sequence[Layer], path: str, level: int) -> list[float]:
    return [row.density for row in rows if row.path == path and row.level == level]


def _overall(rows: Sequence[Layer]) -> float:
    return sum(row.remaining for row in rows) / sum(row.size for row in rows)
