"""Chapter 5's plan, on a small network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_lth.experiments.early import METHODS, early, pruned
from keras_lth.experiments.kinds import mask_value, snapshot_of, start, value_of
from keras_lth.masks import Masks
from keras_lth.plans import Notebook, run
from keras_lth.store import Store
from keras_lth.tickets import Snapshot
from tests.plans import nets

quiet: Any = {"say": lambda text: None}
IMP_1 = replace(nets.HOW, rounds=1)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    def plan(book: Notebook) -> None:
        methods = ("random", "magnitude", "snip")
        how: Any = {
            "methods": methods,
            "levels": (1, 3),
            "steps": (6, 12),
            "ablated": (3,),
            "step_ablations": ("reinit",),
            "per_class": 2,
        }  # of 22 examples of three classes
        early(nets.lab(book), IMP_1, **how)

    return run(plan, tmp_path_factory.mktemp("early") / "s", **quiet)


def of(rows: list[dict[str, Any]], table: str, **labels: Any) -> list[dict[str, Any]]:
    return [row for row in rows if row["table"] == table and all(row[key] == each for key, each in labels.items())]


def test_every_method_at_every_density(rows: list[dict[str, Any]]) -> None:
    """64 weights: 51 at 0.8, 33 at 0.512; the dense network is level 0."""
    counts = {(row["arm"], row["level"]): row["remaining"] for row in of(rows, "results")}
    arms = ("random", "magnitude", "snip", "magnitude_after", "ltr")
    assert counts == {("dense", 0): 64} | {(arm, n): left for arm in arms for n, left in ((1, 51), (3, 33))}
    degrees = of(rows, "neurons", arm="snip", level=3)
    assert sum(sum(row["outputs"]) for row in degrees) == 33


def test_ablations_and_steps(rows: list[dict[str, Any]]) -> None:
    found = {(row["arm"], row["ablation"], row["step"]) for row in of(rows, "early")}
    at_init = {
        (arm, what, 0) for arm in ("magnitude", "snip") for what in ("none", "shuffle", "reinit", "invert", "unit")
    }
    at_init |= {("random", what, 0) for what in ("none", "shuffle", "reinit")}
    later = {
        (arm, what, step) for step in (6, 12) for arm in ("random", "magnitude", "snip") for what in ("none", "reinit")
    }
    after = {("magnitude_after", what, 12) for what in ("none", "shuffle", "reinit")}
    ltr = {("ltr", what, 0) for what in ("none", "shuffle", "reinit")}
    assert found == at_init | later | after | ltr
    assert all(row["remaining"] == 33 for row in of(rows, "early"))


def test_masks_of_the_methods(tmp_path: Path) -> None:
    """Inverted magnitude keeps the lowest; at a deviation of 1 the shares of layers are about equal."""
    steps: dict[str, Any] = {}

    def plan(book: Notebook) -> None:
        lab = nets.lab(book)
        init = lab.init(3)
        steps["init"] = lab.evaluate(init)
        for name in METHODS:
            steps[name] = pruned(lab, name, init, 0.5, 1, per_class=2)
        steps["inverted"] = pruned(lab, "magnitude", init, 0.5, 1, invert=True)
        steps["synflow inverted"] = pruned(lab, "synflow", init, 0.9, 1, invert=True)
        steps["unit"] = pruned(lab, "magnitude", lab.start(init, lab.full(), values="unit", step=0), 0.5, 1)
        book.want(*steps.values())

    run(plan, store := Store(tmp_path / "s"), **quiet)
    masks = {name: Masks(store.get(step.name).arrays) for name, step in steps.items() if name != "init"}
    assert all(each.remaining == (58 if "synflow i" in name else 32) for name, each in masks.items())
    assert masks["inverted"] == ~masks["magnitude"]
    assert len({each.digest for each in masks.values()}) >= 7
    shares = [row.density for row in masks["unit"].table()]
    assert abs(shares[0] - shares[1]) < 0.3


def test_values_of_unit_deviation() -> None:
    weights = {"a": np.array([[1.0, 3.0], [5.0, 7.0]], np.float32), "b": np.array([2.0], np.float32)}
    wk, masks = value_of(Snapshot(weights, {}, 0)), mask_value(Masks.ones({"a": (2, 2)}))
    network: dict[str, Any] = {}
    found = snapshot_of(start(wk, masks, network=network, values="unit", step=0, slots="fresh", seed=0)).weights
    assert np.std(found["a"]) == pytest.approx(1) and found["b"] == 2
    np.testing.assert_allclose(found["a"], weights["a"] / 5**0.5, rtol=1e-6)
