"""Figures of the instability analysis: the error along the path, and the barrier against the fork (thesis 4.1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullFormatter, NullLocator

from keras_lth.report import style
from keras_lth.report.results import ErrorPath, Results
from keras_lth.report.style import End
from keras_lth.report.tables import mean, percent

STABLE = 0.02
COLUMNS = 4
_TRAIN, _TEST = "#CC79A7", "#0072B2"
_LINES = {"test": (_TEST, "-", "o"), "train": (_TRAIN, "--", "s")}


def networks(paths: Iterable[ErrorPath]) -> dict[str, list[ErrorPath]]:
    """Rows by network: "dense network", then tickets from dense to sparse."""
    found = sorted(paths, key=lambda row: (row.network != "dense", row.level, row.density, row.fork_step, row.pair))
    return {name: list(rows) for name, rows in groupby(found, key=network_name)}


def network_name(row: ErrorPath) -> str:
    """Display name of a row's network."""
    return "dense network" if row.network == "dense" else f"{row.network}, {percent(row.density)} of the weights"


def barriers(rows: Iterable[ErrorPath], data: str) -> dict[int, list[float]]:
    """Fork step → instability of each pair, a share; pairs that diverged are left out."""
    out: dict[int, list[float]] = {}
    for row in sorted(rows, key=lambda row: row.fork_step):
        if row.data == data:
            out.setdefault(row.fork_step, []).extend([row.barrier] if row.whole else [])
    return out


def along(rows: Sequence[ErrorPath]) -> list[tuple[float, float, float, float]]:
    """(α, mean, least, greatest) error over pairs; pairs that diverged are left out."""
    points: dict[float, list[float]] = {}
    for row in rows:
        if row.whole:
            for alpha, error in zip(row.alphas, row.errors, strict=True):
                points.setdefault(round(alpha, 9), []).append(error)
    return [(alpha, mean(values), min(values), max(values)) for alpha, values in sorted(points.items())]


