"""What masks leave of a network: paths against brute force, neurons, layers, sums of scores, path norms."""

from __future__ import annotations

import itertools
from typing import Any

import keras
import numpy as np
import pytest

import keras_lth as lth
from keras_lth import analysis, models

RNG = np.random.default_rng(0)


def random_masks(model: keras.Model, density: float, seed: int) -> lth.Masks:
    rng = np.random.default_rng(seed)
    return lth.Masks({path: rng.random(tuple(v.shape)) < density for path, v in lth.prunable(model).items()})


@pytest.fixture(scope="module")
def branched() -> keras.Model:
    """Two branches, a shortcut around one, joined side by side."""
    inputs = keras.Input((3,))
    a = keras.layers.Dense(4, "relu", name="a")(inputs)
    b = keras.layers.BatchNormalization()(keras.layers.Dense(4, name="b")(a))
    c = keras.layers.Dense(2, "sigmoid", name="c")(inputs)
    joined = keras.layers.Concatenate()([keras.layers.Add()([a, b]), c])
    return keras.Model(inputs, keras.layers.Dense(2, name="out")(joined))


def by_depth_first_search(masks: lth.Masks) -> dict[str, np.ndarray]:
    """The weights on a path of `branched`, from all of its paths."""
    sources = {"a": "x", "b": "a", "c": "x"}
    edges: list[tuple[tuple[str, int], tuple[str, int], Any]] = []
    for layer, source in sources.items():
        edges += [
            ((source, i), (layer, j), (f"{layer}/kernel", i, j)) for i, j in np.argwhere(masks[f"{layer}/kernel"])
        ]
    edges += [(("a", n), ("join", n), None) for n in range(4)] + [(("b", n), ("join", n), None) for n in range(4)]
    edges += [(("c", n), ("join", 4 + n), None) for n in range(2)]
    edges += [(("join", i), ("y", j), ("out/kernel", i, j)) for i, j in np.argwhere(masks["out/kernel"])]
    found = {path: np.zeros(mask.shape, bool) for path, mask in masks.items()}

    def walk(node: tuple[str, int], taken: list[Any]) -> None:
        if node[0] == "y":
            for path, i, j in filter(None, taken):
                found[path][i, j] = True
        for begin, end, weight in edges:
            if begin == node:
                walk(end, [*taken, weight])

    for n in range(3):
        walk(("x", n), [])
    return found


@pytest.mark.parametrize("seed", range(6))
def test_effective_density_is_that_of_all_paths(branched: keras.Model, seed: int) -> None:
    masks = random_masks(branched, 0.2 + 0.05 * seed, seed)
    before = [v.numpy() for v in branched.variables]
    found = analysis.effective(branched, masks)
    expected = by_depth_first_search(masks)
    assert found.on_paths == lth.Masks(expected)
    assert found.density == sum(one.sum() for one in expected.values()) / masks.size
    reached = {j for j in range(2) if expected["out/kernel"][:, j].any()}
    assert found.outputs == (len(reached), 2) and found.connected == bool(reached)
    assert set(found.severed) == {p for p in masks if masks[p].any() and not expected[p].any()}
    assert all(np.array_equal(one, v.numpy()) for one, v in zip(before, branched.variables, strict=True))


@pytest.mark.parametrize("seed", [1, 3])
def test_paths_through_convolutions_are_those_of_what_changes_the_output(seed: int) -> None:
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(3, 3, 2, "same", name="strided")(inputs)
    x = keras.layers.AveragePooling2D(2, 1, "same")(keras.layers.ZeroPadding2D(1)(x))
    x = keras.layers.DepthwiseConv2D(2, name="depthwise")(x)
    x = keras.layers.SeparableConv2D(2, 2, name="separable")(x)
    x = keras.layers.Conv2DTranspose(2, 2, 2, name="transposed")(x)
    x = keras.layers.Flatten()(keras.layers.Cropping2D(1)(x))
    model = keras.Model(inputs, keras.layers.Dense(2, name="out")(x))
    masks = random_masks(model, 0.4, seed)
    found = analysis.effective(model, masks)
    # Positive weights: a weight is on a path if and only if its removal lowers an output.
    values = {path: np.where(mask, 1 + RNG.random(mask.shape), 0) for path, mask in masks.items()}
    weights = lth.prunable(model)
    for path, value in values.items():
        weights[path].assign(value)
    ones = np.ones((1, 6, 6, 2), "float32")
    whole = model(ones).numpy()
    for path, mask in masks.items():
        for at in map(tuple, np.argwhere(mask)):
            removed = values[path].copy()
            removed[at] = 0
            weights[path].assign(removed)
            assert found.on_paths[path][at] == bool((model(ones).numpy() != whole).any()), (path, at)
        weights[path].assign(values[path])
    assert 0 < found.on_paths.remaining < masks.remaining


