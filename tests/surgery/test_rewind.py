"""rewind_is_rewind, and snapshots."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from keras_lth import Snapshot, surgery

X = np.random.default_rng(0).normal(size=(48, 5)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 3, 48)
BATCH = 8  # six steps an epoch


def network(optimizer: Any, dropout: float = 0.0, **options: Any) -> keras.Model:
    keras.utils.set_random_seed(7)
    model = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(9, activation="relu"),
            keras.layers.BatchNormalization(momentum=0.5),
            keras.layers.Dropout(dropout, seed=3),
            keras.layers.Dense(3),
        ]
    )
    if optimizer is not None:
        model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), **options)
    return model


def train(model: keras.Model, epochs: int = 1, **options: Any) -> None:
    model.fit(X, Y, batch_size=BATCH, epochs=epochs, shuffle=False, verbose=0, **options)


def some_masks(model: keras.Model, density: float = 0.5) -> dict[str, np.ndarray]:
    random = np.random.default_rng(5)
    return {path: random.random(tuple(v.shape)) < density for path, v in surgery.prunable(model).items()}


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
MODES: dict[str, dict[str, Any]] = {
    "graph": {},
    "eager": {"run_eagerly": True},
    "jit": {"jit_compile": True},
    "spe": {"steps_per_execution": 3},
}


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A rate that differs at every step; ``shift`` moves it."""

    def __init__(self, shift: int = 0) -> None:
        self.shift = shift

    def __call__(self, step: Any) -> Any:
        return 0.02 / (1.0 + 0.1 * keras.ops.cast(step + self.shift, "float32"))

    def get_config(self) -> dict[str, int]:
        return {"shift": self.shift}


@pytest.mark.parametrize("name", OPTIMIZERS)
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
    [*((name, "graph") for name in OPTIMIZERS), ("adam", "eager"), ("adam", "jit"), ("adam", "spe"), ("nadam", "spe")],
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


def test_every_variable_is_the_snapshots_except_pruned_weights() -> None:
    model = network(keras.optimizers.Adam(0.01), dropout=0.5)
    surgery.mask(model, some_masks(model))
    start = surgery.snapshot(model)
    dense = {path: value + 1 for path, value in start.weights.items()}
    train(model, 2)
    surgery.rewind(model, Snapshot(weights=dense, optimizer=start.optimizer, step=0, seeds=start.seeds))
    now = surgery.snapshot(model)
    masks = surgery.masks_of(model)
    for path, value in dense.items():
        expected = np.where(masks[path], value, 0) if path in masks else value
        assert expected.astype(np.float32).tobytes() == now.weights[path].tobytes(), path
    assert now.seeds["dropout/seed_generator_state"].tolist() == start.seeds["dropout/seed_generator_state"].tolist()
    assert all(np.all(value == 0) for key, value in now.optimizer.items() if "/dense" in key)
    train(model)
    state = surgery.snapshot(model)
    surgery.rewind(model, start, seeds=False)
    assert surgery.snapshot(model).seeds["dropout/seed_generator_state"].tolist() != [3, 0]
    assert state.step == 6


def test_learning_rate_variable_and_loss_scale_go_back() -> None:
    model = network(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1, momentum=0.9), initial_scale=64.0))
    start = surgery.snapshot(model)
    train(model)
    model.optimizer.learning_rate = 0.003
    model.optimizer.dynamic_scale.assign(2.0)
    model.optimizer.step_counter.assign(5)
    surgery.rewind(model, start)
    assert float(model.optimizer.inner_optimizer._learning_rate.numpy()) == np.float32(0.1)
    assert float(model.optimizer.dynamic_scale.numpy()) == 64.0
    assert int(model.optimizer.step_counter.numpy()) == 0
    assert int(model.optimizer.iterations.numpy()) == 0
    train(model)
    later = surgery.snapshot(model)
    train(model)
    surgery.rewind(model, later, restore_optimizer=True)
    assert surgery.snapshot(model).differences(later) == []


@pytest.mark.parametrize("restore", [False, True])
def test_averages_take_the_rewound_weights(restore: bool) -> None:
    model = network(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9))
    surgery.mask(model, some_masks(model))
    model.train_on_batch(X, Y)
    at_k = surgery.snapshot(model)
    for _ in range(3):
        model.train_on_batch(X, Y)
    surgery.rewind(model, at_k, restore_optimizer=restore)
    averages = model.optimizer._model_variables_moving_average
    if restore:
        assert surgery.snapshot(model).differences(at_k) == []
    else:
        for average, weight in zip(averages, model.trainable_variables, strict=True):
            assert average.numpy().tobytes() == weight.numpy().tobytes()


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


@pytest.mark.parametrize("restore", [False, True])
@pytest.mark.parametrize("mode", MODES)
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


def test_a_foreign_snapshot_is_refused_and_nothing_is_assigned() -> None:
    model = network(keras.optimizers.Adam(0.01))
    train(model)
    before = surgery.snapshot(model)
    weights = dict(before.weights)
    weights["dense_1/kernel"] = np.zeros((9, 4), np.float32)
    with pytest.raises(ValueError, match="dense_1/kernel"):
        surgery.rewind(model, Snapshot(weights=weights, step=0))
    del weights["dense_1/kernel"]
    with pytest.raises(ValueError, match="dense_1/kernel"):
        surgery.rewind(model, Snapshot(weights=weights, step=0))
    with pytest.raises(ValueError, match="optimizer"):
        sgd = network(keras.optimizers.SGD(0.01, momentum=0.9))
        train(sgd)
        surgery.rewind(model, surgery.snapshot(sgd), restore_optimizer=True)
    with pytest.raises(ValueError, match="step"):
        surgery.rewind(model, before, step=-1)
    assert surgery.snapshot(model).differences(before) == []


def test_a_snapshot_fits_a_second_instance_and_an_uncompiled_model() -> None:
    first = network(keras.optimizers.Adam(0.01), dropout=0.1)
    train(first)
    taken = surgery.snapshot(first)
    second = network(keras.optimizers.Adam(0.01), dropout=0.1)
    surgery.rewind(second, taken, restore_optimizer=True)
    assert surgery.snapshot(second).differences(taken) == []
    plain = network(None, dropout=0.1)
    assert dict(surgery.snapshot(plain).optimizer) == {}
    surgery.rewind(plain, taken)
    assert surgery.snapshot(plain).weights["dense/kernel"].tobytes() == taken.weights["dense/kernel"].tobytes()


def test_snapshot_is_a_copy() -> None:
    model = network(keras.optimizers.Adam(0.01))
    taken = surgery.snapshot(model)
    before = taken.weights["dense/kernel"].copy()
    train(model)
    assert taken.weights["dense/kernel"].tobytes() == before.tobytes()
    assert list(taken.optimizer) == ["000/iteration", "001/learning_rate"]
