"""Gradual pruning: counts at each step, any fit, any structure, resuming, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lth as lth
from keras_lth import surgery
from keras_lth.arguments import round_half_up
from keras_lth.schedules import Constant, OneShot, Periodic, Polynomial
from keras_lth.structures import Structured
from tests.callbacks import moving, small

RAMP = Polynomial(1.0, 0.1, begin=2, end=14, every=3)
SIZES = {"dense/kernel": 96, "dense_1/kernel": 48}


@pytest.mark.parametrize("options", [{"scope": "layer"}, {"structure": (2, 2)}, {"criterion": "random"}])
def test_exactly_k_at_every_step_of_the_schedule(options: dict[str, Any]) -> None:
    watch, unit = moving.Watch(), Structured(options.get("structure"))
    moving.loop(lth.GradualPruning(RAMP, verbose=0, **options), watch)
    whole = sum(unit.count(mask) for mask in lth.Masks.ones(watch.masks[1]).values())
    before = lth.Masks.ones(watch.masks[1])
    for step, masks in watch.masks.items():
        due = max((s for s in (2, 5, 8, 11, 14) if s <= step), default=None)
        if options.get("scope") == "layer":
            for mask in masks.values():
                assert mask.sum() == (mask.size if due is None else round_half_up(RAMP(due), mask.size))
        else:
            found = sum(unit.count(mask) for mask in masks.values())
            assert found == (whole if due is None else round_half_up(RAMP(due), whole))
        assert (masks & ~before).remaining == 0
        before = masks


def test_the_lowest_magnitudes_of_that_step_go() -> None:
    """One change at step 7: the weights that remain are the largest of a dense training's after seven steps."""
    built, dense = small.model(), small.model()
    moving.loop(lth.GradualPruning(OneShot(0.25, at=7), verbose=0), model=built)
    state = lth.training.train(dense, small.data(), to=7, jit_compile=False)
    largest = np.sort(np.concatenate([np.abs(state.weights[path]).ravel() for path in SIZES]))[-36:]
    kept = np.concatenate([np.abs(state.weights[path])[mask] for path, mask in lth.masks_of(built).items()])
    np.testing.assert_array_equal(np.sort(kept), largest)


