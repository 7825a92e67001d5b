"""The experiments as plans, on a small network: their trainings are those of `fit`, and none is made twice."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from keras_lth import datasets, surgery, training
from keras_lth.callbacks.imp import IMPCallback
from keras_lth.experiments.instability import Copies, forked, instability, trained
from keras_lth.experiments.kinds import Trainer, examples, snapshot_of, value_of
from keras_lth.experiments.lab import network
from keras_lth.experiments.lottery import ablated, levels, lottery
from keras_lth.imp import IMP, Start
from keras_lth.masks import Masks
from keras_lth.plans import Notebook, StepsFailedError, run
from keras_lth.plans import rows as rows_of
from keras_lth.rates import rates
from keras_lth.store import Store
from keras_lth.tickets import Snapshot
from tests.forms import short_if
from tests.plans import nets

quiet: Any = {"say": lambda text: None}


def by_plan(
    store: Store, imp: IMP, options: Any, *, commit_every: float = 60.0, **setting: Any
) -> tuple[list[Masks], Snapshot, Snapshot]:
    """Masks of each level, W_k, and the end of the last."""
    found: list[Any] = []

    def plan(book: Notebook) -> None:
        lab = nets.lab(book, options, **setting)
        found[:] = [levels(lab, imp, lab.init(3))]
        book.want(*(level.masks for level in found[0]), found[0][-1].run.at(imp.end(imp.rounds or 0)))

    run(plan, store, commit_every=commit_every, **quiet)
    last = found[0][-1]
    wk = found[0][0].run.at(imp.k)
    start = snapshot_of(store.get(wk.name)) if wk.kind.keep else Snapshot({})
    masks = [Masks(store.get(level.masks.name).arrays) for level in found[0]]
    return masks, start, snapshot_of(store.get(last.run.at(last.end).name))


def by_fit(imp: IMP, options: Any, optimizer: Any) -> tuple[list[Masks], Snapshot, Snapshot]:
    """The same through `training.fit` with the callback."""
    (x, y), _, classes = nets.blobs()
    model = nets.net(x.shape[1:], classes, 3, **(options or {}))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss=loss, metrics=["accuracy"], jit_compile=False)
    epochs = imp.T // nets.PER_EPOCH
    callback = IMPCallback(
        imp.rounds, epochs, fraction=imp.fraction, rewind_to=f"{imp.k} steps", scope=imp.scope,
        span="restart" if imp.rewind.clock == "zero" else "remaining",
        keep="trained" if imp.rewind.values == "trained" else "rewind", restore_optimizer=imp.rewind.slots == "k",
        verbose=0,
    )  # fmt: skip
    data = datasets.ordered(x, y, batch_size=nets.BATCH, seed=imp.seed)
    training.fit(model, data, epochs=epochs * 3, callbacks=[callback], jit_compile=False)
    assert callback.captured is not None
    return [callback.ticket(n).masks for n in range(3)], callback.captured, surgery.snapshot(model)


CASES = {
    "k=0": ({}, {}),
    "k inside an epoch": ({"k": 4}, {}),
    "k at the end of an epoch": ({"k": 6}, {"norm": True}),
    "slots of step k": ({"k": 4, "rewind": Start(slots="k")}, {}),
    "trained, schedule from k": ({"k": 4, "rewind": Start("trained")}, {}),
    "schedule from 0": ({"k": 4, "rewind": Start(clock="zero")}, {}),
    "layer by layer, dropout": ({"k": 4, "scope": "layer"}, {"dropout": 0.3}),
    "slots, layer by layer, states": (
        {"k": 6, "scope": "layer", "rewind": Start(slots="k")},
        {"norm": True, "dropout": 0.3},
    ),
}


# In every run each clock, each value, each kind of slots and each scope; layers with a state of their own.
SHORT = ("trained, schedule from k", "schedule from 0", "slots, layer by layer, states")


@pytest.mark.parametrize("case", short_if(lambda case: case in SHORT, CASES))
def test_fit_is_plan(case: str, tmp_path: Path) -> None:
    """The same masks, W_k and trained weights, bit by bit."""
    changes, options = CASES[case]
    imp = replace(nets.HOW, seed=11, **changes)
    mine = by_plan(Store(tmp_path / "s"), imp, options)
    yours = by_fit(imp, options, keras.optimizers.Adam(0.02, epsilon=1e-8))
    assert mine[0] == yours[0]
    if imp.k:
        assert same(mine[1].weights, yours[1].weights) and mine[1].step == yours[1].step == imp.k
    assert same(mine[2].weights, yours[2].weights) and mine[2].step == yours[2].step


def same(a: Any, b: Any) -> bool:
    return a.keys() == b.keys() and all(a[path].tobytes() == b[path].tobytes() for path in a)


def test_rates_that_change_are_those_of_a_schedule(tmp_path: Path) -> None:
    """From step 5 on another rate: Keras' boundary is the last step of the one before."""
    imp = replace(nets.HOW, k=3, seed=2)
    mine = by_plan(Store(tmp_path / "s"), imp, {}, rates=((0, 0.05), (5, 0.01)), optimizer=nets.MOMENTUM)
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([4], [0.05, 0.01])
    yours = by_fit(imp, {}, keras.optimizers.SGD(schedule, momentum=0.9))
    assert mine[0] == yours[0] and same(mine[2].weights, yours[2].weights)


