"""Permutations, curves, planes and averages: closed forms, and functions that do not change."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_lth import models, surgery
from keras_lth.analysis import (
    Evaluator,
    average,
    bezier,
    curve_path,
    fit_curve,
    l2,
    linear_path,
    plane,
    soup,
    symmetries,
)
from keras_lth.masks import Masks

SMALL = {
    "lenet_300_100": lambda: models.lenet_300_100((8, 8, 1), 10, seed=1, bias="uniform"),
    "lenet_5": lambda: models.lenet_5((16, 16, 1), 10, seed=1),
    "conv_2": lambda: models.conv_2((8, 8, 3), 10, seed=1),
    "resnet_cifar": lambda: models.resnet_cifar((8, 8, 3), 10, seed=1, depth=14, width=4),
    "resnet_imagenet": lambda: models.resnet_imagenet((16, 16, 3), 10, seed=1, depth=18, width=4),
    "bottlenecks": lambda: models.resnet_imagenet((16, 16, 3), 10, seed=1, depth=50, width=4, small=True),
    "vgg_11": lambda: models.vgg_11((16, 16, 3), 10, seed=1),
}


def set_to(model: keras.Model, weights: dict[str, np.ndarray]) -> None:
    for path, variable in surgery.variables(model).items():
        if path in weights:
            variable.assign(weights[path])


def moved_statistics(model: keras.Model) -> dict[str, np.ndarray]:
    """Weights whose statistics differ from channel to channel."""
    draw = np.random.default_rng(0)
    return {
        path: (array + draw.uniform(0.5, 1, array.shape).astype(array.dtype)) if "moving_" in path else array
        for path, array in surgery.snapshot(model).weights.items()
    }


@pytest.mark.parametrize("name", SMALL)
def test_a_random_permutation_keeps_the_function_and_is_recovered(name: str) -> None:
    model = SMALL[name]()
    weights, found = moved_statistics(model), symmetries(model)
    x = np.random.default_rng(1).normal(size=(3, *model.input_shape[1:])).astype(np.float32)
    set_to(model, weights)
    before = np.asarray(model(x))
    mixed = found.permuted(weights, found.random(7))
    assert l2(weights, mixed) > 0.1
    set_to(model, mixed)
    np.testing.assert_allclose(model(x), before, rtol=2e-3, atol=1e-4 * np.abs(before).max())
    back = found.aligned(weights, mixed)
    for path, array in weights.items():
        assert back[path].tobytes() == array.tobytes(), path


def test_groups_of_a_residual_network() -> None:
    """One group of each stage, which its residual connections share, and one inside of each of its six blocks."""
    found = symmetries(SMALL["resnet_cifar"]())
    assert sorted(found.sizes.values()) == sorted([4, 8, 16] + 2 * [4, 8, 16])
    flat = symmetries(SMALL["lenet_5"]())
    # 16 × 16 become 6 × 6 and 1 × 1 places of 20 and 50 channels.
    assert list(flat.sizes.values()) == [20, 50, 500] and len(flat.axes["fc1/kernel"][0]) == 1


def test_permuted_hidden_units_have_a_barrier_that_matching_removes() -> None:
    """A network of |x| = relu(x) + relu(−x): half-way to its copy with the units swapped it is 0."""
    model = keras.Sequential([
        keras.Input((1,)), keras.layers.Dense(2, "relu", use_bias=False), keras.layers.Dense(1, use_bias=False)
    ])  # fmt: skip
    x = np.linspace(-1, 1, 21)[:, None]

    def error(w: dict[str, np.ndarray]) -> float:
        hidden = np.maximum(x @ w["dense/kernel"], 0)
        return float(np.mean((hidden @ w["dense_1/kernel"] - np.abs(x)) ** 2))

    a = {"dense/kernel": np.array([[1.0, -1.0]]), "dense_1/kernel": np.array([[1.0], [1.0]])}
    found = symmetries(model)
    b = found.permuted(a, {0: np.array([1, 0])})
    assert error(a) == error(b) == 0 and b["dense/kernel"].tolist() == [[-1, 1]]
    # The middle has no first layer: its error is the mean of x².
    assert linear_path(a, b, error, points=3).barrier == pytest.approx(float(np.mean(x**2)))
    assert linear_path(a, found.aligned(a, b), error).barrier == 0


def test_masks_move_with_their_weights_and_strangers_are_refused() -> None:
    model = SMALL["lenet_300_100"]()
    found, weights = symmetries(model), dict(surgery.snapshot(model).weights)
    order = found.random(3)
    masks = Masks({"fc2/kernel": weights["fc2/kernel"] > 0})
    moved = Masks(found.permuted(masks, order))
    assert (moved["fc2/kernel"] == (found.permuted(weights, order)["fc2/kernel"] > 0)).all()
    with pytest.raises(ValueError, match=r"fc2/kernel.*\(2, 2\).*\(300, 100\)"):
        found.permuted({"fc2/kernel": np.zeros((2, 2))}, order)
    with pytest.raises(ValueError, match="nothing"):
        found.permuted({"nothing": np.zeros(2)}, order)
    other = keras.Sequential([keras.Input((4, 4)), keras.layers.LSTM(3)])
    with pytest.raises(ValueError, match=r"LSTM.*convolutions"):
        symmetries(other)


def well(w: dict[str, np.ndarray]) -> float:
    """Low where |w| = 1: two points of the circle have a barrier on the line, and none on an arc."""
    return float((np.linalg.norm(w["w"]) - 1) ** 2)


def test_a_curve_passes_a_barrier() -> None:
    a, b = {"w": np.array([1.0, 0.0])}, {"w": np.array([0.0, 1.0])}
    middle = bezier(a, {"w": np.array([1.0, 1.0])}, b, 0.5)["w"]
    assert middle.tolist() == [0.75, 0.75]
    assert bezier(a, a, b, 1)["w"].tolist() == [1, 0] and bezier(a, a, b, 0)["w"].tolist() == [0, 1]
    straight = linear_path(a, b, well, points=3)
    assert straight.barrier == pytest.approx((1 - 0.5**0.5) ** 2)
    # The control point for which the middle lies on the circle.
    c = {"w": np.full(2, 2**0.5 - 0.5)}
    assert curve_path(a, c, b, well, points=3).barrier == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match=r"\[0, 1\], not 2"):
        bezier(a, a, b, 2)


def test_averages_and_soups() -> None:
    networks = [{"w": np.array([value, 0.0], np.float32), "n": np.array(3)} for value in (1.0, 2.0, 6.0)]
    found = average(networks)
    assert found["w"].tolist() == [3, 0] and found["w"].dtype == np.float32 and found["n"] == 3
    assert average([networks[0]] * 3)["w"].tobytes() == networks[0]["w"].tobytes()

    def error(w: dict[str, np.ndarray]) -> float:
        return abs(float(w["w"][0]) - 1.6)

    # From 2 (0.4) with 1 to 1.5 (0.1); with 6 it would be 3.
    greedy = soup(networks, error)
    assert greedy.members == (1, 0) and greedy.error == pytest.approx(0.1)
    assert soup(networks, error, greedy=False).members == (0, 1, 2)
    with pytest.raises(ValueError, match="at least one network"):
        average([])


def test_a_plane_contains_its_networks() -> None:
    """Three points, on the axes by construction; the error is a function of the place alone."""
    a, b, c = ({"w": np.array(place, float), "k": np.zeros(3)} for place in ((0, 0, 5), (4, 0, 5), (1, 3, 5)))
    found = plane([a, b, c], lambda w: float(w["w"][0] + 10 * w["w"][1]), points=6, margin=0.0)
    assert found.places == ((0, 0), (4, 0), pytest.approx((1, 3)))
    expected = [[x + 10 * y for x in found.x] for y in found.y]
    np.testing.assert_allclose(found.errors, expected, atol=1e-9)
    assert (found.x[0], found.x[-1], found.y[-1]) == pytest.approx((0, 4, 3))
    with pytest.raises(ValueError, match="one line"):
        plane([a, b, b], well)
    with pytest.raises(ValueError, match="three networks, not 2"):
        plane([a, b], well)


def test_a_trained_curve_is_lower_than_the_line() -> None:
    """Two networks of |x| whose units are swapped: on the line the loss has a barrier, on the trained curve less."""
    model = keras.Sequential([
        keras.Input((1,)), keras.layers.Dense(2, "relu", use_bias=False), keras.layers.Dense(1, use_bias=False)
    ])  # fmt: skip
    model.compile("sgd", "mse")
    x = np.linspace(-1, 1, 64, dtype=np.float32)[:, None]
    data = x, np.abs(x)
    a = {"dense/kernel": np.array([[1.0, 0.0]]), "dense_1/kernel": np.array([[1.0], [0.0]])}
    b = {"dense/kernel": np.array([[-1.0, 0.0]]), "dense_1/kernel": np.array([[1.0], [0.0]])}
    a, b = ({path: array.astype(np.float32) for path, array in each.items()} for each in (a, b))
    before = surgery.snapshot(model).weights
    control = fit_curve(model, a, b, data, steps=150, batch_size=64, optimizer=keras.optimizers.SGD(0.1), seed=1)
    assert surgery.snapshot(model).weights["dense/kernel"].tobytes() == before["dense/kernel"].tobytes()
    # The second unit is pruned in both ends, so it stays out.
    assert control["dense/kernel"][0, 1] == 0 and control["dense_1/kernel"][1, 0] == 0
    with Evaluator(model, data, metric="loss") as evaluate:
        line, curve = (curve_path(a, c, b, evaluate, points=9) for c in (average([a, b]), control))
        assert evaluate.measure == "loss" and np.mean(curve.errors) <= np.mean(line.errors)
    with pytest.raises(ValueError, match="steps"):
        fit_curve(model, a, b, data, steps=0)
