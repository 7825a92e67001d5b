"""Ticket.apply_to: a ticket sets everything that its training started from."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_lth as lth
from keras_lth import criteria, selection, surgery
from keras_lth.masks import Masks
from keras_lth.tickets import Snapshot, Ticket

X = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
Y = X[:, :3]


def keras_model(units: int = 5) -> Any:
    layers = [keras.Input((4,)), keras.layers.Dense(units), keras.layers.BatchNormalization()]
    layers += [keras.layers.Dropout(0.1, seed=1), keras.layers.Dense(3)]
    return keras.Sequential(layers)


def falling() -> keras.optimizers.Optimizer:
    """The rate falls from step 10 on, by a hundred."""
    return keras.optimizers.Adam(keras.optimizers.schedules.PiecewiseConstantDecay([10], [1e-2, 1e-4]))


def trained(steps: int, optimizer: Any = None) -> keras.Model:
    keras.utils.set_random_seed(1)
    model = keras_model()
    model.compile(optimizer or falling(), "mse")
    model.fit(X, Y, batch_size=8, epochs=1, steps_per_epoch=steps, shuffle=False, verbose=0)
    return model


@pytest.mark.parametrize("slots", [False, True])
def test_step_schedule_statistics_and_slots(tmp_path: Path, slots: bool) -> None:
    first = trained(7)
    taken = surgery.snapshot(first)
    ticket = Ticket(selection.select(criteria.Magnitude()(first), density=0.4), taken, keep_slots=slots)
    ticket.save(tmp_path / "t.ticket")
    second = trained(1)
    lth.mask(second, {"dense/kernel": np.arange(20).reshape(4, 5) % 2 > 0})
    loaded = Ticket.load(tmp_path / "t.ticket")
    loaded.apply_to(second)
    assert int(second.optimizer.iterations.numpy()) == taken.step == 7 and loaded.snapshot.has_slots == slots
    now = surgery.snapshot(second)
    expected = ticket.masks.apply(taken.weights)
    assert all(now.weights[path].tobytes() == expected[path].tobytes() for path in expected)
    assert np.any(now.weights["batch_normalization/moving_mean"])
    mask = ticket.masks["dense/kernel"]
    (key,) = [name for name in now.optimizer if "momentum" in name and name.endswith("dense/kernel")]
    moment, before = now.optimizer[key], taken.optimizer[key]
    assert np.array_equal(moment, np.where(mask, before, 0) if slots else np.zeros_like(before))
    # Four more steps, up to that with count 10, then the rate is a hundredth.
    for steps, least, most in ((4, 1e-3, 1), (1, 0, 1e-3)):
        start = surgery.snapshot(second).weights["dense/kernel"]
        second.fit(X, Y, batch_size=8, steps_per_epoch=steps, shuffle=False, verbose=0)
        moved = np.abs(surgery.snapshot(second).weights["dense/kernel"] - start).max()
        assert least < moved < most


def test_the_masks_of_another_ticket_come_off() -> None:
    model = trained(1)
    lth.mask(model, {"dense_1/kernel": np.zeros((5, 3), bool)})
    mask = {"dense/kernel": np.arange(20).reshape(4, 5) % 2 > 0}
    Ticket(Masks(mask), surgery.snapshot(model)).apply_to(model)
    assert list(lth.masks_of(model)) == ["dense/kernel"]
    model.fit(X, Y, batch_size=8, verbose=0)
    assert np.count_nonzero(model.layers[-1].kernel.numpy()) == 15


def test_some_weights_of_a_model_whose_layers_have_other_names() -> None:
    def named(*names: str) -> keras.Model:
        return keras.Sequential([keras.Input((4,)), *(keras.layers.Dense(4, name=name) for name in names)])

    first, second = named("a", "b"), named("x", "y")
    ticket = Ticket(Masks({"b/kernel": np.eye(4) > 0}), surgery.snapshot(first))
    ticket.apply_to(second)
    assert list(lth.masks_of(second)) == ["y/kernel"]
    assert np.array_equal(second.layers[1].kernel.numpy(), first.layers[1].kernel.numpy() * np.eye(4))
    lth.rewind(third := named("x", "y"), ticket.snapshot, ticket.masks)
    assert lth.masks_of(third) == lth.masks_of(second)


def test_without_an_optimizer_it_says_what_is_lost() -> None:
    ticket = Ticket(Masks({"dense/kernel": np.ones((4, 5), bool)}), surgery.snapshot(trained(3)))
    with pytest.warns(UserWarning, match=r"step 3.*compile"):
        ticket.apply_to(keras_model())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        start = Snapshot(ticket.snapshot.weights, seeds=ticket.snapshot.seeds)
        Ticket(ticket.masks, start).apply_to(keras_model())


def test_a_ticket_trains_elsewhere_from_its_file_alone(tmp_path: Path) -> None:
    first = keras_model()
    masks = selection.select(criteria.Magnitude()(first), density=0.4)
    assert masks.remaining == 14  # 0.4 × (4 × 5 + 5 × 3)
    Ticket(masks, surgery.snapshot(first), {"criterion": "magnitude"}).save(tmp_path / "t")

    second = keras_model()
    assert second.layers[0].name != first.layers[0].name
    loaded = Ticket.load(tmp_path / "t")
    loaded.apply_to(second)
    assert surgery.masks_of(second) == masks
    expected = masks.apply(loaded.snapshot.weights)
    for path, array in surgery.snapshot(second).weights.items():
        assert array.tobytes() == expected[path].tobytes(), path

    second.compile("adam", "mse")
    second.fit(X, Y, epochs=1, batch_size=8, verbose=0)
    trained = surgery.snapshot(second).weights
    for path, mask in masks.items():
        assert (trained[path][~mask] == 0).all() and (trained[path][mask] != expected[path][mask]).any()

    other = keras_model(units=6)
    before = surgery.snapshot(other)
    with pytest.raises(ValueError, match=r"these weights do not fit the model: .*\(4, 5\), expected \(4, 6\)"):
        loaded.apply_to(other)
    assert surgery.snapshot(other).same_bits(before) and len(surgery.masks_of(other)) == 0


def test_an_unbuilt_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"not built.*'dense' have no weights yet.*call it on a batch"):
        Ticket(Masks({}), Snapshot({})).apply_to(keras.Sequential([keras.layers.Dense(3)]))
