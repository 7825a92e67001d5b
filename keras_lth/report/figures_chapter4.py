"""Figures of the thesis' chapter 4 beyond the line and its barrier; each function draws one from `Results`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from keras_lth.report import numbers, style
from keras_lth.report.figures import below, named_density
from keras_lth.report.findings import Facts, NotThereError
from keras_lth.report.forks import dense, medians
from keras_lth.report.numbers import STABLE, series
from keras_lth.report.read import Results
from keras_lth.report.style import GRAY, PAPER, Drawing

_DISTANCES = {
    "l2": "L2 distance of the weights", "cosine": "cosine distance of the weights",
    "different": "examples classified differently", "loss_l2": "L2 distance of the losses",
}  # fmt: skip
_STATE = {"init_to_k": "initial state to k", "k_to_end": "k to the end", "between_ends": "between the ends"}
_PANELS, _MAPS = 6, 3


@style.styled
def distances(results: Results) -> Drawing | None:
    """Draw other distances of two copies against the step of the fork (thesis figs. 4-7 to 4-12, 4-25, 4-26)."""
    found = numbers.pairs(results)
    found = found if found is None else found[found["data"] == "test"]
    shown = [what for what in _DISTANCES if found is not None and what in found and found[what].notna().any()]
    if found is None or len(shown) < 3:
        return None
    made = style.canvas(7.2, "Other distances of two copies, on test data", below(results, found), rows=2, columns=2)
    for axes, what in zip(made.grid.flat, shown, strict=False):
        for place, each in enumerate(series(found, "network")):
            _line(made, axes, each.rows["fork"], each.rows[what], each.name, place, _fork)
        axes.set(title=_DISTANCES[what])
        axes.set_ylim(bottom=0)
        style.fork_axis(axes, _few(found["fork"]))
        axes.set_xlabel("step k of the fork" if what in shown[-2:] else "")
    for axes in list(made.grid.flat)[len(shown) :]:
        axes.set_visible(False)
    made.legend(made.grid[0, 1])
    return made


@style.styled
def errors(results: Results) -> Drawing | None:
    """Draw the error of the copies against the step of the fork, on test and training data (figs. 4-16, 4-17, 4-20)."""
    frame = results.table("copies", "network", "level", "fork", "replicate", "copy", "accuracy", "density")
    if frame is None:
        return None
    found = numbers.with_networks(frame)
    shown = [what for what in ("accuracy", "train_accuracy") if what in found]
    made = style.canvas(4.4, "Error of the copies against the step of the fork", below(results, found),
                        columns=len(shown))  # fmt: skip
    for axes, what in zip(made.grid[0], shown, strict=True):
        for place, each in enumerate(series(found, "network")):
            look = {"color": style.SERIES[place % 8], "marker": style.SHAPES[place % 8]}
            made.line(axes, each.rows["fork"], 1 - each.rows[what], each.name, _fork, **look)
        axes.set(title="test error" if what == "accuracy" else "training error")
        style.fork_axis(axes, _few(found["fork"]))
        axes.set_xlabel("step k of the fork")
        style.percent_axis(axes, "%" if what == "accuracy" else "")
    made.legend(made.grid[0, -1], of=made.grid[0, 0])
    return made


@style.styled
def throughout(results: Results) -> Drawing | None:
    """Draw instability at steps of the training, a line for each fork (thesis figs. 4-5, 4-21)."""
    frame = results.table("throughout", "network", "level", "fork", "replicate", "data", "at", "barrier", "density")
    if frame is None:
        return None
    found = numbers.with_networks(frame)
    panels = [(network, data) for network in dict.fromkeys(found["network"]) for data in dict.fromkeys(found["data"])]
    panels = panels[:_PANELS]
    rows = -(-len(panels) // 2)
    made = style.canvas(1.4 + 2.6 * rows, "Instability throughout the training", below(results, found), rows=rows,
                        columns=min(2, len(panels)), sharex=True)  # fmt: skip
    for axes, (network, data) in zip(made.grid.flat, panels, strict=False):
        here = found[(found["network"] == network) & (found["data"] == data)]
        for place, each in enumerate(series(here, "fork")):
            look = {"color": style.SERIES[place % 8], "marker": style.SHAPES[place % 8]}
            made.line(axes, each.rows["at"], each.rows["barrier"], f"k = {each.key:,}", _step, **look)
        axes.axhline(100 * STABLE, color=GRAY, ls=":", lw=1.4, label="stable below 2")
        axes.set(title=f"{network}, {data}", xlabel="training step")
        style.percent_axis(axes, "points of error")
    made.legend(made.grid[0, -1])
    return made


@style.styled
def stable_matching(results: Results) -> Drawing | None:
    """Draw the median step at which subnetworks become stable, and match, against density (thesis fig. 4-18)."""
    lines = list(_medians(results))
    if not lines:
        return None
    made = style.canvas(4.6, "The step from which subnetworks are stable, and match", results.title)
    axes, finite = made.grid[0, 0], [step for _, _, found in lines for step in found if np.isfinite(step)]
    if not finite:
        return None
    for place, (name, look, found) in enumerate(lines):
        there = found[np.isfinite(found)]
        axes.plot(there.index, there, label=name, mec=look["color"], **look)
        never = found[~np.isfinite(found)]
        top = 1.06 * max(finite) * (1 + 0.03 * place) + 1
        axes.plot(never.index, [top] * len(never), "x", color=look["color"], ms=7, label="_never", clip_on=False)
        for density, step in found.items():
            said = f"{name}, {named_density(float(str(density)))}: " + (
                f"step {step:,.0f}" if np.isfinite(step) else "never"
            )
            made.tips.append((axes, float(str(density)), step if np.isfinite(step) else top, said))
    style.density_axis(axes, [density for _, _, found in lines for density in found.index], "weights remaining")
    axes.set_ylabel("median step k over replicates and pairs")
    axes.set_ylim(bottom=-0.04 * max(finite) - 1)
    made.legend(axes)
    made.note("× at no step tried")
    return made


@style.styled
def density_choice(results: Results) -> Drawing | None:
    """Draw the best accuracy over all k against density, beside the dense network's (thesis fig. 4-13)."""
    frame = results.table("copies", "network", "level", "fork", "replicate", "accuracy", "density")
    if frame is None or frame[frame["network"] != "dense"]["level"].nunique() < 2:
        return None
    made = style.canvas(4.4, "The best accuracy over all k against weights remaining", below(results, frame))
    axes = made.grid[0, 0]
    for run in dict.fromkeys(frame["run"]):
        try:
            whole = dense(Facts(results, run))
        except NotThereError:
            continue
        axes.axhline(100 * whole.mean, color=GRAY, lw=1.4, label=f"dense, {100 * whole.mean:.2f} %")
        axes.axhspan(100 * (whole.mean - whole.deviation), 100 * (whole.mean + whole.deviation), color=GRAY, alpha=0.16,
                     lw=0)  # fmt: skip
    pruned = frame[frame["network"] != "dense"]
    means = pruned.groupby(["run", "network", "level", "replicate", "fork"], as_index=False)[["accuracy", "density"]]
    best = means.mean().groupby(["run", "network", "level", "replicate"], as_index=False).max()
    for each in series(best, "network"):
        look = style.arm_look(each.key, each.place)
        made.line(axes, each.rows["density"], each.rows["accuracy"], each.name, named_density, **look)
    style.density_axis(axes, best["density"], "weights remaining")
    style.percent_axis(axes, "test accuracy, %")
    made.legend(axes)
    return made


