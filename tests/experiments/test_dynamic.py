"""Dynamic IMP and its ablations on a small network: what each phase starts from, and what the masks share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_lth.experiments.dynamic import ARMS, Phase, dynamic, phases
from keras_lth.experiments.kinds import mask_value, regrow, snapshot_of, swap, value_of
from keras_lth.masks import Masks
from keras_lth.plans import Notebook, run
from keras_lth.seeds import seed_of
from keras_lth.store import Store, Value
from keras_lth.tickets import Snapshot
from tests.plans import nets

IMP_ONE = replace(nets.HOW, T=12)
CHANGES, DENSITY = [6], 0.25


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, dict[str, list[Phase]], list[dict[str, Any]]]:
    found: dict[str, list[Phase]] = {}

    def plan(book: Notebook) -> None:
        lab = nets.lab(book)
        mine = seed_of(1, "replicate", 0)
        found.update({arm: phases(lab, IMP_ONE, CHANGES, DENSITY, mine, change) for arm, change in ARMS.items()})
        book.want(*(step for arm in found.values() for p in arm for step in (p.masks, p.run.at(p.end))))
        dynamic(lab, IMP_ONE, changes=CHANGES, densities=[DENSITY])

    store = Store(tmp_path_factory.mktemp("dynamic") / "s")
    return store, found, run(plan, store, say=lambda text: None)


def masks(store: Store, phase: Phase) -> Masks:
    return Masks(store.get(phase.masks.name).arrays)


def test_every_phase_has_the_weights_of_the_density(made: Any) -> None:
    store, found, rows = made
    for arm in found.values():
        assert [masks(store, phase).remaining for phase in arm] == [16, 16]  # of 64
    tables = {(row["table"], row["arm"]) for row in rows}
    assert {("dynamic", arm) for arm in (*ARMS, "dense", "imp", "static", "rigl")} <= tables
    assert {("phases", arm) for arm in ARMS} <= tables


def test_what_the_arms_share(made: Any) -> None:
    store, found, rows = made
    both = {arm: (masks(store, of[0]) & masks(store, of[1])).remaining for arm, of in found.items()}
    assert both["overlap_50"] == 8 and both["overlap_80"] == 13
    assert both["grow_random"] == both["grow_gradient"] == both["dynamic"]
    assert masks(store, found["fresh"][1]) == masks(store, found["dynamic"][1])
    assert masks(store, found["first_random"][0]) != masks(store, found["dynamic"][0])
    swapped = {row["arm"]: row["remaining"] for row in rows if row["table"] == "phases"}
    assert all(swapped[arm] == 16 - both[arm] for arm in ARMS)


def test_a_phase_starts_from_the_hybrid(made: Any) -> None:
    """W″: the trained weights where the first mask keeps them, fresh values elsewhere, slots of a new optimizer."""
    store, found, _ = made
    first, second = found["dynamic"]
    kept = masks(store, first)
    trained = snapshot_of(store.get(first.run.at(6).name))
    end = snapshot_of(store.get(second.run.at(12).name))
    assert trained.step == 6 and end.step == 12
    after = masks(store, second)
    for path, mask in kept.items():
        assert not trained.weights[path][~mask].any() and not end.weights[path][~after[path]].any()
        # Grown where the first phase had nothing.
        assert end.weights[path][after[path] & ~mask].all()


def test_regrow_and_swap_by_hand() -> None:
    def state(values: Any, step: int) -> Value:
        return value_of(Snapshot({"w": np.array(values, np.float32), "b": np.ones(1, np.float32)}, {}, step, {}, {}))

    old = mask_value(Masks({"w": np.array([1, 1, 0, 0], bool)}))
    mixed = snapshot_of(regrow(state([1, 2, 0, 0], 5), old, state([9, 9, 8, 7], 0), step=5))
    assert mixed.step == 5 and mixed.weights["w"].tolist() == [1, 2, 8, 7] and not mixed.optimizer
    like = mask_value(Masks({"w": np.array([0, 1, 0, 1], bool)}))
    kept, grown = Value({"w": np.array([3.0, 2, 9, 9])}), Value({"w": np.array([9.0, 9, 5, 1])})
    assert swap(kept, grown, old, like, overlap=None).arrays["w"].tolist() == [True, False, True, False]
    assert swap(kept, grown, old, like, overlap=1.0).arrays["w"].tolist() == [True, True, False, False]
    with pytest.raises(ValueError, match=r"3 of 3.*2.*overlap"):
        swap(kept, grown, old, mask_value(Masks({"w": np.array([1, 1, 1, 0], bool)})), overlap=1.0)


@pytest.mark.parametrize(
    ("changes", "arms"), [([], ["dynamic"]), ([12], ["dynamic"]), ([6, 3], ["dynamic"]), ([6], ["x"])]
)
def test_what_cannot_work_is_refused(changes: list[int], arms: list[str], tmp_path: Path) -> None:
    def plan(book: Notebook) -> None:
        dynamic(nets.lab(book), IMP_ONE, changes=changes, densities=[0.5], arms=arms)

    with pytest.raises(ValueError, match=r"12.*increasing|overlap_50"):
        run(plan, Store(tmp_path / "s"), say=lambda text: None)