def test_a_warm_up_is_continued_in_its_middle(tmp_path: Path, loads: list[int]) -> None:
    """By the papers' momentum: cut at a step of the warm-up, in a drop, or not at all, the state has the same bits."""
    optimizer = {"name": "momentum", "momentum": 0.9, "weight_decay": 0.01}
    setting = {"optimizer": optimizer, "rates": rates(0.05, {"warmup": 5, "drops": (9,)}, 12)}
    found: list[Any] = []

    def plan(book: Notebook, steps: tuple[int, ...]) -> None:
        line = nets.lab(book, **setting).train(nets.lab(book).init(1))
        book.want(*(line.at(step) for step in steps), *(line.slots(step) for step in steps))
        found.append(line.at(12))

    stores = [Store(tmp_path / name) for name in ("a", "b")]
    for store, each in ((stores[0], [(12,)]), (stores[1], [(3,), (3, 10), (3, 10, 12)])):
        for steps in each:
            run({"plan": partial(plan, steps=steps)}, store, **quiet)
    assert loads == [0, 0, 3, 10]
    first, second = (store.get(found[0].name).arrays for store in stores)
    assert same(first, second)


def test_a_state_before_a_drop_is_continued_behind_it(tmp_path: Path, loads: list[int]) -> None:
    """What was trained to step 3 alone, where the rate is constant, has the slots for the rest."""
    stores, trained = [Store(tmp_path / name) for name in ("a", "b")], list[Any]()

    def plan(book: Notebook, *steps: int) -> None:
        lab = nets.lab(book, rates=((0, 0.05), (5, 0.01)))
        trained[:] = [lab.train(lab.init(1))]
        book.want(*(trained[0].at(step) for step in steps), trained[0].slots(3))

    for store, each in ((stores[0], [(3, 12)]), (stores[1], [(3,), (3, 12)])):
        for steps in each:
            run({"plan": lambda book, steps=steps: plan(book, *steps)}, store, **quiet)
    assert loads == [0, 0, 3]
    first, second = (store.get(trained[0].at(12).name).arrays for store in stores)
    assert same(first, second)


class Stop(BaseException):
    """The process dies."""


def test_a_killed_training_ends_with_the_bits_of_an_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inside an epoch, with the slots, the statistics and dropout's seeds of its last commit."""
    imp, options = replace(nets.HOW, k=4, rounds=1, seed=3), {"dropout": 0.3, "norm": True}
    monkeypatch.setattr(Trainer, "calls", 2)
    undisturbed = by_plan(Store(tmp_path / "a"), imp, options)
    store, advance, calls = Store(tmp_path / "b"), Trainer.advance, 0

    def dying(self: Trainer, to: int) -> None:
        nonlocal calls
        calls += 1
        # Two calls to k, four to T, four of level 1: killed in the second, the fifth, and after the first of level 1.
        if calls in (2, 6, 10):
            raise Stop
        advance(self, to)

    monkeypatch.setattr(Trainer, "advance", dying)
    for _ in range(3):
        with pytest.raises(Stop):
            by_plan(store, imp, options, commit_every=0)
    again = by_plan(store, imp, options, commit_every=0)
    # Each call that was killed is made again, and no other.
    assert calls == 10 + 3 and not store.under_way()
    assert again[0] == undisturbed[0] and again[1].same_bits(undisturbed[1]) and again[2].same_bits(undisturbed[2])


