"""Max pooling of a fused or sparse model: the same steps with a gradient of the package."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lth as lth
from keras_lth.ops.tensorflow import normalize
from tests.layers.test_fused import operations

L = keras.layers
RANDOM = np.random.default_rng(1)
X = RANDOM.normal(size=(24, 9, 8, 3)).astype(np.float32)
Y = RANDOM.integers(0, 3, 24)
FITS = {"pool_size": (3, 2)}
OTHERS: dict[str, dict[str, Any]] = {
    "overlapping": {"pool_size": 3, "strides": 2},
    "padded": {"pool_size": 2, "padding": "same"},
    "with a rest": {"pool_size": 2},
    "half": {**FITS, "dtype": "mixed_bfloat16"},
}


def network(**pool: Any) -> keras.Model:
    keras.utils.set_random_seed(2)
    conv = L.Conv2D(6, 3, padding="same", activation="relu")
    layers = [conv, L.MaxPooling2D(name="pool", **pool), L.Flatten(), L.Dense(3)]
    model = keras.Sequential([keras.Input((9, 8, 3)), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss, jit_compile=False)
    return model


def fit(model: keras.Model, **options: Any) -> keras.Model:
    model.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0, **options)
    return model


def fast(model: keras.Model) -> bool:
    """Whether the gradient of the pooling is the package's in a new trace; else it is TensorFlow's."""

    @tf.function(autograph=False)
    def step(x: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x, training=True))
        return tape.gradient(loss, [v.value for v in model.trainable_variables])

    found = operations(step.get_concrete_function(tf.TensorSpec((None, *X.shape[1:]))))
    assert ("KerasLthMaxPoolGrad" in found) != ("MaxPoolGrad" in found)
    return "KerasLthMaxPoolGrad" in found


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The windows of each pooling of the package that is traced."""
    sizes: list[Any] = []
    pool = normalize.max_pool
    monkeypatch.setattr(normalize, "max_pool", lambda x, size: sizes.append(size) or pool(x, size))
    return sizes


def test_a_step_before_and_after(pools: list[Any]) -> None:
    """Of a model that has trained: its functions are traced again, and end with Keras' bits."""
    plain, ours = fit(fit(network(**FITS))), fit(network(**FITS))
    assert not fast(ours) and not pools
    report = lth.fuse(ours)
    assert report.pools == 1 and "1 MaxPooling2D layers have a faster gradient" in str(report)
    fit(ours)
    assert pools == [(3, 2)] and fast(ours)
    for a, b in zip(plain.variables, ours.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    assert lth.fuse(ours) == report
    # It says that it is Keras' layer, to whoever saves or clones it.
    assert type(keras.models.clone_model(ours).layers[1]) is L.MaxPooling2D
    assert ours.layers[1].get_config() == plain.layers[1].get_config()


@pytest.mark.parametrize("name", OTHERS)
def test_other_windows_run_as_in_keras(name: str) -> None:
    plain, ours = (network(**OTHERS[name]) for _ in range(2))
    # Whether an image has a rest is seen when it comes.
    assert lth.fuse(ours).pools == (name in ("padded", "with a rest"))
    fit(plain), fit(ours)
    assert not fast(ours)
    for a, b in zip(plain.variables, ours.variables, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("options", [{"jit_compile": True}, {"run_eagerly": True}], ids=str)
def test_ways_of_running(options: dict[str, Any]) -> None:
    plain, ours = (network(**FITS) for _ in range(2))
    lth.fuse(ours)
    for model in (plain, ours):
        model.compile(keras.optimizers.SGD(0.1), model.loss, **options)
        fit(model)
    for a, b in zip(plain.variables, ours.variables, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_sparse_model_has_it() -> None:
    model = network(**FITS)
    masks = {path: np.abs(v.numpy()) > 0.1 for path, v in lth.prunable(model).items()}
    lth.sparsify(model, masks, only_if_faster=False)
    fit(model)
    assert fast(model)
