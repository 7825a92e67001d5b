from __future__ import annotations

import copy
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lth as lth
from keras_lth.rounds import noise_seed
from tests.callbacks.small import X, Y, data, fit, model, unvalidated, weights


def test_defaults_say_what_they_chose_and_leave_epochs_over(capsys: pytest.CaptureFixture[str]) -> None:
    imp = lth.IMPCallback()
    history = fit(model(), imp, 11)
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0] == (
        "IMP: 3 dense epochs, then 2 rounds, global magnitude, rewinding to initialisation: 144 ⇒ 92 weights "
        "(density 63.9%); 9 of fit's 11 epochs; judged by val_accuracy."
    )
    # The biases stay dense.
    assert lines[1] == "IMP: prunable: 144 of 160 weights (90.0%) in 2 arrays; left dense: 16 bias"
    assert lines[2].startswith("IMP round 1: 144 ⇒ 115 of 144 weights (density 79.9%); val_accuracy was 0.")
    assert lines[4].startswith("IMP: 2 rounds done; density 63.9%, val_accuracy 0.")
    assert len(lines) == 5
    assert len(history.epoch) == 9
    assert imp.summary().splitlines()[0].split() == [
        "round", "density", "weights", "val_accuracy", "matching?", "steps", "seconds",
    ]  # fmt: skip


def test_two_epochs_are_enough_and_a_plain_fit_afterwards_keeps_the_mask() -> None:
    imp = lth.IMPCallback(verbose=0)
    built = model()
    unvalidated(built, imp, 2)
    assert imp.history[1].remaining == 115
    assert sum(int(np.count_nonzero(w)) for w in weights(built)[::2]) == 115
    built.fit(X, Y, epochs=2, verbose=0)
    assert sum(int(np.count_nonzero(w)) for w in weights(built)[::2]) <= 115
    with pytest.raises(ValueError, match="at least 2 epochs"):
        unvalidated(model(), lth.IMPCallback(verbose=0), 1)


def test_target_density_is_hit_exactly() -> None:
    imp = lth.IMPCallback(target_density=0.25, verbose=0)
    unvalidated(model(), imp, 8)
    assert imp.history[-1].remaining == 36
    one = lth.IMPCallback(target_density=0.25, one_shot=True, verbose=0)
    unvalidated(model(), one, 2)
    assert [level.remaining for level in one.history] == [144, 36]


def test_layers_by_their_own_fractions() -> None:
    imp = lth.IMPCallback(rounds=2, scope="layer", fraction={"dense_1": 0.1, ".*": 0.2}, verbose=0)
    unvalidated(model(), imp, 3)
    counts = [[int(m.sum()) for m in imp.masks(r).values()] for r in range(3)]
    assert counts == [[96, 48], [77, 43], [62, 39]]


def test_only_what_is_included_is_pruned() -> None:
    imp = lth.IMPCallback(rounds=1, exclude="dense_1", verbose=0)
    built = model()
    unvalidated(built, imp, 2)
    assert list(imp.masks(1)) == ["dense/kernel"]
    assert imp.masks(1).remaining == 77
    assert np.count_nonzero(weights(built)[2]) == 48


def test_tickets_by_density() -> None:
    imp = lth.IMPCallback(rounds=4, verbose=0)
    unvalidated(model(), imp, 5)
    densities = [level.density for level in imp.history]
    assert imp.ticket(density=0.5).density == densities[3]
    assert imp.ticket(density=1).density == 1
    assert imp.ticket().density == imp.ticket(round=4).density == densities[4]
    with pytest.raises(ValueError, match=r"No level has a density near 10.00%. The levels are 0: 100.00%, 1: 79.86%"):
        imp.ticket(density=0.1)
    with pytest.raises(ValueError, match="levels 0 … 4"):
        imp.ticket(round=5)
    with pytest.raises(ValueError, match="not both"):
        imp.ticket(round=1, density=0.5)
    with pytest.raises(RuntimeError, match="no ticket"):
        lth.IMPCallback().ticket()


def test_a_ticket_trains_elsewhere_from_its_file(tmp_path: Any) -> None:
    imp = lth.IMPCallback(rounds=2, epochs_per_round=2, verbose=0)
    unvalidated(trained := model(), imp, 6)
    imp.ticket(round=2).save(tmp_path / "small.ticket")
    other = model(seed=99)
    lth.Ticket.load(tmp_path / "small.ticket").apply_to(other)
    order = data(noise_seed(3, 2))
    other.fit(order, epochs=2, verbose=0, shuffle=False)
    for found, value in zip(weights(other), weights(trained), strict=True):
        np.testing.assert_array_equal(found, value)


def test_a_callback_and_a_model_can_be_used_again_and_copies_start_afresh() -> None:
    imp = lth.IMPCallback(rounds=2, verbose=0)
    unvalidated(model(), imp, 3)
    first, twin = imp.masks(2), copy.deepcopy(imp)
    built = model()
    unvalidated(built, imp, 3)
    assert imp.masks(2) == first
    assert len(imp.history) == 3
    # On the same model IMP begins from the masks that it wears.
    unvalidated(built, imp, 3)
    assert [level.remaining for level in imp.history] == [92, 74, 59]
    lth.unmask(built)
    assert twin.history == []
    unvalidated(built, twin, 3)
    assert [level.remaining for level in twin.history] == [144, 115, 92]
    assert [level.remaining for level in imp.history] == [92, 74, 59]


