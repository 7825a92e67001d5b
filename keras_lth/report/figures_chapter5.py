"""Figures of the thesis' chapter 5 that only its plan has rows for; each function draws one from `Results`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from keras_lth.report import style
from keras_lth.report.figures import below, named_density
from keras_lth.report.numbers import arm_name, in_order, percent, series
from keras_lth.report.read import Results
from keras_lth.report.style import Drawing

_ABLATIONS = {
    "none": ("unmodified", "#0072B2", "o"),
    "shuffle": ("shuffled in each layer", "#E69F00", "s"),
    "reinit": ("reinitialised", "#009E73", "^"),
    "invert": ("inverted", "#D55E00", "v"),
    "unit": ("variance 1", "#CC79A7", "D"),
}
_COLUMNS = 3
BENCHMARKS = ("magnitude_after", "ltr")


@style.styled
def ablations(results: Results) -> Drawing | None:
    """Draw the ablations of each method, one panel per method (thesis fig. 5-5)."""
    found = _early(results)
    if found is None or set(found["ablation"]) == {"none"}:
        return None
    found = found[found["step"] == found.groupby(["run", "arm"])["step"].transform("min")]
    arms = [arm for arm in in_order(found["arm"]) if (found[found["arm"] == arm]["ablation"] != "none").any()]
    made = _panels(results, found, arms, "Ablations of pruning at initialisation")
    for arm, axes in zip(arms, made.grid.flat, strict=False):
        _ablated(made, axes, found[found["arm"] == arm], "density", named_density)
        axes.set(title=arm_name(arm), ylabel="", xlabel="")
        style.density_axis(axes, found["density"], "weights remaining", most=4, dense=False)
        axes.set_xlabel("")
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    # Inverted networks may be at chance, where no other difference would be seen.
    means = 100 * found.groupby(["arm", "ablation", "level"])["accuracy"].mean()
    others = means.drop("invert", level="ablation", errors="ignore")
    room = 0.08 * (others.max() - others.min())
    low = float(others.min() - room)
    made.grid[0, 0].set_ylim(low, float(others.max() + room))
    hidden = in_order(arm for (arm, _, _), mean in means.items() if mean < low)
    made.figure.supylabel("test accuracy, %", fontsize=10)
    made.legend(made.grid[0, -1])
    below_all = [f"Inverted, below the panels: {', '.join(map(arm_name, hidden))}."] if hidden else []
    made.note("Across: weights remaining, %, log scale.", *below_all)
    return made


@style.styled
def steps(results: Results) -> Drawing | None:
    """Draw accuracy against the step of training at which methods prune, one panel per density (thesis fig. 5-12)."""
    found = _early(results)
    if found is None:
        return None
    found = found[(found["ablation"] == "none") & ~found["arm"].isin(BENCHMARKS)]
    if found["step"].nunique() < 2:
        return None
    levels = sorted({*found["level"]})
    made = style.canvas(4.4, "Accuracy against the step at which a network is pruned", below(results, found),
                        columns=len(levels), sharey=True)  # fmt: skip
    for level, axes in zip(levels, made.grid[0], strict=True):
        rows = found[found["level"] == level]
        for each in series(rows):
            made.line(axes, each.rows["step"], each.rows["accuracy"], each.name, lambda step: f"step {step:,.0f}",
                      **style.arm_look(each.key, each.place), ls=style.dash(each.run))  # fmt: skip
        axes.set(title=percent(rows["density"].mean()), ylabel="")
        style.fork_axis(axes, sorted({*rows["step"]}))
        axes.set_xlabel("step of pruning")
    style.percent_axis(made.grid[0, 0], "test accuracy, %")
    made.legend(made.grid[0, -1])
    return made


@style.styled
def neurons(results: Results) -> Drawing | None:
    """Draw the share of neurons or channels that have at least a share s of their weights pruned (thesis fig. 5-6).

    It is that of the sparsest level.
    """
    found = results.table("neurons", "arm", "level", "replicate", "path", "fan_in", "outputs")
    if found is None:
        return None
    level = found["level"].max()
    found = found[found["level"] == level]
    made = style.canvas(4.4, "Neuron collapse: how many neurons have lost so many of their weights",
                        below(results, found))  # fmt: skip
    axes = made.grid[0, 0]
    shares, whole = np.linspace(0, 1, 101), 1.0
    for each in series(found):
        lost = np.concatenate([1 - np.array(row.outputs) / row.fan_in for row in each.rows.itertuples()])
        values = [float(np.mean(lost >= share - 1e-9)) for share in shares]
        look = style.arm_look(each.key, each.place)
        axes.plot(100 * shares, [100 * value for value in values], label=each.name, **look, markevery=[90, 95, 100],
                  ls=style.dash(each.run))  # fmt: skip
        whole = min(whole, *(share for share, value in zip(shares, values, strict=True) if value < 0.995), 0.9)
        for share in (0.9, 0.95, 1.0):
            value = float(np.mean(lost >= share - 1e-9))
            made.tips.append((axes, 100 * share, 100 * value, f"{each.name}: {100 * value:.1f} % of the neurons have "
                              f"lost at least {100 * share:.0f} %"))  # fmt: skip
    axes.set_xlabel("at least so many of a neuron's weights are pruned, %")
    style.percent_axis(axes, "neurons, %")
    axes.set_xlim(10 * np.floor(10 * whole) - 1, 101)
    axes.set_ylim(0, 102)
    made.legend(axes)
    return made


@style.styled
def step_ablations(results: Results) -> Drawing | None:
    """Draw ablations against the step of pruning, one panel per method, at the sparsest level (thesis fig. 5-14)."""
    found = _early(results)
    if found is None:
        return None
    found = found[~found["arm"].isin(BENCHMARKS) & found["ablation"].isin(("none", "shuffle", "reinit"))]
    found = found[found["level"] == found["level"].max()]
    later = found[(found["ablation"] != "none") & (found["step"] > 0)]
    arms = in_order(later["arm"])
    if not arms:
        return None
    density = percent(found["density"].mean())
    made = _panels(results, found, arms, f"Ablations against the step of pruning, {density} of the weights")
    for arm, axes in zip(arms, made.grid.flat, strict=False):
        _ablated(made, axes, found[found["arm"] == arm], "step", lambda step: f"step {step:,.0f}")
        forks = sorted({*found["step"]})
        style.fork_axis(axes, [*forks[:2], forks[-1]])  # a small panel has room for three
        axes.set(title=arm_name(arm), xlabel="", ylabel="")
    made.figure.supylabel("test accuracy, %", fontsize=10)
    made.legend(made.grid[0, -1])
    made.note("Across: the step at which the network is pruned.")
    return made


@style.styled
def method_layers(results: Results) -> Drawing | None:
    """Draw the density of each layer by method, at the sparsest level (thesis fig. 5-11 has sparsities)."""
    found = results.table("neurons", "arm", "level", "replicate", "path", "fan_in", "outputs")
    if found is None:
        return None
    found = found[found["level"] == found["level"].max()].copy()
    paths = list(dict.fromkeys(found["path"]))
    if len(paths) < 2:
        return None
    kept, size = found["outputs"].map(sum), found["outputs"].map(len) * found["fan_in"]
    found["density"], found["place"] = kept / size, found["path"].map(paths.index)
    height = 4.2 + 0.07 * max(map(len, paths)) * (len(paths) > 5)
    made = style.canvas(height, "Density of each layer, by method, at the sparsest level", below(results, found))
    axes = made.grid[0, 0]
    for each in series(found):
        look = style.arm_look(each.key, each.place)
        made.line(axes, each.rows["place"], each.rows["density"], each.name, lambda at: paths[int(at)], **look,
                  ls=style.dash(each.run))  # fmt: skip
    axes.set_yscale("symlog", linthresh=1.0)
    axes.set_ylim(0, 110)
    style.ticks(axes.yaxis, [0, 1, 10, 100], ["0", "1", "10", "100"])
    style.ticks(axes.xaxis, range(len(paths)), [path.removesuffix("/kernel") for path in paths])
    axes.tick_params("x", rotation=90 if len(paths) > 5 else 0)
    axes.set(xlabel="", ylabel="weights remaining, %")
    made.legend(axes)
    return made


@style.styled
def cost(results: Results) -> Drawing | None:
    """Draw the weights at each step of training, for the sparsest networks within a point of the dense one (fig. 5-1).

    A network that is pruned at a step trains dense up to there, and then with the whole schedule. The area is what
    training costs, in trainings of the dense network.
    """
    found, table = _early(results), results.table("results", "arm", "level", "accuracy")
    length = max((int(each.get("steps", 0)) for each in results.settings.values()), default=0)
    if found is None or table is None or not length:
        return None
    dense = table[table["level"] == 0].groupby("run")["accuracy"].mean()
    found = found[found["ablation"] == "none"]
    means = found.groupby(["run", "arm", "step", "level"])[["accuracy", "density"]].mean().reset_index()
    means = means[means["accuracy"] >= means["run"].map(dense) - 0.01]
    if means.empty:
        return None
    # Benchmarks know their masks at the end of a training. Of each method the cheapest is drawn.
    means.loc[means["arm"].isin(BENCHMARKS), "step"] = length
    means["area"] = means["step"] / length + means["density"]
    best = means.loc[means.groupby(["run", "arm"])["area"].idxmin()]
    made = style.canvas(4.4, "Weights at each step of training, where a point of accuracy is lost at most",
                        below(results, found))  # fmt: skip
    axes = made.grid[0, 0]
    for each in series(best):
        row, look = each.rows.iloc[0], style.arm_look(each.key, each.place)
        x, y = [0, row["step"], row["step"], row["step"] + length], [100, 100, *[100 * row["density"]] * 2]
        name = f"{each.name}, {percent(row['density'])} from step {row['step']:,.0f}: {row['area']:.2f}"
        axes.plot(x if row["step"] else x[2:], y if row["step"] else y[2:], label=name, color=look["color"],
                  marker=look["marker"], ls=style.dash(each.run))  # fmt: skip
        made.tips.append((axes, float(row["step"]), float(100 * row["density"]), name))
    axes.plot([0, length], [100, 100], color=style.GRAY, lw=1.4, ls="--", label="dense: 1.00")
    axes.set(xlabel="step of training", ylabel="weights, %", ylim=(0, 108))
    made.legend(axes)
    made.note("After the colon: the area, in trainings of the dense network.")
    return made


def _panels(results: Results, found: pd.DataFrame, arms: list[str], title: str) -> Drawing:
    """A panel for each arm."""
    rows = -(-len(arms) // _COLUMNS)
    made = style.canvas(1.0 + 2.5 * rows, title, below(results, found), rows=rows, columns=min(_COLUMNS, len(arms)),
                        sharex=True, sharey=True)  # fmt: skip
    for axes in made.grid.flat[len(arms) :]:
        axes.set_visible(False)
    return made


def _ablated(made: Drawing, axes: Axes, mine: pd.DataFrame, x: str, place: Callable[[float], str]) -> None:
    """A line for each ablation of an arm."""
    for each in series(mine, "ablation"):
        name, colour, marker = _ABLATIONS.get(each.key, (str(each.key), "#666666", "."))
        made.line(axes, each.rows[x], each.rows["accuracy"], name, place, color=colour, marker=marker,
                  ls=style.dash(each.run))  # fmt: skip


def _early(results: Results) -> pd.DataFrame | None:
    return results.table("early", "arm", "ablation", "step", "level", "density", "accuracy")
