"""What the subnetworks of IMP look like, and how far their weights move (thesis 3.3.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from keras_lth.experiments.lab import Lab
from keras_lth.experiments.lottery import levels
from keras_lth.imp import IMP
from keras_lth.seeds import seed_of


def anatomy(lab: Lab, imp: IMP, *, places: Sequence[int] = (), replicates: int = 1, seed: int = 1) -> None:
    """Name the rows "untrained", "moved" and "degrees" of the levels ``places`` (default: all).

    "untrained" has the accuracy of the masks on the values of step k. "moved" compares the values of step k with those
    at the end, layer by layer. "degrees" has the number of remaining weights of each input and each output of a layer.
    """

    def replicate(number: int) -> None:
        mine = replace(imp, seed=seed_of(seed, "order", number))
        found = levels(lab, mine, lab.init(seed_of(seed, "init", number)))
        wk = found[0].run.at(imp.k)
        for place in places or range(len(found)):
            masks, end = found[place].masks, found[place].run.at(found[place].end)
            labels = {"replicate": number, "level": place}
            lab.row(lab.evaluate(wk, masks), masks, table="untrained", **labels)
            lab.row(lab.moved(wk, end, masks), table="moved", **labels)
            lab.row(lab.degrees(masks), table="degrees", **labels)

    lab.each(range(replicates), replicate)
