"""Trainings of a plan whose masks move: their points do not depend on how they were cut, and hold the masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from keras_lth.experiments.moving import mover_of
from keras_lth.imp import Noise
from keras_lth.masks import Masks
from keras_lth.plans import Notebook, run
from keras_lth.store import Store
from tests.plans import nets

RIGL = {"name": "rigl", "density": 0.25, "every": 4, "until": 20}
RAMP = {
    "name": "gradual",
    "schedule": {"name": "polynomial", "initial": 1.0, "final": 0.25, "begin": 2, "end": 14, "every": 4},
}


def trained(store: Store, mover: Any, *ends: int) -> dict[int, tuple[dict[str, bytes], Masks]]:
    """States and masks at some steps, each end asked for in a run of its own."""
    found = {}
    for end in ends:

        def plan(book: Notebook, end: int = end) -> None:
            lab = nets.lab(book)
            point = lab.train(lab.init(3), noise=Noise.of(5), mover=mover).at(end)
            masks = lab.held(point)
            lab.row(lab.evaluate(point), masks)
            values = lab.look(point), lab.look(masks)
            found[end] = {n: a.tobytes() for n, a in values[0].arrays.items()}, Masks(values[1].arrays)

        run(plan, store, say=lambda text: None)
    return found


@pytest.mark.parametrize("mover", [RIGL, RAMP], ids=["rigl", "gradual"])
def test_one_state_however_the_training_is_cut(mover: Any, tmp_path: Path) -> None:
    whole = trained(Store(tmp_path / "whole"), mover, 18)
    cut = trained(Store(tmp_path / "cut"), mover, 7, 12, 18)
    assert whole[18] == cut[18]
    counts = [masks.remaining for _, masks in cut.values()]
    # The ramp at steps 6, 10 and 14: 64 · (0.25 + 0.75 · (2/3)³) = 30.2, (1/3)³: 17.8.
    assert counts == ([16, 16, 16] if mover is RIGL else [30, 18, 16])
    assert cut[7][1] != cut[18][1]


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"name": "rigle"}, "rigle.*rigl"),
        ({"name": "rigl"}, "until in steps, not 75%"),
        ({"name": "set", "until": 20}, "every in steps, not 1 epochs"),
        ({"name": "gradual", "schedule": {"name": "polynomial", "initial": 1.0, "final": 0.5}}, "end in steps"),
    ],
)
def test_movers_that_a_plan_cannot_have(given: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        mover_of(given)
