"""The Masked wrapper in models that nobody masked with keras_lth.mask."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lth as lth
from keras_lth import Masks, surgery
from keras_lth.layers import Masked
from tests.forms import short_if

L = keras.layers
X = np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(32, 2)).astype(np.float32)
KERNEL = np.random.default_rng(2).normal(size=(6, 5)).astype(np.float32)
HEAD = np.random.default_rng(3).normal(size=(5, 2)).astype(np.float32)
MASK = np.random.default_rng(4).random((6, 5)) < 0.4


def fit(model: keras.Model, epochs: int = 2, **options: Any) -> None:
    model.fit(X, Y, batch_size=8, epochs=epochs, shuffle=False, verbose=0, **options)


class Scattered(keras.layers.Layer):
    """A dense layer that has only the surviving weights, in one vector."""

    def build(self, shape: Any) -> None:
        self.values = self.add_weight(shape=(int(MASK.sum()),), name="values")
        self.values.assign(KERNEL[MASK])

    def call(self, x: Any) -> Any:
        kernel = tf.scatter_nd(np.argwhere(MASK).astype(np.int32), tf.convert_to_tensor(self.values), MASK.shape)
        return tf.tanh(tf.matmul(x, kernel))


def by_hand(**options: Any) -> Masked:
    return Masked(L.Dense(5, activation="tanh", use_bias=False, **options), MASK)


def start(model: keras.Model, first: np.ndarray) -> keras.Model:
    model.set_weights([first, HEAD])
    return model


@pytest.mark.parametrize(
    "options",
    # In a graph clipping by the global norm is in the next test.
    short_if(
        lambda options: len(options) == 2 or "run_eagerly" in options,
        [{}, {"run_eagerly": True}, {"jit_compile": True}, {"jit_compile": True, "steps_per_execution": 4}],
    ),
    ids=["graph", "eager", "jit", "jit_spe"],
)
def test_zero_is_zero_and_as_if_absent_with_clipping_by_the_global_norm(options: dict[str, Any]) -> None:
    head = {"use_bias": False}
    masked = start(keras.Sequential([keras.Input((6,)), by_hand(), L.Dense(2, **head)]), np.where(MASK, KERNEL, 0))
    absent = start(keras.Sequential([keras.Input((6,)), Scattered(), L.Dense(2, **head)]), KERNEL[MASK])
    for model in (masked, absent):
        model.compile(keras.optimizers.Adam(0.01, global_clipnorm=0.05), "mse", **options)
        fit(model)
    assert "apply" not in vars(masked.optimizer)
    kernel = masked.layers[0].layer.kernel.numpy()
    assert np.count_nonzero(kernel[~MASK]) == 0
    np.testing.assert_allclose(kernel[MASK], absent.layers[0].values.numpy(), rtol=0, atol=1e-6)
    np.testing.assert_allclose(masked.layers[1].kernel.numpy(), absent.layers[1].kernel.numpy(), rtol=0, atol=1e-6)
    assert np.abs(kernel - np.where(MASK, KERNEL, 0)).max() > 1e-3
    assert np.count_nonzero(masked.optimizer._momentums[0].numpy()[~MASK]) == 0


def test_a_subclassed_model_built_by_its_first_fit() -> None:
    class Sub(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.body = by_hand(kernel_regularizer="l2")
            self.head = L.Dense(2)

        def call(self, x: Any) -> Any:
            return self.head(self.body(x))

    model = Sub()
    model.compile(keras.optimizers.Adam(0.01, global_clipnorm=0.05), "mse")
    fit(model)
    assert list(surgery.prunable(model)) == ["body/kernel", "head/kernel"]
    assert np.count_nonzero(model.body.layer.kernel.numpy()[~MASK]) == 0
    assert np.count_nonzero(model.optimizer._momentums[0].numpy()[~MASK]) == 0
    assert np.count_nonzero(model.body.layer.kernel.numpy()[MASK]) == MASK.sum()


@pytest.mark.parametrize("make_input", [lambda: keras.Input((6,)), lambda: X[:2]], ids=["symbolic", "eager"])
def test_pruned_weights_are_zero_once_built(make_input: Any) -> None:
    layer = by_hand()
    layer(make_input())
    assert np.count_nonzero(layer.layer.kernel.numpy()[~MASK]) == 0
    assert layer.mask == Masks({"kernel": MASK})


def test_built_inside_a_symbolic_build() -> None:
    class Outer(keras.layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.inner = by_hand()

        def call(self, x: Any) -> Any:
            return self.inner(x)

    model = keras.Sequential([Outer(), L.Dense(2)])
    model.compile("adam", "mse")
    fit(model, 1)
    assert np.count_nonzero(model.layers[0].inner.layer.kernel.numpy()[~MASK]) == 0


def test_saved_and_loaded_with_the_model(tmp_path: Path) -> None:
    lstm = {"cell/kernel": np.random.default_rng(5).random((5, 12)) < 0.5}
    model = keras.Sequential(
        [keras.Input((6,)), by_hand(), L.Reshape((1, 5)), Masked(L.LSTM(3), lstm), Masked(L.Dense(2))]
    )
    model.compile(keras.optimizers.Adam(0.01), "mse")
    fit(model)
    masks = surgery.masks_of(model)
    assert list(masks) == ["dense/kernel", "lstm/cell/kernel"]
    model.save(tmp_path / "m.keras")
    model.save_weights(tmp_path / "m.weights.h5")

    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert surgery.masks_of(loaded) == masks
    np.testing.assert_array_equal(loaded(X), model(X))
    clone = keras.models.clone_model(model)
    assert not surgery.masks_of(clone)
    clone.load_weights(tmp_path / "m.weights.h5")
    assert surgery.masks_of(clone) == masks
    clone.compile(keras.optimizers.Adam(0.01), "mse")
    for copy in (loaded, clone):
        fit(copy)
        assert np.count_nonzero(copy.layers[0].layer.kernel.numpy()[~MASK]) == 0
        assert len(copy.variables) == len(model.variables)


def test_mask_of_surgery_reaches_it_and_changes_it() -> None:
    model = keras.Sequential([keras.Input((6,)), by_hand(), Masked(L.Dense(2))])
    model.compile("adam", "mse")
    fit(model, 1)
    surgery.mask(model, {"dense/kernel": ~MASK, "dense_1/kernel": np.eye(5, 2) > 0})
    fit(model, 1)
    assert np.count_nonzero(model.layers[0].layer.kernel.numpy()[MASK]) == 0
    assert np.count_nonzero(model.layers[1].layer.kernel.numpy()) == 2
    assert model.layers[1].mask == Masks({"kernel": np.eye(5, 2) > 0})


def test_a_full_mask_changes_nothing_with_statistics_noise_and_losses_inside() -> None:
    """What the wrapped layer assigns and adds as losses meanwhile is not lost."""

    def network(wrap: Any) -> keras.Model:
        keras.utils.set_random_seed(0)
        block = keras.Sequential(
            [
                keras.Input((6,)),
                L.Dense(5, kernel_regularizer="l2", activity_regularizer="l1"),
                L.BatchNormalization(momentum=0.5),
                L.Dropout(0.3, seed=1),
            ]
        )
        model = keras.Sequential([keras.Input((6,)), wrap(block), L.Dense(2)])
        model.compile(keras.optimizers.SGD(0.05), "mse")
        fit(model)
        return model

    plain = network(lambda layer: layer)
    wrapped = network(lambda layer: Masked(layer, {"dense/kernel": np.ones((6, 5), bool)}))
    a, b = surgery.snapshot(plain), surgery.snapshot(wrapped)
    for x, y in ((a.weights, b.weights), (a.seeds, b.seeds)):
        assert [v.shape for v in x.values()] == [v.shape for v in y.values()]
        for (path, u), v in zip(x.items(), y.values(), strict=True):
            np.testing.assert_allclose(u, v, rtol=0, atol=1e-6, err_msg=path)
    assert plain.evaluate(X, Y, verbose=0) == pytest.approx(wrapped.evaluate(X, Y, verbose=0), abs=1e-6)


def test_mixed_precision_keeps_the_policy_of_the_layer() -> None:
    model = keras.Sequential([keras.Input((6,)), by_hand(dtype="mixed_bfloat16"), L.Dense(2, dtype="float32")])
    assert model.layers[0].compute_dtype == "bfloat16"
    model.compile(keras.optimizers.Adam(0.01), "mse")
    fit(model)
    assert model.layers[0].layer.kernel.numpy().dtype == np.float32
    assert np.count_nonzero(model.layers[0].layer.kernel.numpy()[~MASK]) == 0


def test_padding_masks_pass_through() -> None:
    layer = Masked(L.Embedding(5, 3, mask_zero=True), np.random.default_rng(6).random((5, 3)) < 0.5)
    model = keras.Sequential([keras.Input((4,), dtype="int32"), layer, L.LSTM(2)])
    padded = model(np.array([[1, 2, 0, 0]]))
    short = model(np.array([[1, 2]]))
    np.testing.assert_allclose(padded, short, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "mask", "words"),
    [
        (lambda: L.LSTM(3), np.ones((6, 12), bool), "2 prunable weights.*cell/kernel"),
        (lambda: L.Dense(3), np.ones((6, 4), bool), "masks of layer 'dense.*kernel"),
        (lambda: L.Dense(3), {"weights": np.ones((6, 4), bool)}, "weights"),
        (lambda: L.BatchNormalization(), None, "no prunable weight"),
    ],
)
def test_bad_masks_are_named(layer: Any, mask: Any, words: str) -> None:
    wrapper = Masked(layer(), mask)
    with pytest.raises(ValueError, match=words):
        wrapper.build((None, 4, 6) if "LSTM" in type(wrapper.layer).__name__ else (None, 6))


AROUND: dict[str, Callable[[], keras.layers.Layer]] = {
    "TimeDistributed outside": lambda: L.TimeDistributed(Masked(L.Dense(3))),
    "TimeDistributed inside": lambda: Masked(L.TimeDistributed(L.Dense(3))),
    "a convolution over time": lambda: L.TimeDistributed(Masked(L.Conv1D(3, 2))),
    "RNN inside": lambda: Masked(L.LSTM(3, return_sequences=True)),
    "cell inside": lambda: Masked(L.RNN(L.GRUCell(3), return_sequences=True)),
    "Bidirectional inside": lambda: Masked(L.Bidirectional(L.SimpleRNN(3, return_sequences=True))),
    "Sequential inside": lambda: Masked(keras.Sequential([L.Dense(4), L.Dense(3)])),
    "twice": lambda: Masked(Masked(L.Dense(3))),
}


# In every run one around, one twice, and cells, for layers inside are in the tests above.
AROUND_SHORT = ("a convolution over time", "cell inside", "Bidirectional inside", "twice")


@pytest.mark.parametrize("name", short_if(AROUND_SHORT.__contains__, AROUND))
def test_in_and_around_other_wrappers(name: str, tmp_path: Path) -> None:
    shape = (6, 4, 5) if name == "a convolution over time" else (6, 4)
    inputs = keras.Input(shape)
    model = keras.Model(inputs, AROUND[name]()(inputs))
    model.compile(keras.optimizers.Adam(0.05), "mse")
    masks = surgery.mask(model, lth.select(lth.criteria.Magnitude()(model), density=0.5, scope="layer"))
    x = np.random.default_rng(0).normal(size=(5, *shape)).astype(np.float32)
    model.fit(x, np.ones(model(x).shape), batch_size=3, verbose=0)
    for path, mask in masks.items():
        assert np.count_nonzero(surgery.variables(model)[path].numpy()[~mask]) == 0
    model.save(tmp_path / "m.keras")
    np.testing.assert_allclose(keras.models.load_model(tmp_path / "m.keras")(x), model(x), atol=1e-6)


@pytest.mark.parametrize("layer", [L.MultiHeadAttention(2, 2), L.GroupQueryAttention(2, 2, 2)], ids=["MHA", "GQA"])
def test_a_layer_of_several_inputs_is_refused_when_it_is_wrapped(layer: keras.layers.Layer) -> None:
    with pytest.raises(ValueError, match=r"Attention is built from query_shape, value_shape.*keras_lth\.mask"):
        Masked(layer)
