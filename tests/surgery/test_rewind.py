"""rewind_is_rewind."""

from __future__ import annotations

import itertools
from typing import Any

import keras
import numpy as np
import pytest

from keras_lth import surgery
from tests.forms import short_if
from tests.surgery.rewinding import BATCH, MODES, X, Y, network, some_masks, train

OPTIMIZERS = {
    "sgd": lambda rate: keras.optimizers.SGD(rate, momentum=0.9),
    "adam": lambda rate: keras.optimizers.Adam(rate),
    "amsgrad": lambda rate: keras.optimizers.Adam(rate, amsgrad=True),
    "adamw": lambda rate: keras.optimizers.AdamW(rate),
    "nadam": lambda rate: keras.optimizers.Nadam(rate),
    "adamax": lambda rate: keras.optimizers.Adamax(rate),
    "lamb": lambda rate: keras.optimizers.Lamb(rate),
    "adagrad": lambda rate: keras.optimizers.Adagrad(rate),
}
if hasattr(keras.optimizers, "ScheduleFreeAdamW"):  # newer than the oldest Keras supported
    OPTIMIZERS["schedule_free"] = lambda rate: keras.optimizers.ScheduleFreeAdamW(rate)


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A rate that differs at every step; ``shift`` moves it."""

    def __init__(self, shift: int = 0) -> None:
        self.shift = shift

    def __call__(self, step: Any) -> Any:
        return 0.02 / (1.0 + 0.1 * keras.ops.cast(step + self.shift, "float32"))

    def get_config(self) -> dict[str, int]:
        return {"shift": self.shift}


# In every run one whose slots begin at 0 and one whose do not; each of them eagerly in test_rewind_optimizers.
@pytest.mark.parametrize("name", short_if(lambda name: name in ("adam", "adagrad"), OPTIMIZERS))
def test_full_mask_and_restored_slots_reproduce_the_dense_run_bit_by_bit(name: str) -> None:
    model = network(OPTIMIZERS[name](Schedule()), dropout=0.3)
    train(model)
    at_k = surgery.snapshot(model)
    train(model, 2)
    end = surgery.snapshot(model)

    full = {path: np.ones(tuple(v.shape), bool) for path, v in surgery.prunable(model).items()}
    surgery.rewind(model, at_k, full, restore_optimizer=True)
    assert surgery.snapshot(model).differences(at_k) == []
    train(model, 2)
    assert surgery.snapshot(model).differences(end) == []


@pytest.mark.parametrize(
    ("name", "mode"),
    # In every run each mode; rules without a correction, with that of all, and those that count by themselves.
    short_if(
        lambda name, mode: (
            (name, mode) in (("adam", "jit"), ("nadam", "spe"))
            or (mode == "eager" and name in ("sgd", "schedule_free"))
        ),
        [*itertools.product(OPTIMIZERS, ("graph", "eager")), *itertools.product(("adam", "nadam"), ("jit", "spe"))],
    ),
)
def test_rewound_run_is_a_fresh_optimizer_with_the_schedule_shifted(name: str, mode: str) -> None:
    """Slots of 0 at iteration k = 6: the trajectory is that of a new optimizer at step 0, schedule k steps further."""
    model = network(OPTIMIZERS[name](Schedule()), **MODES[mode])
    train(model)
    at_k = surgery.snapshot(model)
    train(model, 2)
    masks = some_masks(model)
    surgery.rewind(model, at_k, masks)
    assert int(model.optimizer.iterations.numpy()) == 6
    train(model)

    fresh = network(OPTIMIZERS[name](Schedule(shift=6)), **MODES[mode])
    fresh.set_weights(list(at_k.weights.values()))
    surgery.mask(fresh, masks)
    # Built here and not in the first step: Keras' ScheduleFreeAdamW loses its first copy of the weights in a graph.
    fresh.optimizer.build(fresh.trainable_variables)
    train(fresh)
    for path, variable in surgery.variables(fresh).items():
        np.testing.assert_allclose(
            surgery.variables(model)[path].numpy(), variable.numpy(), rtol=0, atol=1e-6, err_msg=path
        )
    assert int(model.optimizer.iterations.numpy()) == 12


def test_without_the_restart_adam_would_differ() -> None:
    """The property above is not vacuous: at k = 500 the first update of a naive rewind is 3.2 times the rate."""
    model = network(keras.optimizers.Adam(0.01))
    train(model)
    surgery.rewind(model, surgery.snapshot(model), step=500)
    kernel = surgery.variables(model)["dense/kernel"]
    before = kernel.numpy()
    model.train_on_batch(X[:BATCH], Y[:BATCH])
    moved = np.abs(kernel.numpy() - before).max()
    # A fresh Adam's first update is the rate, where the gradient is not 0.
    np.testing.assert_allclose(moved, 0.01, rtol=1e-3)
    for slot in model.optimizer._momentums + model.optimizer._velocities:
        slot.assign(np.zeros(slot.shape, np.float32))
    model.optimizer.iterations.assign(500)
    surgery.correction.restart(model.optimizer, 0)
    before = kernel.numpy()
    model.train_on_batch(X[:BATCH], Y[:BATCH])
    naive = 0.01 * np.sqrt(1 - 0.999**501) * 0.1 / np.sqrt(0.001)
    np.testing.assert_allclose(np.abs(kernel.numpy() - before).max(), naive, rtol=1e-3)


def test_a_second_rewind_needs_no_new_trace_and_a_full_restore_ends_the_offset() -> None:
    model = network(keras.optimizers.Adam(0.01))
    train(model)
    at_k = surgery.snapshot(model)
    train(model)
    surgery.rewind(model, at_k)
    train(model)
    once = surgery.snapshot(model)
    function = model.train_function
    surgery.rewind(model, at_k)
    train(model)
    assert model.train_function is function
    assert surgery.snapshot(model).differences(once) == []
    assert surgery.correction.offset_of(model.optimizer) == 6
    surgery.rewind(model, at_k, restore_optimizer=True)
    assert surgery.correction.offset_of(model.optimizer) == 0
    # A snapshot of young slots remembers when they began.
    surgery.rewind(model, once, restore_optimizer=True)
    assert surgery.correction.offset_of(model.optimizer) == 6
    assert surgery.snapshot(model).differences(once) == []
    # A recompiled optimizer starts without one.
    model.compile(keras.optimizers.Adam(0.01), model.loss)
    assert surgery.correction.offset_of(model.optimizer) == 0


def test_rewinding_clears_half_filled_accumulators_and_counts_updates_from_the_rewind() -> None:
    """k = 5 with 4 batches an update: the first update after the rewind, at batch 7, is corrected as a first update."""
    model = network(keras.optimizers.Adam(0.01, gradient_accumulation_steps=4))
    for _ in range(5):
        model.train_on_batch(X[:BATCH], Y[:BATCH])
    at_k = surgery.snapshot(model)
    assert at_k.step == 5
    model.train_on_batch(X[:BATCH], Y[:BATCH])
    surgery.rewind(model, at_k)
    assert all(np.all(g.numpy() == 0) for g in model.optimizer._accumulated_gradients)
    kernel = surgery.variables(model)["dense/kernel"]
    before = kernel.numpy()
    moved = []
    for _ in range(3):
        model.train_on_batch(X[:BATCH], Y[:BATCH])
        moved.append(float(np.abs(kernel.numpy() - before).max()))
    assert moved[:2] == [0.0, 0.0]
    np.testing.assert_allclose(moved[2], 0.01, rtol=1e-3)


class RewindAtEpoch(keras.callbacks.Callback):
    def __init__(self, at: int, masks: dict[str, np.ndarray], restore: bool) -> None:
        super().__init__()
        self.at, self.masks, self.restore = at, masks, restore

    def on_train_begin(self, logs: Any = None) -> None:
        self.start = surgery.snapshot(self.model)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == self.at:
            surgery.rewind(self.model, self.start, self.masks, restore_optimizer=self.restore)


@pytest.mark.parametrize(
    ("mode", "restore"),
    short_if(lambda *cell: cell in (("graph", False), ("spe", True)), itertools.product(MODES, [False, True])),
)
def test_inside_fit_equals_outside(mode: str, restore: bool) -> None:
    inside = network(keras.optimizers.Adam(0.01), dropout=0.2, **MODES[mode])
    masks = some_masks(inside)
    train(inside, 2, callbacks=[RewindAtEpoch(1, masks, restore)])
    outside = network(keras.optimizers.Adam(0.01), dropout=0.2, **MODES[mode])
    surgery.mask(outside, masks)
    train(outside)
    assert surgery.snapshot(inside).same_bits(surgery.snapshot(outside))
    for path, kept in masks.items():
        assert np.count_nonzero(surgery.variables(inside)[path].numpy()[~kept]) == 0
