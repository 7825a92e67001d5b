"""The figures: each function draws one from `Results`, or returns None if its rows are missing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import seaborn
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from keras_lth.report import numbers, style
from keras_lth.report.numbers import STABLE, arm_name, in_order, percent, series
from keras_lth.report.read import Results
from keras_lth.report.style import GRAY, PAPER, Drawing

_PANELS = 4
_DATA = {"test": ("#0072B2", "-"), "train": ("#CC79A7", "--")}


@style.styled
def accuracy(results: Results) -> Drawing | None:
    """Draw accuracy against density, one line per arm, the dense network as a gray line (thesis figs. 3-7, 3-1)."""
    found = numbers.networks(results)
    if found is None:
        return None
    levels, dense = numbers.summary(found), numbers.dense(found).dropna()
    made = style.canvas(5.0, "Test accuracy against weights remaining", below(results, found))
    axes = made.grid[0, 0]
    main = levels["arm"] == in_order(levels["arm"])[0]
    top = 100 * float(np.nanmax([*levels["greatest"], *dense["max"], 0.01]))
    mine = [100 * least for least in (*levels[main]["least"], *dense["min"])]
    low = style.lower_limit(top, mine, 100 * levels["least"])
    room = max(0.06 * (top - low), 0.05)
    low, high = low - room, min(top + room, 100.0 + room / 2)
    for place, (run, row) in enumerate(dense.iterrows()):
        name = f"{f'{run}: ' if len(dense) > 1 else ''}dense, {100 * row['mean']:.2f} %"
        axes.axhline(100 * row["mean"], color=GRAY, lw=1.4, ls=style.dash(place), zorder=2, label=name)
        axes.axhspan(100 * row["min"], 100 * row["max"], color=GRAY, alpha=0.16, lw=0)
    marks = {"▼ mean below the axis": "v", "✖ a replicate diverged, left out": "X"}
    feet: list[tuple[Any, dict[str, Any]]] = []
    seen = ["● mean at least the dense mean   ○ below it"] if len(dense) and levels["level"].any() else []
    for each in series(levels):
        look = style.arm_look(each.key, each.place)
        rows = each.rows.set_index("level")
        if not rows.index.any():  # the dense network is the gray line
            continue
        cells = found[(found["run"] == each.rows["run"].iloc[0]) & (found["arm"] == each.key)]
        x = rows["density"].loc[cells["level"]]
        made.line(axes, x, cells["accuracy"], each.name, named_density, ls=style.dash(each.run), zorder=3, **look)
        look |= {"ls": "", "zorder": 4, "label": "_mark"}
        hollow = rows[~rows["matches"] & (rows.index > 0)].dropna(subset="mean")
        axes.plot(hollow["density"], 100 * hollow["mean"], mfc=PAPER, **look)
        for (said, sign), chosen in zip(marks.items(), (100 * rows["mean"] < low, rows["diverged"] > 0), strict=True):
            if chosen.any():
                feet.append((rows["density"][chosen], {**look, "marker": sign, "ms": 8}))
                seen += [] if said in seen else [said]
    # Marks below the axis are drawn at its lower end, in a separate row for each arm and kind.
    step = 0.035 * (high - low)
    for place, (x, look) in enumerate(feet):
        axes.plot(x, [low - (place + 0.4) * step] * len(x), **look)
    axes.set_ylim(low - len(feet) * step, high)
    style.density_axis(axes, levels["density"], "weights remaining")
    style.percent_axis(axes, "test accuracy after the last step, %")
    made.legend(axes)
    made.note(*seen)
    return made


@style.styled
def metric(results: Results, name: str) -> Drawing | None:
    """Draw a number of the table "results" against density, for runs without an accuracy."""
    found = results.table("results", "arm", "level", "density", name)
    if found is None:
        return None
    made = style.canvas(4.4, f"{name} against weights remaining", results.title)
    axes = made.grid[0, 0]
    for each in series(found):
        look = style.arm_look(each.key, each.place)
        seaborn.lineplot(each.rows, x="density", y=name, errorbar=("pi", 100), ax=axes, label=each.name, **look)
    first = found[found["level"] == 0][name].mean()
    axes.axhline(first, color=GRAY, lw=1.4, label=f"dense, {first:.4g}")
    style.density_axis(axes, found["density"], "weights remaining")
    axes.set_ylabel(name)
    made.legend(axes)
    return made


@style.styled
def curves(results: Results) -> Drawing | None:
    """Draw test accuracy through training (thesis figs. 3-1, 3-2).

    The main arm is shown at selected densities, and beside it all arms at one of them.
    """
    found = results.table("curves", "arm", "replicate", "level", "density", "step", "accuracy")
    if found is None or not np.isfinite(found["accuracy"]).any():
        return None
    main = in_order(found["arm"])[0]
    mine, others = found[found["arm"] == main], found[found["arm"] != main]
    best = _sparsest(results, main)
    levels = _spaced(mine["level"], best)
    both = sorted({*mine["level"]} & {*others["level"]} - {0})
    shades = seaborn.color_palette("viridis", len(levels)).as_hex()
    panels: list[tuple[str, list[Any]]] = [(f"{arm_name(main)}, by weights remaining", [])]
    for each in series(mine[mine["level"].isin(levels)], "level"):
        place = levels.index(each.key)
        look = {"color": shades[place - 1], "marker": style.SHAPES[place - 1]} if each.key else {"color": GRAY}
        name = percent(each.rows["density"].mean()) if each.key else "dense"
        panels[0][1].append((each, f"{each.name.removesuffix(str(each.key))}{name}", look))
    if both:
        level = min(both, key=lambda each: abs(each - (both[len(both) // 2] if best is None else best)))
        rows = found[(found["level"] == level) | (found["level"] == 0) & (found["arm"] == main)]
        density = percent(rows[rows["level"] == level]["density"].mean())
        panels.append((f"{density} of the weights, by arm", []))
        for each in series(rows.assign(line=rows["arm"].where(rows["level"] > 0, "dense")), "line"):
            look = {"color": GRAY} if each.key == "dense" else style.arm_look(each.key, each.place)
            panels[1][1].append((each, each.name, look))
    made = style.canvas(4.6, "Test accuracy through training", below(results, found), columns=len(panels), sharey=True)
    drawn = []
    for axes, (title, lines) in zip(made.grid[0], panels, strict=True):
        for each, name, look in lines:
            look |= {"ls": style.dash(each.run), "markevery": max(1, each.rows["step"].nunique() // 8)}
            drawn.append(made.line(axes, each.rows["step"], each.rows["accuracy"], name, _step, **look))
        axes.set(title=title, ylabel="")
        axes.set_xlabel("training step")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5 if len(results.runs) == 1 else 3, integer=True))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        made.legend(axes)
    drawn = [points for points in drawn if len(points)]
    top = max(points["max"].max() for points in drawn)
    early = [points["min"].iloc[len(points) // 8] for points in drawn]
    low = style.lower_limit(top, [points["mean"].iloc[-1] for points in drawn], early)
    low -= (room := max(0.04 * (top - low), 0.05))
    made.grid[0, 0].set_ylim(low, min(100.0, top) + room)
    style.percent_axis(made.grid[0, 0], "test accuracy, %")
    if min(points["mean"].min() for points in drawn) < low:
        made.note("The first steps are below the axis.")
    return made


def _sparsest(results: Results, arm: str) -> int | None:
    """The sparsest level of an arm that matches."""
    found = numbers.networks(results)
    levels = pd.DataFrame() if found is None else numbers.summary(found).query("arm == @arm and matches and level > 0")
    return int(levels["level"].max()) if len(levels) else None


def _spaced(levels: Any, best: int | None, most: int = 5) -> list[int]:
    """The first level, the best, the last, and those between that leave the smallest gaps."""
    there = sorted({*levels})
    chosen = {there[0], there[-1], *({best} & {*there})}
    while len(chosen) < min(most, len(there)):
        chosen.add(max(there, key=lambda level: min(abs(level - each) for each in chosen)))
    return sorted(chosen)


@style.styled
def layers(results: Results) -> Drawing | None:
    """Draw the density of each layer's masks against that of the network, one point per level."""
    found = results.table("layers", "replicate", "level", "path", "size", "remaining")
    if found is None or not found["level"].any():
        return None
    if "arm" in found:
        found = found[found["arm"] == in_order(found["arm"])[0]]
    sums = found.groupby(["run", "level"])[["remaining", "size"]].transform("sum")
    found = found.assign(whole=sums["remaining"] / sums["size"], density=found["remaining"] / found["size"])
    made = style.canvas(4.8, "Density of each layer at each level", below(results, found))
    axes = made.grid[0, 0]
    paths = in_order(found["path"])
    few = len(paths) <= len(style.SERIES)
    shades = style.SERIES if few else seaborn.color_palette("viridis", len(paths)).as_hex()
    empty = found["remaining"] == 0
    low = 100 * found[~empty]["density"].min() / 1.6
    for each in series(found, "path"):
        look = {"color": shades[each.place], **({"marker": style.SHAPES[each.place]} if few else {})}
        name = each.name if few or each.place % -(-len(paths) // 8) == 0 else f"_{each.name}"
        kept = each.rows[each.rows["remaining"] > 0]
        made.line(axes, kept["whole"], kept["density"], name, named_density, ls=style.dash(each.run), **look)
        if len(kept) < len(each.rows):
            gone = each.rows.drop(kept.index)["whole"]
            axes.plot(gone, [low] * len(gone), "X", color=look["color"], ms=8, clip_on=False, label="_empty")
    x = sorted({*found["whole"]})
    axes.plot(x, [100 * each for each in x], color=GRAY, ls="--", lw=1.2, label="whole network")
    style.density_axis(axes, x, "weights remaining in the network")
    digits = (1, 2, 5) if low < 10 else (1, 2, 3, 4, 5, 6, 8)
    places = [tick for power in range(-6, 3) for digit in digits if low <= (tick := digit * 10.0**power) <= 130]
    axes.set(yscale="log", ylim=(low, 130), ylabel="weights remaining in the layer, % (log scale)")
    style.ticks(axes.yaxis, places, [f"{place:g}" for place in places])
    made.legend(axes)
    made.note(
        *["✖ the layer has no weight left"] * bool(empty.any()),
        *["dark to light: input to output; some layers are not named"] * (not few),
    )
    return made


@style.styled
def path(results: Results) -> Drawing | None:
    """Draw the error between two trainings from one fork, one panel per network and fork step (thesis fig. 4-2)."""
    found = numbers.pairs(results)
    if found is None:
        return None
    lines, forks = list(series(found, "network")), sorted({*found["fork"]})
    if len(forks) > _PANELS:
        forks = [forks[round(i * (len(forks) - 1) / (_PANELS - 1))] for i in range(_PANELS)]
    made = style.canvas(
        1.5 + 2.2 * len(lines),
        "Error on the line between two trainings that share their first k steps",
        f"{below(results, found)}. The trained networks are at 0 and 1.",
        rows=len(lines), columns=len(forks), sharex=True, sharey=True,
    )  # fmt: skip
    for (each, fork), axes in zip(itertools.product(lines, forks), made.grid.flat, strict=True):
        here = each.rows[each.rows["fork"] == fork].explode(["alphas", "errors"])
        for data in in_order(here["data"]):
            rows = here[here["data"] == data]
            colour, dash = _DATA.get(data, ("#009E73", ":"))
            x = rows["alphas"].astype(float).round(9)
            for number, part in enumerate(_unbroken(x, rows["errors"])):
                name = data if number == 0 else f"_{data}"
                made.line(axes, x[part], rows["errors"][part], name, lambda at: f"α = {at:.2f}", color=colour, ls=dash)
        if here.empty:
            axes.text(0.5, 0.5, "no pair", transform=axes.transAxes, ha="center", color=GRAY)
        axes.set(xlim=(0, 1), title=f"k = {fork:,}", xlabel="position on the line, α" if each is lines[-1] else "")
        axes.set_ylabel(f"{each.name.replace(': ', ':' + chr(10))}\nerror, %" if fork == forks[0] else "")
        style.ticks(axes.xaxis, [0, 0.5, 1], ["0", "½", "1"])
    known = np.array(found["errors"].sum(), float)
    made.grid[0, 0].set_ylim(0, max(1.0, 112 * float(np.nanmax([0.0, *known]))))
    made.grid[0, 0].yaxis.set_major_locator(MaxNLocator(nbins=5))
    made.legend(max(made.grid[:, -1], key=lambda axes: len(axes.get_lines())))
    return made


@style.styled
def barrier(results: Results) -> Drawing | None:
    """Draw instability against the fork step, with the threshold of stability (thesis fig. 4-3)."""
    found = numbers.pairs(results)
    if found is None:
        return None
    made = style.canvas(4.4, "Instability against the step of the fork", below(results, found, "bars"))
    axes = made.grid[0, 0]
    for place, each in enumerate(series(found, "network")):
        # Test above train: they often coincide, and the larger hollow markers of train stay visible.
        for data in sorted({*each.rows["data"]}, reverse=True):
            rows, test = each.rows[each.rows["data"] == data], data == "test"
            colour = style.SERIES[place % len(style.SERIES)]
            look: dict[str, Any] = {"color": colour, "ls": "-" if test else "--", "marker": style.SHAPES[place % 8]}
            look |= {"markersize": 5 if test else 9, "markerfacecolor": colour if test else PAPER, "err_style": "bars"}
            for number, part in enumerate(_unbroken(rows["fork"], rows["barrier"])):
                name = f"{'_' * (number > 0)}{each.name}, {data}"
                made.line(axes, rows["fork"][part], rows["barrier"][part], name, _step, **look)
    axes.axhline(100 * STABLE, color=GRAY, ls=":", lw=1.4, label="stable below 2")
    known = found["barrier"].astype(float).fillna(0.0)
    least, most = (100 * float(each) for each in (known.min(), known.max()))
    axes.set_ylim(min(0.0, 1.1 * least) - 0.1, 1.12 * max(100 * STABLE, most))
    style.fork_axis(axes, sorted({*found["fork"]}))
    style.percent_axis(axes, "instability, points of error\n(highest on the line − mean of the ends)")
    made.legend(axes)
    return made


def _unbroken(x: pd.Series, y: pd.Series) -> Iterator[pd.Series]:
    """Choose the points of each part of a line between gaps, which are where ``y`` is NaN; at least one part."""
    gaps = sorted({*x[y.astype(float).isna()]})
    edges = [-np.inf, *gaps, np.inf]
    parts = [(x > low) & (x < high) for low, high in itertools.pairwise(edges)]
    yield from [part for part in parts if part.any()] or [x == x]


def named_density(density: float) -> str:
    """Return a density for a tooltip."""
    return f"{percent(density)} of the weights"


def _step(step: float) -> str:
    return f"step {step:,.0f}"


def below(results: Results, found: pd.DataFrame, spread: str = "bands") -> str:
    """The line below a title: network and data, replicates, and what lines and bands are."""
    texts, most = [results.title], 1
    for what, columns in (("replicate", ["run", "replicate"]), ("pair", ["run", "replicate", "pair"])):
        if {*columns} <= {*found.columns}:
            counts = found[columns].drop_duplicates()["run"].value_counts().tolist()
            most = max(most, *counts)
            texts.append(f"{' to '.join(map(str, sorted({min(counts), max(counts)})))} {what}{'s' * (max(counts) > 1)}")
    return f"{', '.join(texts)}; {f'lines are means, {spread} least to greatest' if most > 1 else 'no spread to show'}"
