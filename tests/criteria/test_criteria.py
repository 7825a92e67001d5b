from __future__ import annotations

import keras
import ml_dtypes
import numpy as np
import pytest

from keras_lth import criteria, selection
from keras_lth.masks import Masks


def model(dtype: str = "float32") -> keras.Model:
    layers = [
        keras.layers.Dense(3, name="hidden"),
        keras.layers.BatchNormalization(),
        keras.layers.Dense(2, name="out"),
    ]
    return keras.Sequential([keras.Input((4,), dtype=dtype), *layers])


@pytest.mark.parametrize(("dtype", "kind"), [("float32", np.float32), ("bfloat16", ml_dtypes.bfloat16)])
def test_magnitude_is_the_absolute_value_in_the_dtype_of_the_weight(dtype: str, kind: type) -> None:
    keras.config.set_dtype_policy(dtype)
    try:
        network = model(dtype)
    finally:
        keras.config.set_dtype_policy("float32")
    weight = np.linspace(-2, 2, 12).reshape(4, 3)
    network.get_layer("hidden").kernel.assign(weight)
    scores = criteria.Magnitude()(network)
    assert list(scores) == ["hidden/kernel", "out/kernel"]
    assert scores["hidden/kernel"].dtype == kind and scores["out/kernel"].shape == (3, 2)
    assert scores["hidden/kernel"].tolist() == np.abs(weight.astype(kind)).tolist()


def test_magnitude_masks_by_hand() -> None:
    network = model()
    network.get_layer("hidden").kernel.assign([[5, -6, 0.1], [0.1, 0.1, 0.1], [0.1, 0.1, 0.1], [0.1, 0.1, -4]])
    network.get_layer("out").kernel.assign([[3, -0.2], [0.1, 0.1], [0.1, -7]])
    masks = selection.select(criteria.Magnitude()(network), k=5)
    assert masks == Masks(
        {
            "hidden/kernel": [[1, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1]],
            "out/kernel": [[1, 0], [0, 0], [0, 1]],
        }
    )


def test_random_depends_on_seed_and_path_alone() -> None:
    first, second = criteria.Random(3)(model()), criteria.Random(3)(model())
    assert list(first) == ["hidden/kernel", "out/kernel"]
    for path, scores in first.items():
        assert scores.tolist() == second[path].tolist() == selection.uniform(3, path, scores.shape).tolist()
    assert criteria.Random(4)(model())["out/kernel"].tolist() != first["out/kernel"].tolist()
    # The same ranking as `random_like` uses: global random pruning two ways.
    counts = Masks({"hidden/kernel": np.arange(12).reshape(4, 3) < 6, "out/kernel": np.zeros((3, 2))})
    assert selection.random_like(counts, 3, scope="global") == selection.select(first, k=6)


def test_include_and_exclude() -> None:
    assert list(criteria.Magnitude(exclude="^out")(model())) == ["hidden/kernel"]
    assert list(criteria.Random(0, include="out")(model())) == ["out/kernel"]
