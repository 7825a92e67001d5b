"""IMP takes the names that Keras shows, and says before the first step what cannot work."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest

import keras_lth as lth

L = keras.layers


def model() -> keras.Model:
    layers = [L.Dense(8, name=f"dense_{i}") for i in (1, 2, 3)]
    built = keras.Sequential([keras.Input((8,)), *layers])
    built.compile("sgd", "mse")
    return built


def fit(built: keras.Model, **options: object) -> lth.IMPCallback:
    imp = lth.IMPCallback(verbose=0, **options)
    x = np.ones((16, 8), np.float32)
    built.fit(x, x, epochs=2, verbose=0, callbacks=[imp])
    return imp


def test_each_layer_by_its_name() -> None:
    built = model()
    fit(built, rounds=np.int64(1), scope="layer", fraction={"dense_3": 0.0, "dense_2": np.float32(0.5), ".*": 0.25})
    assert [np.count_nonzero(layer.kernel.numpy()) for layer in built.layers] == [48, 32, 64]
    built = model()
    imp = fit(built, rounds=1, exclude="dense_1")
    assert built.layers[0].kernel.numpy().all() and imp.masks(1).size == 128


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"scope": "layer", "fraction": {"dense_9": 0.5, ".*": 0.2}},
            "fraction='dense_9' matches no weight; similar:",
        ),
        ({"include": "dense_9"}, "include='dense_9' matches no prunable weight; similar:"),
        ({"exclude": "dense_9"}, "exclude='dense_9' matches no weight; similar:"),
        ({"also": "dense_9"}, "also='dense_9' matches no prunable weight; similar:"),
        ({"min_per_layer": 60}, "min_per_layer=60.0 needs 180 weights in 3 layers, but only 154 would remain"),
    ],
)
def test_what_cannot_work_fails_before_the_first_step(options: dict, words: str) -> None:
    built = model()
    before = built.get_weights()
    with pytest.raises(ValueError, match=words):
        fit(built, rounds=1, **options)
    assert all(np.array_equal(a, b) for a, b in zip(before, built.get_weights(), strict=True))


def test_the_floor_holds_and_emptied_layers_are_told_once() -> None:
    def uneven() -> keras.Model:
        built = model()
        built.layers[0].kernel.assign(built.layers[0].kernel.numpy() * 1e-4)
        return built

    built = uneven()
    imp = fit(built, one_shot=True, target_density=0.1, min_per_layer=2)
    assert imp.masks(1).remaining == 19 and min(row.remaining for row in imp.masks(1).table()) == 2
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        fit(uneven(), one_shot=True, target_density=0.1)
    assert [str(w.message).split(":")[0] for w in record if "empty" in str(w.message)] == ["1 of 3 layers are empty"]
