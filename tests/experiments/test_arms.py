"""Chapter 3's arms, its training dilation and its anatomy, on a small network."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_lth.experiments.anatomy import anatomy
from keras_lth.experiments.dilation import dilation
from keras_lth.experiments.kinds import degrees, mask_value, moved, snapshot_of, start, value_of
from keras_lth.experiments.lottery import ARMS, Level, levels, lottery, subnetworks
from keras_lth.imp import IMP
from keras_lth.masks import Masks
from keras_lth.plans import Notebook, run
from keras_lth.store import Store
from keras_lth.tickets import Snapshot
from tests.plans import nets

quiet: Any = {"say": lambda text: None}
IMP_3 = replace(nets.HOW, rounds=3, k=4, seed=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, dict[str, list[Level]], list[dict[str, Any]]]:
    """All arms of one replicate, trained."""
    found: dict[str, list[Level]] = {}

    def plan(book: Notebook) -> None:
        lab = nets.lab(book)
        own = levels(lab, IMP_3, lab.init(3))
        found.update({arm: subnetworks(lab, IMP_3, arm, own, 5) for arm in ARMS})
        book.want(*(level.masks for arm in found.values() for level in arm))
        lottery(lab, IMP_3, arms=tuple(ARMS), every=6, curves=("test", "train"))

    store = Store(tmp_path_factory.mktemp("arms") / "s")
    rows = run(plan, store, **quiet)
    return store, found, rows


def masks_in(store: Store, level: Level) -> Masks:
    return Masks(store.get(level.masks.name).arrays)


def test_every_arm_has_the_weights_of_imp(made: Any) -> None:
    """64 weights: 51, 41, 33 after cuts of a fifth; "cyclic" prunes nothing."""
    store, found, rows = made
    for arm, of_arm in found.items():
        counts = [masks_in(store, level).remaining for level in of_arm]
        assert counts == ([64] * 4 if arm == "cyclic" else [64, 51, 41, 33]), arm
    results = {(row["arm"], row["level"]): row for row in rows if row["table"] == "results"}
    assert len(results) == 1 + 3 * len(ARMS) and results["lrr", 3]["remaining"] == 33
    assert {row["arm"] for row in rows if row["table"] == "train"} == {*ARMS}


def test_the_documentation_lists_the_arms() -> None:
    text = (Path(__file__).parents[2] / "docs" / "chapter3.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", text, re.M) == list(ARMS)


def test_masks_of_the_arms(made: Any) -> None:
    """One-shot pruning cuts the dense network, whatever is retrained; ablations have IMP's masks."""
    store, found, _ = made
    masks = {arm: [masks_in(store, level) for level in of_arm] for arm, of_arm in found.items()}
    for arm in ("reinit", "signs", "shuffled", "noise"):
        assert masks[arm] == masks["imp"]
    assert masks["imp_one_shot"] == masks["lrr_one_shot"]
    # The first cut is the same for all that prune the dense network; a one-shot cut contains every smaller one.
    assert masks["imp"][1] == masks["lrr"][1] == masks["imp_one_shot"][1] == masks["low_rate"][1]
    for fewer, more in zip(masks["imp_one_shot"][1:], masks["imp_one_shot"], strict=False):
        assert fewer & more == fewer


def test_what_the_arms_train_from(made: Any) -> None:
    """Begin and end follow the clock: from k, the whole schedule, or its last rate."""
    _, found, _ = made
    k, whole = IMP_3.k, IMP_3.T
    spans = {arm: (of_arm[2].run.begin, of_arm[2].end) for arm, of_arm in found.items()}
    assert spans["imp"] == spans["imp_one_shot"] == spans["signs"] == spans["noise"] == (k, whole)
    assert spans["lrr"] == spans["cyclic"] == spans["reinit"] == spans["random_global"] == (0, whole)
    assert spans["fine_tuning"] == spans["low_rate"] == (whole, whole + whole - k)
    starts = {of_arm[2].run.start.name for of_arm in found.values()}
    assert spans["reset"] == (0, whole) and found["reset"][2].run.start.params.get("step", 0) == 0
    assert len(starts) == len(found) - 1  # IMP, iterative or not, starts from the same state of step k
    assert found["imp"][2].run.start.name == found["imp_one_shot"][2].run.start.name


def state(seed: int) -> Snapshot:
    rng = np.random.default_rng(seed)
    return Snapshot({"a/kernel": rng.normal(size=(5, 4)).astype(np.float32), "a/bias": np.zeros(4, np.float32)}, {}, 7)


MASK = Masks({"a/kernel": np.arange(20).reshape(5, 4) % 3 == 0})


def started(values: str, *others: Any, seed: int = 0) -> Snapshot:
    network: dict[str, Any] = {}
    wk = value_of(state(0))
    return snapshot_of(start(wk, *others, network=network, values=values, step=2, slots="fresh", seed=seed))


