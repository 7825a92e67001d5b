"""Fused batch normalisation beside Keras' own: one result, one file, fewer operations."""

from __future__ import annotations

import copy
import functools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lth as lth
from keras_lth import surgery
from keras_lth.layers import fused
from tests.forms import short_if
from tests.two_devices import result_of

L = keras.layers
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(1.5, 2.0, size=(40, 6, 6, 3)).astype(np.float32)
Y = RANDOM.normal(size=(40, 2)).astype(np.float32)
GRAPH: dict[str, Any] = {"jit_compile": False}
MODES: dict[str, dict[str, Any]] = {
    "default": {},
    "graph": GRAPH,
    "eager": {"run_eagerly": True},
    "jit": {"jit_compile": True},
    "executions": {**GRAPH, "steps_per_execution": 4},
}


def network(dtype: Any = None) -> keras.Model:
    """Functional, a Sequential inside, 4 and 3 axes, one layer without scale and shift."""
    keras.backend.clear_session()  # one name for all of them
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 3))
    x = L.Conv2D(8, 3, padding="same", use_bias=False, dtype=dtype)(inputs)
    x = L.BatchNormalization(momentum=0.9, epsilon=1e-5, name="first", dtype=dtype)(x)
    block = keras.Sequential(
        [keras.Input((6, 6, 8)), L.ReLU(), L.BatchNormalization(center=False, scale=False, dtype=dtype)], name="block"
    )
    x = L.Reshape((36, 8))(block(x))
    x = L.Flatten()(L.BatchNormalization(name="third", dtype=dtype)(x))
    return keras.Model(inputs, L.Dense(2, dtype="float32")(x))


def train(model: keras.Model, epochs: int = 2, **options: Any) -> keras.Model:
    """Five steps an epoch."""
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse", **options)
    return fit(model, epochs)


def fit(model: keras.Model, epochs: int = 2) -> keras.Model:
    model.fit(X, Y, batch_size=8, epochs=epochs, shuffle=False, verbose=0)
    return model


def fusing(model: keras.Model) -> keras.Model:
    assert not any(lth.fuse(model).layers.values())
    return model


def close(model: keras.Model, other: keras.Model, tolerance: float = 2e-5) -> None:
    for path, value in surgery.variables(model).items():
        np.testing.assert_allclose(
            np.asarray(value, np.float32),
            np.asarray(surgery.variables(other)[path], np.float32),
            rtol=tolerance,
            atol=tolerance,
            err_msg=path,
        )
    ours, theirs = (one(X) for one in (model, other))
    np.testing.assert_allclose(ours, theirs, rtol=10 * tolerance, atol=10 * tolerance)


def operations(function: Any) -> list[str]:
    """Kinds of all operations of a traced function and of those that it calls."""
    graph = function.graph.as_graph_def()
    return [node.op for node in graph.node] + [node.op for one in graph.library.function for node in one.node_def]


# In every run with XLA here; without it in most of the tests below.
@pytest.mark.parametrize("mode", short_if(lambda mode: mode == "jit", MODES))
def test_ten_steps_end_where_keras_ends(mode: str) -> None:
    plain, ours = (train(make(network()), **MODES[mode]) for make in (lambda model: model, fusing))
    close(ours, plain)
    np.testing.assert_allclose(ours.predict(X, verbose=0), plain.predict(X, verbose=0), rtol=2e-4, atol=2e-4)


HALF = ["mixed_bfloat16", "mixed_float16", "bfloat16"]


