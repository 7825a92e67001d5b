"""What `fit` really trains on when its data is `ordered`.

The input of example i is the i-th unit vector and the loss the output, so a step moves weight i by −rate/B if and only
if i is in its batch. The rate of step t is t + 1: the weights after an epoch say when each example came.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest

from keras_lth.datasets import ordered
from tests.datasets.reference_order import expected_batches, expected_order
from tests.forms import short_if

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


# In every run each mode here or in the next test; the default in those behind.
@pytest.mark.parametrize("mode", short_if(lambda mode: mode in ("jit", "3 steps"), MODES))
def test_fit_trains_on_the_order(mode):
    data, seen = unit_vectors(seed=9), Seen()
    probe(**MODES[mode]).fit(data, epochs=3, verbose=0, callbacks=[seen], shuffle=False)
    assert seen.steps == expected_seen(*expected_batches(N, B, 9, 0, 3))
    assert data.position == (9, 3 * STEPS)


@pytest.mark.parametrize("mode", short_if(lambda mode: mode in ("eager", "4 steps", "jit, 6 steps"), MODES))
def test_a_callback_seeks_inside_fit(mode):
    data = unit_vectors(seed=9)
    # The rest of an epoch has three batches; where a hook comes then, the callback ends the epoch, for Keras may count
    # the step in which data runs out. Several steps an execution look before they draw.
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
            return self.total + 0

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
import json
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tests.datasets import test_ordered_fit as t
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
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    ran = subprocess.run([sys.executable, "-c", MIRRORED], env=environment, capture_output=True, text=True, timeout=300)
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
