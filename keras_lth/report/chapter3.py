"""The findings of the thesis' chapter 3, decided by the rows of the plans "lottery", "dilation" and "anatomy".

An arm is *above* another where the means of the replicates differ by more than twice their standard error. A level
*matches* if its mean is at least that of the dense networks. Levels count from 1; each has 20 % fewer weights.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from keras_lth.imp import at_least
from keras_lth.report.findings import Facts, Findings, NotThereError, Verdict, both, points
from keras_lth.report.numbers import arm_name, percent

BASELINES = ("reinit", "random_layerwise", "random_global")
FINDINGS = Findings()


@FINDINGS("3-01", "IMP finds winning tickets down to 2.8 % of the weights (LeNet on MNIST)", "figure 3-1")
def _tickets(facts: Facts) -> Verdict:
    found = facts.sparsest("imp")
    return Verdict(found.down_to(0.029), f"the sparsest level whose mean matches has {found}")


@FINDINGS("3-02", "Pruning beyond the sparsest winning ticket lowers the accuracy", "figure 3-1")
def _beyond(facts: Facts) -> Verdict:
    imp, level = facts.curve("imp"), _last_winning(facts)
    if level == imp.means.index[-1]:
        return Verdict(None, "the sparsest level trained still matches")
    change = imp.means.iloc[-1] - imp.means[level]
    return Verdict(
        bool(change < -facts.noise("imp")),
        f"from {percent(imp.densities[level])} to {percent(imp.densities.min())}: {points(change)} points",
    )


@FINDINGS("3-03", "Reinitialisation lowers the whole training curve of an IMP subnetwork", "figure 3-2")
def _curve(facts: Facts) -> Verdict:
    level = _last_winning(facts)
    a, b = (_training(facts, arm, level) for arm in ("imp", "reinit"))
    steps = a.index.intersection(b.index)
    lower = (b.loc[steps] < a.loc[steps]).mean()
    return Verdict(
        bool(lower >= 0.9),
        f"at {percent(facts.curve('imp').densities[level])} the mean of the reinitialised networks is lower at "
        f"{100 * lower:.0f} % of the {len(steps)} measured steps",
    )


@FINDINGS("3-05", "Iterative pruning is more accurate than one-shot pruning at every level, on test and training data",
          "3.3.3, figure 3-3")  # fmt: skip
def _iterative(facts: Facts) -> Verdict:
    said, holds = [], True
    for what, data in (("accuracy", "test"), ("train_accuracy", "training")):
        difference = facts.between("imp", "imp_one_shot", what)
        # The first level is the same cut.
        means = difference.means[difference.means.index > 1]
        holds &= bool(difference.above) and not difference.below
        higher = int((means > 0).sum())
        said.append(f"{data} data: higher at {higher} of {len(means)} levels, {points(means.iloc[-1])} at the sparsest")
    return Verdict(holds, "; ".join(said))


@FINDINGS("3-06", "Iterative pruning matches the dense network at a lower density than one-shot pruning", "3.3.3")
def _iterative_sparser(facts: Facts) -> Verdict:
    pairs = [[facts.sparsest(arm, what) for arm in ("imp", "imp_one_shot")] for what in ("accuracy", "train_accuracy")]
    said = [f"{data}: {a} against {b}" for data, (a, b) in zip(("test", "training"), pairs, strict=True)]
    return Verdict(both(*(a.below(b) for a, b in pairs)), "; ".join(said))


@FINDINGS("3-07", "IMP matches down to a similar density on test and training data", "3.3.3")
def _similar(facts: Facts) -> Verdict:
    test, train = facts.sparsest("imp"), facts.sparsest("imp", "train_accuracy")
    return Verdict(test.within(train, 2), f"test {test}, training {train}")


@FINDINGS("3-08", "IMP is above global random pruning, and matches at a lower density", "figure 3-5")
def _above_random(facts: Facts) -> Verdict:
    return _above(facts, "imp", "random_global")


@FINDINGS("3-09", "Global random pruning rarely gives a matching network at any density", "3.3.4")
def _rarely(facts: Facts) -> Verdict:
    good, levels = facts.matching("random_global"), facts.curve("random_global").densities
    return Verdict(len(good) <= len(levels) / 4, f"{len(good)} of {len(levels)} levels match")


@FINDINGS(
    "3-11", "Where global random pruning keeps the training accuracy, IMP keeps it at much lower densities", "3.3.4"
)
def _train_kept(facts: Facts) -> Verdict:
    imp, other = (facts.sparsest(arm, "train_accuracy") for arm in ("imp", "random_global"))
    return Verdict(imp.below(other, 0.5), f"{imp} against {other}")


@FINDINGS("3-12", "Learning-rate rewinding matches at a lower density than IMP, except for LeNet", "figure 3-5")
def _lrr(facts: Facts) -> Verdict:
    imp, lrr = facts.sparsest("imp"), facts.sparsest("lrr")
    sparser = lrr.below(imp)
    holds = sparser if sparser is None or not facts.name.startswith("lenet") else not sparser
    return Verdict(holds, f"{arm_name('lrr')} {lrr}, IMP {imp}")


@FINDINGS(
    "3-13", "The difference between learning-rate rewinding and IMP is small: at most about 2 × in weights", "3.3.4"
)
def _lrr_close(facts: Facts) -> Verdict:
    imp, lrr = facts.sparsest("imp"), facts.sparsest("lrr")
    return Verdict(imp.within(lrr, 2), f"{arm_name('lrr')} {lrr}, IMP {imp}")


@FINDINGS(
    "3-14", "Reinitialised, globally random and layerwise random networks are substantially below IMP", "figure 3-7"
)
def _baselines(facts: Facts) -> Verdict:
    level = _last_winning(facts)
    found = {arm: facts.between("imp", arm) for arm in BASELINES}
    said = [f"{arm_name(arm)} {points(-each.means[level])}" for arm, each in found.items()]
    density = percent(facts.curve("imp").densities[level])
    return Verdict(
        all(level in each.above and not each.below for each in found.values()),
        f"at {density}: {', '.join(said)} points; noise {points(max(each.noise for each in found.values()))}",
    )


@FINDINGS("3-15", "Global random pruning is the worst of the three", "figure 3-7")
def _worst(facts: Facts) -> Verdict:
    means = {arm: float(facts.curve(arm).means.mean()) for arm in BASELINES}
    said = ", ".join(f"{arm_name(arm)} {100 * mean:.2f} %" for arm, mean in means.items())
    return Verdict(min(means, key=lambda arm: means[arm]) == "random_global", f"mean over levels: {said}")


@FINDINGS("3-18", "On LeNet layerwise random pruning is worse than reinitialisation", "3.3.5")
def _layerwise(facts: Facts) -> Verdict:
    if not facts.name.startswith("lenet"):
        return Verdict(None, "the finding is about LeNet")
    found = facts.between("random_layerwise", "reinit")
    return Verdict(
        bool(found.below) and not found.above,
        f"below at {len(found.below)}, above at {len(found.above)} of {len(found.means)} levels by more than the noise"
        f"; {points(float(found.means.mean()))} points in the mean",
    )


@FINDINGS("3-19", "Both the initial values and the positions of the weights are needed for full accuracy", "3.3.5")
def _both(facts: Facts) -> Verdict:
    level, dense = _last_winning(facts), float(facts.dense().mean())
    gaps = {arm: facts.curve(arm).means[level] - dense for arm in ("reinit", "random_layerwise")}
    said = ", ".join(f"{arm_name(arm)} {points(gap)}" for arm, gap in gaps.items())
    return Verdict(
        all(gap < 0 for gap in gaps.values()),
        f"at {percent(facts.curve('imp').densities[level])}, where IMP matches, to the dense network: {said} points",
    )


@FINDINGS(
    "3-20", "Winning tickets reach the least hold-out loss in at most as many steps as the dense network", "figure 3-8"
)
def _stops(facts: Facts) -> Verdict:
    found = stopping(facts.table("holdout", "arm", "replicate", "level", "step", "holdout_loss"))
    dense, mine = _dense_stop(found), _stop(found, "imp")
    good = [level for level in facts.matching("imp") if level in mine.index]
    if not good:
        raise NotThereError("no level of IMP matches")
    fine = [level for level in good if mine[level] <= dense]
    return Verdict(
        len(fine) == len(good),
        f"at {len(fine)} of {len(good)} matching levels; dense {dense:,.0f} steps, tickets {mine[good].min():,.0f} to "
        f"{mine[good].max():,.0f}",
    )


@FINDINGS("3-21", "In many cases they have a higher test accuracy there", "3.3.6")
def _better_there(facts: Facts) -> Verdict:
    found = at_stop(facts)
    dense = found[found["level"] == 0]["accuracy"].mean()
    mine = found[found["arm"] == "imp"].groupby("level")["accuracy"].mean()
    good = [level for level in facts.matching("imp") if level in mine.index]
    if not good:
        raise NotThereError("no level of IMP matches")
    higher = [level for level in good if mine[level] > dense]
    return Verdict(len(higher) >= len(good) / 2, f"at {len(higher)} of {len(good)} matching levels")


@FINDINGS("3-22", "The three baselines take as many steps as the dense network or more", "figure 3-8")
def _baselines_stop(facts: Facts) -> Verdict:
    found = stopping(facts.table("holdout", "arm", "replicate", "level", "step", "holdout_loss"))
    dense, said, share = _dense_stop(found), [], []
    for arm in BASELINES:
        steps = _stop(found, arm)
        share.append(float((steps >= dense).mean()))
        said.append(f"{arm_name(arm)} at {int((steps >= dense).sum())} of {len(steps)} levels")
    return Verdict(min(share) >= 0.9, "; ".join(said))


@FINDINGS("3-23", "IMP needs at most the dense network's dilation δ* up to high sparsities", "figure 3-9")
def _dilation(facts: Facts) -> Verdict:
    found = least_dilations(facts)
    dense, mine = _of(found, "dense"), _of(found, "imp")
    good = mine[mine["least"] <= dense["least"].iloc[0]]
    sparsest = float(good["density"].min()) if len(good) else 1.0
    return Verdict(
        sparsest <= 0.1,
        f"dense δ* {_factor(dense['least'].iloc[0])}; IMP: "
        + ", ".join(f"{_factor(row.least)} at {percent(row.density)}" for row in mine.itertuples()),
    )


@FINDINGS("3-24", "Often far fewer: 20 to 70 % fewer steps", "3.3.6, 3.4.2")
def _fewer(facts: Facts) -> Verdict:
    found = least_dilations(facts)
    dense, best = float(_of(found, "dense")["least"].iloc[0]), float(_of(found, "imp")["least"].min())
    if not np.isfinite(best) or not np.isfinite(dense):
        return Verdict(False, "IMP or the dense network does not reach the dense accuracy")
    return Verdict(best <= 0.8 * dense, f"the least δ* of IMP is {best:g}, the dense network's {dense:g}")


@FINDINGS("3-25", "Layerwise random networks manage this only at the lowest sparsities, if at all", "figure 3-9")
def _dilation_baselines(facts: Facts) -> Verdict:
    found = least_dilations(facts)
    dense = float(_of(found, "dense")["least"].iloc[0])
    least = {}
    for arm in ("imp", "random_layerwise"):
        mine = _of(found, arm)
        good = mine[mine["least"] <= dense]
        least[arm] = float(good["density"].min()) if len(good) else 1.0
    return Verdict(
        least["imp"] < least["random_layerwise"],
        f"down to {percent(least['random_layerwise'])}; IMP down to {percent(least['imp'])} (of the densities tried)",
    )


@FINDINGS("3-26", "The dense network's own δ* is slightly below 1 in some cases", "figure 3-9")
def _dense_dilation(facts: Facts) -> Verdict:
    dense = float(_of(least_dilations(facts), "dense")["least"].iloc[0])
    return Verdict(bool(0.7 <= dense < 1), f"δ* is {_factor(dense)}")


@FINDINGS("3-27", "The sparsest winning tickets have one to two orders of magnitude fewer weights", "3.4.2")
def _orders(facts: Facts) -> Verdict:
    found = facts.sparsest("imp")
    return Verdict(found.down_to(0.1), f"{1 / found.density:.0f} × fewer: {found}")


@FINDINGS("3-28", "IMP prunes each layer by the same share whatever the initialisation", "3.1.2")
def _same_layers(facts: Facts) -> Verdict:
    found = _layers(facts, "imp")
    if found["replicate"].nunique() < 2:
        return Verdict(None, "there is only one replicate")
    spread = found.groupby(["level", "path"])["density"].agg(lambda each: each.max() - each.min())
    worst = spread.groupby("path").max()
    big = found.groupby("path")["size"].first()
    # Of the layers that matter: 1 % of the weights or more. A small output layer is the noisiest.
    worst = worst[big >= 0.01 * big.sum()]
    return Verdict(
        bool(worst.max() <= 0.05),
        "greatest range over replicates: " + ", ".join(f"{path} {100 * each:.1f}" for path, each in worst.items())
        + " points of density",
    )  # fmt: skip


@FINDINGS("3-29", "Global random pruning prunes every layer by about the same share", "3.1.4")
def _same_share(facts: Facts) -> Verdict:
    found = _layers(facts, "random_global")
    whole = found.groupby(["level", "replicate"])[["remaining", "size"]].transform("sum")
    # Four deviations of a binomial count; less than one is not possible.
    share = whole["remaining"] / whole["size"]
    allowed = 4 * np.sqrt(found["size"] * share * (1 - share)) + 1
    out = (found["remaining"] - share * found["size"]).abs() > allowed
    return Verdict(not out.any(), f"{int(out.sum())} of {len(found)} layers deviate by more than four deviations")


@FINDINGS("3-30", "Global magnitude pruning deletes no layer in practice", "3.1.2")
def _no_empty_layer(facts: Facts) -> Verdict:
    found = _layers(facts, "imp")
    least = found.loc[found["density"].idxmin()]
    return Verdict(bool((found["remaining"] > 0).all()), f"the least is {percent(least['density'])} of {least['path']}")


@FINDINGS("3-32", "Learning-rate rewinding can overfit more than IMP", "3.1.4")
def _overfits(facts: Facts) -> Verdict:
    gaps = {arm: (facts.curve(arm, "train_accuracy").values - facts.curve(arm).values).mean(axis=1)
            for arm in ("imp", "lrr")}  # fmt: skip
    levels = gaps["imp"].index.intersection(gaps["lrr"].index)
    wider = gaps["lrr"][levels] - gaps["imp"][levels]
    return Verdict(
        bool(wider.mean() > 0),
        f"the gap between training and test accuracy is wider at {int((wider > 0).sum())} of {len(wider)} levels, by "
        f"{points(float(wider.mean()))} points in the mean",
    )


@FINDINGS("3-33", "With the masks kept, shuffled initial values are no better than new ones (cited)", "3.3.5")
def _shuffled(facts: Facts) -> Verdict:
    found = facts.between("shuffled", "reinit")
    return Verdict(
        not found.above,
        f"above at {len(found.above)} of {len(found.means)} levels, {points(float(found.means.mean()))}",
    )


@FINDINGS("3-34", "At small scale the signs of the initial values alone suffice (cited)", "3.3.5")
def _signs(facts: Facts) -> Verdict:
    level = _last_winning(facts)
    found = facts.between("imp", "signs")
    return Verdict(
        level not in found.above,
        f"{points(-found.means[level])} points to IMP at {percent(facts.curve('imp').densities[level])}",
    )


@FINDINGS("3-35", "In the first layer the pruned weights lie at the periphery of the image (cited)", "3.3.5")
def _periphery(facts: Facts) -> Verdict:
    rows = facts.table("degrees", "level", "replicate", "path", "inputs")
    first = rows[rows["path"] == rows["path"].iloc[0]]
    counts = np.array(first[first["level"] == first["level"].max()]["inputs"].tolist(), float).mean(axis=0)
    side = round(len(counts) ** 0.5)
    if side * side != len(counts) or side < 8:
        return Verdict(None, f"the first layer has {len(counts)} inputs, which are not a square image")
    image = counts.reshape(side, side)
    ring = side // 7
    centre = image[ring:-ring, ring:-ring].mean()
    border = (image.sum() - image[ring:-ring, ring:-ring].sum()) / (side * side - (side - 2 * ring) ** 2)
    return Verdict(
        bool(border < 0.5 * centre), f"{border:.2f} weights a pixel in the outer {ring}, {centre:.2f} inside"
    )


# What the findings and the figures share ------------------------------------------------------------------------------


def stopping(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the row with the least hold-out loss of each training (thesis 3.3.6): the first of equal ones."""
    finite = rows[np.isfinite(rows["holdout_loss"].astype(float))].sort_values("step", kind="stable")
    keys = [key for key in ("run", "arm", "replicate", "level") if key in finite]
    return finite.loc[finite.groupby(keys, sort=False)["holdout_loss"].idxmin()].reset_index(drop=True)