def test_every_position_of_a_window_is_on_a_path_and_corners_of_padding_are_not() -> None:
    model = keras.Sequential([
        keras.Input((4, 4, 1)), keras.layers.Conv2D(1, 1, activation="tanh", name="conv"), keras.layers.MaxPooling2D(),
        keras.layers.Conv2D(1, 5, padding="same", name="padded"), keras.layers.GlobalMaxPooling2D(),
        keras.layers.Dense(2, "softmax", name="out"),
    ])  # fmt: skip
    found = analysis.effective(model)
    # Of a 5×5 kernel on 2×2 pixels only the inner 3×3 ever meets a pixel.
    inner = np.zeros((5, 5), bool)
    inner[1:4, 1:4] = True
    assert np.array_equal(found.on_paths["padded/kernel"][..., 0, 0], inner)
    assert found.on_paths["conv/kernel"].all() and found.on_paths["out/kernel"].all()
    lth.mask(model, {"out/kernel": np.array([[True, False]])})
    assert analysis.effective(model).outputs == (1, 2) and "1 of 2 outputs" in str(analysis.effective(model))


@pytest.mark.filterwarnings("ignore:.*empty")
def test_resnet_20_stays_connected_where_layers_of_one_shot_pruning_are_severed() -> None:
    model = models.resnet_20((8, 8, 3), seed=0)
    masks = lth.prune_iteratively(model, "synflow", density=0.002, iterations=10)
    found = analysis.effective(model, masks)
    assert found.connected and found.on_paths.remaining > 0.9 * masks.remaining
    # Without the weights of a block its shortcut still leads to the outputs.
    cut = lth.Masks({path: mask & ("stage1" not in path) for path, mask in lth.Masks.ones(lth.prunable(model)).items()})
    assert analysis.effective(model, cut).connected
    assert not analysis.effective(model, {**cut, "conv/kernel": np.zeros((3, 3, 3, 16))}).connected
    rows = [row.path for row in analysis.layerwise(masks)]
    assert sorted(rows) == sorted(masks)
    for stage in (2, 3):
        place = rows.index(f"stage{stage}_block1_conv2/kernel")
        assert rows[place + 1] == f"stage{stage}_block1_shortcut_conv/kernel"


def test_neurons_by_hand() -> None:
    masks = lth.Masks({
        "a": np.array([[1, 0, 0], [1, 1, 0]]), "conv": np.zeros((3, 3, 2, 2)), "whole": np.ones((1, 1, 4, 5)),
    })  # fmt: skip
    assert {path: one.tolist() for path, one in analysis.neuron_sparsity(masks).items()} == {
        "a": [0.0, 0.5, 1.0], "conv": [1.0, 1.0], "whole": [0.0] * 5,
    }  # fmt: skip
    assert analysis.neuron_collapse(masks) == 3 / 10
    assert analysis.collapse_curve(masks, [0, 0.5, 0.51]) == [1.0, 0.4, 0.3]
    tenth = lth.Masks({"a": (np.arange(10) != 0)[:, None]})
    assert analysis.neuron_collapse(tenth, 0.1) == 1.0
    with pytest.raises(ValueError, match=r"\[0, 1\].*1.5"):
        analysis.neuron_collapse(masks, 1.5)
    with pytest.raises(ValueError, match=r"'b'.*\(3,\)"):
        analysis.neuron_collapse(lth.Masks({"b": np.ones(3)}))


def test_sums_of_scores_and_path_norms_in_closed_form() -> None:
    assert analysis.layer_sums({"a": np.ones((2, 3)), "b": [4.0]}) == {"a": 6.0, "b": 4.0}
    assert analysis.imbalance({"a": np.ones((2, 3)), "b": [4.5]}) == 0.25
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(n, use_bias=False, name=name) for n, name in ((4, "a"), (3, "b"))]
    model = keras.Sequential([keras.Input((2,)), layers[0], keras.layers.BatchNormalization(name="n"), layers[1]])
    norm = model.get_layer("n")
    norm.gamma.assign([1, 2, 3, -1])
    norm.moving_variance.assign([1, 4, 0.5, 2])
    scale = np.abs(norm.gamma.numpy()) / np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
    a, b = (np.abs(np.float64(one.kernel.numpy())) for one in layers)
    for p in (1, 2, 3):
        paths = [(a[i, j] * scale[j] * b[j, k]) ** p for i, j, k in itertools.product(range(2), range(4), range(3))]
        assert analysis.path_norm(model, p=p) == pytest.approx(sum(paths) ** (1 / p), rel=1e-6)
    masks = lth.Masks({"a/kernel": np.ones((2, 4)), "b/kernel": np.arange(12).reshape(4, 3) == 0})
    first = [(a[i, 0] * scale[0] * b[0, 0]) ** 2 for i in range(2)]
    assert analysis.path_norm(model, masks) == pytest.approx(sum(first) ** 0.5, rel=1e-6)
    with pytest.raises(ValueError, match=r"p must.*0.5"):
        analysis.path_norm(model, p=0.5)


def test_layers_that_paths_do_not_pass_are_named() -> None:
    model = keras.Sequential([keras.Input((5, 2)), keras.layers.LSTM(3, name="recurrent"), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match=r"'recurrent' \(LSTM\)"):
        analysis.effective(model)