def test_fit_and_loop_agree() -> None:
    one, other = (run(lth.GradualPruning(RAMP, verbose=0)) for run in (moving.fit, moving.loop))
    assert lth.masks_of(one) == lth.masks_of(other)
    for a, b in zip(moving.weights(one), moving.weights(other), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_fit_prunes_at_the_next_step_that_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    watch = moving.Watch()
    moving.fit(lth.GradualPruning(RAMP), watch, model=small.model(steps_per_execution=4))
    # Six steps an epoch: visible are 4, 6, 10, 12, 16, 18; due are 2, 5, 8, 11, 14.
    found = [masks.remaining for _, masks in sorted(watch.masks.items())]
    assert found == [round_half_up(RAMP(s), 144) for s in (2, 5, 8, 11, 14, 14)]
    said = capsys.readouterr().out
    assert "steps_per_execution=4" in said and "2, 5" in said and "4, 6" in said
    assert "4 changes" in said and "14 of 144" in said


def test_masks_stay_and_slots_are_fresh_after_fit() -> None:
    built = moving.loop(lth.GradualPruning(RAMP, verbose=0))
    masks, state = lth.masks_of(built), surgery.snapshot(built)
    for name, slot in state.optimizer.items():
        for path, mask in masks.items():
            if name.endswith(path):
                assert not slot[~mask].any() and slot[mask].any()
    built.fit(small.X, small.Y, verbose=0)
    assert lth.masks_of(built) == masks and built.get_weights()[0][~masks["dense/kernel"]].any() == 0


def test_killed_inside_and_resumed(tmp_path: Path) -> None:
    moving.killed_is_whole(lambda: lth.GradualPruning(RAMP, verbose=0), tmp_path, 9)


def test_sparse_layers_follow() -> None:
    built = small.model()
    lth.mask(built, lth.select(lth.criteria.Magnitude()(built), density=0.9))
    lth.sparsify(built, only_if_faster=False)
    moving.loop(lth.GradualPruning(Polynomial(0.9, 0.1, begin=2, end=14, every=3), verbose=0), model=built)
    assert lth.masks_of(built).remaining == 14
    assert int(np.prod(built.layers[0].trainable_weights[0].shape)) < 96
    lth.densify(built)
    assert sum(np.count_nonzero(built.get_weights()[i]) for i in (0, 2)) == 14


def test_n_of_m_is_reached_one_by_one() -> None:
    watch = moving.Watch()
    moving.loop(lth.GradualPruning(Polynomial(1.0, 0.5, 0, 12, power=1, every=4), structure="2:4", verbose=0), watch)
    # ⌈4 · d⌉ of four at d = 1, 0.83, 0.67, 0.5.
    assert [watch.masks[step].remaining / 144 for step in (1, 4, 8, 12)] == [1, 1, 0.75, 0.5]


def test_dense_phases_bring_weights_back() -> None:
    watch = moving.Watch()
    moving.loop(lth.GradualPruning(Periodic(0.25, every=4, begin=2, end=12), verbose=0), watch)
    remaining = [watch.masks[step].remaining for step in range(1, 19)]
    assert remaining == [144] + [36] * 4 + [144] * 4 + [36] * 9


def test_a_masked_model_is_pruned_further() -> None:
    built = small.model()
    first = lth.select(lth.criteria.Random(0)(built), density=0.5)
    lth.mask(built, first)
    watch = moving.Watch()
    moving.loop(lth.GradualPruning(RAMP, verbose=0), watch, model=built)
    assert watch.masks[1] == first and watch.masks[18].remaining == 14
    assert (watch.masks[18] & ~first).remaining == 0


def test_fit_twice_keeps_what_is_pruned() -> None:
    built, ramp = small.model(), lth.GradualPruning(RAMP, verbose=0)
    moving.fit(ramp, model=built)
    masks = lth.masks_of(built)
    moving.fit(ramp, model=built)
    assert lth.masks_of(built) == masks and ramp.changes == 0
    with pytest.raises(ValueError, match=r"already has a density of 0.097.*ends at 0.5"):
        moving.fit(lth.GradualPruning(OneShot(0.5), verbose=0), model=built)


@pytest.mark.parametrize(
    ("schedule", "options", "match"),
    [
        (Polynomial(1.0, 0.1, begin=2, end=20), {}, "step 20.*18"),
        (OneShot(0.1, at="4 epochs"), {}, "step 24.*18"),
        (Constant(1.0), {}, "density of 1.*ends at 1.*lower"),
        (OneShot(1e-4), {}, "leaves none of 144.*0.0069"),
        (OneShot(0.3), {"structure": "2:4"}, "0.5.*0.3"),
        (OneShot(0.3), {"scope": "all"}, "all"),
    ],
)
def test_schedules_that_do_not_fit_are_refused(schedule: Any, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        moving.loop(lth.GradualPruning(schedule, **options))


def test_neighbours_that_move_masks_are_refused() -> None:
    two = [lth.GradualPruning(RAMP, verbose=0) for _ in range(2)]
    for run in (moving.fit, moving.loop):
        with pytest.raises(ValueError, match=r"both change masks.*remove one"):
            run(*two)
    imp = lth.IMPCallback(rounds=1, epochs_per_round=1, callbacks=[two[0]], verbose=0)
    with pytest.raises(ValueError, match=r"IMPCallback.*both change masks"):
        moving.fit(imp)


def test_masks_that_something_else_changes_are_an_error() -> None:
    def change(batch: int, logs: Any) -> None:
        if batch == 3:
            lth.mask(built, lth.select(lth.criteria.Random(0)(built), density=0.5))

    built = small.model()
    with pytest.raises(RuntimeError, match=r"changed by something else.*one callback"):
        moving.fit(
            lth.GradualPruning(RAMP, verbose=0), keras.callbacks.LambdaCallback(on_train_batch_end=change), model=built
        )


def test_an_unknown_number_of_batches() -> None:
    def batches() -> Any:
        while True:
            yield small.X[:16], small.Y[:16]

    spec = (tf.TensorSpec((16, 8)), tf.TensorSpec((16,), tf.int32))
    endless = tf.data.Dataset.from_generator(batches, output_signature=spec).take(6)
    built = small.model()
    built.fit(endless, epochs=2, verbose=0, callbacks=[lth.GradualPruning(OneShot(0.5, at=9), verbose=0)])
    assert lth.masks_of(built).remaining == 72
    with pytest.raises(ValueError, match="steps_per_epoch"):
        built.fit(endless, epochs=2, verbose=0, callbacks=[lth.GradualPruning(OneShot(0.2, at="50%"), verbose=0)])
    with pytest.warns(UserWarning, match="ended at step 6, before"):
        built.fit(endless, epochs=1, verbose=0, callbacks=[lth.GradualPruning(OneShot(0.2, at=90), verbose=0)])


def test_an_early_bird_prunes_once_when_its_masks_have_settled(tmp_path: Path) -> None:
    watch = moving.Watch()
    bird = lth.EarlyBird(0.5, tolerance=0.5, window=2, every=4, verbose=0)
    built = moving.loop(bird, watch, model=small.model("sgd"))
    # Masks at steps 4 and 8 hardly differ under this rate: pruned at 8, and never again.
    assert bird.settled == 8 and bird.distance() < 0.5
    assert watch.masks[7].remaining == 144 and watch.masks[8] == lth.masks_of(built)
    units = Structured("output")
    assert sum(units.count(mask) for mask in watch.masks[8].values()) == 8  # of 12 + 4
    never = lth.EarlyBird(0.5, tolerance=1e-9, window=2, every=6, verbose=0, criterion=lambda model: next(noisy))
    noisy = ({p: np.random.default_rng(n).random(s) for p, s in SHAPES.items()} for n in range(9))
    with pytest.warns(UserWarning, match=r"pruned nothing.*differ.*Train longer"):
        moving.loop(never)
    moving.killed_is_whole(lambda: lth.EarlyBird(0.5, tolerance=0.5, window=2, every=5, verbose=0), tmp_path, 9)


SHAPES = {"dense/kernel": (8, 12), "dense_1/kernel": (12, 4)}
