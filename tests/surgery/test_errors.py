"""What bad input gets: an error that names the thing."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from keras_lth import surgery

L = keras.layers
EYE = np.eye(4) > 0


def network() -> keras.Model:
    return keras.Sequential([keras.Input((4,)), L.Dense(4), L.Dense(4, name="head")])


def test_unbuilt_model() -> None:
    model = keras.Sequential([L.Dense(2)], name="lonely")
    with pytest.raises(ValueError, match="'lonely' is not built"):
        surgery.prunable(model)


def test_nothing_prunable() -> None:
    with pytest.raises(ValueError, match="no prunable weight"):
        surgery.prunable(keras.Sequential([keras.Input((4,)), L.BatchNormalization()]))
    with pytest.raises(ValueError, match=r"excluded \(dense/kernel, head/kernel\)"):
        surgery.prunable(network(), exclude=".")


def test_filters() -> None:
    with pytest.raises(ValueError, match=r"include='tail' matches no prunable weight.*head/kernel"):
        surgery.prunable(network(), include="tail")
    with pytest.raises(ValueError, match="include='tail' matches no prunable weight"):
        surgery.prunable(network(), include=["head", "tail"])
    with pytest.raises(ValueError, match="not a regular expression"):
        surgery.prunable(network(), include="(")
    with pytest.raises(TypeError, match="regular expressions or functions, not 3"):
        surgery.prunable(network(), exclude=[3])


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        ({"tail/kernel": EYE}, "tail/kernel"),
        ({"head/kernel": np.ones((4, 3), bool)}, "head/kernel"),
        ({"head/kernel": np.full((4, 4), 0.5)}, "head/kernel"),
    ],
)
def test_wrong_masks_change_nothing(masks: dict[str, Any], words: str) -> None:
    model = network()
    before = surgery.snapshot(model)
    with pytest.raises(ValueError, match=words):
        surgery.mask(model, masks)
    assert surgery.snapshot(model).same_bits(before)
    assert not surgery.masks_of(model)
    with pytest.raises(TypeError, match="mapping"):
        surgery.mask(model, [EYE])


def test_masks_of_another_instance_are_taken_by_order() -> None:
    model = network()
    surgery.mask(model, {"a": EYE, "b": ~EYE})
    assert dict(surgery.masks_of(model)).keys() == {"dense/kernel", "head/kernel"}
    assert np.array_equal(surgery.masks_of(model)["head/kernel"], ~EYE)


def test_lora_and_quantised_layers_are_named() -> None:
    model = network()
    model.layers[1].enable_lora(2)
    with pytest.raises(ValueError, match="'head' has LoRA enabled"):
        surgery.prunable(model)
    with pytest.raises(ValueError, match="'head' has LoRA enabled"):
        surgery.mask(model, {"head/kernel": EYE})
    assert list(surgery.prunable(model, exclude="head")) == ["dense/kernel"]
    model = network()
    model.quantize("int8")
    with pytest.raises(ValueError, match="'dense' is quantised"):
        surgery.prunable(model)


# Muon came with Keras 3.10.
@pytest.mark.parametrize(
    "optimizer", [vars(keras.optimizers)[name] for name in ("Adafactor", "Muon") if name in vars(keras.optimizers)]
)
def test_optimizers_that_couple_weights(optimizer: Any) -> None:
    name = optimizer.__name__
    model = network()
    model.compile(optimizer(0.01), "mse")
    with pytest.raises(ValueError, match=name):
        surgery.mask(model, {"head/kernel": EYE})
    assert not surgery.masks_of(model)
    # Brought by a later compile.
    model.compile("sgd", "mse")
    surgery.mask(model, {"head/kernel": EYE})
    model.compile(optimizer(0.01), "mse")
    x = np.ones((4, 4), np.float32)
    with pytest.raises(ValueError, match=name):
        model.fit(x, x, verbose=0)
    # Wrapped by loss scaling.
    model.compile(keras.optimizers.LossScaleOptimizer(optimizer(0.01)), "mse")
    with pytest.raises(ValueError, match=name):
        model.fit(x, x, verbose=0)
    model.compile("sgd", "mse")
    model.fit(x, x, verbose=0)
    assert np.count_nonzero(model.layers[1].kernel.numpy()[~EYE]) == 0


def test_a_layer_without_weights_left_is_named() -> None:
    with pytest.warns(UserWarning, match="head/kernel"):
        surgery.mask(network(), {"head/kernel": np.zeros((4, 4), bool)})
