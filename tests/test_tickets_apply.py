from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from keras_lth.masks import Masks
from keras_lth.tickets import Snapshot, Ticket


def ticket() -> Ticket:
    weights = {
        "dense/kernel": np.array([[1.5, -0.0], [np.nan, np.inf]], np.float32),
        "norm/mean": np.array([1, 2], np.float32),
    }
    return Ticket(Masks({"dense/kernel": [[1, 0], [0, 0]]}), Snapshot(weights, {}, 7))


# apply_to: on a stand-in for a model ------------------------------------------------------------------------------


class Variable:
    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape, self.value = shape, np.full(shape, 9.0, np.float32)

    def assign(self, value: np.ndarray) -> None:
        self.value = np.array(value)


@pytest.fixture
def surgery(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    import keras_lth

    fake = ModuleType("keras_lth.surgery")
    held: dict[str, np.ndarray] = {}

    def mask(model: dict, masks: Masks) -> None:
        held.update(masks)

    fake.variables = lambda model: model
    fake.snapshot = lambda model: Snapshot({p: v.value for p, v in model.items()})
    fake.mask, fake.unmask = mask, lambda model: held.clear()
    fake.masks_of = lambda model: Masks(held)
    monkeypatch.setitem(sys.modules, "keras_lth.surgery", fake)
    monkeypatch.setattr(keras_lth, "surgery", fake, raising=False)
    return fake


@pytest.mark.parametrize("names", [("dense/kernel", "norm/mean"), ("dense_1/kernel", "norm_1/mean")])
def test_apply_by_path_or_by_order(surgery: Any, names: tuple[str, str]) -> None:
    model = {names[0]: Variable((2, 2)), names[1]: Variable((2,))}
    surgery.mask(model, {"left/from/before": np.array([False])})
    ticket().apply_to(model)
    assert model[names[0]].value.tolist() == [[1.5, 0], [0, 0]] and model[names[1]].value.tolist() == [1, 2]
    assert dict(surgery.masks_of(model)).keys() == {names[0]}
    assert surgery.masks_of(model)[names[0]].tolist() == [[True, False], [False, False]]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"dense/kernel": (2, 3), "norm/mean": (2,)}, r"'dense/kernel' has shape \(2, 2\), expected \(2, 3\)"),
        ({"dense/kernel": (2, 2)}, r"'norm/mean' \(2,\) is unknown"),
        ({"dense/kernel": (2, 2), "norm/mean": (2,), "out/kernel": (2, 1)}, r"'out/kernel' \(2, 1\) is missing"),
    ],
)
def test_another_architecture_is_refused_whole(surgery: Any, shapes: dict, message: str) -> None:
    model = {path: Variable(shape) for path, shape in shapes.items()}
    with pytest.raises(ValueError, match=message):
        ticket().apply_to(model)
    assert all((variable.value == 9).all() for variable in model.values()) and len(surgery.masks_of(model)) == 0


# apply_to: on Keras models ----------------------------------------------------------------------------------------


def keras_model(units: int = 5) -> Any:
    import keras

    layers = [keras.Input((4,)), keras.layers.Dense(units), keras.layers.BatchNormalization()]
    layers += [keras.layers.Dropout(0.1, seed=1), keras.layers.Dense(3)]
    return keras.Sequential(layers)


def test_a_ticket_trains_elsewhere_from_its_file_alone(tmp_path: Path) -> None:
    from keras_lth import criteria, selection
    from keras_lth import surgery as real

    first = keras_model()
    masks = selection.select(criteria.Magnitude()(first), density=0.4)
    assert masks.remaining == 14  # 0.4 × (4 × 5 + 5 × 3)
    Ticket(masks, real.snapshot(first), {"criterion": "magnitude"}).save(tmp_path / "t")

    second = keras_model()
    assert second.layers[0].name != first.layers[0].name
    loaded = Ticket.load(tmp_path / "t")
    loaded.apply_to(second)
    assert real.masks_of(second) == masks
    expected = masks.apply(loaded.snapshot.weights)
    for path, array in real.snapshot(second).weights.items():
        assert array.tobytes() == expected[path].tobytes(), path

    second.compile("adam", "mse")
    x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    second.fit(x, x[:, :3], epochs=1, batch_size=8, verbose=0)
    trained = real.snapshot(second).weights
    for path, mask in masks.items():
        assert (trained[path][~mask] == 0).all() and (trained[path][mask] != expected[path][mask]).any()

    other = keras_model(units=6)
    before = real.snapshot(other)
    with pytest.raises(ValueError, match=r"these weights do not fit the model: .*\(4, 5\), expected \(4, 6\)"):
        loaded.apply_to(other)
    assert real.snapshot(other).same_bits(before) and len(real.masks_of(other)) == 0


def test_an_unbuilt_model_is_refused() -> None:
    import keras

    with pytest.raises(ValueError, match=r"not built.*'dense' have no weights yet.*a call on a batch"):
        ticket().apply_to(keras.Sequential([keras.layers.Dense(3)]))
