"""The findings of the thesis' chapter 5, decided by the rows of the plan "early".

Methods prune at initialisation unless a step is given. *Matching sparsities* are those at which magnitude pruning after
training reaches the dense accuracy (thesis 5.2). What counts as a difference is said in `findings.difference`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from keras_lth.report.findings import (
    Curve,
    Difference,
    Facts,
    Findings,
    NotThereError,
    Verdict,
    both,
    difference,
    points,
)
from keras_lth.report.numbers import arm_name

EARLY = ("magnitude", "snip", "grasp", "synflow")
AFTER, LTR = "magnitude_after", "ltr"
FINDINGS = Findings()


@FINDINGS(
    "5-10", "Magnitude pruning after training and LTR reach similar accuracy, and match at the same sparsities", "5.2"
)
def _benchmarks(facts: Facts) -> Verdict:
    found = facts.between(AFTER, LTR)
    a, b = facts.sparsest(AFTER), facts.sparsest(LTR)
    worst = found.means[found.means.abs().idxmax()]
    return Verdict(
        both(bool(abs(worst) <= max(found.noise, 0.005)), a.within(b, 2)),
        f"they differ by {points(worst)} points at most, and match down to {a} and {b}",
    )


@FINDINGS("5-17", "No method at initialisation reaches full accuracy at a non-trivial sparsity (ResNets)", "5.5.2")
def _not_full(facts: Facts) -> Verdict:
    random = set(facts.matching("random"))
    good = {arm: [level for level in facts.matching(arm) if level not in random] for arm in EARLY}
    said = ", ".join(f"{arm_name(arm)} {len(levels)}" for arm, levels in good.items())
    return Verdict(not any(good.values()), f"levels that match where random pruning does not: {said}")


@FINDINGS("5-19a", "Methods at initialisation are generally above random pruning", "5.5.2")
def _above_random(facts: Facts) -> Verdict:
    found = {arm: facts.between(arm, "random") for arm in EARLY}
    said = ", ".join(f"{arm_name(arm)} at {len(each.above)} of {len(each.means)}" for arm, each in found.items())
    return Verdict(all(len(each.above) > len(each.below) for each in found.values()), f"above the noise: {said} levels")


@FINDINGS("5-19b", "None equals magnitude pruning after training, in accuracy or in the sparsity that matches", "5.5.2")
def _below_after(facts: Facts) -> Verdict:
    found = {arm: facts.between(arm, AFTER) for arm in EARLY}
    sparsest = {arm: facts.sparsest(arm) for arm in (*EARLY, AFTER)}
    said = ", ".join(f"{arm_name(arm)} {points(float(each.means.mean()))}" for arm, each in found.items())
    return Verdict(
        both(
            all(each.below and not each.above for each in found.values()),
            *(sparsest[AFTER].below(sparsest[arm]) for arm in EARLY),
        ),
        f"{said} points in the mean; after training matches down to {sparsest[AFTER]}, the others to "
        f"{min(sparsest[arm] for arm in EARLY)} at best",
    )


@FINDINGS("5-19c", "No single method dominates", "5.5.2")
def _no_winner(facts: Facts) -> Verdict:
    means = pd.DataFrame({arm: facts.curve(arm).means for arm in EARLY}).dropna()
    best = means.idxmax(axis=1)
    first = best.value_counts()
    said = ", ".join(f"{arm_name(arm)} {count}" for arm, count in first.items())
    return Verdict(bool(first.iloc[0] < len(means)), f"best at so many levels: {said}")


@FINDINGS("5-20", "At matching sparsities the best method at initialisation is below pruning after training", "5.13")
def _gap(facts: Facts) -> Verdict:
    levels = facts.matching(AFTER)
    if not levels:
        raise NotThereError("no level of pruning after training matches")
    means = pd.DataFrame({arm: facts.curve(arm).means for arm in EARLY})
    best = means.max(axis=1)
    gap = facts.curve(AFTER).means.loc[levels] - best.loc[levels]
    spread = (best - means.min(axis=1)).loc[levels]
    return Verdict(
        bool(gap.max() > 0),
        f"at most {points(gap.max())} points; between best and worst method at most {points(spread.max())}",
    )


@FINDINGS("5-21", "Data is not needed: SynFlow and magnitude are competitive with SNIP and GraSP", "5.13")
def _no_data(facts: Facts) -> Verdict:
    without = pd.concat([facts.curve(arm).means for arm in ("magnitude", "synflow")], axis=1).max(axis=1)
    with_data = pd.concat([facts.curve(arm).means for arm in ("snip", "grasp")], axis=1).max(axis=1)
    difference_of = (without - with_data).dropna()
    noise = facts.between("synflow", "snip").noise
    fine = int((difference_of >= -max(noise, 0.01)).sum())
    return Verdict(
        fine >= 0.75 * len(difference_of),
        f"the better of the two is within a point or the noise of the others, or above, at {fine} of "
        f"{len(difference_of)} levels",
    )


@FINDINGS(
    "5-22", "Shuffling masks within layers keeps or improves the accuracy of methods at initialisation", "figure 5-5"
)
def _shuffled(facts: Facts) -> Verdict:
    return _unchanged(facts, "shuffle", EARLY, worse_only=True)


@FINDINGS("5-23", "Shuffling lowers the accuracy of magnitude pruning after training", "figure 5-5")
def _shuffled_after(facts: Facts) -> Verdict:
    return _lowers(facts, "shuffle", (AFTER,))


@FINDINGS(
    "5-24", "With a variance of 1 in each layer, magnitude becomes random pruning; the others do not change", "5.7.1"
)
def _unit(facts: Facts) -> Verdict:
    magnitude = difference(variant(facts, "magnitude", "unit"), variant(facts, "random", "none"))
    others = {arm: _change(facts, arm, "unit") for arm in ("snip", "grasp", "synflow")}
    said = ", ".join(f"{arm_name(arm)} {points(float(each.means.mean()))}" for arm, each in others.items())
    return Verdict(
        not magnitude.above and not magnitude.below and not any(each.below for each in others.values()),
        f"magnitude against random {points(float(magnitude.means.mean()))} points; changes: {said}",
    )


@FINDINGS("5-26", "SynFlow prunes more whole neurons than the other methods", "figure 5-6")
def _collapse(facts: Facts) -> Verdict:
    shares = {arm: dead_neurons(facts, arm) for arm in EARLY}
    said = ", ".join(f"{arm_name(arm)} {100 * share:.1f} %" for arm, share in shares.items())
    return Verdict(max(shares, key=lambda arm: shares[arm]) == "synflow", f"at the sparsest level: {said}")


@FINDINGS("5-30a", "Reinitialisation changes nothing for methods at initialisation", "figure 5-5")
def _reinit(facts: Facts) -> Verdict:
    return _unchanged(facts, "reinit", EARLY)


@FINDINGS("5-30b", "Reinitialisation lowers the accuracy of magnitude pruning after training and of LTR", "figure 5-5")
def _reinit_after(facts: Facts) -> Verdict:
    return _lowers(facts, "reinit", (AFTER, LTR))


@FINDINGS("5-31a", "Inversion lowers the accuracy of magnitude, SNIP and SynFlow", "5.7.3")
def _invert(facts: Facts) -> Verdict:
    return _lowers(facts, "invert", ("magnitude", "snip", "synflow"))


@FINDINGS("5-31b", "Inversion does not change GraSP", "5.7.3")
def _invert_grasp(facts: Facts) -> Verdict:
    return _unchanged(facts, "invert", ("grasp",))


@FINDINGS("5-32", "Iterative SNIP is like SNIP", "figure 5-7")
def _iterative(facts: Facts) -> Verdict:
    found = facts.between("snip_iterative", "snip")
    return Verdict(
        len(found.above) + len(found.below) <= len(found.means) / 4,
        f"above at {len(found.above)}, below at {len(found.below)} of {len(found.means)} levels by more than the noise",
    )


@FINDINGS("5-33", "GraSP is better if it removes the lowest absolute scores", "figure 5-9")
def _absolute(facts: Facts) -> Verdict:
    found = facts.between("grasp_absolute", "grasp")
    return Verdict(
        len(found.above) > len(found.below),
        f"above at {len(found.above)}, below at {len(found.below)} of {len(found.means)} levels; "
        f"{points(float(found.means.mean()))} points in the mean",
    )


@FINDINGS("5-41", "The accuracy of random pruning does not depend on the step at which it prunes", "figure 5-12")
def _random_steps(facts: Facts) -> Verdict:
    found = _later(facts, "random")
    return Verdict(not found.above and not found.below, _said(found))


@FINDINGS("5-42", "Magnitude, SNIP and SynFlow improve when they prune later in training", "figure 5-12")
def _later_is_better(facts: Facts) -> Verdict:
    found = {arm: _later(facts, arm) for arm in ("magnitude", "snip", "synflow")}
    said = ", ".join(f"{arm_name(arm)} {points(float(each.means.mean()))}" for arm, each in found.items())
    return Verdict(
        all(each.above and not each.below for each in found.values()), f"the last step against initialisation: {said}"
    )


# What the findings and the figures share ------------------------------------------------------------------------------


def variant(facts: Facts, arm: str, ablation: str, step: int | None = None) -> Curve:
    """Return the table "early" of an arm under an ablation; by default of the arm's first step."""
    rows = facts.table("early", "arm", "ablation", "step", "level", "replicate", "density", "accuracy")
    mine = rows[(rows["arm"] == arm) & (rows["ablation"] == ablation)]
    mine = mine[mine["step"] == (mine["step"].min() if step is None else step)]
    if mine.empty:
        raise NotThereError(f"no rows of {arm} with the ablation {ablation}")
    values = mine.pivot_table(index="level", columns="replicate", values="accuracy", dropna=False, aggfunc="first")
    return Curve(values.astype(float).sort_index(), mine.groupby("level")["density"].mean())


