"""The lottery-ticket experiment (thesis 3.3): IMP, other ways of retraining, and ablations, level by level.

Every arm has as many weights at each level as IMP. An arm is a pair of choices: which masks, and what it trains from
(the values, and the step at which the schedule starts; Renda et al. 2020).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from keras_lth.experiments.lab import Lab
from keras_lth.imp import IMP, WHOLE, Noise, Start
from keras_lth.masks import Masks
from keras_lth.plans import Step, Trajectory
from keras_lth.seeds import seed_of


class Arm(NamedTuple):
    """How the subnetworks of an arm are made.

    Attributes:
        masks: "own": by iterative pruning of its own trainings; "one_shot": by one cut of the dense network; "none": no
            weight is pruned; "imp": those of IMP; "layer", "global": random ones, with as many weights as IMP's in each
            layer or in total.
        values: what it trains from: those of a `Start`; "shuffled": the values of step k, permuted among the remaining
            weights of each layer; "noise": the values of step k plus a new sample of the initial values.
        clock: where the schedule starts, as in `Start`.
        k: the step to rewind to, if not that of the `IMP`.
    """

    masks: str
    values: Any = "k"
    clock: Any = "k"
    k: int | None = None


ARMS: Mapping[str, Arm] = {
    "imp": Arm("own"),
    "imp_one_shot": Arm("one_shot"),
    "reset": Arm("own", k=0),
    "lrr": Arm("own", "trained", "zero"),  # learning-rate rewinding, which the thesis calls pruning after training
    "lrr_one_shot": Arm("one_shot", "trained", "zero"),
    "scratch": Arm("one_shot", "fresh", "zero"),
    "fine_tuning": Arm("own", "trained", "end"),
    "low_rate": Arm("own", "k", "end"),
    "cyclic": Arm("none", "trained", "zero"),
    "reinit": Arm("imp", "fresh", "zero"),
    "signs": Arm("imp", "signs"),
    "shuffled": Arm("imp", "shuffled"),
    "noise": Arm("imp", "noise"),
    "random_layerwise": Arm("layer", "fresh", "zero"),
    "random_global": Arm("global", "fresh", "zero"),
}
# Those of the thesis' figure 3-7.
FIGURE_3_7 = ("imp", "reinit", "random_layerwise", "random_global")


class Level(NamedTuple):
    """A subnetwork: its masks, its training, and the step at which the training ends."""

    masks: Step
    run: Trajectory
    end: int


def levels(lab: Lab, imp: IMP, init: Step, *, prune: bool = True) -> list[Level]:
    """Run iterative magnitude pruning with rewinding (thesis, Algorithms 1, 2 and 4), starting with the dense
    network. Without ``prune``, train as often without a cut.
    """
    masks = lab.full()
    run = lab.train(init, masks, imp.noise(0))
    wk, found = run.at(imp.k), []
    for level in range(rounds_of(lab, imp, masks) + 1):
        end = run.at(imp.end(level))
        found.append(Level(masks, run, imp.end(level)))
        masks = lab.cut(lab.score(imp.criterion, end), masks, **imp.cut()) if prune else masks
        run = lab.train(lab.start(wk, end, **imp.start(level + 1)), masks, imp.noise(level + 1))
    return found


def rounds_of(lab: Lab, imp: IMP, masks: Step) -> int:
    """Return the number of cuts; if a density ends them, it depends on the sizes of the layers, which the plan looks
    at.
    """
    if imp.rounds is not None and imp.target_density is None:
        return imp.rounds
    return len(imp.counts(Masks(lab.look(masks).arrays))) - 1


def one_shot(lab: Lab, imp: IMP, dense: Level) -> list[Level]:
    """Cut the trained dense network once for each level, to the number of weights that IMP has there (thesis 3.1.3)."""
    first, *after = imp.counts(Masks(lab.look(dense.masks).arrays))
    wk, end, found = dense.run.at(imp.k), dense.run.at(dense.end), [dense]
    for level, left in enumerate(after, start=1):
        shares = {path: 1 - count / first[path] for path, count in left.items()}
        once = replace(imp, fraction=shares.get(WHOLE, shares), target_density=None)
        masks = lab.cut(lab.score(imp.criterion, end), dense.masks, **once.cut())
        run = lab.train(lab.start(wk, end, **imp.start(level)), masks, imp.noise(level))
        found.append(Level(masks, run, imp.end(level)))
    return found


def ablated(lab: Lab, imp: IMP, name: str, wk: Step, masks: Step, seed: int, *what: int) -> Level:
    """Train an ablation of a level of IMP that has ``masks``, with its own noise.

    ``seed`` and ``what`` determine what is random.
    """
    arm, own = ARMS[name], seed_of(seed, name, "init", *what)
    if arm.masks != "imp":
        masks = lab.shuffle(masks, seed_of(seed, name, "masks", *what), arm.masks)
    fresh = arm.values == "fresh"
    start = lab.reinit(own) if fresh else lab.start(wk, masks, values=arm.values, step=imp.k, seed=own)
    return Level(masks, lab.train(start, masks, Noise.of(seed_of(seed, name, "order", *what))), imp.T)


def subnetworks(lab: Lab, imp: IMP, name: str, found: list[Level], seed: int, *what: int) -> list[Level]:
    """Name all levels of an arm, of a replicate of which IMP has ``found`` these; level 0 is its dense network."""
    arm, (dense, *after) = ARMS[name], found
    if name == "imp":
        return found
    if arm.masks in ("imp", "layer", "global"):
        wk = dense.run.at(imp.k)
        return [dense, *(ablated(lab, imp, name, wk, each.masks, seed, *what, n) for n, each in enumerate(after, 1))]
    mine = replace(imp, rewind=Start(values=arm.values, clock=arm.clock), k=imp.k if arm.k is None else arm.k)
    if arm.masks == "one_shot":
        return one_shot(lab, mine, dense)
    return levels(lab, mine, dense.run.start, prune=arm.masks == "own")


def lottery(
    lab: Lab,
    imp: IMP,
    *,
    replicates: int = 1,
    arms: Sequence[str] = FIGURE_3_7,
    every: int,
    seed: int = 1,
    curves: Sequence[str] = ("test",),
) -> None:
    """Name the rows: "results", one per training; "curves", one every ``every`` steps; "layers".

    With "holdout" in ``curves``, the table "holdout" has those of the part that is held out of training.
    """

    def name(made: Level, **labels: object) -> None:
        end = made.run.at(made.end)
        lab.row(lab.evaluate(end), lab.evaluate(end, what="train"), made.masks, table="results", **labels)
        for what in curves:
            curve = made.run.observed(what, every=every, to=made.end)
            lab.row(curve, made.masks, table="curves" if what == "test" else what, **labels)

    def replicate(number: int) -> None:
        mine = replace(imp, seed=seed_of(seed, "order", number))
        found = levels(lab, mine, lab.init(seed_of(seed, "init", number)))
        made = {arm: subnetworks(lab, mine, arm, found, seed, number) for arm in dict.fromkeys(("imp", *arms))}
        for place in range(len(found)):
            for arm, of_arm in made.items():
                if place or arm == "imp":
                    name(of_arm[place], arm=arm, replicate=number, level=place)
                if arm == "imp" or (place and ARMS[arm].masks in ("own", "one_shot", "global")):
                    layers = lab.layers(of_arm[place].masks)
                    lab.row(layers, table="layers", arm=arm, replicate=number, level=place)

    lab.each(range(replicates), replicate)
