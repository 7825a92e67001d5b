"""any_model and fit_twice: masks hold in every kind of model, again and again."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lth import surgery
from tests.forms import short_if

L = keras.layers
X = np.random.default_rng(0).normal(size=(16, 6)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(16, 2)).astype(np.float32)


def sequential() -> keras.Model:
    return keras.Sequential([keras.Input((6,)), L.Dense(6), L.Dense(2)])


def shared() -> keras.Model:
    inputs = keras.Input((6,))
    layer = L.Dense(6, activation="tanh")
    return keras.Model(inputs, L.Dense(2)(layer(layer(inputs))))


def nested() -> keras.Model:
    inputs = keras.Input((6,))
    return keras.Model(inputs, L.Dense(2, name="head")(sequential()(inputs)))


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.parts = [L.Dense(4, activation="tanh"), sequential_of_four()]

    def call(self, x: Any) -> Any:
        for part in self.parts:
            x = part(x)
        return x


def sequential_of_four() -> keras.Model:
    return keras.Sequential([L.Dense(4), L.Dense(2)])


def subclassed() -> keras.Model:
    model = Subclassed()
    model(X[:1])
    return model


class CustomStep(Subclassed):
    """A training step of its own, which builds gradients and applies them itself."""

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x, training=True) - y))
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return {"loss": loss}


def custom_step() -> keras.Model:
    model = CustomStep()
    model(X[:1])
    return model


def recurrent() -> keras.Model:
    return keras.Sequential([keras.Input((6,)), L.Reshape((3, 2)), L.Bidirectional(L.LSTM(3)), L.Dense(2)])


def convolutional() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((6,)),
            L.Reshape((6, 1)),
            L.SeparableConv1D(3, 3),
            L.BatchNormalization(),
            L.Conv1D(2, 2),
            L.Flatten(),
            L.Dense(2),
        ]
    )


def constrained() -> keras.Model:
    return keras.Sequential([keras.Input((6,)), L.Dense(2, kernel_constraint=keras.constraints.MaxNorm(0.5))])


MODELS = [sequential, shared, nested, subclassed, custom_step, recurrent, convolutional, constrained]


def random_masks(model: keras.Model, seed: int = 2) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {path: random.random(tuple(v.shape)) < 0.5 for path, v in surgery.prunable(model, include=".*").items()}


def nonzero_where_pruned(model: keras.Model, masks: dict[str, np.ndarray]) -> int:
    weights = surgery.variables(model)
    return sum(np.count_nonzero(weights[path].numpy()[~np.asarray(mask)]) for path, mask in masks.items())


def fit(model: keras.Model, **options: Any) -> None:
    model.fit(X, Y, batch_size=4, verbose=0, shuffle=False, **options)


# In every run those that trace differently; the others are in the tests below.
@pytest.mark.parametrize("make", short_if(lambda make: make in (shared, custom_step, recurrent, convolutional), MODELS))
def test_masks_before_and_after_compile_again_and_off(make: Any) -> None:
    model = make()
    masks = random_masks(model)
    assert surgery.mask(model, masks) == surgery.masks_of(model)
    assert nonzero_where_pruned(model, masks) == 0
    count = len(model.variables)
    model.compile(keras.optimizers.Adam(0.05, global_clipnorm=0.1), "mse")
    start = {path: v.numpy() for path, v in surgery.prunable(model, include=".*").items()}
    fit(model)
    assert nonzero_where_pruned(model, masks) == 0
    for path, value in surgery.prunable(model).items():
        kept = masks[path]
        assert not kept.any() or np.abs(value.numpy() - start[path])[kept].max() > 0, path
    # Traced already: a new mask is only assigned.
    function = model.train_function
    second = random_masks(model, seed=9)
    surgery.mask(model, second)
    fit(model)
    assert model.train_function is function
    assert nonzero_where_pruned(model, second) == 0
    assert len(model.variables) == count

    surgery.unmask(model)
    assert not surgery.masks_of(model)
    assert not [name for name in vars(model) if name.startswith("make_") or "keras_lth" in name]
    assert "apply" not in vars(model.optimizer)
    fit(model, epochs=3)
    assert nonzero_where_pruned(model, second) > 0


def test_the_users_constraint_stays_and_comes_back() -> None:
    model = constrained()
    kernel = model.layers[0].kernel
    own = kernel.constraint
    surgery.mask(model, random_masks(model))
    model.compile(keras.optimizers.SGD(5.0), "mse")
    fit(model)
    assert np.linalg.norm(kernel.numpy(), axis=0).max() <= 0.5 + 1e-6
    surgery.unmask(model)
    assert kernel.constraint is own


def test_masking_a_trained_model_inside_fit_takes_effect_at_the_next_step() -> None:
    model = sequential()
    model.compile(keras.optimizers.Adam(0.05), "mse")
    masks = random_masks(model)
    wrong = []

    class MaskAtEpoch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                surgery.mask(self.model, masks)
            if epoch == 3:
                surgery.unmask(self.model)

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            wrong.append(nonzero_where_pruned(self.model, masks) > 0)

    fit(model, epochs=4, callbacks=[MaskAtEpoch()])
    assert wrong == [True] * 4 + [False] * 8 + [True] * 4


def test_fit_twice_equals_fit_once() -> None:
    ends = []
    for epochs in ((2, 3), (5,)):
        keras.utils.set_random_seed(1)
        model = sequential()
        model.compile(keras.optimizers.Adam(0.05), "mse")
        surgery.mask(model, random_masks(model))
        for count in epochs:
            fit(model, epochs=count)
        ends.append(surgery.snapshot(model))
    assert ends[0].differences(ends[1]) == []


def test_two_instances_do_not_share_masks() -> None:
    first, second = sequential(), sequential()
    surgery.mask(first, random_masks(first))
    assert not surgery.masks_of(second)
    second.compile("sgd", "mse")
    fit(second)
    assert np.count_nonzero(second.layers[0].kernel.numpy()) == 36


def test_a_subset_of_the_weights() -> None:
    model = nested()
    surgery.mask(model, {"head/kernel": np.eye(2) > 0})
    model.compile("sgd", "mse")
    fit(model)
    assert list(surgery.masks_of(model)) == ["head/kernel"]
    assert np.count_nonzero(surgery.variables(model)["head/kernel"].numpy()) == 2


def test_every_optimizer_of_a_model_is_hooked() -> None:
    class TwoOptimizers(Subclassed):
        def train_step(self, data: Any) -> Any:
            x, y = data
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(self(x, training=True) - y))
            gradients = tape.gradient(loss, self.trainable_variables)
            half = len(gradients) // 2
            self.optimizer.apply(gradients[:half], self.trainable_variables[:half])
            self.second["other"].apply(gradients[half:], self.trainable_variables[half:])
            return {"loss": loss}

    model = TwoOptimizers()
    model(X[:1])
    masks = random_masks(model)
    model.compile(keras.optimizers.Adam(0.05), "mse")
    model.second = {"other": keras.optimizers.SGD(0.1, momentum=0.9)}
    surgery.mask(model, masks)
    fit(model, epochs=2)
    assert nonzero_where_pruned(model, masks) == 0
    for optimizer in (model.optimizer, model.second["other"]):
        for slot, weight in zip(
            next(iter(surgery.optimizers.slots(optimizer).values())), optimizer._trainable_variables, strict=True
        ):
            held = surgery.variable_mask.mask_of(weight)
            assert held is None or np.count_nonzero(slot.numpy()[~held.numpy()]) == 0
    taken = surgery.snapshot(model)
    assert "@second.other/000/iteration" in taken.optimizer
    fit(model)
    surgery.rewind(model, taken, restore_optimizer=True)
    assert surgery.snapshot(model).differences(taken) == []


def test_embeddings_with_sparse_gradients() -> None:
    tokens = np.random.default_rng(3).integers(0, 7, (16, 5))
    model = keras.Sequential([keras.Input((5,), dtype="int32"), L.Embedding(7, 4), L.Flatten(), L.Dense(2)])
    model.compile(keras.optimizers.Adam(0.05), "mse")
    masks = random_masks(model)
    surgery.mask(model, masks)
    model.fit(tokens, Y, batch_size=4, epochs=2, verbose=0)
    assert nonzero_where_pruned(model, masks) == 0
    momentum = model.optimizer._momentums[0].numpy()
    assert np.count_nonzero(momentum[~masks["embedding/embeddings"]]) == 0
    assert np.count_nonzero(momentum[masks["embedding/embeddings"]]) > 0


def test_an_infinite_gradient_of_a_pruned_weight_is_as_if_absent() -> None:
    model = keras.Sequential([keras.Input((2,)), L.Dense(1, use_bias=False, kernel_initializer="ones")])
    model.compile(keras.optimizers.SGD(0.1, global_clipnorm=1.0), "mse")
    surgery.mask(model, {"dense/kernel": np.array([[True], [False]])})
    model.make_train_function()
    kernel = model.layers[0].kernel
    model.optimizer.apply([tf.constant([[0.5], [np.inf]])], [kernel])
    np.testing.assert_array_equal(kernel.numpy(), np.array([[0.95], [0.0]], np.float32))


def test_lamb_sees_the_norm_of_the_surviving_weights() -> None:
    """One step of Lamb from its paper: w -= rate * |w| / |u| * u with u = sign(g) at step 1, over surviving entries."""
    model = keras.Sequential([keras.Input((3,)), L.Dense(1, use_bias=False)])
    model.layers[0].kernel.assign([[3.0], [100.0], [-4.0]])
    model.compile(keras.optimizers.Lamb(0.1, epsilon=1e-12), "mse")
    surgery.mask(model, {"dense/kernel": np.array([[True], [False], [True]])})
    model.make_train_function()
    model.optimizer.apply([tf.constant([[1.0], [7.0], [2.0]])], [model.layers[0].kernel])
    step = 0.1 * 5 / np.sqrt(2)
    np.testing.assert_allclose(model.layers[0].kernel.numpy()[:, 0], [3 - step, 0, -4 - step], rtol=1e-5)


@pytest.mark.parametrize(
    ("optimizer", "fresh"),
    [
        (lambda: keras.optimizers.Adam(0.05, use_ema=True, gradient_accumulation_steps=3), 0.0),
        (lambda: keras.optimizers.Adagrad(0.05, initial_accumulator_value=0.25), 0.25),
        *(
            [(lambda: keras.optimizers.ScheduleFreeAdamW(0.05), 0.0)]
            if hasattr(keras.optimizers, "ScheduleFreeAdamW")  # newer than the oldest Keras supported
            else []
        ),
    ],
)
def test_a_new_mask_resets_the_slots_of_pruned_weights_and_leaves_the_others(optimizer: Any, fresh: float) -> None:
    model = sequential()
    model.compile(optimizer(), "mse")
    fit(model)
    before = {name: [s.numpy() for s in held] for name, held in surgery.optimizers.slots(model.optimizer).items()}
    masks = random_masks(model)
    surgery.mask(model, masks)
    after = surgery.optimizers.slots(model.optimizer)
    assert len(after) == len(before) > 0
    for name, held in after.items():
        for index, path in ((0, "dense/kernel"), (2, "dense_1/kernel")):
            expected = np.where(masks[path], before[name][index], np.float32(fresh))
            np.testing.assert_array_equal(held[index].numpy(), expected)
            assert name == "_accumulated_gradients" or np.count_nonzero(before[name][index] != fresh) > 0
        np.testing.assert_array_equal(held[1].numpy(), before[name][1])
