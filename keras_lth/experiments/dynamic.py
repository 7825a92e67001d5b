"""Dynamic IMP (thesis 6.2.2, Algorithm 5 by its prose): sparse from the start, with a few changes of the masks.

In each phase the dense network is trained, pruned once, and the subnetwork trained again from the start of the phase.
Between phases every pruned weight grows again, with a fresh value.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from keras_lth.experiments.lab import Lab
from keras_lth.imp import IMP, Noise
from keras_lth.plans import Step, Trajectory
from keras_lth.seeds import seed_of

__all__ = ["ARMS", "Change", "Phase", "dynamic", "phases"]


class Change(NamedTuple):
    """How an arm differs from dynamic IMP.

    The thesis' five ablations differ in one kind of thing each. "recipe" is what it concludes from them (6.2.2): prune
    by magnitude at initialisation, train, prune 80 %, grow in the right places with fresh values, train to the end.

    Attributes:
        first: the masks of the first phase: "imp"; "magnitude": by magnitude at initialisation; "random".
        grow: the weights that the later phases grow: "imp"; "gradient": where RigL grows; "random".
        overlap: the share of each mask that the one before it has too; None: as it comes.
        fresh: whether the grown weights are sampled once more before the subnetwork is trained.
    """

    first: str = "imp"
    grow: str = "imp"
    overlap: float | None = None
    fresh: bool = False


ARMS: Mapping[str, Change] = {
    "dynamic": Change(),
    "first_magnitude": Change(first="magnitude"),
    "first_random": Change(first="random"),
    "grow_gradient": Change(grow="gradient"),
    "grow_random": Change(grow="random"),
    "overlap_50": Change(overlap=0.5),
    "overlap_80": Change(overlap=0.8),
    "fresh": Change(fresh=True),
    "recipe": Change(first="magnitude", overlap=0.2, fresh=True),
}


class Phase(NamedTuple):
    """A phase of sparse training: its masks, its training, and the step at which it ends."""

    masks: Step
    run: Trajectory
    end: int


def phases(
    lab: Lab, imp: IMP, changes: Sequence[int], density: float, seed: int, arm: Change = ARMS["dynamic"]
) -> list[Phase]:
    """Name the phases of dynamic IMP with masks of ``density`` that change at these steps."""
    cut = replace(imp, fraction=1 - density, target_density=None).cut()
    start, full, found = lab.init(seed_of(seed, "init", 0)), lab.full(), list[Phase]()
    for number, end in enumerate((*changes, imp.T)):
        dense = lab.train(start, full, Noise.of(seed_of(seed, "dense", number)))
        scores = lab.score("magnitude", dense.at(end))
        if number == 0 and arm.first != "imp":
            options: dict[str, Any] = {"seed": seed_of(seed, "first")} if arm.first == "random" else {}
            scores = lab.score(arm.first, start, **options)
        masks = lab.cut(scores, full, **cut)
        if number:
            before, trained = found[-1].masks, found[-1].run.at(changes[number - 1])
            if arm.overlap is not None:
                masks = lab.swap(scores, scores, before, masks, overlap=arm.overlap)
            if arm.grow != "imp":
                # As many weights change as in dynamic IMP, chosen without its dense training.
                drawn: dict[str, Any] = {"seed": seed_of(seed, "grow", number)} if arm.grow == "random" else {}
                inputs = () if arm.grow == "random" else (before,)
                growth = lab.score(arm.grow, trained, *inputs, examples=lab.batch_size if inputs else 0, **drawn)
                masks = lab.swap(lab.score("magnitude", trained), growth, before, masks)
            if arm.fresh:
                start = lab.regrow(start, before, lab.init(seed_of(seed, "again", number)), step=changes[number - 1])
        run = lab.train(start, masks, Noise.of(seed_of(seed, "sparse", number)))
        found.append(Phase(masks, run, end))
        if end < imp.T:
            start = lab.regrow(run.at(end), masks, lab.init(seed_of(seed, "init", number + 1)), step=end)
    return found


def dynamic(
    lab: Lab,
    imp: IMP,
    *,
    changes: Sequence[int],
    densities: Sequence[float],
    arms: Sequence[str] = tuple(ARMS),
    replicates: int = 1,
    seed: int = 1,
) -> None:
    """Name the rows "dynamic": the test accuracy of each arm, and beside them "dense", "imp", "static" and "rigl".

    "imp" is one-shot IMP that rewinds to the first change; "static" has the masks of the first phase throughout; "rigl"
    moves 30 % of the weights of ERK masks at first, less and less until three quarters of the training, in changes at
    equal steps of at least 100, at most 75. The rows "phases" have the share of each mask that was not in the one
    before it.

    Args:
        changes: the steps at which masks change, in increasing order, inside the training.
        densities: of all phases.
        arms: of `ARMS`.
        replicates: trainings of each.
        seed: of initial values, fresh values, and data orders.

    Raises ``ValueError`` for steps outside of the training, or unknown arms.
    """
    steps = [0, *changes, imp.T]
    if not changes or any(a >= b for a, b in itertools.pairwise(steps)):
        raise ValueError(f"changes must lie in (0, {imp.T}), in increasing order, not {list(changes)}")
    unknown = [arm for arm in arms if arm not in ARMS]
    if unknown:
        raise ValueError(f"arms must be of {', '.join(ARMS)}, not {unknown}")

    def name(end: Step, masks: Step, **labels: Any) -> None:
        lab.row(lab.evaluate(end), masks, table="dynamic", **labels)

    def one(key: tuple[int, float]) -> None:
        number, density = key
        mine = seed_of(seed, "replicate", number)
        labels: dict[str, Any] = {"replicate": number, "wanted": density}
        full, cut = lab.full(), replace(imp, fraction=1 - density, target_density=None).cut()
        dense = lab.train(lab.init(seed_of(mine, "init", 0)), full, Noise.of(seed_of(mine, "dense", 0)))
        name(dense.at(imp.T), full, arm="dense", **labels)
        ticket = lab.cut(lab.score("magnitude", dense.at(imp.T)), full, **cut)
        back = lab.start(dense.at(changes[0]), dense.at(imp.T), step=changes[0])
        rewound = lab.train(back, ticket, Noise.of(seed_of(mine, "imp")))
        name(rewound.at(imp.T), ticket, arm="imp", **labels)
        rigl = lab.train(
            lab.init(seed_of(mine, "init", 0)), noise=Noise.of(seed_of(mine, "rigl")), mover=_rigl(imp.T, density)
        )
        name(rigl.at(imp.T), lab.held(rigl.at(imp.T)), arm="rigl", **labels)
        for arm in arms:
            found = phases(lab, imp, changes, density, mine, ARMS[arm])
            name(found[-1].run.at(imp.T), found[-1].masks, arm=arm, **labels)
            if arm == "dynamic":
                name(found[0].run.at(imp.T), found[0].masks, arm="static", **labels)
            for place, (old, new) in enumerate(itertools.pairwise(found), 1):
                swapped = lab.combine("and", new.masks, lab.combine("not", old.masks))
                lab.row(swapped, table="phases", arm=arm, change=place, **labels)

    lab.each([(number, density) for number in range(replicates) for density in densities], one)


def _rigl(steps: int, density: float) -> Mapping[str, Any]:
    until = max(2, 3 * steps // 4)
    return {"name": "rigl", "density": density, "every": max(1, min(100, until // 2), until // 75), "until": until}
