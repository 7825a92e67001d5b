"""The small networks, and small forms of the large ones, compute and learn."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest

import keras_lth as lth
from keras_lth import models

CLASSES = 4
# Each family at about its least size; the long form has those that take seconds to trace or hold many parameters.
SMALL = {
    "mlp": ((5,), {"widths": (20, 10)}),
    "lenet_5": ((16, 16, 1), {}),
    "conv_4": ((4, 4, 3), {}),
    "resnet_cifar": ((8, 8, 3), {"depth": 8, "width": 4}),
    "resnet_imagenet": ((16, 16, 3), {"depth": 18, "width": 4}),
}
LARGE = {
    "conv_8": ((16, 16, 3), {}),
    "vgg_11": ((16, 16, 3), {}),
    "resnet_18_modified": ((8, 8, 3), {}),
    "wrn_14_8": ((8, 8, 3), {}),
    "resnet_50": ((32, 32, 3), {}),
    "inception_v3": ((75, 75, 3), {"auxiliary": False}),
    "alexnet": ((63, 63, 3), {}),
}
FORMS = [*SMALL, *(pytest.param(name, marks=pytest.mark.proof) for name in LARGE)]


def build(name: str, seed: int, **more) -> keras.Model:
    shape, options = (SMALL | LARGE)[name]
    return getattr(models, name)(shape, CLASSES, seed=seed, **options, **more)


@pytest.mark.parametrize("name", FORMS)
def test_a_masked_network_learns(name):
    model = build(name, 1)
    masks = lth.select(lth.criteria.Magnitude()(model), density=0.5)
    lth.mask(model, masks)
    rng = np.random.default_rng(0)
    x, y = rng.random((8, *model.input_shape[1:]), dtype=np.float32), rng.integers(0, CLASSES, 8)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01), loss, run_eagerly=True)
    before = {path: np.array(kernel) for path, kernel in lth.prunable(model).items()}
    logits = model.predict_on_batch(x)
    assert logits.shape == (8, CLASSES)
    assert np.isfinite(logits).all()
    assert np.unique(logits).size > logits.size / 2
    assert np.isfinite(model.train_on_batch(x, y))
    for path, kernel in lth.prunable(model).items():
        moved = np.asarray(kernel) != before[path]
        assert moved.any(), path
        assert not moved[~masks[path]].any()


@pytest.mark.parametrize("name", FORMS)
def test_a_seed_is_one_network_and_another_seed_another(name):
    found = []
    for number, seed in enumerate((1, 1, 2)):
        keras.utils.set_random_seed(number)
        found.append(build(name, seed, bias="uniform"))
    first, again, other = ({v.path: np.asarray(v) for v in model.trainable_variables} for model in found)
    assert list(first) == list(again) == list(other)
    for path, value in first.items():
        np.testing.assert_array_equal(value, again[path])
        assert np.mean(value == other[path]) < 0.5 or path.endswith("beta"), path
    # No two layers have the same values.
    starts = [value.ravel()[:4].tobytes() for path, value in first.items() if path.endswith("kernel")]
    assert len(set(starts)) == len(starts)


def number(layer: keras.Layer) -> int:
    """The number at the end of a name that Keras made: 3 of conv2d_3, 0 of conv2d."""
    return int((re.findall(r"_(\d+)$", layer.name) or ["0"])[0])


@pytest.mark.proof
def test_inception_is_that_of_keras_applications():
    shape = (75, 75, 3)
    ours = models.inception_v3(shape, CLASSES, seed=1, auxiliary=False, gamma="ones", padding="same")
    theirs = keras.applications.InceptionV3(
        weights=None, input_shape=shape, pooling="avg", classes=CLASSES, classifier_activation=None
    )
    # Their names end with a number, from the first block to the last and in it from left to right; ours sort so.
    convolutions, norms = (
        sorted((layer for layer in theirs.layers if isinstance(layer, kind)), key=number)
        for kind in (keras.layers.Conv2D, keras.layers.BatchNormalization)
    )
    own = sorted((layer for layer in ours.layers if isinstance(layer, keras.layers.Conv2D)), key=lambda c: c.name)
    rng = np.random.default_rng(0)
    for layer, conv, norm in zip(own, convolutions, norms, strict=True):
        conv.kernel.assign(layer.kernel)
        beta, mean = rng.normal(size=(2, layer.filters)) * 0.1
        variance = rng.uniform(0.5, 2, layer.filters)
        norm.set_weights([beta, mean, variance])
        ours.get_layer(layer.name.replace("conv", "norm")).set_weights([np.ones_like(beta), beta, mean, variance])
    theirs.layers[-1].set_weights(ours.get_layer("output").get_weights())
    x = rng.random((2, *shape), dtype=np.float32)
    np.testing.assert_allclose(ours.predict(x, verbose=0), theirs.predict(x, verbose=0), rtol=1e-3, atol=1e-4)


def test_dropout_is_a_function_of_the_seed():
    x = np.ones((1, 200), np.float32)

    def dropped(seed: int) -> np.ndarray:
        made = models.parts.Parts("net", (200,), 1, seed, {}, image=False)
        return np.asarray(made.model(made.dropped(made.inputs(), "dropout"))(x, training=True))

    np.testing.assert_array_equal(dropped(1), dropped(1))
    assert (dropped(1) != dropped(2)).any()
    assert 0.3 < np.mean(dropped(1) == 0) < 0.7


@pytest.mark.parametrize(
    ("name", "arguments", "named"),
    [
        ("mlp", {"widths": (3, 0)}, "mlp: each of widths must be an integer of at least 1, got 0"),
        ("lenet_5", {"input_shape": (28, 28)}, "lenet_5: input_shape must be .height, width, channels."),
        ("conv_8", {"input_shape": (8, 32, 3)}, "conv_8: input_shape must have .* at least 16, got .8, 32, 3."),
        ("conv_n", {"pairs": 5}, "conv_n: pairs must be an integer from 1 to 4, got 5"),
        ("conv_n", {"pairs": 1, "width": 0}, "width.*1.*0"),
        ("vgg_16", {"input_shape": (8, 8, 3)}, "at least 16"),
        ("inception_v3", {"input_shape": (298, 299, 3)}, "at least 299"),
        ("inception_v3", {"input_shape": (74, 74, 3), "auxiliary": False}, "at least 75"),
        ("alexnet", {"input_shape": (62, 62, 3)}, "at least 63"),
        ("resnet_imagenet", {"depth": 20}, "depth must be one of 18, 34, 50, 101, 152, got 20"),
        ("resnet_imagenet", {"depth": 18, "inside": 2}, "inside must be 1 below depth 50"),
        ("resnet_50", {"mean": (0.5,) * 3}, "std"),
        ("resnet_50", {"classes": 0}, "classes"),
    ],
)
def test_bad_arguments_are_named(name, arguments, named):
    with pytest.raises(ValueError, match=named):
        getattr(models, name)(**{"input_shape": (32, 32, 3), "seed": 0, **arguments})
