"""``fit`` on ordered data says nothing of shuffling; on other data Keras warns as before."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lth as lth

X, Y = np.ones((6, 2), np.float32), np.ones((6, 1), np.float32)


class Own(keras.Model):
    """Its ``fit`` passes everything on."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        return super().fit(*args, **kwargs)


def plain() -> keras.Model:
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])


def fit(model: keras.Model, *args: Any, **kwargs: Any) -> list[str]:
    model.compile("sgd", "mse")
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        model.fit(*args, verbose=0, **kwargs)
    return [str(warning.message) for warning in record if "shuffle" in str(warning.message)]


@pytest.mark.parametrize("make", [plain, Own])
def test_only_ordered_data_is_silent(make: Any) -> None:
    data = lth.datasets.ordered(X, Y, batch_size=3, seed=0)
    assert fit(make(), data) == []
    assert fit(make(), x=data) == []
    assert len(fit(make(), tf.data.Dataset.from_tensor_slices((X, Y)).batch(3))) == 1
    assert fit(make(), X, Y) == []


def test_also_in_the_first_fit_of_a_process() -> None:
    """In ``model.fit(ordered(…))`` Python looks ``fit`` up before anything of ours is imported."""
    code = (
        "import keras, keras_lth as lth, numpy as np\n"
        "model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])\n"
        "model.compile('sgd', 'mse')\n"
        "model.fit(lth.datasets.ordered(np.ones((6, 2)), np.ones((6, 1)), batch_size=3, seed=0), verbose=0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "shuffle" not in done.stderr