@pytest.mark.parametrize("policy", short_if(lambda policy: policy == "mixed_bfloat16", HALF))
def test_half_types_are_normalised_in_float32(policy: str) -> None:
    plain, ours = (network(policy) for _ in range(2))
    fusing(ours)
    for training in (True, False):
        np.testing.assert_allclose(
            *(np.asarray(one(X, training=training), np.float32) for one in (ours, plain)), rtol=0.05, atol=0.05
        )
    assert all(a.dtype == b.dtype for a, b in zip(ours.variables, plain.variables, strict=True))
    # As far from Keras after ten steps as Keras is from itself in float32, or nearer.
    train(plain, **GRAPH), train(ours, **GRAPH)
    exact = train(network(), **GRAPH)
    for path, value in surgery.variables(ours).items():
        a, b, c = (np.asarray(surgery.variables(one)[path], np.float32) for one in (ours, plain, exact))
        assert np.abs(a - b).max() <= np.abs(b - c).max() + 1e-2 * np.abs(b).max() + 1e-4, path
        assert value.dtype == surgery.variables(plain)[path].dtype


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(8, 6, 6, 3), (8, 36, 3), (4, 2, 3, 6, 3), (1, 1, 1, 3)], ids=str)
def test_values_statistics_and_two_derivatives(shape: tuple[int, ...], training: bool) -> None:
    x, weight = (tf.constant(RANDOM.normal(3.0, 2.0, shape), tf.float32) for _ in range(2))

    def results(model: keras.Model) -> list[Any]:
        layer = model.layers[-1]
        for number, variable in enumerate(layer.variables):
            variable.assign(np.linspace(0.5, 1.5, 3) + number)
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = model(x, training=training)
                loss = tf.reduce_sum(weight * tf.sin(y))
            first = tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])
            size = tf.reduce_sum(tf.square(first[0])) + tf.reduce_sum(tf.square(first[1]))
        second = outer.gradient(size, [x, layer.gamma.value])
        return [y, *first, *second, *layer.variables]

    models = [keras.Sequential([keras.Input(shape[1:]), L.BatchNormalization(epsilon=0.1)]) for _ in range(2)]
    fusing(models[0])
    for ours, theirs in zip(*map(results, models), strict=True):
        scale = float(np.abs(theirs).max()) + 1e-3
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5 * scale)


def test_values_far_from_zero_keep_their_variance() -> None:
    x = RANDOM.normal(1000.0, 1.0, (32, 8, 8, 3)).astype(np.float32)
    model = keras.Sequential([keras.Input((8, 8, 3)), L.BatchNormalization(momentum=0.0)])
    fusing(model)
    for jit in (False, True):
        tf.function(model, jit_compile=jit)(x, training=True)
        np.testing.assert_allclose(model.layers[0].moving_variance, x.astype(float).var((0, 1, 2)), rtol=1e-4)


@pytest.mark.parametrize("mode", ["graph", "jit"])
def test_an_empty_batch_is_as_in_keras(mode: str) -> None:
    plain, ours = one(L.BatchNormalization()), fusing(one(L.BatchNormalization()))
    for model in (plain, ours):
        run = tf.function(model, **MODES[mode])
        assert run(tf.zeros((0, 6, 6, 3)), training=False).shape == (0, 2)
        assert run(tf.zeros((0, 6, 6, 3)), training=True).shape == (0, 2)
    for a, b in zip(ours.variables, plain.variables, strict=True):
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b))


def in_a_loop(step: Any, x: Any) -> Any:
    return tf.map_fn(step, x[None])


def test_it_is_one_operation_where_xla_does_not_compile() -> None:
    model = fusing(network())
    spec = tf.TensorSpec((None, 6, 6, 3))
    for training in (True, False):

        def run(x: Any, training: bool = training) -> Any:
            return model(x, training=training)

        graph = operations(tf.function(run).get_concrete_function(spec))
        assert graph.count("KerasLthMoments" if training else "FusedBatchNormV3") == 3
        assert graph.count("FusedBatchNormV3" if training else "KerasLthMoments") == 0
        # XLA's expansion of it loses the variance of values far from 0.
        assert "FusedBatchNormV3" not in operations(tf.function(run, jit_compile=True).get_concrete_function(spec))
        looped = tf.function(functools.partial(in_a_loop, tf.function(run)), jit_compile=True)
        assert "FusedBatchNormV3" not in operations(looped.get_concrete_function(spec))