def test_divergence_is_named() -> None:
    class Poison(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                self.model.layers[1].kernel.assign(np.full((12, 4), np.nan, "float32"))

    imp = lth.IMPCallback(rounds=2, epochs_per_round=1, callbacks=[], verbose=0)
    built = model()
    with pytest.raises(RuntimeError, match="Round 1 diverged: dense_1/kernel contains NaN"):
        built.fit(data(), epochs=3, callbacks=[Poison(), imp], verbose=0, shuffle=False)


def test_hidden_steps_are_named() -> None:
    built = model(steps_per_execution=4)
    with pytest.raises(ValueError, match=r'nearest steps that a callback sees are 0 and 4. Use rewind_to="0 steps"'):
        unvalidated(built, lth.IMPCallback(rounds=1, rewind_to="2 steps"), 4)
    # Step 4 is seen; with data that cannot be sought, the end of the epoch's other two steps is not.
    with pytest.raises(ValueError, match="last 2 of an epoch's 6 steps"):
        built.fit(X, Y, batch_size=16, epochs=4, verbose=0, callbacks=[lth.IMPCallback(rounds=1, rewind_to="4 steps")])
    imp = lth.IMPCallback(rounds=1, rewind_to="4 steps", verbose=0)
    unvalidated(built, imp, 4)
    assert [level.steps for level in imp.history] == [12, 8]


def test_plain_arrays_and_a_rest_of_an_epoch() -> None:
    imp = lth.IMPCallback(rounds=2, epochs_per_round=2, rewind_to=4, verbose=0)
    history = model().fit(X, Y, batch_size=16, epochs=6, callbacks=[imp], verbose=0)
    assert [level.steps for level in imp.history] == [12, 8, 8]
    assert len(history.epoch) == 6
    assert imp.history[0].monitor == "accuracy"


def test_data_that_does_not_tell_its_batches() -> None:
    def unknown() -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices((X, Y)).batch(16).filter(lambda x, y: True)

    imp = lth.IMPCallback(rounds=2, epochs_per_round=2, rewind_to=8, verbose=0)
    model().fit(unknown(), epochs=6, callbacks=[imp], verbose=0, shuffle=False)
    assert [level.steps for level in imp.history] == [12, 4, 4]
    imp = lth.IMPCallback(rounds=2, epochs_per_round=2, rewind_to=8, verbose=0)
    model(steps_per_execution=2).fit(unknown(), epochs=6, callbacks=[imp], verbose=0, shuffle=False)
    assert [level.steps for level in imp.history] == [12, 4, 4]
    with pytest.raises(ValueError, match="does not report"):
        model().fit(unknown(), epochs=6, callbacks=[lth.IMPCallback(rewind_to="1%")], verbose=0, shuffle=False)


def test_validation_now_and_then() -> None:
    imp = lth.IMPCallback(rounds=1, epochs_per_round=3, verbose=0)
    fit(model(), imp, 6, validation_freq=2)
    assert [level.monitor for level in imp.history] == ["val_accuracy"] * 2
    with pytest.raises(ValueError, match=r"monitor='val_f1' is not among the logs: accuracy, loss, val_accuracy"):
        fit(model(), lth.IMPCallback(rounds=1, monitor="val_f1", verbose=0), 2)


def test_wrong_arguments() -> None:
    for arguments, message in [
        ({"keep": "none"}, "keep must be"),
        ({"span": "all"}, "span must be"),
        ({"restore_optimizer": True, "span": "restart"}, "restore_optimizer"),
        ({"restore_optimizer": True, "keep": "trained"}, "restore_optimizer"),
        ({"rewind_to": "soon"}, "soon|Invalid duration"),
        ({"mode": "up"}, "mode must be"),
    ]:
        with pytest.raises(ValueError, match=message):
            lth.IMPCallback(**arguments)
    with pytest.raises(ValueError, match="made by keras_lth"):
        unvalidated(model(), lth.IMPCallback(data=[1]), 2)


def test_models_that_cannot_be_pruned() -> None:
    built = keras.Sequential([keras.Input((8,)), keras.layers.BatchNormalization()])
    built.compile("sgd", "mse")
    with pytest.raises(ValueError, match="prun"):
        built.fit(X, X, epochs=2, callbacks=[lth.IMPCallback()], verbose=0)
    unbuilt = keras.Sequential([keras.layers.Dense(4)])
    unbuilt.compile("sgd", "mse")
    with pytest.raises(ValueError, match="not built"):
        unbuilt.fit(X, Y, epochs=2, callbacks=[lth.IMPCallback()], verbose=0)
    with pytest.raises(ValueError, match="Adafactor"):
        unvalidated(model("adafactor"), lth.IMPCallback(), 2)


def test_fit_must_begin_at_its_first_epoch() -> None:
    with pytest.raises(ValueError, match="initial_epoch"):
        unvalidated(model(), lth.IMPCallback(verbose=0), 4, initial_epoch=1)