@style.styled
def state(results: Results) -> Drawing | None:
    """Draw the error of the state that is copied, and how far weights travel (thesis figs. 4-31, 4-32, 4-33)."""
    frame = results.table("state", "network", "level", "fork", "replicate", "accuracy", "density", *_STATE)
    if frame is None:
        return None
    found = numbers.with_networks(frame)
    networks = list(dict.fromkeys(found["network"]))[:2]
    shown = [what for what in ("accuracy", "train_accuracy") if what in found]
    made = style.canvas(6.8, "The state at step k: its error, and L2 distances", below(results, found), rows=2,
                        columns=max(len(networks), len(shown)))  # fmt: skip
    above, under = made.grid
    for axes, what in zip(above, shown, strict=False):
        for place, each in enumerate(series(found, "network")):
            look = {"color": style.SERIES[place % 8], "marker": style.SHAPES[place % 8]}
            made.line(axes, each.rows["fork"], 1 - each.rows[what], each.name, _fork, **look)
        axes.set(title="test error at k" if what == "accuracy" else "training error at k")
        style.percent_axis(axes, "%")
    for axes, network in zip(under, networks, strict=False):
        here = found[found["network"] == network]
        for place, (what, name) in enumerate(_STATE.items()):
            _line(made, axes, here["fork"], here[what], name, place, _fork)
        axes.set(title=f"L2, {network}")
        axes.set_ylim(bottom=0)
    for row, used in ((above, len(shown)), (under, len(networks))):
        for axes in row[:used]:
            style.fork_axis(axes, _few(found["fork"]))
            axes.set_xlabel("step k" if row is under else "")
        for axes in row[used:]:
            axes.set_visible(False)
        made.legend(row[used - 1])
    return made


