"""Layers that others take over: a ReLU behind a stored kernel, and for inference a normalisation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lth as lth
from keras_lth import surgery

L = keras.layers
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(1.5, 2.0, size=(24, 6, 6, 3)).astype(np.float32)
Y = RANDOM.normal(size=(24, 2)).astype(np.float32)


def network() -> keras.Model:
    """Normalised with and without bias and ReLU; read twice; in a model inside; a ReLU behind a bias."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 3))
    x = L.Conv2D(8, 3, padding="same", use_bias=False)(inputs)
    x = L.ReLU()(L.BatchNormalization()(x))
    twice = L.BatchNormalization(scale=False)(L.Conv2D(8, 3, padding="same")(x))
    x = L.Activation("relu")(L.Add()([x, twice]))
    x = L.ReLU()(L.Conv2D(8, 3, padding="same", bias_initializer="normal")(x))
    kept = L.Conv2D(8, 1)(x)
    x = L.Add()([L.BatchNormalization(name="kept")(kept), kept])
    x = keras.Sequential([keras.Input((6, 6, 8)), L.Flatten(), L.Dense(9), L.BatchNormalization(center=False)])(x)
    model = keras.Model(inputs, L.Dense(2)(x))
    for number, variable in enumerate(model.variables):
        if "moving" in variable.path:
            variable.assign(np.linspace(0.5, 1.5, variable.shape[0]) + number % 3)
    lth.mask(model, lth.select(lth.criteria.Magnitude()(model), density=0.3))
    return model


@pytest.fixture(scope="module")
def folded() -> tuple[keras.Model, keras.Model]:
    """A masked model, and what becomes of it for inference."""
    plain, model = network(), network()
    report = lth.sparsify(model, only_if_faster=False, training=False)
    assert len(report.sparse) == len(report.rows) == 6
    return plain, model


def close(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_inference_is_the_same_without_the_normalisations(folded: tuple[keras.Model, keras.Model]) -> None:
    plain, model = folded
    close(model.predict(X, verbose=0), plain.predict(X, verbose=0))
    close(model(X), plain(X))
    function = tf.function(lambda x: model(x, training=False)).get_concrete_function(tf.TensorSpec((None, 6, 6, 3)))
    kinds = [op.type for op in function.graph.get_operations()]
    assert kinds.count("FusedBatchNormV3") == 1  # the one whose input somebody else reads
    assert lth.masks_of(model) == lth.masks_of(plain)


def test_files_hold_the_same_function(folded: tuple[keras.Model, keras.Model], tmp_path: Path) -> None:
    plain, model = folded
    model.save(tmp_path / "m.keras")
    close(keras.saving.load_model(tmp_path / "m.keras").predict(X, verbose=0), plain.predict(X, verbose=0))
    model.export(tmp_path / "saved", verbose=False)
    served = tf.saved_model.load(tmp_path / "saved")
    close(served.serve(X), plain.predict(X, verbose=0))
    close(lth.export.compile(model)(X), plain.predict(X, verbose=0))


@pytest.mark.parametrize(
    ("wrong", "value", "remedy"),
    [({"include": ["no_such"]}, "no_such", "include"), ({"block": 2}, "2x2", "block"), ({"batch_size": 0}, "0", "1")],
)
def test_what_is_refused_folds_nothing(wrong: dict[str, Any], value: str, remedy: str) -> None:
    model = network()
    before = {path: variable.numpy() for path, variable in surgery.variables(model).items()}
    with pytest.raises(ValueError, match=f"(?s){value}.*{remedy}|{remedy}.*{value}"):
        lth.sparsify(model, only_if_faster=False, training=False, **wrong)
    after = surgery.variables(model)
    assert after.keys() == before.keys()
    for path, array in before.items():
        np.testing.assert_array_equal(after[path], array)


def test_twice_is_once(folded: tuple[keras.Model, keras.Model]) -> None:
    plain, model = folded
    lth.sparsify(model, only_if_faster=False, training=False)
    close(model.predict(X, verbose=0), plain.predict(X, verbose=0))
    lth.densify(model)
    close(model.predict(X, verbose=0), plain.predict(X, verbose=0))


def test_a_relu_behind_a_stored_kernel_is_part_of_its_product() -> None:
    plain, model = network(), network()
    lth.sparsify(model, only_if_faster=False)
    for one in (plain, model):
        one.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse", jit_compile=False)
        one.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    lth.densify(model)
    for path, value in surgery.variables(plain).items():
        close(surgery.variables(model)[path], value)
    lth.sparsify(model, only_if_faster=False)

    @tf.function
    def gradients(x: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x, training=True))
        return tape.gradient(loss, model.trainable_variables)

    function = gradients.get_concrete_function(tf.TensorSpec((None, 6, 6, 3)))
    needed, left = set(), [one.op for one in function.graph.outputs]
    while left:
        op = left.pop()
        if op.name not in needed:
            needed.add(op.name)
            left += [one.op for one in op.inputs]
    kinds = [function.graph.get_operation_by_name(name).type for name in needed]
    assert kinds.count("KerasLthMaskedSums") == 1
    assert not {"Relu", "ReluGrad"} & set(kinds)
