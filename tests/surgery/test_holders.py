"""Who holds a masked variable × who writes it: no pruned weight comes back.

Every step is traced before the mask exists, which is the hard case. After each writer the raw value is looked at, so
that no reader matters; what readers do about a value that came past Keras is `test_survives`, by whatever model they
read.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lth as lth
from keras_lth import surgery
from tests.forms import short_if, spread

L = keras.layers
X = np.random.default_rng(0).normal(size=(10, 6)).astype(np.float32)
CODES = np.random.default_rng(1).normal(size=(10, 5)).astype(np.float32)
LABELS = np.random.default_rng(2).normal(size=(10, 2)).astype(np.float32)


class Scene:
    """An encoder on which the mask is put, and a model that holds it."""

    def __init__(self, holder: str) -> None:
        keras.utils.set_random_seed(0)
        self.encoder = keras.Sequential([keras.Input((6,)), L.Dense(5, name="code")])
        inputs = keras.Input((6,))
        self.head = L.Dense(2, name="head")
        around = keras.Model(inputs, self.head(self.encoder(inputs)))
        second = keras.Sequential([keras.Input((6,)), self.encoder.layers[0], L.Dense(2)])
        self.masked, self.trained, self.y = {
            "the model": (self.encoder, self.encoder, CODES),
            "a model around it": (self.encoder, around, LABELS),
            "a sub-model": (around, self.encoder, CODES),
            "a second model": (self.encoder, second, LABELS),
        }[holder]
        self.trained.compile(keras.optimizers.Adam(0.05), "mse")
        self.kernel = self.encoder.layers[0].kernel
        self.keep = np.random.default_rng(3).random((6, 5)) < 0.5

    def mask(self) -> None:
        path = next(path for path, one in surgery.variables(self.masked).items() if one is self.kernel)
        surgery.mask(self.masked, {path: self.keep})

    def revived(self) -> int:
        return int(np.count_nonzero(self.kernel._value.numpy()[~self.keep]))


def fit(scene: Scene, **options: Any) -> None:
    scene.trained.fit(X, scene.y, batch_size=4, verbose=0, **options)


def train_on_batch(scene: Scene) -> None:
    scene.trained.train_on_batch(X, scene.y)


def loop(scene: Scene) -> None:
    lth.training.fit(scene.trained, lth.datasets.ordered(X, scene.y, batch_size=5, seed=1))


def own_tape(scene: Scene) -> None:
    with tf.GradientTape() as tape:
        loss = scene.trained.compute_loss(X, scene.y, scene.trained(X))
    variables = scene.trained.trainable_variables
    scene.trained.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))


def by_hand(scene: Scene) -> None:
    with tf.GradientTape() as tape:
        loss = scene.trained.compute_loss(X, scene.y, scene.trained(X))
    variables = scene.trained.trainable_variables
    for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
        variable.assign_sub(0.1 * gradient)


def set_weights(scene: Scene) -> None:
    scene.trained.set_weights([np.ones_like(w) for w in scene.trained.get_weights()])


def load_weights(scene: Scene, folder: Path) -> None:
    scene.trained.load_weights(folder / "dense.weights.h5")


def averages(scene: Scene) -> None:
    scene.trained.compile(keras.optimizers.SGD(0.1, use_ema=True, ema_overwrite_frequency=2), "mse")
    fit(scene)


def callback(scene: Scene) -> None:
    ones = np.ones((6, 5), np.float32)
    fit(scene, callbacks=[keras.callbacks.LambdaCallback(on_train_end=lambda logs: scene.kernel.assign(ones))])


HOLDERS = ("the model", "a model around it", "a sub-model", "a second model")
WRITERS: dict[str, Callable[..., None]] = {
    "fit": fit,
    "train_on_batch": train_on_batch,
    "loop": loop,
    "own tape": own_tape,
    "by hand": by_hand,
    "set_weights": set_weights,
    "load_weights": load_weights,
    "averages": averages,
    "callback": callback,
}


# Each writer by one holder, each holder with two or three writers.
@pytest.mark.parametrize(("holder", "writer"), spread(4, HOLDERS, WRITERS))
def test_a_writer_that_was_traced_before_the_mask(holder: str, writer: str, tmp_path: Path) -> None:
    scene = Scene(holder)
    fit(scene)
    scene.trained.save_weights(tmp_path / "dense.weights.h5")
    extra = (tmp_path,) if writer == "load_weights" else ()
    WRITERS[writer](scene, *extra)
    scene.mask()
    before = scene.kernel.numpy()
    WRITERS[writer](scene, *extra)
    assert scene.revived() == 0
    if writer not in ("set_weights", "load_weights", "callback"):  # they wrote the same before the mask
        assert not np.array_equal(before[scene.keep], scene.kernel.numpy()[scene.keep])


# The model itself is in the next test, one around it as its sub-model.
@pytest.mark.parametrize("holder", short_if(lambda holder: holder in ("a sub-model", "a second model"), HOLDERS))
def test_after_unmask_every_holder_trains_dense(holder: str) -> None:
    scene = Scene(holder)
    scene.mask()
    fit(scene)
    surgery.unmask(scene.masked)
    fit(scene)
    assert scene.revived() == np.count_nonzero(~scene.keep)


def own_step(model: keras.Model, optimizer: keras.optimizers.Optimizer, **options: Any) -> Any:
    @tf.function(**options)
    def step() -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(X) - CODES) ** 2)
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    return step


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])
def test_an_own_function_traced_before_the_mask_and_after_unmask(jit: bool) -> None:
    scene = Scene("the model")
    optimizer = keras.optimizers.Adam(0.05)
    optimizer.build(scene.trained.trainable_variables)
    step = own_step(scene.trained, optimizer, jit_compile=jit)
    step()
    scene.mask()
    for _ in range(3):
        step()
        assert scene.revived() == 0
    surgery.unmask(scene.masked)
    step()
    assert scene.revived() == np.count_nonzero(~scene.keep)


def test_a_concrete_function_is_beyond_reach_and_noticed() -> None:
    scene = Scene("the model")
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(scene.trained.trainable_variables)
    step = own_step(scene.trained, optimizer).get_concrete_function()
    scene.mask()
    step()
    assert scene.revived() > 0
    with pytest.warns(UserWarning, match=r"pruned weights of .*trace the function after lth\.mask"):
        value = scene.kernel.numpy()
    assert np.count_nonzero(value[~scene.keep]) == 0
    assert scene.revived() == 0


def test_a_gan_without_call_trained_on_batches() -> None:
    class GAN(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.generator = keras.Sequential([keras.Input((6,)), L.Dense(5)])
            self.critic = keras.Sequential([keras.Input((5,)), L.Dense(1)])

        def train_step(self, data: Any) -> dict[str, Any]:
            noise, real = data[:2]
            for net, sign in ((self.critic, 1.0), (self.generator, -1.0)):
                with tf.GradientTape() as tape:
                    score = tf.reduce_mean(self.critic(self.generator(noise))) - tf.reduce_mean(self.critic(real))
                    loss = sign * score
                gradients = tape.gradient(loss, net.trainable_variables)
                self.optimizers[net.name].apply(gradients, net.trainable_variables)
            return {"loss": loss}

    gan = GAN()
    gan.built = True
    gan.optimizers = {net.name: keras.optimizers.Adam(0.05) for net in (gan.generator, gan.critic)}
    gan.compile()
    gan.train_on_batch(X, CODES)
    masks = surgery.mask(gan.generator, lth.select(lth.criteria.Magnitude()(gan.generator), density=0.5))
    gan.train_on_batch(X, CODES)
    kernel = gan.generator.layers[0].kernel
    assert np.count_nonzero(kernel._value.numpy()[~masks["dense/kernel"]]) == 0


def test_a_model_made_after_the_mask_around_a_masked_layer(tmp_path: Path) -> None:
    scene = Scene("the model")
    scene.mask()
    later = keras.Sequential([keras.Input((6,)), scene.encoder.layers[0], L.Dense(2)])
    later.compile(keras.optimizers.SGD(0.1, global_clipnorm=0.01), "mse")
    later.fit(X, LABELS, verbose=0)
    assert scene.revived() == 0
    scene.kernel._value.assign(np.ones((6, 5)))
    with pytest.warns(UserWarning, match="pruned weights of 'code/kernel'"):
        later.evaluate(X, LABELS, verbose=0)
    assert scene.revived() == 0


class Lookahead(keras.optimizers.Optimizer):
    """A wrapper whose inner optimizer is an attribute of any name, and that clips by itself."""

    def __init__(self, base: keras.optimizers.Optimizer) -> None:
        super().__init__(learning_rate=0.1)
        self.base = base

    def build(self, variables: Any) -> None:
        self.base.build(variables)
        super().build(variables)

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        grads, _ = tf.clip_by_global_norm(grads, 0.05)
        self.base.apply(grads, trainable_variables)


class Plain:
    """An optimizer hidden in an object that is none."""

    def __init__(self, base: keras.optimizers.Optimizer) -> None:
        self.base = base


def one_step(optimizer: Any, clip_by_hand: bool = False) -> np.ndarray:
    scene = Scene("the model")
    scene.mask()
    variables = scene.trained.trainable_variables
    with tf.GradientTape() as tape:
        loss = scene.trained.compute_loss(X, scene.y, scene.trained(X))
    gradients = tape.gradient(loss, variables)
    if clip_by_hand:
        gradients, _ = tf.clip_by_global_norm(lth.masked_gradients(gradients, variables), 0.05)
    optimizer.apply_gradients(zip(gradients, variables, strict=True))
    assert scene.revived() == 0
    return scene.kernel.numpy()


def test_clipping_sees_no_pruned_weight_whoever_clips() -> None:
    """Plain gradient descent, clipped to the norm 0.05 over the weights that remain: by hand from a float64 copy."""
    scene = Scene("the model")
    scene.mask()
    kernel, bias = scene.kernel.numpy().astype(np.float64), np.zeros(5)
    error = 2 * (X @ kernel + bias - CODES) / CODES.size
    gradient = np.where(scene.keep, X.T @ error, 0)
    norm = np.sqrt((gradient**2).sum() + (error.sum(axis=0) ** 2).sum())
    expected = kernel - 0.1 * gradient * 0.05 / norm

    sgd = keras.optimizers.SGD
    wrapped = Lookahead(sgd(0.1))
    for optimizer, by_hand in (
        (sgd(0.1, global_clipnorm=0.05), False),  # made after the mask, belongs to no model
        (sgd(0.1), True),
        (wrapped, False),
        (Plain(sgd(0.1, global_clipnorm=0.05)).base, False),
        (keras.optimizers.LossScaleOptimizer(sgd(0.1, global_clipnorm=0.05), initial_scale=1.0), False),
    ):
        np.testing.assert_allclose(one_step(optimizer, by_hand), expected, rtol=0, atol=1e-6)


def test_raw_variables_given_to_an_optimizer_are_masked_too() -> None:
    scene = Scene("the model")
    scene.mask()
    raw = [variable._value for variable in scene.trained.trainable_variables]
    with tf.GradientTape() as tape:
        loss = scene.trained.compute_loss(X, scene.y, scene.trained(X))
    keras.optimizers.SGD(0.1).apply(tape.gradient(loss, raw), raw)
    assert scene.revived() == 0


def test_masked_gradients_refuses_lists_that_do_not_fit() -> None:
    scene = Scene("the model")
    with pytest.raises(ValueError, match=r"1 gradients for 2 variables.*tape\.gradient"):
        lth.masked_gradients([tf.zeros((6, 5))], scene.trained.trainable_variables)


def test_a_constraint_given_after_the_mask_acts_inside_it() -> None:
    scene = Scene("the model")
    scene.mask()
    scene.kernel.constraint = keras.constraints.NonNeg()
    fit(scene)
    assert scene.revived() == 0
    assert (scene.kernel.numpy() >= 0).all()
    surgery.unmask(scene.masked)
    assert isinstance(scene.kernel.constraint, keras.constraints.NonNeg)
    assert type(scene.kernel) is keras.Variable