@style.styled
def matching(results: Results) -> Drawing | None:
    """Draw the error between networks of different initial values, before and after matching their hidden units."""
    frame = results.table("matching", "pair", "matched", "alphas", "errors")
    if frame is None:
        return None
    made = style.canvas(4.2, "Error on the line between networks of different initial values", below(results, frame))
    axes, rows = made.grid[0, 0], frame.explode(["alphas", "errors"])
    for place, (matched, name) in enumerate(((False, "as they are"), (True, "hidden units matched"))):
        here = rows[rows["matched"] == matched]
        look = {"color": style.SERIES[place], "ls": style.dash(place)}
        made.line(axes, here["alphas"].astype(float).round(9), here["errors"], name, lambda at: f"α = {at:.2f}", **look)
    axes.set(xlim=(0, 1), xlabel="position on the line, α")
    axes.set_ylim(bottom=0)
    style.percent_axis(axes, "error, %")
    made.legend(axes)
    return made


@style.styled
def plane(results: Results) -> Drawing | None:
    """Draw the error in the plane through three networks, with the lines between them (thesis, figure 4-1)."""
    frame = results.table("plane", "fork", "x", "y", "errors", "places")
    if frame is None:
        return None
    first = frame.drop_duplicates(["run", "fork"]).iloc[:_MAPS]
    made = style.canvas(4.2, "Test error in the plane through three copies", below(results, first, "–").split(";")[0],
                        columns=len(first))  # fmt: skip
    most = 100 * max(float(np.nanmax(errors)) for errors in first["errors"])
    for axes, row in zip(made.grid[0], first.itertuples(), strict=True):
        levels = np.linspace(0, most + 1e-9, 13)
        drawn = axes.contourf(row.x, row.y, 100 * np.array(row.errors, float), levels=levels, cmap="viridis")
        corners = np.array([*row.places, row.places[0]], float)
        axes.plot(corners[:, 0], corners[:, 1], "o-", color=PAPER, mec=GRAY, lw=1.2)
        axes.set(title=f"k = {row.fork:,}", xlabel="L2 distance", aspect="equal")
        axes.grid(visible=False)
    made.figure.colorbar(drawn, ax=made.grid[0, -1], shrink=0.8, label="error, %")
    return made


def _medians(results: Results) -> Iterator[tuple[str, dict[str, Any], pd.Series]]:
    """Lines of figure 4-18: names, looks, and steps by density."""
    for run in results.runs:
        for arm in ("imp", "random_layerwise", "reinit"):
            try:
                found = medians(Facts(results, run), arm)
            except NotThereError:
                continue
            if len(found) < 2:
                continue
            for what, dash in (("stable", "-"), ("matching", "--")):
                name = f"{numbers.arm_name(arm)}, {what}"
                name = f"{run}: {name}" if len(results.runs) > 1 else name
                yield name, {**style.arm_look(arm, 0), "ls": dash}, found.set_index("density")[what]


def _line(
    made: Drawing, axes: Any, x: Any, y: Any, name: str, place: int, said: Callable[[float], str]
) -> None:  # fmt: skip
    """A line of means of numbers that are not shares, with a band from least to greatest."""
    look = {"color": style.SERIES[place % 8], "marker": style.SHAPES[place % 8]}
    points = pd.DataFrame({"x": list(x), "y": [*map(float, y)]}).dropna().groupby("x")["y"].agg(["mean", "min", "max"])
    axes.plot(points.index, points["mean"], label=name, mec=look["color"], **look)
    axes.fill_between(points.index, points["min"], points["max"], color=look["color"], alpha=0.16, lw=0)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    for at, row in points.iterrows():
        spread = f"{row['mean']:.4g} ({row['min']:.4g} to {row['max']:.4g})"
        made.tips.append((axes, at, row["mean"], f"{name}, {said(at)}: {spread}"))


def _few(forks: Any, most: int = 4) -> list[int]:
    """Steps with a tick: 0, the last, and some between them in equal ratios."""
    there = sorted({*map(int, forks)})
    while len(there) > most:
        gaps = [np.log((there[i + 1] + 1) / (there[i - 1] + 1)) for i in range(1, len(there) - 1)]
        there.pop(1 + int(np.argmin(gaps)))
    return there


def _fork(step: float) -> str:
    return f"k = {step:,.0f}"


def _step(step: float) -> str:
    return f"step {step:,.0f}"
