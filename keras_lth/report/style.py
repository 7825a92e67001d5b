"""What the figures share: colours, axes, labels at the ends of lines; drawn with Agg, without pyplot's state."""

from __future__ import annotations

import functools
import io
import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, ParamSpec, TypeVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from keras_lth.report.results import Results
from keras_lth.report.tables import percent

P = ParamSpec("P")
F = TypeVar("F")
DPI = 130
WIDTH = 9.0
GRAY = "#666666"
# Okabe and Ito's colours, told apart by the colour-blind; the hues of the thesis' figure 3-7.
COLOURS = {"imp": "#0072B2", "reinit": "#E69F00", "random_global": "#009E73", "random_layerwise": "#D55E00"}
MARKERS = {"imp": "o", "reinit": "s", "random_global": "^", "random_layerwise": "D"}
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D1F")
SHAPES = ("o", "s", "^", "D", "v", "P", "X", "<")
_STYLE = {
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "font.family": ["DejaVu Sans"],
    "font.size": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#444444",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e3e3e3",
    "axes.axisbelow": True,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "lines.linewidth": 1.7,
    "lines.markersize": 5.5,
}


class End(NamedTuple):
    """The last point of a line, and what it is called."""

    x: float
    y: float
    text: str
    colour: str


def styled(draw: Callable[P, F]) -> Callable[P, F]:
    """Draw with this package's settings, whatever the user's are, and leave theirs as they were."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **options: P.kwargs) -> F:
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(_STYLE)
            return draw(*args, **options)

    return drawn


def canvas(
    height: float, title: str, below: str, *, rows: int = 1, columns: int = 1, headed: bool = False, **shared: Any
) -> tuple[Figure, Any]:
    """A figure of the common width with its title and the line below it; axes, ``headed`` by titles or not, as a
    rows × columns array."""
    figure = Figure(figsize=(WIDTH, height), dpi=DPI)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **shared)
    lines = textwrap.wrap(below, 116)
    figure.text(0.012, 1 - 0.1 / height, title, fontsize=13, fontweight="bold", va="top")
    figure.text(0.012, 1 - 0.38 / height, "\n".join(lines), color="#444444", va="top", linespacing=1.25)
    top = 0.5 + 0.19 * len(lines) + (0.3 if headed else 0.0)
    figure.subplots_adjust(left=0.085, right=0.97, bottom=0.62 / height, top=1 - top / height)
    return figure, axes


def spread_text(results: Results) -> str:
    """What lines and bands are."""
    return "lines are means, bands least to greatest" if len(results.replicates) > 1 else "no spread to show"


def footnote(figure: Figure, texts: Sequence[str]) -> None:
    """Below the axes: what marks mean, if there are any."""
    if texts:
        height = figure.get_size_inches()[1]
        figure.text(0.012, 0.09 / height, "     ".join(texts), fontsize=9, color="#444444", va="bottom")
        figure.subplots_adjust(bottom=0.85 / height)


def label_ends(figure: Figure, axes: Axes, ends: Iterable[End], size: float = 10) -> None:
    """Name lines at their right ends, outside the axes, moved apart where they would overlap.

    Lines that end outside the limits are named at the edge. Call it when limits and margins are set.
    """
    inches = axes.get_position().height * figure.get_size_inches()[1]
    to_axes = axes.transData + axes.transAxes.inverted()
    placed = [(min(1.0, max(0.0, float(to_axes.transform((end.x, end.y))[1]))), end) for end in ends]
    placed.sort(key=lambda each: (each[0], each[1].y))
    gap = min(1.3 * size / 72 / inches, 1 / max(1, len(placed) - 1))
    heights = spread([height for height, _ in placed], gap)
    inch = 1 / (axes.get_position().width * WIDTH)
    for (height, end), moved in zip(placed, heights, strict=True):
        across = min(1.0, float(to_axes.transform((end.x, end.y))[0]))
        # A line that ends early must not seem to go on.
        dots = ":" if across < 0.93 else "-"
        leader = [across + 0.06 * inch, 1 + 0.16 * inch], [height, moved]
        axes.plot(*leader, color=end.colour, lw=0.8, ls=dots, transform=axes.transAxes, clip_on=False, label="_leader")
        look: dict[str, Any] = {"color": darker(end.colour), "fontsize": size, "va": "center", "gid": "end"}
        axes.text(1 + 0.21 * inch, moved, end.text, transform=axes.transAxes, **look)


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Ascending heights in [0, 1], moved as little as needed, in order, to lie at least ``gap`` apart in [0, 1]."""
    # Labels that touch form a group around their members' mean place; groups that meet become one.
    groups: list[tuple[float, int]] = []
    for height in heights:
        group = (height, 1)
        while groups and group[0] - groups[-1][0] < gap * (group[1] + groups[-1][1]) / 2:
            centre, n = groups.pop()
            whole = n + group[1]
            half = gap * (whole - 1) / 2
            middle = (centre * n + group[0] * group[1]) / whole
            group = (max(half, min(1 - half, middle)), whole)
        groups.append(group)
    return [centre + gap * (i - (n - 1) / 2) for centre, n in groups for i in range(n)]


