from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lth import surgery
from keras_lth.analysis import Evaluator, linear_path
from keras_lth.datasets import ordered


def compiled(*layers, inputs=(4,), **settings):
    model = keras.Sequential([keras.Input(inputs), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"], **settings)
    return model


@pytest.fixture
def data():
    rng = np.random.default_rng(1)
    return rng.normal(size=(50, 4)).astype(np.float32), rng.integers(0, 3, 50)


def two_ends(model, data):
    a = surgery.snapshot(model)
    model.fit(*data, epochs=2, verbose=0)
    return a, surgery.snapshot(model)


def by_hand(weights, x, y):
    hidden = np.maximum(x @ weights["dense/kernel"] + weights["dense/bias"], 0)
    logits = hidden @ weights["dense_1/kernel"] + weights["dense_1/bias"]
    return float(np.mean(logits.argmax(1) != y))


@pytest.mark.parametrize("settings", [{}, {"jit_compile": True, "steps_per_execution": 3}, {"run_eagerly": True}])
def test_a_model_path_equals_numpy_and_leaves_the_model_alone(data, settings):
    model = compiled(keras.layers.Dense(6, "relu"), keras.layers.Dropout(0.5), keras.layers.Dense(3), **settings)
    a, b = two_ends(model, data)
    model.fit(*data, verbose=0)
    before = surgery.snapshot(model)
    path = linear_path(a, b, model=model, data=data, points=7, batch_size=20)

    def mixed(alpha):
        return {p: alpha * a.weights[p] + (1 - alpha) * b.weights[p] for p in a.weights}

    expected = [by_hand(mixed(alpha), *data) for alpha in path.alphas]
    np.testing.assert_allclose(path.errors, expected, atol=1e-6)
    assert path.measure == "1 − accuracy"
    assert surgery.snapshot(model).differences(before) == []
    assert all(float(m.result()) == 0 for m in model.metrics if m.name == "loss")


def test_one_function_for_all_points(data):
    model = compiled(keras.layers.Dense(3))
    a, b = two_ends(model, data)
    traced = []
    step = model.test_step

    def counting(batch):
        traced.append(1)
        return step(batch)

    model.test_step = counting
    # Once for the batches in the loop, once for the last one, whatever the number of points and networks.
    with Evaluator(model, data, batch_size=20) as evaluate:
        linear_path(a, b, evaluate, points=5)
        linear_path(b, a, evaluate, points=3)
    with evaluate:
        evaluate(a.weights)
    assert len(traced) <= 3


def test_predictions_are_those_of_the_model(data):
    model = compiled(keras.layers.Dense(6, "relu"), keras.layers.Dense(3))
    a, b = two_ends(model, data)
    with Evaluator(model, data, batch_size=20) as evaluate:
        one, other = evaluate.predictions(a.weights), evaluate.predictions(b.weights)
    assert one.errors / 50 == pytest.approx(by_hand(a.weights, *data))
    model.set_weights(list(b.weights.values()))
    logits = model.predict(data[0], verbose=0)
    assert (other.classes == logits.argmax(1)).all() and (other.labels == data[1]).all()
    assert other.losses.mean() == pytest.approx(model.evaluate(*data, verbose=0)[0], rel=1e-5)
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    plain.compile("sgd", "mse")
    with Evaluator(plain, (data[0], data[1].astype(np.float32)), metric="loss") as evaluate:
        assert evaluate.predictions(surgery.snapshot(plain).weights) is None


def test_datasets_and_ordered_give_the_same_and_ordered_stays_where_it_is(data):
    model = compiled(keras.layers.Dense(3))
    a, b = two_ends(model, data)
    x, y = data
    in_order = ordered(x, y, batch_size=8, seed=5)
    in_order.seek(3)
    arrays, batches, walk = (
        linear_path(a, b, model=model, data=d, points=4).errors
        for d in (data, tf.data.Dataset.from_tensor_slices((x, y)).batch(7), in_order)
    )
    np.testing.assert_allclose(batches, arrays, atol=1e-6)
    np.testing.assert_allclose(walk, arrays, atol=1e-6)
    assert in_order.position == (5, 3)


def test_metric_is_an_argument(data):
    model = compiled(keras.layers.Dense(3))
    a, b = two_ends(model, data)
    path = linear_path(a, b, model=model, data=data, points=3, metric="loss")
    model.set_weights(list(b.weights.values()))
    assert path.measure == "loss"
    assert path.errors[0] == pytest.approx(model.evaluate(*data, verbose=0)[0], rel=1e-5)
    with pytest.raises(ValueError, match=r"no metric 'auc', only accuracy, loss|no metric 'auc', only loss, accuracy"):
        linear_path(a, b, model=model, data=data, metric="auc")
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    plain.compile("sgd", "mse")
    with pytest.raises(ValueError, match="no accuracy, only loss"):
        linear_path(a, b, model=plain, data=(data[0], np.zeros((50, 3))))


def test_a_masked_path_keeps_zeros_and_foreign_weights_are_refused(data):
    model = compiled(keras.layers.Dense(6, "relu"), keras.layers.Dense(3))
    dense = surgery.snapshot(model)
    mask = np.random.default_rng(2).random((4, 6)) < 0.4
    surgery.mask(model, {"dense/kernel": mask})
    a, b = two_ends(model, data)
    zeros = []
    step = model.test_step

    def seeing(batch):
        zeros.append(tf.reduce_sum(tf.abs(model.layers[0].kernel._value[~mask])))
        return step(batch)

    model.run_eagerly, model.test_step = True, seeing
    path = linear_path(a, b, model=model, data=data, points=5)
    assert [float(z) for z in zeros] == [0.0] * 5
    np.testing.assert_allclose(path.errors[-1], by_hand(a.weights, *data), atol=1e-6)
    assert surgery.masks_of(model)["dense/kernel"].tolist() == mask.tolist()
    with pytest.raises(ValueError, match=f"second network has {int((~mask).sum())} non-zero weights in dense/kernel"):
        linear_path(a, dense, model=model, data=data)


def test_batch_norm_treatments(data):
    x = data[0]
    x = (x * [1, 2, 3, 4] + [5, 6, 7, 8]).astype(np.float32)
    y = data[1]
    norm = keras.layers.BatchNormalization(epsilon=0.5, momentum=0.9, scale=False, center=False)
    model = compiled(norm, keras.layers.Dense(3))
    a = surgery.snapshot(model)
    weights = dict(a.weights)
    weights["batch_normalization/moving_mean"] = np.array([5, 6, 7, 8], np.float32)
    weights["batch_normalization/moving_variance"] = np.array([2, 5, 10, 17], np.float32)
    b = {**weights, "dense/kernel": -weights["dense/kernel"] + 0.3}

    def error(mean, variance, alpha):
        kernel = alpha * weights["dense/kernel"] + (1 - alpha) * b["dense/kernel"]
        logits = (x - mean) / np.sqrt(variance + 0.5) @ kernel
        shifted = logits - logits.max(1, keepdims=True)
        return float(np.mean(np.log(np.exp(shifted).sum(1)) - shifted[np.arange(50), y]))

    of_b = weights["batch_normalization/moving_mean"], weights["batch_normalization/moving_variance"]
    of_data = x.astype(float).mean(0), x.astype(float).var(0)

    def between(alpha):
        return (1 - alpha) * of_b[0], alpha * 1 + (1 - alpha) * of_b[1]

    expected = {
        "interpolate": between,
        "first": lambda alpha: (0.0, 1.0),
        "second": lambda alpha: of_b,
        # 50 examples in batches of 16, 16, 16, 2: the moments of all examples, not of batches on average.
        "reestimate": lambda alpha: of_data,
    }
    before = surgery.snapshot(model)
    for statistics, moments in expected.items():
        path = linear_path(
            a,
            b,
            model=model,
            data=(x, y),
            metric="loss",
            points=4,
            statistics=statistics,
            batch_size=16,
            train_data=(x, y),
        )
        np.testing.assert_allclose(path.errors, [error(*moments(t), t) for t in path.alphas], rtol=2e-5)
        assert path.statistics == statistics
    assert surgery.snapshot(model).differences(before) == []
    assert norm.momentum == 0.9


def test_reestimate_is_repeatable_under_dropout_and_leaves_frozen_layers(data):
    frozen = keras.layers.BatchNormalization(trainable=False)
    model = compiled(
        keras.layers.Dropout(0.5, seed=1), frozen, keras.layers.BatchNormalization(), keras.layers.Dense(3)
    )
    a = surgery.snapshot(model)
    with Evaluator(model, data, metric="loss", batch_size=10, train_data=data) as evaluate:
        first, second = evaluate(a.weights), evaluate(a.weights)
        held = surgery.snapshot(model).weights
        assert held["batch_normalization/moving_mean"].tolist() == [0, 0, 0, 0]
        assert held["batch_normalization_1/moving_mean"].any()
    assert first == second
    assert surgery.snapshot(model).differences(a) == []


def test_an_error_puts_the_weights_back(data):
    model = compiled(keras.layers.Dense(3))
    a, _ = two_ends(model, data)
    before = surgery.snapshot(model)
    with pytest.raises(ValueError, match="dense/bias"), Evaluator(model, data) as evaluate:
        evaluate(a.weights)
        evaluate({"dense/kernel": a.weights["dense/kernel"]})
    assert surgery.snapshot(model).differences(before) == []


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (np.zeros((3, 4)), "ndarray"),
        ((np.zeros((3, 4)),), "tuple of length 1"),
        ((np.zeros((3, 4)), np.zeros(4)), r"shapes \[\(3, 4\), \(4,\)\]"),
        ((np.zeros((0, 4)), np.zeros(0)), "length ≥ 1"),
        (tf.data.Dataset.range(3).repeat(), "endless"),
    ],
)
def test_data_of_another_kind_is_refused(bad, match):
    with pytest.raises(ValueError, match=match):
        Evaluator(compiled(keras.layers.Dense(3)), bad)


def test_a_model_must_be_built_and_compiled(data):
    with pytest.raises(ValueError, match="not built"):
        Evaluator(keras.Sequential([keras.layers.Dense(3)]), data)
    with pytest.raises(ValueError, match="not compiled"):
        Evaluator(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]), data)