def blocks() -> keras.Model:
    """A normalisation and ReLU, a residual block, and one whose shortcut is normalised too."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 3))
    x = L.ReLU()(L.BatchNormalization(scale=False)(L.Conv2D(8, 3, padding="same")(inputs)))
    for channels, shortcut in ((8, False), (5, True)):
        y = L.Activation("relu")(L.BatchNormalization()(L.Conv2D(channels, 3, padding="same")(x)))
        y = L.BatchNormalization()(L.Conv2D(channels, 3, padding="same")(y))
        x = L.BatchNormalization(center=False)(L.Conv2D(channels, 1)(x)) if shortcut else x
        x = L.ReLU()(L.Add()([x, y]))
    return keras.Model(inputs, L.Dense(2)(L.Dropout(0.0)(L.GlobalAveragePooling2D()(x))))


@pytest.mark.parametrize("mode", short_if(lambda mode: mode == "graph", MODES))
def test_additions_and_relus_behind_are_part_of_it(mode: str) -> None:
    plain, ours = blocks(), fusing(blocks())
    train(plain, **MODES[mode])
    close(train(ours, **MODES[mode]), plain)


def test_nothing_passes_over_the_activations_again(tmp_path: Path) -> None:
    model = fusing(blocks())

    @tf.function
    def gradients(x: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x, training=True))
        return tape.gradient(loss, model.trainable_variables)

    function = gradients.get_concrete_function(tf.TensorSpec((None, 6, 6, 3)))
    # Those that run: what a result needs.
    needed, left = set(), [one.op for one in function.graph.outputs]
    while left:
        op = left.pop()
        if op.name not in needed:
            needed.add(op.name)
            left += [one.op for one in op.inputs]
    kinds = [function.graph.get_operation_by_name(name).type for name in needed]
    assert [kinds.count(f"KerasLth{kind}") for kind in ("Normalize", "NormalizeGrad", "NormalizeAddGrad")] == [6, 4, 2]
    assert not {"Relu", "ReluGrad", "FusedBatchNormV3"} & set(kinds)

    model.save(tmp_path / "m.keras")
    for other in (keras.saving.load_model(tmp_path / "m.keras"), copy.deepcopy(model), keras.models.clone_model(model)):
        assert [type(layer) for layer in other.layers] == [type(layer) for layer in blocks().layers]


def test_a_step_traced_before_is_traced_again() -> None:
    model = train(network(), 1, **GRAPH)
    step = tf.function(lambda x: model(x, training=False))
    step(X)
    model.predict(X, verbose=0)
    optimizer, function = model.optimizer, model.train_function
    plain = train(network(), 1, **GRAPH)
    fusing(model)
    step(X)
    assert "FusedBatchNormV3" in operations(step.get_concrete_function(tf.TensorSpec(X.shape)))
    close(fit(model), fit(plain))
    assert (model.optimizer, model.train_function) == (optimizer, function)


class Sub(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = L.Conv2D(4, 3)
        self.blocks = [{"norm": L.BatchNormalization()}]
        self.head = L.Dense(2)

    def call(self, x: Any, training: bool = False) -> Any:
        return self.head(L.Flatten()(self.blocks[0]["norm"](self.convolution(x), training=training)))


def test_a_subclassed_model() -> None:
    plain, ours = Sub(), Sub()
    for model in (plain, ours):
        keras.utils.set_random_seed(0)
        model(X[:1])
        for variable in model.trainable_variables:
            variable.assign(RANDOM.normal(size=variable.shape) if model is plain else np.zeros(variable.shape))
    ours.set_weights(plain.get_weights())
    assert dict(lth.fuse(ours).layers) == {"blocks/0/norm": ""}
    close(train(ours, **GRAPH), train(plain, **GRAPH))


def test_frozen_layers_run_in_inference_mode() -> None:
    models = network(), fusing(network())
    for model in models:
        model.get_layer("first").trainable = False
        train(model, 1, **MODES["eager"])
    close(*models)
    assert not np.any(models[1].get_layer("first").moving_mean)


def test_masks_hold_in_the_training_loop() -> None:
    models = network(), network()
    data = lth.datasets.ordered(X, Y, batch_size=8, seed=1)
    masks = lth.select(lth.criteria.Magnitude()(models[0]), density=0.3)
    for number, model in enumerate(models):
        lth.mask(model, masks)
        if number:
            fusing(model)
        model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse")
        lth.training.fit(model, data, epochs=2)
        data.seek(0)
        assert lth.masks_of(model) == masks
        assert all(np.count_nonzero(surgery.variables(model)[path].numpy()[~mask]) == 0 for path, mask in masks.items())
    close(*models)


def test_names_configs_files_and_copies_are_those_of_a_plain_model(tmp_path: Path) -> None:
    model, plain = fusing(network()), network()
    layer = model.get_layer("first")
    assert layer.__class__ is L.BatchNormalization
    assert isinstance(layer, L.BatchNormalization)
    assert [one.get_config() for one in model.layers] == [one.get_config() for one in plain.layers]
    assert list(surgery.variables(model)) == list(surgery.variables(plain))
    train(model, 1, **GRAPH)
    model.save(tmp_path / "m.keras")
    model.save_weights(tmp_path / "m.weights.h5")
    model.export(tmp_path / "saved", verbose=False)

    loaded = keras.saving.load_model(tmp_path / "m.keras")
    plain.load_weights(tmp_path / "m.weights.h5")
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    for other in (loaded, plain, clone, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(other.get_layer("first")) is L.BatchNormalization
        close(other, model)
    served = tf.saved_model.load(tmp_path / "saved")
    np.testing.assert_allclose(served.serve(X), model.predict(X, verbose=0), rtol=1e-4, atol=1e-4)
    # Training goes on from the file as it would have.
    close(fit(fusing(loaded)), fit(model))


@keras.saving.register_keras_serializable(package="mine")
class Named(L.BatchNormalization):
    """A class of a user's own, with Keras' computation."""


class Other(L.BatchNormalization):
    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        return super().call(inputs, training=training, mask=mask) + 1


def one(layer: keras.layers.Layer, shape: tuple[int, ...] = (6, 6, 3)) -> keras.Model:
    return keras.Sequential([keras.Input(shape), layer, L.Flatten(), L.Dense(2)])


def test_a_registered_class_is_saved_as_itself(tmp_path: Path) -> None:
    model = one(Named())
    fusing(model).save(tmp_path / "m.keras")
    assert type(keras.saving.load_model(tmp_path / "m.keras").layers[0]) is Named


@pytest.mark.parametrize(
    ("make", "shape", "reason"),
    [
        (lambda: L.BatchNormalization(axis=1), (6, 6, 3), "channels are axis 1 of 4, not the last"),
        (L.BatchNormalization, (6,), "as fast on 2 axes"),
        (lambda: L.BatchNormalization(synchronized=True), (6, 6, 3), "synchronized"),
        (lambda: L.BatchNormalization(dtype="float64"), (6, 6, 3), "float64"),
        (Other, (6, 6, 3), "Other computes something else"),
    ],
)
def test_what_is_left_to_keras_is_named(make: Callable[[], Any], shape: tuple[int, ...], reason: str) -> None:
    model = one(make(), shape)
    cls = type(model.layers[0])
    report = lth.fuse(model)
    assert list(report.layers.values()) == [reason]
    assert type(model.layers[0]) is cls
    assert f"Keras' own: {reason}" in str(report)
    assert report.summary.startswith("0 of 1 BatchNormalization layers")


def test_inputs_that_it_cannot_take_are_left_to_keras() -> None:
    model, plain = fusing(one(L.BatchNormalization(momentum=0.5))), one(L.BatchNormalization(momentum=0.5))
    padding = np.arange(36).reshape(1, 6, 6) < 20
    mask = tf.constant(np.repeat(padding, 40, 0))
    a, b = (m.layers[0](X, training=True, mask=mask) for m in (model, plain))
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(model.layers[0].moving_mean, plain.layers[0].moving_mean)


def test_twice_is_once_and_the_report_says_so() -> None:
    model = network()
    model.compile(jit_compile=True)
    report = lth.fuse(model)
    classes = [type(layer) for layer in model.layers]
    assert lth.fuse(model) == report
    assert [type(layer) for layer in model.layers] == classes
    lines = str(report).splitlines()
    assert [line.split() for line in lines[1:4]] == [
        ["first", "fused"],
        ["block/batch_normalization", "fused"],
        ["third", "fused"],
    ]
    assert lines[4].startswith("3 of 3 BatchNormalization layers")
    assert "jit_compile=False" in lines[4]
    assert "<table>" in report._repr_html_()
    assert lth.fuse(keras.Sequential([keras.Input((3,)), L.Dense(2)])).layers == {}


def test_under_an_accelerator_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused.tf.config, "list_logical_devices", lambda kind=None: ["/GPU:0"] * (kind == "GPU"))
    model = network()
    assert set(lth.fuse(model).layers.values()) == {"there is a GPU"}
    assert type(model.get_layer("first")) is L.BatchNormalization


def test_what_is_no_built_model_is_refused() -> None:
    with pytest.raises(ValueError, match="not built"):
        lth.fuse(keras.Sequential([L.BatchNormalization()]))
    with pytest.raises(TypeError, match="Keras 3 model"):
        lth.fuse(cast(Any, "model"))


def test_two_replicas_train_as_keras_does() -> None:
    assert result_of(Path(__file__).with_name("fused_program.py")) == {"wrong": [], "fused": True}
