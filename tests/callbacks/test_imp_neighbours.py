"""Other callbacks of Keras in one fit with IMP, outside and inside."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_lth as lth
from tests.callbacks.ledger import Ledger, mask_of_each, no_pruned_weight, same_bits
from tests.callbacks.small import STEPS, X, Y, data, fit, model, unvalidated

C = keras.callbacks


def remaining(path: Path, other: keras.Model) -> int:
    """Weights of the two kernels in a file that are not 0, read into a model that knows no mask."""
    other.load_weights(path)
    return sum(int(np.count_nonzero(layer.kernel.numpy())) for layer in other.layers)


def bare() -> keras.Model:
    return keras.models.clone_model(model(seed=5))


def test_a_checkpoint_outside_saves_masked_weights(tmp_path: Path) -> None:
    every = C.ModelCheckpoint(tmp_path / "{epoch:02d}.weights.h5", save_weights_only=True)
    whole = C.ModelCheckpoint(tmp_path / "best.keras", save_best_only=True, monitor="val_loss")
    imp = lth.IMPCallback(rounds=2, epochs_per_round=2, rewind_to=4, verbose=0)
    fit(built := model(), imp, 6, beside=[every, whole])
    other = bare()
    counts = [remaining(tmp_path / f"{epoch:02d}.weights.h5", other) for epoch in range(1, 7)]
    assert counts == [144, 144, 115, 115, 92, 92]
    best = keras.saving.load_model(tmp_path / "best.keras")
    losses = built.history.history["val_loss"]
    kept = sum(int(np.count_nonzero(layer.kernel.numpy())) for layer in best.layers)
    assert kept == counts[int(np.argmin(losses))]
    assert best.evaluate(X, Y, verbose=0)[0] == pytest.approx(min(losses), rel=1e-5)


def test_a_best_checkpoint_inside_begins_anew_each_round(tmp_path: Path) -> None:
    path = tmp_path / "best.weights.h5"
    best = C.ModelCheckpoint(path, save_weights_only=True, save_best_only=True, monitor="val_loss")
    saved: list[tuple[float, int]] = []
    other = bare()

    class Look(C.Callback):
        def on_train_end(self, logs: Any = None) -> None:
            saved.append((best.best, remaining(path, other)))

    imp = lth.IMPCallback(rounds=2, epochs_per_round=2, callbacks=[best, Look()], verbose=0)
    history = fit(model(), imp, 6).history["val_loss"]
    assert [count for _, count in saved] == [144, 115, 92]
    np.testing.assert_allclose([b for b, _ in saved], [min(history[i : i + 2]) for i in (0, 2, 4)])


def test_early_stopping_inside_gives_back_its_best_weights_of_the_round() -> None:
    """What is pruned, and what the level's score speaks of, are the weights of the round's best epoch."""
    seen: list[list[np.ndarray]] = []

    class Keep(C.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seen.append([np.array(w) for w in self.model.get_weights()])

    # The loss falls, so that the epoch with the largest is not the last one.
    stop = C.EarlyStopping(monitor="val_loss", mode="max", patience=1, restore_best_weights=True)
    imp = lth.IMPCallback(rounds=2, epochs_per_round=4, callbacks=[Keep(), stop], verbose=0)
    built = model()
    logs = fit(built, imp, 12).history
    history, accuracies = logs["val_loss"], logs["val_accuracy"]
    lengths = [level.steps // STEPS for level in imp.history]
    begin = 0
    for round, length in enumerate(lengths[:2]):
        losses = history[begin : begin + length]
        kept = seen[begin + int(np.argmax(losses))]
        size = np.concatenate([np.abs(kept[0]).ravel(), np.abs(kept[2]).ravel()])
        now, after = imp.masks(round), imp.masks(round + 1)
        bits = np.concatenate([after[path].ravel() for path in after])
        were = np.concatenate([now[path].ravel() for path in now])
        assert size[were & ~bits].max() <= size[bits].min()
        assert imp.history[round].logs["val_loss"] == max(losses)
        assert imp.history[round].score == accuracies[begin + int(np.argmax(losses))]
        begin += length
    assert [level.remaining for level in imp.history] == [144, 115, 92]
    assert begin + lengths[2] == len(history)
    no_pruned_weight(built.get_weights(), mask_of_each(built, imp.masks(2)))


def test_the_rate_of_a_plateau_inside_goes_back_each_round() -> None:
    ledger = Ledger(0)
    plateau = C.ReduceLROnPlateau(monitor="loss", mode="max", factor=0.1, patience=1, min_delta=1e9)
    imp = lth.IMPCallback(rounds=2, epochs_per_round=3, callbacks=[plateau], verbose=0)
    unvalidated(model(lambda: keras.optimizers.SGD(0.1)), imp, 9, beside=[ledger])
    firsts = ledger.rates[::STEPS]
    # The first epoch of a round sets the best; none after it is better by 1e9.
    np.testing.assert_allclose(firsts, [0.1, 0.1, 0.01] * 3, rtol=1e-6)


def test_a_plateau_outside_is_warned_of() -> None:
    plateau = C.ReduceLROnPlateau(monitor="loss", mode="max", factor=0.1, patience=1, min_delta=1e9)
    imp = lth.IMPCallback(rounds=2, epochs_per_round=3, verbose=0)
    built = model(lambda: keras.optimizers.SGD(0.1))
    with pytest.warns(UserWarning, match="ReduceLROnPlateau beside IMP"):
        unvalidated(built, imp, 9, beside=[plateau, ledger := Ledger(0)])
    # The rate itself goes back with the weights; what it waits for does not.
    np.testing.assert_allclose(ledger.rates[:: 3 * STEPS], [0.1] * 3, rtol=1e-6)


def test_loggers_outside_see_every_epoch_once(tmp_path: Path) -> None:
    imp = lth.IMPCallback(rounds=2, epochs_per_round=2, rewind_to=4, verbose=0)
    neighbours = [C.CSVLogger(str(tmp_path / "log.csv")), C.TerminateOnNaN(), C.History()]
    history = fit(model(), imp, 6, beside=neighbours)
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    assert [int(row["epoch"]) for row in rows] == history.epoch == list(range(6))
    np.testing.assert_allclose([float(row["val_loss"]) for row in rows], history.history["val_loss"], rtol=1e-6)
    assert [level.logs["val_loss"] for level in imp.history] == [history.history["val_loss"][i] for i in (1, 3, 5)]


def test_nan_ends_the_fit_and_keeps_the_finished_levels() -> None:
    class Poison(C.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 2:
                self.model.layers[1].bias.assign(np.full(4, np.nan, "float32"))

    imp = lth.IMPCallback(rounds=2, epochs_per_round=2, verbose=0)
    history = unvalidated(model(), imp, 6, beside=[Poison(), C.TerminateOnNaN()])
    assert len(history.epoch) == 3
    assert [level.round for level in imp.history] == [0]
    assert imp.ticket(round=1).masks.remaining == 115


def test_a_callback_list_is_taken_as_a_list() -> None:
    imp = lth.IMPCallback(rounds=1, epochs_per_round=1, verbose=0)
    built = model(lambda: keras.optimizers.SGD(0.1))
    stop = C.EarlyStopping(monitor="loss", patience=9)
    listed = C.CallbackList([imp, stop], add_history=True, model=built, epochs=2, steps=6)
    with pytest.warns(UserWarning, match="EarlyStopping beside IMP"):
        built.fit(data(), epochs=2, callbacks=listed, verbose=0, shuffle=False)
    assert [level.remaining for level in imp.history] == [144, 115]


@pytest.mark.parametrize("inside", [False, True])
def test_a_backup_is_refused_before_any_training(tmp_path: Path, inside: bool) -> None:
    backup = C.BackupAndRestore(str(tmp_path))
    imp = lth.IMPCallback(rounds=1, callbacks=[backup] if inside else [], verbose=0)
    built = model()
    before = [np.array(value) for value in built.get_weights()]
    with pytest.raises(ValueError, match=r"BackupAndRestore .*remove it.*A run with directory=…"):
        fit(built, imp, 2, beside=[] if inside else [backup])
    same_bits(built.get_weights(), before)
    stability = lth.InstabilityCallback(data={"all": (X, Y)}, callbacks=[backup] if inside else [], verbose=0)
    with pytest.raises(ValueError, match=r"BackupAndRestore .*remove it.* Instability\.$"):
        fit(built, stability, 2, beside=[] if inside else [backup])
