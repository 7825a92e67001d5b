"""Criteria of examples: against derivatives by hand, by complex steps and by finite differences, and closed forms."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import keras_lth as lth
from keras_lth import criteria

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(9, 5)), np.arange(9) % 3


@pytest.fixture(scope="module", autouse=True)
def _float64() -> Any:
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(before[0])
    keras.config.set_dtype_policy(before[1])


def logits() -> keras.losses.Loss:
    # A loss computes in the dtype that is set when it is made.
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def mlp(softmax: bool = False) -> keras.Model:
    keras.utils.set_random_seed(3)
    last = keras.layers.Dense(3, "softmax" if softmax else None, name="out")
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4, "tanh", name="hidden"), last])
    model.compile("sgd", "sparse_categorical_crossentropy" if softmax else logits(), jit_compile=False)
    return model


def gradient(weights: dict[str, np.ndarray], biases: list[np.ndarray], temperature: float = 1.0) -> dict[str, Any]:
    """The gradient of the cross-entropy of a network of two layers, by hand; weights may be complex."""
    w, v = weights["hidden/kernel"], weights["out/kernel"]
    h = np.tanh(X @ w + biases[0])
    p = np.exp((h @ v + biases[1]) / temperature)
    back = (p / p.sum(1, keepdims=True) - np.eye(3)[Y]) / len(X) / temperature
    return {"hidden/kernel": X.T @ (back @ v.T * (1 - h**2)), "out/kernel": h.T @ back}


def parts(model: keras.Model) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    layers = [model.get_layer(name) for name in ("hidden", "out")]
    return {f"{one.name}/kernel": one.kernel.numpy() for one in layers}, [one.bias.numpy() for one in layers]


@pytest.mark.parametrize("softmax", [False, True])
def test_snip_and_grasp_are_those_of_a_network_by_hand(softmax: bool) -> None:
    model = mlp(softmax)
    weights, biases = parts(model)
    g = gradient(weights, biases)
    for path, scores in criteria.SNIP()(model, X, Y).items():
        np.testing.assert_allclose(scores, np.abs(g[path] * weights[path]), atol=1e-12)
    g = gradient(weights, biases, 200.0)
    # The derivative along g by a complex step: exact, as nothing is subtracted.
    moved = gradient({path: w + 1e-30j * g[path] for path, w in weights.items()}, biases, 200.0)
    expected = {path: -w * moved[path].imag / 1e-30 for path, w in weights.items()}
    for size in (None, 4):
        for path, s in criteria.GraSP(batch_size=size).saliency(model, X, Y).items():
            np.testing.assert_allclose(s, expected[path], rtol=1e-8, atol=1e-14)
    flat = np.concatenate([one.ravel() for one in expected.values()])
    order = {"highest": -flat, "lowest": flat, "least absolute": np.abs(flat)}
    for remove, kept in order.items():
        scores = criteria.GraSP(remove)(model, X, Y)
        masks = lth.select(scores, k=10)
        chosen = np.concatenate([mask.ravel() for mask in masks.values()])
        assert set(np.flatnonzero(chosen)) == set(np.argsort(-kept)[:10])


def test_snip_and_grasp_by_finite_differences_with_normalisation_by_the_batch() -> None:
    keras.utils.set_random_seed(5)
    layers = [
        keras.layers.Conv2D(3, 2, activation="tanh", name="conv"),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.Flatten(),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(3, name="out"),
    ]
    model = keras.Sequential([keras.Input((3, 3, 2)), *layers])
    model.compile("sgd", logits(), jit_compile=False)
    x, y = RNG.normal(size=(6, 3, 3, 2)), np.arange(6) % 3
    kernels = dict(lth.prunable(model))
    before = {path: variable.numpy() for path, variable in lth.surgery.variables(model).items()}

    def loss() -> float:
        norm = model.get_layer("norm")
        h = model.get_layer("conv")(x).numpy()
        z = (h - h.mean((0, 1, 2))) / np.sqrt(h.var((0, 1, 2)) + norm.epsilon)
        z = z * norm.gamma.numpy() + norm.beta.numpy()
        out = model.get_layer("out")(z.reshape(6, -1)).numpy()
        return float(np.mean(np.log(np.exp(out).sum(1)) - out[np.arange(6), y]))

    scores = criteria.SNIP()(model, x, y)
    for path, variable in kernels.items():
        value = variable.numpy()
        at = np.unravel_index(np.argmax(scores[path]), value.shape)
        ends = []
        for step in (1e-6, -1e-6):
            moved = value.copy()
            moved[at] += step
            variable.assign(moved)
            ends.append(loss())
        variable.assign(value)
        assert abs((ends[0] - ends[1]) / 2e-6 * value[at]) == pytest.approx(scores[path][at], rel=1e-7)
    g = lth.dense_gradients(model, x, y)
    found = criteria.GraSP(temperature=1)
    s = found.saliency(model, x, y)
    values = {path: variable.numpy() for path, variable in kernels.items()}
    ends = []
    for step in (1e-5, -1e-5):
        for path, variable in kernels.items():
            variable.assign(values[path] + step * g[path])
        ends.append(lth.dense_gradients(model, x, y))
    for path, variable in kernels.items():
        variable.assign(values[path])
        product = (ends[0][path] - ends[1][path]) / 2e-5
        np.testing.assert_allclose(s[path], -values[path] * product, rtol=1e-5, atol=1e-9)
    after = {path: variable.numpy() for path, variable in lth.surgery.variables(model).items()}
    assert all(np.array_equal(before[path], after[path]) for path in before)


def test_iterative_snip_is_a_loop_of_mask_and_score_and_force_takes_weights_back() -> None:
    model, other = mlp(), mlp()
    masks = lth.prune_iteratively(model, "snip", X, Y, density=0.25, iterations=6)
    for n in range(1, 7):
        scores = criteria.SNIP()(other, X, Y)
        k = round(32 * 0.25 ** (n / 6) + 1e-9)
        lth.mask(other, lth.select(scores, k=k, within=lth.masks_of(other) or None))
    assert masks == lth.masks_of(other) and masks.remaining == 8
    assert not lth.masks_of(model) and all(
        np.array_equal(a, b) for a, b in zip(parts(model)[1], parts(other)[1], strict=True)
    )
    assert np.count_nonzero(parts(model)[0]["hidden/kernel"]) == 20
    one = lth.prune_iteratively(model, criteria.SNIP(), X, Y, density=0.25, iterations=1)
    assert one == lth.select(criteria.SNIP()(model, X, Y), density=0.25)
    # FORCE scores what is pruned by the values that it had.
    weights, biases = parts(model)
    force = lth.prune_iteratively(model, "force", X, Y, density=0.125, iterations=2, schedule="linear")
    first = lth.select({path: np.abs(gradient(weights, biases)[path] * w) for path, w in weights.items()}, k=18)
    with_mask = gradient(first.apply(weights), biases)
    assert force == lth.select({path: np.abs(with_mask[path] * w) for path, w in weights.items()}, k=4)


def test_a_function_of_ones_own_prunes_iteratively_and_the_model_is_as_before() -> None:
    model = mlp()
    before = parts(model)[0]
    seen = []

    def least(network: keras.Model) -> dict[str, np.ndarray]:
        seen.append(sum(int(np.count_nonzero(v.numpy())) for v in lth.prunable(network).values()))
        return {path: 1 / (1 + np.abs(v.numpy())) for path, v in lth.prunable(network).items()}

    masks = lth.prune_iteratively(model, least, density=lth.densities.Uniform(0.25), iterations=3)
    assert seen[1:] == [32, 21, 13] and [row.remaining for row in masks.table()] == [5, 3]
    assert all(np.array_equal(before[path], one) for path, one in parts(model)[0].items())
    lth.mask(model, masks)
    with pytest.raises(ValueError, match=r"keeps 16 weights.*8.*unmask"):
        lth.prune_iteratively(model, "magnitude", density=0.5)
    assert lth.prune_iteratively(model, "magnitude", density=0.125, iterations=2).overlap(masks) == 1.0
    with pytest.raises(ValueError, match=r"schedule.*exponential.*cubic"):
        lth.prune_iteratively(model, "magnitude", density=0.1, schedule="cubic")
    with pytest.warns(UserWarning, match=r"1 of 2 .*hidden/kernel.*min_per_layer"):
        lth.prune_iteratively(mlp(), lambda m: {p: v.numpy() * 0 + ("out" in p) for p, v in lth.prunable(m).items()},
                              density=0.1, iterations=3)  # fmt: skip


def test_second_order_saliency_of_a_linear_layer_in_closed_form() -> None:
    keras.utils.set_random_seed(0)
    x, y = RNG.normal(size=(40, 4)) @ RNG.normal(size=(4, 4)), RNG.normal(size=(40, 1))
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, use_bias=False, name="out")])
    model.compile("sgd", "mse", jit_compile=False)
    w = model.get_layer("out").kernel.numpy()
    error = x @ w - y
    fisher = ((2 * error * x) ** 2).mean(0)[:, None]
    np.testing.assert_allclose(criteria.OBD()(model, x, y)["out/kernel"], fisher * w**2 / 2, rtol=1e-9)
    # With uncorrelated inputs the Hessian is diagonal, and one probe is enough.
    apart = np.linalg.qr(x)[0]
    for probes in (1, 3):
        found = criteria.OBD("hessian", probes=probes)(model, apart, y)["out/kernel"]
        np.testing.assert_allclose(found, (apart**2).mean(0)[:, None] * w**2, rtol=1e-9)
    scores = criteria.OBS(damping=1e-12, batch_size=7)(model, x)["out/kernel"]
    for i in range(4):
        # How much worse the layer must get if w_i is 0 and the other weights are the best that they can be.
        others = [j for j in range(4) if j != i]
        best = np.linalg.lstsq(x[:, others], x @ w[:, 0], rcond=None)[0]
        least = np.mean((x[:, others] @ best - x @ w[:, 0]) ** 2) / 2
        assert scores[i, 0] == pytest.approx(least, rel=1e-6)


def test_scores_by_activation_momentum_and_spread() -> None:
    model = mlp()
    weights, biases = parts(model)
    for power in (1, 2):
        scores = criteria.Activation(power, batch_size=4)(model, X)
        h = np.tanh(X @ weights["hidden/kernel"] + biases[0])
        size = (np.abs(h) ** power).mean(0) ** (1 / power)
        np.testing.assert_allclose(scores["out/kernel"], np.abs(weights["out/kernel"]) * size[:, None])
    spread = criteria.Threshold()(model)
    kept = lth.select(spread, threshold=1.0)
    for path, w in weights.items():
        assert np.array_equal(kept[path], np.abs(w) >= w.std())
    with pytest.raises(ValueError, match=r"momentum.*train"):
        criteria.Momentum()(model)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), logits(), jit_compile=False)
    g = gradient(weights, biases)
    model.train_on_batch(X, Y)
    for path, scores in criteria.Momentum()(model).items():
        np.testing.assert_allclose(scores, np.abs(0.1 * g[path]), rtol=1e-6)


def test_every_criterion_by_name_scores_every_weight_and_leaves_the_model() -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([
        keras.Input((4, 4, 1)), keras.layers.Conv2D(2, 3, padding="same", activation="relu"), keras.layers.Flatten(),
        keras.layers.Dense(3),
    ])  # fmt: skip
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), logits(), jit_compile=False)
    x, y = RNG.normal(size=(6, 4, 4, 1)), np.arange(6) % 3
    model.train_on_batch(x, y)
    shapes = {path: tuple(v.shape) for path, v in lth.prunable(model).items()}
    masks = lth.select(criteria.Magnitude()(model), density=0.5)
    lth.mask(model, masks)
    before = [np.array(v.numpy()) for v in [*model.variables, *model.optimizer.variables]]
    for name in ("magnitude", "random", "snip", "grasp", "synflow", "force", "obd", "obs", "activation", "momentum",
                 "threshold"):  # fmt: skip
        criterion = criteria.named(name, **({"seed": 0} if name == "random" else {}))
        found = criteria.scored(criterion, model, x, y)
        assert {path: one.shape for path, one in found.items()} == shapes, name
        assert all(np.isfinite(one).all() and (one >= 0).all() for one in found.values()), name
        assert name in criteria.described(criterion)
    after = [np.array(v.numpy()) for v in [*model.variables, *model.optimizer.variables]]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_imp_by_a_criterion_of_examples() -> None:
    model = mlp()
    imp = lth.IMPCallback(rounds=2, fraction=0.5, criterion="snip")
    model.fit(X, Y, epochs=3, callbacks=[imp], verbose=0)
    assert lth.masks_of(model).remaining == 8


def test_bad_input_is_said() -> None:
    model = mlp()
    with pytest.warns(UserWarning, match=r"1 of 3 classes \(2\).*per_class"):
        criteria.SNIP()(model, X, Y % 2)
    with pytest.raises(ValueError, match=r"remove.*least absolute.*most"):
        criteria.GraSP("most")
    with pytest.raises(ValueError, match=r"temperature.*-1"):
        criteria.GraSP(temperature=-1)
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"temperature=200.*mean_squared_error.*temperature=1"):
        criteria.GraSP()(model, X, np.eye(3)[Y])
    with pytest.raises(ValueError, match=r"examples.*x and y"):
        lth.prune_iteratively(mlp(), "snip", density=0.1)
    embedding = keras.Sequential([keras.Input((3,)), keras.layers.Embedding(4, 2), keras.layers.Flatten()])
    with pytest.raises(ValueError, match=r"Embedding.*Dense.*exclude"):
        criteria.Activation(also="embeddings")(
            keras.Sequential([*embedding.layers, keras.layers.Dense(1)]), np.ones((1, 3))
        )
    assert list(criteria.per_class([1, 0, 1, 0, 1], 2, seed=0)) != [] and len(criteria.per_class(Y, 2, seed=0)) == 6
    assert [int(np.sum(Y[criteria.per_class(Y, 2, seed=1)] == c)) for c in range(3)] == [2, 2, 2]
    with pytest.raises(ValueError, match=r"class 0 has 3.*count=4"):
        criteria.per_class(Y, 4, seed=0)
