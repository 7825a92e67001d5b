"""IMP from begin to end, with a rewind into the middle of an epoch, on every kind of model."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np
import pytest

import keras_lth as lth
from keras_lth.datasets import ordered
from tests.callbacks.ledger import Ledger, check, mask_of_each, masked, same_bits
from tests.callbacks.zoo import BATCH, IMAGES, KINDS, STEPS, Kind, Scale, convolutional
from tests.forms import short_if

K = 2
ROUNDS = 2


def run(kind: Kind, model: keras.Model, **options: Any) -> tuple[lth.IMPCallback, Ledger]:
    x, y = kind.data()
    imp = lth.IMPCallback(rounds=ROUNDS, rewind_to=K, also=kind.also, verbose=0, **options)
    ledger = Ledger(K)
    model.fit(ordered(x, y, batch_size=BATCH, seed=3), epochs=3, callbacks=[imp, ledger], verbose=0, shuffle=False)
    return imp, ledger


def check_ticket(imp: lth.IMPCallback, ledger: Ledger, other: keras.Model) -> None:
    """Another instance takes the ticket of the last level: the weights of step k, pruned ones 0."""
    imp.ticket().apply_to(other)
    same_bits(other.get_weights(), masked(ledger.at_k, mask_of_each(other, imp.masks(ROUNDS))))


# In the tests below, and simpler, copies or parts of others.
ELSEWHERE = ("nested", "convolutional", "sequential", "clone", "wrappers")


@pytest.mark.parametrize("name", short_if(lambda name: name not in ELSEWHERE, [n for n in KINDS if n != "unknown"]))
def test_any_model(name: str) -> None:
    kind = KINDS[name]
    model = kind.built()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        imp, ledger = run(kind, model)
    check(model, imp, ledger, kind.weights)
    assert [level.steps for level in imp.history] == [STEPS, STEPS - K, STEPS - K]
    check_ticket(imp, ledger, kind.built(seed=9))


def test_a_layer_of_unknown_kind_is_named_and_stays_dense() -> None:
    kind = KINDS["unknown"]
    model = kind.built()
    with pytest.warns(UserWarning, match=r"layers of unknown kind stay dense.*scale/table"):
        imp, ledger = run(kind, model)
    check(model, imp, ledger, kind.weights)
    assert np.count_nonzero(model.layers[0].table.numpy()) == 6
    named = kind.built()
    imp, ledger = run(kind, named, include=["kernel", "table"])
    check(named, imp, ledger, kind.weights + 6)


def test_a_loaded_model(tmp_path: Any) -> None:
    kind = Kind(convolutional, KINDS["convolutional"].weights, IMAGES)
    dense = kind.built()
    dense.fit(*kind.data(), batch_size=BATCH, epochs=1, verbose=0)
    dense.save(tmp_path / "dense.keras")
    model = keras.saving.load_model(tmp_path / "dense.keras")
    imp, ledger = run(kind, model)
    check(model, imp, ledger, kind.weights)
    check_ticket(imp, ledger, keras.saving.load_model(tmp_path / "dense.keras"))
    # What IMP leaves is saved and loaded with its zeros.
    model.save(tmp_path / "sparse.keras")
    again = keras.saving.load_model(tmp_path / "sparse.keras")
    same_bits(again.get_weights(), model.get_weights())


def test_the_round_of_a_custom_layer_survives_a_file(tmp_path: Any) -> None:
    kind = KINDS["unknown"]
    imp, ledger = run(kind, kind.built(), include="kernel")
    imp.ticket().save(tmp_path / "t.ticket")
    other = kind.built(seed=4)
    with pytest.warns(UserWarning, match="unknown kind"):
        lth.Ticket.load(tmp_path / "t.ticket").apply_to(other)
    same_bits(other.get_weights(), masked(ledger.at_k, mask_of_each(other, imp.masks(ROUNDS))))
    assert isinstance(other.layers[0], Scale)


def test_two_models_of_one_architecture_do_not_touch_each_other() -> None:
    kind = KINDS["nested"]
    first, second = kind.built(), kind.built(seed=1)
    before = [np.array(value) for value in second.get_weights()]
    one, ledger_one = run(kind, first)
    same_bits(second.get_weights(), before)
    held = [np.array(value) for value in first.get_weights()]
    two, ledger_two = run(kind, second)
    same_bits(first.get_weights(), held)
    check(first, one, ledger_one, kind.weights)
    check(second, two, ledger_two, kind.weights)
    assert one.masks(2) != two.masks(2)
    assert one.masks(2).keys() == two.masks(2).keys()
    # The same seed again: the same tickets, whatever was made in this process before.
    three, _ = run(kind, kind.built())
    assert three.masks(2) == one.masks(2)
    assert three.ticket().snapshot.same_bits(one.ticket().snapshot)