def test_a_fork_of_a_rewound_ticket_starts_at_its_step(tmp_path: Path, loads: list[int]) -> None:
    """And with the rates from there on: from step k the rate is 0, so that a fork at k ends where it began, and so does
    one before k, since a ticket begins at k."""
    imp, rows = replace(nets.HOW, k=4, rounds=1), []

    def plan(book: Notebook) -> None:
        lab = nets.lab(book, rates=((0, 0.05), (4, 0.0)))
        found = levels(lab, imp, lab.init(3))
        for name in ("dense", "ticket"):
            for fork in (0, 4):
                given = forked(lab, imp, found, name, 1, fork, 0, 0)
                a, b = (run.at(given.end) for run in trained(lab, given, Copies(2), 7))
                lab.row(lab.compare(a, b), name=name, fork=fork)

    rows = run(plan, tmp_path / "s", **quiet)
    distances = {(row["name"], row["fork"]): row["l2"] for row in rows}
    assert [distances["dense", 4], distances["ticket", 0], distances["ticket", 4]] == [0, 0, 0]
    assert distances["dense", 0] > 0.1
    # The dense training; two copies of it from 0 and from 4; those of the ticket from 4, once.
    assert sorted(loads) == [0, 0, 0, 4, 4, 4, 4]


def test_more_runs_train_only_the_new_ones(tmp_path: Path, loads: list[int]) -> None:
    imp = replace(nets.HOW, rounds=1)

    def forks(book: Notebook, runs: int) -> None:
        instability(nets.lab(book), imp, forks=(6,), runs=runs)

    def pairs(runs: int) -> list[str]:
        run(partial(forks, runs=runs), tmp_path / "s", **quiet)
        found = rows_of(partial(forks, runs=runs), tmp_path / "s").rows
        return [row["pair"] for row in found if row["network"] == "dense" and row["data"] == "test"]

    assert pairs(2) == ["0-1"]
    networks = len(loads) - 2  # IMP trains two; the sparsest matching one may be the dense one itself
    loads.clear()
    assert pairs(3) == ["0-1", "0-2", "1-2"]
    assert len(loads) == networks // 2
    # One record: that of two runs knew nothing more.
    assert len(Store(tmp_path / "s").plans()) == 1


def test_rows_while_it_runs(tmp_path: Path) -> None:
    """Whoever reads the store meanwhile has the rows whose values are there."""
    imp, counts = replace(nets.HOW, rounds=1), []

    def experiment(book: Notebook) -> None:
        lottery(nets.lab(book), imp, arms=("imp", "reinit"), every=6)

    def look(text: str) -> None:
        found = rows_of(experiment, tmp_path / "s")
        results = [row for row in found.rows if row["table"] == "results"]
        assert all(0 <= row["accuracy"] <= 1 for row in results)
        counts.append((len(results), len(found.missing)))

    run(experiment, tmp_path / "s", say=look)
    # Three trainings have a row of results and a curve each, two levels their layers.
    assert counts[0] == (0, 8) and counts[-1] == (3, 0) and {count for count, _ in counts} == {0, 1, 2, 3}
    assert counts == sorted(counts, key=lambda count: (count[0], -count[1]))


def test_the_arms_are_what_they_say(tmp_path: Path) -> None:
    found: dict[Any, Any] = {}

    def experiment(book: Notebook) -> None:
        lab, imp = nets.lab(book), replace(nets.HOW, rounds=2)
        for number in range(2):
            mine = replace(imp, seed=number)
            for place, level in enumerate(levels(lab, mine, lab.init(number))):
                found["imp", number, place] = level
                for arm in ("reinit", "random_layerwise", "random_global") if place else ():
                    wk = lab.init(number)
                    found[arm, number, place] = ablated(lab, mine, arm, wk, level.masks, 5, number, place)
        book.want(*(level.masks for level in found.values()))

    run(experiment, store := Store(tmp_path / "s"), **quiet)
    masks = {key: Masks(store.get(level.masks.name).arrays) for key, level in found.items()}
    for number in range(2):
        mine = masks["imp", number, 2]
        assert masks["reinit", number, 2] == mine != masks["imp", 1 - number, 2]
        layerwise, overall = masks["random_layerwise", number, 2], masks["random_global", number, 2]
        assert [row.remaining for row in layerwise.table()] == [row.remaining for row in mine.table()]
        assert (
            overall.remaining == layerwise.remaining == 41 and len({mine.digest, layerwise.digest, overall.digest}) == 3
        )
    # No two of them share a start or a noise, but for IMP's levels of one replicate.
    starts = {key: level.run.start.name for key, level in found.items() if key[0] != "imp" or key[2] == 0}
    noises = {key: str(level.run.params.get("noise")) for key, level in found.items()}
    assert len(set(starts.values())) == len(starts) == 2 + 2 * 2 * 3 and len(set(noises.values())) == len(noises)


