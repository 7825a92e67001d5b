from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import keras_lth as lth
from keras_lth.rounds import noise_seed
from tests.callbacks.small import STEPS, X, Y, data, fit, model, unvalidated, weights
from tests.forms import short_if


def sgd() -> keras.optimizers.Optimizer:
    return keras.optimizers.SGD(0.1)


def by_hand(built: keras.Model, rounds: int, epochs: int, k: int, seed: int = 3) -> tuple[list[np.ndarray], list[int]]:
    """Algorithm 1 with rewinding to step k, in a loop of separate fits, masks by sorting; plain SGD only."""
    kernels = [v for v in built.trainable_variables if v.name == "kernel"]
    start = [v.numpy() for v in built.trainable_variables]
    order = data(seed)
    masks = [np.ones(v.shape, bool) for v in kernels]
    counts = [sum(m.size for m in masks)]
    for round in range(rounds + 1):
        for value, variable in zip(start, built.trainable_variables, strict=True):
            variable.assign(value)
        for step in range(k if round else 0, epochs * STEPS):
            if round == 0 and step == k:
                start = [v.numpy() for v in built.trainable_variables]
            batch = order.order(step // STEPS, noise_seed(seed, round))[(step % STEPS) * 16 : (step % STEPS + 1) * 16]
            for mask, kernel in zip(masks, kernels, strict=True):
                kernel.assign(np.where(mask, kernel.numpy(), 0))
            built.train_on_batch(X[batch], Y[batch])
        for mask, kernel in zip(masks, kernels, strict=True):
            kernel.assign(np.where(mask, kernel.numpy(), 0))
        if round < rounds:
            remaining = sorted(
                (abs(float(kernel.numpy().flat[i])), -layer, -i)
                for layer, (mask, kernel) in enumerate(zip(masks, kernels, strict=True))
                for i in np.flatnonzero(mask)
            )
            for _, layer, i in remaining[: int(0.2 * len(remaining) + 0.5)]:
                masks[-layer].flat[-i] = False
            counts.append(sum(int(m.sum()) for m in masks))
    return weights(built), counts


# From the initialisation in `test_compiled_otherwise_it_is_the_same`.
@pytest.mark.parametrize("k", short_if(lambda k: k == STEPS + 2, [0, 4, STEPS, STEPS + 2]))
def test_imp_is_the_algorithm(k: int) -> None:
    expected, counts = by_hand(model(sgd), rounds=3, epochs=3, k=k)
    imp = lth.IMPCallback(rounds=3, epochs_per_round=3, rewind_to=k, verbose=0)
    built = model(sgd)
    fit(built, imp, 12)
    assert [level.remaining for level in imp.history] == counts == [144, 115, 92, 74]
    for found, value in zip(weights(built), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=0, atol=2e-6)
    assert [level.steps for level in imp.history] == [18, *[18 - k] * 3]


class Watch(keras.callbacks.Callback):
    """What a neighbour sees: weights at the begin and the end of each epoch, rate and count at its first batch."""

    def __init__(self) -> None:
        super().__init__()
        self.begin: list[list[np.ndarray]] = []
        self.end: list[list[np.ndarray]] = []
        self.rates: list[float] = []
        self.counts: list[int] = []
        self.epochs: list[int] = []
        self.trainings = 0

    def on_train_begin(self, logs: Any = None) -> None:
        self.trainings += 1

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epochs.append(epoch)
        self.begin.append(weights(self.model))

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if batch == 0:
            self.rates.append(float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)))
            self.counts.append(int(self.model.optimizer.iterations.numpy()))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.end.append(weights(self.model))


def test_neighbours_see_trained_weights_then_rewound_ones() -> None:
    watch = Watch()
    imp = lth.IMPCallback(rounds=2, epochs_per_round=2, rewind_to="1 epoch", verbose=0)
    built = model()
    fit(built, imp, 6, beside=[watch])
    assert len(watch.end) == 2 + 1 + 1
    assert imp.captured is not None
    for round, epoch in ((1, 2), (2, 3)):
        masks = imp.masks(round)
        for found, (path, value) in zip(watch.begin[epoch], imp.captured.weights.items(), strict=True):
            expected = np.where(masks[path], value, 0) if path in masks else value
            assert found.tobytes() == expected.astype(found.dtype).tobytes()
    # At the end of epoch 2 the dense weights are still there: pruned by level 0's masks only.
    assert np.count_nonzero(watch.end[1][0]) + np.count_nonzero(watch.end[1][2]) == 144
    assert np.count_nonzero(watch.end[2][0]) + np.count_nonzero(watch.end[2][2]) == 115
    assert watch.counts == [0, STEPS, STEPS, STEPS]


def test_the_schedule_goes_back_with_the_weights() -> None:
    rates = [0.1, 0.01, 0.001]
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([STEPS - 1, 2 * STEPS - 1], rates)
    watch = Watch()
    imp = lth.IMPCallback(rounds=2, epochs_per_round=3, rewind_to="1 epoch", verbose=0)
    unvalidated(model(lambda: keras.optimizers.SGD(schedule, momentum=0.9)), imp, 9, beside=[watch])
    np.testing.assert_allclose(watch.rates, [0.1, 0.01, 0.001, 0.01, 0.001, 0.01, 0.001], rtol=1e-6)


