"""Zhou's axes (H. Zhou et al., "Deconstructing lottery tickets", 2019): which weights remain, and what they start from.

Masks compare the values of a weight before and after the training of the dense network. Pruned weights are 0.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from keras_lth.experiments.changes import CRITERIA
from keras_lth.experiments.lab import Lab
from keras_lth.imp import IMP, Noise
from keras_lth.plans import Step, Trajectory
from keras_lth.seeds import seed_of

__all__ = ["ACTIONS", "deconstruct"]

# What the remaining weights start from. "constant": the sign of the initial value times the deviation of its layer.
ACTIONS = ("rewind", "reinit", "shuffle", "signs", "constant")


def deconstruct(
    lab: Lab,
    imp: IMP,
    *,
    criteria: Sequence[str] = CRITERIA,
    actions: Sequence[str] = ("rewind",),
    replicates: int = 1,
    seed: int = 1,
) -> None:
    """Name the rows "zhou": the test accuracy of each pair of a mask criterion and an action, at each level of ``imp``.

    Every pair prunes iteratively: the dense network is trained, cut by ``imp``, and the subnetwork trained from step 0.
    The rows "untrained" have the accuracy of the masked values at step 0.

    Args:
        criteria: of `changes.CRITERIA`.
        actions: of `ACTIONS`.
        replicates: trainings of each pair.
        seed: of initial values, data orders, and what is random.

    Raises ``ValueError`` for unknown criteria or actions.
    """
    for what, given, known in (("criteria", criteria, CRITERIA), ("actions", actions, ACTIONS)):
        if unknown := [one for one in given if one not in known]:
            raise ValueError(f"{what} must be of {', '.join(known)}, not {', '.join(unknown)}")
    if imp.rounds is None:
        raise ValueError("deconstruct needs a number of rounds")
    rounds = imp.rounds

    def start(action: str, init: Step, masks: Step, own: int) -> Step:
        if action == "reinit":
            return lab.reinit(own)
        values = {"rewind": "k", "shuffle": "shuffled"}.get(action, action)
        return lab.start(init, masks, values=values, step=0, seed=own)

    def one(key: tuple[int, str, str]) -> None:
        number, criterion, action = key
        init, masks = lab.init(seed_of(seed, "init", number)), lab.full()
        run: Trajectory = lab.train(init, masks, Noise.of(seed_of(seed, "order", number)))
        for level in range(1, rounds + 1):
            own = seed_of(seed, criterion, action, number, level)
            scores = lab.change(criterion, init, run.at(imp.T), seed=own)
            masks = lab.cut(scores, masks, **replace(imp, target_density=None).cut())
            begin = start(action, init, masks, own)
            run = lab.train(begin, masks, Noise.of(own))
            labels = {"criterion": criterion, "action": action, "replicate": number, "level": level}
            lab.row(lab.evaluate(run.at(imp.T)), masks, table="zhou", **labels)
            lab.row(lab.evaluate(begin, masks), masks, table="untrained", **labels)

    lab.each(list(itertools.product(range(replicates), criteria, actions)), one)
