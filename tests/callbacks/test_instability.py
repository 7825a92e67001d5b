from __future__ import annotations

import copy
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from keras_lth import surgery
from keras_lth.analysis import Comparison, linear_path
from keras_lth.callbacks.instability import InstabilityCallback
from keras_lth.datasets import ordered
from keras_lth.rounds import noise_seed
from keras_lth.tickets import Snapshot
from tests.forms import short_if

BATCH, STEPS = 50, 8  # 400 training images


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    return (images[:400], labels[:400]), (images[400:600], labels[400:600])


def mlp(optimizer="adam", dropout=0.0, **settings):
    keras.utils.set_random_seed(7)
    layers = [keras.Input((64,)), keras.layers.Dense(12, "relu"), keras.layers.BatchNormalization()]
    layers += [keras.layers.Dropout(dropout, seed=3)] if dropout else []
    model = keras.Sequential([*layers, keras.layers.Dense(10)])
    optimizer = keras.optimizers.Adam(schedule()) if optimizer == "adam" else optimizer
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"], **settings)
    return model


def schedule():
    return keras.optimizers.schedules.PiecewiseConstantDecay([11], [1e-2, 2e-3])


def overrides(model):
    return "train_step" in vars(model)


class Watching(keras.callbacks.Callback):
    """States at chosen (training, local step): kept through the hooks of the callback under test."""

    def __init__(self, instability, step):
        super().__init__()
        self.instability, self.step, self.states, self.rates = instability, step, {}, []

    def on_train_batch_end(self, batch, logs=None):
        position = self.instability.position.round, self.instability._step
        if position[1] == self.step:
            self.states[position[0]] = surgery.snapshot(self.model)

    def on_train_batch_begin(self, batch, logs=None):
        self.rates.append(float(self.model.optimizer.learning_rate))


def run(callback, train, model=None, epochs=4, extra=(), **fit):
    model = model or mlp()
    model.fit(train, epochs=epochs, verbose=0, callbacks=[callback, *extra], **fit)
    return model


def train_by_hand(model, data, seed, start, stop):
    """Steps start … stop of an ordered training, batch by batch."""
    x, y = data
    walk = ordered(x, y, batch_size=BATCH, seed=seed)
    for step in range(start, stop):
        epoch, b = divmod(step, STEPS)
        rows = walk.order(epoch, seed)[b * BATCH : (b + 1) * BATCH]
        model.train_on_batch(x[rows], y[rows])


@pytest.mark.parametrize("dropout", short_if(bool, [0.0, 0.3]))
def test_equals_two_fits_by_hand(digits, dropout):
    train, test = digits
    k, end = 5, 2 * STEPS
    callback = InstabilityCallback(f"{k} steps", data={"train": train, "test": test}, points=5, verbose=0)
    watch = Watching(callback, k)
    model = run(callback, ordered(*train, batch_size=BATCH, seed=11), mlp(dropout=dropout), extra=[watch])
    assert watch.rates == pytest.approx([1e-2] * 12 + [2e-3] * 4 + [1e-2] * 7 + [2e-3] * 4)

    plain = mlp(dropout=dropout)
    train_by_hand(plain, train, 11, 0, k)
    fork = surgery.snapshot(plain)
    assert watch.states[0].differences(fork) == []
    assert callback.captured.differences(fork) == []
    train_by_hand(plain, train, 11, k, end)
    first = surgery.snapshot(plain)
    surgery.rewind(plain, fork, restore_optimizer=True)
    assert surgery.snapshot(plain).differences(fork) == []
    if dropout:
        seed = surgery.variables(plain)["dropout/seed_generator_state"]
        value = seed._value.numpy()
        seed.assign(np.array([noise_seed(int(value[0]), 1), value[1]], value.dtype))
    train_by_hand(plain, train, noise_seed(11, 1), k, end)
    second = surgery.snapshot(plain)

    assert callback.ends[0].differences(first) == []
    assert callback.ends[1].differences(second) == []
    assert surgery.snapshot(model).differences(second) == []
    assert first.weights["dense/kernel"].tobytes() != second.weights["dense/kernel"].tobytes()
    for name, data in (("train", train), ("test", test)):
        path = linear_path(first, second, model=plain, data=data, points=5)
        (result,) = [r for r in callback.results if r.data == name]
        assert result.pair == (0, 1)
        assert result.path == path
        assert callback.barrier[name] == path.barrier
        assert callback.stable[name] == (path.barrier < 0.02)
    assert not overrides(model)


