"""Every optimizer that updates a weight of a model is rewound and restored, wherever it is held."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lth as lth
from keras_lth import surgery
from tests.surgery.rewinding import network, some_masks

X = np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(32, 2)).astype(np.float32)


class Wrapper:
    """Not Keras': passes gradients on."""

    def __init__(self, base: Any) -> None:
        self.base = base

    def apply_gradients(self, pairs: Any) -> None:
        self.base.apply_gradients(pairs)


class Slotted:
    __slots__ = ("inner",)

    def __init__(self, inner: Any) -> None:
        self.inner = inner


class Delegates(keras.optimizers.Optimizer):
    """Keras', around another under a name of its own, which it builds at its first step."""

    def __init__(self, other: Any) -> None:
        super().__init__(learning_rate=0.0)
        self.other = other

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        self.built = True
        self.other.apply(grads, trainable_variables)


class Pair(keras.Model):
    """Two layers; how the optimizers of each are held and used is given."""

    def __init__(self, hold: Callable[[Any, Any, Any], None], use: Callable[[Any], tuple[Any, Any]]) -> None:
        super().__init__()
        self.a, self.b = keras.layers.Dense(4, name="first"), keras.layers.Dense(2, name="second")
        self.use = use
        hold(self, keras.optimizers.Adam(0.01), keras.optimizers.SGD(0.1, momentum=0.9))

    def call(self, x: Any) -> Any:
        return self.b(self.a(x))

    def train_step(self, data: Any) -> Any:
        with tf.GradientTape(persistent=True) as tape:
            loss = tf.reduce_mean((self(data[0]) - data[1]) ** 2)
        for layer, optimizer in zip((self.a, self.b), self.use(self), strict=True):
            variables = layer.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return {"loss": loss}


def attributes(model: Any, a: Any, b: Any) -> None:
    model.opt_b, model.opt_a = b, a


def listed(model: Any, a: Any, b: Any) -> None:
    model.optimizers = [a, {"b": (b,)}]


def wrapped(model: Any, a: Any, b: Any) -> None:
    model.wrapped, model.slotted = Wrapper(a), Slotted({"x": b})


def of_layers(model: Any, a: Any, b: Any) -> None:
    model.a.optimizer, model.b.own = a, Wrapper(Wrapper(b))


def delegated(model: Any, a: Any, b: Any) -> None:
    model.opt_a, model.opt_b = Delegates(a), keras.optimizers.LossScaleOptimizer(b, initial_scale=1.0)


HOLDERS: dict[str, tuple[Any, Any]] = {
    "attributes": (attributes, lambda m: (m.opt_a, m.opt_b)),
    "containers": (listed, lambda m: (m.optimizers[0], m.optimizers[1]["b"][0])),
    "wrappers": (wrapped, lambda m: (m.wrapped, m.slotted.inner["x"])),
    "layers": (of_layers, lambda m: (m.a.optimizer, m.b.own)),
    "delegates": (delegated, lambda m: (m.opt_a, m.opt_b)),
}


def made(holder: str) -> Pair:
    keras.utils.set_random_seed(3)
    model = Pair(*HOLDERS[holder])
    model.compile()
    model(X[:1])
    return model


def learn(model: keras.Model, epochs: int = 1) -> None:
    model.fit(X, Y, batch_size=8, epochs=epochs, shuffle=False, verbose=0)


def moments(snapshot: lth.Snapshot) -> dict[str, float]:
    return {key: float(abs(snapshot.optimizer[key]).max()) for key in snapshot.slots}


