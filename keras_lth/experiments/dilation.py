"""How fast subnetworks train (thesis 3.3.6): the least stretch δ* of the schedule that reaches the dense accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from keras_lth.experiments.lab import Lab
from keras_lth.experiments.lottery import Level, levels, subnetworks
from keras_lth.imp import IMP, at_least
from keras_lth.plans import Step, Trajectory
from keras_lth.seeds import seed_of

# Thesis 3.3.6: 0.2 to 2.1 by 0.1.
FACTORS = tuple(round(0.1 * tenths, 1) for tenths in range(2, 22))
ARMS = ("imp", "reinit", "random_layerwise")


def dilation(
    lab: Lab,
    imp: IMP,
    *,
    rates: Callable[[float], Any],
    places: Sequence[int],
    arms: Sequence[str] = ARMS,
    factors: Sequence[float] = FACTORS,
    replicates: int = 1,
    seed: int = 1,
) -> None:
    """Name the rows "dilation": the test accuracy after a training whose schedule is stretched by ``dilation``.

    Of each arm and level, the factors are tried from the least on, until the mean of the replicates reaches that of the
    dense network at factor 1. Subnetworks come from the schedule as it is.

    Args:
        rates: returns the learning rates, as `Lab` takes them, of the schedule stretched by a factor.
        places: levels of IMP. The dense network is included.
        arms: of `lottery.ARMS`.
        factors: in increasing order.
    """

    def found(number: int) -> dict[tuple[str, int], Level]:
        mine = replace(imp, seed=seed_of(seed, "order", number))
        own = levels(lab, mine, lab.init(seed_of(seed, "init", number)))
        made = {arm: subnetworks(lab, mine, arm, own, seed, number) for arm in arms}
        return {("dense", 0): own[0]} | {(arm, place): made[arm][place] for arm in arms for place in places}

    def accuracy(end: Step) -> float:
        return float(lab.look(end).rows[0]["accuracy"])

    def one(key: tuple[str, int]) -> None:
        arm, place = key
        for some in together(lab, factors):
            ends = {}
            for factor in some:
                end = round(factor * imp.T)
                ends[factor] = [tested(each[key].run.under(rates(factor)), end) for each in networks]
                for number, numbers in enumerate(ends[factor]):
                    lab.row(
                        numbers, networks[number][key].masks, table="dilation", arm=arm, level=place, replicate=number,
                        dilation=factor,
                    )  # fmt: skip
            means = [np.mean(lab.each(ends[factor], accuracy)) for factor in some]
            if any(at_least(round(mean, 6), round(dense, 6)) for mean in means):
                return

    networks = lab.each(range(replicates), found)
    whole = [tested(each["dense", 0].run, imp.T) for each in networks]
    dense = float(np.mean(lab.each(whole, accuracy)))
    lab.each(networks[0], one)


def tested(run: Trajectory, end: int) -> Step:
    """Name the test accuracy at the end of a training."""
    return run.observed("test", every=end, to=end)


def together(lab: Lab, factors: Sequence[float]) -> Iterator[Sequence[float]]:
    """Group the factors that one training computes: if the rate is constant, all are steps of one trajectory."""
    pieces = lab.rates if isinstance(lab.rates, (tuple, list)) else ((0, lab.rates),)
    if len(pieces) == 1 and isinstance(pieces[0][1], (int, float)):
        yield [factor for factor in factors if factor <= 1]
        yield [factor for factor in factors if factor > 1]
    else:
        yield from ([factor] for factor in factors)
