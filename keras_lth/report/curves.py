"""Training curves at chosen densities: which are shown, their means, and the figure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import matplotlib
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from keras_lth.report import style
from keras_lth.report.results import DENSE_ARM, Curve, Results
from keras_lth.report.style import End
from keras_lth.report.tables import arm_name, mean, percent, summarise

Line = list[tuple[int, float, float, float]]


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
        4.7, "Test accuracy through training", f"{results.title}; {style.spread_text(results)}", headed=True, **shared
    )
    lines = {level: averaged(results.curves, DENSE_ARM, level) for level in levels}
    densities = {row.level: row.density for row in results.curves}
    looks = [_level_look(level, i, len(levels), densities[level]) for i, level in enumerate(levels)]
    panels = [[(lines[level], *look) for level, look in zip(levels, looks, strict=True)]]
    titles = ["IMP, by weights remaining"]
    if compared is not None:
        arms = [(averaged(results.curves, arm, compared), *_arm_look(arm)) for arm in summarise(results).arms]
        panels.append([(averaged(results.curves, DENSE_ARM, 0), style.GRAY, "", "dense"), *arms])
        titles.append(f"{percent(densities[compared])} of the weights, by arm")
    finals = [100 * line[-1][1] for line in lines.values() if line]
    early = [100 * line[max(0, len(line) // 8)][2] for panel in panels for line, *_ in panel if line]
    top = max(100 * point[3] for panel in panels for line, *_ in panel for point in line)
    low = style.lower_limit(top, finals, early)
    room = max(0.04 * (top - low), 0.05)
    for axes, panel, title in zip(grid[0], panels, titles, strict=True):
        axes.set_title(title)
        style.step_axis(axes)
        axes.set_ylim(low - room, min(100.0, top) + room)
        for line, colour, marker, name in panel:
            if not line:
                continue
            steps, middle, least, most = (list(column) for column in zip(*line, strict=True))
            every = max(1, len(steps) // 8)
            look = {"marker": marker, "markevery": every, "markersize": 4.5, "color": colour}
            axes.plot(steps, [100 * v for v in middle], label=name, **look)
            axes.fill_between(steps, [100 * v for v in least], [100 * v for v in most], color=colour, alpha=0.14, lw=0)
    style.percent_axis(grid[0, 0], "test accuracy, %")
    if compared is not None:
        figure.subplots_adjust(wspace=0.3)
    for axes, panel in zip(grid[0], panels, strict=True):
        style.label_ends(figure, axes, [_end(name, line, low, colour) for line, colour, _, name in panel if line])
    style.footnote(figure, ["The first steps lie below the axis."] if _below(panels, low) else [])
    style.widen_right(figure)
    return figure


def _below(panels: Iterable[Iterable[tuple[Line, str, str, str]]], low: float) -> bool:
    return any(100 * point[1] < low for panel in panels for line, *_ in panel for point in line)


def _end(name: str, line: Line, low: float, colour: str) -> End:
    step, last = line[-1][0], 100 * line[-1][1]
    return End(step, last, name if last >= low else f"{name} ({last:.1f} %, below)", colour)


def _arm_look(arm: str) -> tuple[str, str, str]:
    return style.colour_of(arm), style.marker_of(arm), arm_name(arm)


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
        _, at = max((b - a, a) for a, b in itertools.pairwise(between))
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
