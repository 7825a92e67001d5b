"""Figures of the thesis' chapter 5 that only its plan has rows for; each function draws one from `Results`."""

from __future__ import annotations

import numpy as np
import pandas as pd
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


@style.styled
def ablations(results: Results) -> Drawing | None:
    """Draw the ablations of each method, one panel per method (thesis fig. 5-5)."""
    found = _early(results)
    if found is None or set(found["ablation"]) == {"none"}:
        return None
    found = found[found["step"] == found.groupby(["run", "arm"])["step"].transform("min")]
    arms = [arm for arm in in_order(found["arm"]) if (found[found["arm"] == arm]["ablation"] != "none").any()]
    rows = -(-len(arms) // _COLUMNS)
    made = style.canvas(1.0 + 2.5 * rows, "Ablations of pruning at initialisation", below(results, found), rows=rows,
                        columns=min(_COLUMNS, len(arms)), sharex=True, sharey=True)  # fmt: skip
    for axes in made.grid.flat[len(arms) :]:
        axes.set_visible(False)
    for arm, axes in zip(arms, made.grid.flat, strict=False):
        mine = found[found["arm"] == arm]
        for each in series(mine, "ablation"):
            name, colour, marker = _ABLATIONS.get(each.key, (str(each.key), "#666666", "."))
            made.line(axes, each.rows["density"], each.rows["accuracy"], name, named_density, color=colour,
                      marker=marker, ls=style.dash(each.run))  # fmt: skip
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
    found = found[(found["ablation"] == "none") & ~found["arm"].isin(("magnitude_after", "ltr"))]
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


def _early(results: Results) -> pd.DataFrame | None:
    return results.table("early", "arm", "ablation", "step", "level", "density", "accuracy")