@pytest.mark.parametrize("holder", HOLDERS)
def test_rewound_and_restored_also_where_they_are_not_built(holder: str) -> None:
    model = made(holder)
    start = surgery.snapshot(model)
    learn(model)
    at_k = surgery.snapshot(model)
    assert at_k.step == 4 and {"a/kernel", "b/kernel"} <= {"/".join(k.split("/")[-2:]) for k in at_k.slots}
    assert min(moments(at_k).values()) > 0
    learn(model)
    end = surgery.snapshot(model)

    surgery.rewind(model, at_k)
    fresh = surgery.snapshot(model)
    assert fresh.step == 4 and max(value for key, value in moments(fresh).items() if "scale" not in key) == 0
    surgery.rewind(model, at_k, restore_optimizer=True)
    assert surgery.snapshot(model).differences(at_k) == []
    learn(model)
    assert surgery.snapshot(model).differences(end) == []

    other = made(holder)
    assert surgery.snapshot(other).differences(start) == []
    surgery.rewind(other, at_k, restore_optimizer=True)
    assert surgery.snapshot(other).differences(at_k) == []
    learn(other)
    assert surgery.snapshot(other).differences(end) == []


def test_of_a_sub_model_that_was_compiled_by_itself() -> None:
    net = network(keras.optimizers.Adam(0.01))

    class Outer(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def call(self, x: Any) -> Any:
            return self.net(x)

        def train_step(self, data: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(self(data[0]) ** 2)
            variables = self.net.trainable_variables
            self.net.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
            return {"loss": loss}

    outer = Outer()
    outer.compile()
    outer.build((None, 5))
    seen = []
    look = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: seen.append(
            (
                batch,
                int(net.optimizer.iterations),
                max([float(abs(v.numpy()).max()) for v in net.optimizer.variables[2:]] or [0.0]),
            )
        )
    )
    imp = lth.IMPCallback(rounds=1, epochs_per_round=1, rewind_to="2 steps", verbose=0)
    data = lth.datasets.ordered(X[:, :5], Y, batch_size=8, seed=0)
    outer.fit(data, epochs=2, verbose=0, callbacks=[imp, look])
    assert [count for _, count, _ in seen] == [0, 1, 2, 3, 2, 3]
    assert seen[4][2] == 0 and seen[3][2] > 0


def test_taken_from_outside_by_the_step_or_by_a_loop_of_ones_own() -> None:
    """A closure has a place; what only a loop holds is found by its weights."""
    optimizer, momentum = keras.optimizers.Adam(0.01), keras.optimizers.SGD(0.1, momentum=0.9)

    class Closed(Pair):
        def train_step(self, data: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((self(data[0]) - data[1]) ** 2)
            variables = self.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
            return {"loss": loss}

    model = Closed(lambda m, a, b: None, lambda m: ())
    model.compile(optimizer=None)
    model(X[:1])
    learn(model)
    taken = surgery.snapshot(model)
    assert taken.step == 4 and all(key[:3].isdigit() for key in taken.slots)

    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(model(X) ** 2)
    momentum.apply_gradients(
        zip(tape.gradient(loss, model.b.trainable_variables), model.b.trainable_variables, strict=True)
    )
    both = surgery.snapshot(model)
    assert [key for key in both.slots if key.startswith("@held_elsewhere.SGD/")] != []
    learn(model)
    surgery.rewind(model, both)
    assert max(moments(surgery.snapshot(model)).values()) == 0
    surgery.rewind(model, both, restore_optimizer=True)
    assert surgery.snapshot(model).differences(both) == []


def test_a_step_of_ones_own_that_was_traced_before_is_corrected_too() -> None:
    """At k = 3 with new slots the first update of Adam is the rate, as at step 0; uncorrected it is twice as large."""
    model, optimizer = network(None), keras.optimizers.Adam(0.01)
    kernel = model.trainable_variables[0]

    @tf.function
    def step(x: Any) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model(x) ** 2)
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    for _ in range(3):
        step(X[:, :5])
    surgery.rewind(model, surgery.snapshot(model))
    before = kernel.numpy()
    step(X[:, :5])
    np.testing.assert_allclose(np.abs(kernel.numpy() - before).max(), 0.01, rtol=1e-3)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_of_a_masked_and_rewound_model_trains(duplicate: Any) -> None:
    model = network(keras.optimizers.Adam(0.01))
    for _ in range(2):
        model.train_on_batch(X[:, :5], np.arange(32) % 3)
    surgery.rewind(model, surgery.snapshot(model), some_masks(model))
    model.train_on_batch(X[:, :5], np.arange(32) % 3)
    at = surgery.snapshot(model)
    other = duplicate(model)
    taken = surgery.snapshot(other)
    assert taken.step == 3
    assert [path for path, value in at.weights.items() if not np.array_equal(value, taken.weights[path])] == []
    masks = surgery.masks_of(model)
    surgery.rewind(other, at, masks, restore_optimizer=True)
    assert surgery.snapshot(other).differences(at) == []
    for one in (model, other):
        one.train_on_batch(X[:, :5], np.arange(32) % 3)
    assert surgery.snapshot(other).differences(surgery.snapshot(model)) == []
    assert not any(np.any(surgery.variables(other)[path].numpy()[~mask]) for path, mask in masks.items())


def test_a_ticket_is_as_large_as_its_weights(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((200,)), keras.layers.Dense(300), keras.layers.Dense(10)])
    model.compile("adam", "mse")
    model.train_on_batch(np.ones((2, 200)), np.ones((2, 10)))
    masks = surgery.mask(model, some_masks(model))
    lth.Ticket(masks, surgery.snapshot(model)).save(tmp_path / "ticket")
    surgery.snapshot(model, optimizer=False).save(tmp_path / "snapshot")
    weights = 4 * model.count_params()
    assert surgery.snapshot(model).has_slots
    assert (tmp_path / "ticket").stat().st_size < 1.1 * weights
    assert (tmp_path / "snapshot").stat().st_size < 1.1 * weights
    loaded = lth.Ticket.load(tmp_path / "ticket").snapshot
    assert not loaded.has_slots and loaded.optimizer["000/iteration"] == 1


