from __future__ import annotations

import hashlib

import keras
import numpy as np
import pytest

from keras_lth.models import lenet_300_100
from keras_lth.models.lenet import he_normal, layer_seed


def kernels(model: keras.Model) -> dict[str, np.ndarray]:
    return {name: np.asarray(model.get_layer(name).kernel) for name in ("fc1", "fc2", "output")}


def test_parameter_counts_are_the_published_ones():
    model = lenet_300_100((28, 28, 1), seed=0)
    assert model.count_params() == 266_610
    assert sum(kernel.size for kernel in kernels(model).values()) == 784 * 300 + 300 * 100 + 100 * 10 == 266_200
    assert model.output_shape == (None, 10)


def test_logits_are_two_relu_layers_and_an_affine_one():
    model = lenet_300_100((2, 3), 4, seed=5)
    x = np.linspace(-2, 2, 18, dtype=np.float32).reshape(3, 2, 3)
    value = x.reshape(3, 6)
    for name, kernel in kernels(model).items():
        bias = np.asarray(model.get_layer(name).bias)
        assert not bias.any()
        value = value @ kernel
        value = np.maximum(value, 0) if name != "output" else value
    assert (value < 0).any()
    np.testing.assert_allclose(model.predict(x, verbose=0), value, rtol=1e-5, atol=1e-6)


def test_glorot_normal_by_default_he_normal_on_request():
    glorot, he = (kernels(lenet_300_100((28, 28), seed=2, initializer=i)) for i in (None, he_normal))
    for name, fan_in, fan_out in (("fc1", 784, 300), ("fc2", 300, 100), ("output", 100, 10)):
        size = fan_in * fan_out
        within = 5 / np.sqrt(2 * size)  # five standard errors of a standard deviation
        assert np.std(glorot[name]) == pytest.approx(np.sqrt(2 / (fan_in + fan_out)), rel=within)
        assert np.std(he[name]) == pytest.approx(np.sqrt(2 / fan_in), rel=within)
    # Truncated at two standard deviations a unit normal has deviation 0.8796.
    bound = 2 / 0.87962566 * np.sqrt(2 / (784 + 300))
    assert np.abs(glorot["fc1"]).max() <= bound * (1 + 1e-6)
    assert np.abs(he["fc1"]).max() > 4 * np.sqrt(2 / 784)


def test_a_seed_is_one_network_and_another_seed_another():
    first, again, other = (kernels(lenet_300_100((8, 8, 1), seed=seed)) for seed in (1, 1, 2))
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
        assert np.mean(first[name] == other[name]) < 0.01


def test_layer_seeds_are_sha256_of_seed_and_name():
    digest = hashlib.sha256(b"7/fc2").hexdigest()
    assert layer_seed(7, "fc2") == int(digest[:8], 16) % 2**31
    assert layer_seed(7, "fc2") != layer_seed(7, "fc1")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"input_shape": (), "seed": 0}, "input_shape"),
        ({"input_shape": (28, 0), "seed": 0}, "input_shape"),
        ({"input_shape": (None, 28), "seed": 0}, "input_shape"),
        ({"input_shape": (28, 28), "classes": 0, "seed": 0}, "classes"),
        ({"input_shape": (28, 28), "seed": -1}, "seed"),
        ({"input_shape": (28, 28), "seed": 1.5}, "seed"),
    ],
)
def test_bad_arguments_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        lenet_300_100(**arguments)
