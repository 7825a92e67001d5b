"""The example of docs/criteria.md runs as it stands, and the page lists every criterion and rule."""

from __future__ import annotations

import re
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_lth as lth
from keras_lth.criteria import call

PAGE = (Path(__file__).parents[2] / "docs" / "criteria.md").read_text()


@pytest.mark.filterwarnings("ignore:.*empty")
def test_the_example_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(24, "relu"), keras.layers.Dense(3)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    random = np.random.default_rng(0)
    names = {"lth": lth, "model": model, "x": random.normal(size=(90, 16)).astype("float32"), "y": np.arange(90) % 3}
    exec(code, names)
    assert lth.masks_of(model).remaining == round(0.05 * (16 * 24 + 24 * 3))


def test_the_page_lists_every_criterion_and_rule() -> None:
    listed = re.findall(r"^\| `(\w+)", PAGE, re.M)
    assert {name.lower() for name in listed} >= {*call.NAMES, *map(str.lower, lth.densities.__all__)} - {"densities"}