def test_what_cannot_be_found_or_kept_is_refused_by_name() -> None:
    model = made("attributes")
    learn(model)
    taken = surgery.snapshot(model)
    plain = Pair(lambda m, a, b: None, lambda m: ())
    plain.compile()
    plain(X[:1])
    before = plain.get_weights()
    with pytest.raises(ValueError, match=r"@opt_a.*set it as an attribute"):
        surgery.rewind(plain, taken, restore_optimizer=True)
    assert all(np.array_equal(a, b) for a, b in zip(before, plain.get_weights(), strict=True))

    class Legacy:
        def apply_gradients(self, pairs: Any) -> None:
            """Not an optimizer of Keras 3."""

    for foreign in (Legacy(), tf.compat.v1.train.AdamOptimizer()):
        plain.foreign = [foreign]
        with pytest.raises(ValueError, match=rf"foreign/0 is {type(foreign).__name__}.*keras\.optimizers"):
            surgery.snapshot(plain)


def multi(callable_map: bool = False, scaled: bool = False) -> keras.optimizers.Optimizer:
    adam, sgd = keras.optimizers.Adam(0.02), keras.optimizers.SGD(0.1, momentum=0.9)
    rates = keras.optimizers.OptimizerMap(adam)
    rates[".*dense/kernel"] = sgd
    optimizer = keras.optimizers.MultiOptimizer(
        (lambda v: sgd if v.name == "bias" else adam) if callable_map else rates
    )
    return keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=4.0) if scaled else optimizer


