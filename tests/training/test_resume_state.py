"""A run that was stopped and resumed ends as one that never was, whatever the model trains with and holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lth as lth
from keras_lth import surgery
from tests.forms import short_if
from tests.surgery.test_rewind_optimizers import HOLDERS, made, multi
from tests.surgery.test_rewind_optimizers import X as X_PAIR
from tests.surgery.test_rewind_optimizers import Y as Y_PAIR

X = np.random.default_rng(0).normal(size=(32, 5, 3)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(32, 2)).astype(np.float32)


def same_ends(make: Callable[[], keras.Model], x: Any, y: Any, folder: Path, jit: bool | None = False) -> lth.Snapshot:
    """Two epochs in the loop, at once and in two processes' worth of models; the end is returned."""
    ends = []
    for name, stops in (("whole", (2,)), ("stopped", (1, 2))):
        for epochs in stops:
            model = make()
            data = lth.datasets.ordered(x, y, batch_size=8, seed=1)
            lth.training.fit(model, data, epochs=epochs, checkpoints=folder / name, jit_compile=jit)
        ends.append(surgery.snapshot(model))
    assert ends[1].differences(ends[0]) == []
    return ends[0]


@pytest.mark.parametrize("holder", short_if(lambda holder: holder == "delegates", HOLDERS))
def test_optimizers_that_are_not_the_models_own(holder: str, tmp_path: Path) -> None:
    end = same_ends(lambda: made(holder), X_PAIR, Y_PAIR, tmp_path)
    assert end.step == 8 and len(end.slots) >= 6  # Adam's two slots and momentum, for a kernel and a bias each


@pytest.mark.parametrize(
    ("holder", "restore"),
    short_if(lambda holder, _: holder == "attributes", [("attributes", True), ("layers", False), ("delegates", True)]),
)
def test_imp_goes_on_in_a_new_process(holder: str, restore: bool, tmp_path: Path) -> None:
    """Killed in round 1; levels and ends are those of a run that was not. A finished run loads without slots."""

    class Killed(Exception):
        pass

    def strike(epoch: int, logs: Any) -> None:
        if epoch == 3:
            raise Killed

    ends = []
    for name, strikes in (("whole", (False,)), ("killed", (True, False, False))):
        for killed in strikes:
            model = made(holder)
            imp = lth.IMPCallback(
                rounds=2, epochs_per_round=2, rewind_to="2 steps", restore_optimizer=restore, directory=tmp_path / name,
                verbose=0,
            )  # fmt: skip
            data = lth.datasets.ordered(X_PAIR, Y_PAIR, batch_size=8, seed=1)
            callbacks = [imp, *([keras.callbacks.LambdaCallback(on_epoch_end=strike)] if killed else [])]
            try:
                model.fit(data, epochs=6, verbose=0, callbacks=callbacks)
            except Killed:
                assert killed
            if not killed:
                masks = [imp.masks(level) for level in range(3)]
                ends.append((surgery.snapshot(model), masks, imp.ticket(2).snapshot))
    (a, masks, start), (b, again, restart), (c, loaded, also) = ends
    assert b.differences(a) == [] and again == masks and restart.differences(start) == []
    assert replace(c, optimizer={}).differences(replace(a, optimizer={})) == []
    assert loaded == masks and also.differences(start) == []
    assert start.has_slots == restore


def recurrent(layer: Callable[[], Any], shape: tuple[int, ...]) -> Callable[[], keras.Model]:
    def make() -> keras.Model:
        keras.utils.set_random_seed(1)
        model = keras.Sequential([
            keras.Input(batch_shape=(8, *shape)), layer(), keras.layers.Flatten(), keras.layers.Dense(2)
        ])  # fmt: skip
        model.compile("adam", "mse")
        return model

    return make