def dead_neurons(facts: Facts, arm: str) -> float:
    """Return the share of neurons or channels without a weight, at the sparsest level."""
    rows = facts.table("neurons", "arm", "level", "outputs")
    mine = rows[rows["arm"] == arm]
    if mine.empty:
        raise NotThereError(f"no neurons of {arm}")
    counts = np.concatenate([np.asarray(each) for each in mine[mine["level"] == mine["level"].max()]["outputs"]])
    return float(np.mean(counts == 0))


def _change(facts: Facts, arm: str, ablation: str) -> Difference:
    return difference(variant(facts, arm, ablation), variant(facts, arm, "none"))


def _unchanged(facts: Facts, ablation: str, arms: Sequence[str], *, worse_only: bool = False) -> Verdict:
    """Whether an ablation changes no arm by more than the noise; an improvement may be allowed."""
    found = {arm: _change(facts, arm, ablation) for arm in arms}
    said = ", ".join(f"{arm_name(arm)} {points(float(each.means.mean()))}" for arm, each in found.items())
    fine = all(not each.below and (worse_only or not each.above) for each in found.values())
    noise = max(each.noise for each in found.values())
    return Verdict(fine, f"changes: {said} points in the mean; noise {points(noise)}")


def _lowers(facts: Facts, ablation: str, arms: Sequence[str]) -> Verdict:
    found = {arm: _change(facts, arm, ablation) for arm in arms}
    said = ", ".join(f"{arm_name(arm)} {points(float(each.means.mean()))}" for arm, each in found.items())
    return Verdict(
        all(each.below and not each.above for each in found.values()),
        f"changes: {said} points in the mean; noise {points(max(each.noise for each in found.values()))}",
    )


def _later(facts: Facts, arm: str) -> Difference:
    """The last step at which an arm pruned, against initialisation."""
    rows = facts.table("early", "arm", "step")
    steps = rows[rows["arm"] == arm]["step"]
    if steps.nunique() < 2:
        raise NotThereError(f"{arm} pruned at one step only")
    return difference(variant(facts, arm, "none", int(steps.max())), variant(facts, arm, "none", 0))


def _said(found: Difference) -> str:
    return f"{points(float(found.means.mean()))} points in the mean; noise {points(found.noise)}"
