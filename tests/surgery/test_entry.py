"""What is not a built Keras 3 model on TensorFlow gets one sentence: what it is, and what would work."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_lth as lth

L = keras.layers
FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "mask": lambda m: lth.mask(m, {"dense/kernel": np.ones((4, 2), bool)}),
    "unmask": lth.unmask,
    "masks_of": lth.masks_of,
    "prunable": lth.prunable,
    "snapshot": lth.snapshot,
    "rewind": lambda m: lth.rewind(m, lth.Snapshot({})),
    "sparsity": lth.sparsity,
    "magnitude": lth.criteria.Magnitude(),
    "random": lth.criteria.Random(0),
    "zeros": lth.masks_from_zeros,
    "unknown": lth.unknown_layers,
    # What a fit of Keras 2 calls first, too.
    "imp": lambda m: lth.IMPCallback(rounds=1).set_model(m),
    "rigl": lambda m: lth.RigL(density=0.1).set_model(m),
}


class Unfinished(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = L.Dense(4), L.Dense(2)

    def call(self, x: Any) -> Any:
        return self.second(self.first(x))


def keras_2() -> Any:
    return type("Sequential", (), {"__module__": "tf_keras.src.engine.sequential"})()


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    ("thing", "words"),
    [
        (lambda: None, "None"),
        (lambda: "runs/model.keras", "load_model"),
        (lambda: Path("model.keras"), "load_model"),
        (lambda: Unfinished, "class Unfinished"),
        (lambda: L.Dense(2, name="mine"), r"layer 'mine'.*Sequential"),
        (keras_2, "Keras 2"),
        (lambda: [1], "one model at a time"),
        (lambda: Unfinished.call, "call it first"),
        (lambda: 3, "int"),
    ],
)
def test_other_objects(name: str, thing: Callable[[], Any], words: str) -> None:
    with pytest.raises(TypeError, match=words) as error:
        FUNCTIONS[name](thing())
    assert len(str(error.value)) <= 300


def test_imp_and_the_loop_check_too() -> None:
    with pytest.raises(TypeError, match="load_model"):
        lth.training.fit("model.keras", lth.datasets.ordered(np.ones((4, 2)), batch_size=2, seed=0), epochs=1)


def test_another_backend() -> None:
    code = (
        "import keras; keras.config.backend = lambda: 'jax'; import keras_lth as lth;"
        "m = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]); lth.prunable(m)"
    )
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'KERAS_BACKEND="tensorflow"' in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", ["mask", "prunable", "sparsity", "magnitude", "snapshot"])
def test_a_model_without_weights_names_its_layers(name: str) -> None:
    model = Unfinished()
    for build in (lambda: None, lambda: setattr(model, "built", True)):
        build()
        with pytest.raises(
            ValueError, match=r"layers 'first', 'second' have no weights yet.*call the model on a batch"
        ):
            FUNCTIONS[name](model)
    with pytest.raises(ValueError, match=r"'lonely' is not built.*'dense'.*keras.Input"):
        FUNCTIONS[name](keras.Sequential([L.Dense(2)], name="lonely"))


class Gan(keras.Model):
    """Two models and no call."""

    def __init__(self, built: bool) -> None:
        super().__init__()
        start = [keras.Input((3,))] if built else []
        self.generator = keras.Sequential([*start, L.Dense(3)])
        self.judge = keras.Sequential([*start, L.Dense(1)])


def test_no_call() -> None:
    assert list(lth.prunable(Gan(True))) == ["generator/dense/kernel", "judge/dense/kernel"]
    with pytest.raises(ValueError, match=r"'generator/dense', 'judge/dense' have no weights yet.*no call\(\)"):
        lth.prunable(Gan(False))


def test_layers_that_are_not_built_are_named_beside_those_that_are() -> None:
    class Late(Unfinished):
        def __init__(self) -> None:
            super().__init__()
            self.late = L.Dense(5)

    model = Late()
    model(np.ones((1, 3), np.float32))
    with pytest.warns(UserWarning, match="no weights yet.*late"):
        weights = lth.prunable(model)
    assert list(weights) == ["first/kernel", "second/kernel"]
    assert "no weights yet: late" in str(weights)