class Counting(keras.Model):
    """State in every form that is not a weight of Keras'."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(2)
        self.steps = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.held = {"scale": [keras.Variable(1.0, trainable=False)]}
        self.noise = keras.random.SeedGenerator(3)
        self.noises = [{"a": keras.random.SeedGenerator(4)}]
        self.generator = tf.random.Generator.from_seed(5)
        self.plain = Plain()

    def call(self, x: Any) -> Any:
        return self.dense(keras.ops.reshape(x, (-1, 15)))

    def train_step(self, data: Any) -> Any:
        x = data[0] * self.held["scale"][0] / (1.0 + 0.01 * tf.cast(self.steps, tf.float32))
        for seed in (self.noise, self.noises[0]["a"], self.plain.seed):
            x += 0.1 * keras.random.normal(tf.shape(x), seed=seed)
        x += 0.1 * self.generator.normal(tf.shape(x)) + self.plain.shift
        self.steps.assign_add(1)
        self.held["scale"][0].assign_add(0.1)
        self.plain.shift.assign_add(0.01)
        return super().train_step((x, data[1]))


class Plain:
    """An object that Keras does not look into."""

    def __init__(self) -> None:
        self.shift, self.seed = tf.Variable(0.0), keras.random.SeedGenerator(6)


def counting() -> keras.Model:
    keras.utils.set_random_seed(1)
    model = Counting()
    model.compile("sgd", "mse")
    model(X[:1])
    return model


MODELS: dict[str, tuple[Callable[[], keras.Model], tuple[int, ...]]] = {
    "GRU": (recurrent(lambda: keras.layers.GRU(4, stateful=True), (5, 3)), (5, 3)),
    "LSTM": (recurrent(lambda: keras.layers.LSTM(4, stateful=True, dropout=0.2, seed=1), (5, 3)), (5, 3)),
    "Bidirectional": (
        recurrent(lambda: keras.layers.Bidirectional(keras.layers.SimpleRNN(3, stateful=True)), (5, 3)),
        (5, 3),
    ),
    "stacked": (
        recurrent(
            lambda: keras.layers.RNN([keras.layers.SimpleRNNCell(3), keras.layers.LSTMCell(4)], stateful=True), (5, 3)
        ),
        (5, 3),
    ),
    "ConvLSTM": (recurrent(lambda: keras.layers.ConvLSTM1D(2, 2, stateful=True), (5, 3, 1)), (5, 3, 1)),
    "own": (counting, (5, 3)),
}


@pytest.mark.parametrize("name", short_if(lambda name: name in ("stacked", "own"), MODELS))
def test_state_that_is_no_weight(name: str, tmp_path: Path) -> None:
    make, shape = MODELS[name]
    # With XLA where the loop chooses it; what it does not concern takes seconds to compile.
    end = same_ends(make, X.reshape(32, *shape), Y, tmp_path, jit=False if name == "stacked" else None)
    again = make()
    start = surgery.snapshot(again)
    changed = [key for key in start.state if not np.array_equal(start.state[key], end.state[key])]
    assert changed == list(start.state) != []
    surgery.rewind(again, end, restore_optimizer=True)
    assert surgery.snapshot(again).differences(end) == []
    end.save(tmp_path / "end")
    assert lth.Snapshot.load(tmp_path / "end").differences(end) == []
    surgery.rewind(again, start)
    assert surgery.snapshot(again).state.keys() == start.state.keys()
    assert [
        key for key in start.state if not np.array_equal(surgery.snapshot(again).state[key], start.state[key])
    ] == []


def test_own_state_is_found_by_name() -> None:
    found = surgery.snapshot(counting())
    assert set(found.state) == {"steps", "plain/shift"}
    assert {"generator/generator_state", "plain/seed/seed_generator_state"} <= set(found.seeds)
    assert len(found.seeds) == 4 and len(found.weights) == 3


def test_a_new_round_has_new_noise_of_every_generator() -> None:
    model = counting()
    before = surgery.snapshot(model)
    imp = lth.IMPCallback(rounds=1, epochs_per_round=1, verbose=0)
    seen = []
    look = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: seen.append(surgery.snapshot(model)))
    model.fit(lth.datasets.ordered(X, Y, batch_size=8, seed=1), epochs=2, verbose=0, callbacks=[imp, look])
    assert dict(seen[0].state) == dict(seen[4].state) == dict(before.state)
    assert all(not np.array_equal(value, seen[4].seeds[path]) for path, value in seen[0].seeds.items())


def test_state_that_cannot_be_kept_or_does_not_fit_is_refused_by_name() -> None:
    model = counting()
    taken = surgery.snapshot(model)
    model.feed = iter(tf.data.Dataset.range(3))
    with pytest.raises(ValueError, match=r"feed is an iterator.*outside of the model"):
        surgery.snapshot(model)
    model.feed = [tf.lookup.experimental.MutableHashTable(tf.int64, tf.int64, 0)]
    with pytest.raises(ValueError, match=r"feed/0 is a MutableHashTable.*outside of the model"):
        surgery.rewind(model, taken)
    model.feed = None
    model.steps = None
    with pytest.raises(ValueError, match=r"\['steps'\].*when the model is created"):
        surgery.rewind(model, taken)
    model.steps, model.more = tf.Variable(0, dtype=tf.int64), tf.Variable(1.0)
    with pytest.warns(UserWarning, match=r"\['more'\]: they stay"):
        surgery.rewind(model, taken)


def test_building_is_that_of_fit() -> None:
    """Losses over pairs and batches of a fixed size; a build changes no statistic, seed or weight."""

    def pairs(y: Any, p: Any) -> Any:
        a, b = keras.ops.split(p, 2, axis=0)
        return keras.ops.mean((a - b) ** 2)

    ends, test = [], (X[:22, 1], Y[:22])
    for loop in (False, True):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([
            keras.Input((3,)), keras.layers.Dense(4), keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5, seed=1), keras.layers.Dense(2),
        ])  # fmt: skip
        model.compile("sgd", pairs, metrics=[keras.metrics.MeanMetricWrapper(pairs, name="pairs")])
        data = lth.datasets.ordered(X[:22, 0], Y[:22], batch_size=8, seed=1)  # the last batch has 6
        before = surgery.snapshot(model)
        if loop:
            lth.training.Loop(model, data)
            assert surgery.snapshot(model).differences(before) == []
            # With XLA dropout draws other numbers than without.
            history = lth.training.fit(model, data, epochs=2, validation_data=test, jit_compile=False)
        else:
            history = model.fit(data, epochs=2, verbose=0, validation_data=test, validation_batch_size=8)
        ends.append((surgery.snapshot(model), history.history))
    (a, logs), (b, logs_of_loop) = ends
    for path, value in a.weights.items():
        np.testing.assert_allclose(value, b.weights[path], atol=1e-6, err_msg=path)
    for name, values in logs.items():
        np.testing.assert_allclose(values, logs_of_loop[name], rtol=1e-4, err_msg=name)


def test_a_fixed_batch_trains_and_evaluates() -> None:
    make = recurrent(lambda: keras.layers.SimpleRNN(4, stateful=True), (5, 3))
    ends = []
    for loop in (False, True):
        model, data = make(), lth.datasets.ordered(X, Y, batch_size=8, seed=1)
        if loop:
            lth.training.fit(model, data, epochs=2, validation_data=(X, Y), jit_compile=False)
            numbers = lth.training.evaluate(model, (X, Y))
        else:
            model.fit(data, epochs=2, verbose=0, validation_data=(X, Y), validation_batch_size=8)
            numbers = model.evaluate(X, Y, batch_size=8, verbose=0, return_dict=True)
        ends.append((surgery.snapshot(model), numbers["loss"]))
    (a, loss), (b, loss_of_loop) = ends
    assert loss == pytest.approx(loss_of_loop, rel=1e-4)
    for path, value in {**a.weights, **a.state}.items():
        np.testing.assert_allclose(value, {**b.weights, **b.state}[path], atol=1e-5, err_msg=path)


@pytest.mark.parametrize("scaled", short_if(bool, [False, True]))
def test_several_optimizers_in_one(scaled: bool, tmp_path: Path) -> None:
    def make() -> keras.Model:
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4), keras.layers.Dense(2)])
        model.compile(multi(scaled=scaled), "mse")
        return model

    assert same_ends(make, X_PAIR, Y_PAIR, tmp_path).step == 8
