"""Sparse-to-sparse training: counts, partitions, what grows, and a dense "sparse" run."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_lth as lth
from keras_lth import surgery
from keras_lth.callbacks.sparse_training import SparseTraining, divided
from keras_lth.densities import ERK, Uniform
from tests.callbacks import moving, small
from tests.forms import short_if

METHODS: dict[str, Callable[..., SparseTraining]] = {
    "SET": lambda *args, **kw: lth.SET(*args, **{"every": 4, **kw}),
    "RigL": lambda *args, **kw: lth.RigL(*args, **{"every": 4, "until": "100%", **kw}),
    "SNFS": lambda *args, **kw: lth.SNFS(*args, **{"every": 4, "until": "100%", "batches": 2, **kw}),
    "DSR": lambda *args, **kw: lth.DSR(*args, **{"every": 4, "until": "100%", **kw}),
}


class Before(keras.callbacks.Callback):
    """In front of a mover in the list: keeps the weights that an update sees."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: dict[int, dict[str, np.ndarray]] = {}

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        held = surgery.variables(self.model)
        step = surgery.step_of(self.model)
        self.weights[step] = {path: np.array(held[path].numpy()) for path in lth.masks_of(self.model)}


@pytest.mark.parametrize("name", METHODS)
def test_exactly_k_and_a_partition_at_each_update(name: str) -> None:
    watch, before = moving.Watch(), Before()
    built = small.model()
    lth.training.fit(
        built, small.data(), epochs=3, callbacks=[before, METHODS[name](0.25, verbose=0), watch], jit_compile=False
    )
    first = watch.masks[1]
    assert {p: m.sum() for p, m in first.items()} == ERK(0.25).counts({p: m.shape for p, m in first.items()})
    held, moved = first, 0
    for step, after in sorted(watch.masks.items()):
        assert after.remaining == 36
        if step % 4 or step == 18:
            assert after == held
            continue
        # Dropped ∪ kept ∪ grown, each where the others are not; grown weights had no mask before.
        dropped, grown = held & ~after, after & ~held
        assert dropped.remaining == grown.remaining
        share = 0.3 if name == "SET" else 0.15 * (1 + math.cos(math.pi * step / 18))
        if name != "DSR":
            assert {p: m.sum() for p, m in dropped.items()} == {
                p: math.floor(share * held[p].sum() + 0.5) for p in held
            }
        if name in ("SET", "RigL"):
            assert {p: m.sum() for p, m in after.items()} == {p: m.sum() for p, m in first.items()}
        for path, weight in before.weights[step].items():
            if name != "DSR" and dropped[path].any():
                kept = (held & after)[path]
                assert np.abs(weight[dropped[path]]).max() <= np.abs(weight[kept]).min()
        moved += grown.remaining
        held = after
    assert moved > 10


def test_rigl_grows_where_the_dense_gradient_of_the_batch_is_largest() -> None:
    watch, data = moving.Watch(), small.data()
    built = small.model()
    lth.training.fit(built, data, epochs=1, callbacks=[METHODS["RigL"](0.25, verbose=0), watch], jit_compile=False)
    other, first, second = small.model(), watch.masks[3], watch.masks[4]
    state = lth.training.train(other, small.data(), to=4, masks=first, jit_compile=False)
    assert surgery.step_of(other) == state.step == 4
    rows = data.order(0)[4 * small.BATCH : 5 * small.BATCH]
    gradients = lth.dense_gradients(other, small.X[rows], small.Y[rows])
    for path, grown in (second & ~first).items():
        free = np.abs(gradients[path])[~first[path]]
        assert np.abs(gradients[path])[grown].min() >= np.sort(free)[-grown.sum()] * 0.999


@pytest.fixture(scope="module")
def dense() -> keras.Model:
    built = small.model()
    lth.training.fit(built, small.data(), epochs=3, jit_compile=False)
    return built


@pytest.mark.parametrize("name", ["RigL", "DSR"])
def test_a_dense_sparse_run_is_the_dense_run(name: str, dense: keras.Model) -> None:
    sparse = moving.loop(METHODS[name](1.0, verbose=0))
    for a, b in zip(moving.weights(dense), moving.weights(sparse), strict=True):
        np.testing.assert_array_equal(a, b)


def test_static_masks_do_not_move() -> None:
    watch = moving.Watch()
    built = moving.loop(lth.StaticSparse(Uniform(0.25), verbose=0), watch)
    assert set(watch.masks.values()) == {lth.masks_of(built)}
    assert {p: m.sum() for p, m in lth.masks_of(built).items()} == {"dense/kernel": 24, "dense_1/kernel": 12}


def test_killed_inside_and_resumed(tmp_path: Path) -> None:
    moving.killed_is_whole(lambda: METHODS["RigL"](0.25, verbose=0), tmp_path, 9)


