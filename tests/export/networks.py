"""Networks for the tests of this folder."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

import keras_lth as lth

layers = keras.layers


def vgg(widths: tuple[Any, ...] = (8, "M", 16, 16, "M", 32, "M"), size: int = 32, classes: int = 10) -> keras.Model:
    """Convolutions 3×3 with normalisation and ReLU, "M" for pooling by two; then a dense layer."""
    x = inputs = keras.Input((size, size, 3))
    for width in widths:
        if width == "M":
            x = layers.MaxPooling2D()(x)
        else:
            x = layers.Conv2D(width, 3, padding="same")(x)
            x = layers.ReLU()(layers.BatchNormalization()(x))
    return keras.Model(inputs, layers.Dense(classes, "softmax")(layers.Flatten()(x)), name="vgg")


def shake(model: keras.Model, seed: int = 0) -> keras.Model:
    """Give every weight that begins as 0 or 1 a value of its own, so that one that is left out shows."""
    random = np.random.default_rng(seed)
    for variable in model.variables:
        value = keras.ops.convert_to_numpy(variable)
        if variable.dtype == "float32" and len(np.unique(value)) == 1:
            low = 0.5 if "variance" in variable.path or "gamma" in variable.path else -0.5
            variable.assign(random.uniform(low, 1.5, value.shape).astype(np.float32))
    return model


def prune(model: keras.Model, density: float, **options: Any) -> keras.Model:
    """Mask a model at random."""
    scores = lth.criteria.Magnitude()(model)
    lth.mask(model, lth.select(scores, density=density, scope="layer", **options))
    return model


def check(model: keras.Model, batch: int = 3, tolerance: float = 2e-5) -> lth.export.Compiled:
    """Raises unless the compiled model gives what Keras gives."""
    x = np.random.default_rng(1).standard_normal((batch, *model.input_shape[1:])).astype(np.float32)
    compiled = lth.export.compile(model)
    wanted, got = np.asarray(model(x)), compiled(x)
    assert got.dtype == np.float32
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance * max(1.0, float(np.abs(wanted).max())))
    return compiled
