"""Instability to SGD noise (thesis 4.1.1, Algorithm 3): copies of a state under several noises, compared in pairs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from keras_lth.experiments.lab import Lab
from keras_lth.experiments.lottery import Level, levels
from keras_lth.imp import IMP, Noise, at_least
from keras_lth.plans import Step
from keras_lth.seeds import seed_of


def copies(lab: Lab, level: Level, fork: int, count: int, seed: int) -> list[Step]:
    """Train copies of a level from step ``fork``; a fork before the level's start is that start."""
    state = level.run.at(max(fork, level.run.begin))
    return [lab.train(state, level.masks, Noise.of(seed, number)).at(level.end) for number in range(count)]


def sparsest_matching(lab: Lab, found: Sequence[Level], metric: str = "accuracy") -> int:
    """Find the sparsest level that is at least as good as the dense network; 0 if there is none."""
    scores = lab.each(found, lambda level: lab.look(lab.evaluate(level.run.at(level.end))).rows[0][metric])
    return max((place for place, score in enumerate(scores) if at_least(score, scores[0])), default=0)


def instability(lab: Lab, imp: IMP, *, forks: Sequence[int], runs: int = 3, replicates: int = 1, seed: int = 1) -> None:
    """Name the rows "instability" of the dense network and of the sparsest matching ticket, for every replicate.

    They contain the errors on the line between two trained copies, on the test set and on the training set.
    """

    def network(found: Sequence[Level], number: int, name: str) -> None:
        place = 0 if name == "dense" else sparsest_matching(lab, found)
        for fork in forks:
            ends = copies(lab, found[place], fork, runs, seed_of(seed, "instability", number))
            for (a, b), data in itertools.product(itertools.combinations(range(runs), 2), ("test", "train")):
                lab.row(
                    lab.compare(ends[a], ends[b], what=data), found[place].masks, table="instability",
                    replicate=number, network=name, level=place, fork=fork, pair=f"{a}-{b}",
                )  # fmt: skip

    def replicate(number: int) -> None:
        mine = replace(imp, seed=seed_of(seed, "order", number))
        found = levels(lab, mine, lab.init(seed_of(seed, "init", number)))
        lab.each(("dense", "ticket"), lambda name: network(found, number, name))

    lab.each(range(replicates), replicate)
