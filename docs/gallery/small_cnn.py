# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---
# %% [markdown]
# # Prune a small convolutional network to 5 % of its weights, and store it sparse
#
# A network for Fashion-MNIST is pruned to 5 % of its weights while it trains. Its kernels are then stored sparse, so
# it trains and predicts faster. The images come from Debian's package `dataset-fashion-mnist` or from TFDS.

# %%
import os
import time

import keras

import keras_lth as lth
from keras_lth.schedules import Polynomial

QUICK = bool(os.environ.get("KERAS_LTH_QUICK"))  # a test sets it
EPOCHS = 1 if QUICK else 6
splits = lth.datasets.load("digits" if QUICK else "fashion_mnist")
(x, y), test = splits.train, splits.test

# %% [markdown]
# Any Keras model will do; it needs no preparation.

# %%
keras.utils.set_random_seed(1)
model = keras.Sequential(
    [
        keras.Input(x.shape[1:]),
        keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Conv2D(64, 3, padding="same", activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Flatten(),
        keras.layers.Dense(256, activation="relu"),
        keras.layers.Dense(splits.classes),
    ]
)
model.compile(
    keras.optimizers.Adam(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
)

# %% [markdown]
# `GradualPruning` follows Zhu and Gupta's ramp: from all weights at 20 % of the training to 5 % of them at 70 %.
# Exactly as many weights remain as the schedule says: the largest of all layers together.

# %%
ramp = Polynomial(1.0, 0.05, begin="20%", end="70%", every=50)
model.fit(x, y, batch_size=128, epochs=EPOCHS, validation_data=test, callbacks=[lth.GradualPruning(ramp)], verbose=2)
print(lth.sparsity(model))

# %% [markdown]
# So far a zero costs as much as any other weight. `sparsify` stores the kernels without zeros where that is faster, and
# reports why other kernels stay dense. The optimizer, its slots and the masks stay what they are.


# %%
def seconds(call, count=5):
    call()
    begin = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - begin) / count


def step():
    model.train_on_batch(x[:128], y[:128])


dense_step, dense_accuracy = seconds(step), model.evaluate(*test, verbose=0)[1]
print(lth.sparsify(model, batch_size=128, only_if_faster=not QUICK))
print(f"a step: {1e3 * dense_step:.1f} ms masked, {1e3 * seconds(step):.1f} ms sparse")

# %% [markdown]
# For serving, `lth.export.compile` makes a chain of products that needs neither TensorFlow nor Keras.

# %%
lth.densify(model)
compiled = lth.export.compile(model)
same = abs(compiled(x[:64]) - model.predict(x[:64], verbose=0)).max()
keras_ms, chain_ms = 1e3 * seconds(lambda: model.predict_on_batch(x[:64])), 1e3 * seconds(lambda: compiled(x[:64]))
print(f"64 images: {keras_ms:.1f} ms by Keras, {chain_ms:.1f} ms by the chain; results differ by at most {same:.1e}")
compiled.save("small_cnn.chain")
