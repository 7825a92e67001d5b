"""The loop beside Keras' own fit on the same data."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
import pytest

import keras_lth as lth
from keras_lth import surgery, training
from tests.forms import short_if
from tests.training.networks import STEPS, X, Y, examples, network


class Seen(keras.callbacks.Callback):
    """What the hooks are called with."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []

    def on_train_begin(self, logs: Any = None) -> None:
        self.calls.append("begin")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.calls.append(("epoch", epoch))

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.calls.append(("from", batch))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.calls.append(("to", batch, sorted(logs)))

    def on_test_begin(self, logs: Any = None) -> None:
        self.calls.append("test")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.calls.append(("end", epoch, sorted(logs)))

    def on_train_end(self, logs: Any = None) -> None:
        self.calls.append("over")


def assert_close(a: keras.Model, b: keras.Model, tolerance: float = 2e-6) -> None:
    one, other = surgery.snapshot(a), surgery.snapshot(b)
    assert one.step == other.step
    for path, value in one.weights.items():
        np.testing.assert_allclose(value, other.weights[path], atol=tolerance, err_msg=path)


# None is True here; without XLA the loop is beside fit under IMP below.
@pytest.mark.parametrize("jit", short_if(lambda jit: jit is None, [True, False, None]))
def test_the_same_as_fit(jit: bool | None) -> None:
    plain, looped = network(), network()
    a = plain.fit(examples(), epochs=3, verbose=0, shuffle=False, validation_data=(X, Y))
    b = training.fit(looped, examples(), epochs=3, validation_data=(X, Y), jit_compile=jit)
    assert_close(plain, looped)
    assert set(a.history) == set(b.history)
    for name, values in a.history.items():
        np.testing.assert_allclose(values, b.history[name], atol=1e-5, err_msg=name)


def test_the_bits_depend_on_no_call_size_and_repeat() -> None:
    ends = []
    for steps in (3, 500):
        model = network(dropout=0.2)
        training.fit(model, examples(), epochs=2, steps_per_call=steps)
        ends.append(surgery.snapshot(model))
    assert all(ends[0].differences(end) == [] for end in ends[1:])


def test_masked_weights_stay_zero_and_absent() -> None:
    plain, looped = network(), network()
    random = np.random.default_rng(1)
    masks = {path: random.random(tuple(v.shape)) < 0.3 for path, v in surgery.prunable(plain).items()}
    for model in (plain, looped):
        surgery.mask(model, masks)
    plain.fit(examples(), epochs=2, verbose=0, shuffle=False)
    training.fit(looped, examples(), epochs=2, jit_compile=False)
    assert_close(plain, looped)
    for path, variable in surgery.prunable(looped).items():
        assert not np.any(variable.numpy()[~masks[path]])
        assert np.all(variable.numpy()[masks[path]] != 0)


def test_hooks_come_as_in_fit() -> None:
    seen = Seen()
    options: dict[str, Any] = {"steps_per_call": 10, "validation_data": (X, Y), "jit_compile": False}
    training.fit(network(), examples(), epochs=2, callbacks=[seen], **options)
    logs = ["accuracy", "loss"]
    epoch = [("from", 0), ("to", 9, logs), ("from", 10), ("to", STEPS - 1, logs), "test"]
    ended = ["accuracy", "loss", "val_accuracy", "val_loss"]
    assert seen.calls == [
        "begin", ("epoch", 0), *epoch, ("end", 0, ended), ("epoch", 1), *epoch, ("end", 1, ended), "over",
    ]  # fmt: skip


SPANS = [(0, "remaining"), ("5 steps", "remaining"), ("1 epochs", "restart")]


@pytest.mark.parametrize(("rewind_to", "span"), short_if(lambda rewind_to, span: rewind_to == "5 steps", SPANS))
def test_imp_runs_unchanged(rewind_to: Any, span: Any) -> None:
    tables = []
    for run in ("fit", "loop"):
        imp = lth.IMPCallback(rounds=2, epochs_per_round=2, rewind_to=rewind_to, span=span, verbose=0)
        model = network()
        options: dict[str, Any] = {"epochs": 6, "callbacks": [imp], "validation_data": (X, Y)}
        if run == "fit":
            model.fit(examples(), verbose=0, shuffle=False, **options)
        else:
            training.fit(model, examples(), jit_compile=False, **options)
        tables.append((imp, model))
    (a, plain), (b, looped) = tables
    assert [level.steps for level in a.history] == [level.steps for level in b.history]
    for level in range(3):
        assert a.masks(level) == b.masks(level)
        start = b.ticket(level).snapshot
        for path, value in a.ticket(level).snapshot.weights.items():
            np.testing.assert_allclose(value, start.weights[path], atol=2e-6)
    assert_close(plain, looped, 1e-4)


def test_a_hidden_step_is_seen_without_losing_long_calls() -> None:
    seen = Seen()
    imp = lth.IMPCallback(rounds=1, epochs_per_round=1, rewind_to="5 steps", verbose=0)
    training.fit(network(), examples(), epochs=2, callbacks=[imp, seen], jit_compile=False)
    ends = [call[1] for call in seen.calls if call[0] == "to"]
    assert ends == [4, STEPS - 1, STEPS - 5 - 1]


def test_early_stopping_and_the_rest() -> None:
    stop = keras.callbacks.EarlyStopping(monitor="loss", min_delta=10.0, patience=1)
    history = training.fit(network(), examples(), epochs=9, callbacks=[stop], jit_compile=False)
    assert history.epoch == [0, 1]


@pytest.mark.parametrize("jit", short_if(lambda jit: not jit, [False, True]))
def test_train_shares_a_prefix_of_noise_bit_by_bit(jit: bool) -> None:
    model, train = network(dropout=0.2), functools.partial(training.train, jit_compile=jit)
    start = surgery.snapshot(model)
    whole = train(model, examples(), to=30, snapshot=start)
    fork = train(model, examples(), to=11, snapshot=start)
    again = train(model, examples(), to=30, snapshot=fork)
    assert again.differences(whole) == []
    other = train(model, examples(), to=30, snapshot=fork, seed=6)
    assert other.step == 30
    assert other.differences(whole) != []
    masks = {path: np.eye(*v.shape, dtype=bool) for path, v in surgery.prunable(model).items()}
    pruned = train(model, examples(), to=14, snapshot=fork, masks=masks)
    assert all(not np.any(pruned.weights[path][~mask]) for path, mask in masks.items())


def test_evaluate_is_keras_evaluate() -> None:
    model, random = network(), np.random.default_rng(1)
    model.set_weights([random.uniform(0.5, 1.5, weight.shape) for weight in model.get_weights()])
    wanted = model.evaluate(X, Y, verbose=0, return_dict=True)
    for got in (training.evaluate(model, (X, Y)), training.evaluate(model, examples(batch_size=60))):
        assert got == pytest.approx(wanted, rel=1e-5)


def test_bad_arguments() -> None:
    with pytest.raises(TypeError, match=r"data from keras_lth\.datasets\.ordered or from_files, not ndarray"):
        training.fit(network(), X)
    with pytest.raises(ValueError, match="compiled"):
        training.fit(keras.Sequential([keras.Input((20,)), keras.layers.Dense(4)]), examples())
    unbuilt = keras.Sequential([keras.layers.Dense(4)])
    unbuilt.compile("sgd", "mse")
    with pytest.raises(ValueError, match="not built"):
        training.fit(unbuilt, examples())
    model = network()
    with pytest.raises(ValueError, match="at step 16, after to=3"):
        training.train(model, examples(), to=3, snapshot=training.train(model, examples(), to=16, jit_compile=False))
