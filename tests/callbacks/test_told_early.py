"""What could only fail after hours fails before the first step, and what was trained stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_lth as lth
from keras_lth import surgery
from keras_lth.store import Store
from keras_lth.tickets import Snapshot
from tests.callbacks.small import X, Y, data, fit, model, unvalidated, weights
from tests.forms import spread


def untouched(callback: keras.callbacks.Callback, match: str, *, error: type = ValueError, **options: Any) -> None:
    """The fit raises before its first step and leaves the model as it was."""
    built = model()
    before = weights(built)
    with pytest.raises(error, match=match):
        fit(built, callback, **{"epochs": 4, **options})
    assert int(built.optimizer.iterations.numpy()) == 0
    for old, new in zip(before, weights(built), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    ("arguments", "options", "match"),
    [
        ({"monitor": "val_acc"}, {}, "val_acc.*val_accuracy"),
        ({"monitor": "val_loss"}, {"validation_data": None}, "val_loss.*no validation_data"),
        ({}, {"validation_data": (X[:, :5], Y)}, "validation_data cannot be evaluated"),
        ({"target_density": 1e-3, "one_shot": True}, {}, "leave 0 of 144 weights for 2 layers.*target_density=0.014"),
        ({"target_density": 0.01, "one_shot": True}, {}, "leave 1 of 144 weights for 2 layers.*target_density=0.014"),
        ({"fraction": 0.99, "rounds": 1}, {}, "rounds=1 at fraction=0.99 would leave 1 of 144 weights for 2 layers"),
        (
            {"scope": "layer", "fraction": {"dense_1/kernel": 0.99, ".*": 0.2}},
            {},
            "for 2 layers, none in dense_1/kernel",
        ),
        ({"target_density": 0.05, "rounds": 2, "fraction": 0.3}, {}, "not 0.05"),
        ({"rewind_to": 12, "epochs_per_round": 2}, {}, "choose a step before 12"),
    ],
)
def test_imp(arguments: dict[str, Any], options: dict[str, Any], match: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    untouched(lth.IMPCallback(**{"rounds": 1, "verbose": 0, "directory": folder, **arguments}), match, **options)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"metric": "acc"}, r"data\['test'\].*no metric 'acc', only .*accuracy"),
        ({"data": {"test": (X[:, :5], Y)}}, r"data\['test'\] cannot be evaluated"),
        ({"data": {"a": (X, Y), "b": (X, Y + 9)}, "metric": "loss"}, r"data\['b'\] cannot be evaluated"),
        ({"statistics": "reestimate", "train_data": (X[:, :5], Y)}, "cannot be evaluated"),
        ({"fork_at": 12}, "each training has 12 steps"),
    ],
)
def test_instability(arguments: dict[str, Any], match: str) -> None:
    if "statistics" in arguments:
        built = model("adam", 0, keras.layers.BatchNormalization())
        with pytest.raises(ValueError, match=match):
            fit(built, lth.InstabilityCallback(**{"data": {"test": (X, Y)}, "verbose": 0, **arguments}), 4)
        assert int(built.optimizer.iterations.numpy()) == 0
        return
    untouched(lth.InstabilityCallback(**{"data": {"test": (X, Y)}, "verbose": 0, **arguments}), match)


def test_the_rehearsal_leaves_nothing_behind() -> None:
    """The dense training is the one of a plain fit, noise of layers that sample at evaluation included."""

    @keras.saving.register_keras_serializable()
    class Samples(keras.layers.Layer):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.seeds = keras.random.SeedGenerator(3)

        def call(self, x: Any) -> Any:
            return x + 0.1 * keras.random.normal((12,), seed=self.seeds)

    plain, watched = model("sgd", 0, Samples()), model("sgd", 0, Samples())
    plain.fit(data(), epochs=1, verbose=0, shuffle=False)
    kept: list[Any] = []
    look = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: kept.append(weights(watched)))
    fit(watched, lth.IMPCallback(rounds=1, verbose=0), 2, beside=[look])
    for a, b in zip(weights(plain)[:4], kept[0][:4], strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_unwritable_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    untouched(lth.IMPCallback(rounds=1, directory=tmp_path / "file" / "run", verbose=0), "file", error=OSError)
    Store(tmp_path / "run")
    (tmp_path / "run" / "values").write_text("")
    untouched(lth.IMPCallback(rounds=1, directory=tmp_path / "run", verbose=0), "values", error=OSError)
    folder = tmp_path / "file" / "run"
    untouched(lth.InstabilityCallback(data={"t": (X, Y)}, directory=folder, verbose=0), "file", error=OSError)


def test_what_is_no_callback() -> None:
    for other in (keras.callbacks.EarlyStopping, "EarlyStopping", None):
        with pytest.raises(ValueError, match="callbacks must contain Keras callbacks"):
            lth.IMPCallback(callbacks=[other])


class Breaks(keras.callbacks.Callback):
    """Raises at the end of the training that is the n-th to end."""

    def __init__(self, after: int, where: str) -> None:
        super().__init__()
        self.after, self.where = after, where

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.after -= 1
        if self.after == 0 and self.where == "epoch":
            raise RuntimeError("late")

    def on_train_end(self, logs: Any = None) -> None:
        if self.after == 0 and self.where == "end":
            raise RuntimeError("late")


@pytest.mark.parametrize(("where", "after"), spread(2, ["epoch", "end"], [1, 2]))
def test_what_was_trained_stays_when_a_callback_raises(tmp_path: Path, where: str, after: int) -> None:
    built = model()
    imp = lth.IMPCallback(rounds=1, epochs_per_round=1, callbacks=[Breaks(after, where)], directory=tmp_path, verbose=0)
    with pytest.raises(RuntimeError, match="late"):
        unvalidated(built, imp, 2)
    ends = lth.IMPCallback(directory=tmp_path)  # of another process
    assert ends.trained(after - 1).differences(surgery.snapshot(built, optimizer=False)) == []
    assert ends.trained(0).step == 6
    # And the run continues from its folder.
    again = lth.IMPCallback(rounds=1, epochs_per_round=1, directory=tmp_path, verbose=0)
    unvalidated(built, again, 2)
    assert [level.remaining for level in again.history] == [144, 115]


def test_what_every_level_was_trained_to_stays(tmp_path: Path) -> None:
    ends: list[Snapshot] = []
    built = model()
    look = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda e, logs: ends.append(surgery.snapshot(built, optimizer=False))
    )
    unvalidated(built, lth.IMPCallback(rounds=3, directory=tmp_path, verbose=0), 4, beside=[look])
    kept = lth.IMPCallback(directory=tmp_path)
    assert [kept.trained(level).differences(end) for level, end in enumerate(ends)] == [[]] * 4


def test_numbers_of_numpy_are_numbers() -> None:
    imp = lth.IMPCallback(
        rounds=np.int64(1), epochs_per_round=np.int32(2), fraction=np.float32(0.2), rewind_to=np.int64(3), verbose=0
    )
    unvalidated(model(), imp, 4)
    assert [level.remaining for level in imp.history] == [144, 115]
    assert imp.machine is not None and imp.machine.rewind_step == 3
    target = lth.IMPCallback(target_density=np.float32(0.5), one_shot=True, verbose=0)
    unvalidated(model(), target, 2)
    assert target.history[1].remaining == 72
    options = {"runs": np.int64(2), "points": np.int64(3), "threshold": np.float32(0.02), "batch_size": np.int64(50)}
    stability = lth.InstabilityCallback(np.int64(0), data={"test": (X, Y)}, verbose=0, **options)
    unvalidated(model(), stability, 2)
    assert stability.threshold == 0.02 and len(stability.results[0].path.alphas) == 3
    with pytest.raises(ValueError, match="rounds must be a whole number"):
        lth.IMPCallback(rounds=np.float32(2))
