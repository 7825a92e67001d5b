"""The figure of the thesis' section 6.2.2, drawn from the rows of the plan "dynamic"."""

from __future__ import annotations

from keras_lth.report import style
from keras_lth.report.figures import below, named_density
from keras_lth.report.numbers import series
from keras_lth.report.read import Results
from keras_lth.report.style import Drawing

_BESIDE = ("dense", "imp", "static", "rigl", "dynamic")


@style.styled
def dynamic(results: Results) -> Drawing | None:
    """Draw accuracy over density: dynamic IMP beside other methods, and beside its ablations."""
    found = results.table("dynamic", "arm", "replicate", "wanted", "accuracy")
    if found is None:
        return None
    beside = found["arm"].isin(_BESIDE)
    panels = {"beside other methods": found[beside], "its ablations": found[~beside | (found["arm"] == "dynamic")]}
    panels = {title: rows for title, rows in panels.items() if rows["arm"].nunique() > 1}
    if not panels:
        return None
    made = style.canvas(3.4 * len(panels) + 0.8, "Dynamic IMP: sparse from the first step, few changes of the masks",
                        below(results, found), rows=len(panels), sharex=True)  # fmt: skip
    for (title, rows), axes in zip(panels.items(), made.grid[:, 0], strict=True):
        for each in series(rows):
            look = style.arm_look(each.key, each.place)
            made.line(axes, each.rows["wanted"], each.rows["accuracy"], each.name, named_density, **look,
                      ls=style.dash(each.run), err_style="bars")  # fmt: skip
        style.density_axis(axes, found["wanted"], "weights remaining", dense=False)
        axes.set(title=title)
        style.percent_axis(axes, "test accuracy, %")
        made.legend(axes)
    return made