def at_stop(facts: Facts) -> pd.DataFrame:
    """Return the test accuracy of each training at the step of its least hold-out loss."""
    keys = ["arm", "replicate", "level", "step"]
    stops = stopping(facts.table("holdout", *keys, "holdout_loss"))
    tested = facts.table("curves", *keys, "density", "accuracy")
    return stops[[*keys, "density"]].merge(tested[[*keys, "accuracy"]], on=keys)


def least_dilations(facts: Facts) -> pd.DataFrame:
    """Return δ* by arm and level: the least dilation whose mean accuracy reaches the dense network's at 1."""
    return dilations(facts.table("dilation", "arm", "level", "replicate", "dilation", "accuracy", "density"))


def dilations(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row per arm and level of one run: density and ``least``, which is infinite if none is enough."""
    means = rows.groupby(["arm", "level", "dilation"], sort=False, as_index=False)[["density", "accuracy"]].mean()
    whole = means[(means["arm"] == "dense") & np.isclose(means["dilation"], 1.0)]["accuracy"]
    if whole.empty:
        raise NotThereError("no dense network at a dilation of 1")
    out = []
    for (arm, level), each in means.groupby(["arm", "level"], sort=False):
        good = each[[at_least(round(value, 6), round(whole.iloc[0], 6)) for value in each["accuracy"]]]
        least = float(good["dilation"].min()) if len(good) else np.inf
        out.append({"arm": arm, "level": level, "density": each["density"].mean(), "least": least})
    return pd.DataFrame(out).sort_values("level", kind="stable", ignore_index=True)


def _above(facts: Facts, first: str, second: str) -> Verdict:
    found = facts.between(first, second)
    a, b = facts.sparsest(first), facts.sparsest(second)
    return Verdict(
        both(bool(found.above) and not found.below, a.below(b)),
        f"above at {len(found.above)}, below at {len(found.below)} of {len(found.means)} levels by more than the noise"
        f"; matches down to {a} against {b}",
    )


def _last_winning(facts: Facts) -> int:
    levels = facts.matching("imp")
    if not levels:
        raise NotThereError("no level of IMP matches")
    return int(max(levels))


def _training(facts: Facts, arm: str, level: int) -> pd.Series:
    frame = facts.table("curves", "arm", "level", "step", "accuracy")
    mine = frame[(frame["arm"] == arm) & (frame["level"] == level)]
    if mine.empty:
        raise NotThereError(f"no training curve of {arm} at level {level}")
    return mine.groupby("step")["accuracy"].mean()


def _dense_stop(found: pd.DataFrame) -> float:
    return float(found[found["level"] == 0]["step"].mean())


def _stop(found: pd.DataFrame, arm: str) -> pd.Series:
    mine = found[(found["arm"] == arm) & (found["level"] > 0)]
    if mine.empty:
        raise NotThereError(f"no hold-out loss of {arm}")
    return mine.groupby("level")["step"].mean()


def _of(found: pd.DataFrame, arm: str) -> pd.DataFrame:
    mine = found[found["arm"] == arm]
    if mine.empty:
        raise NotThereError(f"no dilation of {arm}")
    return mine


def _layers(facts: Facts, arm: str) -> pd.DataFrame:
    frame = facts.table("layers", "level", "replicate", "path", "size", "remaining", "density")
    frame = frame.assign(arm="imp") if "arm" not in frame else frame
    mine = frame[(frame["arm"] == arm) & (frame["level"] > 0)]
    if mine.empty:
        raise NotThereError(f"no layers of {arm}")
    return mine


def _factor(value: float) -> str:
    return f"{value:g}" if np.isfinite(value) else "none of those tried"