def pairs_text(results: Results, spread: str) -> str:
    """How many pairs the means are over, and what shows their spread: "bands" or "bars"."""
    counts = {
        len({(row.replicate, row.pair) for row in rows if row.fork_step == fork})
        for rows in networks(results.paths).values()
        for fork in {row.fork_step for row in rows}
    }
    if counts == {1}:
        return "one pair of data orders: no spread"
    n = str(min(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    return f"{n} pairs of data orders: lines are means, {spread} least to greatest"


def _title(results: Results) -> str:
    return results.title.rsplit(",", 1)[0]


def shown_forks(paths: Sequence[ErrorPath]) -> list[int]:
    """The fork steps that have a panel: all, or the first, the last and those evenly between."""
    forks = sorted({row.fork_step for row in paths})
    if len(forks) <= COLUMNS:
        return forks
    return [forks[round(i * (len(forks) - 1) / (COLUMNS - 1))] for i in range(COLUMNS)]


@style.styled
def path(results: Results) -> Figure | None:
    """The error between two trainings from one fork, a panel a network and fork step (thesis fig. 4-2)."""
    if not results.paths:
        return None
    groups, forks = networks(results.paths), shown_forks(results.paths)
    figure, grid = style.canvas(
        1.75 + 2.35 * len(groups),
        "Error on the line between two trainings that share their first k steps",
        f"{_title(results)}; {pairs_text(results, 'bands')}. The trained networks are at 0 and 1.",
        rows=len(groups),
        columns=len(forks),
        headed=True,
        sharex=True,
        sharey=True,
    )
    top = 0.0
    for (name, rows), line in zip(groups.items(), grid, strict=True):
        for fork, axes in zip(forks, line, strict=True):
            axes.set_title(f"{name}, k = {fork:,}" if len(forks) <= 2 else f"k = {fork:,}", fontsize=10.5)
            axes.set_xlim(0, 1)
            axes.xaxis.set_major_locator(FixedLocator([0, 0.5, 1]))
            axes.xaxis.set_major_formatter(FixedFormatter(["0", "½", "1"]))
            here = [row for row in rows if row.fork_step == fork]
            if not here:
                axes.text(0.5, 0.5, "not run", transform=axes.transAxes, ha="center", color=style.GRAY)
            top = max(top, _draw_errors(axes, here))
        line[0].set_ylabel(f"{name.replace(', ', chr(10))}\nerror, %", fontsize=10)
    for axes in grid[-1]:
        axes.set_xlabel("place on the line, α")
    grid[0, 0].set_ylim(0, max(1.0, 1.12 * top))
    grid[0, 0].yaxis.set_major_locator(MaxNLocator(nbins=5))
    figure.subplots_adjust(left=0.125, wspace=0.12, hspace=0.28)
    for line in grid:
        ends = [
            End(1.0, drawn.get_ydata()[-1], str(drawn.get_label()), str(drawn.get_color()))
            for drawn in line[-1].get_lines()
            if len(drawn.get_ydata())
        ]
        style.label_ends(figure, line[-1], ends)
    style.widen_right(figure)
    return figure


def _draw_errors(axes: Axes, rows: Sequence[ErrorPath]) -> float:
    """Test and train errors in per cent; returns the greatest."""
    top = 0.0
    for data in sorted({row.data for row in rows}):
        points = along([row for row in rows if row.data == data])
        if not points:
            continue
        alphas, middle, least, most = (list(column) for column in zip(*points, strict=True))
        colour, dash, _ = _LINES.get(data, ("#009E73", ":", "^"))
        axes.plot(alphas, [100 * v for v in middle], dash, color=colour, label=data)
        axes.fill_between(alphas, [100 * v for v in least], [100 * v for v in most], color=colour, alpha=0.18, lw=0)
        top = max(top, 100 * max(most))
    return top


@style.styled
def barrier(results: Results) -> Figure | None:
    """Instability against the fork step, with the line below which a network is stable (thesis fig. 4-3)."""
    if not results.paths:
        return None
    groups = networks(results.paths)
    figure, grid = style.canvas(
        4.4, "Instability against the step of the fork", f"{_title(results)}; {pairs_text(results, 'bars')}"
    )
    axes: Axes = grid[0, 0]
    forks = sorted({row.fork_step for row in results.paths})
    top = 100 * STABLE
    ends = []
    for index, (name, rows) in enumerate(groups.items()):
        colour = style.SERIES[index % len(style.SERIES)]
        # Test above train: they often coincide (thesis 4.1.2), and the larger hollow markers of train stay visible.
        for data in sorted({row.data for row in rows}, reverse=True):
            points = {fork: values for fork, values in barriers(rows, data).items() if values}
            if not points:
                continue
            test = data == "test"
            x, y = list(points), [100 * mean(values) for values in points.values()]
            axes.errorbar(
                x,
                y,
                yerr=_bars(points),
                color=colour,
                ls="-" if test else "--",
                marker=style.SHAPES[index % len(style.SHAPES)],
                markerfacecolor=colour if test else "white",
                markersize=5 if test else 9,
                capsize=3,
                elinewidth=1,
                label=f"{name}, {data}",
            )
            short = "dense" if name == "dense network" else name.split(" of the")[0]
            ends.append(End(x[-1], y[-1], f"{short}, {data}", colour))
            top = max(top, *(100 * max(values) for values in points.values()))
    axes.axhline(100 * STABLE, color=style.GRAY, ls=":", lw=1.4, label="2 points")
    _fork_axis(axes, forks)
    ends.append(End(axes.get_xlim()[1], 100 * STABLE, "stable below 2", style.GRAY))
    axes.set_ylim(min(0.0, 1.1 * _least(results.paths)), 1.12 * top)
    style.percent_axis(axes, "instability, points of error\n(highest on the line − mean of the ends)")
    figure.subplots_adjust(left=0.1)
    style.label_ends(figure, axes, ends)
    style.widen_right(figure)
    return figure


def _bars(points: Mapping[int, Sequence[float]]) -> list[list[float]]:
    return [
        [100 * (mean(values) - min(values)) for values in points.values()],
        [100 * (max(values) - mean(values)) for values in points.values()],
    ]


def _least(paths: Iterable[ErrorPath]) -> float:
    return min((100 * row.barrier for row in paths if row.whole), default=0.0)


def _fork_axis(axes: Axes, forks: Sequence[int]) -> None:
    """A tick a fork step; logarithmic beyond the first step when they span more than a factor of ten."""
    positive = [fork for fork in forks if fork]
    if positive and positive[-1] > 10 * positive[0]:
        axes.set_xscale("symlog", linthresh=positive[0])
        axes.set_xlim(-0.15 * positive[0] if forks[0] == 0 else 0.8 * positive[0], 1.15 * positive[-1])
    else:
        room = 0.04 * max(1, forks[-1] - forks[0])
        axes.set_xlim(forks[0] - room, forks[-1] + room)
    axes.xaxis.set_major_locator(FixedLocator(list(forks)))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{fork:,}" for fork in forks]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("step k at which the trainings part" + (" (log scale)" if axes.get_xscale() == "symlog" else ""))
