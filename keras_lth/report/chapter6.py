"""The findings of the thesis' section 6.2.2, decided by the rows of the plan "dynamic" (keras_lth.experiments.dynamic).

The arm "dynamic" trains sparse from the start and changes its masks once or a few times; the others differ from it in
one thing. What counts as a difference is said in `findings.difference`.
"""

from __future__ import annotations

from keras_lth.report.findings import (
    Curve,
    Difference,
    Facts,
    Findings,
    NotThereError,
    Verdict,
    difference,
    points,
)
from keras_lth.report.numbers import arm_name, percent

FINDINGS = Findings()


@FINDINGS("6-01", "One change of the masks suffices to train sparse from the start as well as IMP with rewinding, and "
          "to the dense accuracy where IMP reaches it", "6.2.2")  # fmt: skip
def _one_change(facts: Facts) -> Verdict:
    dynamic, imp, dense = (curve(facts, arm) for arm in ("dynamic", "imp", "dense"))
    to_imp, to_dense, of_imp = difference(dynamic, imp), difference(dynamic, dense), difference(imp, dense)
    matching = [density for density in of_imp.means.index if density not in of_imp.below]
    fine = not to_imp.below and not {*matching} & {*to_dense.below}
    return Verdict(fine, f"against IMP: {_each(to_imp)}; against the dense network: {_each(to_dense)}")


@FINDINGS("6-02a", "The masks of the two phases hardly overlap", "6.2.2")
def _apart(facts: Facts) -> Verdict:
    rows = facts.table("phases", "arm", "wanted", "density")
    mine = rows[(rows["arm"] == "dynamic") & (rows["change"] == 1)]
    if mine.empty:
        raise NotThereError("no phases of dynamic IMP")
    new = (mine["density"] / mine["wanted"]).groupby(mine["wanted"]).mean()
    said = ", ".join(f"{percent(share)} at {percent(density)}" for density, share in new.items())
    return Verdict(bool((new > 0.5).all()), f"of the second mask the first one did not have {said} of the weights")


@FINDINGS("6-02b", "More overlap lowers the accuracy", "6.2.2")
def _overlap(facts: Facts) -> Verdict:
    found = {arm: _against(facts, arm) for arm in ("overlap_50", "overlap_80")}
    return Verdict(all(each.below and not each.above for each in found.values()), _said(found))


@FINDINGS("6-03", "The grown weights may be sampled once more without loss", "6.2.2")
def _fresh(facts: Facts) -> Verdict:
    found = _against(facts, "fresh")
    return Verdict(not found.below, _each(found))


@FINDINGS("6-04", "A first mask that is random is a little worse, one by magnitude at initialisation hardly", "6.2.2")
def _first(facts: Facts) -> Verdict:
    found = {arm: _against(facts, arm) for arm in ("first_magnitude", "first_random")}
    magnitude, random = (float(each.means.mean()) for each in found.values())
    worst = min(float(each.means.min()) for each in found.values())
    return Verdict(random <= magnitude and worst > -0.05, _said(found))


@FINDINGS("6-05", "To grow by RigL's gradient is like growing at random, and both are far below the second phase of "
          "IMP", "6.2.2")  # fmt: skip
def _growth(facts: Facts) -> Verdict:
    found = {arm: _against(facts, arm) for arm in ("grow_gradient", "grow_random")}
    alike = difference(curve(facts, "grow_gradient"), curve(facts, "grow_random"))
    worse = all(each.below and not each.above for each in found.values())
    return Verdict(worse and not alike.above and not alike.below, f"{_said(found)}; between the two: {_each(alike)}")


@FINDINGS("6-06", "A mask by magnitude at initialisation, of which 80 % are pruned midway and grow in the right places "
          "with fresh values, is as accurate as dynamic IMP", "6.2.2")  # fmt: skip
def _recipe(facts: Facts) -> Verdict:
    found = _against(facts, "recipe")
    return Verdict(not found.below, _each(found))


def curve(facts: Facts, arm: str) -> Curve:
    """Return the table "dynamic" of an arm, by wanted density and replicate."""
    rows = facts.table("dynamic", "arm", "wanted", "replicate", "accuracy")
    mine = rows[rows["arm"] == arm]
    if mine.empty:
        raise NotThereError(f"no rows of {arm}")
    values = mine.pivot_table(index="wanted", columns="replicate", values="accuracy", dropna=False, aggfunc="first")
    return Curve(values.astype(float).sort_index(), mine.groupby("wanted")["density"].mean())


def _against(facts: Facts, arm: str) -> Difference:
    return difference(curve(facts, arm), curve(facts, "dynamic"))


def _each(found: Difference) -> str:
    said = ", ".join(f"{points(mean)} at {percent(density)}" for density, mean in found.means.items())
    return f"{said} (noise {points(found.noise)})"


def _said(found: dict[str, Difference]) -> str:
    return "; ".join(f"{arm_name(arm)}: {_each(each)}" for arm, each in found.items())
