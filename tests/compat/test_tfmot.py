"""TFMOT's interface on Keras 3: its schedules, what it prunes and when, and the code of its users."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lth as lth
from keras_lth.compat import tfmot
from keras_lth.compat.tfmot.marks import marked

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(240, 6, 6)).astype("float32"), RNG.integers(0, 4, 240)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def image_classifier() -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [keras.Input((6, 6)), layers.Reshape((6, 6, 1)), layers.Conv2D(4, 3, activation="relu"),
         layers.MaxPooling2D(), layers.Flatten(), layers.Dense(4)]
    )  # fmt: skip


def dense(units: int = 20, **options: Any) -> keras.layers.Dense:
    return keras.layers.Dense(units, **options)


def trained(model: keras.Model, steps: int, *callbacks: Any) -> keras.Model:
    """One epoch of so many steps of SGD."""
    if not model.compiled:
        model.compile("sgd", "mse")
    n = model.input_shape[-1]
    x = RNG.normal(size=(steps, n)).astype("float32")
    y = np.zeros((steps, model.output_shape[-1]))
    model.fit(x, y, batch_size=1, verbose=0, callbacks=list(callbacks) or [tfmot.UpdatePruningStep(verbose=0)])
    return model


def test_pruning_in_keras_example(tmp_path: Path) -> None:
    """The first tutorial: a trained classifier is pruned from 50 to 80 %, evaluated, stripped and saved."""
    model = image_classifier()
    model.compile("adam", LOSS, metrics=["accuracy"])
    model.fit(X, Y, batch_size=24, epochs=1, validation_split=0.1, verbose=0)
    prune_low_magnitude = tfmot.sparsity.keras.prune_low_magnitude
    batch, epochs = 4, 2
    end_step = np.ceil(216 / batch).astype(np.int32) * epochs  # 108
    decay = tfmot.sparsity.keras.PolynomialDecay(
        initial_sparsity=0.50, final_sparsity=0.80, begin_step=0, end_step=end_step
    )
    pruned = prune_low_magnitude(model, pruning_schedule=decay)
    pruned.compile("adam", LOSS, metrics=["accuracy"])
    update = tfmot.sparsity.keras.UpdatePruningStep(verbose=0)
    pruned.fit(X, Y, batch_size=batch, epochs=epochs, validation_split=0.1, callbacks=[update], verbose=0)
    pruned.evaluate(X, Y, verbose=0)
    # One update, at step 100 of 108.
    sparsity = 0.8 + (0.5 - 0.8) * (1 - 100 / 108) ** 3
    expected = {36: round(36 * (1 - sparsity)), 64: round(64 * (1 - sparsity))}
    assert {w.size: np.count_nonzero(w) for w in pruned.get_weights() if w.ndim > 1} == expected
    exported = tfmot.sparsity.keras.strip_pruning(pruned)
    keras.models.save_model(exported, tmp_path / "pruned.keras", include_optimizer=False)
    with tfmot.sparsity.keras.prune_scope():
        loaded = keras.models.load_model(tmp_path / "pruned.keras")
    assert not lth.masks_of(exported)
    np.testing.assert_array_equal(loaded(X[:5]), exported(X[:5]))


def test_comprehensive_guide_some_layers() -> None:
    """Its second part: only dense layers, by a clone function; and a model that is built of pruned layers."""
    prune = tfmot.sparsity.keras.prune_low_magnitude
    half = tfmot.sparsity.keras.ConstantSparsity(0.5, begin_step=1, frequency=1)
    base = keras.Sequential([keras.Input((20,)), dense(name="one"), keras.layers.Flatten(), dense(name="two")])

    def apply_pruning_to_dense(layer: Any) -> Any:
        return prune(layer, half) if layer.name == "two" else layer

    cloned = trained(keras.models.clone_model(base, clone_function=apply_pruning_to_dense), 2)
    assert [np.count_nonzero(w) for w in cloned.get_weights()][::2] == [400, 200]
    inputs = keras.Input((20,))
    functional = keras.Model(inputs, keras.layers.Flatten()(prune(dense(10), half)(inputs)))
    assert np.count_nonzero(trained(functional, 2).get_weights()[0]) == 100
    sequential = keras.Sequential([prune(dense(20), half, input_shape=(20,)), keras.layers.Flatten()])
    assert np.count_nonzero(trained(sequential, 2).get_weights()[0]) == 200


def test_comprehensive_guide_a_layer_of_ones_own() -> None:
    class MyDenseLayer(keras.layers.Dense, tfmot.sparsity.keras.PrunableLayer):
        def get_prunable_weights(self) -> list[Any]:
            return [self.kernel, self.bias]

    layer = MyDenseLayer(20, bias_initializer="normal")
    model = keras.Sequential(
        [keras.Input((20,)), tfmot.sparsity.keras.prune_low_magnitude(layer, tfmot.ConstantSparsity(0.75, 1, -1, 1))]
    )
    assert [np.count_nonzero(w) for w in trained(model, 3).get_weights()] == [100, 5]


def test_comprehensive_guide_a_loop_of_ones_own() -> None:
    model = tfmot.sparsity.keras.prune_low_magnitude(
        keras.Sequential([keras.Input((20,)), dense()]), tfmot.ConstantSparsity(0.5, 3, -1, 1)
    )
    optimizer = keras.optimizers.Adam()
    model.optimizer = optimizer
    step_callback = tfmot.sparsity.keras.UpdatePruningStep(verbose=0)
    step_callback.set_model(model)
    step_callback.on_train_begin()
    x, unused, zeros = tf.constant(RNG.normal(size=(4, 20)), tf.float32), -1, []
    for _ in range(2):
        for _ in range(2):
            step_callback.on_train_batch_begin(batch=unused)
            zeros.append(int(np.sum(model.get_weights()[0] == 0)))
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(model(x, training=True) ** 2)
            grads = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(grads, model.trainable_variables, strict=True))
        step_callback.on_epoch_end(batch=unused)
    # TFMOT's first step is 1, so step 3 is before the third update.
    assert zeros == [0, 0, 200, 200]


def test_a_loop_of_ones_own_after_a_fit_with_the_same_callback() -> None:
    model, update = keras.Sequential([keras.Input((20,)), dense()]), tfmot.UpdatePruningStep(verbose=0)
    tfmot.prune_low_magnitude(model, pruning_schedule=tfmot.PolynomialDecay(0.0, 0.8, 0, 8, 1, 1))
    trained(model, 4, update)
    update.set_model(model)
    update.on_train_begin()
    for _ in range(2):
        update.on_train_batch_begin(-1)
    # Sparsity 0.8 · t / 8 at step 6: four steps of the fit and two of the loop.
    assert np.count_nonzero(model.get_weights()[0]) == 160


@pytest.mark.parametrize("step", [0, 1, 49, 50, 55, 100, 149, 150, 151, 1000])
def test_schedules_say_what_tfmots_say(step: int) -> None:
    """Derived from its documentation: begin ≤ step ≤ end, every ``frequency`` steps; a polynomial in between."""
    due, sparsity = tfmot.PolynomialDecay(0.5, 0.9, 50, 150, power=2, frequency=5)(tf.constant(step))
    assert bool(due) == (50 <= step <= 150 and step % 5 == 0)
    rest = 1 - min(max((step - 50) / 100, 0), 1)
    assert float(sparsity) == pytest.approx(0.9 - 0.4 * rest**2, abs=1e-6)
    due, sparsity = tfmot.ConstantSparsity(0.5, 50, frequency=5)(step)
    assert bool(due) == (step >= 50 and step % 5 == 0) and float(sparsity) == 0.5


def test_configs_are_nested_and_read_back_from_inside() -> None:
    schedule = tfmot.PolynomialDecay(0.1, 0.9, 0, 10, 2, 5)
    config = schedule.get_config()
    assert config["class_name"] == "PolynomialDecay" and config["config"]["power"] == 2
    assert type(schedule).from_config(config["config"]).get_config() == config


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: tfmot.ConstantSparsity(1.0, 0), "target_sparsity.*1.0"),
        (lambda: tfmot.ConstantSparsity(0.5, -1), "begin_step.*-1"),
        (lambda: tfmot.ConstantSparsity(0.5, 9, 5), "9 > 5"),
        (lambda: tfmot.ConstantSparsity(0.5, 0, frequency=0), "frequency.*0"),
        (lambda: tfmot.PolynomialDecay(0.1, 0.9, 0, -1), "end_step cannot be -1"),
        (lambda: tfmot.PolynomialDecay(0.1, -0.9, 0, 5), "final_sparsity.*-0.9"),
        (lambda: tfmot.prune_low_magnitude(3), "keras.Model.*int"),
        (lambda: tfmot.prune_low_magnitude(dense(), block_pooling_type="SUM"), "'AVG' or 'MAX'.*SUM"),
        (lambda: tfmot.prune_low_magnitude(dense(), sparsity_m_by_n=(4, 2)), "4, 2"),
        (lambda: tfmot.strip_pruning(dense()), "keras.Model.*Dense"),
        (lambda: tfmot.PruningSummaries(""), "log_dir"),
    ],
)
def test_what_cannot_work_is_refused(make: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make()


def test_training_without_the_callback_is_refused_and_so_is_another_one() -> None:
    model = tfmot.prune_low_magnitude(keras.Sequential([keras.Input((20,)), dense()]))
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="UpdatePruningStep"):
        model.fit(np.zeros((2, 20)), np.zeros((2, 20)), verbose=0)
    tfmot.strip_pruning(model).fit(np.zeros((2, 20)), np.zeros((2, 20)), verbose=0)
    with pytest.warns(UserWarning, match="nothing to prune.*prune_low_magnitude"):
        trained(model, 2)


def test_a_schedule_that_begins_later_goes_on_in_the_next_fit() -> None:
    model = tfmot.prune_low_magnitude(keras.Sequential([keras.Input((20,)), dense()]))
    with pytest.warns(UserWarning, match="step 60.*step 100"):
        trained(model, 60)
    assert np.count_nonzero(model.get_weights()[0]) == 400
    trained(model, 60)
    assert np.count_nonzero(model.get_weights()[0]) == 200


def test_blocks_and_m_by_n() -> None:
    weight = RNG.normal(size=(5, 8)).astype("float32")
    for pooling, reduce in (("AVG", np.mean), ("MAX", np.max)):
        layer = tfmot.prune_low_magnitude(dense(8), tfmot.ConstantSparsity(0.5, 1), (2, 3), pooling)
        model = keras.Sequential([keras.Input((5,)), layer])
        ((_, mark),) = (value for path, value in marked(model).items() if path.endswith("kernel"))
        # Nine blocks, 4.5 → 4 remain (halves to even); those at the edges are smaller.
        blocks = [(slice(r, r + 2), slice(c, c + 3)) for r in (0, 2, 4) for c in (0, 3, 6)]
        best = sorted(blocks, key=lambda block: -reduce(np.abs(weight[block])))[:4]
        expected = np.zeros((5, 8), bool)
        for block in best:
            expected[block] = True
        np.testing.assert_array_equal(mark.mask(weight, 1), expected)
    layer = tfmot.prune_low_magnitude(dense(3), sparsity_m_by_n=(2, 4))
    model = trained(keras.Sequential([keras.Input((10,)), layer]), 1)
    kernel = model.get_weights()[0]
    assert [np.count_nonzero(kernel[rows], axis=0).tolist() for rows in (slice(4), slice(4, 8), slice(8, 10))] == [
        [2, 2, 2]
    ] * 3


def test_blocks_of_a_convolution_are_refused() -> None:
    model = tfmot.prune_low_magnitude(image_classifier(), block_size=(2, 2))
    model.compile("sgd", LOSS)
    with pytest.raises(ValueError, match=r"\(2, 2\) needs matrices.*\(3, 3, 1, 4\)"):
        model.fit(X, Y, verbose=0, callbacks=[tfmot.UpdatePruningStep(verbose=0)])


def test_what_tfmot_prunes_and_what_it_cannot() -> None:
    layers = keras.layers

    class Mine(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.table = layers.Embedding(11, 6)
            self.inner = keras.Sequential([layers.SeparableConv1D(4, 3), layers.LSTM(3)])
            self.norm, self.head = layers.BatchNormalization(), dense(2)

        def call(self, x: Any) -> Any:
            return self.head(self.norm(self.inner(self.table(x))))

    model = Mine()
    model(np.zeros((2, 5), "int32"))
    found = marked(tfmot.prune_low_magnitude(model))
    assert {path.rpartition("/")[2] for path in found} == {
        "embeddings", "pointwise_kernel", "kernel", "recurrent_kernel",
    }  # fmt: skip
    assert len(found) == 5


def test_a_policy_chooses_layers() -> None:
    model = keras.Sequential(
        [keras.Input((6, 6, 2)), keras.layers.Conv2D(4, 1, name="point"), keras.layers.Conv2D(4, 3, name="wide")]
    )
    tfmot.prune_low_magnitude(model, pruning_policy=tfmot.PruneForLatencyOnXNNPack())
    assert list(marked(model)) == ["point/kernel"]
    with pytest.raises(ValueError, match="1 × 1"):
        tfmot.prune_low_magnitude(image_classifier(), pruning_policy=tfmot.PruneForLatencyOnXNNPack())


def test_fit_and_loop_and_executions_agree() -> None:
    masks = []
    for options, loop in (({}, False), ({"steps_per_execution": 3}, False), ({}, True)):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((20,)), dense()])
        tfmot.prune_low_magnitude(model, tfmot.PolynomialDecay(0.2, 0.8, 1, 10, frequency=3))
        model.compile("sgd", "mse", **options)
        data = lth.datasets.ordered(X.reshape(-1, 20)[:48], np.zeros((48, 20)), batch_size=4, seed=0)
        update = tfmot.UpdatePruningStep(verbose=0)
        if loop:
            lth.training.fit(model, data, epochs=1, callbacks=[update], jit_compile=False)
        else:
            model.fit(data, callbacks=[update], verbose=0, shuffle=False)
        masks.append(lth.masks_of(model))
    # Steps 1, 4, 7, 10 are after 0, 3, 6, 9 updates, which three steps in one execution show.
    assert masks[0] == masks[1] == masks[2] and masks[0].remaining == 80


def test_weights_pass_to_a_file_of_keras_2_and_back(tmp_path: Path) -> None:
    model = trained(tfmot.prune_low_magnitude(image_classifier_flat(), tfmot.ConstantSparsity(0.5, 1)), 2)
    tfmot.save_weights(model, tmp_path / "weights.h5")
    other = tfmot.prune_low_magnitude(image_classifier_flat())
    assert tfmot.load_weights(other, tmp_path / "weights.h5") == lth.masks_of(model)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match=r"3 layers with weights.*has 1"):
        tfmot.load_weights(keras.Sequential([keras.Input((20,)), dense()]), tmp_path / "weights.h5")


def image_classifier_flat() -> keras.Model:
    return keras.Sequential([keras.Input((20,)), dense(8), keras.layers.BatchNormalization(), dense(4)])
