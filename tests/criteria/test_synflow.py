"""SynFlow: densities that are known, conservation, maximal critical compression, and what cannot be scored."""

from __future__ import annotations

import itertools
from typing import Any

import keras
import numpy as np
import pytest

import keras_lth as lth
from keras_lth import criteria

UNIFORM, NORMAL = keras.initializers.GlorotUniform, keras.initializers.GlorotNormal


def he(seed: int) -> Any:
    return keras.initializers.VarianceScaling(2.0, "fan_in", "untruncated_normal", seed)


def lenet(initializer: Any, seed: int = 0) -> keras.Model:
    widths = zip((300, 100, 10), ("relu", "relu", None), strict=True)
    layers = [keras.layers.Dense(n, a, kernel_initializer=initializer(seed + n)) for n, a in widths]
    return keras.Sequential([keras.Input((784,)), *layers])


# Layer densities at a density, of magnitude and of SynFlow with 100 iterations: means of 10 seeds.
KNOWN = [
    (UNIFORM, 0.2, (0.1606, 0.4911, 0.735), (0.1564, 0.5157, 0.988)),
    (UNIFORM, 0.05, (0.0033, 0.3953, 0.680), (0.0353, 0.1351, 0.948)),
    (UNIFORM, 0.02, (0, 0.1589, 0.558), (0.01254, 0.0508, 0.850)),
    (NORMAL, 0.02, (0, 0.1613, 0.484), (0.01226, 0.0540, 0.821)),
    (he, 0.02, (0.00822, 0.1012, 0.356), (0.01201, 0.0563, 0.811)),
]
# At most, over the seeds.
DEVIATION = np.array([0.0005, 0.003, 0.02])


@pytest.mark.parametrize(("initializer", "density", "magnitude", "synflow"), KNOWN)
@pytest.mark.filterwarnings("ignore:1 of 3 layer is empty")
def test_densities_of_lenet(initializer: Any, density: float, magnitude: Any, synflow: Any) -> None:
    model = lenet(initializer)
    by_magnitude = lth.select(criteria.Magnitude()(model), density=density)
    by_flow = lth.prune_iteratively(model, "synflow", density=density)
    for masks, expected in ((by_magnitude, magnitude), (by_flow, synflow)):
        assert masks.remaining == round(density * 266_200)
        found = [row.density for row in masks.table()]
        assert np.all(np.abs(np.subtract(found, expected)) < 3 * DEVIATION), found
    if initializer is UNIFORM:
        # A layer keeps the share of U(−a, a) that is beyond the threshold.
        bounds = [np.sqrt(6 / sum(row.shape)) for row in by_magnitude.table()]
        scores = criteria.Magnitude()(model)
        threshold = min(scores[path][mask].min() for path, mask in by_magnitude.items() if mask.any())
        exact = [max(0.0, 1 - threshold / a) for a in bounds]
        assert np.all(np.abs(np.subtract([row.density for row in by_magnitude.table()], exact)) < 3 * DEVIATION)


def test_scores_of_layers_sum_to_the_flow_in_chains() -> None:
    keras.utils.set_random_seed(0)
    plain: dict[str, Any] = {"use_bias": False, "activation": "relu"}
    chain = keras.Sequential([
        keras.Input((8, 8, 2)), keras.layers.Conv2D(4, 3, padding="same", **plain), keras.layers.MaxPooling2D(),
        keras.layers.Conv2D(5, 3, **plain), keras.layers.Flatten(), keras.layers.Dense(6, **plain),
        keras.layers.Dense(3, use_bias=False),
    ])  # fmt: skip
    for masks in (None, lth.select(criteria.Random(0)(chain), density=0.4)):
        if masks is not None:
            lth.mask(chain, masks)
        sums = [scores.sum() for scores in criteria.SynFlow()(chain).values()]
        np.testing.assert_allclose(sums, sums[0], rtol=1e-12)
    assert all(scores.dtype == np.float64 for scores in criteria.SynFlow()(chain).values())


def test_everything_is_positive_and_normalisation_is_that_of_inference() -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    x = keras.layers.Rescaling(0.1, -5.0)(inputs)
    x = keras.layers.Dense(4, name="hidden", bias_initializer="normal")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Dropout(0.5)(keras.layers.ReLU()(x))
    model = keras.Model(inputs, keras.layers.Dense(2, "softmax", name="out", bias_initializer="normal")(x))
    norm = model.get_layer("norm")
    norm.set_weights(list(np.array([[0.5, -2, 1, 0.3], [0.1, -0.4, 0, 2], [0.2, -0.1, 0.3, 0], [1, 2, 0.5, 0.1]])))
    before = [v.numpy() for v in model.variables]
    found = criteria.SynFlow()(model)
    w, b = (np.abs(np.float64(one.numpy())) for one in model.get_layer("hidden").weights)
    v, _ = (np.abs(np.float64(one.numpy())) for one in model.get_layer("out").weights)
    gamma, beta, mean, variance = (np.abs(np.float64(one.numpy())) for one in norm.weights)
    scale = gamma / np.sqrt(variance + norm.epsilon)
    a = (w.sum(0) + b - mean) * scale + beta
    np.testing.assert_allclose(found["out/kernel"], np.maximum(a, 0)[:, None] * v, rtol=1e-9)
    np.testing.assert_allclose(found["hidden/kernel"], w * ((a > 0) * scale * v.sum(1)), rtol=1e-9)
    # Nothing is left behind: values, dtypes, activations.
    assert all(np.array_equal(one, v.numpy()) for one, v in zip(before, model.variables, strict=True))
    assert model.get_layer("out").activation is keras.activations.softmax and model.get_layer("out").dtype == "float32"
    assert np.allclose(model.predict(np.ones((1, 3)), verbose=0).sum(), 1)