def widen_right(figure: Figure, *, least: float = 0.02) -> None:
    """Move the axes' right edges in until the labels at line ends fit: between panels, and in the figure."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    inches = figure.get_size_inches()[0]
    widest = max(
        (
            text.get_window_extent(renderer).width / DPI / inches
            for axes in figure.axes
            for text in axes.texts
            if text.get_gid() == "end"
        ),
        default=0.0,
    )
    figure.subplots_adjust(right=1 - max(least, widest + 0.21 / inches + 0.01))


def density_axis(axes: Axes, densities: Iterable[float], *, label: bool = True, most: int = 11) -> None:
    """Log axis from dense at the left to sparse at the right; a tick a level, labelled in % where there is room."""
    levels = sorted({round(density, 12) for density in [1.0, *densities]}, reverse=True)
    sparsest = min(levels[-1], 0.8)
    axes.set_xscale("log")
    axes.set_xlim(1 / sparsest**0.03, sparsest**1.03)
    named: list[float] = []
    room = math.log(1 / sparsest) / most
    for density in levels:
        from_last = density == levels[-1] or math.log(density / levels[-1]) >= room
        if not named or (from_last and math.log(named[-1] / density) >= room * 0.999):
            named.append(density)
    if named[-1] != levels[-1]:
        named.append(levels[-1])
    axes.xaxis.set_major_locator(FixedLocator(named))
    axes.xaxis.set_major_formatter(FixedFormatter([percent(density).removesuffix(" %") for density in named]))
    axes.xaxis.set_minor_locator(FixedLocator([density for density in levels if density not in named]))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if label:
        axes.set_xlabel("weights remaining, % (log scale, a tick a level)")


def percent_axis(axes: Axes, label: str) -> None:
    """A linear y-axis in per cent or points."""
    axes.yaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10]))
    axes.set_ylabel(label)


def step_axis(axes: Axes, label: str = "training step") -> None:
    """An x-axis of steps: whole numbers, thousands separated."""
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axes.set_xlabel(label)


def lower_limit(top: float, reference: Sequence[float], others: Sequence[float]) -> float:
    """The lower end of an axis whose interesting part is near ``top``, in per cent.

    All of ``reference`` is always seen, 2 points at least. ``others`` are seen whole unless they fall five times as
    far: then the axis ends at four times, and what lies below is for the caller to mark.
    """
    below = [value for value in reference if math.isfinite(value)]
    depth = max(2.0, top - min(below, default=top))
    lowest = min([value for value in others if math.isfinite(value)] + below, default=top)
    return lowest if top - lowest <= 5 * depth else top - 4 * depth


def colour_of(arm: str) -> str:
    """An arm's colour."""
    return COLOURS.get(arm, "#CC79A7")


def marker_of(arm: str) -> str:
    """An arm's marker."""
    return MARKERS.get(arm, "v")


def darker(colour: str) -> tuple[float, float, float]:
    """A line's colour for text: dark enough on white."""
    red, green, blue = to_rgb(colour)
    return red * 0.72, green * 0.72, blue * 0.72


def png(figure: Figure) -> bytes:
    """The figure as a PNG file, the same bytes for the same data."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=DPI, metadata={"Software": None})
    return out.getvalue()
