"""Numbers derived from rows: means and spreads over replicates, what matches, what is stable, and their format."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from keras_lth.imp import at_least
from keras_lth.report.read import Results

ARMS = {
    "imp": "IMP",
    "imp_one_shot": "one-shot IMP",
    "reset": "IMP, rewound to step 0",
    "lrr": "learning-rate rewinding",
    "lrr_one_shot": "one-shot learning-rate rewinding",
    "scratch": "one-shot masks, trained from scratch",
    "fine_tuning": "fine-tuning",
    "low_rate": "rewinding at the lowest rate",
    "cyclic": "dense, trained as often",
    "reinit": "reinitialised",
    "signs": "reinitialised with the same signs",
    "shuffled": "shuffled values",
    "noise": "values with noise",
    "random_layerwise": "layerwise random",
    "magnitude_after": "magnitude after training",
    "ltr": "LTR",
    "magnitude": "magnitude",
    "snip": "SNIP",
    "snip_iterative": "iterative SNIP",
    "grasp": "GraSP",
    "grasp_absolute": "GraSP, least absolute",
    "synflow": "SynFlow",
    "random": "random",
    "random_global": "global random",
    "dynamic": "dynamic IMP",
    "static": "static masks",
    "rigl": "RigL",
    "first_magnitude": "first mask by magnitude",
    "first_random": "first mask random",
    "grow_gradient": "grown by RigL's gradient",
    "grow_random": "grown at random",
    "overlap_50": "half of each mask kept",
    "overlap_80": "80 % of each mask kept",
    "fresh": "grown weights sampled again",
    "recipe": "magnitude, then 80 % regrown",
}
_FORKED = ("dense", "ticket", "imp", "random_layerwise", "reinit")
STABLE = 0.02  # of error on the line (thesis 4.1.1)


class Series(NamedTuple):
    """The rows of one line of a figure or column of a table: its name, and the order of its run and of its key."""

    name: str
    run: int
    key: Any
    place: int
    rows: pd.DataFrame


def series(frame: pd.DataFrame, by: str = "arm") -> Iterator[Series]:
    """Return each run × key of the column ``by``, our arms first; the name includes the run if there are several."""
    runs = list(dict.fromkeys(frame["run"]))
    for (number, run), (place, key) in itertools.product(enumerate(runs), enumerate(in_order(frame[by]))):
        rows = frame[(frame["run"] == run) & (frame[by] == key)]
        if len(rows):
            name = arm_name(key)
            yield Series(f"{run}: {name}" if len(runs) > 1 else name, number, key, place, rows)


def arm_name(arm: Any) -> str:
    """Return the name of an arm for readers; an unknown one as it is."""
    return ARMS.get(arm, str(arm))


def in_order(keys: Iterable[Any]) -> list[Any]:
    """Return the keys without repetition: our arms first, the others in their given order."""
    given = list(dict.fromkeys(keys))
    return sorted(given, key=lambda key: list(ARMS).index(key) if key in ARMS else len(ARMS))


def networks(results: Results) -> pd.DataFrame | None:
    """Return the table "results" with the columns ``diverged``, ``dense``, ``difference`` and ``matching``.

    ``diverged``: accuracy or loss is not finite; the accuracy is then NaN. ``dense``: the accuracy of the network's own
    dense network, which is level 0 of its replicate, and of its own arm if the arm has one. ``difference``: the
    difference to ``dense``.
    """
    frame = results.table("results", "arm", "replicate", "level", "density", "accuracy")
    if frame is None:
        return None
    loss = frame.get("loss", pd.Series(0.0, frame.index)).astype(float)
    tested = loss.groupby(frame["run"]).transform("count") > 0
    frame["diverged"] = ~(np.isfinite(frame["accuracy"].astype(float)) & np.isfinite(loss.where(tested, 0.0)))
    frame["accuracy"] = frame["accuracy"].where(~frame["diverged"])
    own: dict[Any, float] = {}
    for row in frame[frame["level"] == 0].itertuples():
        own.setdefault((row.run, row.replicate), row.accuracy)
        own[row.run, row.replicate, row.arm] = row.accuracy
    keys = zip(frame["run"], frame["replicate"], frame["arm"], strict=True)
    frame["dense"] = [own.get(key, own.get(key[:2], math.nan)) for key in keys]
    frame["difference"] = frame["accuracy"] - frame["dense"]
    frame["matching"] = [at_least(*pair) for pair in zip(frame["accuracy"], frame["dense"], strict=True)]
    return frame


def summary(found: pd.DataFrame) -> pd.DataFrame:
    """Return one row per run, arm and level, over replicates.

    The columns are mean, least and greatest accuracy of the replicates that did not diverge, the mean ``difference`` to
    their own dense networks, and how many of the ``compared`` are ``matching``.

    ``matches``: the mean difference is at least 0. Keras' accuracies are float32, so the mean is first rounded to six
    digits: equal numbers of correct test examples stay equal.
    """
    known = found.assign(compared=found["difference"].notna())
    out = known.groupby(["run", "arm", "level"], sort=False, as_index=False).agg(
        density=("density", "mean"),
        mean=("accuracy", "mean"),
        least=("accuracy", "min"),
        greatest=("accuracy", "max"),
        difference=("difference", "mean"),
        matching=("matching", "sum"),
        compared=("compared", "sum"),
        replicates=("replicate", "size"),
        diverged=("diverged", "sum"),
    )
    out["matches"] = [at_least(round(difference, 6), 0.0) for difference in out["difference"]]
    return out.sort_values("level", kind="stable", ignore_index=True)


def dense(found: pd.DataFrame) -> pd.DataFrame:
    """Return mean, least and greatest accuracy of the dense networks, and their number, by run."""
    rows = found[found["level"] == 0].drop_duplicates(["run", "replicate"])
    return rows.groupby("run", sort=False)["accuracy"].agg(["mean", "min", "max", "count"])


def verdicts(levels: pd.DataFrame) -> pd.DataFrame:
    """Return one row per arm, for readers: where it matches, and what it loses at its sparsest level.

    A matching level is trivial if global random pruning matches at its density too (thesis 3.2).
    """
    out = []
    random = levels[(levels["arm"] == "random_global") & (levels["level"] > 0)]
    for each in series(levels[levels["level"] > 0]):
        run = each.rows["run"].iloc[0]
        trivial = set(random[(random["run"] == run) & random["matches"]]["level"])
        good, last = each.rows[each.rows["matches"]], each.rows.iloc[-1]
        best = last if each.rows["mean"].isna().all() else each.rows.loc[each.rows["mean"].idxmax()]
        out.append({
            "arm": each.name,
            "sparsest matching": percent(good["density"].min()) if len(good) else "none",
            "levels that match": f"{len(good)} of {len(each.rows)}",
            **({"not trivial": str(sum(level not in trivial for level in good["level"]))} if len(random) else {}),
            "best, points to dense": f"{signed(best['difference'])} at {percent(best['density'])}",
            "sparsest": percent(last["density"]),
            "accuracy there, %": accuracy(last),
            "points to dense": signed(last["difference"]),
            "replicates that match": f"{last['matching']} of {last['compared']}",
        })  # fmt: skip
    return pd.DataFrame(out)


def by_level(levels: pd.DataFrame) -> pd.DataFrame:
    """Return one row per level and one column per arm: ``89.07 (88.95–89.20)``, and below it ``+0.08 (3/3) ✓``."""
    columns = {}
    for each in series(levels):
        texts = [accuracy(row) for _, row in each.rows.iterrows()]
        differences = [
            f"\n{signed(row['difference'])} ({row['matching']}/{row['compared']}){' ✓' * bool(row['matches'])}"
            if row["level"] and row["compared"]
            else ""
            for _, row in each.rows.iterrows()
        ]
        columns[f"{each.name}, %"] = pd.Series(map("".join, zip(texts, differences, strict=True)), each.rows["level"])
    table = pd.DataFrame(columns).fillna("").sort_index()
    densities = levels.groupby("level")["density"].mean()
    table.insert(0, "weights remaining", [percent(densities[level]) for level in table.index])
    table.insert(0, "level", [str(level) if level else "dense" for level in table.index])
    return table


def pairs(results: Results) -> pd.DataFrame | None:
    """Return the table "instability" in the order of fork steps.

    ``network`` becomes the name for readers, with the densities of its replicates. A number that is not finite is never
    averaged away: the errors at its position on the line, and the barriers, are NaN in all pairs of the same network,
    fork and data, so that their means are gaps. The column ``unknown`` marks the pairs that it comes from. Returns None
    if there is no pair.
    """
    frame = results.table("instability", "replicate", "network", "fork", "alphas", "errors", "barrier")
    if frame is None:
        return None
    frame["unknown"] = [not np.isfinite([*row.errors, row.barrier]).all() for row in frame.itertuples()]
    frame = frame.sort_values("fork", kind="stable").sort_values(
        "network", key=lambda n: n != "dense", kind="stable", ignore_index=True
    )
    frame["data"] = frame.get("data", "test")
    frame = with_networks(frame)
    for _, rows in frame.groupby(["run", "network", "fork", "data"]):
        if rows["unknown"].any():
            errors = np.array(rows["errors"].tolist(), float)
            errors[:, ~np.isfinite(errors).all(axis=0)] = np.nan
            frame.loc[rows.index, "errors"] = pd.Series(errors.tolist(), rows.index)
            frame.loc[rows.index, "barrier"] = np.nan
    return None if frame.empty else frame


def with_networks(frame: pd.DataFrame) -> pd.DataFrame:
    """Return forked networks with names for readers: with their density, by level, and the span of their copies.

    Rows are in one order of networks and levels, so that a network looks the same in all figures.
    """
    order = [key for key in ("network", "level") if key in frame]
    frame = frame.sort_values(order, key=_placed, kind="stable")
    found = frame.copy()
    keys = [key for key in ("run", "network", "level", "span") if key in frame]
    for labels, rows in frame.groupby(keys, dropna=False) if "density" in frame else ():
        of = dict(zip(keys, labels, strict=True))
        least, most = percent(rows["density"].min()), percent(rows["density"].max())
        name = arm_name(of["network"])
        if of["network"] != "dense":
            name = f"{name}, {most if least == most else f'{most} to {least}'}"
        found.loc[rows.index, "network"] = f"{name}, T steps" if of.get("span") == "restart" else name
    return found


def _placed(column: pd.Series) -> pd.Series:
    """The places of networks in `_FORKED`, others after them; numbers as they are."""
    places = {name: place for place, name in enumerate(_FORKED)}
    return column if column.dtype.kind in "if" else column.map(lambda name: places.get(name, len(places)))


def stability(found: pd.DataFrame) -> pd.DataFrame:
    """Return one row per network and data set and one column per fork step, for readers.

    A cell is the mean instability in points over pairs (least to greatest). The last column is the first step from
    which the mean stays below 2 points.
    """
    out = []
    for each, data in itertools.product(series(found, "network"), in_order(found["data"])):
        forks = each.rows[each.rows["data"] == data].groupby("fork")["barrier"].agg(["mean", "min", "max"])
        cells = {
            f"k = {fork:,}": f"{100 * row['mean']:.2f} ({100 * row['min']:.2f}–{100 * row['max']:.2f})"
            if math.isfinite(row["mean"])
            else "not known"
            for fork, row in forks.iterrows()
        }
        tail = [fork for fork in forks.index if (forks["mean"][forks.index >= fork] < STABLE).all()]
        if cells:
            stable = f"step {tail[0]:,} on" if tail else "no step tried"
            out.append({"network": each.name, "data": data, **cells, "stable from": stable})
    return pd.DataFrame(out).fillna("")


def accuracy(row: Any) -> str:
    """Format a row of `summary` in per cent, such as ``89.07 (88.95–89.20)``."""
    if not math.isfinite(row["mean"]):
        return "diverged"
    many = row["replicates"] - row["diverged"] > 1
    spread = f" ({100 * row['least']:.2f}–{100 * row['greatest']:.2f})" if many else ""
    return f"{100 * row['mean']:.2f}{spread}" + (f", {row['diverged']} diverged" if row["diverged"] else "")


def signed(share: float) -> str:
    """Format a difference of accuracies in points, with its sign."""
    # Six digits as in `summary`, and no negative zero.
    return f"{100 * (round(share, 6) + 0.0):+.2f}".replace("-", "−") if math.isfinite(share) else "–"


def percent(density: float) -> str:
    """Format a density in per cent, with as many digits as needed: 100 %, 51.2 %, 8.6 %, 0.92 %."""
    value = 100 * density
    if value >= 99.95:
        return "100 %"
    return f"{value:.1f} %" if value >= 0.995 else f"{value:.2g} %"
