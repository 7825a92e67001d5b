"""Momentum and rates as the papers' equations say, in the compiled loop, with masks, and after a stop."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import pytest

from keras_lth import datasets, surgery, training
from keras_lth.rates import rates
from keras_lth.training import Momentum, Pieces, optimizers

T, MU, DECAY = 12, 0.9, 0.05
# From 0 to 0.1 at step 4, a tenth from step 8 on.
RATES = rates(0.1, {"warmup": 4, "drops": (8,)}, T)
draw = np.random.default_rng(0)
X, Y, MASK = draw.normal(size=(6, 4)), draw.normal(size=(6, 1)), np.array([[1], [0], [1], [1]])


def rate_at(step: int) -> float:
    return 0.1 * min(1, step / 4) * (0.1 if step >= 8 else 1)


def reference(w: Any, *, nesterov: bool, mask: Any, limit: float = math.inf) -> tuple[Any, Any]:
    """PyTorch's SGD (its documentation's algorithm) on the mean squared error, in double precision."""
    v = None
    w = w * mask
    for step in range(T):
        g = 2 * X.T @ (X @ w - Y) / len(X) * mask
        g *= min(1.0, limit / np.linalg.norm(g))
        g = g + DECAY * w
        v = g if v is None else MU * v + g
        w = w - rate_at(step) * (g + MU * v if nesterov else v)
    return w, v


def compiled(optimizer: Any, jit: bool) -> tuple[keras.Model, Any]:
    kernel = keras.initializers.GlorotNormal(1)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, use_bias=False, kernel_initializer=kernel)])
    model.compile(optimizer, loss="mse", jit_compile=jit)
    return model, datasets.ordered(X, Y, batch_size=len(X), seed=0)


@pytest.mark.parametrize(
    ("jit", "nesterov", "masked"), [(True, False, True), (False, False, False), (False, True, True)]
)
def test_it_is_the_papers_momentum(jit: bool, nesterov: bool, masked: bool) -> None:
    model, data = compiled(Momentum(Pieces(RATES), MU, nesterov, DECAY), jit)
    start = surgery.snapshot(model)
    (path,) = start.weights
    masks = {path: MASK.astype(bool)} if masked else None
    end = training.train(model, data, to=T, snapshot=start, masks=masks, jit_compile=jit)
    mask = MASK if masked else 1
    w, v = reference(start.weights[path].astype(float), nesterov=nesterov, mask=mask)
    np.testing.assert_allclose(end.weights[path], w, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(model.optimizer.momentums[0].numpy(), v, rtol=2e-5, atol=1e-6)
    if masked:
        assert end.weights[path][1] == 0
    # Keras' equations give other weights, already because the rate has changed.
    plain, data = compiled(keras.optimizers.SGD(Pieces(RATES), MU), jit)
    undecayed, _ = compiled(Momentum(Pieces(RATES), MU), jit)
    ends = [training.train(m, data, to=T, snapshot=start, jit_compile=jit).weights[path] for m in (plain, undecayed)]
    assert np.abs(ends[0] - ends[1]).max() > 1e-3
    # Stopped in the warm-up and again at the drop, it ends with the same bits.
    for stop in (2, 8):
        middle = training.train(model, data, to=stop, snapshot=start, masks=masks, jit_compile=jit)
        again = training.train(model, data, to=T, snapshot=middle, masks=masks, jit_compile=jit)
        assert again.same_bits(end)


def test_gradients_are_clipped_before_they_decay() -> None:
    model, data = compiled(Momentum(Pieces(RATES), MU, weight_decay=DECAY, clipnorm=0.1), False)
    start = surgery.snapshot(model)
    (path,) = start.weights
    w, _ = reference(start.weights[path].astype(float), nesterov=False, mask=1, limit=0.1)
    np.testing.assert_allclose(training.train(model, data, to=T, snapshot=start).weights[path], w, rtol=2e-5)


def test_it_is_saved_with_its_slots(tmp_path: Any) -> None:
    model, data = compiled(Momentum(Pieces(RATES), MU, True, DECAY), False)
    training.train(model, data, to=3)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert isinstance(loaded.optimizer, Momentum)
    assert (loaded.optimizer.decay, loaded.optimizer.momentum, loaded.optimizer.nesterov) == (DECAY, MU, True)
    assert surgery.snapshot(loaded).same_bits(surgery.snapshot(model))
    assert float(loaded.optimizer._learning_rate(2)) == pytest.approx(0.05)


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_rates_of_each_step(decay: str) -> None:
    found = Pieces(rates(0.4, {"warmup": 4, "decay": decay, "final": 0.1}, 10))
    share = [(step - 4) / 6 for step in range(4, 11)]
    if decay == "cosine":
        share = [(1 - math.cos(math.pi * u)) / 2 for u in share]
    want = [0, 0.1, 0.2, 0.3, *(0.4 - 0.3 * u for u in share)]
    np.testing.assert_allclose([float(found(step)) for step in range(11)], want, rtol=1e-6, atol=1e-7)
    constants = keras.optimizers.schedules.PiecewiseConstantDecay([4, 9], [0.1, 0.02, 0.003])
    mine = Pieces(((0, 0.1), (5, 0.02), (10, 0.003)))
    assert [float(mine(step)) for step in range(15)] == [float(constants(step)) for step in range(15)]


def test_optimizers_by_name() -> None:
    assert isinstance(optimizers.named("momentum", weight_decay=1e-4), Momentum)
    assert isinstance(optimizers.named("adam", learning_rate=Pieces(RATES), epsilon=1e-8), keras.optimizers.Adam)
    with pytest.raises(ValueError, match=r"weight_decay.*-1"):
        Momentum(weight_decay=-1)
    with pytest.raises(ValueError, match=r"momentum.*from 0 to 1.*1\.5"):
        Momentum(momentum=1.5)
    with pytest.raises(ValueError, match="linear or cosine, not 'sine'"):
        Pieces(((0, {"sine": [0, 0, 1, 1]}),))(0)