def test_restart_repeats_the_whole_schedule_from_the_rewound_weights() -> None:
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([STEPS - 1], [0.1, 0.01])
    watch = Watch()
    imp = lth.IMPCallback(rounds=1, epochs_per_round=2, rewind_to="1 epoch", span="restart", verbose=0)
    unvalidated(model(lambda: keras.optimizers.SGD(schedule)), imp, 4, beside=[watch])
    np.testing.assert_allclose(watch.rates, [0.1, 0.01, 0.1, 0.01], rtol=1e-6)
    assert watch.counts == [0, STEPS, 0, STEPS]
    assert imp.captured is not None and imp.captured.step == STEPS
    kernel = imp.captured.weights["dense/kernel"]
    np.testing.assert_array_equal(watch.begin[2][0], np.where(imp.masks(1)["dense/kernel"], kernel, 0))


def test_callbacks_inside_see_the_epochs_of_each_round() -> None:
    seen: list[int] = []

    def rate(epoch: int, now: float) -> float:
        seen.append(epoch)
        return 0.1 / (epoch + 1)

    watch, inner = Watch(), Watch()
    scheduler = keras.callbacks.LearningRateScheduler(rate)
    imp = lth.IMPCallback(rounds=2, epochs_per_round=3, rewind_to="1 epoch", callbacks=[scheduler, inner], verbose=0)
    unvalidated(model(sgd), imp, 9, beside=[watch])
    assert seen == inner.epochs == [0, 1, 2, 1, 2, 1, 2]
    assert inner.trainings == 3
    np.testing.assert_allclose(watch.rates, [0.1 / (e + 1) for e in seen], rtol=1e-6)


def test_a_scheduler_outside_is_caught() -> None:
    outside = keras.callbacks.LearningRateScheduler(lambda epoch, now: 0.1 / (epoch + 1))
    imp = lth.IMPCallback(rounds=1, epochs_per_round=2, verbose=0)
    with (
        pytest.warns(UserWarning, match=r"LearningRateScheduler beside IMP"),
        pytest.raises(RuntimeError, match=r"Round 1 .*0\.0333.*had 0\.1 .*IMPCallback\(callbacks="),
    ):
        unvalidated(model(sgd), imp, 4, beside=[outside])


def test_early_stopping_inside_ends_a_round_not_the_fit() -> None:
    class StopAtSecond(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.stop_training = epoch == 1

    imp = lth.IMPCallback(rounds=2, epochs_per_round=4, callbacks=[StopAtSecond()], verbose=0)
    history = unvalidated(model(), imp, 12)
    assert len(history.epoch) == 6
    assert [level.steps for level in imp.history] == [2 * STEPS] * 3


def test_early_stopping_outside_ends_the_fit_and_keeps_the_rounds() -> None:
    class StopAt(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.stop_training = epoch == 3

    imp = lth.IMPCallback(rounds=4, epochs_per_round=2, verbose=0)
    unvalidated(model(), imp, 10, beside=[StopAt()])
    assert [level.round for level in imp.history] == [0, 1]
    assert imp.ticket(round=2).masks.remaining == 92


def test_trained_weights_are_kept_by_learning_rate_rewinding() -> None:
    watch = Watch()
    imp = lth.IMPCallback(rounds=1, epochs_per_round=2, keep="trained", verbose=0)
    unvalidated(model(sgd), imp, 4, beside=[watch])
    kept = np.where(imp.masks(1)["dense/kernel"], watch.end[1][0], 0)
    np.testing.assert_array_equal(watch.begin[2][0], kept)
    assert watch.counts == [0, STEPS, 0, STEPS]
    np.testing.assert_array_equal(imp.ticket(round=1).snapshot.weights["dense/kernel"], watch.end[1][0])


# By XLA also in test_imp_modes.py.
@pytest.mark.parametrize(
    ("options", "k"),
    short_if(
        lambda options, k: "run_eagerly" in options and k == 0,
        [({"jit_compile": True, "steps_per_execution": 3}, 3), ({"run_eagerly": True}, 3), ({"run_eagerly": True}, 0)],
    ),
)
def test_compiled_otherwise_it_is_the_same(options: dict[str, Any], k: int) -> None:
    expected, counts = by_hand(model(sgd), rounds=2, epochs=2, k=k)
    imp = lth.IMPCallback(rounds=2, epochs_per_round=2, rewind_to=k, verbose=0)
    built = model(sgd, **options)
    unvalidated(built, imp, 6)
    assert [level.remaining for level in imp.history] == counts
    for found, value in zip(weights(built), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=0, atol=5e-6)


def test_each_round_has_dropout_noise_of_its_own() -> None:
    class Seeds(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[tuple[int, ...]] = []

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            if batch == 0:
                state = self.model.layers[1].seed_generator.state
                self.seen.append(tuple(state.numpy().tolist()))

    seeds = Seeds()
    imp = lth.IMPCallback(rounds=2, epochs_per_round=1, verbose=0)
    unvalidated(model("adam", 0, keras.layers.Dropout(0.5, seed=7)), imp, 3, beside=[seeds])
    assert len(set(seeds.seen)) == 3
    assert seeds.seen[0][0] == 7