@pytest.mark.parametrize(
    "otherwise",
    short_if(
        lambda how: "jit_compile" in how, [{"jit_compile": True, "steps_per_execution": 4}, {"steps_per_execution": 8}]
    ),
)
def test_compiled_otherwise_the_ends_are_the_same(digits, otherwise):
    train, test = digits
    ends = []
    for how in ({}, otherwise):
        callback = InstabilityCallback("8 steps", data={"test": test}, points=2, verbose=0)
        model = run(callback, ordered(*train, batch_size=BATCH, seed=2), mlp(keras.optimizers.SGD(0.1), **how))
        assert not overrides(model)
        ends.append(callback.ends)
    for plain, other in zip(*ends, strict=True):
        assert plain.step == other.step == 2 * STEPS
        for path, value in plain.weights.items():
            np.testing.assert_allclose(other.weights[path], value, rtol=1e-4, atol=1e-5, err_msg=path)


def test_three_runs_restart_and_masks(digits, capsys):
    train, test = digits
    model = mlp()
    mask = np.random.default_rng(0).random((64, 12)) < 0.3
    surgery.mask(model, {"dense/kernel": mask})
    callback = InstabilityCallback(3, runs=3, data={"test": test}, points=3, span="restart")
    run(callback, ordered(*train, batch_size=BATCH, seed=1), model, epochs=4)
    assert callback.machine.rounds == 3
    assert [result.pair for result in callback.results] == [(0, 1), (0, 2), (1, 2)]
    assert callback.barrier["test"] == pytest.approx(np.mean([r.barrier for r in callback.results]))
    for end in callback.ends:
        assert end.step == STEPS
        assert not end.weights["dense/kernel"][~mask].any()
    assert surgery.masks_of(model)["dense/kernel"].tolist() == mask.tolist()
    printed = capsys.readouterr().out
    assert printed.count("Instability, training") == 3
    assert "which led to the fork" in printed
    assert f"barrier {callback.barrier['test']:.4f}, mean of 3 pairs" in printed
    assert "batch-norm statistics interpolated like the weights" in printed


def test_folder_summary_and_figure(digits, tmp_path):
    train, test = digits
    folder = tmp_path / "run"
    callback = InstabilityCallback(data={"train": train, "test": test}, points=4, directory=folder, verbose=0)
    run(callback, ordered(*train, batch_size=BATCH, seed=1), epochs=2)
    row = json.loads((folder / "instability.json").read_text())
    assert [Comparison.from_dict(r) for r in row["results"]] == callback.results
    assert row["barrier"] == callback.barrier
    assert row["fork_step"] == 0
    assert row["statistics"] == "interpolate"
    assert (folder / "instability.png").read_bytes().startswith(b"\x89PNG")
    for number, end in enumerate(callback.ends):
        assert Snapshot.load(folder / f"run_{number}.state").differences(end) == []
    text = callback.summary()
    assert f"test: barrier {callback.barrier['test']:.4f}" in text
    assert "1 − accuracy, at 4 points" in text
    drawn = callback.figure()
    titles = [panel.get_title() for panel in drawn.axes]
    assert [title.split(":")[0] for title in titles] == ["train", "test"]
    assert f"{callback.barrier['train']:.4f}" in titles[0]
    assert "step 0" in drawn.get_suptitle()
    assert all(panel.get_xlabel() and panel.get_ylabel() for panel in drawn.axes)
    assert not list(folder.glob("*.tmp"))


def test_twice_and_copied(digits):
    train, test = digits
    callback = InstabilityCallback("3 steps", data={"test": test}, points=3, verbose=0)
    model = run(callback, ordered(*train, batch_size=BATCH, seed=1), epochs=2)
    first, ends = callback.results, callback.ends
    again = mlp()
    other = copy.deepcopy(callback)
    assert other.results == [] and other.machine is None
    run(callback, ordered(*train, batch_size=BATCH, seed=1), again, epochs=2)
    assert callback.results == first
    run(other, ordered(*train, batch_size=BATCH, seed=1), epochs=2)
    assert other.results == first
    assert [a.same_bits(b) for a, b in zip(ends, other.ends, strict=True)] == [True, True]
    run(callback, ordered(*train, batch_size=BATCH, seed=1), model, epochs=2)
    assert callback.ends[0].step == 2 * STEPS


def test_ordered_in_a_loop_that_hides_it(digits):
    train, test = digits
    data = ordered(*train, batch_size=BATCH, seed=1)
    # fit sees a dataset that cannot be sought; the callback is given the one below it.
    callback = InstabilityCallback(data={"test": test}, points=2, train=data, verbose=0)
    run(callback, data.map(lambda x, y: (x, y)), epochs=2)
    with pytest.raises(ValueError, match="ordered"):
        run(InstabilityCallback(data={"test": test}, train=train, verbose=0), data, epochs=2)
    assert callback.ends[0].weights["dense/kernel"].tobytes() != callback.ends[1].weights["dense/kernel"].tobytes()


