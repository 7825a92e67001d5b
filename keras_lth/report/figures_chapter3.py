"""Figures of the thesis' chapter 3 that only its plans have rows for; each function draws one from `Results`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from keras_lth.report import numbers, style
from keras_lth.report.chapter3 import BASELINES, dilations, stopping
from keras_lth.report.figures import below, named_density
from keras_lth.report.findings import NotThereError
from keras_lth.report.numbers import percent, series
from keras_lth.report.read import Results
from keras_lth.report.style import GRAY, Drawing

_MAPS = 4


def one_shot(results: Results) -> Drawing | None:
    """Draw iterative and one-shot pruning, on test and training data (thesis figs. 3-3, 3-4)."""
    return _two(results, "Iterative and one-shot pruning", ("imp", "imp_one_shot", "lrr_one_shot"), "imp_one_shot")


def retrained(results: Results) -> Drawing | None:
    """Draw IMP, learning-rate rewinding and global random pruning, on test and training data (figs. 3-5, 3-6)."""
    arms = ("imp", "lrr", "fine_tuning", "low_rate", "random_global")
    return _two(results, "IMP, other ways of retraining, and global random pruning", arms, "lrr")


@style.styled
def _two(results: Results, title: str, arms: Sequence[str], needed: str) -> Drawing | None:
    found = numbers.networks(results)
    if found is None or needed not in set(found["arm"]) or "train_accuracy" not in found:
        return None
    found = found[found["arm"].isin(arms)]
    made = style.canvas(4.4, title, below(results, found), columns=2)
    for axes, (what, label) in zip(
        made.grid[0], (("accuracy", "test accuracy"), ("train_accuracy", "training accuracy")), strict=True
    ):
        dense = 100 * found[found["level"] == 0].drop_duplicates(["run", "replicate"])[what].astype(float)
        axes.axhline(dense.mean(), color=GRAY, lw=1.4, label="dense")
        axes.axhspan(dense.min(), dense.max(), color=GRAY, alpha=0.16, lw=0)
        lows = [dense.min()]
        for each in series(found[found["level"] > 0]):
            look = style.arm_look(each.key, each.place)
            points = made.line(axes, each.rows["density"], each.rows[what], each.name, named_density,
                               ls=style.dash(each.run), **look)  # fmt: skip
            lows += [points["min"].min()] if len(points) and each.key == "imp" else []
        axes.set(title=label)
        top = max(np.nanmax(line.get_ydata()) for line in axes.get_lines() if len(line.get_ydata()))
        low = style.lower_limit(
            top, lows, [np.nanmin(line.get_ydata()) for line in axes.get_lines() if len(line.get_ydata())]
        )
        room = 0.05 * (top - low)
        axes.set_ylim(low - room, min(top + room, 100 + room / 2))
        style.density_axis(axes, found["density"], "weights remaining", most=5)
        style.percent_axis(axes, f"{label}, %" if what == "accuracy" else "")
    made.legend(made.grid[0, 1])
    return made


@style.styled
def early_stopping(results: Results) -> Drawing | None:
    """Draw the step of the least hold-out loss, and the test accuracy there (thesis fig. 3-8)."""
    keys = ["arm", "replicate", "level", "step"]
    held, tested = (
        results.table("holdout", *keys, "holdout_loss"),
        results.table("curves", *keys, "density", "accuracy"),
    )
    if held is None or tested is None:
        return None
    stops = stopping(held)[["run", *keys, "density"]].merge(tested[["run", *keys, "accuracy"]], on=["run", *keys])
    if stops.empty:
        return None
    made = style.canvas(4.4, "Early stopping: the step of the least hold-out loss", below(results, stops), columns=2)
    dense = stops[stops["level"] == 0]
    for axes, what, factor in ((made.grid[0, 0], "step", 1), (made.grid[0, 1], "accuracy", 100)):
        axes.axhline(factor * dense[what].mean(), color=GRAY, lw=1.4, label="dense")
        axes.axhspan(factor * dense[what].min(), factor * dense[what].max(), color=GRAY, alpha=0.16, lw=0)
    for each in series(stops[(stops["level"] > 0) & stops["arm"].isin(("imp", *BASELINES))]):
        look = {**style.arm_look(each.key, each.place), "ls": style.dash(each.run)}
        _steps(made, made.grid[0, 0], each.rows["density"], each.rows["step"], each.name, look)
        made.line(made.grid[0, 1], each.rows["density"], each.rows["accuracy"], each.name, named_density, **look)
    accuracies = made.grid[0, 1]
    imp = 100 * stops[stops["arm"].isin(("imp",))]["accuracy"]
    top = float(100 * stops["accuracy"].max())
    low = style.lower_limit(top, [imp.min(), 100 * dense["accuracy"].min()], 100 * stops["accuracy"])
    accuracies.set_ylim(low - 0.05 * (top - low), top + 0.05 * (top - low))
    for axes in made.grid[0]:
        style.density_axis(axes, stops["density"], "weights remaining", most=5)
    made.grid[0, 0].set(title="step", ylabel="training step")
    made.grid[0, 0].set_ylim(bottom=0)
    made.grid[0, 0].yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    accuracies.set(title="test accuracy at this step")
    style.percent_axis(accuracies, "%")
    made.legend(accuracies)
    return made


@style.styled
def dilation(results: Results) -> Drawing | None:
    """Draw the least dilation of the schedule that reaches the dense accuracy, δ* (thesis fig. 3-9)."""
    frame = results.table("dilation", "arm", "level", "replicate", "dilation", "accuracy", "density")
    if frame is None:
        return None
    try:
        found = pd.concat(
            [dilations(rows).assign(run=run, replicate=0) for run, rows in frame.groupby("run", sort=False)]
        )
    except NotThereError:
        return None
    most = float(frame["dilation"].max())
    made = style.canvas(4.4, "The least stretch of the schedule that reaches the dense accuracy, δ*",
                        below(results, frame).split(";")[0] + "; of the mean over replicates")  # fmt: skip
    axes = made.grid[0, 0]
    for row in found[found["arm"] == "dense"].itertuples():
        if np.isfinite(row.least):
            axes.axhline(row.least, color=GRAY, lw=1.4, label=f"dense, {row.least:g}")
    never = False
    for each in series(found[found["arm"] != "dense"]):
        look = style.arm_look(each.key, each.place)
        rows = each.rows.sort_values("density", ascending=False)
        reached = np.where(np.isfinite(rows["least"]), rows["least"], np.nan)
        axes.plot(rows["density"], reached, label=each.name, ls=style.dash(each.run), mec=look["color"], **look)
        for x, y in zip(rows["density"], reached, strict=True):
            said = f"{each.name}, {named_density(x)}: δ* {'is not reached' if np.isnan(y) else f'= {y:g}'}"
            made.tips.append((axes, x, most + 0.15 if np.isnan(y) else y, said))
        gone = rows[~np.isfinite(rows["least"])]
        never |= len(gone) > 0
        place = most + 0.1 + 0.07 * each.place
        axes.plot(gone["density"], [place] * len(gone), "x", color=look["color"], ms=7, label="_never", clip_on=False)
    axes.set_ylim(0, most + 0.4)
    style.density_axis(axes, found["density"], "weights remaining")
    axes.set_ylabel("δ*, least dilation")
    made.legend(axes)
    made.note(*[f"× not reached by the greatest dilation tried, {most:g}"] * never)
    return made


@style.styled
def pixels(results: Results) -> Drawing | None:
    """Draw how many weights each input pixel keeps in the first layer, at selected levels (thesis 3.3.5)."""
    frame = results.table("degrees", "level", "replicate", "path", "inputs")
    if frame is None:
        return None
    first = frame[frame["path"] == frame["path"].iloc[0]]
    side = round(len(first["inputs"].iloc[0]) ** 0.5)
    if side < 8 or side * side != len(first["inputs"].iloc[0]):
        return None
    levels = sorted({*first["level"]})
    if len(levels) > _MAPS:
        levels = [levels[round(place * (len(levels) - 1) / (_MAPS - 1))] for place in range(_MAPS)]
    said = below(results, first).split(";")[0]
    made = style.canvas(3.3, "Weights that each input pixel keeps in the first layer", said, columns=len(levels))
    density = results.table("layers", "level", "path", "density")
    for level, axes in zip(levels, made.grid[0], strict=True):
        rows = first[first["level"] == level]
        image = np.array(rows["inputs"].tolist(), float).mean(axis=0).reshape(side, side)
        drawn = axes.imshow(image, cmap="viridis", vmin=0)
        kept = "" if density is None else _share(density, level, rows["path"].iloc[0])
        axes.set(title=f"level {level}{kept}", xticks=[], yticks=[])
        axes.grid(visible=False)
        bar = made.figure.colorbar(drawn, ax=axes, orientation="horizontal", pad=0.04, shrink=0.9)
        bar.ax.xaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    return made


def _share(density: pd.DataFrame, level: Any, path: str) -> str:
    rows = density[(density["level"] == level) & (density["path"] == path)]["density"]
    return f", {percent(float(rows.mean()))}" if len(rows) else ""


def _steps(made: Drawing, axes: Any, x: Any, steps: Any, name: str, look: dict[str, Any]) -> None:
    """A line of means of steps with a band from least to greatest."""
    points = pd.DataFrame({"x": list(x), "y": list(steps)}).groupby("x")["y"].agg(["mean", "min", "max"])
    axes.plot(points.index, points["mean"], label=name, mec=look["color"], **look)
    axes.fill_between(points.index, points["min"], points["max"], color=look["color"], alpha=0.16, lw=0)
    for at, row in points.iterrows():
        said = f"{name}, {named_density(at)}: step {row['mean']:,.0f} ({row['min']:,.0f} to {row['max']:,.0f})"
        made.tips.append((axes, at, row["mean"], said))
