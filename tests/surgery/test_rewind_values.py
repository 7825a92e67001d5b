"""Which values a rewind puts back, and snapshots."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_lth import Snapshot, surgery
from tests.surgery.rewinding import X, Y, network, some_masks, train


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
