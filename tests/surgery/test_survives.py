"""The table of docs/masks.md, "what a mask survives", a test a row."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lth as lth
from keras_lth import surgery

L = keras.layers
X = np.random.default_rng(0).normal(size=(16, 6)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(16, 2)).astype(np.float32)


def masked(optimizer: Any = None, **options: Any) -> tuple[keras.Model, dict[str, np.ndarray]]:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), L.Dense(5, activation="relu"), L.Dense(2)])
    model.compile(optimizer or keras.optimizers.Adam(0.01), "mse", **options)
    random = np.random.default_rng(2)
    masks = {path: random.random(tuple(v.shape)) < 0.5 for path, v in surgery.prunable(model).items()}
    surgery.mask(model, masks)
    return model, masks


def fit(model: keras.Model, **options: Any) -> Any:
    return model.fit(X, Y, batch_size=4, verbose=0, shuffle=False, **options)


def wrong(model: keras.Model, masks: dict[str, np.ndarray]) -> int:
    weights = surgery.variables(model)
    return sum(np.count_nonzero(weights[path].numpy()[~mask]) for path, mask in masks.items())


def test_recompile_with_a_new_optimizer() -> None:
    model, masks = masked()
    fit(model)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9, global_clipnorm=0.01), "mse")
    fit(model)
    assert wrong(model, masks) == 0
    for slot, path in (
        (model.optimizer.momentums[0], "dense/kernel"),
        (model.optimizer.momentums[2], "dense_1/kernel"),
    ):
        assert np.count_nonzero(slot.numpy()[~masks[path]]) == 0


def raw(model: keras.Model, path: str) -> np.ndarray:
    """What the variable really holds, past every read that heals."""
    return surgery.variables(model)[path]._value.numpy()


ASSIGNMENTS: dict[str, Callable[[keras.Variable], Any]] = {
    "assign": lambda variable: variable.assign(np.ones(variable.shape)),
    "assign_add": lambda variable: variable.assign_add(np.ones(variable.shape, np.float32)),
    "assign_sub": lambda variable: variable.assign_sub(-np.ones(variable.shape, np.float32)),
    "in a function": lambda variable: tf.function(lambda: variable.assign(tf.ones(variable.shape)))(),
    "what assign returned": lambda variable: variable.assign(variable.assign(tf.ones(variable.shape))),
}


@pytest.mark.parametrize("way", ASSIGNMENTS)
def test_an_assigned_value_is_zero_where_it_is_pruned(way: str) -> None:
    model, masks = masked()
    for path, mask in masks.items():
        ASSIGNMENTS[way](surgery.variables(model)[path])
        value = raw(model, path)
        assert np.count_nonzero(value[~mask]) == 0
        assert np.count_nonzero(value[mask]) == mask.sum()


def test_what_an_assignment_returned_obeys_a_later_mask() -> None:
    model, _ = masked()
    path, kernel = next(iter(surgery.prunable(model).items()))
    value = kernel.assign(tf.ones(kernel.shape))
    later = np.random.default_rng(9).random(tuple(kernel.shape)) < 0.5
    surgery.mask(model, {path: later})
    kernel.assign(value)
    assert np.count_nonzero(raw(model, path)[~later]) == 0


READERS: dict[str, Callable[[keras.Model, Path], Any]] = {
    "fit": lambda model, folder: fit(model),
    "train_on_batch": lambda model, folder: model.train_on_batch(X, Y),
    "evaluate": lambda model, folder: model.evaluate(X, Y, verbose=0),
    "predict": lambda model, folder: model.predict(X, verbose=0),
    "predict_on_batch": lambda model, folder: model.predict_on_batch(X),
    "save": lambda model, folder: model.save(folder / "m.keras"),
    "save_model": lambda model, folder: keras.saving.save_model(model, folder / "m.keras"),
    "save_weights": lambda model, folder: model.save_weights(folder / "m.weights.h5"),
    "export": lambda model, folder: model.export(folder / "m", verbose=False),
    "checkpoint": lambda model, folder: tf.train.Checkpoint(model=model).save(folder / "c"),
    "pickle": lambda model, folder: pickle.dumps(model),
    "deepcopy": lambda model, folder: copy.deepcopy(model),
    "get_weights": lambda model, folder: model.get_weights(),
    "numpy": lambda model, folder: [variable.numpy() for variable in model.variables],
    "array": lambda model, folder: [np.asarray(variable) for variable in model.variables],
    "snapshot": lambda model, folder: surgery.snapshot(model),
    "criterion": lambda model, folder: lth.criteria.Magnitude()(model),
    "sparsity": lambda model, folder: surgery.sparsity(model),
}


@pytest.fixture(scope="module")
def trained() -> tuple[keras.Model, dict[str, np.ndarray]]:
    model, masks = masked()
    fit(model)
    return model, masks


@pytest.mark.parametrize("way", READERS)
def test_a_value_written_past_keras_is_noticed_at_the_next_read(way: str, trained: Any, tmp_path: Path) -> None:
    model, masks = trained
    for path in masks:
        surgery.variables(model)[path]._value.assign(np.ones(masks[path].shape))
    with pytest.warns(UserWarning, match=r"\d+ pruned weights of .*kernel.*assign to the Keras variable"):
        READERS[way](model, tmp_path)
    for path, mask in masks.items():
        assert np.count_nonzero(raw(model, path)[~mask]) == 0


def test_values_assigned_inside_fit_are_healed_at_the_next_step() -> None:
    model, masks = masked()
    seen = []

    class Foreign(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            self.model.layers[0].kernel.assign(np.ones((6, 5), np.float32))

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            seen.append(wrong(self.model, masks))

    fit(model, callbacks=[Foreign()])
    assert seen == [0, 0, 0, 0]


def test_restore_best_weights() -> None:
    model, masks = masked()
    fit(model)
    stop = keras.callbacks.EarlyStopping("loss", mode="max", patience=1, restore_best_weights=True)
    fit(model, epochs=5, callbacks=[stop])
    assert wrong(model, masks) == 0


def test_averages_that_fit_swaps_in_at_its_end() -> None:
    model, masks = masked(keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.9))
    fit(model, epochs=2)
    assert wrong(model, masks) == 0
    # Also when the averages themselves were polluted from outside.
    model.optimizer._model_variables_moving_average[0].assign(np.ones((6, 5), np.float32))
    model.optimizer.finalize_variable_values(model.trainable_variables)
    assert wrong(model, masks) == 0


def test_save_and_load_give_zeros_but_no_mask(tmp_path: Path) -> None:
    model, masks = masked()
    fit(model)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert wrong(loaded, masks) == 0
    assert not surgery.masks_of(loaded)
    np.testing.assert_array_equal(loaded(X), model(X))
    surgery.mask(loaded, surgery.masks_of(model))
    fit(loaded)
    fit(model)
    for path, variable in surgery.variables(model).items():
        np.testing.assert_array_equal(surgery.variables(loaded)[path].numpy(), variable.numpy())


def test_weights_and_optimizer_state_pass_between_dense_and_masked(tmp_path: Path) -> None:
    model, masks = masked()
    fit(model)
    model.save_weights(tmp_path / "masked.weights.h5")
    dense = keras.models.clone_model(model)
    dense.compile(keras.optimizers.Adam(0.01), "mse")
    fit(dense)
    assert len(dense.variables) == len(model.variables)
    assert len(dense.optimizer.variables) == len(model.optimizer.variables)
    dense.save_weights(tmp_path / "dense.weights.h5")
    dense.load_weights(tmp_path / "masked.weights.h5")
    assert wrong(dense, masks) == 0
    assert int(dense.optimizer.iterations.numpy()) == 4
    model.load_weights(tmp_path / "dense.weights.h5")
    assert np.array_equal(surgery.masks_of(model)["dense/kernel"], masks["dense/kernel"])
    fit(model)
    assert wrong(model, masks) == 0


def test_copies_are_plain_models() -> None:
    model, _ = masked()
    fit(model)
    for duplicate in (keras.models.clone_model, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))):
        twin = duplicate(model)
        assert not surgery.masks_of(twin)
        assert "make_train_function" not in vars(twin)
        twin.compile(keras.optimizers.SGD(0.1), "mse")
        fit(twin, epochs=2)
        assert np.count_nonzero(twin.layers[0].kernel.numpy()) == 30
        # The masked model is untouched by it, and trains on.
        fit(model)
        assert surgery.masks_of(model).remaining == np.count_nonzero(model.layers[0].kernel.numpy()) + np.count_nonzero(
            model.layers[1].kernel.numpy()
        )


def test_a_second_model_sharing_a_layer_keeps_the_zeros_and_is_masked_for_clipping() -> None:
    model, masks = masked()
    inputs = keras.Input((6,))
    second = keras.Model(inputs, L.Dense(2)(model.layers[0](inputs)))
    second.compile(keras.optimizers.SGD(0.1), "mse")
    fit(second)
    assert wrong(model, masks) == 0
    surgery.mask(second, surgery.masks_of(second))
    fit(second)
    assert wrong(model, masks) == 0


def test_lora_is_refused_by_name() -> None:
    model, _ = masked()
    model.layers[1].enable_lora(1)
    for use in (lambda: fit(model), lambda: model.evaluate(X, Y, verbose=0)):
        with pytest.raises(ValueError, match="'dense_1' has LoRA enabled"):
            use()


def test_quantised_zeros_stay_zeros_and_training_is_refused_by_name() -> None:
    model, masks = masked()
    fit(model)
    model.quantize("int8")
    model.predict(X, verbose=0)
    assert np.count_nonzero(model.layers[0]._kernel.numpy()[~masks["dense/kernel"]]) == 0
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="'dense' is quantised"):
        fit(model)


def test_loss_scaling_by_policy() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model, masks = masked()
        assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        fit(model, epochs=2)
    finally:
        keras.config.set_dtype_policy("float32")
    assert wrong(model, masks) == 0
    assert not set(surgery.masks_of(model)) ^ set(masks)


class Foreign(keras.callbacks.Callback):
    """Assigns pruned weights, then loads dense slots, between executions; looks after each."""

    def __init__(self, masks: dict[str, np.ndarray], store: dict[str, np.ndarray]) -> None:
        super().__init__()
        self.masks, self.store, self.seen = masks, store, []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.model.set_weights([np.ones_like(w) for w in self.model.get_weights()])
        if batch:
            self.model.optimizer.load_own_variables(self.store)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seen.append(wrong(self.model, self.masks))


def test_values_assigned_between_executions_of_many_steps() -> None:
    model, masks = masked(steps_per_execution=8, jit_compile=True)
    model.fit(X, Y, batch_size=1, epochs=2, verbose=0, shuffle=False)
    foreign = Foreign(masks, {str(i): np.ones_like(v.numpy()) for i, v in enumerate(model.optimizer.variables)})
    model.fit(X, Y, batch_size=1, epochs=2, verbose=0, shuffle=False, callbacks=[foreign])
    assert foreign.seen == [0] * 4
