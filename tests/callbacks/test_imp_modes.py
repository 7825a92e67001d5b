"""IMP under the ways in which Keras runs a step, and rewinding as an exact repetition of the dense run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lth as lth
from keras_lth.datasets import ordered
from tests.callbacks.ledger import Ledger, check, mask_of_each, masked, same_bits
from tests.callbacks.zoo import BATCH, KINDS, ROWS, STEPS, TARGETS, Kind, Subclassed
from tests.forms import short_if, spread

L = keras.layers
optimizers = keras.optimizers
K = 2
WEIGHTS = 6 * 5 + 5 * 2


def network() -> keras.Model:
    return keras.Sequential(
        [keras.Input((6,)), L.Dense(5), L.BatchNormalization(), L.ReLU(), L.Dropout(0.2), L.Dense(2)]
    )


KIND = Kind(network, WEIGHTS)


def run(model: keras.Model, k: int = K, epochs: int = 1, **options: Any) -> tuple[lth.IMPCallback, Ledger]:
    imp, ledger = lth.IMPCallback(rounds=2, epochs_per_round=epochs, rewind_to=k, verbose=0, **options), Ledger(k)
    data = ordered(ROWS, TARGETS, batch_size=BATCH, seed=3)
    model.fit(data, epochs=3 * epochs, callbacks=[imp, ledger], verbose=0, shuffle=False)
    return imp, ledger


OPTIMIZERS = {
    "ema": lambda: optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=None),
    "ema_overwrites": lambda: optimizers.SGD(0.05, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=3),
    "accumulation": lambda: optimizers.Adam(0.01, gradient_accumulation_steps=2),
    "accumulation_across_k": lambda: optimizers.SGD(0.05, momentum=0.9, gradient_accumulation_steps=4),
    "clipnorm": lambda: optimizers.Adam(0.01, clipnorm=0.01),
    "global_clipnorm": lambda: optimizers.SGD(0.05, global_clipnorm=0.1),
    "decay": lambda: optimizers.AdamW(0.01, weight_decay=0.1),
    "decay_and_ema": lambda: optimizers.Lion(0.01, weight_decay=0.1, use_ema=True, ema_overwrite_frequency=2),
    "loss_scale": lambda: optimizers.LossScaleOptimizer(
        optimizers.Adam(0.01), initial_scale=64.0, dynamic_growth_steps=2
    ),
}


# Each has another way to hold slots or to use gradients; the others have it too. A scaled loss is among the precisions.
SHORT = ("ema", "accumulation_across_k", "global_clipnorm", "decay_and_ema")


@pytest.mark.parametrize("name", short_if(SHORT.__contains__, OPTIMIZERS))
def test_optimizers(name: str) -> None:
    model = KIND.built(optimizer=OPTIMIZERS[name])
    imp, ledger = run(model, restore_optimizer=name in ("ema", "accumulation_across_k", "decay", "loss_scale"))
    check(model, imp, ledger, WEIGHTS)


# Without a graph in test_imp.py.
@pytest.mark.parametrize(
    "options",
    short_if(
        lambda options: "jit_compile" in options,
        [{"run_eagerly": True}, {"steps_per_execution": 2}, {"jit_compile": True, "steps_per_execution": 2}],
    ),
    ids=str,
)
def test_ways_to_run_a_step(options: dict[str, Any]) -> None:
    model = KIND.built(optimizer=optimizers.Adam, **options)
    imp, ledger = run(model)
    check(model, imp, ledger, WEIGHTS)


@pytest.fixture
def policy() -> Iterator[Any]:
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize(
    "name", short_if(lambda name: name == "mixed_float16", ["mixed_float16", "mixed_bfloat16", "float64"])
)
def test_precisions(policy: Any, name: str) -> None:
    policy(name)
    model = KIND.built(optimizer=optimizers.Adam)
    assert isinstance(model.optimizer, optimizers.LossScaleOptimizer) == (name == "mixed_float16")
    imp, ledger = run(model)
    check(model, imp, ledger, WEIGHTS)
    imp.ticket().apply_to(other := KIND.built(seed=8, optimizer=optimizers.Adam))
    same_bits(other.get_weights(), masked(ledger.at_k, mask_of_each(other, imp.masks(2))))


class OwnStep(Subclassed):
    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x=x, y=y, y_pred=self(x, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": loss}


@pytest.mark.parametrize(
    "options", short_if(lambda options: not options, [{}, {"jit_compile": True, "steps_per_execution": 2}]), ids=str
)
def test_a_training_step_of_ones_own(options: dict[str, Any]) -> None:
    def make() -> keras.Model:
        model = OwnStep()
        model(ROWS[:1])
        return model

    model = Kind(make, 0).built(optimizer=optimizers.Adam, **options)
    imp, ledger = run(model)
    check(model, imp, ledger, KINDS["subclassed"].weights)
    assert imp.history[0].monitor == "loss"


@pytest.mark.parametrize(("kind", "restore"), spread(2, [optimizers.SGD, optimizers.Adam], [False, True]))
def test_slots_and_schedule_go_back(kind: Any, restore: bool) -> None:
    """Cosine rate 0.05·(1 + cos πs/T)/2 at each step of each round; slots of step k, or none, pruned entries 0."""
    total = 2 * STEPS
    schedule = optimizers.schedules.CosineDecay(0.05, total)
    optimizer = kind(schedule, **({"momentum": 0.9} if kind is optimizers.SGD else {}))
    model = KIND.built(optimizer=optimizer)
    imp, ledger = run(model, k=4, epochs=2, restore_optimizer=restore)
    steps = [*range(total), *range(4, total), *range(4, total)]
    wanted = [0.025 * (1 + math.cos(math.pi * step / total)) for step in steps]
    np.testing.assert_allclose(ledger.rates, wanted, rtol=1e-4, atol=1e-9)
    places = {id(variable): i for i, variable in enumerate(model.optimizer.variables)}
    slots = [optimizer.momentums] if kind is optimizers.SGD else [optimizer._momentums, optimizer._velocities]
    by_weight = dict(zip(map(id, model.weights), mask_of_each(model, imp.masks(2)), strict=True))
    for begin, round in ((2, 1), (4, 2)):
        by_weight = dict(zip(map(id, model.weights), mask_of_each(model, imp.masks(round)), strict=True))
        assert int(ledger.slots[begin][places[id(optimizer._iterations)]]) == 4
        moved = 0.0
        for held in slots:
            for weight, slot in zip(model.trainable_weights, held, strict=True):
                found, at_k = ledger.slots[begin][places[id(slot)]], ledger.slots_at_k[places[id(slot)]]
                same_bits([found], masked([at_k if restore else np.zeros_like(at_k)], [by_weight[id(weight)]]))
                moved += float(np.abs(at_k).sum())
        assert moved > 0


class GoBack(keras.callbacks.Callback):
    """Keeps the state of step k; after step T goes back with full masks and trains to T again."""

    def __init__(self, data: Any, k: int, epochs: int) -> None:
        super().__init__()
        self.data, self.k, self.dense = data, k, epochs
        self.kept: Any = None
        self.ends: list[lth.Snapshot] = []
        self.losses: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch
        if epoch == self.dense:
            full = {path: np.ones(tuple(v.shape), bool) for path, v in lth.prunable(self.model).items()}
            lth.rewind(self.model, self.kept, full, restore_optimizer=True)
            self.data.seek(self.k)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.epoch * STEPS + batch + 1 == self.k:
            self.kept = lth.snapshot(self.model)
        if self.epoch == self.dense and batch + 1 == STEPS - self.k % STEPS:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.model.stop_training = False
        if epoch == self.dense - 1 or epoch == 2 * self.dense - 1 - self.k // STEPS:
            self.ends.append(lth.snapshot(self.model))


EXACT = {
    "momentum": lambda: optimizers.SGD(optimizers.schedules.CosineDecay(0.05, 3 * STEPS), momentum=0.9),
    "adam": lambda: optimizers.Adam(0.01),
    "nadam_ema": lambda: optimizers.Nadam(0.01, use_ema=True, ema_overwrite_frequency=4),
}


@pytest.mark.parametrize(
    ("name", "jit"),
    short_if(
        lambda name, jit: name == "momentum" and jit,
        [(name, jit) for name in EXACT for jit in (False, True)],
    ),
)
def test_rewind_is_rewind(name: str, jit: bool) -> None:
    """Full masks, the slots of step k and the order of the data from there give the dense run again, bit by bit."""
    make, data = EXACT[name], ordered(ROWS, TARGETS, batch_size=BATCH, seed=3)
    model = KIND.built(optimizer=make, jit_compile=jit)
    back = GoBack(data, k=8, epochs=3)
    model.fit(data, epochs=3 + 2, callbacks=[back], verbose=0, shuffle=False)
    first, second = back.ends
    assert first.step == second.step == 3 * STEPS
    assert second.differences(first) == []
    # And a run of its own, which knows no masks, ends there too.
    dense = KIND.built(optimizer=make, jit_compile=jit)
    alone = GoBack(data, k=8, epochs=3)
    data.seek(0)
    dense.fit(data, epochs=3, callbacks=[alone], verbose=0, shuffle=False)
    assert alone.ends[0].differences(first) == []
    assert back.kept.differences(first) != []
