"""Averages of networks in weight space (thesis 6.2.5): copies of a state, branches that are merged again and again,
networks of different data, and networks of different initial values before and after matching their units.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from keras_lth.experiments.instability import Copies, Forked, trained
from keras_lth.experiments.lab import Lab
from keras_lth.imp import IMP, Noise
from keras_lth.plans import Step
from keras_lth.seeds import seed_of


def merged(lab: Lab, start: Step, masks: Step, *, every: int, to: int, branches: int, seed: int, **how: Any) -> Step:
    """Train branches from one state, merge them by averaging after every ``every`` steps, and so on up to step ``to``.

    Slots are fresh after a merge. ``how`` is that of `Lab.average`.
    """
    state, begin = start, 0
    while begin < to:
        end = min(begin + every, to)
        noises = [Noise.of(seed_of(seed, "merge", begin), number) for number in range(branches)]
        state = lab.average(*(lab.train(state, masks, noise).at(end) for noise in noises), step=end, **how)
        begin = end
    return state


def averaging(
    lab: Lab,
    imp: IMP,
    *,
    forks: Sequence[int] = (),
    runs: int = 3,
    every: Sequence[int] = (),
    parts: Sequence[Mapping[str, Any]] = (),
    permutations: bool = False,
    plane: int = 0,
    reestimate: bool = False,
    replicates: int = 1,
    seed: int = 1,
) -> None:
    """Name the rows of averages of dense networks; each is a choice.

    "averages": of the copies forked at each of ``forks``, the error of their mean beside their own mean error, with
    ``plane`` points along each axis also "plane", the error in the plane through three of them. "merged": networks
    whose branches are merged ``every`` so many steps. "parts": pairs of networks forked at ``forks``, each trained on
    the data that one of ``parts``, data options, makes, and their mean. "matching": pairs of replicates, that is, of
    different initial values, before and after their units are matched.

    Args:
        reestimate: whether normalisation statistics of averages are estimated again on the training data.
    """

    def replicate(number: int) -> Step:
        noise = replace(imp, seed=seed_of(seed, "order", number)).noise(0)
        masks, init = lab.full(), lab.init(seed_of(seed, "init", number))
        run = lab.train(init, masks, noise)
        for fork in forks:
            labels = {"replicate": number, "fork": fork}
            given = Forked(run.at(fork), masks, imp.T)
            drawn = seed_of(seed, "averaging", number)
            ends = [line.at(imp.T) for line in trained(lab, given, Copies(runs), drawn)]
            together("averages", ends, **labels)
            if plane and runs > 2:
                lab.row(lab.plane(*ends[:3], points=plane), table="plane", **labels)
            if parts:
                labs = [lab.on(network={**lab.network, "data_options": {**lab.network["data_options"], **part}})
                        for part in parts]  # fmt: skip
                ends = [trained(mine, given, Copies(1), seed_of(drawn, place))[0].at(imp.T)
                        for place, mine in enumerate(labs)]  # fmt: skip
                together("parts", ends, **labels)
                for a, b in itertools.combinations(range(len(ends)), 2):
                    lab.row(lab.compare(ends[a], ends[b]), masks, table="instability", network="parts", level=0,
                            pair=f"{a}-{b}", **labels)  # fmt: skip
        for steps in every:
            how = {"every": steps, "to": imp.T, "branches": runs, "seed": seed_of(seed, "merged", number)}
            end = merged(lab, init, masks, reestimate=reestimate, **how)
            lab.row(lab.evaluate(end), table="merged", every=steps, branches=runs, replicate=number)
        return run.at(imp.T)

    def together(table: str, ends: Sequence[Step], **labels: Any) -> None:
        """The networks, and their mean."""
        for place, end in enumerate(ends):
            lab.row(lab.evaluate(end), table=table, member=str(place), **labels)
        mean = lab.average(*ends, step=imp.T, reestimate=reestimate)
        lab.row(lab.evaluate(mean), table=table, member="mean", **labels)

    ends = lab.each(range(replicates), replicate)
    for a, b in itertools.combinations(range(replicates), 2) if permutations else ():
        for matched in (False, True):
            other = lab.matched(ends[a], ends[b]) if matched else ends[b]
            lab.row(lab.compare(ends[a], other), table="matching", pair=f"{a}-{b}", matched=matched)
