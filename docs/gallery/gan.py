# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---
# %% [markdown]
# # A pruned GAN: masks in a training step of your own
#
# Masks hold in any step that uses a Keras optimizer, so a model with a `train_step` of its own needs no change. Here
# the generator and the discriminator of a GAN are pruned together to 20 % of their weights while they train.

# %%
import os

import keras
import numpy as np
import tensorflow as tf

import keras_lth as lth
from keras_lth.schedules import Polynomial

QUICK = bool(os.environ.get("KERAS_LTH_QUICK"))  # a test sets it
EPOCHS, NOISE = 1 if QUICK else 10, 32
splits = lth.datasets.load("digits" if QUICK else "fashion_mnist")
images = np.asarray(splits.train[0]).reshape(len(splits.train[0]), -1)
pixels = images.shape[1]


class GAN(keras.Model):
    """Two networks, two optimizers, one step."""

    def __init__(self) -> None:
        super().__init__()
        dense = keras.layers.Dense
        self.generator = keras.Sequential([keras.Input((NOISE,)), dense(256, "relu"), dense(pixels, "sigmoid")])
        self.discriminator = keras.Sequential([keras.Input((pixels,)), dense(256, "relu"), dense(1)])
        self.loss_of = keras.losses.BinaryCrossentropy(from_logits=True)
        self.built = True

    def compile(self) -> None:
        super().compile(keras.optimizers.Adam(2e-4, 0.5))
        self.other = keras.optimizers.Adam(2e-4, 0.5)
        self.optimizer.build(self.generator.trainable_variables)
        self.other.build(self.discriminator.trainable_variables)

    def call(self, noise):
        return self.generator(noise)

    def train_step(self, real):
        noise = tf.random.normal((tf.shape(real)[0], NOISE))
        with tf.GradientTape() as tape:
            made, true = self.discriminator(self.generator(noise)), self.discriminator(real)
            seen = self.loss_of(tf.zeros_like(made), made) + self.loss_of(tf.ones_like(true), true)
        self.other.apply_gradients(
            zip(tape.gradient(seen, weights := self.discriminator.trainable_variables), weights, strict=True)
        )
        with tf.GradientTape() as tape:
            judged = self.discriminator(self.generator(noise))
            fooled = self.loss_of(tf.ones_like(judged), judged)
        self.optimizer.apply_gradients(
            zip(tape.gradient(fooled, weights := self.generator.trainable_variables), weights, strict=True)
        )
        return {"discriminator": seen, "generator": fooled}


# %%
keras.utils.set_random_seed(1)
gan = GAN()
gan.compile()
data = tf.data.Dataset.from_tensor_slices(images.astype("float32")).shuffle(10_000, 1).batch(128, drop_remainder=True)
pruning = lth.GradualPruning(Polynomial(1.0, 0.2, begin="10%", end="80%", every=2 if QUICK else 50))
gan.fit(data, epochs=EPOCHS, callbacks=[pruning], verbose=0)
print(lth.sparsity(gan))

# %% [markdown]
# Either of the two can be stored sparse, or exported, on its own.

# %%
print(lth.sparsify(gan.generator, only_if_faster=not QUICK))
