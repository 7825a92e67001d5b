"""The order of `ordered` against loops over a Philox written in Python, and what `fit` really trains on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_lth.datasets import ordered

WORD = 2**32 - 1


def philox(counter, key):
    """Philox-4x32-10: J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011."""
    c, k = list(counter), list(key)
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & WORD, (a >> 32) ^ c[3] ^ k[1], a & WORD]
        k = [(k[0] + 0x9E3779B9) & WORD, (k[1] + 0xBB67AE85) & WORD]
    return c


def expected_order(n, seed, epoch):
    """The indices of n signed 64-bit keys of TensorFlow's stateless generator at (seed, epoch), sorted."""
    mixed = philox([seed & WORD, seed >> 32, epoch & WORD, epoch >> 32], [0x3EC8F720, 0x02461E29])
    keys = []
    for i in range(-(-n // 2)):
        low = i + (mixed[2] << 64) + (mixed[3] << 96)
        words = philox([low >> shift & WORD for shift in (0, 32, 64, 96)], mixed[:2])
        keys += [words[0] | words[1] << 32, words[2] | words[3] << 32]
    signed = [key - 2**64 if key >= 2**63 else key for key in keys[:n]]
    return sorted(range(n), key=lambda i: signed[i])


def expected_batches(n, batch, seed, step, epochs):
    """The batches of `epochs` iterators that begin at `step`, one list of lists an iterator."""
    steps = -(-n // batch)
    result = []
    for epoch in range(step // steps, step // steps + epochs):
        order = expected_order(n, seed, epoch)
        first = step % steps if epoch == step // steps else 0
        result.append([order[b * batch : (b + 1) * batch] for b in range(first, steps)])
    return result


def batches(data):
    return [batch.tolist() for batch in data.as_numpy_iterator()]


# --- the order ---------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(
    n=st.integers(1, 40),
    batch=st.integers(1, 45),
    seed=st.integers(0, 2**63 - 1),
    step=st.one_of(st.integers(0, 100), st.integers(0, 2**62 - 1)),
    other=st.integers(0, 2**63 - 1),
)
def test_iterators_yield_the_loops(n, batch, seed, step, other):
    data = ordered(np.arange(n), batch_size=batch, seed=seed)
    steps = data.steps_per_epoch
    assert steps == len(data) == len(range(0, n, batch))
    assert [batches(data) for _ in range(2)] == expected_batches(n, batch, seed, 0, 2)
    assert data.position == (seed, 2 * steps)
    data.seek(step)
    assert data.position == (seed, step)
    assert [batches(data) for _ in range(2)] == expected_batches(n, batch, seed, step, 2)
    assert data.position == (seed, (step // steps + 2) * steps)
    data.seek(step, seed=other)
    assert (data.position, data.seed) == ((other, step), other)
    assert [batches(data)] == expected_batches(n, batch, other, step, 1)


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (1, 0), (0, 1), (2**63 - 1, 2**40)])
def test_order_is_a_permutation_of_its_own(seed, epoch):
    data = ordered(np.zeros(101), batch_size=7, seed=3)
    order = data.order(epoch, seed)
    assert order.tolist() == expected_order(101, seed, epoch)
    assert sorted(order.tolist()) == list(range(101))
    assert data.order(epoch).tolist() == expected_order(101, 3, epoch)
    assert data.position == (3, 0)


def test_positions_in_the_order_are_uniform():
    # Counts of (example, place) over 500 epochs of 5: chi-square with 16 degrees of freedom, 99.99 % at 45.1.
    data = ordered(np.zeros(5), batch_size=5, seed=11)
    counts = np.zeros((5, 5))
    for epoch in range(500):
        counts[data.order(epoch), np.arange(5)] += 1
    assert ((counts - 100) ** 2 / 100).sum() * 4 / 5 < 45.1


def test_unshuffled_is_the_order_of_the_arrays_every_time():
    data = ordered(np.arange(10), batch_size=4, seed=0, shuffle=False)
    for _ in range(3):
        assert batches(data) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert data.order(7).tolist() == list(range(10))
    data.seek(1)
    assert batches(data) == [[4, 5, 6, 7], [8, 9]]
    assert batches(data) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


# --- peeks, seeks, stale iterators -------------------------------------------------------------------------------


@pytest.mark.parametrize(("drawn", "used"), [(1, False), (8, False), (9, True), (20, True)])
def test_a_look_uses_nothing_up(drawn, used):
    data = ordered(np.arange(40), batch_size=2, seed=5)
    looked = list(data.take(drawn).as_numpy_iterator())
    assert len(looked) == drawn
    step = 20 if used else 0
    assert data.position == (5, step)
    assert [batches(data)] == expected_batches(40, 2, 5, step, 1)


def test_a_short_epoch_is_used_up_by_its_last_batch():
    data = ordered(np.arange(6), batch_size=2, seed=5)
    iterator = iter(data)
    for step in (0, 0, 3):
        next(iterator)
        assert data.position == (5, step)


def test_two_iterators_of_one_epoch_use_one_epoch():
    data = ordered(np.arange(40), batch_size=2, seed=5)
    first, second = iter(data), iter(data)
    for a, b in zip(first, second, strict=True):
        assert a.numpy().tolist() == b.numpy().tolist()
    assert data.position == (5, 20)


def test_a_late_iterator_does_not_take_the_position_back():
    data = ordered(np.arange(40), batch_size=2, seed=5)
    late = iter(data)
    next(late)
    batches(data), batches(data)
    assert data.position == (5, 40)
    assert len(list(late)) == 19
    assert data.position == (5, 40)


@pytest.mark.parametrize("target", [0, 7, 20, 33])
@pytest.mark.parametrize("drawn", [1, 8, 12])
def test_a_seek_wins_over_live_iterators(drawn, target):
    data = ordered(np.arange(40), batch_size=2, seed=5)
    live = iter(data)
    before = [next(live).numpy().tolist() for _ in range(drawn)]
    data.seek(target)
    assert data.position == (5, target)
    after = [batch.numpy().tolist() for batch in live]
    assert [before + after] == expected_batches(40, 2, 5, 0, 1)  # the live one goes on undisturbed
    assert data.position == (5, target)
    assert [batches(data) for _ in range(2)] == expected_batches(40, 2, 5, target, 2)


def test_an_iterator_made_before_a_seek_that_has_not_drawn_follows_it():
    data = ordered(np.arange(40), batch_size=2, seed=5)
    iterator = iter(data)
    data.seek(13, seed=6)
    assert [[batch.numpy().tolist() for batch in iterator]] == expected_batches(40, 2, 6, 13, 1)


def test_seeks_from_another_thread_are_never_lost():
    import threading

    data = ordered(np.arange(40), batch_size=2, seed=5)
    for round_ in range(30):
        live = iter(data)
        reader = threading.Thread(target=lambda it=live: list(it))
        reader.start()
        data.seek(round_)
        reader.join()
        # The reader drew first and was overruled, or drew after the seek and used that epoch.
        assert data.position in {(5, round_), (5, (round_ // 20 + 1) * 20)}
        data.seek(round_)
        assert data.position == (5, round_)


def test_a_fork_shares_everything_before():
    trunk, branch = (ordered(np.arange(30), batch_size=4, seed=1) for _ in range(2))
    common = [batches(data)[:5] for data in (trunk, branch)]
    assert common[0] == common[1]
    trunk.seek(5)
    branch.seek(5, seed=2)
    rest = [[batches(data) for _ in range(3)] for data in (trunk, branch)]
    assert rest == [expected_batches(30, 4, seed, 5, 3) for seed in (1, 2)]
    assert rest[0] != rest[1]


# --- the values --------------------------------------------------------------------------------------------------


def test_trees_keep_their_shape_and_their_rows_together():
    x = {"a": np.arange(10), "b": (np.arange(10) * 2, np.arange(20).reshape(10, 2))}
    data = ordered(x, [np.arange(10) * 3], np.arange(10) / 10, batch_size=3, seed=4)
    order = expected_order(10, 4, 0)
    for b, (bx, (by,), bw) in enumerate(data):
        rows = np.array(order[3 * b : 3 * b + 3])
        assert bx["a"].numpy().tolist() == rows.tolist()
        assert bx["b"][0].numpy().tolist() == (rows * 2).tolist()
        assert bx["b"][1].numpy().tolist() == [[2 * r, 2 * r + 1] for r in rows]
        assert by.numpy().tolist() == (rows * 3).tolist()
        np.testing.assert_array_equal(bw, (rows / 10).astype(np.float32))


def test_without_y_an_array_comes_alone_and_a_tuple_as_one_input():
    assert isinstance(ordered(np.arange(4), batch_size=2, seed=0).element_spec, tf.TensorSpec)
    spec = ordered((np.arange(4), np.arange(4)), batch_size=2, seed=0).element_spec
    assert [len(spec), len(spec[0])] == [1, 2]


def test_dtypes_are_those_of_fit():
    spec = ordered(np.zeros((4, 1)), np.zeros(4, np.int16), batch_size=2, seed=0).element_spec
    assert [part.dtype for part in spec] == [tf.float32, tf.int16]


@pytest.mark.parametrize(("n", "batch", "static"), [(12, 4, 4), (13, 4, None), (3, 4, 3), (4, 4, 4)])
def test_the_batch_size_is_static_where_batches_are_equal(n, batch, static):
    assert ordered(np.zeros((n, 5)), batch_size=batch, seed=0).element_spec.shape.as_list() == [static, 5]


@pytest.mark.parametrize(
    ("arguments", "changed", "named"),
    [
        ((np.zeros(4),), {"batch_size": 0}, "batch_size"),
        ((np.zeros(4),), {"batch_size": 2.0}, "batch_size"),
        ((np.zeros(4),), {"seed": -1}, "seed"),
        ((np.zeros(4),), {"seed": 2**63}, "seed"),
        ((np.zeros(4),), {"seed": None}, "seed"),
        ((np.zeros(4),), {"seed": True}, "seed"),
        ((np.zeros(4), np.zeros(5)), {}, r"'x': 4, 'y': 5"),
        (({"a": np.zeros(4), "b": np.zeros(3)},), {}, r"x\['b'\]"),
        ((np.zeros(4), np.zeros(4), np.zeros(1)), {}, "sample_weight"),
        ((np.zeros(4), None, np.zeros(4)), {}, "sample_weight needs y"),
        ((np.zeros((0, 3)),), {}, "no examples"),
        ((None,), {}, "no array"),
        (((),), {}, "no array"),
        ((3.0,), {}, "x must be an array"),
    ],
)
def test_bad_arguments_are_named(arguments, changed, named):
    with pytest.raises(ValueError, match=named):
        ordered(*arguments, **{"batch_size": 2, "seed": 0, **changed})


def test_bad_seeks_are_named_and_change_nothing():
    data = ordered(np.arange(4), batch_size=2, seed=1)
    for arguments, named in [
        ((-1,), "step"),
        ((2**62,), "step"),
        ((1.5,), "step"),
        ((0, -1), "seed"),
        ((0, "a"), "seed"),
    ]:
        with pytest.raises(ValueError, match=named):
            data.seek(*arguments)
    with pytest.raises(ValueError, match="epoch"):
        data.order(-1)
    assert data.position == (1, 0)


# --- what fit trains on ------------------------------------------------------------------------------------------
# The input of example i is the i-th unit vector and the loss the output, so a step moves weight i by −rate/B if and
# only if i is in its batch. The rate of step t is t + 1: the weights after an epoch say at which step each example came.

N, B, STEPS = 24, 4, 6


class Ramp(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return keras.ops.cast(step, "float32") + 1

    def get_config(self):
        return {}


def probe(**compiled):
    model = keras.Sequential([keras.Input((N,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(keras.optimizers.SGD(Ramp()), loss=lambda y, p: keras.ops.mean(p, axis=-1), **compiled)
    return model


def unit_vectors(**options):
    return ordered(np.eye(N), np.arange(N), batch_size=B, **options)


class Seen(keras.callbacks.Callback):
    """Per epoch, the step of the training at which each example came; −1 where it did not come."""

    def __init__(self, at_begin=None, stop_after=None):
        super().__init__()
        self.at_begin = at_begin or {}
        self.stop_after = stop_after or {}
        self.steps = []

    def on_train_begin(self, logs=None):
        self.last = np.asarray(self.model.layers[-1].kernel)[:, 0]

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self.at_begin.get(epoch, lambda: None)()

    def on_train_batch_end(self, batch, logs=None):
        if batch == self.stop_after.get(self.epoch):
            raise StopIteration

    def on_epoch_end(self, epoch, logs=None):
        now = np.asarray(self.model.layers[-1].kernel)[:, 0]
        self.steps.append(np.rint((self.last - now) * B - 1).astype(int).tolist())
        self.last = now


def expected_seen(*epochs):
    """Of the epochs' batches in order, [[[i, …], …], …], the step of each example in each epoch."""
    result, step = [], 0
    for epoch in epochs:
        seen = [-1] * N
        for batch in epoch:
            for i in batch:
                seen[i] = step
            step += 1
        result.append(seen)
    return result


MODES = {
    "default": {},
    "eager": {"run_eagerly": True},
    "jit": {"jit_compile": True},
    "3 steps": {"steps_per_execution": 3},
    "4 steps": {"steps_per_execution": 4},
    "jit, 6 steps": {"jit_compile": True, "steps_per_execution": 6},
}


@pytest.mark.parametrize("mode", MODES)
def test_fit_trains_on_the_order(mode):
    data, seen = unit_vectors(seed=9), Seen()
    probe(**MODES[mode]).fit(data, epochs=3, verbose=0, callbacks=[seen], shuffle=False)
    assert seen.steps == expected_seen(*expected_batches(N, B, 9, 0, 3))
    assert data.position == (9, 3 * STEPS)


@pytest.mark.parametrize("mode", MODES)
def test_a_callback_seeks_inside_fit(mode):
    data = unit_vectors(seed=9)
    # The rest of an epoch has three batches. Where a hook comes then the callback ends the epoch: run out of data, Keras
    # may count one step too many. Four or six steps an execution look before they draw.
    seen = Seen({1: lambda: data.seek(3), 3: lambda: data.seek(2 * STEPS, seed=4)}, stop_after={1: 2})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Your input ran out of data")
        probe(**MODES[mode]).fit(data, epochs=5, verbose=0, callbacks=[seen], shuffle=False)
    first, rest = expected_batches(N, B, 9, 3, 2)
    assert seen.steps == expected_seen(
        *expected_batches(N, B, 9, 0, 1), first, rest, *expected_batches(N, B, 4, 2 * STEPS, 2)
    )


def test_a_seek_wins_over_an_epoch_cut_short():
    data = unit_vectors(seed=9)
    seen = Seen({1: lambda: data.seek(STEPS), 2: lambda: data.seek(2 * STEPS)}, stop_after={0: 1, 1: 4})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Your input ran out of data")
        probe().fit(data, epochs=3, verbose=0, callbacks=[seen], shuffle=False)
    whole = expected_batches(N, B, 9, 0, 3)
    assert seen.steps == expected_seen(whole[0][:2], whole[1][:5], whole[2])


def test_two_fits_go_on_and_a_second_run_repeats_them():
    runs = []
    for seed in (9, 9, 10):
        data, seen = unit_vectors(seed=seed), Seen()
        model = probe()
        for _ in range(2):
            model.fit(data, epochs=1, verbose=0, callbacks=[seen], shuffle=False)
        assert seen.steps == expected_seen(*expected_batches(N, B, seed, 0, 2))
        runs.append(np.asarray(model.layers[-1].kernel).tobytes())
    assert runs[0] == runs[1] != runs[2]


def test_steps_per_epoch_of_the_user_cuts_the_same_stream():
    data, seen = unit_vectors(seed=9), Seen()
    probe().fit(data, epochs=4, steps_per_epoch=3, verbose=0, callbacks=[seen], shuffle=False)
    first, second = expected_batches(N, B, 9, 0, 2)
    assert seen.steps == expected_seen(first[:3], first[3:], second[:3], second[3:])


def test_evaluation_sees_every_example_once_from_the_first_on():
    class Targets(keras.metrics.Metric):
        def __init__(self):
            super().__init__(name="targets")
            self.total = self.add_weight(name="total", initializer="zeros", dtype="int64")

        def update_state(self, y_true, y_pred, sample_weight=None):
            y = keras.ops.cast(y_true, "int64")
            self.total.assign_add(keras.ops.sum(keras.ops.left_shift(keras.ops.ones_like(y), y)))

        def result(self):
            return self.total.value

    data, held_out = unit_vectors(seed=9), unit_vectors(seed=0, shuffle=False)
    model = probe(metrics=[Targets()])
    seen = Seen()
    history = model.fit(data, validation_data=held_out, epochs=3, verbose=0, callbacks=[seen], shuffle=False).history
    assert history["targets"] == history["val_targets"] == [2**N - 1] * 3
    assert seen.steps == expected_seen(*expected_batches(N, B, 9, 0, 3))
    assert model.evaluate(held_out, steps=2, verbose=0, return_dict=True)["targets"] == 2 ** (2 * B) - 1
    assert model.evaluate(held_out, verbose=0, return_dict=True)["targets"] == 2**N - 1
    expected = np.asarray(model.layers[-1].kernel)
    for _ in range(2):
        np.testing.assert_array_equal(model.predict(held_out, verbose=0), expected)


MIRRORED = """
import json, sys
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
sys.path.insert(0, sys.argv[1])
import test_ordered as t
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
outside = t.unit_vectors(seed=9)
with strategy.scope():
    inside = t.unit_vectors(seed=9)
    held_out = t.unit_vectors(seed=0, shuffle=False)
    model, second = t.probe(), t.probe()
seen = t.Seen({1: lambda: inside.seek(3), 2: lambda: inside.seek(t.STEPS, seed=4)}, stop_after={1: 2})
model.fit(inside, validation_data=held_out, epochs=4, verbose=0, callbacks=[seen], shuffle=False)
model.fit(inside, epochs=1, verbose=0, callbacks=[seen], shuffle=False)
seen_outside = t.Seen()
second.fit(outside, epochs=2, verbose=0, callbacks=[seen_outside], shuffle=False)
result = {"order": outside.order(0).tolist(), "steps": seen.steps, "outside": seen_outside.steps}
result["positions"] = [inside.position, outside.position]
result["predicted"] = bool((model.predict(held_out, verbose=0) == np.asarray(model.layers[-1].kernel)).all())
shard = next(iter(strategy.experimental_distribute_dataset(inside)))[1]
result["shards"] = [part.numpy().tolist() for part in shard.values]
print(json.dumps(result))
"""


def test_mirrored_strategy_trains_on_the_order():
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": str(here.parents[1]), "TF_CPP_MIN_LOG_LEVEL": "3"}
    ran = subprocess.run(
        [sys.executable, "-c", MIRRORED, str(here)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    result = json.loads(ran.stdout.splitlines()[-1])
    assert result["order"] == expected_order(N, 9, 0)
    expected = expected_seen(
        *expected_batches(N, B, 9, 0, 1),
        *expected_batches(N, B, 9, 3, 1),
        *expected_batches(N, B, 4, STEPS, 3),
    )
    assert result["steps"] == expected
    assert result["outside"] == expected_seen(*expected_batches(N, B, 9, 0, 2))
    assert result["positions"] == [[4, 4 * STEPS], [9, 2 * STEPS]]
    assert result["predicted"] is True
    coming = expected_order(N, 4, 4)
    assert result["shards"] == [coming[:2], coming[2:4]]  # the two halves of one batch
