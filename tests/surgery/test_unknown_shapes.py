"""A gradient may have no static shape (positions of unknown number): masked models train on it all the same."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest

import keras_lth as lth
from tests.forms import spread

L = keras.layers
SEQUENCE = np.random.default_rng(0).random((9, 5, 16)).astype(np.float32)
TOKENS = np.random.default_rng(1).integers(1, 20, (9, 5))
PICTURES = np.random.default_rng(2).random((9, 6, 6, 3)).astype(np.float32)


def attention() -> keras.Model:
    tokens = L.Input((None,), dtype="int32")
    x = L.Embedding(20, 16, mask_zero=True)(tokens)
    return keras.Model(tokens, L.Dense(4)(L.MultiHeadAttention(2, 4)(x, x)))


def einsum() -> keras.Model:
    inputs = L.Input((None, 16))
    return keras.Model(inputs, L.EinsumDense("abc,cd->abd", (None, 4))(inputs))


CASES: dict[str, tuple[Callable[[], keras.Model], np.ndarray]] = {
    "dense on a sequence": (lambda: keras.Sequential([L.Input((None, 16)), L.Dense(8), L.Dense(4)]), SEQUENCE),
    "dense on a known sequence": (lambda: keras.Sequential([L.Input((5, 16)), L.Dense(4)]), SEQUENCE),
    "einsum": (einsum, SEQUENCE),
    "convolution along a sequence": (lambda: keras.Sequential([L.Input((None, 16)), L.Conv1D(4, 3)]), SEQUENCE),
    "recurrent": (lambda: keras.Sequential([L.Input((None, 16)), L.GRU(4, return_sequences=True)]), SEQUENCE),
    "pictures of any size": (
        lambda: keras.Sequential([L.Input((None, None, 3)), L.Conv2D(8, 3), L.Dense(4)]),
        PICTURES,
    ),
    "embedding and dense": (
        lambda: keras.Sequential([L.Input((None,), dtype="int32"), L.Embedding(20, 16), L.Dense(4)]),
        TOKENS,
    ),
    "attention": (attention, TOKENS),
}


@pytest.mark.parametrize(("name", "jit"), spread(2, CASES, [False, True]))
def test_trains_with_a_partial_last_batch(name: str, jit: bool) -> None:
    build, x = CASES[name]
    model = build()
    model.compile(keras.optimizers.Adam(0.01, global_clipnorm=1.0), "mse", jit_compile=jit)
    masks = lth.mask(model, lth.select(lth.criteria.Magnitude()(model), density=0.5, scope="layer"))
    before = {path: v.numpy() for path, v in lth.prunable(model).items()}
    model.fit(x, np.ones(model(x).shape), batch_size=4, verbose=0)
    for path, variable in lth.prunable(model).items():
        value = variable.numpy()
        assert np.count_nonzero(value[~masks[path]]) == 0
        assert not np.array_equal(value[masks[path]], before[path][masks[path]])
