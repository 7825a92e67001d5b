# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---
# %% [markdown]
# # A transformer for text, pruned to 10 % of its weights
#
# A small transformer tells the language of a word from its letters. Attention and the dense layers are pruned together,
# by one ranking. The words come from Debian's word lists:
#
#     apt-get install wamerican wfrench witalian wngerman wspanish

# %%
import os
import random
from pathlib import Path

import keras
import numpy as np

import keras_lth as lth
from keras_lth.schedules import Polynomial

QUICK = bool(os.environ.get("KERAS_LTH_QUICK"))  # a test sets it
LISTS = ("american-english", "french", "italian", "ngerman", "spanish")
LENGTH, WIDTH, PER_LANGUAGE, EPOCHS = 16, 8 if QUICK else 64, 60 if QUICK else 20_000, 2 if QUICK else 8


def words(name: str) -> list[str]:
    path = Path("/usr/share/dict", name)
    if QUICK and not path.exists():  # made-up words stand for a list that is not installed
        letters = random.Random(name).sample("abcdefghijklmnop", 6)
        return ["".join(random.Random(n).choices(letters, k=8)) for n in range(PER_LANGUAGE)]
    lines = {line.strip().lower() for line in path.read_text(encoding="utf-8", errors="ignore").splitlines()}
    found = sorted(word for word in lines if word.isalpha() and 4 <= len(word) <= LENGTH)
    random.Random(1).shuffle(found)
    return found[:PER_LANGUAGE]


texts = [(word, label) for label, name in enumerate(LISTS) for word in words(name)]
random.Random(2).shuffle(texts)
letters = {letter: number for number, letter in enumerate(sorted({c for word, _ in texts for c in word}), 1)}
x = np.zeros((len(texts), LENGTH), np.int32)
for row, (word, _) in zip(x, texts, strict=True):
    row[: len(word)] = [letters[c] for c in word]
y = np.array([label for _, label in texts], np.int32)
tested = len(x) // 10
train, test = (x[tested:], y[tested:]), (x[:tested], y[:tested])

# %% [markdown]
# Two blocks of self-attention and dense layers, in plain Keras.


# %%
def network() -> keras.Model:
    keras.utils.set_random_seed(1)
    tokens = keras.Input((LENGTH,), dtype="int32")
    h = keras.layers.Embedding(len(letters) + 1, WIDTH)(tokens)
    h += keras.layers.Embedding(LENGTH, WIDTH)(keras.ops.arange(LENGTH))
    for _ in range(2):
        attended = keras.layers.MultiHeadAttention(4, WIDTH // 4)(h, h)
        h = keras.layers.LayerNormalization()(h + attended)
        inner = keras.layers.Dense(4 * WIDTH, "gelu")(h)
        h = keras.layers.LayerNormalization()(h + keras.layers.Dense(WIDTH)(inner))
    logits = keras.layers.Dense(len(LISTS))(keras.layers.GlobalAveragePooling1D()(h))
    model = keras.Model(tokens, logits)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
    return model


# %% [markdown]
# `lth.prunable` says which weights can be pruned, and why others stay dense.

# %%
print(lth.prunable(network()))

# %%
found = {}
for density in (1.0, 0.1):
    model = network()
    ramp = Polynomial(1.0, density, begin="10%", end="70%", every=20)
    callbacks = [] if density == 1 else [lth.GradualPruning(ramp, exclude="embedding.*")]
    model.fit(*train, batch_size=64, epochs=EPOCHS, callbacks=callbacks, verbose=0)
    found[density] = model.evaluate(*test, verbose=0)[1]
print({f"{density:.0%} of the weights": f"{accuracy:.1%}" for density, accuracy in found.items()})

# %% [markdown]
# The projections of attention and the dense layers become sparse layers where that is faster.

# %%
print(lth.sparsify(model, batch_size=64, only_if_faster=not QUICK))
