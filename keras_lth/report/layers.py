"""How IMP's cuts fall on the layers: the figure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from keras_lth.report import style
from keras_lth.report.results import Layer, Results
from keras_lth.report.style import End
from keras_lth.report.tables import mean


@style.styled
def layers(results: Results) -> Figure | None:
    """The density of each layer's mask against the level, that is, against the network's density."""
    if not any(row.level for row in results.layers):
        return None
    paths = list(dict.fromkeys(row.path for row in results.layers))
    below = f"{results.title}; {style.spread_text(results)}"
    figure, grid = style.canvas(5.0, "Density of each layer at each level of IMP", below)
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
    axes.yaxis.set_major_locator(
        FixedLocator([t for e in range(-6, 3) for m in (1, 2, 5) if low <= (t := m * 10.0**e) <= 130])
    )
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
    notes = ["✖ the layer has no weight left"] if emptied else []
    if len(paths) > 8:
        notes.append("dark to light: input to output, not every layer is named")
    style.footnote(figure, notes)
    style.label_ends(figure, axes, ends)
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
