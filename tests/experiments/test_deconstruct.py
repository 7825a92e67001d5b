"""Zhou's mask criteria by hand, and the plan of criteria and actions on a small network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from keras_lth.experiments.changes import CRITERIA, change_scores
from keras_lth.experiments.deconstruct import ACTIONS, deconstruct
from keras_lth.experiments.kinds import mask_value, start, value_of
from keras_lth.masks import Masks
from keras_lth.plans import Notebook, run
from keras_lth.store import Store
from keras_lth.tickets import Snapshot
from tests.plans import nets

BEFORE, AFTER = np.array([1.0, -2.0, 3.0, -0.5]), np.array([2.0, 1.0, 3.5, -0.1])
# The index of the weight that each criterion keeps first, and last.
ENDS = {
    "large_final": (2, 3), "small_final": (3, 2), "large_init": (2, 3), "small_init": (3, 2),
    "large_init_large_final": (2, 3), "small_init_small_final": (3, 2), "magnitude_increase": (0, 1),
    "movement": (1, 3), "large_final_same_sign": (2, 1), "large_final_diff_sign": (1, None),
}  # fmt: skip


@pytest.mark.parametrize("criterion", ENDS)
def test_criteria_by_hand(criterion: str) -> None:
    scores = change_scores(criterion, {"w": BEFORE}, {"w": AFTER}, 0)["w"]
    first, last = ENDS[criterion]
    assert scores.min() >= 0 and scores.argmax() == first
    if last is not None:
        assert scores.argmin() == last
    with pytest.raises(ValueError, match=r"large.*large_final"):
        change_scores("large", {"w": BEFORE}, {"w": AFTER}, 0)


def test_constants_have_the_sign_and_the_deviation() -> None:
    init = value_of(Snapshot({"w": BEFORE.astype(np.float32)}, {}, 0, {}, {}))
    masks = mask_value(Masks({"w": np.ones(4, bool)}))
    made = start(init, masks, network={}, values="constant", step=0, slots="fresh", seed=0).arrays["weights/w"]
    np.testing.assert_allclose(made, np.sign(BEFORE) * BEFORE.std(), rtol=1e-6)


def test_every_pair_has_its_rows(tmp_path: Path) -> None:
    imp = replace(nets.HOW, rounds=1, T=6)
    pairs = [("magnitude_increase", action) for action in ACTIONS]

    def plan(book: Notebook) -> None:
        deconstruct(nets.lab(book), imp, criteria=["magnitude_increase"], actions=ACTIONS)

    rows = run(plan, Store(tmp_path / "s"), say=lambda text: None)
    found = {(row["table"], row["criterion"], row["action"], row["level"]): row["remaining"] for row in rows}
    assert found == {(table, *pair, 1): 51 for table in ("zhou", "untrained") for pair in pairs}
    assert len(CRITERIA) == 11


def test_what_is_unknown_is_refused(tmp_path: Path) -> None:
    def plan(book: Notebook) -> None:
        deconstruct(nets.lab(book), nets.HOW, actions=["freeze"])

    with pytest.raises(ValueError, match=r"rewind.*freeze"):
        run(plan, Store(tmp_path / "s"), say=lambda text: None)
