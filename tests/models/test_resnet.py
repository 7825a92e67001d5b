from __future__ import annotations

import importlib

import keras
import numpy as np
import pytest

import keras_lth as lth
from keras_lth import training
from keras_lth.datasets import ordered
from keras_lth.models import resnet_20, resnet_cifar


def convolved(x, kernel, stride):
    """A convolution whose image has a border of zeros, the same on both sides."""
    size = kernel.shape[0]
    n, height, width, _ = x.shape
    x = np.pad(x, ((0, 0), (size // 2, size // 2), (size // 2, size // 2), (0, 0)))
    out = np.zeros((n, -(-height // stride), -(-width // stride), kernel.shape[-1]))
    for i in range(out.shape[1]):
        for j in range(out.shape[2]):
            window = x[:, i * stride : i * stride + size, j * stride : j * stride + size]
            out[:, i, j] = np.einsum("nhwc,hwco->no", window, kernel)
    return out


def logits(model, x):
    """The network as it is written in the paper, from the weights by name; statistics as they are."""

    def conv_norm(x, name, stride=1, number=""):
        x = convolved(x, np.asarray(model.get_layer(f"{name}conv{number}").kernel), stride)
        gamma, beta, mean, variance = map(np.asarray, model.get_layer(f"{name}norm{number}").get_weights())
        return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta

    x = np.maximum(conv_norm(x, ""), 0)
    for stage in (1, 2, 3):
        for block in (1, 2, 3):
            name, begins = f"stage{stage}_block{block}_", stage > 1 and block == 1
            y = np.maximum(conv_norm(x, name, 2 if begins else 1, "1"), 0)
            y = conv_norm(y, name, 1, "2")
            x = np.maximum(y + (conv_norm(x, f"{name}shortcut_", 2) if begins else x), 0)
    kernel, bias = model.get_layer("output").get_weights()
    return x.mean((1, 2)) @ kernel + bias


def test_parameter_counts_are_the_published_ones():
    model = resnet_20((32, 32, 3), seed=0)
    assert model.count_params() == 274_042  # thesis, table 4.1: 274 K
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == 272_474
    # 20 layers and two shortcuts: 3·16 + 6·16·16, 16·32 + 5·32·32, 32·64 + 5·64·64 windows of nine; 1×1; dense.
    nines = 3 * 16 + 6 * 16**2 + 16 * 32 + 5 * 32**2 + 32 * 64 + 5 * 64**2
    kernels = lth.prunable(model)
    assert sum(int(np.prod(v.shape)) for v in kernels.values()) == 9 * nines + 16 * 32 + 32 * 64 + 640 == 270_896
    assert (len(kernels), model.output_shape) == (22, (None, 10))


@pytest.mark.parametrize("shape", [(8, 8, 3), (7, 5, 1)])
def test_logits_are_the_papers(shape):
    model = resnet_20(shape, 4, seed=5)
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = layer.get_weights()
            layer.set_weights([gamma, beta + 0.1, rng.normal(size=mean.shape), variance * rng.uniform(0.5, 2)])
    x = rng.random((2, *shape), dtype=np.float32)
    np.testing.assert_allclose(model(x), logits(model, x), rtol=1e-3, atol=1e-4)


def test_the_model_normalises_its_input():
    plain = resnet_cifar((8, 8, 3), seed=1, depth=8)
    normalised = resnet_cifar((8, 8, 3), seed=1, depth=8, mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0))
    x = np.random.default_rng(0).random((2, 8, 8, 3), dtype=np.float32)
    expected = plain((x - [0.1, 0.2, 0.3]) / [0.5, 1.0, 2.0])
    np.testing.assert_allclose(normalised(x), expected, rtol=1e-4, atol=1e-5)


def test_kernels_are_he_normal_and_scales_uniform():
    model = resnet_20((32, 32, 3), seed=2)
    for path, kernel in lth.prunable(model).items():
        value = np.asarray(kernel)
        fan_in = value.size // value.shape[-1]
        assert np.std(value) == pytest.approx(np.sqrt(2 / fan_in), rel=5 / np.sqrt(2 * value.size)), path
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    scales = np.concatenate([np.asarray(layer.gamma) for layer in norms])
    assert (len(norms), scales.size) == (21, 784)
    assert 0 <= scales.min() < 0.01
    assert 0.99 < scales.max() < 1
    assert scales.mean() == pytest.approx(0.5, abs=5 / np.sqrt(12 * 784))
    assert {(layer.momentum, layer.epsilon) for layer in norms} == {(0.9, 1e-5)}


def test_a_seed_is_one_network_and_another_seed_another():
    first, again, other = (lth.prunable(resnet_20((8, 8, 3), seed=seed)) for seed in (1, 1, 2))
    for path, kernel in first.items():
        np.testing.assert_array_equal(kernel, again[path])
        assert np.mean(np.asarray(kernel) == np.asarray(other[path])) < 0.01
    same = [np.asarray(first[f"stage1_block{b}_conv1/kernel"]) for b in (2, 3)]
    assert np.mean(same[0] == same[1]) < 0.01


def test_weight_decay_is_in_the_gradient():
    decayed, plain = (resnet_cifar((8, 8, 1), 3, seed=1, depth=8, weight_decay=decay) for decay in (0.01, 0.0))
    x, y = np.random.default_rng(0).random((4, 8, 8, 1)), np.array([0, 1, 2, 0])
    before = [np.asarray(v) for v in plain.trainable_variables]
    for model in (decayed, plain):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.5), loss, run_eagerly=True)
        model.train_on_batch(x, y)
    for old, a, b in zip(before, decayed.trainable_variables, plain.trainable_variables, strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b) - 0.5 * 0.01 * old, atol=2e-6)


def test_a_masked_network_learns_a_batch_under_xla():
    model = resnet_cifar((8, 8, 1), 4, seed=3, depth=8)
    masks = lth.select(lth.criteria.Magnitude()(model), density=0.2)
    lth.mask(model, masks)
    rng = np.random.default_rng(0)
    x, y = rng.random((16, 8, 8, 1), dtype=np.float32), rng.integers(0, 4, 16)
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=True,
    )  # fmt: skip
    history = training.fit(model, ordered(x, y, batch_size=16, seed=1), epochs=12).history["loss"]
    assert history[-1] < history[0] / 2
    for path, kernel in lth.prunable(model).items():
        assert not np.asarray(kernel)[~masks[path]].any()
        assert np.asarray(kernel)[masks[path]].any()
    lth.unmask(model)
    model.compile(model.optimizer, model.loss, run_eagerly=True)
    model.train_on_batch(x, y)
    kernel, mask = np.asarray(lth.prunable(model)["stage2_block1_conv2/kernel"]), masks["stage2_block1_conv2/kernel"]
    assert np.mean(kernel[~mask] != 0) > 0.9


@pytest.mark.parametrize(("name", "data", "channels"), [("cifar10", "cifar10", 3), ("fashion_mnist",) * 2 + (1,)])
def test_configs_are_the_thesis(name, data, channels):
    config = importlib.import_module(f"keras_lth.configs.resnet_20_{name}").get_config()
    setting = (config.data, config.batch_size, config.steps, config.fraction, config.optimizer.learning_rate)
    assert setting == (data, 128, 63_000, 0.2, 0.1)
    assert (config.schedule.drops, config.schedule.factor) == ((32_000, 48_000), 0.1)
    assert (config.optimizer.name, config.optimizer.weight_decay) == ("momentum", 1e-4)
    model = getattr(lth.models, config.model)((8, 8, channels), 10, seed=0, **config.model_options)
    assert model.get_layer("normalized") is not None
    ordered(np.zeros((4, 8, 8, channels)), batch_size=2, seed=0, augment=config.augment)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"input_shape": (32, 32)}, "input_shape"),
        ({"input_shape": (32, 0, 3)}, "input_shape"),
        ({"classes": 0}, "classes"),
        ({"seed": -1}, "seed"),
        ({"seed": True}, "seed"),
        ({"weight_decay": -1e-4}, "weight_decay"),
        ({"weight_decay": float("nan")}, "weight_decay"),
        ({"mean": (0.5,), "std": (1.0, 1.0, 1.0)}, "mean must have a number for each of 3 channels"),
        ({"mean": (0.5,) * 3}, "std"),
        ({"mean": (0.5,) * 3, "std": (1.0, 0.0, 1.0)}, "std .* above 0"),
    ],
)
def test_bad_arguments_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        resnet_20(**{"input_shape": (32, 32, 3), "seed": 0, **arguments})