def test_the_lottery_and_its_instability(tmp_path: Path, loads: list[int]) -> None:
    imp = replace(nets.HOW, k=4)

    def experiment(book: Notebook) -> None:
        lottery(nets.lab(book), imp, replicates=2, arms=("imp", "reinit"), every=6, seed=5)

    def forks(book: Notebook) -> None:
        instability(nets.lab(book), imp, forks=(0, 4), runs=2, replicates=2, seed=5)

    rows = run(experiment, tmp_path / "s", **quiet)
    results = [row for row in rows if row["table"] == "results"]
    assert len(results) == 2 * (3 + 2) and len(loads) == 10
    first = results[0]
    assert {"accuracy", "loss", "train_accuracy", "train_loss", "density", "remaining", "arm"} <= set(first)
    # 8 · 5 + 3 · 8 = 64 weights: 64, 51, 41.
    assert [row["remaining"] for row in results if row["arm"] == "imp"] == [64, 51, 41] * 2
    curves = [row for row in rows if row["table"] == "curves" and row["replicate"] == 0 and row["arm"] == "imp"]
    assert [(row["level"], row["step"]) for row in curves] == [(level, s) for level in range(3) for s in (6, 12)]
    # The last row of a curve is the result.
    ends = [row["accuracy"] for row in curves if row["step"] == 12]
    assert ends == [row["accuracy"] for row in results if row["arm"] == "imp" and row["replicate"] == 0]
    layers = [row for row in rows if row["table"] == "layers" and row["level"] == 2 and row["replicate"] == 1]
    assert [row["path"] for row in layers] == ["hidden/kernel", "output/kernel"]
    assert sum(row["remaining"] for row in layers) == 41
    loads.clear()
    assert run(experiment, tmp_path / "s", **quiet) == rows and loads == []
    # The instability adds its forks: two networks of two replicates at two steps, twice; the ticket's fork at 0 is
    # that at its start, k. Nothing of IMP is trained again.
    more = run({"lottery": experiment, "instability": forks}, tmp_path / "s", **quiet)
    assert len([row for row in more if row["table"] == "instability"]) == 2 * 2 * 2 * 2
    levels_of = {row["level"] for row in more if row["table"] == "instability" and row["network"] == "ticket"}
    assert len(loads) == 2 * (4 + 2) if 0 not in levels_of else len(loads) <= 12
    for row in more:
        if row["table"] == "instability":
            # Thesis, 4.1.1: the greatest rise above the mean of the ends, at 30 points of the line.
            ends = (row["errors"][0] + row["errors"][-1]) / 2
            assert len(row["errors"]) == len(row["alphas"]) == 30
            assert row["barrier"] == pytest.approx(max(row["errors"]) - ends)


def test_a_density_ends_the_rounds(tmp_path: Path) -> None:
    """64 weights to a quarter: 51, 41, 33, 26, 21, 17, and 16 by a cut that is shortened."""
    found: list[Any] = []

    def plan(book: Notebook) -> None:
        lab = nets.lab(book)
        found[:] = levels(lab, IMP(T=2, target_density=0.25), lab.init(3))
        book.row(found[-1].masks)

    (row,) = run(plan, tmp_path / "s", **quiet)
    assert len(found) == 8 and row["remaining"] == 16


def test_a_state_is_a_snapshot() -> None:
    weights = {"a": np.ones(2, np.float32)}
    snapshot = Snapshot(weights, {"000/iteration": np.int64(3)}, 3, {"s": np.array([1, 2], np.uint32)})
    assert snapshot_of(value_of(snapshot)).same_bits(snapshot)


