"""The figure of the sweep over sparsity: speed relative to the dense product, and share of its rate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, NullFormatter
from products import wins_from

from keras_lth.report import style

Point = dict[str, Any]


def by_block(points: Sequence[Point]) -> dict[str, list[Point]]:
    blocks: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda point: point["sparsity"]):
        blocks.setdefault(point["block"], []).append(point)
    return blocks


def wins_text(points: Sequence[Point]) -> str:
    """From which sparsity a block is faster than the dense product, in words."""
    wins = wins_from(points)
    if wins is None:
        return "never faster"
    least = min(point["sparsity"] for point in points)
    return f"faster from {100 * wins:.0f} %" if wins > least else f"faster at {100 * least:.0f} % already"


def sparsity_axis(axes: Axes, sparsities: Sequence[float]) -> None:
    """Logarithmic in the density, so that the ceiling is a straight line; named by the sparsity."""
    ticks = [1 - sparsity for sparsity in sparsities]
    # Named where there is room: at least a quarter fewer weights than at the name before.
    named = ticks[:1]
    for density in ticks:
        if density <= 0.75 * named[-1]:
            named.append(density)
    axes.set_xscale("log")
    axes.set_xlim(max(ticks) * 1.1, min(ticks) / 1.1)
    axes.xaxis.set_major_locator(FixedLocator(named))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{100 * (1 - density):.3g}" for density in named]))
    axes.xaxis.set_minor_locator(FixedLocator([each for each in ticks if each not in named]))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("weights that are zero, %")


@style.styled
def draw(points: Sequence[Point], below: str, path: Path) -> None:
    """Writes the PNG."""
    blocks = by_block(points)
    sparsities = sorted({point["sparsity"] for point in points})
    drawing = style.canvas(6.3, "Sparse product beside TensorFlow's dense product", below, columns=2)
    ratios, shares = drawing.grid[0]
    for index, (name, line) in enumerate(blocks.items()):
        look = {"color": style.SERIES[index % 8], "marker": style.SHAPES[index % 8]}
        density = [1 - point["sparsity"] for point in line]
        label = f"{name}: {wins_text(line)}"
        ratios.plot(density, [point["ratio"] for point in line], label=label, **look)
        shares.plot(density, [100 * point["efficiency"] for point in line], **look)
    least, most = 1 - sparsities[-1], 1 - sparsities[0]
    ratios.plot([most, least], [1 / most, 1 / least], color=style.GRAY, ls="--", lw=1.2, label="1 / density")
    ratios.axhline(1, color="black", lw=1)
    ratios.set_yscale("log", base=2)
    ratios.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    ratios.yaxis.set_minor_formatter(NullFormatter())
    ratios.set_ylabel("times faster than the dense product (log scale)")
    ratios.set_title("Time")
    shares.axhline(100, color=style.GRAY, ls="--", lw=1.2)
    shares.set_ylim(0, max(110.0, 1.08 * max(100 * point["efficiency"] for point in points)))
    style.percent_axis(shares, "operations that count, % of the dense product's rate")
    shares.set_title("Efficiency")
    for axes in (ratios, shares):
        sparsity_axis(axes, sparsities)
    drawing.figure.legend(loc="outside lower center", ncols=3, fontsize=9)
    path.write_bytes(drawing.png())
