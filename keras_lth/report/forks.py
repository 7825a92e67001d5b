"""Numbers of networks that are forked at several steps: instability, error and distances by step and network.

A network is *stable* from the first step after which its mean instability stays below 2 points (thesis 4.1.1). A
network *matches* if its mean accuracy is at least that of the dense networks minus one deviation of their replicates
(thesis 4.2.2). A number that is not known, because an error on the line is NaN, makes its mean unknown.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from keras_lth.report.findings import Facts, NotThereError
from keras_lth.report.numbers import STABLE, arm_name

PRUNED = ("imp", "random_layerwise", "reinit")
DROP = 0.002  # that a matching subnetwork may lose (thesis, figure 4-18)


class Dense(NamedTuple):
    """The accuracy of the dense networks: mean, and the deviation of the replicates (0 for one)."""

    mean: float
    deviation: float


def levels_of(facts: Facts, network: str) -> list[int]:
    """Return the levels of a network that was forked, from dense to sparse."""
    frame = facts.table("instability", "network", "level")
    found = sorted({int(level) for level in frame[frame["network"] == network]["level"]})
    if not found:
        raise NotThereError(f"no instability of {network}")
    return found


def by_fork(
    facts: Facts, network: str, level: int, what: str = "barrier", *, data: str = "test", span: str = "remaining",
    table: str = "instability",
) -> pd.Series:  # fmt: skip
    """Return the mean of a column over replicates and pairs by the step of the fork."""
    rows = of(facts, table, network, level, what, data=data, span=span)
    return rows.groupby("fork")[what].agg(lambda each: each.astype(float).mean(skipna=False)).sort_index()


def of(
    facts: Facts, table: str, network: str, level: int, *columns: str, data: str = "test", span: str = "remaining"
) -> pd.DataFrame:
    """Return the rows of a network at a level."""
    frame = facts.table(table, "network", "level", "fork", "replicate", *columns)
    mine = frame[(frame["network"] == network) & (frame["level"] == level)]
    mine = mine[mine["span"].fillna("remaining") == span] if "span" in mine else mine[[span == "remaining"] * len(mine)]
    mine = mine[mine["data"] == data] if "data" in mine else mine
    if mine.empty:
        raise NotThereError(f"no rows {table} of {network} at level {level} on {data} data ({span})")
    return mine


def stable_from(instability: pd.Series) -> float:
    """Return the first step from which the instability stays below 2 points; infinite if it never does."""
    steps = [fork for fork in instability.index if (instability[instability.index >= fork] < STABLE).all()]
    return float(min(steps, default=math.inf))


def dense(facts: Facts) -> Dense:
    """Return the accuracy of the copies of the dense networks at the earliest fork."""
    rows = of(facts, "copies", "dense", 0, "accuracy")
    found = rows[rows["fork"] == rows["fork"].min()].groupby("replicate")["accuracy"].mean().astype(float)
    return Dense(float(found.mean()), float(found.std(ddof=1)) if len(found) > 1 else 0.0)


def matches(facts: Facts, network: str, level: int) -> pd.Series:
    """Return by the step of the fork whether a network matches."""
    least = dense(facts)
    return by_fork(facts, network, level, "accuracy", table="copies") >= least.mean - least.deviation - 1e-9


def matching_from(facts: Facts, network: str, level: int) -> float:
    """Return the first step at which a network matches; infinite if it never does."""
    found = matches(facts, network, level)
    return float(min(found.index[found], default=math.inf))


def chosen(facts: Facts) -> int:
    """Return the sparsest level at which IMP matches at any step (thesis, figure 4-13); of those tried.

    Raises `NotThereError` if there is none.
    """
    good = [level for level in levels_of(facts, "imp") if matches(facts, "imp", level).any()]
    if not good:
        raise NotThereError("IMP matches at no level and step")
    return max(good)


def medians(facts: Facts, network: str) -> pd.DataFrame:
    """Return by level the median step from which subnetworks are stable, and at which they match (figure 4-18).

    Each replicate and pair counts: stable by its own barriers, matching if a copy loses less than 0.2 points to the
    mean of the dense networks of its replicate. Infinite where less than half of them do. The index is the level.
    """
    own = of(facts, "copies", "dense", 0, "accuracy")
    own = own[own["fork"] == own["fork"].min()].groupby("replicate")["accuracy"].mean()
    out = []
    for level in levels_of(facts, network):
        pairs = of(facts, "instability", network, level, "barrier", "pair", "density")
        stable = [stable_from(each.set_index("fork")["barrier"].sort_index())
                  for _, each in pairs.groupby(["replicate", "pair"])]  # fmt: skip
        copies = of(facts, "copies", network, level, "accuracy", "copy")
        good = copies[copies["accuracy"] > copies["replicate"].map(own) - DROP]
        matching = [float(good[(good["replicate"] == r) & (good["copy"] == c)]["fork"].min())
                    for r, c in {*zip(copies["replicate"], copies["copy"], strict=True)}]  # fmt: skip
        out.append({
            "level": level, "density": float(pairs["density"].mean()), "stable": float(np.median(stable)),
            "matching": float(np.median(np.nan_to_num(matching, nan=math.inf))),
        })  # fmt: skip
    return pd.DataFrame(out).set_index("level")


def at_zero(found: pd.Series) -> float:
    """Return the number of the fork at step 0; raise `NotThereError` without one."""
    if 0 not in found.index:
        raise NotThereError("no fork at k = 0")
    return float(found[0])


def density_of(facts: Facts, network: str, level: int) -> float:
    """Return the mean density of a network at a level."""
    return float(of(facts, "instability", network, level, "density")["density"].mean())


def split_by_stability(facts: Facts, what: str, table: str) -> tuple[pd.Series, pd.Series]:
    """Return a number of IMP where it is stable, and where it is not; raise `NotThereError` if one of them is empty."""
    level = chosen(facts)
    found, stable = by_fork(facts, "imp", level, what, table=table), by_fork(facts, "imp", level) < STABLE
    if stable.all() or not stable.any():
        raise NotThereError(f"IMP is stable at {'every' if stable.all() else 'no'} k")
    return found[stable.reindex(found.index)], found[~stable.reindex(found.index)]


def ranges(facts: Facts) -> tuple[list[int], list[int], list[int]]:
    """Return the levels at which random pruning matches, at which only IMP does, and at which nothing does."""
    imp, other = (medians(facts, arm)["matching"] for arm in ("imp", "random_layerwise"))
    levels = [level for level in imp.index if level in other.index]
    trivial = [level for level in levels if math.isfinite(other[level])]
    only = [level for level in levels if level not in trivial and math.isfinite(imp[level])]
    return trivial, only, [level for level in levels if level not in trivial and level not in only]


def when_stable(facts: Facts, network: str, level: int, what: str) -> float:
    """Return a number of the table "state" at the first stable step; raise `NotThereError` if there is none."""
    since, found = stable_from(by_fork(facts, network, level)), by_fork(facts, network, level, what, table="state")
    if math.isinf(since):
        raise NotThereError(f"{arm_name(network)} is stable at no k")
    return float(found[since])