def test_criteria_and_masks(tmp_path: Path) -> None:
    found: dict[str, Any] = {}

    def plan(book: Notebook) -> None:
        lab = nets.lab(book)
        state, full = lab.init(1), lab.full()
        a = lab.select(lab.score("random", state, seed=3), density=0.5)
        b = lab.select(lab.score("magnitude", state), density=0.25, scope="layer")
        found.update(
            full=full, a=a, b=b, both=lab.combine("and", a, b), any=lab.combine("or", a, b), no=lab.combine("not", a),
            shuffled=lab.shuffle(b, 7), within=lab.full(exclude="output"),
        )  # fmt: skip
        book.want(*found.values())

    store = Store(tmp_path / "s")
    run(plan, store, **quiet)
    masks = {name: Masks(store.get(step.name).arrays) for name, step in found.items()}
    assert masks["a"].remaining == 32 and [row.remaining for row in masks["b"].table()] == [10, 6]
    assert masks["both"] == masks["a"] & masks["b"] and masks["any"] == masks["a"] | masks["b"]
    assert masks["no"] == ~masks["a"] and [row.remaining for row in masks["shuffled"].table()] == [10, 6]
    assert list(masks["within"]) == ["hidden/kernel"]
    assert store.get(found["b"].name).rows == [{"density": 0.25, "remaining": 16, "size": 64}]


def test_data_is_named_by_its_content(tmp_path: Path) -> None:
    """The same arrays in another place are the same data; other arrays are not."""
    (x, y), (x_test, y_test), _ = nets.blobs()
    paths = [str(tmp_path / name) for name in ("a.npz", "b.npz", "c.npz")]
    for path, shift in zip(paths, (0, 0, 1), strict=True):
        np.savez(path, x_train=x + shift, y_train=y, x_test=x_test, y_test=y_test)
    store = Store(tmp_path / "s")
    ends: list[Any] = []

    def plan(book: Notebook) -> None:
        ends.clear()
        for path in paths:
            lab = nets.lab(book).on(network=network(path, nets.net))
            ends.append(lab.train(lab.init(1)).at(6))
        lab = nets.lab(book)
        ends.append(lab.train(lab.init(1)).at(6))
        book.want(*ends)

    run(plan, store, **quiet)
    assert ends[0] == ends[1] and len({each.name for each in ends}) == 3
    a, _, c, function = (store.get(each.name).arrays for each in ends)
    assert same(a, function) and not same(a, c)
    # A file that changes in its place is other data.
    np.savez(paths[0], x_train=x + 2, y_train=y, x_test=x_test, y_test=y_test)
    run(plan, store, **quiet)
    assert len({each.name for each in ends}) == 4


def test_what_a_network_cannot_be_made_of(tmp_path: Path) -> None:
    assert network("tests.plans.nets:blobs", "tests.plans.nets:net") == network(nets.blobs, nets.net)
    with pytest.raises(ValueError, match="versioned"):
        network("tests.plans.nets:lab", nets.net)
    with pytest.raises(ImportError, match="nothing"):
        network("tests.plans.nothing:blobs", nets.net)
    with pytest.raises(FileNotFoundError):
        network(str(tmp_path / "none.npz"), nets.net)
    np.savez(tmp_path / "a.npz", x_train=np.ones(2))

    def plan(book: Notebook) -> None:
        lab = nets.lab(book).on(network=network(str(tmp_path / "a.npz"), nets.net))
        book.want(lab.train(lab.init(1)).at(6))

    with pytest.raises(StepsFailedError, match="y_train, x_test, y_test"):
        run(plan, tmp_path / "s", **quiet)


@pytest.mark.parametrize("labels", [np.eye(4), np.array([0, 1, -1, 2]), np.array([0, 0.5, 1, 2])])
def test_labels_that_are_no_classes(labels: np.ndarray, tmp_path: Path) -> None:
    path = str(tmp_path / "a.npz")
    np.savez(path, x_train=np.ones((4, 3)), y_train=labels, x_test=np.ones((4, 3)), y_test=labels)
    with pytest.raises(ValueError, match="class 0, 1, 2"):
        examples(network={"data": {"file": path}})
