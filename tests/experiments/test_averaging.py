"""Averages, merged branches, networks of different data and matched ones, on a small network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_lth.experiments.averaging import averaging, merged
from keras_lth.experiments.instability import Copies, Forked, trained
from keras_lth.imp import IMP
from keras_lth.plans import Notebook, run
from keras_lth.report import figures_chapter4
from keras_lth.report.read import of_rows
from keras_lth.store import Store
from keras_lth.tickets import snapshot_of
from tests.plans import nets

quiet: Any = {"say": lambda text: None}
T = 12


def test_the_mean_of_copies_and_of_branches(tmp_path: Path) -> None:
    """With one branch, merging changes nothing but the slots; the mean of a state and itself is the state."""
    made: dict[str, Any] = {}

    def plan(book: Notebook) -> None:
        lab = nets.lab(book, optimizer={"name": "sgd"})
        init, masks = lab.init(1), lab.full()
        ends = [line.at(T) for line in trained(lab, Forked(init, masks, T), Copies(2), 3)]
        made.update(a=ends[0], b=ends[1], mean=lab.average(*ends, step=T), same=lab.average(ends[0], ends[0], step=T))
        made["merged"] = merged(lab, init, masks, every=5, to=T, branches=2, seed=1)
        made["matched"] = lab.matched(ends[0], ends[1])
        book.want(*made.values())

    run(plan, store := Store(tmp_path / "s"), **quiet)
    states = {name: snapshot_of(store.get(step.name)) for name, step in made.items()}
    a, b, mean = (states[name].weights["hidden/kernel"].astype(float) for name in ("a", "b", "mean"))
    np.testing.assert_allclose(mean, (a + b) / 2, rtol=1e-6, atol=1e-9)
    assert states["same"].weights["hidden/kernel"].tobytes() == states["a"].weights["hidden/kernel"].tobytes()
    assert states["merged"].step == states["mean"].step == T
    units, same = (states[name].weights["hidden/kernel"] for name in ("matched", "b"))
    assert sorted(map(tuple, units.T)) == sorted(map(tuple, same.T))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    def plan(book: Notebook) -> None:
        averaging(
            nets.lab(book, {"norm": True}), IMP(T=T, rounds=0), forks=(4,), runs=3, every=(6,), permutations=True,
            parts=({"part": "1/2"}, {"part": "2/2"}), plane=4, reestimate=True, replicates=2,
        )  # fmt: skip

    return run(plan, tmp_path_factory.mktemp("averages") / "s", **quiet)


def test_rows_of_averages(rows: list[dict[str, Any]]) -> None:
    def of(table: str) -> list[dict[str, Any]]:
        return [row for row in rows if row["table"] == table]

    assert [row["member"] for row in of("averages")] == ["0", "1", "2", "mean"] * 2
    assert [row["member"] for row in of("parts")] == ["0", "1", "mean"] * 2
    assert len(of("merged")) == 2 and len([row for row in of("instability") if row["network"] == "parts"]) == 2
    (plane,) = [row for row in of("plane") if row["replicate"] == 0]
    assert np.shape(plane["errors"]) == (4, 4) and len(plane["places"]) == 3
    before, after = of("matching")
    assert (before["matched"], after["matched"]) == (False, True) and after["l2"] <= before["l2"]
    # Both ends are the networks themselves.
    assert [after["errors"][at] for at in (0, -1)] == pytest.approx([before["errors"][at] for at in (0, -1)], abs=1e-6)


def test_figures_of_averages(rows: list[dict[str, Any]]) -> None:
    found = of_rows(rows, "blobs")
    for draw in (figures_chapter4.plane, figures_chapter4.matching):
        drawing = draw(found)
        assert drawing is not None and drawing.png()
        assert draw(of_rows(rows[:1], "blobs")) is None
