"""Options that the networks share, against loops and closed forms."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_lth.models import conv_2, parts, resnet_cifar

X = np.random.default_rng(0).random((2, 9, 8, 3), dtype=np.float32)


def windows(x, size, stride, pad):
    """[place, place, image, size, size, channel]: each window of images with a border of zeros on all sides."""
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    rows, columns = ((side - size) // stride + 1 for side in x.shape[1:3])
    at = [[x[:, i * stride :, j * stride :][:, :size, :size] for j in range(columns)] for i in range(rows)]
    return np.array(at)


def applied(add, **options):
    """What a layer makes of X, and its kernel, if it has one."""
    made = parts.Parts("net", X.shape[1:], 1, 5, options)
    model = made.model(add(made, made.inputs()))
    return np.moveaxis(model.predict(X, verbose=0), 0, 2), model.layers[-1].weights


@pytest.mark.parametrize(("size", "stride", "pad"), [(7, 2, 3), (3, 2, 1), (11, 4, 2), (3, 1, 0), (1, 2, 0)])
def test_a_convolution_pads_both_sides_equally(size, stride, pad):
    got, (kernel, bias) = applied(lambda p, x: p.conv(x, "conv", 4, size, stride, pad=pad, bias=True))
    expected = np.einsum("ijnhwc,hwco->ijno", windows(X, size, stride, pad), kernel) + bias
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_pools_pad_both_sides_equally():
    got, _ = applied(lambda p, x: p.max_pool(x, "pool", 3, 2, pad=1))
    np.testing.assert_array_equal(got, windows(X, 3, 2, 1).max((3, 4)))
    got, _ = applied(lambda p, x: p.average_pool(x, "pool", 3, pad=1))
    np.testing.assert_allclose(got, windows(X, 3, 1, 1).mean((3, 4)), rtol=1e-5)
    same, _ = applied(lambda p, x: p.average_pool(x, "pool", 3, pad=1), padding="same")
    np.testing.assert_allclose(same[0, 0], got[0, 0] * 9 / 4, rtol=1e-5)  # four of nine are in the image


def test_padding_is_keras_own_on_request():
    x = X[:, :8]
    symmetric, same = (resnet_cifar((8, 8, 3), 2, seed=1, depth=8, width=4, padding=p) for p in ("symmetric", "same"))
    names = [{layer.name for layer in model.layers} for model in (symmetric, same)]
    assert names[0] - names[1] == {"stage2_block1_pad1", "stage3_block1_pad1"}
    assert not names[1] - names[0]
    for a, b in zip(symmetric.weights, same.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.abs(symmetric.predict(x, verbose=0) - same.predict(x, verbose=0)).max() > 1e-3


@pytest.mark.parametrize(
    ("name", "variance", "normal"),
    [
        ("he_normal", 2 / 144, True), ("he_normal_fan_out", 2 / 576, True), ("he_uniform", 2 / 144, False),
        ("glorot_normal", 2 / 720, None), ("glorot_uniform", 2 / 720, False), ("lecun_normal", 1 / 144, None),
    ],
)  # fmt: skip
def test_initialisers(name, variance, normal):
    draw = parts.INITIALIZERS[name]
    value = np.asarray(draw(3)((3, 3, 16, 64)))
    assert np.std(value) == pytest.approx(np.sqrt(variance), rel=5 / np.sqrt(2 * value.size))
    reach = np.abs(value).max() / np.sqrt(variance)
    # In deviations: at most √3 if uniform, 2.27 if a truncated normal; of 9216 normal values some are beyond 3.5.
    assert (reach > 3.5) if normal else reach <= (1.7321 if normal is False else 2.2738)
    np.testing.assert_array_equal(value, draw(3)((3, 3, 16, 64)))
    assert np.mean(value == np.asarray(draw(4)((3, 3, 16, 64)))) < 0.01


def test_biases_of_pytorch_on_request():
    zeros, uniform = (conv_2((8, 8, 3), seed=1, bias=bias) for bias in ("zeros", "uniform"))
    for layer in uniform.layers:
        if not layer.weights:
            continue
        kernel, bias = map(np.asarray, layer.weights)
        np.testing.assert_array_equal(kernel, zeros.get_layer(layer.name).weights[0])
        assert not np.asarray(zeros.get_layer(layer.name).weights[1]).any()
        bound = 1 / np.sqrt(kernel.size // kernel.shape[-1])
        assert 0.5 * bound < np.abs(bias).max() <= bound
        assert len(np.unique(bias)) > 0.9 * bias.size


@pytest.mark.parametrize("gamma", ["uniform", "ones"])
def test_normalisations(gamma):
    model = resnet_cifar((8, 8, 3), 4, seed=1, depth=8, gamma=gamma, momentum=0.99, epsilon=1e-3)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {(layer.momentum, layer.epsilon) for layer in norms} == {(0.99, 1e-3)}
    scales = np.concatenate([np.asarray(layer.gamma) for layer in norms])
    assert len(np.unique(scales)) == (1 if gamma == "ones" else pytest.approx(scales.size, rel=0.01))
    assert scales.mean() == (1 if gamma == "ones" else pytest.approx(0.5, abs=5 / np.sqrt(12 * scales.size)))
    assert not any(np.asarray(layer.beta).any() for layer in norms)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"initializer": "he"}, "initializer must be one of he_normal, .*'he'"),
        ({"gamma": 1}, "gamma must be one of uniform, ones"),
        ({"bias": "ones"}, "bias"),
        ({"padding": "valid"}, "padding"),
        ({"momentum": 1.0}, "momentum must be at least 0 and below 1"),
        ({"epsilon": -1e-5}, "epsilon must be at least 0, got"),
        ({"depth": 18}, "depth must be 6n [+] 2, such as 14, 20, got 18"),
        ({"depth": 2}, "depth must be an integer of at least 8"),
        ({"width": 0}, "width"),
    ],
)
def test_bad_options_are_named(options, named):
    with pytest.raises(ValueError, match=f"resnet_cifar: .*{named}|resnet_cifar: {named}"):
        resnet_cifar((8, 8, 3), seed=0, **{"depth": 8, **options})


def test_an_unknown_option_is_named():
    with pytest.raises(TypeError, match=r"resnet_cifar has no option gama; options are initializer, .*gamma"):
        resnet_cifar((8, 8, 3), seed=0, depth=8, gama="ones")