def test_signs_noise_and_shuffled_values() -> None:
    before, fresh = state(0).weights["a/kernel"], state(1).weights["a/kernel"]
    signs = started("signs", value_of(state(1))).weights["a/kernel"]
    assert np.array_equal(np.abs(signs), np.abs(fresh)) and np.array_equal(np.sign(signs), np.sign(before))
    noise = started("noise", value_of(state(1))).weights
    np.testing.assert_allclose(noise["a/kernel"], before + fresh - fresh.mean(), rtol=1e-6)
    assert not noise["a/bias"].any()
    shuffled = [started("shuffled", mask_value(MASK), seed=seed).weights["a/kernel"] for seed in (1, 1, 2)]
    kept = MASK["a/kernel"]
    assert np.array_equal(np.sort(shuffled[0][kept]), np.sort(before[kept])) and (shuffled[0] != before).any()
    assert np.array_equal(shuffled[0][~kept], before[~kept])
    assert np.array_equal(shuffled[0], shuffled[1]) and (shuffled[0] != shuffled[2]).any()
    assert started("k").step == 2


def test_degrees_and_moves_are_counted() -> None:
    (row,) = degrees(mask_value(MASK)).rows
    assert row["inputs"] == [2, 1, 1, 2, 1] and row["outputs"] == [2, 1, 2, 2]
    assert sum(row["inputs"]) == sum(row["outputs"]) == MASK.remaining
    convolution = degrees(mask_value(Masks.ones({"c/kernel": (3, 3, 2, 4)}))).rows[0]
    assert convolution["inputs"] == [36, 36] and convolution["outputs"] == [18] * 4 and convolution["fan_in"] == 18
    (row,) = moved(value_of(state(0)), value_of(state(1)), mask_value(MASK)).rows
    a, b = (list(state(n).weights["a/kernel"][MASK["a/kernel"]].astype(float)) for n in (0, 1))
    assert row["distance"] == pytest.approx(sum((y - x) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5)
    assert row["sign_changes"] == pytest.approx(sum(x * y < 0 for x, y in zip(a, b, strict=True)) / len(a))
    assert row["remaining"] == len(a) == 7


def test_anatomy(tmp_path: Path) -> None:
    def plan(book: Notebook) -> None:
        anatomy(nets.lab(book), IMP_3, places=(0, 3))

    lines: list[str] = []
    rows = run(plan, tmp_path / "s", say=lines.append, quiet=True)
    assert not lines and [row["level"] for row in rows if row["table"] == "untrained"] == [0, 3]
    degrees_of = [row for row in rows if row["table"] == "degrees" and row["level"] == 3]
    assert sum(sum(row["inputs"]) for row in degrees_of) == 33
    dense, ticket = ([r for r in rows if r["table"] == "moved" and r["level"] == n] for n in (0, 3))
    assert [row["remaining"] for row in dense] == [40, 24] and all(row["distance"] > 0 for row in ticket)


FACTORS = (0.5, 1.0, 1.5, 2.0)


def stretched(tmp_path: Path, under: Callable[[float], Any], **setting: Any) -> list[dict[str, Any]]:
    def plan(book: Notebook) -> None:
        how = IMP(T=12, rounds=2, seed=1)
        dilation(nets.lab(book, **setting), how, rates=under, places=(1, 2), factors=FACTORS, replicates=2)

    return [row for row in run(plan, tmp_path / "s", **quiet) if row["table"] == "dilation"]


def test_dilations_of_a_constant_rate_are_one_training(tmp_path: Path, loads: list[int]) -> None:
    """Seven networks of two replicates; one training of each gives all factors up to 1, which IMP's ends may share."""
    rows = stretched(tmp_path, lambda factor: 0.02)
    keys = {(row["arm"], row["level"]) for row in rows}
    assert keys == {("dense", 0), *((arm, n) for arm in ("imp", "reinit", "random_layerwise") for n in (1, 2))}
    assert all(row["step"] == 12 * row["dilation"] for row in rows)
    dense = np.mean([row["accuracy"] for row in rows if row["arm"] == "dense" and row["dilation"] == 1])
    again = 0
    for key in keys:
        mine = [row for row in rows if (row["arm"], row["level"]) == key]
        means = {f: np.mean([r["accuracy"] for r in mine if r["dilation"] == f]) for f in FACTORS if f <= 1}
        more = {row["dilation"] for row in mine} - set(means)
        # The longer trainings are made where the shorter ones do not reach the dense accuracy, and only there.
        assert more == (set() if max(means.values()) >= dense - 1e-6 else {1.5, 2.0})
        again += bool(more)
    # Levels 0 and 1 of IMP are trained first, for the masks, and their shorter points are points of the same training.
    assert len(loads) <= 2 * (7 + 2 + again)


def test_a_stretched_schedule_has_trainings_of_its_own(tmp_path: Path) -> None:
    """With a drop, each factor is another training; the least one that reaches the dense accuracy is the last."""
    rows = stretched(tmp_path, lambda f: ((0, 0.02), (int(6 * f), 0.002)), rates=((0, 0.02), (6, 0.002)))
    dense = np.mean([row["accuracy"] for row in rows if row["arm"] == "dense" and row["dilation"] == 1] or [np.nan])
    for key in {(row["arm"], row["level"]) for row in rows}:
        mine = [row for row in rows if (row["arm"], row["level"]) == key]
        tried = sorted({row["dilation"] for row in mine})
        assert tuple(tried) == FACTORS[: len(tried)]
        means = [np.mean([row["accuracy"] for row in mine if row["dilation"] == factor]) for factor in tried]
        if np.isfinite(dense):
            assert all(mean < dense for mean in means[:-1]) and (means[-1] >= dense - 1e-6 or len(tried) == 4)
