# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---
# %% [markdown]
# # Sparse from the first step: static masks, SET and RigL
#
# Three ways to train a network that never has more than 5 % of its prunable weights, in the same number of steps.
# Static masks are random and do not move. SET grows weights at random, RigL where the dense gradient is largest.

# %%
import os

import keras

import keras_lth as lth

QUICK = bool(os.environ.get("KERAS_LTH_QUICK"))  # a test sets it
EPOCHS = 2 if QUICK else 10
splits = lth.datasets.load("digits" if QUICK else "fashion_mnist")
(x, y), test = splits.train, splits.test


def network() -> keras.Model:
    model = lth.models.lenet_300_100(x.shape[1:], splits.classes, seed=1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1.2e-3), loss, metrics=["accuracy"])
    return model


# %% [markdown]
# A density is divided among the layers by Erdős and Rényi's rule for kernels (`lth.densities.ERK`): small layers keep
# a larger share. `every` is the number of steps between two updates of the masks.

# %%
every = 10 if QUICK else 100
methods = {
    "dense": None,
    "static": lth.StaticSparse(density=0.05),
    "SET": lth.SET(density=0.05),
    "RigL": lth.RigL(density=0.05, every=every),
}
found = {}
for name, method in methods.items():
    model = network()
    model.fit(x, y, batch_size=60, epochs=EPOCHS, callbacks=[method] if method else [], verbose=0)
    found[name] = model.evaluate(*test, verbose=0)[1]
print({name: f"{accuracy:.2%}" for name, accuracy in found.items()})

# %% [markdown]
# Layers that are stored sparse train the same way in less time: put masks on, call `lth.sparsify`, and let the callback
# begin with these masks (`density=None`).

# %%
model = network()
lth.mask(model, lth.select(lth.criteria.Random(1)(model), density=lth.densities.ERK(0.05)))
lth.sparsify(model, only_if_faster=False)
model.fit(x, y, batch_size=60, epochs=1, callbacks=[lth.RigL(density=None, every=every)], verbose=0)
print(lth.sparsity(model))
