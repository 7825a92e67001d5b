"""What the figures share: colours, axes, lines with bands, and how they are saved; with Agg and SVG, no windows."""

from __future__ import annotations

import colorsys
import functools
import io
import math
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, ParamSpec, TypeVar

import matplotlib
import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullFormatter, NullLocator

from keras_lth.report.numbers import percent

P = ParamSpec("P")
F = TypeVar("F")
DPI = 130
WIDTH = 9.0
PAPER, GRAY = "#ffffff", "#666666"
# Okabe and Ito's colours, which the colour-blind can distinguish; those of arms as in the thesis' figure 3-7.
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D1F")
SHAPES = ("o", "s", "^", "D", "v", "P", "X", "<")
DASHES = ("-", "--", ":", "-.")
_ARMS = {
    "imp": ("#0072B2", "o"),
    "reinit": ("#E69F00", "s"),
    "random_global": ("#009E73", "^"),
    "random_layerwise": ("#D55E00", "D"),
    "imp_one_shot": ("#D55E00", "s"),
    "reset": ("#56B4E9", "P"),
    "lrr": ("#CC79A7", "v"),
    "lrr_one_shot": ("#8C6D1F", "P"),
    "scratch": ("#56B4E9", "D"),
    "fine_tuning": ("#E69F00", "X"),
    "low_rate": ("#56B4E9", "<"),
    "cyclic": ("#000000", "P"),
    "signs": ("#56B4E9", "v"),
    "magnitude_after": ("#000000", "P"),
    "ltr": ("#8C6D1F", "X"),
    "magnitude": ("#0072B2", "o"),
    "snip": ("#D55E00", "s"),
    "snip_iterative": ("#D55E00", "<"),
    "grasp": ("#009E73", "^"),
    "grasp_absolute": ("#009E73", "v"),
    "synflow": ("#CC79A7", "D"),
    "random": ("#E69F00", "."),
    "shuffled": ("#8C6D1F", "X"),
    "noise": ("#000000", "<"),
    "dense": ("#666666", "."),
    "dynamic": ("#CC79A7", "D"),
    "static": ("#E69F00", "s"),
    "rigl": ("#009E73", "^"),
    "first_magnitude": ("#0072B2", "o"),
    "first_random": ("#56B4E9", "P"),
    "grow_gradient": ("#009E73", "v"),
    "grow_random": ("#8C6D1F", "X"),
    "overlap_50": ("#E69F00", "<"),
    "overlap_80": ("#D55E00", "s"),
    "fresh": ("#000000", "P"),
    "recipe": ("#5B3A9E", "^"),
}
_STYLE = {
    **seaborn.axes_style("ticks", {"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True}),
    "axes.grid.axis": "y", "grid.color": "#e3e3e3", "axes.titlesize": 11, "axes.titlelocation": "left",
    "font.family": ["DejaVu Sans"], "font.size": 10.5, "lines.linewidth": 1.7, "lines.markersize": 5.5,
    "legend.frameon": False, "legend.fontsize": 10, "svg.fonttype": "none", "svg.hashsalt": "keras_lth",
}  # fmt: skip


def styled(draw: Callable[P, F]) -> Callable[P, F]:
    """Draw with this package's settings, whatever the user's are, and leave the user's unchanged."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **options: P.kwargs) -> F:
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(_STYLE)
            return draw(*args, **options)

    return drawn


@dataclass
class Drawing:
    """A figure, its axes as a rows × columns array, and the texts shown when pointing at marks."""

    figure: Figure
    grid: Any
    tips: list[tuple[Axes, float, float, str]] = field(default_factory=list)

    def line(
        self, axes: Axes, x: Iterable[Any], y: Iterable[Any], name: str, place: Callable[[float], str], **look: Any
    ) -> pd.DataFrame:
        """Draw the means of shares ``y`` at each ``x`` in per cent, with a band from least to greatest.

        ``place`` describes the position of a point for its tooltip. Returns mean, min and max, by x; empty if no ``y``
        is finite.
        """
        frame = pd.DataFrame({"x": list(x), "y": [100 * float(each) for each in y]}).dropna()
        points = frame.groupby("x")["y"].agg(["mean", "min", "max", "size"])
        if frame.empty:
            return points
        bars = look.get("err_style") == "bars"
        err = {"capsize": 3, "elinewidth": 1} if bars else {"alpha": 0.16, "linewidth": 0}
        given = {"markeredgecolor": look["color"], **look}
        seaborn.lineplot(
            frame,
            x="x",
            y="y",
            errorbar=("pi", 100),
            estimator=_mean,
            ax=axes,
            label=name,
            legend=False,
            err_kws=err,
            **given,
        )
        for at, row in points.iterrows():
            spread = f" ({row['min']:.2f} to {row['max']:.2f})" if row["size"] > 1 else ""
            self.tips.append((axes, at, row["mean"], f"{name}, {place(at)}: {row['mean']:.2f} %{spread}"))
        return points

    def legend(self, axes: Axes, of: Axes | None = None, **options: Any) -> None:
        """Name the lines, those of other axes if given, to the right of the axes, ordered by where they end, from the
        top.
        """
        of = axes if of is None else of
        handles = [line for line in of.get_lines() if not str(line.get_label()).startswith("_")]
        last = 0 if of.xaxis_inverted() else -1
        handles.sort(key=lambda line: -np.asarray(line.get_ydata(), float)[last])
        axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.02), borderaxespad=0, **options)

    def note(self, *texts: str) -> None:
        """Explain marks below the axes."""
        if texts:
            self.figure.supxlabel("     ".join(texts), x=0.012, ha="left", fontsize=9, color="#444444")

    @styled
    def png(self) -> bytes:
        """Save the figure as a PNG file, with the same bytes for the same data."""
        out = io.BytesIO()
        self.figure.savefig(out, format="png", dpi=DPI, metadata={"Software": None})
        return out.getvalue()

    @styled
    def svg(self) -> str:
        """Return the figure as an element of a page, with the page's colour variables and tooltips with numbers at
        points.
        """
        out, name = io.StringIO(), self.figure.texts[0].get_text()
        # Names of shapes are hashes with this salt: no two figures of a page have the same.
        with matplotlib.rc_context({"svg.hashsalt": name}):
            self.figure.savefig(out, format="svg", metadata={"Date": None})
        text = re.sub(r"^.*?(?=<svg)|<metadata>.*?</metadata>", "", out.getvalue(), flags=re.S)
        text = re.sub(r' id="[A-Za-z][\w.]*_\d+"', "", text)
        text = re.sub(r"#[0-9a-f]{6}\b(?![^<]*</style>)", lambda found: f"var(--x{found[0][1:]})", text)
        width, height = (72 * inches for inches in self.figure.get_size_inches())
        head = f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(name)}">'
        return re.sub(r"<svg[^>]*>", head, text, count=1).replace("</svg>", self._hints(height) + "</svg>")

    def _hints(self, height: float) -> str:
        found = []
        for axes, x, y, text in self.tips:
            px, py = (72 / self.figure.dpi * each for each in axes.transData.transform((x, y)))
            box = axes.bbox.transformed(matplotlib.transforms.Affine2D().scale(72 / self.figure.dpi))
            if box.x0 - 1 <= px <= box.x1 + 1 and box.y0 - 1 <= py <= box.y1 + 1:
                circle = f'<circle class="tip" cx="{px:.1f}" cy="{height - py:.1f}" r="5">'
                found.append(f"{circle}<title>{escape(text)}</title></circle>\n")
        return "".join(found)


def _mean(values: pd.Series) -> float:
    """The mean, which rounding must not put outside of equal values: an error bar cannot be negative."""
    return float(np.clip(values.mean(), values.min(), values.max()))


def canvas(height: float, title: str, below: str, *, rows: int = 1, columns: int = 1, **shared: Any) -> Drawing:
    """Make a figure of the common width, with its title and the lines below the title."""
    said = textwrap.wrap(below, 112)
    top = 1 - (0.46 + 0.19 * len(said)) / height
    layout = ConstrainedLayoutEngine(rect=(0, 0, 1, top), w_pad=0.08, h_pad=0.06, wspace=0.03)
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout=layout)
    FigureCanvasAgg(figure)
    figure.text(0.012, 1 - 0.1 / height, title, fontsize=13, fontweight="bold", va="top")
    figure.text(0.012, 1 - 0.38 / height, "\n".join(said), color="#444444", va="top", linespacing=1.25)
    return Drawing(figure, figure.subplots(rows, columns, squeeze=False, **shared))


def colours_css(pages: Iterable[str]) -> str:
    """Return the colour variables of SVG elements: unchanged, and with inverted lightness for dark pages."""
    used = sorted({found for text in pages for found in re.findall(r"var\(--x([0-9a-f]{6})\)", text)})
    light = "".join(f"--x{colour}: #{colour}; " for colour in used)
    dark = "".join(f"--x{colour}: {_turned(colour)}; " for colour in used)
    return f":root {{ {light}}}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark}}} }}\n"


def _turned(colour: str) -> str:
    hue, lightness, saturation = colorsys.rgb_to_hls(*(int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4)))
    turned = max(0.92 - 0.84 * lightness, 0.6 if saturation > 0.1 else 0.0)
    channels = colorsys.hls_to_rgb(hue, turned, saturation)
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in channels)


def arm_look(arm: str, index: int) -> dict[str, Any]:
    """Return colour and marker of an arm; those of an unknown arm depend on its position."""
    colour, marker = _ARMS.get(arm, (SERIES[(index + 3) % len(SERIES)], SHAPES[(index + 4) % len(SHAPES)]))
    return {"color": colour, "marker": marker}


def dash(place: int) -> str:
    """Return the line style of a run."""
    return DASHES[place % len(DASHES)]


def density_axis(axes: Axes, densities: Iterable[float], label: str, most: int = 11, *, dense: bool = True) -> None:
    """Make a log axis from dense on the left to sparse on the right, one tick per level, with labels in % where they
    fit. ``dense``: begin with 100 %.
    """
    levels = sorted({round(density, 12) for density in [*([1.0] if dense else []), *densities]}, reverse=True)
    first, sparsest = levels[0], min(levels[-1], 0.8 * levels[0])
    margin = (first / sparsest) ** (0.03 if dense else 0.15)
    axes.set_xscale("log")
    axes.set_xlim(first * margin, sparsest / margin)
    room = math.log(first / sparsest) / most * 0.999
    named = levels[:1]
    for density in levels[1:]:
        if math.log(named[-1] / density) >= room and math.log(density / levels[-1]) >= room:
            named.append(density)
    if levels[-1] < named[-1]:
        named.append(levels[-1])
    ticks(axes.xaxis, named, [percent(density).removesuffix(" %") for density in named])
    axes.xaxis.set_minor_locator(FixedLocator([density for density in levels if density not in named]))
    axes.set_xlabel(f"{label}, %" + (" (log scale, one tick per level)" if most >= 11 else ""))


def fork_axis(axes: Axes, forks: Sequence[int]) -> None:
    """Make an axis with one tick per fork step; logarithmic after the first step if they span more than a factor of
    ten.
    """
    positive = [fork for fork in forks if fork]
    if positive and positive[-1] > 10 * positive[0]:
        axes.set_xscale("symlog", linthresh=positive[0])
        axes.set_xlim(-0.15 * positive[0] if forks[0] == 0 else 0.8 * positive[0], 1.15 * positive[-1])
    else:
        room = 0.04 * max(1, forks[-1] - forks[0])
        axes.set_xlim(forks[0] - room, forks[-1] + room)
    ticks(axes.xaxis, forks, [f"{fork:,}" for fork in forks])
    axes.set_xlabel("step k at which the trainings fork" + (" (log scale)" if axes.get_xscale() == "symlog" else ""))


def ticks(axis: Any, places: Sequence[float], names: Sequence[str]) -> None:
    """Set exactly these ticks, with these labels."""
    axis.set_major_locator(FixedLocator(list(places)))
    axis.set_major_formatter(FixedFormatter(list(names)))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def percent_axis(axes: Axes, label: str) -> None:
    """Make a linear y-axis in per cent or points."""
    axes.yaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10]))
    axes.set_ylabel(label)


def lower_limit(top: float, reference: Iterable[float], others: Iterable[float]) -> float:
    """Return the lower end, in per cent, of an axis whose interesting part is near ``top``.

    All of ``reference`` is visible, and at least 2 points. All of ``others`` are visible unless they are more than five
    times as far below; then the axis ends at four times that distance, and the caller marks points below it.
    """
    below = [value for value in reference if math.isfinite(value)]
    depth = max(2.0, top - min(below, default=top))
    lowest = min([value for value in others if math.isfinite(value)] + below, default=top)
    return lowest if top - lowest <= 5 * depth else top - 4 * depth