def test_averaged_weights_take_their_place_in_each_training(digits):
    train, test = digits
    callback = InstabilityCallback(data={"test": test}, points=2, verbose=0)
    optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9)
    model = run(callback, ordered(*train, batch_size=BATCH, seed=1), mlp(optimizer), epochs=2)
    plain = mlp(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9))
    plain.fit(ordered(*train, batch_size=BATCH, seed=1), epochs=1, verbose=0)
    assert callback.ends[0].differences(surgery.snapshot(plain)) == []
    assert callback.ends[1].differences(surgery.snapshot(model)) == []


def test_divergence_is_named(digits):
    train, test = digits
    callback = InstabilityCallback(data={"test": test}, verbose=0)
    with pytest.raises(RuntimeError, match=r"diverged: \S+ contains NaN"):
        run(callback, ordered(*train, batch_size=BATCH, seed=1), mlp(keras.optimizers.SGD(1e38)), epochs=2)


def test_a_training_that_ends_early_and_validation(digits):
    train, test = digits
    early = keras.callbacks.EarlyStopping("val_accuracy", min_delta=1.0, patience=0)
    callback = InstabilityCallback(
        "3 steps", data={"train": train}, statistics="reestimate", points=2, callbacks=[early], verbose=0
    )
    run(callback, ordered(*train, batch_size=BATCH, seed=1), epochs=8, validation_data=test)
    # Patience 0 ends each training at its second epoch, of four.
    assert [end.step for end in callback.ends] == [2 * STEPS, 2 * STEPS]
    assert callback.results[0].path.statistics == "reestimate"
    assert "re-estimated on training data at every point" in callback.summary()


def test_a_fit_that_is_stopped_says_that_nothing_was_compared(digits, capsys):
    train, test = digits

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    callback = InstabilityCallback("3 steps", data={"test": test})
    model = run(callback, ordered(*train, batch_size=BATCH, seed=1), extra=[Stop()])
    assert "fit ended in training 1 of 2; nothing was compared" in capsys.readouterr().out
    assert callback.results == [] and not overrides(model)
    assert callback.summary() == "No two trainings have been compared yet."
    with pytest.raises(ValueError, match="nothing to draw"):
        callback.figure()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"runs": 1}, "runs must be a whole number of at least 2, not 1"),
        ({"points": 1}, "points must be a whole number of at least 2"),
        ({"batch_size": 0}, "batch_size"),
        ({"data": None}, "data must map names"),
        ({"data": {}}, "data must map names"),
        ({"data": (np.zeros(3), np.zeros(3))}, "data must map names"),
        ({"data": {"test": np.zeros((3, 64))}}, r"data\['test'\] must be \(x, y\)"),
        ({"data": {0: (np.zeros((3, 64)), np.zeros(3))}}, "name must be a string, not 0"),
        ({"statistics": "mean"}, "statistics must be one of"),
        ({"statistics": "reestimate"}, "train_data"),
        ({"span": "rest"}, "span"),
        ({"threshold": 0}, "threshold"),
        ({"fork_at": "soon"}, "soon|Invalid duration"),
    ],
)
def test_arguments_are_checked(arguments, match):
    arguments = {"data": {"test": (np.zeros((3, 64)), np.zeros(3))}, **arguments}
    with pytest.raises(ValueError, match=match):
        InstabilityCallback(**arguments)


def test_what_cannot_work_is_said_at_the_begin(digits):
    train, test = digits
    data = ordered(*train, batch_size=BATCH, seed=1)

    def start(fork, runs=2, epochs=4, source=data, **settings):
        callback = InstabilityCallback(fork, runs, data={"test": test}, verbose=0)
        run(callback, source, mlp(**settings), epochs=epochs)

    with pytest.raises(ValueError, match="3 trainings need at least 3 epochs, but fit has 2"):
        start(0, runs=3, epochs=2)
    with pytest.raises(ValueError, match=r"fork_at='16 steps' is step 16, but each training has 16 steps"):
        start("16 steps")
    with pytest.raises(ValueError, match=r'hides step 6.*fork_at="4 steps" or "8 steps"'):
        start("6 steps", steps_per_execution=4)
    endless = tf.data.Dataset.from_generator(
        lambda: iter([(train[0][:50], train[1][:50])]), output_signature=data.element_spec
    )
    with pytest.raises(ValueError, match="number of batches"):
        start("1 epochs", source=endless)
