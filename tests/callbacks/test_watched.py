from __future__ import annotations

import gc

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from keras_lth.callbacks.fingerprint import Fingerprint, Orders, digest
from keras_lth.callbacks.instability import InstabilityCallback
from keras_lth.datasets import ordered
from tests.forms import short_if

BATCH, STEPS = 50, 8  # 400 training images


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    return (images[:400], labels[:400]), (images[400:500], labels[400:500])


def mlp(kind=keras.Sequential, **settings):
    keras.utils.set_random_seed(7)
    model = kind([keras.Input((64,)), keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"], **settings)
    return model


def run(callback, train, model=None, epochs=4, extra=(), **fit):
    model = model or mlp()
    model.fit(train, epochs=epochs, verbose=0, callbacks=[callback, *extra], **fit)
    return model


def overrides(model):
    return "train_step" in vars(model)


def value(*data):
    return int(digest(tuple(tf.convert_to_tensor(part) for part in data)))


def test_digest_sees_values_places_and_order():
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    y = np.array([0, 1, 1])
    seen = {
        value(x, y),
        value(x[::-1].copy(), y),
        value(x[:, ::-1].copy(), y),
        value(x, y[::-1].copy()),
        value(x + np.float32(1e-7), y),
        value(-x, y),
        value(np.concatenate([x, x[:1]]), np.append(y, 0)),
        value(y, x),
        value(x),
        value(x[0]),
        value(np.array("a")),
        value(np.array(["a", "b"])),
        value(np.array(["b", "a"])),
    }
    assert len(seen) == 13
    assert value(x, y) == value(x.copy(), y.copy())
    for dtype in (np.float16, np.float64, np.int8, np.uint8, bool):
        assert value(x.astype(dtype)) == value(x.astype(dtype))
    ragged = [tf.ragged.constant(rows) for rows in ([[1, 2], [3]], [[1], [2, 3]])]
    assert int(digest(ragged[0])) != int(digest(ragged[1]))


def test_every_order_of_six_examples_is_another_number():
    import itertools

    x = np.array([[1.0], [1.0], [2.0], [4.0], [8.0], [0.0]], np.float32)
    y = np.arange(6)
    orders = [list(order) for order in itertools.permutations(range(6))]
    assert len({value(x[order], y[order]) for order in orders}) == 720


def test_large_examples_are_read_sparsely_but_told_apart():
    x = np.random.default_rng(0).normal(size=(4, 30_000)).astype(np.float32)
    assert value(x) != value(x[[1, 0, 2, 3]])


@pytest.mark.parametrize(
    "settings",
    short_if(bool, [{}, {"jit_compile": True, "steps_per_execution": 3}, {"run_eagerly": True}]),
)
def test_the_fingerprint_is_the_same_however_it_is_compiled(digits, settings):
    (x, y), _ = digits
    expected = 0
    for b in range(STEPS):
        batch = slice(b * BATCH, (b + 1) * BATCH)
        expected = (expected * 0x5851F42D4C957F2D + value(x[batch], y[batch].astype(np.int64))) % 2**64
    model = mlp(**settings)
    marks = []

    class Reading(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.watch = Fingerprint(self.model)

        def on_train_batch_end(self, batch, logs=None):
            marks.append(self.watch.value())

        def on_epoch_begin(self, epoch, logs=None):
            self.watch.reset()

    reading = Reading()
    model.fit(x, y, batch_size=BATCH, epochs=2, shuffle=False, verbose=0, callbacks=[reading])
    watch = reading.watch
    assert watch.value()[0] == STEPS
    assert watch.value()[1] % 2**64 == expected
    # What came after a mark is what a reset there would have left.
    tail = 0
    for b in range(marks[0][0], STEPS):
        batch = slice(b * BATCH, (b + 1) * BATCH)
        tail = (tail * 0x5851F42D4C957F2D + value(x[batch], y[batch].astype(np.int64))) % 2**64
    count, folded = watch.since(marks[0])
    assert (count, folded % 2**64) == (STEPS - marks[0][0], tail)
    assert -(2**63) <= folded < 2**63
    watch.remove()
    watch.remove()
    assert not overrides(model)


def test_orders_are_compared_at_the_same_step_only():
    orders = Orders()
    orders.note(0, 8, (8, 111))
    orders.note(0, 16, (8, 222))
    orders.note(1, 8, (8, 222))
    with pytest.raises(ValueError, match=r"Trainings 0 and 1 saw the same 8 batches .* step 16"):
        orders.note(1, 16, (8, 222))
    with pytest.raises(ValueError, match=r"does not call model\.train_step"):
        orders.note(2, 8, (0, 0))


# From the beginning also in test_instability_resume.py.
@pytest.mark.parametrize("fork", short_if(bool, [0, 3]))
def test_an_equal_order_of_arrays_is_an_error(digits, fork):
    train, test = digits
    model = mlp()
    callback = InstabilityCallback(fork, data={"test": test}, verbose=0)
    with pytest.raises(ValueError, match=r"Trainings 0 and 1 saw the same \d batches.*datasets.ordered\(x, y"):
        model.fit(*train, batch_size=BATCH, epochs=2, verbose=0, callbacks=[callback])
    assert not overrides(model)
    assert callback.results == []
    with pytest.raises(ValueError, match=r"Trainings 0 and 1 saw the same \d batches"):
        model.fit(*train, batch_size=BATCH, epochs=4, shuffle=False, verbose=0, callbacks=[callback])
    assert not overrides(model)


@pytest.mark.parametrize(("fork", "executed"), short_if(lambda fork, _: fork != 6, [(3, 1), (4, 2), (6, 2)]))
def test_data_that_is_shuffled_anew_is_accepted_and_a_fixed_shuffle_is_not(digits, fork, executed):
    train, test = digits
    for again, fails in ((True, False), (False, True)):
        data = (
            tf.data.Dataset.from_tensor_slices(train).shuffle(400, seed=1, reshuffle_each_iteration=again).batch(BATCH)
        )
        callback = InstabilityCallback(fork, data={"test": test}, points=2, verbose=0)
        model = mlp(steps_per_execution=executed)
        if fails:
            with pytest.raises(ValueError, match=f"same {STEPS - fork} batches"):
                run(callback, data, model, epochs=2)
        else:
            run(callback, data, model, epochs=2)
            assert [end.step for end in callback.ends] == [STEPS, STEPS]


def test_a_custom_train_step_is_kept(digits):
    train, test = digits

    class Counting(keras.Sequential):
        def train_step(self, data):
            counted.assign_add(1)
            return super().train_step(data)

    counted = tf.Variable(0)
    model = Counting([keras.Input((64,)), keras.layers.Dense(10)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    callback = InstabilityCallback("4 steps", data={"test": test}, points=2, verbose=0)
    run(callback, ordered(*train, batch_size=BATCH, seed=1), model, epochs=2)
    assert int(counted) == STEPS  # a variable of the step is state, rewound to step 4
    mine = model.train_step.__func__
    model.train_step = lambda data: mine(model, data)
    own = vars(model)["train_step"]
    run(callback, ordered(*train, batch_size=BATCH, seed=1), model, epochs=2)
    assert int(counted) == 2 * STEPS
    assert vars(model)["train_step"] is own


def test_a_foreign_exception_leaves_nothing_behind(digits, tmp_path):
    train, test = digits

    class Failing(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyError("mine")

    model = mlp()
    callback = InstabilityCallback(data={"test": test}, points=2, directory=tmp_path, verbose=0)
    with pytest.raises(KeyError, match="mine"):
        run(callback, ordered(*train, batch_size=BATCH, seed=1), model, epochs=2, extra=[Failing()])
    gc.collect()
    assert not overrides(model)
    assert callback._lock is None


def test_one_epoch_of_unknown_length_with_a_fork_inside_is_refused():
    x = np.random.default_rng(0).normal(size=(80, 4)).astype(np.float32)
    spec = tf.TensorSpec((None, 4)), tf.TensorSpec((None, 1))
    batches = tf.data.Dataset.from_generator(
        lambda: ((x[i : i + 10], x[i : i + 10, :1]) for i in range(0, 80, 10)), output_signature=spec
    )
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    callback = InstabilityCallback(3, data={"test": (x, x[:, :1])}, metric="mae", points=2, verbose=0)
    with pytest.raises(ValueError, match=r"number of batches is unknown.*Pass fit\(steps_per_epoch"):
        model.fit(batches, epochs=2, callbacks=[callback], verbose=0, shuffle=False)