def weakest_cut(masks: lth.Masks) -> int:
    return min(int(mask.sum()) for mask in masks.values())


@pytest.mark.parametrize("widths", [(3, 4, 4, 2), (2, 1, 3, 1)])
def test_maximal_critical_compression_of_chains(widths: tuple[int, ...]) -> None:
    # Tanaka's theorem: with one weight removed at a time, no layer is emptied before every layer has a single weight.
    keras.utils.set_random_seed(sum(widths))
    layers = [keras.layers.Dense(n, use_bias=False) for n in widths[1:]]
    model = keras.Sequential([keras.Input(widths[:1]), *layers])
    size = sum(a * b for a, b in itertools.pairwise(widths))
    masks = lth.prune_iteratively(
        model, "synflow", density=len(layers) / size, iterations=size - len(layers), schedule="linear"
    )
    assert [int(mask.sum()) for mask in masks.values()] == [1] * len(layers)
    path = [np.argwhere(mask)[0] for mask in masks.values()]
    assert all(left[1] == right[0] for left, right in itertools.pairwise(path))
    # It is the path with the greatest product among those that keep the flow, and one-shot pruning breaks it.
    with pytest.warns(UserWarning, match="empty"):
        lth.select(criteria.Magnitude()(lenet(UNIFORM)), density=0.02)


def test_what_cannot_be_scored_is_said() -> None:
    class Own(keras.Model):
        def __init__(self, softmax: bool = False) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(3, "softmax" if softmax else None)

        def call(self, x: Any) -> Any:
            return self.dense(x)

    model = Own()
    model(np.ones((1, 4)))
    with pytest.raises(ValueError, match=r"input shape.*input_shape="):
        criteria.SynFlow()(model)
    np.testing.assert_allclose(
        criteria.SynFlow(input_shape=(4,))(model)["dense/kernel"], np.abs(model.dense.kernel.numpy())
    )
    model = Own(softmax=True)
    model(np.ones((1, 4)))
    with pytest.raises(ValueError, match=r"sum to 1 .*logits"):
        criteria.SynFlow(input_shape=(4,))(model)
    deep = keras.Sequential([keras.Input((10,)), *(keras.layers.Dense(10, name=f"d{n}") for n in range(8))])
    for layer in deep.layers:
        layer.kernel.assign(np.full((10, 10), 1e6))
    with pytest.raises(ValueError, match=r"float32 overflows in layer 'd5'.*float64"):
        criteria.SynFlow(dtype="float32")(deep)
    assert criteria.SynFlow()(deep)["d7/kernel"].sum() == pytest.approx(10 * 1e7**8)
    images = keras.Sequential(
        [keras.Input((None, None, 1)), keras.layers.Conv2D(2, 3), keras.layers.GlobalMaxPooling2D()]
    )
    with pytest.raises(ValueError, match=r"\(None, None, 1\).*input_shape="):
        criteria.SynFlow()(images)
    assert criteria.SynFlow(input_shape=(5, 5, 1))(images)


def test_several_inputs_and_outputs() -> None:
    inputs = {"a": keras.Input((2,), name="a"), "b": keras.Input((3,), name="b")}
    x = keras.layers.Concatenate()([keras.layers.Dense(2, name="of_a")(inputs["a"]), inputs["b"]])
    model = keras.Model(inputs, [keras.layers.Dense(1, name="one")(x), keras.layers.Dense(2, name="two")(x)])
    scores = criteria.SynFlow()(model)
    w = np.abs(np.float64(model.get_layer("of_a").kernel.numpy()))
    after = sum(np.abs(np.float64(model.get_layer(name).kernel.numpy())).sum(1) for name in ("one", "two"))
    np.testing.assert_allclose(scores["of_a/kernel"], w * after[:2], rtol=1e-9)


def test_inverted_it_severs_the_network_and_goes_on() -> None:
    """The ablation of thesis 5.7.3 removes what carries most, until nothing reaches the outputs."""
    built = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3)])
    masks = lth.prune_iteratively(built, criteria.Inverted(criteria.SynFlow()), density=0.2, iterations=20)
    assert masks.remaining == round(0.2 * 72)
    lth.mask(built, masks)
    assert not np.asarray(built(np.ones((1, 6)))).any()
    with pytest.raises(ValueError, match=r"sum to 0.*connect"):
        criteria.SynFlow()(built)
