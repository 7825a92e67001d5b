"""The findings of the thesis' chapter 4, decided by the rows of the plan "instability".

Instability is in shares of error; stable is below 0.02. What is stable, and what matches, is defined in `forks`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from keras_lth.report.findings import Facts, Findings, NotThereError, Verdict, points
from keras_lth.report.forks import (
    at_zero,
    by_fork,
    chosen,
    dense,
    density_of,
    levels_of,
    matches,
    matching_from,
    medians,
    of,
    ranges,
    split_by_stability,
    stable_from,
    when_stable,
)
from keras_lth.report.numbers import STABLE, arm_name, percent

BASELINES = ("random_layerwise", "reinit")
_CLASSES = {"cifar100": 100, "tiny_imagenet": 200, "imagenet": 1000}
FINDINGS = Findings()


@FINDINGS("4-01", "At k = 0 LeNet is stable: its error rises by less than a point on the line", "figure 4-2")
def _lenet(facts: Facts) -> Verdict:
    if not _is_lenet(facts):
        return Verdict(None, "the finding is about LeNet")
    barrier = at_zero(by_fork(facts, "dense", 0))
    return Verdict(bool(barrier < 0.01), f"by {points(barrier)} points")


@FINDINGS("4-02", "At k = 0 all other networks are unstable: the error rises to random guessing", "figure 4-2")
def _chance(facts: Facts) -> Verdict:
    if _is_lenet(facts):
        return Verdict(None, "the finding is about all networks but LeNet")
    rows = of(facts, "instability", "dense", 0, "errors")
    highest = float(np.mean([max(errors) for errors in rows[rows["fork"] == 0]["errors"]]))
    barrier = at_zero(by_fork(facts, "dense", 0))
    shown = f"to {100 * highest:.1f} % of {100 * _guessing(facts):.0f} %; instability {points(barrier)} points"
    return Verdict(bool(barrier >= STABLE and highest >= 0.9 * _guessing(facts)), shown)


@FINDINGS("4-03", "Instability falls as k grows, to stable networks early in training", "figure 4-3")
def _falls(facts: Facts) -> Verdict:
    found = by_fork(facts, "dense", 0)
    since = stable_from(found)
    falls = len(found) > 1 and found.iloc[-1] <= found.iloc[0] + 1e-9
    return Verdict(bool(falls and math.isfinite(since)), f"{_course(found)}; stable from {_step(since)}")


@FINDINGS("4-04", "Instability on training and test data is the same, and is stable from the same step", "4.1.2")
def _train(facts: Facts) -> Verdict:
    return _both_data(facts, "dense", 0, same_step=True)


@FINDINGS("4-06", "With T steps and the schedule restarted, instability is that of the T − k steps", "figure 4-4")
def _restart(facts: Facts) -> Verdict:
    a, b = by_fork(facts, "dense", 0), by_fork(facts, "dense", 0, span="restart")
    rows = of(facts, "instability", "dense", 0, "barrier")
    spread = rows.groupby("fork")["barrier"].std(ddof=1).fillna(0.0)
    steps = a.index.intersection(b.index)
    away = (a[steps] - b[steps]).abs()
    allowed = np.maximum(STABLE, 2 * spread[steps])
    return Verdict(bool((away <= allowed).all()), f"at most {points(float(away.max()))} points apart")


@FINDINGS("4-07", "Through the training from k = 0 instability rises as the error falls", "figure 4-5")
def _rises(facts: Facts) -> Verdict:
    found = _throughout(facts, "dense", 0)
    first = found[found.columns.min()]
    if at_zero(by_fork(facts, "dense", 0)) < STABLE:
        return Verdict(None, "the network is stable from k = 0")
    trend = float(first.rank().corr(pd.Series(first.index, first.index).rank()))
    return Verdict(trend > 0.5, f"from {points(first.iloc[0])} to {points(first.iloc[-1])} points")


@FINDINGS("4-08", "Networks that are stable at the end are generally stable throughout the training", "figure 4-5")
def _stable_throughout(facts: Facts) -> Verdict:
    return _always(facts, "dense", 0)


@FINDINGS("4-09", "The L2 distance of the copies falls linearly in log k, and stays far from 0", "figure 4-7")
def _l2(facts: Facts) -> Verdict:
    return _linear(facts, "l2")


@FINDINGS("4-10", "So does the cosine distance", "figure 4-8")
def _cosine(facts: Facts) -> Verdict:
    return _linear(facts, "cosine")


@FINDINGS("4-11", "Dense copies classify about as many examples differently whatever k", "figures 4-9, 4-10")
def _different(facts: Facts) -> Verdict:
    return _flat(facts, "different")


@FINDINGS("4-12", "So does the L2 distance of their losses", "figures 4-11, 4-12")
def _losses(facts: Facts) -> Verdict:
    return _flat(facts, "loss_l2")


@FINDINGS("4-13", "There is a sparsest level at which the best accuracy over all k is within a deviation of the dense "
          "network's", "figure 4-13")  # fmt: skip
def _density(facts: Facts) -> Verdict:
    try:
        level = chosen(facts)
    except NotThereError as error:
        if "matches at no level" not in str(error):
            raise
        return Verdict(False, f"{error}")
    return Verdict(True, f"level {level}, {percent(density_of(facts, 'imp', level))}")


@FINDINGS("4-14", "At k = 0 IMP matches for LeNet, and not for the standard networks", "table 4.2")
def _at_init(facts: Facts) -> Verdict:
    level = chosen(facts)
    good = bool(at_zero(matches(facts, "imp", level)))
    gap = at_zero(by_fork(facts, "imp", level, "accuracy", table="copies")) - dense(facts).mean
    return Verdict(good == _is_lenet(facts), f"{points(gap)} points at {percent(density_of(facts, 'imp', level))}")


@FINDINGS("4-15", "Where IMP does not match at k = 0, it is no more accurate than random pruning or reinitialisation",
          "4.2.3")  # fmt: skip
def _no_better(facts: Facts) -> Verdict:
    level = chosen(facts)
    if at_zero(matches(facts, "imp", level)):
        return Verdict(None, "IMP matches at k = 0")
    mine = at_zero(by_fork(facts, "imp", level, "accuracy", table="copies"))
    others = {arm: at_zero(by_fork(facts, arm, level, "accuracy", table="copies")) for arm in BASELINES}
    said = ", ".join(f"{points(mine - each)} to {arm_name(arm)}" for arm, each in others.items())
    return Verdict(mine - max(others.values()) <= 0.015, f"{said}")


@FINDINGS("4-16", "At k = 0 IMP subnetworks match exactly where they are stable", "figure 4-14")
def _exactly(facts: Facts) -> Verdict:
    level = chosen(facts)
    good, barrier = bool(at_zero(matches(facts, "imp", level))), at_zero(by_fork(facts, "imp", level))
    shown = f"{'matching' if good else 'not matching'}, {'stable' if barrier < STABLE else 'unstable'}"
    return Verdict(good == bool(barrier < STABLE), f"{shown} at {percent(density_of(facts, 'imp', level))}")


@FINDINGS("4-17", "Randomly pruned and reinitialised subnetworks match at no k, and are stable at none, except that "
          "LeNet's rise only slightly", "figures 4-14, 4-15")  # fmt: skip
def _neither(facts: Facts) -> Verdict:
    level, said, holds = chosen(facts), [], True
    for arm in BASELINES:
        barriers, good = by_fork(facts, arm, level), matches(facts, arm, level)
        holds &= not good.any() and (bool((barriers < 0.05).all()) if _is_lenet(facts) else (barriers >= STABLE).all())
        said.append(f"{arm_name(arm)}: matches at {int(good.sum())}, stable at {int((barriers < STABLE).sum())} of "
                    f"{len(barriers)} steps")  # fmt: skip
    return Verdict(bool(holds), "; ".join(said))


@FINDINGS("4-18", "Subnetworks of IMP that are stable at k = 0 stay stable at every k", "figure 4-15")
def _stay(facts: Facts) -> Verdict:
    found = by_fork(facts, "imp", chosen(facts))
    if at_zero(found) >= STABLE:
        return Verdict(None, "IMP is unstable at k = 0")
    return Verdict(bool((found < STABLE).all()), _course(found))


@FINDINGS("4-19", "Subnetworks of IMP that are unstable at k = 0 become stable later", "figure 4-15")
def _later(facts: Facts) -> Verdict:
    found = by_fork(facts, "imp", chosen(facts))
    if at_zero(found) < STABLE:
        return Verdict(None, "IMP is stable at k = 0")
    return Verdict(math.isfinite(stable_from(found)), f"{_course(found)}; stable from {_step(stable_from(found))}")


@FINDINGS("4-20", "IMP subnetworks are stable at least as soon as the dense network", "4.2.3")
def _sooner(facts: Facts) -> Verdict:
    mine, whole = stable_from(by_fork(facts, "imp", chosen(facts))), stable_from(by_fork(facts, "dense", 0))
    return Verdict(mine <= whole, f"from {_step(mine)}; the dense network from {_step(whole)}")


@FINDINGS("4-21", "Subnetworks of IMP that match at k = 0 generally match later", "figure 4-16")
def _match_later(facts: Facts) -> Verdict:
    good = matches(facts, "imp", chosen(facts))
    if not at_zero(good):
        return Verdict(None, "IMP does not match at k = 0")
    return Verdict(bool(good.mean() >= 0.75), f"at {int(good.sum())} of {len(good)} steps")


@FINDINGS("4-22", "Subnetworks of IMP that do not match at k = 0 match later, from about where they are stable",
          "figure 4-16")  # fmt: skip
def _coincide(facts: Facts) -> Verdict:
    level = chosen(facts)
    if at_zero(matches(facts, "imp", level)):
        return Verdict(None, "IMP matches at k = 0")
    found = by_fork(facts, "imp", level)
    pair = stable_from(found), matching_from(facts, "imp", level)
    return Verdict(_near(pair, list(found.index)), f"stable from {_step(pair[0])}, matching from {_step(pair[1])}")


@FINDINGS("4-23", "Stable IMP subnetworks reach 0 % training error, unstable ones do not", "figures 4-17, 4-20")
def _optimised(facts: Facts) -> Verdict:
    stable, unstable = split_by_stability(facts, "train_accuracy", "copies")
    most, least = 1 - stable.min(), 1 - unstable.max()
    shown = f"{100 * most:.2f} % at most where stable, {100 * least:.2f} % at least elsewhere"
    return Verdict(bool(most <= 0.001 < least), shown)


@FINDINGS("4-24", "Of IMP subnetworks too, instability is the same on training and test data", "figure 4-19")
def _train_imp(facts: Facts) -> Verdict:
    return _both_data(facts, "imp", chosen(facts), same_step=False)


@FINDINGS("4-25", "IMP subnetworks that are stable at the end are stable throughout the training", "figure 4-21")
def _imp_throughout(facts: Facts) -> Verdict:
    return _always(facts, "imp", chosen(facts))


@FINDINGS("4-27", "IMP copies are closer in L2 than those of both baselines where they are stable", "figure 4-25")
def _l2_imp(facts: Facts) -> Verdict:
    return _closer(facts, "l2")


@FINDINGS("4-28", "So they are in cosine distance", "figure 4-26")
def _cosine_imp(facts: Facts) -> Verdict:
    return _closer(facts, "cosine")


@FINDINGS("4-29", "Where they are stable they classify fewer examples differently than the baselines",
          "figures 4-9, 4-10")  # fmt: skip
def _different_imp(facts: Facts) -> Verdict:
    return _closer(facts, "different")


@FINDINGS("4-30", "Relative to the greatest possible number too, the differences fall with stability", "4.2.4")
def _relative(facts: Facts) -> Verdict:
    b, a = (each.mean() for each in split_by_stability(facts, "different_share", "instability"))
    return Verdict(bool(b < 0.75 * a), f"{100 * a:.0f} % where unstable, {100 * b:.0f} % where stable")


@FINDINGS("4-31", "The L2 distance of their losses mirrors this", "figures 4-11, 4-12")
def _losses_imp(facts: Facts) -> Verdict:
    return _closer(facts, "loss_l2")


@FINDINGS("4-32", "As sparsity grows, the step from which IMP is stable falls and then rises; that of random pruning "
          "only rises, until it is never stable", "figure 4-18")  # fmt: skip
def _valley(facts: Facts) -> Verdict:
    imp, other = (medians(facts, arm)["stable"] for arm in ("imp", "random_layerwise"))
    if min(len(imp), len(other)) < 4:
        raise NotThereError("fewer than four levels of IMP and random pruning")
    lowest = int(np.argmin(imp.to_numpy()))
    valley = 0 < lowest < len(imp) - 1 and imp.iloc[0] > imp.min() and imp.iloc[-1] > imp.min()
    rises = bool((np.diff(np.minimum(other, 1e18)) >= 0).all()) and math.isinf(other.iloc[-1])
    return Verdict(bool(valley and rises), f"IMP: {_steps(imp)}; random: {_steps(other)}")


@FINDINGS("4-33", "At the greatest densities randomly pruned subnetworks match too (range I)", "4.2.5")
def _trivial(facts: Facts) -> Verdict:
    trivial = ranges(facts)[0]
    return Verdict(bool(trivial), _densities(facts, trivial))


@FINDINGS("4-34", "Then only IMP subnetworks match (range II)", "4.2.5")
def _only_imp(facts: Facts) -> Verdict:
    trivial, only, _ = ranges(facts)
    return Verdict(bool(only) and (not trivial or max(trivial) < min(only)), _densities(facts, only))


@FINDINGS("4-35", "In part of range II IMP matches from about the step from which it is stable", "4.2.5")
def _part(facts: Facts) -> Verdict:
    found, (_, only, _) = medians(facts, "imp"), ranges(facts)
    steps = list(by_fork(facts, "imp", levels_of(facts, "imp")[0]).index)
    near = [level for level in only if _near((found["stable"][level], found["matching"][level]), steps)]
    return Verdict(bool(near), f"at {len(near)} of {len(only)} levels: {_densities(facts, near)}")


@FINDINGS("4-36", "At the least densities nothing matches at any k (range III); the error still falls where IMP is "
          "stable", "4.2.5")  # fmt: skip
def _extreme(facts: Facts) -> Verdict:
    extreme = ranges(facts)[2]
    if not extreme:
        return Verdict(None, "a subnetwork matches at every level tried")
    lower = []
    for level in extreme:
        stable = by_fork(facts, "imp", level) < STABLE
        accuracy = by_fork(facts, "imp", level, "accuracy", table="copies")
        if stable.any() and not stable.all():
            lower.append(accuracy[stable].mean() > accuracy[~stable].mean())
    return Verdict(all(lower) if lower else None, f"{_densities(facts, extreme)}; lower error at {sum(lower)} of "
                   f"{len(lower)} levels that become stable")  # fmt: skip


@FINDINGS("4-37", "When the dense network becomes stable its error is nearer to its final one than to chance",
          "figure 4-31")  # fmt: skip
def _state_dense(facts: Facts) -> Verdict:
    return _state(facts, "dense", 0)


@FINDINGS("4-39", "So is that of the IMP subnetwork", "figure 4-31")
def _state_imp(facts: Facts) -> Verdict:
    return _state(facts, "imp", chosen(facts))


@FINDINGS("4-40", "When the dense network becomes stable it is closer to its initial state than to its end",
          "figure 4-32")  # fmt: skip
def _near_init(facts: Facts) -> Verdict:
    return _nearer(facts, "dense", 0)


@FINDINGS("4-42", "The distance between stable copies is large beside the distance that the network travels",
          "figure 4-32")  # fmt: skip
def _far(facts: Facts) -> Verdict:
    share = when_stable(facts, "dense", 0, "share_between_ends")
    return Verdict(share >= 0.25, f"{100 * share:.0f} %")


@FINDINGS("4-43", "When the IMP subnetwork becomes stable it is closer to its initial state than to its end",
          "figure 4-33")  # fmt: skip
def _near_init_imp(facts: Facts) -> Verdict:
    return _nearer(facts, "imp", chosen(facts))


@FINDINGS("4-44", "The distance between IMP copies falls with instability, to a still large share of the distance "
          "travelled", "figure 4-33")  # fmt: skip
def _falls_imp(facts: Facts) -> Verdict:
    b, a = (each.mean() for each in split_by_stability(facts, "share_between_ends", "state"))
    return Verdict(bool(b < a and b >= 0.2), f"{100 * a:.0f} % where unstable, {100 * b:.0f} % where stable")


# What the findings share ----------------------------------------------------------------------------------------------


def _both_data(facts: Facts, network: str, level: int, *, same_step: bool) -> Verdict:
    test, train = (by_fork(facts, network, level, data=data) for data in ("test", "train"))
    steps = test.index.intersection(train.index)
    away = (test[steps] - train[steps]).abs().max()
    since = stable_from(test), stable_from(train)
    holds = away <= STABLE and (since[0] == since[1] or not same_step)
    return Verdict(bool(holds), f"at most {points(float(away))} points apart; stable from {_step(since[0])} on test, "
                   f"{_step(since[1])} on training data")  # fmt: skip


def _throughout(facts: Facts, network: str, level: int) -> pd.DataFrame:
    """Instability by step of the training, one column per fork."""
    rows = of(facts, "throughout", network, level, "barrier", "at")
    return rows.pivot_table(index="at", columns="fork", values="barrier", aggfunc="mean").astype(float)


def _always(facts: Facts, network: str, level: int) -> Verdict:
    found, end = _throughout(facts, network, level), by_fork(facts, network, level)
    forks = [fork for fork in found.columns if end[fork] < STABLE]
    if not forks:
        return Verdict(None, "stable at no k of those measured throughout the training")
    inside = found[forks].stack()
    share = float((inside < STABLE).mean())
    return Verdict(share >= 0.9, f"at {100 * share:.0f} % of the steps measured, for {len(forks)} of "
                   f"{len(found.columns)} k")  # fmt: skip


def _linear(facts: Facts, what: str) -> Verdict:
    found = by_fork(facts, "dense", 0, what)
    late = found[found.index > 0]
    if len(late) < 3:
        raise NotThereError("fewer than three k above 0")
    fit = float(np.corrcoef(np.log(late.index.to_numpy(float)), late)[0, 1])
    left = float(late.iloc[-1] / found.iloc[0])
    return Verdict(fit <= -0.9 and left > 0.1, f"correlation with log k {fit:.2f}; at the last k {100 * left:.0f} % of "
                   "that at the first")  # fmt: skip


def _flat(facts: Facts, what: str) -> Verdict:
    said, holds = [], True
    for data in ("test", "train"):
        found = by_fork(facts, "dense", 0, what, data=data)
        spread = float((found.max() - found.min()) / found.mean()) if found.mean() else 0.0
        holds &= spread <= 0.3
        said.append(f"{data}: {found.min():.4g} to {found.max():.4g}")
    return Verdict(holds, "; ".join(said))


def _closer(facts: Facts, what: str) -> Verdict:
    """Where IMP is stable it is below both baselines; where it is not, about at their level."""
    level = chosen(facts)
    mine, stable = by_fork(facts, "imp", level, what), by_fork(facts, "imp", level) < STABLE
    if not stable.any():
        return Verdict(None, "IMP is stable at no k")
    least = pd.concat([by_fork(facts, arm, level, what) for arm in BASELINES], axis=1).min(axis=1)
    if not least.notna().any():
        raise NotThereError(f"no {what} of {' or '.join(map(arm_name, BASELINES))}")
    ratio = (mine / least)[stable.index]
    below = bool((ratio[stable] < 0.9).all())
    same = stable.all() or bool(ratio[~stable].iloc[0] >= 0.75)
    shown = f"{100 * ratio[stable].mean():.0f} % of the lower baseline where stable"
    return Verdict(below and same, shown + ("" if stable.all() else f", {100 * ratio[~stable].iloc[0]:.0f} % at k = 0"))


def _state(facts: Facts, network: str, level: int) -> Verdict:
    now = 1 - when_stable(facts, network, level, "accuracy")
    final = 1 - float(by_fork(facts, network, level, "accuracy", table="copies").iloc[-1])
    chance = _guessing(facts)
    since = stable_from(by_fork(facts, network, level))
    if since == 0:
        return Verdict(None, "it is stable before the first step")
    shown = f"{100 * now:.1f} % at {_step(since)}; final {100 * final:.1f} %, chance {100 * chance:.0f} %"
    return Verdict(now - final < chance - now, shown)


def _nearer(facts: Facts, network: str, level: int) -> Verdict:
    if stable_from(by_fork(facts, network, level)) == 0:
        return Verdict(None, "it is stable before the first step")
    a, b = (when_stable(facts, network, level, what) for what in ("init_to_k", "k_to_end"))
    return Verdict(a < b, f"{a:.3g} from the initial state, {b:.3g} to the end")


def _near(pair: Sequence[float], steps: Sequence[float]) -> bool:
    """Whether two steps are the same or neighbours among those tried."""
    if not all(map(math.isfinite, pair)):
        return False
    places = [int(np.argmin(np.abs(np.asarray(steps, float) - step))) for step in pair]
    return abs(places[0] - places[1]) <= 1


def _is_lenet(facts: Facts) -> bool:
    return facts.name.startswith("lenet")


def _guessing(facts: Facts) -> float:
    return 1 - 1 / _CLASSES.get(str(facts.setting.get("data", "")), 10)


def _densities(facts: Facts, levels: Sequence[int]) -> str:
    return ", ".join(percent(density_of(facts, "imp", level)) for level in levels) or "no level"


def _course(found: pd.Series) -> str:
    return f"from {points(found.iloc[0])} to {points(found.iloc[-1])} points"


def _step(step: float) -> str:
    return f"step {step:,.0f}" if math.isfinite(step) else "no step tried"


def _steps(found: pd.Series) -> str:
    return ", ".join(f"{each:,.0f}" if math.isfinite(each) else "never" for each in found)