def test_fit_and_loop_agree() -> None:
    one, other = (run(METHODS["RigL"]({"dense_1": 0.5, ".*": 0.2}, verbose=0)) for run in (moving.fit, moving.loop))
    assert lth.masks_of(one) == lth.masks_of(other)


def test_grown_weights_are_zero_with_fresh_slots() -> None:
    built, mover = small.model("adagrad"), METHODS["SET"](0.25, every=6, verbose=0)
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def look(epoch: int, logs: Any) -> None:
        grown = ~before[-1]["dense/kernel"] & lth.masks_of(built)["dense/kernel"]
        slot = next(v for v in built.optimizer.variables if tuple(v.shape) == (8, 12))
        seen.append((built.layers[0].kernel.numpy()[grown], slot.numpy()[grown]))
        before.append(lth.masks_of(built))

    before = [lth.masks_of(built)]
    watch = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: before.append(lth.masks_of(built)), on_epoch_end=look
    )
    built.fit(small.data(), epochs=2, verbose=0, shuffle=False, callbacks=[mover, watch])
    values, slots = seen[0]
    assert len(values) and not values.any() and (slots == np.float32(0.1)).all()  # Adagrad's initial accumulator


@pytest.mark.parametrize("stored", short_if(bool, [False, True]))
def test_grown_weights_are_drawn_with_a_deviation(stored: bool) -> None:
    """The only weights that change at an update are those that it drops, which become 0, and those that it grows."""
    built = small.model("sgd")
    lth.mask(built, lth.select(lth.criteria.Random(1)(built), density=0.5))
    if stored:
        lth.sparsify(built, only_if_faster=False)
    built.optimizer.learning_rate = 0.0
    first, masks = np.array(built.layers[0].kernel), lth.masks_of(built)
    moving.loop(lth.SET(None, every=6, until=7, deviation=3.0, verbose=0), model=built)
    last, grown = np.array(built.layers[0].kernel), ~masks["dense/kernel"] & lth.masks_of(built)["dense/kernel"]
    kept = masks["dense/kernel"] & lth.masks_of(built)["dense/kernel"]
    assert grown.sum() == round(0.3 * masks["dense/kernel"].sum())
    assert 1.5 < last[grown].std() < 5 and (last[kept] == first[kept]).all()
    assert not last[~(kept | grown)].any()


def test_sparse_layers_follow() -> None:
    dense, sparse = small.model(), small.model()
    lth.mask(sparse, lth.select(lth.criteria.Random(1)(sparse), density=0.25))
    lth.mask(dense, lth.masks_of(sparse))
    lth.sparsify(sparse, only_if_faster=False)
    for built in (dense, sparse):
        moving.loop(METHODS["RigL"](None, verbose=0), model=built)
    assert lth.masks_of(dense) == lth.masks_of(sparse)
    assert int(np.prod(sparse.layers[0].trainable_weights[0].shape)) < 96


@pytest.mark.parametrize("total", [0, 1, 7, 30, 45])
def test_growth_is_divided_exactly(total: int) -> None:
    shares, room = {"a": 5.0, "b": 3.0, "c": 0.0, "d": 2.0}, {"a": 4, "b": 20, "c": 1, "d": 20}
    found = divided(total, shares, room)
    assert sum(found.values()) == total and all(found[path] <= room[path] for path in room)
    with pytest.raises(ValueError, match=r"46.*45"):
        divided(46, shares, room)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: lth.RigL(0.1, every=100), "first update, at step 100.*step 14 of 18.*smaller every"),
        (lambda: lth.RigL(0.1, every=5, until=19), "until=19 steps.*step 18"),
        (lambda: lth.RigL(None, every=5), "has none"),
        (lambda: lth.RigL(0.1, fraction=1.5), "fraction.*1.5"),
        (lambda: lth.SET(0.1, deviation=-1), "deviation.*-1"),
        (lambda: lth.RigL(0.1, decay="linear"), "decay.*linear"),
        (lambda: lth.RigL(0.0), "density.*0.0"),
    ],
)
def test_what_cannot_work_is_refused(make: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        moving.loop(make())


def test_a_masked_model_needs_a_word() -> None:
    built = small.model()
    lth.mask(built, lth.select(lth.criteria.Random(1)(built), density=0.25))
    with pytest.raises(ValueError, match=r"already has masks.*0.25.*density=None"):
        moving.loop(lth.RigL(0.1, every=4), model=built)


def test_fit_twice_continues_with_the_masks() -> None:
    """On arrays, whose batch for the gradient is drawn by the step."""
    built, rigl = small.model(), METHODS["RigL"](0.25, verbose=0)
    ends = []
    for _ in range(2):
        built.fit(small.X, small.Y, batch_size=16, epochs=2, verbose=0, callbacks=[rigl], validation_split=0.25)
        ends.append(lth.masks_of(built))
    assert rigl.start == ends[0] != ends[1] and ends[1].remaining == 36