class Own(keras.optimizers.Optimizer):
    """Slots in a list that skips biases and in a dictionary, a scalar, and slots that begin as the weight."""

    def build(self, variables: Any) -> None:
        super().build(variables)
        self.total = self.add_variable((), initializer="ones", name="total")
        matrices = [place for place, v in enumerate(variables) if len(v.shape) == 2]
        self.places = {place: number for number, place in enumerate(matrices)}
        self.kernels = [self.add_variable_from_reference(variables[place], name="sum") for place in matrices]
        self.rows = {v.path: self.add_variable(v.shape[:1], initializer="ones", name="row") for v in variables}
        self.slow = self.add_optimizer_variables(variables, "slow")
        for slow, variable in zip(self.slow, variables, strict=True):
            slow.assign(variable)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        self.total.assign_add(0.5)
        place = self._get_variable_index(variable)
        row = list(self.rows.values())[place]
        row.assign_add(keras.ops.ones_like(row))
        self.slow[place].assign(0.9 * self.slow[place] + 0.1 * variable)
        if len(variable.shape) == 2:
            self.kernels[self.places[place]].assign_add(gradient)
        variable.assign_sub(learning_rate * gradient * self.total)


OPTIMIZERS: dict[str, Callable[[], keras.optimizers.Optimizer]] = {
    name: getattr(keras.optimizers, name)
    for name in dir(keras.optimizers)
    if isinstance(getattr(keras.optimizers, name), type)
    and issubclass(getattr(keras.optimizers, name), keras.optimizers.Optimizer)
    and name not in ("Optimizer", "LossScaleOptimizer", "MultiOptimizer")
}
OPTIMIZERS |= {
    "LossScaleOptimizer": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(), initial_scale=8.0),
    "Own": lambda: Own(0.01),
}
if hasattr(keras.optimizers, "MultiOptimizer"):  # newer than the oldest Keras supported
    OPTIMIZERS |= {
        "MultiOptimizer": multi,
        "MultiOptimizer by a function": lambda: multi(callable_map=True),
        "LossScaleOptimizer of a MultiOptimizer": lambda: multi(scaled=True),
    }


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_of_keras(name: str) -> None:
    """Restored it is bit by bit where it was; else all that it holds, but clock and rate, is a new optimizer's."""
    model = network(OPTIMIZERS[name](), run_eagerly=True)

    def steps() -> None:
        for _ in range(2):
            model.train_on_batch(X[:8, :5], np.arange(8) % 3)

    start = surgery.snapshot(model)
    steps()
    at_k = surgery.snapshot(model)
    steps()
    end = surgery.snapshot(model)
    surgery.rewind(model, at_k, restore_optimizer=True)
    assert surgery.snapshot(model).differences(at_k) == []
    steps()
    assert surgery.snapshot(model).differences(end) == []

    surgery.rewind(model, at_k)
    rewound = surgery.snapshot(model)
    assert rewound.step == 2
    new = network(OPTIMIZERS[name]())
    new.set_weights(list(at_k.weights.values()))
    new.optimizer.build(new.trainable_variables)
    fresh = surgery.snapshot(new)
    assert rewound.slots == at_k.slots
    assert [key for key in fresh.slots if not np.array_equal(fresh.optimizer[key], rewound.optimizer[key])] == []
    surgery.rewind(model, start)
    assert surgery.snapshot(model).step == 0


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name.startswith("LossScaleOptimizer of")])
def test_imp_with_several_optimizers_in_one(name: str) -> None:
    tables = []
    for loop in (False, True):
        imp = lth.IMPCallback(rounds=1, epochs_per_round=1, rewind_to="2 steps", verbose=0)
        model = network(OPTIMIZERS[name]())
        data = lth.datasets.ordered(X[:, :5], np.arange(32) % 3, batch_size=8, seed=0)
        if loop:
            lth.training.fit(model, data, epochs=2, callbacks=[imp], jit_compile=False)
        else:
            model.fit(data, epochs=2, verbose=0, callbacks=[imp])
        tables.append((imp, surgery.snapshot(model)))
    (a, plain), (b, looped) = tables
    assert a.masks(1) == b.masks(1) and plain.step == looped.step == 4
    for path, value in plain.weights.items():
        np.testing.assert_allclose(value, looped.weights[path], atol=1e-5, err_msg=path)
