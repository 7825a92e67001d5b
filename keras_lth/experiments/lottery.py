"""The lottery-ticket experiment (thesis 3.3.5, figure 3-7): IMP and its ablations, level by level.

Every arm uses the densities of IMP. ``imp`` is IMP itself. ``reinit`` has its masks with newly sampled values.
``random_layerwise`` and ``random_global`` have as many weights at random positions, in each layer or over the network,
with newly sampled values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from keras_lth.experiments.lab import Lab
from keras_lth.imp import IMP, Noise
from keras_lth.masks import Masks
from keras_lth.plans import Step, Trajectory
from keras_lth.seeds import seed_of

ARMS = ("imp", "reinit", "random_layerwise", "random_global")


class Level(NamedTuple):
    """A subnetwork: its masks, its training, and the step at which the training ends."""

    masks: Step
    run: Trajectory
    end: int


def levels(lab: Lab, imp: IMP, init: Step) -> list[Level]:
    """Run iterative magnitude pruning with rewinding (thesis, Algorithms 1, 2 and 4), starting with the dense
    network.
    """
    masks = lab.full()
    run = lab.train(init, masks, imp.noise(0))
    wk, found = run.at(imp.k), []
    for level in range(rounds_of(lab, imp, masks) + 1):
        end = run.at(imp.end(level))
        found.append(Level(masks, run, imp.end(level)))
        masks = lab.cut(lab.score(imp.criterion, end), masks, **imp.cut())
        run = lab.train(lab.start(wk, end, **imp.start(level + 1)), masks, imp.noise(level + 1))
    return found


def rounds_of(lab: Lab, imp: IMP, masks: Step) -> int:
    """Return the number of cuts; if a density ends them, it depends on the sizes of the layers, which the plan looks
    at.
    """
    if imp.rounds is not None and imp.target_density is None:
        return imp.rounds
    return len(imp.counts(Masks(lab.look(masks).arrays))) - 1


def ablated(lab: Lab, arm: str, masks: Step, T: int, seed: int, *what: int) -> Level:
    """Train a level of an arm other than IMP, from IMP's masks: newly sampled values, with their own noise."""
    if arm != "reinit":
        scope = "layer" if arm == "random_layerwise" else "global"
        masks = lab.shuffle(masks, seed_of(seed, arm, "masks", *what), scope)
    fresh = lab.reinit(seed_of(seed, arm, "init", *what))
    return Level(masks, lab.train(fresh, masks, Noise.of(seed_of(seed, arm, "order", *what))), T)


def lottery(lab: Lab, imp: IMP, *, replicates: int = 1, arms: Sequence[str] = ARMS, every: int, seed: int = 1) -> None:
    """Name the rows: "results", one per training; "curves", one every ``every`` steps; "layers"."""

    def name(made: Level, **labels: object) -> None:
        end, curve = made.run.at(made.end), made.run.observed("test", every=every, to=made.end)
        lab.row(lab.evaluate(end), lab.evaluate(end, what="train"), made.masks, table="results", **labels)
        lab.row(curve, made.masks, table="curves", **labels)

    def replicate(number: int) -> None:
        mine = replace(imp, seed=seed_of(seed, "order", number))
        for place, level in enumerate(levels(lab, mine, lab.init(seed_of(seed, "init", number)))):
            name(level, arm="imp", replicate=number, level=place)
            lab.row(lab.layers(level.masks), table="layers", replicate=number, level=place)
            for arm in (arm for arm in arms if arm != "imp" and place):
                name(ablated(lab, arm, level.masks, imp.T, seed, number, place), arm=arm, replicate=number, level=place)

    lab.each(range(replicates), replicate)
